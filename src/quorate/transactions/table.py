"""A small resource in memory: whole numbers by key, and steps that read and change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from quorate.transactions.resource import Plan, Unacceptable


class Read(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Returns the value of `key`; one that does not exist is None."""

    key: str


class Create(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Unacceptable where `key` exists."""

    key: str
    value: int


class Add(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Unacceptable where `key` does not exist, or would fall below `at_least`."""

    key: str
    amount: int
    at_least: int = 0


class Delete(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Unacceptable where `key` does not exist."""

    key: str


Step: TypeAlias = Read | Create | Add | Delete


_DECODER: Final = msgspec.msgpack.Decoder[tuple[Step, ...]](tuple[Step, ...])


def operation(*steps: Step) -> bytes:
    """Carried out one after the other, each seeing what those before it did."""
    return msgspec.msgpack.encode(steps)


def decode_result(result: bytes) -> list[int | None]:
    """What each step found at its key, before it did anything.  Raises msgspec.DecodeError."""
    return msgspec.msgpack.decode(result, type=list[int | None])


class Table:
    """A `Resource`."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = dict(values)

    def plan(self, operation: bytes) -> Plan:
        try:
            steps = _DECODER.decode(operation)
        except msgspec.DecodeError as error:
            raise Unacceptable(f"the operation is not a list of steps on a table: {error}") from error
        changed: dict[str, int | None] = {}
        found: list[int | None] = []
        for step in steps:
            value = changed[step.key] if step.key in changed else self.values.get(step.key)
            found.append(value)
            if not isinstance(step, Read):
                changed[step.key] = _changed(step, value)
        writes = {key: None if value is None else msgspec.msgpack.encode(value) for key, value in changed.items()}
        return Plan(frozenset(step.key for step in steps), writes, msgspec.msgpack.encode(found))

    def apply(self, writes: Mapping[str, bytes | None]) -> None:
        for key, data in writes.items():
            if data is None:
                del self.values[key]
            else:
                self.values[key] = msgspec.msgpack.decode(data, type=int)


_MAX_VALUE: Final = (1 << 63) - 1


def _changed(step: Create | Add | Delete, value: int | None) -> int | None:
    """The value that the step leaves.  Raises Unacceptable."""
    if isinstance(step, Create):
        if value is not None:
            raise Unacceptable(f"{step.key} exists already")
        if abs(step.value) > _MAX_VALUE:
            raise Unacceptable(f"{step.key} cannot be {step.value}: values are between {-_MAX_VALUE} and {_MAX_VALUE}")
        return step.value
    if value is None:
        raise Unacceptable(f"{step.key} does not exist")
    if isinstance(step, Delete):
        return None
    if not max(step.at_least, -_MAX_VALUE) <= value + step.amount <= _MAX_VALUE:
        bounds = f"{step.at_least} to {_MAX_VALUE}"
        raise Unacceptable(f"{step.key} is {value}, and {step.amount:+} would leave it outside of {bounds}")
    return value + step.amount
