"""What an object promises when its operations come one at a time: register, key-value store, queue, lock.

A model turns each operation into an *action*: a partial function over states.  `apply(state)` is the state after the
operation, or IMPOSSIBLE where the operation could not have happened as it was recorded: a read of 3 is possible
only in the state 3, and leaves it.  So arguments, results and unknown outcomes are dealt with once, in `action`, and
the search (linearizability.py) knows nothing of them.  The idea of a model as plain functions is porcupine's.

States are small and hashable.  JSON values become hashable by `freeze`, which also keeps `true` apart from 1, where
Python's `==` does not.

An operation whose outcome is unknown and that may have had no effect needs no state in which it has none: the search
may leave it out.  Its action is therefore IMPOSSIBLE wherever it would change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from quorate.checking.history import HistoryError, JsonValue, Operation, describe

State: TypeAlias = Hashable


class Impossible:
    """The type of IMPOSSIBLE: no state at all."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "IMPOSSIBLE"


IMPOSSIBLE = Impossible()
NO_VALUE = IMPOSSIBLE
"""Of an action that produces or observes no value.  (None is a value: the null of an absent key.)"""


@dataclass(frozen=True, slots=True)
class Action:
    """One operation as a partial function over states, and what the search may know of it beforehand."""

    apply: Callable[[State], State]
    identity: Hashable
    """Actions of equal identity are the same function, so that one may stand for the other."""
    produces: State = NO_VALUE
    """The value that others can observe because of it."""
    observes: State = NO_VALUE
    """The value that must be there for it to happen."""
    compares: State = NO_VALUE
    """The value that it tells from all others, whether it found it or not."""
    changes: bool = True
    """False for what never changes the state, such as a read."""
    excludes: bool = False
    """It tells what the value was not."""
    composes: bool = False
    """It makes values out of values (append), so that an observed value may have no single producer."""


@dataclass(frozen=True, slots=True)
class Model:
    """One kind of object.  Every key is an object of its own, in the same initial state."""

    name: str
    initial: State
    actions: Mapping[str, Callable[[Operation], Action]]
    """Operation -> what makes an action of it; raises HistoryError where argument or result have the wrong shape."""
    show: Callable[[State], str]
    """A state in words for a report."""
    needs_key: bool = False
    fifo: bool = False
    """What was produced first is observed first, and each value once."""

    def action(self, operation: Operation) -> Action:
        """Raises HistoryError."""
        make = self.actions.get(operation.f)
        if make is None:
            raise HistoryError(
                operation.line, f"{describe(operation.f)} is no operation of a {self.name}: {', '.join(self.actions)}"
            )
        if self.needs_key and operation.key is None:
            raise HistoryError(operation.line, f"{operation.f} needs a key")
        made = make(operation)
        outcome = "unknown" if operation.returned_at is None else ("known", freeze(operation.result))
        return replace(made, identity=(operation.f, freeze(operation.argument), outcome, made.identity))


def freeze(value: JsonValue) -> State:
    """A JSON value as a hashable one, equal where the JSON values are."""
    if isinstance(value, bool):
        return ("boolean", value)
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, Mapping):
        return ("object", tuple(sorted((name, freeze(inner)) for name, inner in value.items())))
    return ("array", tuple(map(freeze, value)))


def thaw(state: State) -> object:
    """The JSON value of a frozen one."""
    if not isinstance(state, tuple):
        return state
    kind, content = state
    if kind == "object":
        return {name: thaw(inner) for name, inner in content}
    return [thaw(inner) for inner in content] if kind == "array" else content


# --- register and key-value store: one value, null at first ----------------------------------


def _read(operation: Operation) -> Action:
    _takes_nothing(operation)
    found = freeze(operation.result)
    return Action(lambda state: state if state == found else IMPOSSIBLE, None, NO_VALUE, found, found, changes=False)


def _write(operation: Operation) -> Action:
    _returns_nothing(operation)
    written = freeze(operation.argument)
    return Action(lambda _: written, None, produces=written)


def _put(operation: Operation) -> Action:
    if operation.argument is None:
        raise _wrong_argument(operation, "needs a value: null is what an absent key reads, which is delete's to make")
    return _write(operation)


def _compare_and_set(operation: Operation) -> Action:
    pair = operation.argument
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise _wrong_argument(operation, "needs a pair, [old, new]")
    old, new = map(freeze, pair)
    if operation.returned_at is None:
        # The same value again changes nothing, so it is left out.
        return Action(lambda state: new if state == old != new else IMPOSSIBLE, None, new, compares=old)
    if operation.result is False:
        return Action(
            lambda state: IMPOSSIBLE if state == old else state, None, compares=old, changes=False, excludes=True
        )
    _returns_nothing(operation)
    return Action(lambda state: new if state == old else IMPOSSIBLE, None, new, old, old, changes=old != new)


