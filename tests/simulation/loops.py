"""The three event loops that code of ours runs on, and a protocol that keeps what a connection tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import pytest
import uvloop

from quorate.simulation.loop import SimulatedLoop
from quorate.simulation.scheduler import Simulation

T = TypeVar("T")
BuildLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]

LOCAL = "127.0.0.1"
LIMIT_S = 30.0


def simulated_loop() -> asyncio.AbstractEventLoop:
    return Simulation(0).boot("10.0.0.1").loop


on_every_loop = pytest.mark.parametrize(
    "build",
    [
        pytest.param(asyncio.SelectorEventLoop, id="asyncio"),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
        pytest.param(simulated_loop, id="simulated"),
    ],
)


def run(build: BuildLoop, work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=build) as runner:
        return runner.run(asyncio.wait_for(work, LIMIT_S))


def is_simulated() -> bool:
    return isinstance(asyncio.get_running_loop(), SimulatedLoop)


def is_uvloop() -> bool:
    return isinstance(asyncio.get_running_loop(), uvloop.Loop)


class Recorder(asyncio.Protocol):
    """Keeps everything that its transport tells it, in order; consecutive bytes as one."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.told: list[object] = []
        self.stays_half_open = False
        self.resumed_at_bytes: list[int] = []
        """What was left in the write buffer whenever writing could go on."""
        self._changed = asyncio.Event()

    def _note(self, what: object) -> None:
        self.told.append(what)
        self._changed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._note("made")

    def data_received(self, data: bytes) -> None:
        if isinstance(self.told[-1], bytes):
            data = self.told.pop() + data  # type: ignore[operator]
        self._note(data)

    def eof_received(self) -> bool:
        self._note("eof")
        return self.stays_half_open

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self.resumed_at_bytes.append(self.transport.get_write_buffer_size())
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._note(("lost", type(exc) if exc is not None else None))

    @property
    def received(self) -> bytes:
        return b"".join(part for part in self.told if isinstance(part, bytes))

    @property
    def lost(self) -> bool:
        return isinstance(self.told[-1], tuple)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def until_lost(self) -> None:
        await self.until(lambda: self.lost)

    async def until_received(self, size: int) -> None:
        await self.until(lambda: len(self.received) >= size)


@dataclass(slots=True)
class Pair:
    """Both ends of a connection, and the server that took it."""

    client: Recorder
    accepted: Any
    server: asyncio.Server
    port: int

    def close(self) -> None:
        for end in (self.client, self.accepted):
            # asyncio's transport does not take it after a close that had to wait.
            if not end.lost:
                end.transport.abort()
        self.server.close()


async def connect(protocol: Callable[[], asyncio.BaseProtocol] = Recorder) -> Pair:
    """A connection of this loop's with itself; the server's end has a protocol of that class."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[asyncio.BaseProtocol] = loop.create_future()

    def accept() -> asyncio.BaseProtocol:
        made = protocol()
        accepted.set_result(made)
        return made

    server = await loop.create_server(accept, LOCAL, 0)
    port = port_of(server)
    _, client = await loop.create_connection(Recorder, LOCAL, port)
    taken: Any = await accepted
    while taken.transport is None:  # noqa: ASYNC110 (a turn or two)
        await asyncio.sleep(0)
    return Pair(client, taken, server, port)


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port
