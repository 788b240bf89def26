"""One client connection: frames in, replies out, in order.

A connection reads frames only as long as it may act on them.  Writes go to the group as they
come, many at a time.  A read is answered from the local store at once, unless writes of the
same connection are unanswered: then parsing stops at the read and goes on when the last of
them is answered, so that the read sees exactly the writes before it and none behind it.
Replies therefore leave in the order of the requests without any queue of replies.

Whatever stops the parsing is a bit in `stalled`; bytes that arrive meanwhile wait in
`backlog`, and beyond `BACKLOG_BYTES` the socket is not read.

Nothing here writes to a socket: replies gather in `out`, and the door flushes every
connection once per turn of the loop.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Final, cast

from quorate.services.zookeeper import four_letter
from quorate.services.zookeeper.commands import COMMAND_HEADER
from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.jute import JuteError, Reader
from quorate.services.zookeeper.protocol import PING_XID, ConnectRequest, ConnectResponse
from quorate.services.zookeeper.requests import FORWARDED, LOCAL, RequestFailed

if TYPE_CHECKING:
    from quorate.services.zookeeper.door import ZooKeeperDoor

FRAME_HEAD: Final = Struct(">iii")
"""Length, xid, operation."""
FRAME_HEAD_AND_LENGTH: Final = Struct(">iiii")
"""The same, and the length of the path with which most records begin."""
REPLY_HEAD: Final = Struct(">iiqi")
"""Length, xid, zxid, error."""
REPLY_HEADER_BYTES: Final = 16

SMALLEST_CONNECT_BYTES: Final = 28
LARGEST_CONNECT_BYTES: Final = 256
BACKLOG_BYTES: Final = 64 << 10
TURN_BYTES: Final = 1 << 20
"""Replies made in one go; what the client asked beyond them waits until these are written."""


class Phase(enum.Enum):
    HANDSHAKE = "waiting for the connect request"
    OPENING = "waiting for the session"
    OPEN = "serving"
    MOVED = "waiting for a request to refuse, since the session is elsewhere"
    CLOSING = "writing the last replies"
    CLOSED = "gone"


class Stall(enum.IntFlag):
    """Why a connection does not parse what it has received."""

    BEHIND_WRITES = 1
    """A read waits for the connection's own writes, or as many requests as allowed are in flight."""
    BARRIER = 2
    """A sync, or the session's creation or attachment, is under way."""
    MORE = 4
    """A turn's worth of replies is made."""
    CONGESTED = 8
    """The group asked doors to stop reading."""
    UNREAD = 16
    """The client does not read its replies."""
    ENDING = 32
    """The client closed its session; whatever it sends after that is not looked at."""


_BEHIND_WRITES: Final = int(Stall.BEHIND_WRITES)
_UNREAD: Final = int(Stall.UNREAD)
_PAUSING: Final = int(Stall.CONGESTED | Stall.UNREAD)


class Write:
    """A request that went to the group: the waiter that comes back with its result."""

    __slots__ = ("connection", "reply", "xid")

    def __init__(self, connection: Connection, xid: int) -> None:
        self.connection = connection
        self.xid = xid
        self.reply: bytes | None = None
        """Set where the outcome was known before that of an earlier write of the connection."""


