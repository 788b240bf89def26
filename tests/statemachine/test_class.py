"""What a class may be, what becomes of its commands and its state, and what is refused with which words."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

import quorate
from quorate.statemachine.errors import InvalidCommand, StateMachineFailed
from quorate.statemachine.store import Definition, Failed, Store
from tests.statemachine.shop import SoldOut, Stock


def restored(store: Store[Any], definition: Definition[Any] | None = None) -> Store[Any]:
    """Another replica, from the snapshot of this one."""
    other = Store(definition or store.definition)
    loader = other.restore()
    for slice_ in store.snapshot():
        loader.feed(slice_)
    loader.finish()
    return other


def do(store: Store[Any], method: Callable[..., Any], *args: Any, at_ms: int = 0, **kwargs: Any) -> Any:
    """One command, as a node would apply it."""
    (result,) = store.apply([store.definition.commands.encode(method, args, kwargs)], at_ms)
    return result


# --- commands --------------------------------------------------------------------------------


def test_a_command_is_carried_out_with_its_arguments_and_its_time() -> None:
    store = Store(Definition(Stock))
    assert do(store, Stock.add, "apples", 3, at_ms=1_000) == 3
    assert do(store, Stock.add, count=2, item="apples", at_ms=2_000) == 5
    assert do(store, Stock.add, "pears") == 1
    assert (store.machine.items, store.commands) == ({"apples": 5, "pears": 1}, 3)


def test_an_error_that_is_declared_is_a_result() -> None:
    store = Store(Definition(Stock))
    result = do(store, Stock.take, "apples", 1)
    assert isinstance(result, Failed)
    assert isinstance(result.error, SoldOut) and result.error.args == ("apples", 1)
    assert do(store, Stock.add, "apples") == 1


def test_any_other_error_stops_with_the_call_in_words() -> None:
    store = Store(Definition(Stock))
    do(store, Stock.add, "apples")
    with pytest.raises(
        StateMachineFailed, match=r"Stock\.share\('apples', 0\) raised ZeroDivisionError: .* quorate\.Com"
    ):
        do(store, Stock.share, "apples", 0)
    with pytest.raises(StateMachineFailed, match=r"Stock\.share\('x+\.\.\.\) raised KeyError") as failed:
        do(store, Stock.share, "x" * 10_000, 1)
    assert len(str(failed.value)) < 11_000, "the arguments are cut"


class Careless(quorate.StateMachine):
    count: int = 0

    @quorate.command
    def leave(self) -> None:
        self.count += 1
        raise SystemExit(3)

    @quorate.command
    def give_up(self) -> None:
        self.count += 1
        raise asyncio.CancelledError

    @quorate.command
    def names(self) -> Any:
        return {}.keys()

    @quorate.command
    def say(self, command: str) -> str:
        return command


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        (Careless.leave, r"Careless\.leave\(\) raised SystemExit: 3"),
        (Careless.give_up, r"Careless\.give_up\(\) raised CancelledError"),
        (Careless.names, r"Careless\.names\(\) returned a dict_keys, which cannot be copied"),
    ],
)
def test_nothing_that_a_command_does_leaves_it_half_done(command: Callable[..., Any], seen: str) -> None:
    with pytest.raises(StateMachineFailed, match=seen):
        do(Store(Definition(Careless)), command)


def test_what_a_command_returned_does_not_change_later() -> None:
    store = Store(Definition(Stock))
    do(store, Stock.add, "apples")
    seen = do(store, Stock.everything)
    do(store, Stock.add, "apples")
    seen["pears"] = 7
    assert (seen, store.machine.items) == ({"apples": 1, "pears": 7}, {"apples": 2})


def test_a_parameter_may_be_named_as_one_of_submit(tmp_path: Path) -> None:
    node = quorate.Replicated(Careless, node=0, members={0: "127.0.0.1:7000"}, data=tmp_path)
    with pytest.raises(quorate.NodeStopped):
        asyncio.run(node.submit(Careless.say, command="echo"))


class Unmarked(Stock):
    """Changes what a command does; it need not be marked again."""

    def add(self, item: str, count: int = 1) -> int:
        return super().add(item, 2 * count)


def test_a_command_may_be_overridden() -> None:
    assert do(Store(Definition(Unmarked)), Stock.add, "apples", 3) == 6


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        ((Stock.count, "apples"), r"Stock has no command count \(it has add, everything, share, take\): mark it"),
        ((lambda stock: 1,), "Stock has no command <lambda>"),
        ((Stock.take, "apples"), r"Stock\.take: missing a required argument: 'count'"),
        ((Stock.take, "apples", 1, 2), r"Stock\.take: too many positional arguments"),
        ((Stock.take, "apples", "1"), r"Stock\.take: Expected `int`, got `str`"),
        ((Stock.take, object(), 1), r"Stock\.take: Encoding objects of type object is unsupported"),
        ((Stock.take, "\ud800", 1), r"Stock\.take: .*surrogates not allowed"),
        ((Stock.take, "apples", 1 << 70), r"Stock\.take: "),
    ],
)
def test_what_is_no_command_is_not_submitted(call: tuple[Any, ...], seen: str) -> None:
    with pytest.raises(InvalidCommand, match=seen):
        do(Store(Definition(Stock)), *call)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    colour: Colour


class Shapes(quorate.StateMachine):
    """Types that have a plain form."""

    points: dict[tuple[int, str], list[Point]]
    last: Point | None
    kinds: ClassVar[int] = 3

    def __init__(self) -> None:
        self.points = {}
        self.last = None

    @quorate.command
    def draw(self, at: tuple[int, str], point: Point, *, times: int = 1) -> None:
        self.points.setdefault(at, []).extend([point] * times)
        self.last = point


def test_arguments_and_state_keep_their_types() -> None:
    store = Store(Definition(Shapes))
    do(store, Shapes.draw, (1, "a"), Point(7, Colour.RED), times=2)
    other = restored(store)
    assert other.machine.points == {(1, "a"): [Point(7, Colour.RED)] * 2}
    assert other.machine.last == Point(7, Colour.RED)


class Longer(quorate.StateMachine):
    """`Stock` of a later version: another parameter, another attribute."""

    items: dict[str, int]
    changed_ms: int
    prices: dict[str, int]

    def __init__(self) -> None:
        self.items = {}
        self.changed_ms = 0
        self.prices = {"apples": 5}

    @quorate.command
    def add(self, item: str, count: int = 1, price: int = 9) -> None:
        self.prices[item] = price


def test_old_commands_and_snapshots_fit_a_class_that_got_more() -> None:
    old, new = Store(Definition(Stock)), Definition(Longer)
    do(old, Stock.add, "apples", 3)
    store = restored(old, new)
    assert (store.machine.items, store.machine.prices) == ({"apples": 3}, {"apples": 5})
    store.apply([old.definition.commands.encode(Stock.add, ("pears",), {})], 0)
    assert store.machine.prices == {"apples": 5, "pears": 9}
    with pytest.raises(
        StateMachineFailed, match=r"a command in the log .* Longer has no command take; do the nodes run"
    ):
        store.apply([old.definition.commands.encode(Stock.take, ("pears", 1), {})], 0)
    with pytest.raises(StateMachineFailed, match=r"a snapshot does not fit Stock: .*unknown field `prices`"):
        restored(store, Definition(Stock))


# --- snapshots -------------------------------------------------------------------------------


def test_a_snapshot_is_the_state_with_its_time_and_its_order() -> None:
    store = Store(Definition(Stock))
    for item in ("pears", "apples", "x" * 200_000):
        do(store, Stock.add, item, at_ms=5_000)
    other = restored(store)
    assert list(other.machine.items) == list(store.machine.items), "the order of a dict is state"
    assert (other.machine.now_ms, other.machine.changed_ms, other.commands) == (5_000, 5_000, 3)
    assert list(other.snapshot()) == list(store.snapshot())


def test_a_snapshot_is_of_the_moment_when_it_was_begun() -> None:
    store = Store(Definition(Stock))
    do(store, Stock.add, "apples")
    slices = store.snapshot()
    do(store, Stock.add, "apples")
    loader = store.restore()
    for slice_ in slices:
        loader.feed(slice_)
    loader.finish()
    assert store.machine.items == {"apples": 1}


def test_half_a_snapshot_is_refused_and_changes_nothing() -> None:
    store = Store(Definition(Stock))
    do(store, Stock.add, "x" * 100_000)
    before = list(store.snapshot())
    loader = store.restore()
    loader.feed(before[0])
    loader.feed(before[1])
    with pytest.raises(ValueError, match="bytes of state"):
        loader.finish()
    assert list(store.snapshot()) == before


class Own(quorate.StateMachine):
    """Has snapshots of its own, so nothing is declared."""

    def __init__(self) -> None:
        self.seen = set[str]()

    @quorate.command
    def see(self, what: str) -> None:
        self.seen.add(what)

    def snapshot(self) -> bytes:
        return ",".join(sorted(self.seen)).encode()

    def restore(self, data: bytes) -> None:
        assert not self.seen, "restored on a new one"
        if data == b"b":
            raise KeyError("b")
        self.seen = set(data.decode().split(",")) if data else set()


def test_a_class_may_have_snapshots_of_its_own() -> None:
    store = Store(Definition(Own))
    do(store, Own.see, "a")
    assert restored(store).machine.seen == {"a"}
    store.machine.seen = {"b"}
    with pytest.raises(StateMachineFailed, match=r"Own\.restore\(\) raised KeyError: 'b'"):
        restored(store)


def test_a_state_that_is_not_as_declared_has_no_snapshot() -> None:
    store = Store(Definition(Stock))
    store.machine.items["apples"] = object()  # type: ignore[assignment]
    with pytest.raises(StateMachineFailed, match=r"the state of Stock cannot be written: .* type object"):
        store.snapshot()
    store.machine.items = {}
    store.machine.more = 1  # type: ignore[attr-defined]
    with pytest.raises(StateMachineFailed, match=r"Stock\.more is not declared, .* write `more: <its type>`"):
        store.snapshot()


# --- classes that are refused ----------------------------------------------------------------


class WithSet(quorate.StateMachine):
    seen: dict[str, list[set[str]]]


class WithAny(quorate.StateMachine):
    value: Any


class WithBareDict(quorate.StateMachine):
    value: dict  # type: ignore[type-arg]


class WithObject(quorate.StateMachine):
    queue: collections.deque[str]


class WithinStruct(quorate.StateMachine):
    class Inner(msgspec.Struct):
        names: frozenset[str]

    inner: Inner


class Shared(quorate.StateMachine):
    items: dict[str, int] = {}  # noqa: RUF012


class Undeclared(quorate.StateMachine):
    def __init__(self) -> None:
        self.hidden = 1


class Unset(quorate.StateMachine):
    value: int


class Unknown(quorate.StateMachine):
    value: Nowhere  # type: ignore[name-defined]  # noqa: F821


class OnlySnapshot(quorate.StateMachine):
    def snapshot(self) -> bytes:
        return b""


class TextSnapshot(quorate.StateMachine):
    def snapshot(self) -> str:
        return ""

    def restore(self, data: bytes) -> None:
        raise AssertionError("there is nothing to restore")


class NoTypes(quorate.StateMachine):
    @quorate.command
    def put(self, value) -> None:  # type: ignore[no-untyped-def]
        pass


class AnyNumber(quorate.StateMachine):
    @quorate.command
    def put(self, *values: int) -> None:
        pass


class SetArgument(quorate.StateMachine):
    @quorate.command
    def put(self, values: set[int]) -> None:
        pass


class NotDerived:
    pass


@pytest.mark.parametrize(
    ("machine", "seen"),
    [
        (WithSet, r"WithSet\.seen: a set has no order .* use dict\[\.\.\., None\]"),
        (WithAny, r"WithAny\.value: say what it holds"),
        (WithBareDict, r"WithBareDict\.value: say what it holds"),
        (WithObject, r"WithObject\.queue: deque has no plain form; use a dataclass"),
        (WithinStruct, r"WithinStruct\.inner: a set has no order"),
        (Shared, r"Shared\.items: its value in the class body would be one for all instances; set it in __init__"),
        (Undeclared, r"Undeclared\.hidden is not declared, .* write `hidden: <its type>`"),
        (Unset, r"Unset declares an attribute that it has not set: .*'value'"),
        (Unknown, r"Unknown: its annotations name something that is not known .*Nowhere"),
        (OnlySnapshot, r"OnlySnapshot has only one of snapshot\(\) and restore\(\)"),
        (TextSnapshot, r"TextSnapshot\.snapshot\(\) gave str, not bytes"),
        (NoTypes, r"NoTypes\.put: the parameter value has no type"),
        (AnyNumber, r"AnyNumber\.put: the parameter \*values: .* can be anything"),
        (SetArgument, r"SetArgument\.put, parameter values: a set has no order"),
        (NotDerived, r"NotDerived is not derived from quorate\.StateMachine"),
    ],
)
def test_a_class_that_cannot_be_replicated_says_what_to_write(machine: Any, seen: str) -> None:
    with pytest.raises(TypeError, match=seen):
        Definition(machine)


def test_a_command_is_done_when_it_returns() -> None:
    async def later(self: Any) -> None:
        raise AssertionError("never run")

    with pytest.raises(TypeError, match=r"later cannot be a command: .* no `async`"):
        quorate.command(later)
