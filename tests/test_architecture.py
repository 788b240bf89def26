"""The rules of the house, read off the source: who imports whom, what is pure, how large things are.

Each rule is a function from a module's syntax tree to findings, so that each is also shown
a snippet that breaks it: a rule that cannot fail would be worth nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

LAYERS = (
    {"availability", "clocks", "quorums"},
    {"consensus", "transactions"},
    {"storage"},
    {"net"},
    {"services"},
    {"node"},
    {"client", "statemachine"},
    {"checking"},
    {"simulation"},
    {"comparison"},
    {"cli"},
)
"""Parts of `quorate`, lowest first.  A part imports itself and lower layers, never a neighbour or upwards."""

SERVICE_REGISTRY = "quorate.node.process"
"""The only module outside a service that may import it: where a node's services are chosen."""

SHARED_BY_SERVICES = ("interface", "keepalive")

NODES_OWN_SERVICE = "cluster"
"""A node knows this one by name: the group that owns the members is part of the node (DESIGN.md section 4)."""

LABORATORY = {"checking", "simulation", "comparison"}
LABORATORY_COMMANDS = {
    "quorate.cli.availability_simulated",
    *("quorate.cli.check", "quorate.cli.simulate"),
    *(f"quorate.cli.compare{part}" for part in ("", "_plot", "_real", "_report", "_tables")),
}
"""The only modules outside the laboratory that may import it: nothing that runs in production does."""

TOP_MODULES = {"quorate", "quorate.__main__"}
"""Modules in no layer.  The package itself must import nothing; `__main__` imports the command line."""

LAZY = {("quorate", "importlib")}
"""The names that users take from the package itself are imported when they ask, so not by importing it."""

PURE_PATTERN = re.compile(
    r"quorate\.(consensus|transactions|availability|clocks|quorums|net\.http2)\b.*|quorate\.services\.\w+\.store"
    r"|quorate\.statemachine\.(commands|data|machine|store)"
)

PURE_LIBRARY = {
    *("__future__", "abc", "array", "base64", "bisect", "collections", "copy", "dataclasses", "enum", "functools"),
    *(
        "hashlib",
        "heapq",
        "hmac",
        "inspect",
        "ipaddress",
        "itertools",
        "math",
        "operator",
        "re",
        "string",
        "struct",
        "types",
        "typing",
    ),
    *("unicodedata", "weakref", "zlib", "msgspec", "google_crc32c", "hpack", "google"),  # google.protobuf
}
"""What pure modules may import from outside.  Anything with a clock, a random source, I/O or a thread stays out."""

IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "hash", "id"}
"""`hash` of text and `id` differ from process to process, so replicas would come to differ."""

MUTABLE_CALLS = {
    *("list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque", "ChainMap"),
    *("array", "count", "cycle", "iter", "WeakKeyDictionary", "WeakValueDictionary", "WeakSet"),
}

