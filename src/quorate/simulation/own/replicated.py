"""Classes as `quorate.Replicated` takes them, in the simulator: as state machines of bytes, and their clients.

Reads go through the log here, as commands do: what the simulator judges is the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import msgspec

from quorate.simulation.own.client import StateMachineClient
from quorate.statemachine.commands import CommandCodec
from quorate.statemachine.data import hints_of
from quorate.statemachine.errors import CommandError, StateMachineFailed
from quorate.statemachine.machine import StateMachine
from quorate.statemachine.store import Definition, Failed

if TYPE_CHECKING:
    from quorate.simulation.own.scenario import ClientWorld
    from quorate.simulation.own.statemachine import StateMachine as BytesMachine

M = TypeVar("M", bound=StateMachine)
R = TypeVar("R")
P = ParamSpec("P")

READ: Final = b"?"
"""Begins a read; no command begins with it."""


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """A result on its way to the client."""

    result: msgspec.Raw
    """Of an error, its arguments."""
    error: str = ""
    """Module and name of a CommandError's class."""


def of_bytes(create: Callable[[], BytesMachine | StateMachine]) -> Callable[[], BytesMachine]:
    """What makes state machines of bytes, whichever kind `create` makes."""
    if not isinstance(create(), StateMachine):
        return create  # type: ignore[return-value]
    definition = Definition[Any](create)
    return lambda: _OfBytes(definition)


class _OfBytes:
    """`quorate.simulation.own.statemachine.StateMachine` over an instance of a user's class."""

    def __init__(self, definition: Definition[Any]) -> None:
        self._definition = definition
        self._machine = definition.create()

    def apply(self, command: bytes, time_ms: int) -> bytes:
        """Raises StateMachineFailed, and TypeError for a result that has no plain form."""
        if command.startswith(READ):
            data = command[len(READ) :]
            name, _ = msgspec.msgpack.decode(data, type=tuple[str, msgspec.Raw])
            machine = self._definition.machine
            call = CommandCodec(machine, {name: getattr(machine, name)}).decode(data)
            return _encode(call.run(self._machine))
        result = self._definition.run(self._machine, command, time_ms)
        if isinstance(result, Failed):
            kind = type(result.error)
            return _encode(result.error.args, f"{kind.__module__}.{kind.__qualname__}")
        return _encode(result)

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode((self._machine.now_ms, self._definition.snapshot(self._machine)))

    def restore(self, data: bytes) -> None:
        now_ms, state = msgspec.msgpack.decode(data, type=tuple[int, bytes])
        self._machine = self._definition.restore(state)
        self._machine.now_ms = now_ms


def _encode(result: Any, error: str = "") -> bytes:
    return msgspec.msgpack.encode(_Answer(msgspec.Raw(msgspec.msgpack.encode(result)), error))


class CommandClient(Generic[M]):
    """A client of a simulated cluster that replicates a class, with the methods of `quorate.Replicated`.

    `create` is what `simulate` was given as its `state_machine`.  Nothing is ever sent twice.
    """

    def __init__(self, create: Callable[[], M], world: ClientWorld) -> None:
        self._definition = Definition(create)
        self._client = StateMachineClient(world.servers, world.random)

    async def submit(self, command: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the command came to; its type is that of the method's annotation.

        Raises the CommandError that it raised, Refused, OutcomeUnknown and InvalidCommand.
        """
        return self._read(command, await self._client.call(self._definition.commands.encode(command, args, kwargs)))

    async def query(self, question: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What a method that only reads says; its parameters need types, as those of a command.  Raises as `submit`."""
        codec = CommandCodec(self._definition.machine, {question.__name__: question})
        return self._read(question, await self._client.call(READ + codec.encode(question, args, kwargs)))

    def _read(self, method: Callable[..., R], data: bytes) -> R:
        answer = msgspec.msgpack.decode(data, type=_Answer)
        if answer.error:
            arguments: Sequence[Any] = msgspec.msgpack.decode(answer.result)
            raise _error_class(answer.error)(*arguments)
        result: R = msgspec.msgpack.decode(answer.result, type=hints_of(method, method.__name__).get("return", Any))
        return result

    async def __aenter__(self) -> CommandClient[M]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.close()


def _error_class(name: str) -> type[CommandError]:
    found = [kind for kind in _kinds(CommandError) if f"{kind.__module__}.{kind.__qualname__}" == name]
    if not found:
        raise StateMachineFailed(f"{name} is no CommandError of this process")
    # Where its module was loaded again, the newest one.
    return found[-1]


def _kinds(kind: type[CommandError]) -> Iterator[type[CommandError]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from _kinds(derived)
