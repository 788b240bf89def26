"""One end of an HTTP/2 connection, without I/O (RFC 9113)."""

from __future__ import annotations

import enum

from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.events import Event
from quorate.net.http2.limits import Limits


class Role(enum.Enum):
    CLIENT = "client"
    SERVER = "server"


class CannotOpenStream(Exception):
    """The peer allows no more streams now, or has said GOAWAY, or the connection has failed, or ids are used up."""


class Connection:
    """Bytes in by `receive`, events out; verbs in, bytes out by `take_output`.

    The preface and SETTINGS are in the output from the start.  Verbs on a stream that is over do nothing, because
    `receive` may have seen its end later in the same bytes than the event that is being handled.
    """

    def __init__(self, role: Role, limits: Limits) -> None: ...

    def receive(self, data: bytes, now_s: float) -> list[Event]:
        """What the peer's bytes say, in order.  `now_s` never goes back (any origin).

        Never raises for what the peer sent: a broken rule queues RST_STREAM or GOAWAY and yields StreamReset or
        ConnectionFailed.  After ConnectionFailed all input is ignored.
        """
        raise NotImplementedError

    def take_output(self) -> bytes:
        """All bytes to write since the last call; b"" where there are none."""
        raise NotImplementedError

    def open_stream(self, block: bytes, end_stream: bool) -> int:
        """Client: send a request's headers; the new stream's id.  Raises CannotOpenStream."""
        raise NotImplementedError

    def send_headers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """A response's headers, or trailers (`end_stream`), which wait behind queued data.  `block`: `encode`'s."""
        raise NotImplementedError

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """A part of the body.  What the peer's windows don't allow is queued, and leaves as they open."""
        raise NotImplementedError

    def send_response(self, stream_id: int, headers_block: bytes, data: bytes, trailers_block: bytes) -> None:
        """A whole response: headers, data, trailers, end of stream.  The fast path of a unary answer."""
        raise NotImplementedError

    def queued_bytes(self, stream_id: int) -> int:
        """Data of this stream that waits for the peer's windows; 0 for a stream that is over."""
        raise NotImplementedError

    def queued_total(self) -> int:
        """The same of all streams."""
        raise NotImplementedError

    def consumed(self, stream_id: int, count: int) -> None:
        """`count` bytes of received data are worked off: the peer may send as many more.

        To be called for every byte of every event's data, also where the stream is over (the connection's window).
        """
        raise NotImplementedError

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream at once, dropping what is queued.  No StreamReset event follows."""
        raise NotImplementedError

    def ping(self, payload: bytes) -> None:
        """Ask for a PingAcknowledged with the same 8 bytes."""
        raise NotImplementedError

    def go_away(self) -> None:
        """Begin a graceful end: GOAWAY without a last stream, and once the peer has surely read it (PING),
        GOAWAY with the last one; streams that come later are refused.  Streams under way go on: see `is_drained`.
        """
        raise NotImplementedError

    def terminate(self, code: ErrorCode, reason: str) -> None:
        """End the connection at once: GOAWAY is the last of the output, and input is ignored from now on."""
        raise NotImplementedError

    @property
    def is_drained(self) -> bool:
        """`go_away` has run to its end and no stream is open: write the output and close."""
        raise NotImplementedError

    @property
    def has_started(self) -> bool:
        """The peer's preface and SETTINGS have come."""
        raise NotImplementedError

    @property
    def has_failed(self) -> bool:
        """ConnectionFailed was told or `terminate` called."""
        raise NotImplementedError

    @property
    def open_streams(self) -> int:
        """Streams that are not over, of both ends."""
        raise NotImplementedError

    @property
    def streams_available(self) -> int:
        """Client: how many more `open_stream` may open now."""
        raise NotImplementedError
