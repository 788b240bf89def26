"""What `Connection.receive` tells.  Handle by type: `type(event) is DataReceived`."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from quorate.net.http2.headers import Headers


class RequestReceived(msgspec.Struct, gc=False):
    """Server: a stream was opened.

    `data` is what came of the body in the same bytes, often all of it: like a DataReceived that follows at once.  It
    counts for `Connection.consumed`.
    """

    stream_id: int
    headers: Headers
    data: bytes
    end_stream: bool


class ResponseReceived(msgspec.Struct, frozen=True, gc=False):
    """Client: the (final) response's headers.  Where `end_stream`, they are all of it (gRPC: Trailers-Only)."""

    stream_id: int
    headers: Headers
    end_stream: bool


class DataReceived(msgspec.Struct, frozen=True, gc=False):
    """A part of the body, without padding.  May be empty where `end_stream`."""

    stream_id: int
    data: bytes
    end_stream: bool


class TrailersReceived(msgspec.Struct, frozen=True, gc=False):
    """Headers behind the body; the peer has ended the stream with them."""

    stream_id: int
    headers: Headers


class StreamReset(msgspec.Struct, frozen=True, gc=False):
    """The stream is over: reset by the peer (`by_peer`), or by us for what the peer sent on it.

    Client: also REFUSED_STREAM where GOAWAY says that the server has not looked at it, so that it is safe to retry.
    """

    stream_id: int
    code: int
    by_peer: bool


class Drained(msgspec.Struct, frozen=True, gc=False):
    """All that `send_data` had to queue on this stream is in the output."""

    stream_id: int


class SettingsReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer's settings hold from now on (for a client: `Connection.streams_available` may have changed)."""


class SettingsAcknowledged(msgspec.Struct, frozen=True, gc=False):
    """The peer has ours.  Until this the layer above may time its patience."""


class PingAcknowledged(msgspec.Struct, frozen=True, gc=False):
    """Answer to `Connection.ping`: the same 8 bytes."""

    payload: bytes


class GoAwayReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer takes no new streams; those up to `last_stream_id` go on."""

    last_stream_id: int
    code: int
    debug: bytes


class ConnectionFailed(msgspec.Struct, frozen=True, gc=False):
    """The peer broke the protocol or a limit.  GOAWAY is in the output: write it and close.  Always the last event."""

    code: int
    reason: str


Event: TypeAlias = (
    RequestReceived
    | ResponseReceived
    | DataReceived
    | TrailersReceived
    | StreamReset
    | Drained
    | SettingsReceived
    | SettingsAcknowledged
    | PingAcknowledged
    | GoAwayReceived
    | ConnectionFailed
)
