"""One TCP connection of a ZooKeeper client: the handshake, frames out, replies and events in.

A link knows nothing of sessions that outlive it.  It matches replies to requests by their
order, as the protocol promises, and treats a reply out of order as a broken connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Final, cast

from quorate.client.zookeeper_errors import ConnectionLoss
from quorate.services.zookeeper.jute import JuteError, Reader
from quorate.services.zookeeper.protocol import (
    NOTIFICATION_XID,
    PING_XID,
    REPLY_HEADER,
    REQUEST_HEADER,
    SET_WATCHES_XID,
    ConnectRequest,
    ConnectResponse,
    Op,
    WatcherEvent,
)

_LENGTH: Final = Struct(">i")
MAX_FRAME_BYTES: Final = 64 << 20


class Request:
    """One call on its way.  `on_reply(error code, zxid, record)` runs before anything behind the reply is read."""

    __slots__ = ("on_loss", "on_reply", "op", "record", "xid")

    def __init__(
        self,
        op: int,
        record: bytes,
        on_reply: Callable[[int, int, bytes], None],
        on_loss: Callable[[Exception], None],
    ) -> None:
        self.op = op
        self.record = record
        self.on_reply = on_reply
        self.on_loss = on_loss
        self.xid = 0


class Link(asyncio.Protocol):
    """Lives from connection_made until `lost` is done."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect: ConnectRequest,
        on_event: Callable[[WatcherEvent], None],
        on_zxid: Callable[[int], None],
        on_vouched: Callable[[float], None],
        on_lost: Callable[[Link], None],
    ) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._connect = connect
        self._on_event = on_event
        self._on_zxid = on_zxid
        self._on_vouched = on_vouched
        """Told when a ping was sent that is answered now, in the loop's time."""
        self._on_lost = on_lost
        self._received = bytearray()
        self._in_flight: deque[Request] = deque()
        self._pinged_at: deque[float] = deque()
        """When the pings that are not answered were sent."""
        self.greeting: asyncio.Future[ConnectResponse] = loop.create_future()
        """The server's answer to the connect request, or ConnectionLoss."""
        self.lost: asyncio.Future[str] = loop.create_future()
        """Why the connection ended."""
        self.is_broken = False
        """The server has sent what is not ZooKeeper's protocol."""
        self.sent_at = self.heard_at = loop.time()
        self._why = "the server closed the connection"

    # --- the transport's side ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        frame = self._connect.encode()
        self._transport.write(_LENGTH.pack(len(frame)) + frame)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        self._received += data
        received = bytes(self._received)
        at = 0
        try:
            while len(received) - at >= 4:
                size = _LENGTH.unpack_from(received, at)[0]
                if not 0 <= size <= MAX_FRAME_BYTES:
                    raise JuteError(f"length of a frame: expected 0 to {MAX_FRAME_BYTES}, found {size}")
                end = at + 4 + size
                if end > len(received):
                    break
                self._take_frame(received[at + 4 : end])
                at = end
        except JuteError as error:
            self.is_broken = True
            self.abort(f"the server sent what is not ZooKeeper's protocol: {error}")
        del self._received[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        why = self._why if exc is None else str(exc)
        if not self.greeting.done():
            self.greeting.set_exception(ConnectionLoss(why))
            # Nobody may be waiting for it any more.
            self.greeting.exception()
        # First, so that nobody who hears of a lost request sends another one into this connection.
        self._on_lost(self)
        while self._in_flight:
            self._in_flight.popleft().on_loss(ConnectionLoss(why))
        if not self.lost.done():
            self.lost.set_result(why)

    # --- frames ----------------------------------------------------------------------------

    def _take_frame(self, frame: bytes) -> None:
        if not self.greeting.done():
            self.greeting.set_result(ConnectResponse.decode(Reader(frame)))
            return
        if len(frame) < REPLY_HEADER.size:
            raise JuteError(f"reply: expected at least {REPLY_HEADER.size} bytes, found {len(frame)}")
        xid, zxid, code = REPLY_HEADER.unpack_from(frame)
        if xid == NOTIFICATION_XID:
            self._on_event(WatcherEvent.decode(Reader(frame, REPLY_HEADER.size)))
            return
        if zxid > 0:
            self._on_zxid(zxid)
        if xid == PING_XID:
            if self._pinged_at:
                self._on_vouched(self._pinged_at.popleft())
            return
        if not self._in_flight or self._in_flight[0].xid != xid:
            expected = self._in_flight[0].xid if self._in_flight else "none"
            raise JuteError(f"xid of a reply: expected {expected}, found {xid}")
        self._in_flight.popleft().on_reply(code, zxid, frame[REPLY_HEADER.size :])

    def send(self, request: Request, xid: int) -> None:
        request.xid = xid
        self._in_flight.append(request)
        self._write(xid, request.op, request.record)

    def send_watches(self, request: Request) -> None:
        """setWatches has an xid of its own."""
        self.send(request, SET_WATCHES_XID)

    def ping(self) -> None:
        self._write(PING_XID, Op.PING, b"")
        self._pinged_at.append(self.sent_at)

    def _write(self, xid: int, op: int, record: bytes) -> None:
        assert self._transport is not None
        self.sent_at = self._loop.time()
        frame = REQUEST_HEADER.pack(xid, op) + record
        self._transport.write(_LENGTH.pack(len(frame)) + frame)

    def abort(self, why: str) -> None:
        """Give the connection up."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()