class Connection(asyncio.Protocol):
    """See the module.  The door owns all of them and is the only caller besides the transport."""

    __slots__ = (
        "backlog",
        "door",
        "generation",
        "identities",
        "in_flight",
        "needed_bytes",
        "out",
        "peer",
        "phase",
        "pings",
        "prefix",
        "queued",
        "reading",
        "received",
        "session",
        "stalled",
        "timeout_ms",
        "transport",
        "unread_bytes",
    )

    transport: asyncio.Transport

    def __init__(self, door: ZooKeeperDoor) -> None:
        self.door = door
        self.phase = Phase.HANDSHAKE
        self.peer = ""
        self.session = 0
        self.generation = 0
        self.timeout_ms = 0
        self.prefix = b""
        """Session and generation, as every command of this connection begins."""
        self.in_flight: deque[Write] = deque()
        self.backlog = bytearray()
        self.needed_bytes = 0
        """Parsing makes no sense before the backlog has so many bytes."""
        self.stalled = 0
        self.reading = True
        self.out: list[bytes] = []
        self.queued = False
        """The door will flush it in this turn."""
        self.unread_bytes = 0
        """What was unsent when the client began not to read; a single reply may be larger than any limit."""
        self.pings = 0
        self.received = 0
        self.identities: list[tuple[bytes, bytes]] = []
        """(scheme, user) of each auth packet."""

    # --- the transport's side ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) and len(peer) >= 2 else str(peer)
        self.door.connection_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.phase is not Phase.CLOSED:
            self.phase = Phase.CLOSED
            self.in_flight.clear()
            self.backlog.clear()
            self.out.clear()
            self.door.connection_lost(self)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.unread_bytes = self.transport.get_write_buffer_size()
        self.stall(Stall.UNREAD)

    def resume_writing(self) -> None:
        self.unstall(Stall.UNREAD)

    def data_received(self, data: bytes) -> None:
        if self.session:
            self.door.touches.heard[self.session] = None
        backlog = self.backlog
        if backlog or self.stalled:
            backlog += data
            if self.stalled or len(backlog) < self.needed_bytes:
                self.adjust_reading()
                return
            data = bytes(backlog)
            backlog.clear()
        self._parse(data)

    # --- parsing -------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        if self.phase is Phase.OPEN:
            at = self._serve(data)
        elif self.phase is Phase.HANDSHAKE:
            at = self._shake_hands(data)
        elif self.phase is Phase.MOVED:
            at = self._refuse(data)
        else:
            return
        if at < len(data) and self.is_served():
            self.backlog += data[at:] if at else data
        if self.stalled:
            self.adjust_reading()

    def is_served(self) -> bool:
        """False once the connection is being closed."""
        return self.phase is not Phase.CLOSING and self.phase is not Phase.CLOSED

    def _shake_hands(self, data: bytes) -> int:
        self.needed_bytes = 4
        if len(data) < 4:
            return 0
        word = data[:4]
        if word in four_letter.WORDS:
            self.door.answer_word(self, word)
            return 4
        length = int.from_bytes(word, "big", signed=True)
        if not SMALLEST_CONNECT_BYTES <= length <= LARGEST_CONNECT_BYTES:
            if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in word):
                self.fail("text", f"opens with {word!r}: neither a connect request nor a four-letter word of ours")
            else:
                self.fail("handshake", f"opens with a frame of {length} bytes, which cannot be a connect request")
            return 0
        self.needed_bytes = 4 + length
        if len(data) < 4 + length:
            return 0
        try:
            request = ConnectRequest.decode(Reader(data[4 : 4 + length]))
        except JuteError as error:
            self.fail("handshake", f"sent a connect request that cannot be decoded: {error}")
            return 0
        self.needed_bytes = 0
        self.phase = Phase.OPENING
        self.stalled |= Stall.BARRIER
        self.door.open_session(self, request)
        return 4 + length

    def _serve(self, data: bytes) -> int:
        """Act on the requests in `data`; returns where it stopped.  The hot path: getData and writes stay inline."""
        door = self.door
        find = door.store.tree.get
        zxid = door.store.zxid
        in_flight = self.in_flight
        push = self.out.append
        max_frame_bytes = door.config.max_frame_bytes
        head_of = FRAME_HEAD.unpack_from
        head_and_length_of = FRAME_HEAD_AND_LENGTH.unpack_from
        size = len(data)
        at = 0
        made_bytes = 0
        count = 0
        self.needed_bytes = 0
        while True:
            if size - at >= 16:
                length, xid, op, path_bytes = head_and_length_of(data, at)
            elif size - at >= 12:
                length, xid, op = head_of(data, at)
                path_bytes = -1
            else:
                self._expect_more(data, at)
                break
            end = at + 4 + length
            if end > size or length < 8 or length > max_frame_bytes:
                self._expect_more(data, at)
                break
            if op == 4 and not in_flight and path_bytes == length - 13:
                znode = find(data[at + 16 : end - 1])
                if znode is None:
                    push(REPLY_HEAD.pack(16, xid, zxid, -101))
                    made_bytes += 20
                else:
                    if data[end - 1]:
                        door.watches.watch_data(data[at + 16 : end - 1], self)
                    content = znode.data_buffer
                    reply_bytes = 84 + len(content)
                    push(REPLY_HEAD.pack(reply_bytes, xid, zxid, 0))
                    push(content)
                    push(znode.stat)
                    made_bytes += reply_bytes
            elif op in FORWARDED:
                if len(in_flight) >= door.config.max_requests_in_flight:
                    self.stalled |= _BEHIND_WRITES
                    break
                write = Write(self, xid)
                in_flight.append(write)
                door.commands.append(self.prefix + data[at + 8 : end])
                door.waiters.append(write)
                if op == -11:
                    self.stalled |= Stall.ENDING
            elif op == 11:
                # Also in front of unanswered writes: a ping's reply has no place in the order of the others.
                self.pings += 1
                door.touches.ping(self.session)
            elif in_flight:
                self.stalled |= _BEHIND_WRITES
                break
            else:
                made_bytes += self._answer(xid, op, data[at + 12 : end])
            count += 1
            at = end
            if self.stalled:
                break
            if made_bytes > TURN_BYTES:
                self.stalled |= Stall.MORE
                break
        self.received += count
        door.counters.requests += count
        if not self.queued:
            door.schedule(self)
        return at

    def _expect_more(self, data: bytes, at: int) -> None:
        """A frame is not whole, or is none: say how many bytes it needs, or close."""
        if len(data) - at < 4:
            self.needed_bytes = 4
            return
        length = int.from_bytes(data[at : at + 4], "big", signed=True)
        if length < 8:
            self.fail("frame", f"sent a frame of {length} bytes: a request has at least 8")
        elif length > self.door.config.max_frame_bytes:
            self.fail("frame", f"sent a frame of {length} bytes: the limit is {self.door.config.max_frame_bytes}")
        else:
            self.needed_bytes = 4 + length

    def _answer(self, xid: int, op: int, record: bytes) -> int:
        """A request off the hot path, with no write of this connection in flight.  Returns the bytes of its reply."""
        handler = LOCAL.get(op)
        if handler is None:
            self.door.log_once("operation", "%s asked for operation %d, which is not supported", self.peer, op)
            return self.reply(xid, ErrorCode.UNIMPLEMENTED)
        try:
            body = handler(self, xid, Reader(record))
        except RequestFailed as failure:
            return self.reply(xid, failure.code)
        except JuteError as error:
            self.door.log_once("record", "%s sent a record of operation %d that is none: %s", self.peer, op, error)
            return self.reply(xid, ErrorCode.MARSHALLING_ERROR)
        return 0 if body is None else self.reply(xid, ErrorCode.OK, body)

    def _refuse(self, data: bytes) -> int:
        """The session has moved to another connection: say so to the next request, in its turn, and close."""
        if self.in_flight:
            self.stalled |= _BEHIND_WRITES
            return 0
        if len(data) < 12:
            self.needed_bytes = 12
            return 0
        self._say_moved(FRAME_HEAD.unpack_from(data)[1])
        return len(data)

    def _say_moved(self, xid: int) -> None:
        """Close with SESSION_MOVED, and no zxid in the header.

        A client asks its next server only for events after the last zxid that it was shown (setWatches).  This
        connection no longer sends any, so it must not show one.
        """
        self.out.append(REPLY_HEAD.pack(REPLY_HEADER_BYTES, xid, 0, ErrorCode.SESSION_MOVED))
        self.door.schedule(self)
        self.close()

    # --- replies -------------------------------------------------------------------------

    def reply(self, xid: int, code: int, body: bytes = b"") -> int:
        """Queue a reply that shows the store as it is now.  Returns its size in bytes."""
        self.out.append(REPLY_HEAD.pack(REPLY_HEADER_BYTES + len(body), xid, self.door.store.zxid, code))
        self.out.append(body)
        self.door.schedule(self)
        return REPLY_HEADER_BYTES + 4 + len(body)

    def reply_pings(self) -> None:
        """The leader vouches for the session."""
        for _ in range(self.pings):
            self.reply(PING_XID, ErrorCode.OK)
        self.pings = 0

    def sync(self, xid: int, body: bytes) -> None:
        """Nothing behind a sync is looked at before the group's barrier is passed."""
        self.stalled |= Stall.BARRIER
        self.door.group.barrier(partial(self._finish_sync, xid, body))

    def _finish_sync(self, xid: int, body: bytes, passed: bool) -> None:
        if self.phase is Phase.MOVED:
            self._say_moved(xid)
        elif self.phase is Phase.OPEN and passed:
            self.reply(xid, ErrorCode.OK, body)
            self.unstall(Stall.BARRIER)
        elif self.phase is Phase.OPEN:
            self.fail("sync", "asked for a sync, which no leader answered")

    def finish_out_of_turn(self, write: Write, code: int) -> None:
        """A write was refused.  Earlier writes may still be unanswered; then its reply waits for theirs."""
        # A connection that gets no events any more shows no zxid either (`_say_moved`).
        zxid = 0 if self.phase is Phase.MOVED else self.door.store.zxid
        write.reply = REPLY_HEAD.pack(REPLY_HEADER_BYTES, write.xid, zxid, code)
        self.finish_ready()

    def finish_ready(self) -> None:
        """Move the replies that waited for an earlier one, as far as they may go now."""
        in_flight = self.in_flight
        while in_flight and (reply := in_flight[0].reply) is not None:
            self.out.append(reply)
            in_flight.popleft()
        if not in_flight:
            self.unstall(Stall.BEHIND_WRITES)
        self.door.schedule(self)

    # --- the session -----------------------------------------------------------------------

    def open(self, session: int, generation: int, timeout_ms: int, password: bytes, with_flag: bool) -> None:
        """The session is created, or attached here: greet the client and serve what it has sent meanwhile."""
        self.session = session
        self.generation = generation
        self.timeout_ms = timeout_ms
        self.prefix = COMMAND_HEADER.pack(session, generation, 0)[:16]
        self.phase = Phase.OPEN
        self._greet(ConnectResponse(timeout_ms, session, password, False if with_flag else None))
        self.unstall(Stall.BARRIER)

    def reject(self, with_flag: bool) -> None:
        """There is no such session (any more): timeout 0 tells the client that it has expired."""
        self._greet(ConnectResponse(0, 0, bytes(16), False if with_flag else None))
        self.close()

    def _greet(self, response: ConnectResponse) -> None:
        frame = response.encode()
        self.out += (len(frame).to_bytes(4, "big"), frame)
        self.door.schedule(self)

    def moved(self) -> None:
        """The session was attached through another connection: writes under way get their results, no more."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.MOVED
            self.session = 0
            self.door.leaving(self)

    # --- stalling ----------------------------------------------------------------------------

    def stall(self, why: Stall) -> None:
        self.stalled |= why
        self.adjust_reading()

    def unstall(self, why: int) -> None:
        """The door will go on parsing in this turn, once all changes that were applied are delivered."""
        if self.stalled & why:
            self.stalled &= ~why
            if not self.stalled:
                self.door.resumable.append(self)
                self.door.schedule(self)

    def resume(self) -> None:
        """Go on with what arrived meanwhile."""
        if self.stalled or self.phase is Phase.CLOSED:
            return
        if len(self.backlog) >= max(self.needed_bytes, 1):
            data = bytes(self.backlog)
            self.backlog.clear()
            self._parse(data)
        self.adjust_reading()

    def adjust_reading(self) -> None:
        """Stop reading the socket while nothing may be parsed and enough is waiting; start again after that."""
        stalled = self.stalled
        want = not (stalled & _PAUSING or (stalled and len(self.backlog) > BACKLOG_BYTES))
        if want is not self.reading and self.phase is not Phase.CLOSED:
            self.reading = want
            if want:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # --- leaving -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Write all replies in one go.  Called by the door at the end of a turn."""
        self.queued = False
        out = self.out
        if out:
            data = b"".join(out)
            out.clear()
            transport = self.transport
            transport.write(data)
            if self.stalled & _UNREAD:
                unread_bytes = transport.get_write_buffer_size()
                if unread_bytes - self.unread_bytes > self.door.config.max_unread_bytes:
                    self.fail("unread", f"has not read {unread_bytes} bytes of replies")
        if self.phase is Phase.CLOSING:
            self.transport.close()
        elif self.stalled & Stall.MORE:
            self.unstall(Stall.MORE)

    def close(self) -> None:
        """Close once the replies made so far are written."""
        if self.is_served():
            self.phase = Phase.CLOSING
            self.door.leaving(self)
            self.door.schedule(self)

    def fail(self, kind: str, what: str) -> None:
        """The client did what it must not, or cannot be served: log it and close at once, replies or not."""
        if self.phase is not Phase.CLOSED:
            self.door.log_once(kind, "closing %s: it %s", self.peer, what)
            self.abort()

    def abort(self) -> None:
        """Close at once, without what has not been written."""
        self.out.clear()
        if self.phase is not Phase.CLOSED:
            self.phase = Phase.CLOSING
            self.transport.abort()
