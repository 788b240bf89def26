"""Peers' connections to this node: who may come in, and whose newer connection ends an older one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from quorate.net.connection import HANDSHAKE_TIMEOUT_S, SILENCE_LIMIT_S, Direction, FramedConnection, LinkEvents
from quorate.net.frames import KEEP_ALIVE, FrameEncoder
from quorate.net.handshake import Handshake, HandshakeRefused, Hello, Portrait, Purpose, Unwelcome

_log = logging.getLogger(__name__)

SNAPSHOT_SILENCE_LIMIT_S = 15.0
"""Of a snapshot's sender, which sends chunks, or keep-alives while it waits for the answer."""


REFUSAL_LOG_INTERVAL_S = 60.0
MAX_REFUSALS_REMEMBERED = 256


class _Incoming(FramedConnection):
    """A connection that a peer dialled, or somebody who is no peer at all."""

    def __init__(self, listener: PeerListener) -> None:
        super().__init__(listener.max_frame_bytes)
        self.listener = listener
        self.hello: Hello | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.transfer: asyncio.StreamReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self.deadline = loop.call_later(HANDSHAKE_TIMEOUT_S, self.failed, TimeoutError("no handshake in time"))

    def frame_received(self, body: bytes) -> None:
        if self.hello is None:
            self._shake_hands(body)
        elif not body:
            if self.transport is not None:
                self.transport.write(KEEP_ALIVE)
        elif self.hello.purpose is Purpose.MESSAGES:
            items = self.listener.decode_items(body)
            self.listener.events.received(self.hello.node, items)
        else:
            self.listener.transfers.frame(self, self.hello.node, body)

    def frames_ended(self) -> None:
        if self.hello is not None and self.hello.purpose is Purpose.MESSAGES:
            self.listener.events.burst_ended(self.hello.node)

    def _shake_hands(self, body: bytes) -> None:
        hello, answer = self.listener.handshake.accept(body)
        if self.transport is None:
            return
        if isinstance(answer, Portrait):
            self._part(answer)
            return
        assert self.deadline is not None
        self.deadline.cancel()
        self.hello = hello
        self.decoder.max_frame_bytes = self.max_frame_bytes
        if hello.purpose is Purpose.MESSAGES:
            self.listener.adopt(hello.node, self)
        # Whoever heard of the loss of an older connection may have cut this one.
        if self.transport is not None:
            self._watch_silence()
            self.transport.write(FrameEncoder().encode(answer))

    def _part(self, answer: Portrait | Unwelcome) -> None:
        """Say this and hang up."""
        transport, self.transport = self.transport, None
        assert transport is not None
        transport.write(FrameEncoder().encode(answer))
        transport.close()

    def _watch_silence(self) -> None:
        """A sender's machine may be gone without a word.

        What it leaves half done is not kept, and nobody is said to be there who is not.
        """
        assert self.hello is not None
        silence_s = SILENCE_LIMIT_S if self.hello.purpose is Purpose.MESSAGES else SNAPSHOT_SILENCE_LIMIT_S
        limit_s = self.last_heard_s + silence_s
        loop = asyncio.get_running_loop()
        if loop.time() < limit_s:
            self.deadline = loop.call_at(limit_s, self._watch_silence)
        else:
            self.failed(TimeoutError(f"it has been silent for {silence_s:.0f} s"))

    def failed(self, error: Exception) -> None:
        transport = self.transport
        if transport is None:
            return
        where = transport.get_extra_info("peername")
        if self.hello is None:
            if self.listener.is_news(where, error):
                _log.warning("refused a peer connection from %s: %s", where, error)
            self._part(self.listener.handshake.unwelcome(error))
        else:
            level = logging.WARNING if isinstance(error, TimeoutError) else logging.ERROR
            _log.log(level, "cut the connection from node %d (%s): %s", self.hello.node, where, error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.deadline is not None:
            self.deadline.cancel()
        self.listener.dismiss(self)


class TransferHandler(Protocol):
    """Takes the frames of snapshot connections."""

    def frame(self, connection: IncomingTransfer, peer: int, body: bytes) -> None: ...

    def ended(self, connection: IncomingTransfer) -> None: ...


class IncomingTransfer(Protocol):
    """A snapshot connection as its handler sees it."""

    transport: asyncio.Transport | None

    def abort(self) -> None: ...


class PeerListener:
    """Accepts peers' connections and hands up what they send."""

    def __init__(
        self,
        handshake: Handshake,
        events: LinkEvents,
        transfers: TransferHandler,
        decode_items: Callable[[bytes], list[Any]],
        max_frame_bytes: int,
    ) -> None:
        self.handshake = handshake
        self.events = events
        self.transfers = transfers
        self.decode_items = decode_items
        self.max_frame_bytes = max_frame_bytes
        self._current: dict[int, _Incoming] = {}
        self._open: dict[_Incoming, None] = {}
        """No set, whose order is that of addresses in memory: a simulated run is the same every time."""
        self._logged_s: dict[tuple[str, str], float] = {}
        """When a refusal (host, reason) was last logged."""
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Raises OSError where the address cannot be listened on."""
        self._server = await asyncio.get_running_loop().create_server(self._accept, host, port)

    def _accept(self) -> _Incoming:
        connection = _Incoming(self)
        self._open[connection] = None
        return connection

    def adopt(self, peer: int, connection: _Incoming) -> None:
        """From now on `peer` speaks on this connection; what is left on an older one is void."""
        older = self._current.get(peer)
        self._current[peer] = connection
        if older is not None:
            older.abort()
            self.events.lost(peer, Direction.INCOMING)
        self.events.accepted(peer)

    def incarnation_of(self, peer: int) -> str | None:
        """Under which incarnation the peer speaks to this node now; None where it does not."""
        connection = self._current.get(peer)
        if connection is None or connection.hello is None or connection.transport is None:
            return None
        return connection.hello.incarnation

    def disconnect(self, peer: int) -> None:
        """Cut whatever the peer speaks on, snapshots too; nothing more of it is handed up.

        `events.lost` follows from the loop, so this may be called from within any step.
        """
        for connection in list(self._open):
            if connection.hello is not None and connection.hello.node == peer:
                connection.abort()

    def is_news(self, where: object, error: Exception) -> bool:
        """False where the same host was refused for the same reason a short while ago: it tries again and again."""
        if not isinstance(error, HandshakeRefused):
            return True
        now_s = asyncio.get_running_loop().time()
        refusal = (str(where[0]) if isinstance(where, tuple) else "", str(error))
        logged_s = self._logged_s.get(refusal)
        if logged_s is not None and now_s - logged_s < REFUSAL_LOG_INTERVAL_S:
            return False
        if len(self._logged_s) >= MAX_REFUSALS_REMEMBERED:
            self._logged_s.clear()
        self._logged_s[refusal] = now_s
        return True

    def dismiss(self, connection: _Incoming) -> None:
        self._open.pop(connection, None)
        hello = connection.hello
        if hello is None:
            return
        if hello.purpose is Purpose.SNAPSHOT:
            self.transfers.ended(connection)
        elif self._current.get(hello.node) is connection:
            del self._current[hello.node]
            self.events.lost(hello.node, Direction.INCOMING)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self._open):
            connection.abort()