def _append(operation: Operation) -> Action:
    _returns_nothing(operation)
    suffix = operation.argument
    if not isinstance(suffix, str):
        raise _wrong_argument(operation, "needs a string")

    def apply(state: State) -> State:
        if state is None:
            return suffix
        return state + suffix if isinstance(state, str) else IMPOSSIBLE

    return Action(apply, None, produces=suffix, composes=True)


def _delete(operation: Operation) -> Action:
    _takes_nothing(operation)
    if operation.returned_at is None or operation.result is True:
        return Action(lambda state: IMPOSSIBLE if state is None else None, None, produces=None, excludes=True)
    if operation.result is False:
        return Action(lambda state: None if state is None else IMPOSSIBLE, None, observes=None, changes=False)
    _returns_nothing(operation)
    return Action(lambda _: None, None, produces=None)


def _show_value(state: State) -> str:
    return f"the value is {describe(thaw(state))}"


# --- queue: a tuple of frozen values, the head first -----------------------------------------


def _enqueue(operation: Operation) -> Action:
    _returns_nothing(operation)
    value = freeze(operation.argument)
    if value is None:
        raise _wrong_argument(operation, "needs a value: null is what an empty queue gives")

    def apply(state: State) -> State:
        assert isinstance(state, tuple)
        return (*state, value)

    return Action(apply, None, produces=value)


def _dequeue(operation: Operation) -> Action:
    _takes_nothing(operation)
    if operation.returned_at is None:
        return Action(_drop_head, None)
    found = freeze(operation.result)
    if found is None:
        return Action(lambda state: IMPOSSIBLE if state else state, None, observes=None, changes=False)

    def apply(state: State) -> State:
        assert isinstance(state, tuple)
        return state[1:] if state and state[0] == found else IMPOSSIBLE

    return Action(apply, None, observes=found)


def _drop_head(state: State) -> State:
    assert isinstance(state, tuple)
    return state[1:] if state else IMPOSSIBLE


def _show_queue(state: State) -> str:
    assert isinstance(state, tuple)
    return f"the queue holds {describe([thaw(value) for value in state])}" if state else "the queue is empty"


# --- lock: who holds it, None for nobody -----------------------------------------------------


def _acquire(operation: Operation) -> Action:
    _takes_nothing(operation)
    if operation.returned_at is not None and operation.result is False:
        return Action(lambda state: IMPOSSIBLE if state is None else state, None, changes=False)
    owner = (operation.process,)  # any other result is a success: it may be a fencing token
    return Action(lambda state: owner if state is None else IMPOSSIBLE, owner)


def _release(operation: Operation) -> Action:
    _takes_nothing(operation)
    owner = (operation.process,)
    if operation.returned_at is not None and operation.result is False:
        return Action(lambda state: IMPOSSIBLE if state == owner else state, owner, changes=False)
    if operation.returned_at is not None:
        _returns_nothing(operation)
    return Action(lambda state: None if state == owner else IMPOSSIBLE, owner)


def _show_lock(state: State) -> str:
    if state is None:
        return "nobody holds the lock"
    assert isinstance(state, tuple)
    return f"process {state[0]} holds the lock"


# --- shapes ----------------------------------------------------------------------------------


def _wrong_argument(operation: Operation, expected: str) -> HistoryError:
    return HistoryError(
        operation.line, f"the argument of {operation.f} is {describe(operation.argument)}; it {expected}"
    )


def _takes_nothing(operation: Operation) -> None:
    if operation.argument is not None:
        raise _wrong_argument(operation, "takes none (a history of [key value] pairs is read with --independent)")


def _returns_nothing(operation: Operation) -> None:
    """A success without a result says null or true, or repeats the argument."""
    result = operation.result
    if operation.returned_at is None or result is None or result is True:
        return
    if freeze(result) != freeze(operation.argument):
        raise HistoryError(
            operation.line,
            f"the result of {operation.f} {describe(operation.argument)} is {describe(result)}; "
            "a success says null or true, or repeats the argument",
        )


REGISTER = Model(
    "register",
    None,
    MappingProxyType({"read": _read, "write": _write, "cas": _compare_and_set}),
    _show_value,
)
KV = Model(
    "kv",
    None,
    MappingProxyType({"get": _read, "put": _put, "append": _append, "delete": _delete, "cas": _compare_and_set}),
    _show_value,
    needs_key=True,
)
QUEUE = Model("queue", (), MappingProxyType({"enqueue": _enqueue, "dequeue": _dequeue}), _show_queue, fifo=True)
LOCK = Model("lock", None, MappingProxyType({"acquire": _acquire, "release": _release}), _show_lock)

MODELS = MappingProxyType({model.name: model for model in (REGISTER, KV, QUEUE, LOCK)})
"""What `quorate check --model` knows."""
