"""A link to every peer: what is sent goes out on the connection that this node dialled.

Each node dials every other, so two nodes share two connections and each carries messages
one way.  Messages that cannot be sent are dropped: the protocols above expect loss.  What
they must hear of is the loss of a *connection*, because order and completeness hold on one
connection only; `LinkEvents.lost` says so.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from quorate.net.connection import HANDSHAKE_TIMEOUT_S, SILENCE_LIMIT_S, Direction, FramedConnection, LinkEvents
from quorate.net.frames import KEEP_ALIVE, FrameEncoder, FrameError
from quorate.net.handshake import Handshake, Purpose

_log = logging.getLogger(__name__)

KEEP_ALIVE_INTERVAL_S = 1.0
MAX_UNSENT_BYTES = 256 << 20
BACKOFF_FIRST_S = 0.05
BACKOFF_LIMIT_S = 1.0


class _Outgoing(FramedConnection):
    """The connection that we dialled: hello, then messages; the other side only echoes keep-alives."""

    def __init__(self, link: PeerLink, max_frame_bytes: int) -> None:
        super().__init__(max_frame_bytes)
        self.link = link
        self.welcomed = asyncio.get_running_loop().create_future()
        self.peer_incarnation: str | None = None
        self.problem: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).write(self.link.first_frame())

    def frame_received(self, body: bytes) -> None:
        if not body:
            return
        if self.welcomed.done():
            raise FrameError("the accepting side sent a message on a one-way connection")
        welcome = self.link.handshake.conclude(self.link.peer, body)
        self.link.peer_admin = welcome.admin
        self.link.peer_release = welcome.release
        self.peer_incarnation = welcome.incarnation
        self.welcomed.set_result(None)

    def failed(self, error: Exception) -> None:
        self.problem = str(error)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.problem is None and exc is not None:
            self.problem = str(exc)
        if not self.welcomed.done():
            self.welcomed.cancel()


class PeerLink:
    """Sends to one peer; dials again, with back-off, for as long as it runs."""

    def __init__(
        self, peer: int, address: tuple[str, int], handshake: Handshake, events: LinkEvents, max_frame_bytes: int
    ) -> None:
        self.peer = peer
        self.address = address
        """Where to dial next time."""
        self.handshake = handshake
        self.peer_admin = ""
        self.peer_release = ""
        self.peer_incarnation: str | None = None
        """Of the data folder at the other end; None while not connected."""
        self.connected = False
        self.leaving = False
        """The peer said, since it was connected last, that it stops."""
        self.task: asyncio.Task[None] | None = None
        """Runs it."""
        self._events = events
        self._max_frame_bytes = max_frame_bytes
        self._encoder = FrameEncoder()
        self._queue: list[Any] = []
        self._connection: _Outgoing | None = None
        self._removed = False
        self._reported: str | None = None

    def first_frame(self) -> bytes:
        return bytes(self._encoder.encode(self.handshake.hello(self.peer, Purpose.MESSAGES)))

    def queue(self, item: Any) -> None:
        """Send with the next `flush`, which the caller sees to; dropped where the peer is not connected."""
        if self.connected:
            self._queue.append(item)

    @property
    def has_queued(self) -> bool:
        return bool(self._queue)

    def flush(self) -> None:
        """Everything queued goes out as one frame."""
        if not self._queue:
            return
        items, self._queue = self._queue, []
        connection = self._connection
        if connection is None or connection.transport is None:
            return
        if connection.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            _log.warning("node %d takes no messages any more: the connection to it is cut", self.peer)
            connection.abort()
            return
        connection.transport.write(self._encoder.encode(items))

    def stays(self) -> bool:
        """The peer is there, and means to be."""
        return self.connected and not self.leaving

    def remove(self) -> None:
        """Send nothing more.  `run` ends, and tells of the loss of the connection if there was one."""
        self._removed = True
        if self.connected:
            self._disconnected()
        else:
            self.cancel()

    def cancel(self) -> None:
        """Dial no more, until it is run again."""
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> None:
        """Keep the link up until cancelled, or removed."""
        backoff_s = BACKOFF_FIRST_S
        while not self._removed:
            if await self._one_connection():
                backoff_s = BACKOFF_FIRST_S
            if not self._removed:
                await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_LIMIT_S)

    async def _one_connection(self) -> bool:
        """Dial, speak until the end.  True where the handshake had succeeded."""
        address = self.address
        where = f"{address[0]}:{address[1]}"
        connection = _Outgoing(self, self._max_frame_bytes)
        try:
            if not await self._dial(connection, address, where):
                return False
            self._report(None, where)
            self._connection = connection
            self.peer_incarnation = connection.peer_incarnation
            self.connected, self.leaving = True, False
            self._events.connected(self.peer)
            await self._watch_silence(connection)
        finally:
            self._disconnected()
            connection.abort()
        if not self._removed:
            self._report(
                f"lost the link to node {self.peer}: {connection.problem or 'closed by the other side'}", where
            )
        self._events.lost(self.peer, Direction.OUTGOING)
        return True

    async def _dial(self, connection: _Outgoing, address: tuple[str, int], where: str) -> bool:
        """True where the peer welcomed us; else it was reported why not."""
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(lambda: connection, *address)
                await asyncio.wait([connection.welcomed])
        except (OSError, TimeoutError) as error:
            self._report(f"cannot reach node {self.peer} at {where}: {error or 'no answer'}", where)
            return False
        if connection.welcomed.cancelled():
            problem = connection.problem or "it closed the connection during the handshake"
            self._report(f"no link to node {self.peer} at {where}: {problem}", where)
            return False
        return True

    def _disconnected(self) -> None:
        connection, self._connection = self._connection, None
        self.connected = False
        self.peer_incarnation = None
        self._queue.clear()
        if connection is not None:
            connection.abort()

    async def _watch_silence(self, connection: _Outgoing) -> None:
        loop = asyncio.get_running_loop()
        while not connection.closed.done():
            await asyncio.wait([connection.closed], timeout=KEEP_ALIVE_INTERVAL_S)
            if connection.transport is None:
                return
            if loop.time() - connection.last_heard_s > SILENCE_LIMIT_S:
                connection.problem = f"it has been silent for {SILENCE_LIMIT_S:.0f} s"
                return
            connection.transport.write(KEEP_ALIVE)

    def _report(self, problem: str | None, where: str) -> None:
        """Log a state once, not at every attempt."""
        if problem == self._reported:
            return
        self._reported = problem
        if problem is None:
            _log.info("linked to node %d at %s", self.peer, where)
        else:
            _log.warning("%s", problem)


class Links:
    """All of a node's links.  Peers come and go while it runs, or before it starts."""

    def __init__(self, handshake: Handshake, events: LinkEvents, max_frame_bytes: int) -> None:
        self.by_peer: dict[int, PeerLink] = {}
        self._handshake = handshake
        self._events = events
        self._max_frame_bytes = max_frame_bytes
        self._running = False
        self._tasks: dict[asyncio.Task[None], int] = {}
        """-> peer; those of removed links too until their end was told."""

    def start(self) -> None:
        """Begin to dial the peers that are there; `ensure` dials at once from now on."""
        self._running = True
        for link in self.by_peer.values():
            self._launch(link)

    def ensure(self, peer: int, address: tuple[str, int]) -> None:
        """Keep a link to `peer` at `address`.

        A new address counts from the next dialling on, which is now where the peer is not
        connected.  A connection that stands is left alone.
        """
        link = self.by_peer.get(peer)
        if link is None:
            link = PeerLink(peer, address, self._handshake, self._events, self._max_frame_bytes)
            self.by_peer[peer] = link
        elif link.address == address:
            return
        else:
            link.address = address
            if link.connected:
                return
            link.cancel()
        if self._running:
            self._launch(link)

    def remove(self, peer: int) -> None:
        """Drop the link.  Where it was connected, `events.lost` follows from the loop, not from within this call."""
        link = self.by_peer.pop(peer, None)
        if link is not None:
            link.remove()

    @property
    def has_queued(self) -> bool:
        """Whether something is queued for a peer."""
        return any(link.has_queued for link in self.by_peer.values())

    def flush(self) -> None:
        """One frame to each peer that something is queued for."""
        for link in self.by_peer.values():
            link.flush()

    async def stop(self) -> None:
        self._running = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _launch(self, link: PeerLink) -> None:
        before = [task for task, peer in self._tasks.items() if peer == link.peer]
        link.task = asyncio.get_running_loop().create_task(self._run(link, before), name=f"link-{link.peer}")
        self._tasks[link.task] = link.peer
        link.task.add_done_callback(self._tasks.pop)

    async def _run(self, link: PeerLink, before: list[asyncio.Task[None]]) -> None:
        """One after the other, so that the loss of the last connection is told before the next one stands."""
        if before:
            await asyncio.wait(before)
        await link.run()
