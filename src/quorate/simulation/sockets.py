"""Servers and transports of simulated machines: connections in memory, with delay, flow control and resets.

A connection is two `SimulatedTransport`s.  What one end writes lies in the other's `_under_way` until it arrives,
then in its `_received`, the kernel's buffer, until the machine's loop comes to read it: several writes may be read
as one, and one in parts.  All that happens to a protocol runs on its machine, in the context in which its transport
was made.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import errno
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from quorate.simulation.machine import Machine

Address: TypeAlias = tuple[str, int]
StreamProtocol: TypeAlias = Any
"""An asyncio.Protocol or BufferedProtocol; which of the two is asked when bytes are read."""

SOCKET_BUFFER_BYTES = 64 << 10
"""Unread bytes that the kernels hold; only what is beyond them counts as a transport's write buffer."""
READ_BYTES = 256 << 10
"""Most that one read takes, as asyncio's."""
PROBE_S = 1.0
"""A retransmission reaches a host that came back within this time."""


class _BoundSocket:
    """What is asked of a listening socket: its address."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address


class SimulatedServer(asyncio.AbstractServer):
    """A listener.  Closing it leaves its connections open, as asyncio does."""

    def __init__(self, machine: Machine, address: Address, protocol_factory: Callable[[], StreamProtocol]) -> None:
        self.machine = machine
        self.address = address
        self.protocol_factory = protocol_factory
        self.context = contextvars.copy_context()
        self._network = machine.simulation.network
        self._forever: asyncio.Future[None] | None = None
        self.sockets: tuple[_BoundSocket, ...] = (_BoundSocket(address),)

    async def start_serving(self) -> None:
        if self.machine.alive and self._network.listeners.setdefault(self.address, self) is not self:
            raise OSError(errno.EADDRINUSE, f"{self.address} is in use")

    async def serve_forever(self) -> None:
        await self.start_serving()
        self._forever = self.get_loop().create_future()
        try:
            await self._forever
        finally:
            self.close()

    def is_serving(self) -> bool:
        return self._network.listeners.get(self.address) is self

    def close(self) -> None:
        if self.is_serving():
            del self._network.listeners[self.address]
        self.sockets = ()
        if self._forever is not None:
            self._forever.cancel()

    async def wait_closed(self) -> None:
        """Returns at once; connections are not waited for (Python 3.12 does, 3.11 does not)."""

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.machine.loop


class _Signal(enum.Enum):
    """What travels in order with the bytes."""

    END = "end of stream"
    RESET = "reset"


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


class SimulatedTransport(asyncio.Transport):
    """One end of a connection."""

    peer: SimulatedTransport

    def __init__(self, machine: Machine, context: contextvars.Context, local: Address, remote: Address) -> None:
        super().__init__({"sockname": local, "peername": remote})
        self.machine = machine
        self.local = local
        self.remote = remote
        self._context = context
        self._simulation = machine.simulation
        self._network = machine.simulation.network
        self._protocol: StreamProtocol = None
        self._under_way: deque[tuple[float, bytes | _Signal, int]] = deque()
        """(arrival, what, number of the message in the trace)"""
        self._last_arrival_s = 0.0
        self._arrival_due = False
        self._received: deque[bytes | _Signal] = deque()
        self._unread_bytes = 0
        """Under way or received, and not read by the protocol."""
        self._read_due = False
        self._opened = False
        self._reading_paused = False
        self._writing_paused = False
        self._high_water, self._low_water = 64 << 10, 16 << 10
        self._ended = False  # write_eof or close was called: nothing more is sent
        self._closing = False  # nothing more is read
        self._lost = False  # connection_lost was called or is about to be
        machine.transports[self] = None

    def _on_machine(self, callback: Callable[..., object], *args: object) -> None:
        self.machine.loop.call_soon(callback, *args, context=self._context)

    def open(self, protocol_factory: Callable[[], StreamProtocol]) -> None:
        if not self._lost:
            self._protocol = protocol_factory()
            self._opened = True
            self._protocol.connection_made(self)
            self._read_soon()

    def open_soon(self, protocol_factory: Callable[[], StreamProtocol]) -> None:
        """The kernel has accepted; the process hears of it in its next turn."""
        self._on_machine(self.open, protocol_factory)

    # --- receiving --------------------------------------------------------------------------

    def _send_here(self, what: bytes | _Signal) -> None:
        """The other end sends something: it gets here after a delay, never before what was sent earlier."""
        peer, simulation = self.peer, self._simulation
        sent_s = peer.machine.true_s() if peer.machine.loop.is_running() else simulation.now_s
        arrival_s = sent_s + self._network.draw_delay_s(self.remote[0], self.local[0])
        self._last_arrival_s = arrival_s = max(arrival_s, self._last_arrival_s)
        number = 0
        if isinstance(what, bytes):
            self._unread_bytes += len(what)
            if self._network.meter is not None:
                self._network.meter(self.remote, self.local, len(what))
            if simulation.trace is not None:
                describe = self._network.describe
                text = describe(self.remote, self.local, what) if describe is not None else f"{len(what)} bytes"
                if text:
                    number = simulation.trace.send(peer.machine.name, sent_s, self.machine.name, text)
        self._under_way.append((arrival_s, what, number))
        self._expect()

    def _expect(self) -> None:
        if self._under_way and not self._arrival_due and self.machine.alive:
            self._arrival_due = True
            self._simulation.at(self._under_way[0][0], self._arrive)

    def _arrive(self) -> None:
        self._arrival_due = False
        if not self._network.is_open(self.remote[0], self.local[0]) or not self.machine.alive:
            return
        simulation, now_s = self._simulation, self._simulation.now_s
        while self._under_way and self._under_way[0][0] <= now_s:
            _, what, number = self._under_way.popleft()
            self._received.append(what)
            if self._lost and isinstance(what, bytes):
                self._refuse_bytes()
            simulation.mix(now_s, self.local[1], zlib.crc32(what) if isinstance(what, bytes) else what.value)
            if number and simulation.trace is not None:
                simulation.trace.receive(self.machine.name, now_s, number)
        self._expect()
        if self._is_readable():
            self._read_due = True
            self.machine.loop.wake(self._read, self._context)

    def retransmit(self) -> None:
        """The way here is open again: what was held back is on its way."""
        now_s = self._simulation.now_s
        delay_s = self._network.draw_delay_s(self.remote[0], self.local[0])
        self._under_way = deque((max(at, now_s + delay_s), what, number) for at, what, number in self._under_way)
        self._last_arrival_s = max(self._last_arrival_s, now_s + delay_s)
        self._expect()

    def _is_readable(self) -> bool:
        """There is something to read that the protocol is not about to read anyway."""
        return (
            bool(self._received)
            and not self._read_due
            and self._opened
            and not self._lost
            and (not self._reading_paused or self._closing)
        )

    def _read_soon(self) -> None:
        if self._is_readable():
            self._read_due = True
            self._on_machine(self._read)

    def _read(self) -> None:
        self._read_due = False
        if not self._received or self._lost or (self._reading_paused and not self._closing):
            return
        what = self._received.popleft()
        try:
            if isinstance(what, bytes):
                data = self._gather(what)
                self._read_soon()
                self._take(data)
            elif what is _Signal.RESET:
                self._lose(_reset())
            elif not self._closing:
                self._read_soon()
                if not self._protocol.eof_received():
                    self.close()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """A protocol raised: as with asyncio's transports, that is the end of its connection."""
        self.machine.loop.call_exception_handler(
            {
                "message": "Fatal error: a call of the protocol failed",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self._break(error)

    def _gather(self, data: bytes) -> bytes:
        """All that a read finds: what lies in the kernel's buffer, now and then only a part of it."""
        received = self._received
        if received and isinstance(received[0], bytes):
            parts, size = [data], len(data)
            while received and isinstance(following := received[0], bytes) and size + len(following) <= READ_BYTES:
                parts.append(following)
                size += len(following)
                received.popleft()
            data = b"".join(parts)
        network = self._network
        if network.split_share and len(data) > 1 and network.random.random() < network.split_share:
            cut = network.random.randrange(1, len(data))
            received.appendleft(data[cut:])
            data = data[:cut]
        self._unread_bytes -= len(data)
        return data

    def _take(self, data: bytes) -> None:
        peer = self.peer
        if peer.machine.alive and (peer._writing_paused or peer._closing):
            peer._on_machine(peer._sent)
        if self._closing:
            self._refuse_bytes()
        elif isinstance(self._protocol, asyncio.BufferedProtocol):
            self._fill(self._protocol, data)
        else:
            self._protocol.data_received(data)

    def _fill(self, protocol: asyncio.BufferedProtocol, data: bytes) -> None:
        buffer = memoryview(protocol.get_buffer(-1))
        size = min(len(buffer), len(data))
        if size < len(data):
            # The rest stays in the kernel: the protocol may not want to read on.
            self._received.appendleft(data[size:])
            self._unread_bytes += len(data) - size
            self._read_soon()
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        self._read_soon()

    def is_reading(self) -> bool:
        return not self._reading_paused and not self._closing

    # --- sending ----------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended and not self._closing:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._ended or not self.machine.alive:
            return
        peer = self.peer
        if self._received and self._received[-1] is _Signal.RESET:
            # It has arrived, and was not read: writing tells of it too.
            self._on_machine(self._lose, _reset())
            return
        if peer._lost and peer.machine.alive:
            self._reset_later()
            return
        peer._send_here(bytes(data))
        if not peer.machine.alive:
            self.probe()
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
            self._let_go()

    def get_write_buffer_size(self) -> int:
        return max(0, self.peer._unread_bytes - SOCKET_BUFFER_BYTES)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low_water, self._high_water

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        high = high if high is not None else 64 << 10 if low is None else 4 * low
        low = low if low is not None else high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high_water, self._low_water = high, low

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._ended and self.machine.alive:
            self._ended = True
            self.peer._send_here(_Signal.END)

    # --- ending -----------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """What was written is still sent."""
        if self._closing or not self.machine.alive:
            return
        self.write_eof()
        self._closing = True
        self._read_soon()
        if not self.get_write_buffer_size():
            self._let_go()

    def _let_go(self) -> None:
        """All that was written is on its way.  Where bytes were not read, the kernel sends a reset behind it."""
        if any(isinstance(what, bytes) for what in self._received):
            self._refuse_bytes()
        self._lose(None)

    def _refuse_bytes(self) -> None:
        if not self.peer._lost:
            self.peer._send_here(_Signal.RESET)

    def abort(self) -> None:
        """What has not arrived is lost, and the other end sees a reset."""
        self._break(None)

    def _break(self, error: Exception | None) -> None:
        if self._lost or not self.machine.alive:
            return
        self.peer._forget_under_way()
        self.peer._send_here(_Signal.RESET)
        self._lose(error)

    def break_off(self) -> None:
        """The connection breaks on its way: both ends see a reset, what was under way is lost."""
        for end in (self, self.peer):
            end._forget_under_way()
            end._send_here(_Signal.RESET)

    def die_with(self, dead: SimulatedTransport) -> None:
        """The process at the other end was killed: what its kernel held is still delivered, then a reset."""
        while self._unread_bytes > SOCKET_BUFFER_BYTES and self._under_way:
            _, what, _ = self._under_way.pop()
            if isinstance(what, bytes):
                self._unread_bytes -= len(what)
        self._send_here(_Signal.RESET)

    def probe(self) -> None:
        """The other end's host has lost its power since.  If it is up again, something sent to it brings a reset."""
        if self.peer._unread_bytes and self.remote[0] in self._simulation.machines:
            self._simulation.after(self._network.random.uniform(0, PROBE_S), self._answer_probe)

    def _answer_probe(self) -> None:
        if self.machine.alive and not self._lost:
            self._send_here(_Signal.RESET)

    def _reset_later(self) -> None:
        """The other end is closed: a reset comes back."""
        # Not in order with its bytes: a reader that is paused does not see it, one that writes learns of it.
        if self._network.is_open_both_ways(self.local[0], self.remote[0]):
            delay_s = self._network.draw_delay_s(self.remote[0], self.local[0])
            self.machine.loop.call_later(delay_s, self._lose, _reset(), context=self._context)

    def _forget_under_way(self) -> None:
        self._unread_bytes -= sum(len(what) for _, what, _ in self._under_way if isinstance(what, bytes))
        self._under_way.clear()

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = self._ended = True
        self.machine.transports.pop(self)
        if self._opened:
            self._on_machine(self._protocol.connection_lost, error)

    def set_protocol(self, protocol: StreamProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> StreamProtocol:
        return self._protocol
