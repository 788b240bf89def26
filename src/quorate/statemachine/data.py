"""Which types may stand in states and in commands, and the bytes that they become: msgpack, checked by type.

Types are refused that could make replicas differ: a set has no order of its own, and what is declared as anything may
come back as something else (a tuple as a list).  Dicts keep their order, which may be part of the state.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any, ClassVar, Union, get_origin

import msgspec
from msgspec import inspect as shapes

from quorate.statemachine.errors import StateMachineFailed
from quorate.statemachine.machine import StateMachine


def check_type(annotation: Any, what: str) -> None:
    """Raises TypeError that begins with `what`."""
    try:
        found = shapes.type_info(annotation)
    except TypeError as error:
        raise TypeError(f"{what}: {error}") from error
    problem = next(_problems(found, set()), None)
    if problem is not None:
        raise TypeError(f"{what}: {problem}")


def hints_of(of: Any, what: str) -> dict[str, Any]:
    """The annotations of a class or function, resolved.  Raises TypeError that begins with `what`."""
    try:
        return typing.get_type_hints(of)
    except NameError as error:
        raise TypeError(f"{what}: its annotations name something that is not known in its module: {error}") from error


def _problems(found: shapes.Type, seen: set[Any]) -> Iterator[str]:
    if isinstance(found, shapes.SetType | shapes.FrozenSetType):
        yield "a set has no order that is the same on every node; use dict[..., None]"
    elif isinstance(found, shapes.AnyType):
        yield "say what it holds (as dict[str, int] does): nobody knows what Any would come back as"
    elif isinstance(found, shapes.CustomType):
        yield f"{found.cls.__name__} has no plain form; use a dataclass, or write snapshot() and restore()"
    cls = getattr(found, "cls", None)
    if cls is not None:
        if cls in seen:
            return
        seen.add(cls)
    for name in found.__struct_fields__:
        yield from _problems_within(getattr(found, name), seen)


def _problems_within(value: object, seen: set[Any]) -> Iterator[str]:
    if isinstance(value, shapes.Type):
        yield from _problems(value, seen)
    elif isinstance(value, shapes.Field):
        yield from _problems(value.type, seen)
    elif isinstance(value, tuple):
        for item in value:
            yield from _problems_within(item, seen)


def _is_mutable(value: object) -> bool:
    """As `dataclasses` tells it: what cannot be a key may change."""
    return type(value).__hash__ is None


class StateCodec:
    """The declared attributes of a class as bytes, for classes that have no snapshots of their own."""

    def __init__(self, machine: type[StateMachine]) -> None:
        """Raises TypeError where a declaration is not one that every node would understand alike."""
        self._machine = machine
        hints = hints_of(machine, machine.__name__)
        hints.pop("now_ms")
        self._names = [name for name, hint in hints.items() if get_origin(hint) is not ClassVar]
        for name in self._names:
            what = f"{machine.__name__}.{name}"
            check_type(hints[name], what)
            if _is_mutable(inspect.getattr_static(machine, name, None)):
                raise TypeError(
                    f"{what}: its value in the class body would be one for all instances; set it in __init__"
                )
        # One that a snapshot of an older class does not have stays what __init__ made it.
        fields = [(name, Union[hints[name], msgspec.UnsetType], msgspec.UNSET) for name in self._names]  # noqa: UP007
        self._decoder = msgspec.msgpack.Decoder(
            msgspec.defstruct(f"{machine.__name__}State", fields, forbid_unknown_fields=True)
        )
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, machine: StateMachine) -> bytes:
        """Equal states give equal bytes.  Raises StateMachineFailed."""
        what = self._machine.__name__
        undeclared = vars(machine).keys() - {*self._names, "now_ms"}
        if undeclared:
            name = min(undeclared)
            raise StateMachineFailed(
                f"{what}.{name} is not declared, so no snapshot would hold it: write `{name}: <its type>` in the "
                "class body, or write snapshot() and restore()"
            )
        try:
            return self._encoder.encode({name: getattr(machine, name) for name in self._names})
        except AttributeError as error:
            raise StateMachineFailed(f"{what} declares an attribute that it has not set: {error}") from error
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StateMachineFailed(f"the state of {what} cannot be written: {error}") from error

    def decode(self, machine: StateMachine, data: bytes) -> None:
        """Set the attributes.  Raises StateMachineFailed."""
        try:
            state = self._decoder.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise StateMachineFailed(
                f"a snapshot does not fit {self._machine.__name__}: {error}; was the class changed?"
            ) from error
        for name in self._names:
            value = getattr(state, name)
            if value is not msgspec.UNSET:
                setattr(machine, name, value)
