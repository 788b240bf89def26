"""The door of a user's state machine: every command goes through the log, and its answer comes from there.

Commands of one connection are submitted in the order in which they came.  One of which the outcome is unknown may
still take effect later, behind commands that were sent after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from quorate.consensus.replica import Leadership, NodeId
from quorate.services.interface import DoorConfig, Group, Refused
from quorate.simulation.own.wire import REQUEST_HEAD, BadFrame, Frames, Status, encode_reply

LOG: Final = logging.getLogger("quorate.statemachine")

LEAVING_S: Final = 1.0
"""A client that does not read its last replies is cut off after this, when the node stops."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command that went to the group: the waiter that comes back with its result."""

    connection: Connection
    request_id: int


class StateMachineDoor:
    """`quorate.services.interface.Door`.  Commands and replies of one turn of the loop leave at its end."""

    def __init__(self, group: Group, config: DoorConfig) -> None:
        self.group = group
        self.config = config
        self.congested = False
        """The group asked doors to stop reading."""
        self._connections: dict[Connection, None] = {}
        self._commands: list[bytes] = []
        self._waiters: list[Request] = []
        """One for each of `_commands`."""
        self._to_flush: dict[Connection, None] = {}
        self._turn_is_due = False
        self._requests = 0
        self._server: asyncio.Server | None = None
        self._all_gone: asyncio.Future[None] | None = None

    # --- the node's side -----------------------------------------------------------------------

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), self.config.host, self.config.port
        )

    async def stop(self) -> None:
        """By now the group has answered, refused or lost every command."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        if self._connections:
            loop = asyncio.get_running_loop()
            self._all_gone = loop.create_future()
            cut_off = loop.call_later(LEAVING_S, self._cut_off)
            await self._all_gone
            cut_off.cancel()

    def _cut_off(self) -> None:
        for connection in list(self._connections):
            connection.transport.abort()

    def applied(self, results: Sequence[bytes], waiters: Sequence[Request] | None) -> None:
        if waiters is not None:
            for result, waiter in zip(results, waiters, strict=True):
                waiter.connection.answer(waiter.request_id, Status.DONE, result)

    def refused(self, waiters: Sequence[Request], why: Refused) -> None:
        for waiter in waiters:
            waiter.connection.answer(waiter.request_id, Status.REFUSED, why.value.encode())

    def lost(self, waiters: Sequence[Request]) -> None:
        for waiter in waiters:
            waiter.connection.answer(waiter.request_id, Status.UNKNOWN, b"")

    def restored(self) -> None:
        """Nothing here is derived from the state."""

    def relieved(self) -> None:
        self.congested = False
        for connection in list(self._connections):
            connection.go_on()

    def leadership_changed(self, leadership: Leadership) -> None:
        """Nothing here is the leader's alone."""

    def told(self, sender: NodeId, note: bytes) -> None:
        raise ValueError("a state machine's door sends no notes")

    def tick(self, now_ms: int) -> None:
        """Nothing here depends on time."""

    def summary(self) -> dict[str, int]:
        outstanding = sum(connection.in_flight for connection in self._connections)
        return {"connections": len(self._connections), "requests": self._requests, "outstanding": outstanding}

    # --- the connections' side -----------------------------------------------------------------

    def connection_made(self, connection: Connection) -> None:
        self._connections[connection] = None
        if len(self._connections) > self.config.max_connections:
            connection.fail(f"is one more than the {self.config.max_connections} that are allowed")

    def connection_lost(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if self._all_gone is not None and not self._connections and not self._all_gone.done():
            self._all_gone.set_result(None)

    def take(self, command: bytes, request: Request) -> None:
        self._requests += 1
        self._commands.append(command)
        self._waiters.append(request)
        self._schedule_turn()

    def flush_soon(self, connection: Connection) -> None:
        self._to_flush[connection] = None
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        if self._commands:
            commands, self._commands = self._commands, []
            waiters, self._waiters = self._waiters, []
            self.group.submit(commands, waiters)
            if self.group.congested():
                self.congested = True
                for connection in self._connections:
                    connection.adjust_reading()
        to_flush, self._to_flush = self._to_flush, {}
        for connection in to_flush:
            connection.flush()


class Connection(asyncio.Protocol):
    """One client.  It is read from only while its next command may be taken."""

    __slots__ = ("_frames", "_out", "_reading", "_unread", "_unread_bytes", "door", "in_flight", "is_open", "transport")

    transport: asyncio.Transport

    def __init__(self, door: StateMachineDoor) -> None:
        self.door = door
        self.in_flight = 0
        """Commands that were taken and not answered."""
        self.is_open = True
        self._frames = Frames(REQUEST_HEAD, door.config.max_frame_bytes)
        self._out: list[bytes] = []
        self._reading = True
        self._unread = False
        """The client does not read its replies."""
        self._unread_bytes = 0
        """What was unsent when that began; a single reply may be larger than any limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.door.connection_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._out.clear()
        self.door.connection_lost(self)

    def pause_writing(self) -> None:
        self._unread = True
        self._unread_bytes = self.transport.get_write_buffer_size()
        self.adjust_reading()

    def resume_writing(self) -> None:
        self._unread = False
        self.go_on()

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        self.go_on()

    # --- commands ------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Take what may be taken of what has come in."""
        try:
            while self._may_take() and (body := self._frames.take()) is not None:
                (request_id,) = REQUEST_HEAD.unpack_from(body)
                self.in_flight += 1
                self.door.take(body[REQUEST_HEAD.size :], Request(self, request_id))
        except BadFrame as error:
            self.fail(f"sent {error}")
        self.adjust_reading()

    def _may_take(self) -> bool:
        return (
            self.is_open
            and not self.door.congested
            and not self._unread
            and self.in_flight < self.door.config.max_requests_in_flight
        )

    def adjust_reading(self) -> None:
        want = self._may_take()
        if want is not self._reading and self.is_open:
            self._reading = want
            if want:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # --- replies -------------------------------------------------------------------------------

    def answer(self, request_id: int, status: Status, result: bytes) -> None:
        self.in_flight -= 1
        if self.is_open:
            self._out.append(encode_reply(request_id, status, result))
            self.door.flush_soon(self)

    def flush(self) -> None:
        """Write all replies in one go, and take what had to wait for them."""
        if not self.is_open:
            return
        self._write()
        more_bytes = self.transport.get_write_buffer_size() - self._unread_bytes
        if self._unread and more_bytes > self.door.config.max_unread_bytes:
            self.fail(f"does not read its replies: {more_bytes} bytes more since it stopped")
        else:
            self.go_on()

    def _write(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self.transport.write(data)

    # --- leaving -------------------------------------------------------------------------------

    def close(self) -> None:
        """Close once the replies made so far are written."""
        if self.is_open:
            self._write()
            self.is_open = False
            self.transport.close()

    def fail(self, what: str) -> None:
        """The client did what it must not: close at once."""
        if self.is_open:
            LOG.warning("closing %s: it %s", self.transport.get_extra_info("peername"), what)
            self.is_open = False
            self.transport.abort()
