"""Servers and transports of the virtual loop: connections in memory, with delay, flow control, resets.

A connection is two `VirtualTransport`s.  Each keeps an inbox of what the other end has sent and when that is due;
all that happens to a transport runs in the context in which it was made, hence on its machine.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import errno
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .virtual_loop import Machine, VirtualLoop

Address: TypeAlias = tuple[str, int]
Protocol: TypeAlias = Any
"""An asyncio.Protocol or BufferedProtocol; which of the two is asked on delivery."""

SOCKET_BUFFER_BYTES = 64 << 10
"""Undelivered bytes that the kernel would hold; only what is beyond them counts as a transport's write buffer."""


class _BoundSocket:
    """What is asked of a listening socket: its address."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address


class VirtualServer(asyncio.AbstractServer):
    """A listener.  Closing it leaves its connections open, as asyncio does."""

    def __init__(
        self, loop: VirtualLoop, machine: Machine, address: Address, protocol_factory: Callable[[], Protocol]
    ) -> None:
        self._loop = loop
        self.machine = machine
        self.address = address
        self.protocol_factory = protocol_factory
        self.context = contextvars.copy_context()
        self._forever: asyncio.Future[None] | None = None
        self.sockets: tuple[_BoundSocket, ...] = (_BoundSocket(address),)

    async def start_serving(self) -> None:
        if self._loop.listeners.setdefault(self.address, self) is not self:
            raise OSError(errno.EADDRINUSE, f"{self.address} is in use")

    async def serve_forever(self) -> None:
        await self.start_serving()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        finally:
            self.close()

    def is_serving(self) -> bool:
        return self._loop.listeners.get(self.address) is self

    def close(self) -> None:
        if self.is_serving():
            del self._loop.listeners[self.address]
        self.sockets = ()
        if self._forever is not None:
            self._forever.cancel()

    async def wait_closed(self) -> None:
        """Returns at once; connections are not waited for (Python 3.12 does, 3.11 does not)."""

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop


class _Signal(enum.Enum):
    """What travels in order with the bytes."""

    END = "end of stream"
    RESET = "reset"


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


class VirtualTransport(asyncio.Transport):
    """One end of a connection.  Its inbox holds what the other end has sent and its protocol has not yet had."""

    peer: VirtualTransport

    def __init__(
        self, loop: VirtualLoop, machine: Machine, context: contextvars.Context, local: Address, remote: Address
    ) -> None:
        super().__init__({"sockname": local, "peername": remote})
        self.machine = machine
        self.context = context
        self._loop = loop
        self._hosts = (local[0], remote[0])
        self._protocol: Protocol = None
        self._inbox: deque[tuple[float, bytes | _Signal]] = deque()
        self._inbox_bytes = 0
        self._delivery: asyncio.TimerHandle | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._high_water, self._low_water = 64 << 10, 16 << 10
        self._ended = False  # write_eof or close was called: nothing more is sent
        self._closing = False  # nothing more is read
        self._lost = False  # connection_lost was called or is about to be
        machine.transports[self] = None

    def open(self, protocol_factory: Callable[[], Protocol]) -> None:
        self._protocol = protocol_factory()
        self._protocol.connection_made(self)

    def cut(self) -> None:
        """The machine was killed: what its kernel held is still delivered, then a reset."""
        peer = self.peer
        while peer._inbox_bytes > SOCKET_BUFFER_BYTES:
            _, item = peer._inbox.pop()
            if isinstance(item, bytes):
                peer._inbox_bytes -= len(item)
        peer._arrive(_Signal.RESET)

    # --- receiving --------------------------------------------------------------------------

    def _arrive(self, item: bytes | _Signal) -> None:
        """The other end sent something: it gets here after a delay, never before what was sent earlier."""
        self._inbox.append((self._loop.time() + self._loop.draw_delay(), item))
        if isinstance(item, bytes):
            self._inbox_bytes += len(item)
        self.schedule()

    def schedule(self) -> None:
        if self._inbox and self._delivery is None and self.machine.alive:
            self._delivery = self._loop.call_at(self._inbox[0][0], self._deliver, context=self.context)

    def _deliver(self) -> None:
        self._delivery = None
        if not self._inbox or self._loop.is_parted(*self._hosts) or (self._reading_paused and not self._closing):
            return
        _, item = self._inbox.popleft()
        self.schedule()
        if isinstance(item, bytes):
            self._inbox_bytes -= len(item)
            if self.peer.machine.alive:
                self._loop.call_soon(self.peer._sent, context=self.peer.context)
        if item is _Signal.RESET:
            self._lose(_reset())
        elif self._closing:
            if isinstance(item, bytes) and not self.peer._lost:
                self.peer._arrive(_Signal.RESET)
        elif item is _Signal.END:
            if not self._protocol.eof_received():
                self.close()
        elif isinstance(self._protocol, asyncio.BufferedProtocol):
            self._fill(self._protocol, memoryview(item))
        else:
            self._protocol.data_received(item)

    def _fill(self, protocol: asyncio.BufferedProtocol, data: memoryview) -> None:
        while data:
            buffer = memoryview(protocol.get_buffer(len(data)))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            protocol.buffer_updated(size)
            data = data[size:]

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        self.schedule()

    def is_reading(self) -> bool:
        return not self._reading_paused and not self._closing

    # --- sending ----------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._ended or self._closing, "write after write_eof"
        if not data or self._ended or not self.machine.alive:
            return
        if not self.peer.machine.alive or self.peer._lost:
            # A reader that is paused does not see the reset in its inbox; one that writes still learns of it.
            if not self._loop.is_parted(*self._hosts):
                self._loop.call_later(self._loop.draw_delay(), self._lose, _reset(), context=self.context)
            return
        self.peer._arrive(bytes(data))
        if not self._writing_paused and self.get_write_buffer_size() > self._high_water:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def _sent(self) -> None:
        """The other end has taken some bytes."""
        if self._lost:
            return
        if self._writing_paused and self.get_write_buffer_size() <= self._low_water:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._closing and not self.get_write_buffer_size():
            self._lose(None)

    def get_write_buffer_size(self) -> int:
        return max(0, self.peer._inbox_bytes - SOCKET_BUFFER_BYTES)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low_water, self._high_water

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high_water = high if high is not None else 64 << 10 if low is None else 4 * low
        self._low_water = low if low is not None else self._high_water // 4

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._ended and self.machine.alive:
            self._ended = True
            self.peer._arrive(_Signal.END)

    # --- ending -----------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """What was written is still sent."""
        if self._closing or not self.machine.alive:
            return
        self.write_eof()
        self._closing = True
        self.schedule()
        if not self.get_write_buffer_size():
            self._lose(None)

    def abort(self) -> None:
        """What has not been delivered is lost, and the other end sees a reset."""
        # A killed machine's tasks do run their `finally` when they are collected; nobody may hear of it.
        if self._lost or not self.machine.alive:
            return
        self.peer._inbox.clear()
        self.peer._inbox_bytes = 0
        self.peer._arrive(_Signal.RESET)
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = self._ended = True
        self.machine.transports.pop(self)
        self._loop.call_soon(self._protocol.connection_lost, error, context=self.context)

    def set_protocol(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Protocol:
        return self._protocol
