"""Every mutant fits the code as it is now; no simulation here."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.apply import NotApplicable, mutate
from tests.mutants.catalogue import ALL, MUTANTS
from tests.mutants.mutant import Change, Mutant

ROOT = Path(__file__).parents[2]


def source_of(module: str) -> str:
    return (ROOT / "src" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")


def test_there_are_enough_mutants_and_no_two_of_one_name() -> None:
    assert len(MUTANTS) == len(ALL) >= 44


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_the_mutant_applies_and_changes_what_the_code_does(mutant: Mutant) -> None:
    assert mutant.changes
    for module in mutant.modules():
        source = source_of(module)
        mutated = mutate(mutant, module, source)
        compile(mutated, module, "exec")
        # The tree, so that neither space nor a comment passes for a bug.
        assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source)), module


def test_a_snippet_that_is_not_there_exactly_once_is_an_error() -> None:
    mutant = Mutant("any", "nothing", (Change("a.b", "x = 1\n", "x = 2\n"),))
    for source in ("x = 3\n", "x = 1\nx = 1\n"):
        with pytest.raises(NotApplicable, match=r"expected once in a\.b"):
            mutate(mutant, "a.b", source)
    assert mutate(mutant, "a.c", "x = 3\n") == "x = 3\n"


def run_python(*lines: str) -> subprocess.CompletedProcess[str]:
    program = "\n".join(["from tests.mutants import apply, catalogue", *lines])
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["vote_before_fsync", "create_after_session_end", "retry_lost_proposals"])
def test_whoever_imports_the_module_gets_the_changed_one(name: str) -> None:
    done = run_python(
        f"mutant = catalogue.MUTANTS[{name!r}]",
        "apply.apply(mutant)",
        "import quorate.simulation.run",  # everything that a node is made of, and its services
        "apply.check_applied(mutant)",
        "from quorate.services.zookeeper import store",
        "print(hasattr(store, '_is_gone'))",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(name == "create_after_session_end")


def test_a_mutant_that_comes_too_late_or_is_not_used_is_an_error() -> None:
    late = run_python("import quorate.consensus.raft.core", "apply.apply(catalogue.MUTANTS['vote_without_persisting'])")
    assert late.returncode != 0 and "imported before it was applied" in late.stderr
    unused = run_python(
        "mutant = catalogue.MUTANTS['vote_without_persisting']", "apply.apply(mutant)", "apply.check_applied(mutant)"
    )
    assert unused.returncode != 0 and "not in use although applied" in unused.stderr