MAX_FILE_LINES = 700
MAX_FUNCTION_LINES = 80


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed source file."""

    name: str
    text: str
    tree: ast.Module
    is_package: bool = False


def parse(name: str, text: str, is_package: bool = False) -> Module:
    return Module(name, text, ast.parse(text), is_package)


def read_modules(folder: Path) -> dict[str, Module]:
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = parse(name, path.read_text(encoding="utf-8"), is_package)
    return modules


MODULES = read_modules(SOURCE)


def imports_of(module: Module, known: Mapping[str, Module] = MODULES) -> Iterator[tuple[str, int]]:
    """Every module imported anywhere in this one, and the line.

    `from quorate.a import b` imports `quorate.a.b` where that is a module, else `quorate.a`.  What only type checkers
    read counts too, but for the package itself, which every module imports.
    """
    for_types = {
        inner
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and module.name == "quorate"
        for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.name.split(".")
                kept = len(parents) - node.level + (1 if module.is_package else 0)
                base = ".".join([*parents[:kept], *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in known else base), node.lineno


def layer_of(name: str) -> int | None:
    part = name.split(".")[1] if "." in name else ""
    return next((rank for rank, layer in enumerate(LAYERS) if part in layer), None)


def wrong_directions(module: Module, known: Mapping[str, Module] = MODULES) -> Iterator[str]:
    own = layer_of(module.name)
    for target, line in imports_of(module, known):
        if target.split(".")[0] != "quorate":
            continue
        place = f"{module.name}:{line} imports {target}"
        if module.name in TOP_MODULES:
            if module.name == "quorate":
                yield f"{place}: the package itself imports nothing, because every module imports it"
            continue
        other = layer_of(target)
        if other is None:
            if target != "quorate":
                yield f"{place}, which is in no layer of LAYERS"
            continue
        assert own is not None, f"{module.name} is in no layer of LAYERS"
        source_part, target_part = module.name.split(".")[1], target.split(".")[1]
        if other > own or (other == own and source_part != target_part):
            yield f"{place}: imports point downward only"
        if target_part in LABORATORY and source_part not in LABORATORY and module.name not in LABORATORY_COMMANDS:
            yield f"{place}: only the commands of the laboratory may"
        known_services = (None, service_of(module.name), NODES_OWN_SERVICE if source_part == "node" else None)
        foreign_service = service_of(target) not in known_services
        if foreign_service and source_part in ("services", "node") and module.name != SERVICE_REGISTRY:
            yield f"{place}: only {SERVICE_REGISTRY} knows services by name"


def service_of(name: str) -> str | None:
    """`zookeeper` for `quorate.services.zookeeper.tree`; None for what services share and for other parts."""
    parts = name.split(".")
    if parts[:2] != ["quorate", "services"] or len(parts) < 3 or parts[2] in SHARED_BY_SERVICES:
        return None
    return parts[2]


def pure_closure(known: Mapping[str, Module] = MODULES) -> dict[str, str]:
    """Each module that must be pure -> why: it is pure by its place, or a pure module imports it."""
    closure = {name: "by its place" for name in known if PURE_PATTERN.fullmatch(name)}
    waiting = list(closure)
    while waiting:
        name = waiting.pop()
        for target, _ in imports_of(known[name], known):
            # Importing a.b.c runs a and a.b as well.
            parts = target.split(".")
            for end in range(1, len(parts) + 1):
                parent = ".".join(parts[:end])
                if parent in known and parent not in closure:
                    closure[parent] = f"imported by {name}"
                    waiting.append(parent)
    return closure


def impurities(module: Module, known: Mapping[str, Module] = MODULES) -> Iterator[str]:
    for target, line in imports_of(module, known):
        top = target.split(".")[0]
        if top != "quorate" and top not in PURE_LIBRARY and (module.name, target) not in LAZY:
            yield f"{module.name}:{line} imports {target}, which is not among the pure libraries"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield f"{module.name}:{node.lineno} calls {node.func.id}"
        if isinstance(node, ast.AsyncFunctionDef) and not is_declaration(node):
            yield f"{module.name}:{node.lineno} {node.name} is asynchronous"


def is_declaration(function: ast.AsyncFunctionDef) -> bool:
    """Only a docstring or `...`: a method of a Protocol, which runs nothing."""
    return all(isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant) for step in function.body)


def mutable_state(module: Module) -> Iterator[str]:
    """Assignments of something changeable to a name of the module or of a class, and `global`."""

    def scan(body: list[ast.stmt], where: str) -> Iterator[str]:
        for statement in body:
            if isinstance(statement, ast.ClassDef):
                yield from scan(statement.body, f"{where}.{statement.name}")
            elif isinstance(statement, ast.If | ast.Try | ast.With):
                for inner in ("body", "orelse", "finalbody"):
                    yield from scan(getattr(statement, inner, []), where)
            elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                names = {ast.unparse(target) for target in targets}
                # msgspec copies an empty display that is a field's default; __all__ is a list by custom.
                empty_default = (
                    isinstance(statement, ast.AnnAssign)
                    and where != module.name
                    and ast.unparse(statement.value) in ("[]", "{}", "set()")
                )
                if is_mutable(statement.value) and not names <= {"__all__", "__slots__"} and not empty_default:
                    yield f"{where}:{statement.lineno} keeps mutable state in {', '.join(sorted(names))}"

    yield from scan(module.tree.body, module.name)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield f"{module.name}:{node.lineno} declares a global variable"


def is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else ast.unparse(value.func)
        return name in MUTABLE_CALLS
    if isinstance(value, ast.BinOp):
        return is_mutable(value.left) or is_mutable(value.right)
    if isinstance(value, ast.BoolOp):
        return any(map(is_mutable, value.values))
    if isinstance(value, ast.IfExp):
        return is_mutable(value.body) or is_mutable(value.orelse)
    if isinstance(value, ast.Tuple):
        return any(map(is_mutable, value.elts))
    return False


def house_rules(module: Module) -> Iterator[str]:
    lines = module.text.count("\n")
    if lines > MAX_FILE_LINES:
        yield f"{module.name} has {lines} lines, more than {MAX_FILE_LINES}"
    for number, line in enumerate(module.text.splitlines(), 1):
        if re.search(r"#.*\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b", line):
            yield f"{module.name}:{number} puts work off in a comment"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > MAX_FUNCTION_LINES:
                yield f"{module.name}:{node.lineno} {node.name} has {size} lines, more than {MAX_FUNCTION_LINES}"
        if isinstance(node, ast.ExceptHandler):
            yield from swallowed(module, node)


def swallowed(module: Module, handler: ast.ExceptHandler) -> Iterator[str]:
    caught = ast.unparse(handler.type) if handler.type is not None else ""
    if not caught:
        yield f"{module.name}:{handler.lineno} has a bare except"
    elif caught in ("Exception", "BaseException") and all(isinstance(step, ast.Pass) for step in handler.body):
        yield f"{module.name}:{handler.lineno} swallows every exception"


def sleeps(module: Module) -> Iterator[str]:
    """Tests wait for events, not for time."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep":
            yield f"{module.name}:{node.lineno} sleeps"
        if isinstance(node, ast.ImportFrom) and node.module == "time" and any(a.name == "sleep" for a in node.names):
            yield f"{module.name}:{node.lineno} imports sleep"


