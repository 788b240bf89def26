"""A user's class as `quorate.services.interface.Store`: pure."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from quorate.services.interface import StoreLoader
from quorate.statemachine.commands import CommandCodec
from quorate.statemachine.data import StateCodec
from quorate.statemachine.errors import CommandError, StateMachineFailed
from quorate.statemachine.machine import StateMachine

M = TypeVar("M", bound=StateMachine)

SLICE_BYTES: Final = 1 << 16
_UNCHANGING: Final = (type(None), bool, int, float, str, bytes)


@dataclass(frozen=True, slots=True)
class Failed:
    """The result of a command that raised a CommandError."""

    error: CommandError


Result: TypeAlias = Any
"""What the method returned, or Failed."""


class _Head(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot begins with."""

    commands: int
    """Carried out so far."""
    now_ms: int
    state_bytes: int
    """Behind this head."""


class Definition(Generic[M]):
    """What there is to know of a class before any instance serves."""

    def __init__(self, create: Callable[[], M]) -> None:
        """Raises TypeError where what `create` makes cannot be replicated, and what `create` raises."""
        self.create = create
        first = create()
        if not isinstance(first, StateMachine):
            raise TypeError(f"{type(first).__name__} is not derived from quorate.StateMachine")
        self.machine = type(first)
        self.name = self.machine.__name__
        self.commands = CommandCodec(self.machine)
        own = [callable(inspect.getattr_static(self.machine, name, None)) for name in ("snapshot", "restore")]
        if any(own) and not all(own):
            raise TypeError(f"{self.name} has only one of snapshot() and restore(): write both, or neither")
        self._state = None if all(own) else StateCodec(self.machine)
        try:
            self.restore(self.snapshot(first))
        except StateMachineFailed as error:
            raise TypeError(str(error)) from error

    def snapshot(self, machine: M) -> bytes:
        """Raises StateMachineFailed."""
        if self._state is not None:
            return self._state.encode(machine)
        try:
            data = machine.snapshot()  # type: ignore[attr-defined]
        except Exception as error:
            raise StateMachineFailed(f"{self.name}.snapshot() raised {_tell(error)}") from error
        if not isinstance(data, bytes):
            raise StateMachineFailed(f"{self.name}.snapshot() gave {type(data).__name__}, not bytes")
        return data

    def restore(self, data: bytes) -> M:
        """A new instance with the state of a snapshot.  Raises StateMachineFailed."""
        machine = self.create()
        if self._state is not None:
            self._state.decode(machine, data)
            return machine
        try:
            machine.restore(data)  # type: ignore[attr-defined]
        except Exception as error:
            raise StateMachineFailed(f"{self.name}.restore() raised {_tell(error)}") from error
        return machine

    def run(self, machine: M, command: bytes, time_ms: int) -> Result:
        """Carry out one command.  Raises StateMachineFailed."""
        try:
            call = self.commands.decode(command)
        except ValueError as error:
            raise StateMachineFailed(
                f"a command in the log does not fit the class: {error}; do the nodes run different versions of it?"
            ) from error
        machine.now_ms = time_ms
        try:
            result = call.run(machine)
        except CommandError as error:
            return Failed(error.with_traceback(None))
        except KeyboardInterrupt:
            raise  # of the program's user
        except BaseException as error:  # a SystemExit or CancelledError too leaves the command half done
            raise StateMachineFailed(
                f"{call} raised {_tell(error)}: an error that is an answer must be a quorate.CommandError"
            ) from error
        try:
            # Now, because the next command may change what this one returned a part of.
            return isolated(result)
        except Exception as error:
            raise StateMachineFailed(
                f"{call} returned a {type(result).__name__}, which cannot be copied: {_tell(error)}"
            ) from error


def isolated(value: Any) -> Any:
    """As it is now, whatever becomes of the machine that it came from."""
    return value if type(value) in _UNCHANGING else copy.deepcopy(value)


def _tell(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class Store(Generic[M]):
    """`quorate.services.interface.Store` of one replica."""

    def __init__(self, definition: Definition[M]) -> None:
        self.definition = definition
        self.machine = definition.create()
        self.commands = 0
        """Carried out so far."""

    def apply(self, commands: Sequence[bytes], time_ms: int) -> list[Result]:
        """Raises StateMachineFailed, which stops the node."""
        results = []
        for command in commands:
            results.append(self.definition.run(self.machine, command, time_ms))
            self.commands += 1
        return results

    def snapshot(self) -> Slices:
        """Encoded in one go, so exact whatever is applied afterwards.  Raises StateMachineFailed."""
        state = self.definition.snapshot(self.machine)
        return Slices(msgspec.msgpack.encode(_Head(self.commands, self.machine.now_ms, len(state))), state)

    def restore(self) -> StoreLoader:
        return _Loader(self)

    def install(self, commands: int, now_ms: int, state: bytes) -> None:
        """Raises StateMachineFailed; then nothing has changed."""
        machine = self.definition.restore(state)
        machine.now_ms = now_ms
        self.machine, self.commands = machine, commands

    def summary(self) -> dict[str, int]:
        return {"commands": self.commands}


class Slices:
    """`quorate.services.interface.SnapshotSlices` of bytes that are there already."""

    def __init__(self, head: bytes, state: bytes) -> None:
        self._head = head
        self._state = state

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for begin in range(0, len(self._state), SLICE_BYTES):
            yield self._state[begin : begin + SLICE_BYTES]

    def close(self) -> None:
        self._state = b""


class _Loader(Generic[M]):
    """`quorate.services.interface.StoreLoader`."""

    def __init__(self, store: Store[M]) -> None:
        self._store = store
        self._head: _Head | None = None
        self._state = bytearray()

    def feed(self, slice_: bytes) -> None:
        if self._head is None:
            self._head = msgspec.msgpack.decode(slice_, type=_Head)
        else:
            self._state += slice_

    def finish(self) -> None:
        """Raises ValueError for what is not such a snapshot, StateMachineFailed for one that the class refuses."""
        if self._head is None or len(self._state) != self._head.state_bytes:
            raise ValueError(f"a snapshot with {len(self._state)} bytes of state: expected {self._head}")
        self._store.install(self._head.commands, self._head.now_ms, bytes(self._state))
