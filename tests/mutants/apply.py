"""Puts a mutant into the modules that it changes, while they are imported.

    apply(mutant)               # first of all: no module that it changes may have been imported
    import quorate...           # runs the changed source
    check_applied(mutant)       # every changed module was in fact imported

The source is read, changed, compiled and executed; nothing is written, bytecode neither.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from tests.mutants.mutant import Mutant


class NotApplicable(Exception):
    """The code has moved on: a snippet is not in the source exactly once.  Mend the mutant."""


def mutate(mutant: Mutant, module: str, source: str) -> str:
    """The changed source of one module.  Raises NotApplicable."""
    for change in mutant.changes:
        if change.module != module:
            continue
        count = source.count(change.before)
        if count != 1:
            raise NotApplicable(
                f"mutant {mutant.name}: expected once in {module}, found {count} times:\n{change.before}"
            )
        source = source.replace(change.before, change.after)
    return source


class _MutatedLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        # Not `super().get_code`, which would take the unchanged module's bytecode from the cache, and fill the cache.
        path = self.get_filename(fullname)
        return self.source_to_code(mutate(self._mutant, fullname, self.get_data(path).decode()).encode(), path)


class _MutatingFinder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self._modules = mutant.modules()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._modules:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _MutatedLoader(fullname, spec.origin, self._mutant)
        return spec


def apply(mutant: Mutant) -> None:
    """Whoever imports the mutant's modules from now on in this process gets the changed ones."""
    early = [module for module in mutant.modules() if module in sys.modules]
    if early:
        raise NotApplicable(f"mutant {mutant.name}: imported before it was applied: {', '.join(early)}")
    sys.meta_path.insert(0, _MutatingFinder(mutant))


def check_applied(mutant: Mutant) -> None:
    """Raises NotApplicable where what was imported does not hold the bug."""
    missing = [
        module
        for module in mutant.modules()
        if module not in sys.modules or not isinstance(sys.modules[module].__loader__, _MutatedLoader)
    ]
    if missing:
        raise NotApplicable(f"mutant {mutant.name}: not in use although applied: {', '.join(missing)}")
