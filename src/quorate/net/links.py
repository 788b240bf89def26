"""A link to every peer: what is sent goes out on the connection that this node dialled.

Each node dials every other, so two nodes share two connections and each carries messages
one way.  Messages that cannot be sent are dropped: the protocols above expect loss.  What
they must hear of is the loss of a *connection*, because order and completeness hold on one
connection only; `LinkEvents.lost` says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, cast

from quorate.net.connection import HANDSHAKE_TIMEOUT_S, Direction, FramedConnection, LinkEvents
from quorate.net.frames import KEEP_ALIVE, FrameEncoder, FrameError
from quorate.net.handshake import Handshake, Purpose

_log = logging.getLogger(__name__)

KEEP_ALIVE_INTERVAL_S = 1.0
SILENCE_LIMIT_S = 5.0
"""A connection whose other end does not answer keep-alives for this long is half-open: cut it."""
MAX_UNSENT_BYTES = 256 << 20
BACKOFF_FIRST_S = 0.05
BACKOFF_LIMIT_S = 1.0


class _Outgoing(FramedConnection):
    """The connection that we dialled: hello, then messages; the other side only echoes keep-alives."""

    def __init__(self, link: PeerLink, max_frame_bytes: int) -> None:
        super().__init__(max_frame_bytes)
        self.link = link
        self.welcomed = asyncio.get_running_loop().create_future()
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
        self.handshake = handshake
        self.peer_admin = ""
        self.connected = False
        self._events = events
        self._max_frame_bytes = max_frame_bytes
        self._encoder = FrameEncoder()
        self._queue: list[Any] = []
        self._connection: _Outgoing | None = None
        self._reported: str | None = None
        self._where = f"{address[0]}:{address[1]}"

    def first_frame(self) -> bytes:
        return bytes(self._encoder.encode(self.handshake.hello(self.peer, Purpose.MESSAGES)))

    def queue(self, item: Any) -> None:
        """Send with the next `flush`; dropped where the peer is not connected."""
        if self.connected:
            self._queue.append(item)

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

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        backoff_s = BACKOFF_FIRST_S
        try:
            while True:
                if await self._one_connection():
                    backoff_s = BACKOFF_FIRST_S
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_LIMIT_S)
        finally:
            if self._connection is not None:
                self._connection.abort()

    async def _one_connection(self) -> bool:
        """Dial, speak until the end.  True where the handshake had succeeded."""
        loop = asyncio.get_running_loop()
        connection = _Outgoing(self, self._max_frame_bytes)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await loop.create_connection(lambda: connection, *self.address)
                self._connection = connection
                await asyncio.wait([connection.welcomed])
        except (OSError, TimeoutError) as error:
            connection.abort()
            self._report(
                f"cannot reach node {self.peer} at {self.address[0]}:{self.address[1]}: {error or 'no answer'}"
            )
            return False
        if connection.welcomed.cancelled():
            problem = connection.problem or "it closed the connection during the handshake"
            self._report(f"no link to node {self.peer} at {self._where}: {problem}")
            return False
        self._report(None)
        self.connected = True
        self._events.connected(self.peer)
        try:
            await self._watch_silence(connection)
        finally:
            self.connected = False
            self._queue.clear()
            self._connection = None
            connection.abort()
        self._report(f"lost the link to node {self.peer}: {connection.problem or 'closed by the other side'}")
        self._events.lost(self.peer, Direction.OUTGOING)
        return True

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

    def _report(self, problem: str | None) -> None:
        """Log a state once, not at every attempt."""
        if problem == self._reported:
            return
        self._reported = problem
        if problem is None:
            _log.info("linked to node %d at %s", self.peer, self._where)
        else:
            _log.warning("%s", problem)


class Links:
    """All of a node's links."""

    def __init__(
        self,
        peers: Mapping[int, tuple[str, int]],
        handshake: Handshake,
        events: LinkEvents,
        max_frame_bytes: int,
    ) -> None:
        self.by_peer = {
            peer: PeerLink(peer, address, handshake, events, max_frame_bytes) for peer, address in sorted(peers.items())
        }
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(link.run(), name=f"link-{link.peer}") for link in self.by_peer.values()]

    def flush(self) -> None:
        """One frame to each peer that something is queued for."""
        for link in self.by_peer.values():
            link.flush()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