def check(rule: Callable[[Module], Iterator[str]], modules: Mapping[str, Module]) -> None:
    report([finding for module in modules.values() for finding in rule(module)])


def report(findings: list[str]) -> None:
    if findings:
        pytest.fail("\n".join(findings), pytrace=False)


def test_there_is_something_to_check() -> None:
    assert {"quorate.consensus.replica", "quorate.node.config", "quorate.cli.main"} <= MODULES.keys()


def test_imports_point_downward() -> None:
    check(wrong_directions, MODULES)


def test_pure_packages_are_pure() -> None:
    closure = pure_closure()
    assert "quorate.consensus.replica" in closure
    report(
        [
            f"{finding} (it must be pure: {why})"
            for name, why in closure.items()
            for finding in impurities(MODULES[name])
        ]
    )


def test_no_module_keeps_mutable_state() -> None:
    check(mutable_state, MODULES)


@pytest.mark.parametrize("folder", ["src", "tests", "bench"])
def test_house_rules(folder: str) -> None:
    check(house_rules, read_modules(ROOT / folder))


def test_tests_do_not_sleep() -> None:
    check(sleeps, read_modules(ROOT / "tests"))


# --- every rule can fail ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("quorate.consensus.raft.core", "from quorate.storage import disk"),
        ("quorate.storage.log", "import quorate.net.links"),
        ("quorate.services.interface", "from quorate.node.config import NodeConfig"),
        ("quorate.services.etcd.store", "from quorate.services.zookeeper import tree"),
        ("quorate.services.keepalive.clock", "from quorate.services.zookeeper import tree"),
        ("quorate.node.group", "def late():\n    from quorate.services.zookeeper import store"),
        ("quorate.node.group", "from quorate import cli"),
        ("quorate.node.group", "from ..cli import main"),
        ("quorate.cli.up", "from quorate.simulation import loop"),
        ("quorate.cli.main", "from quorate.checking.linearizability import check"),
        ("quorate.node.group", "from quorate.checking import history"),
        ("quorate.checking.history", "from quorate.simulation import loop"),
        ("quorate.simulation.run", "from quorate.comparison import profiles"),
        ("quorate.cli.status", "from quorate.comparison.commits import Times"),
        ("quorate.cli.up", "import quorate.nowhere"),
        ("quorate", "from quorate.client import connect"),
        ("quorate", "if DEBUG:\n    from quorate.client import connect"),
    ],
)
def test_a_wrong_import_is_found(name: str, text: str) -> None:
    known = {**MODULES, "quorate.cli": parse("quorate.cli", ""), "quorate.simulation.loop": parse("x", "")}
    assert list(wrong_directions(parse(name, text, name == "quorate"), known))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("quorate.consensus.raft.core", "from quorate.consensus.replica import Replica\nimport math"),
        ("quorate.storage.log", "from quorate.consensus import records"),
        ("quorate.services.zookeeper.door", "from quorate.services.zookeeper import store"),
        ("quorate.services.zookeeper.door", "from quorate.services.keepalive import clock"),
        ("quorate.node.process", "from quorate.services.zookeeper import store"),
        ("quorate.node.group", "from quorate.services.interface import Door"),
        ("quorate.cli.node", "from quorate.node.process import run_node"),
        ("quorate.simulation.loop", "from quorate.node.process import run_node"),
        ("quorate.simulation.run", "from quorate.checking.linearizability import check"),
        ("quorate.cli.check", "from quorate.checking.linearizability import check"),
        ("quorate.cli.simulate", "from quorate.simulation import loop"),
        ("quorate", "if TYPE_CHECKING:\n    from quorate.client import connect"),
    ],
)
def test_a_right_import_is_left_alone(name: str, text: str) -> None:
    assert not list(wrong_directions(parse(name, text)))


@pytest.mark.parametrize(
    "text",
    [
        *(f"import {name}" for name in ("asyncio", "socket", "os", "time", "random", "logging", "threading")),
        *("from pathlib import Path", "import subprocess", "import os.path", "from datetime import datetime"),
        *("def f():\n    import secrets", "open('x')", "print(1)", "hash('x')", "async def f():\n    return 1"),
    ],
)
def test_an_impurity_is_found(text: str) -> None:
    assert list(impurities(parse("quorate.consensus.replica", text)))


def test_impurity_is_found_through_imports() -> None:
    modules = {
        module.name: module
        for module in [
            parse("quorate", "", is_package=True),
            parse("quorate.services", "", is_package=True),
            parse("quorate.services.zookeeper", "import socket", is_package=True),
            parse("quorate.services.zookeeper.store", "from quorate.services.zookeeper.tree import Tree"),
            parse("quorate.services.zookeeper.tree", "import time"),
            parse("quorate.services.zookeeper.door", "import asyncio"),
        ]
    }
    closure = pure_closure(modules)
    assert "quorate.services.zookeeper.door" not in closure
    found = {name for name in closure if list(impurities(modules[name], modules))}
    assert found == {"quorate.services.zookeeper", "quorate.services.zookeeper.tree"}


@pytest.mark.parametrize(
    "text",
    [
        *("CACHE = {}", "SEEN: set[int] = set()", "A = B = []", "NAMES = [n for n in range(3)]", "T = (1, [2])"),
        *("X = dict(a=1)", "Q = collections.deque()", "IDS = itertools.count()", "E = None or {}", "L = [1] * 3"),
        *("class C:\n    known = {}", "class C:\n    known: dict[int, int] = {1: 2}", "if True:\n    A = []"),
        "def f():\n    global state\n    state = 1",
    ],
)
def test_mutable_state_is_found(text: str) -> None:
    assert list(mutable_state(parse("m", text)))


@pytest.mark.parametrize(
    "text",
    [
        *("NAMES = MappingProxyType({1: 2})", "SOME = frozenset({1})", "T = tuple([1])", "N = len([1])"),
        *("__all__ = ['a']", "def f():\n    x = []", "class S(Struct):\n    names: list[str] = []"),
    ],
)
def test_constants_are_left_alone(text: str) -> None:
    assert not list(mutable_state(parse("m", text)))


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    f()\nexcept:\n    raise",
        "try:\n    f()\nexcept Exception:\n    pass",
        "x = 1  # TO" + "DO: more",
        "def f():\n" + "    g()\n" * MAX_FUNCTION_LINES,
        "x = 1\n" * (MAX_FILE_LINES + 1),
    ],
)
def test_a_broken_house_rule_is_found(text: str) -> None:
    assert list(house_rules(parse("m", text)))


def test_findings_fail_a_test() -> None:
    with pytest.raises(pytest.fail.Exception, match="keeps mutable state in X"):
        check(mutable_state, {"m": parse("m", "X = {}")})


@pytest.mark.parametrize("text", ["import time\ntime.sleep(1)", "from time import sleep"])
def test_a_sleep_is_found(text: str) -> None:
    assert list(sleeps(parse("m", text)))
