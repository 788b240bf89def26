"""One end of an HTTP/2 connection, without I/O (RFC 9113; section numbers below are its).

The way of bytes: `framing` cuts them into frames and joins header blocks, and calls `on_block`, `on_data` or
`on_control`; what a frame means for a stream is decided there, and what it means for waiting output in `sending`.
A broken rule is one of two things: a stream's (`_fail_stream`, RST_STREAM) or the connection's (`Violation`, caught in
`receive`, GOAWAY).

Most of a busy server's traffic is one pattern, HEADERS of indexed fields and DATA that ends the stream, answered by
`send_response`.  It is handled with one event, one Stream and no other objects, also where a client that has many
requests at hand sends all headers first.

Not done: priorities (deprecated: parsed and ignored), PUSH_PROMISE (neither sent nor accepted), CONNECT, h2c upgrade.
"""

from __future__ import annotations

import enum
from collections import deque

from quorate.net.http2 import frames, settings
from quorate.net.http2.codes import ErrorCode, Violation
from quorate.net.http2.events import (
    ConnectionFailed,
    DataReceived,
    Drained,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    SettingsAcknowledged,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
)
from quorate.net.http2.framing import FrameReader, without_extras
from quorate.net.http2.headers import BlockDecoder, Headers
from quorate.net.http2.limits import Budget, Limits
from quorate.net.http2.sending import ResponseForm, Sender, Stream

_EARNED_PER_FRAME = 4
"""What a useful DATA frame of ours may be answered with: two WINDOW_UPDATEs, a PING that measures the line, a spare."""
_MAX_REMEMBERED_RESETS = 1_000
"""Streams that we have reset lately: what was under way on them is ignored.  Later it costs another RST_STREAM."""
_MAX_REMEMBERED_GAPS = 100
"""Ranges of ids that the client left out.  A stream of an older one counts as one that was used and is over."""
_GOING_AWAY = b"go away\0"
"""The PING whose answer shows that the peer has read the first GOAWAY."""


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

    def __init__(self, role: Role, limits: Limits) -> None:
        assert limits.stream_window_bytes >= frames.DEFAULT_WINDOW_BYTES, "what a peer may send before our SETTINGS"
        assert limits.connection_window_bytes >= frames.DEFAULT_WINDOW_BYTES >= limits.max_frame_bytes
        self._is_server = role is Role.SERVER
        self._limits = limits
        self._sender = Sender()
        self._sender.chunks.append(settings.opening(limits, self._is_server))
        self._decoder = BlockDecoder(limits)
        self._control = Budget(limits.control_burst, limits.control_rate)
        self._resets = Budget(limits.reset_burst, limits.reset_rate)
        self._events: list[Event] = []
        self._openings: dict[int, RequestReceived] = {}
        """Of `_events`, those that came without data, by stream.  A body that comes whole (nothing of it was received
        before) is put into its request's."""

        self._reader = FrameReader(limits, self._is_server)
        self._has_started = False
        self._has_failed = False

        self._streams: dict[int, Stream] = {}
        self._highest_id = 0  # of the client's streams that were opened: all up to it are open or over
        self._gaps: deque[range] = deque(maxlen=_MAX_REMEMBERED_GAPS)
        self._remembered_resets: dict[int, None] = {}
        self._receive_window = limits.connection_window_bytes
        self._consumed = 0
        self._max_peer_streams = 100  # until it says so (section 6.5.2 recommends that it allows as many)
        self._is_going_away = False
        self._has_gone_away = False
        self._peer_goes_away = False

    # --- what the layer above says -----------------------------------------------------------------------------

    def take_output(self) -> bytes:
        """All bytes to write since the last call; b"" where there are none."""
        output = b"".join(self._sender.chunks)
        self._sender.chunks.clear()
        return output

    def open_stream(self, block: bytes, end_stream: bool) -> int:
        """Client: send a request's headers; the new stream's id.  Raises CannotOpenStream."""
        assert not self._is_server
        if self.streams_available <= 0:
            raise CannotOpenStream
        self._highest_id = stream_id = (self._highest_id + 1) | 1
        stream = Stream(stream_id, self._sender.initial_window, self._limits.stream_window_bytes, True)
        self._streams[stream_id] = stream
        stream.is_local_open = not end_stream
        self._sender.send_headers(stream, block, end_stream)
        return stream_id

    def send_headers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """A response's headers, or trailers (`end_stream`), which wait behind queued data.  `block`: `encode`'s."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_local_open:
            return
        stream.is_local_open = not end_stream
        self._sender.send_headers(stream, block, end_stream)
        if end_stream and stream.is_over:
            del self._streams[stream_id]

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """A part of the body.  What the peer's windows don't allow is queued, and leaves as they open."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_local_open:
            return
        stream.is_local_open = not end_stream
        self._sender.send_data(stream, data, end_stream)
        if end_stream and stream.is_over:
            del self._streams[stream_id]

    def send_response(self, stream_id: int, form: ResponseForm, data: bytes) -> None:
        """A whole response, before which nothing was sent.  The fast path of a unary answer."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_local_open:
            return
        sender = self._sender
        size = len(data)
        if (
            size > sender.window
            or size > stream.send_window
            or size > sender.max_frame_bytes
            or sender.must_shrink_table
        ):
            self.send_headers(stream_id, form.headers, False)
            self.send_data(stream_id, data, False)
            self.send_headers(stream_id, form.trailers, True)
            return
        sender.window -= size
        sender.useful_frames += 1
        until_data = form.until_short_data[size] if size < frames.SHORT else form.until_data(size)
        parts = (form.start, until_data, data + form.before_trailers, form.trailers)
        sender.chunks.append(frames.UINT32.pack(stream_id).join(parts))
        if stream.is_remote_open:
            stream.is_local_open = False
        else:
            del self._streams[stream_id]

    def queued_bytes(self, stream_id: int) -> int:
        """Data of this stream that waits for the peer's windows; 0 for a stream that is over."""
        stream = self._streams.get(stream_id)
        return len(stream.queue) if stream is not None and stream.queue else 0

    def queued_total(self) -> int:
        """The same of all streams."""
        return self._sender.queued_total

    def consumed(self, stream_id: int, count: int) -> None:
        """`count` bytes of received data are worked off: the peer may send as many more.

        To be called for every byte of every event's data, also where the stream is over (the connection's window).
        Any stream id that is not open (0) stands for the connection alone.
        """
        if self._has_failed:
            return
        consumed = self._consumed + count
        if consumed * 2 >= self._limits.connection_window_bytes:
            self._sender.chunks.append(frames.window_update(0, consumed))
            self._receive_window += consumed
            assert self._receive_window <= self._limits.connection_window_bytes, "more consumed than received"
            consumed = 0
        self._consumed = consumed
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_remote_open:
            return
        stream.consumed += count
        if stream.consumed * 2 >= self._limits.stream_window_bytes:
            self._sender.chunks.append(frames.window_update(stream_id, stream.consumed))
            stream.receive_window += stream.consumed
            assert stream.receive_window <= self._limits.stream_window_bytes, "more consumed than received"
            stream.consumed = 0

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream at once, dropping what is queued.  No StreamReset event follows."""
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        self._sender.drop(stream)
        self._sender.chunks.append(frames.rst_stream(stream_id, code))
        if stream.is_remote_open:
            self._remember_reset(stream_id)

    def ping(self, payload: bytes) -> None:
        """Ask for a PingAcknowledged with the same 8 bytes."""
        assert len(payload) == 8
        assert payload != _GOING_AWAY
        if not self._has_failed:
            self._sender.chunks.append(frames.ping(payload))

    def go_away(self) -> None:
        """Begin a graceful end (section 6.8): GOAWAY without a last stream, and once the peer has surely read it
        (PING), GOAWAY with the last one; streams that come later are refused.  Streams under way go on: see
        `is_drained`.  A client says GOAWAY once, as its peer opens no streams.
        """
        if self._has_failed or self._is_going_away:
            return
        self._is_going_away = True
        if self._is_server:
            self._sender.chunks += (frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR), frames.ping(_GOING_AWAY))
        else:
            self._finish_going_away()

    def terminate(self, code: ErrorCode, reason: str) -> None:
        """End the connection at once: GOAWAY is the last of the output, and input is ignored from now on."""
        if self._has_failed:
            return
        self._has_failed = True
        last_id = self._highest_id if self._is_server else 0
        self._sender.chunks.append(frames.goaway(last_id, code, reason.encode()))
        for stream in self._streams.values():
            self._sender.drop(stream)
        self._streams.clear()

    @property
    def is_drained(self) -> bool:
        """`go_away` has run to its end and no stream is open: write the output and close."""
        return self._has_gone_away and not self._streams

    @property
    def has_started(self) -> bool:
        """The peer's preface and SETTINGS have come."""
        return self._has_started

    @property
    def has_failed(self) -> bool:
        """ConnectionFailed was told or `terminate` called."""
        return self._has_failed

    @property
    def open_streams(self) -> int:
        """Streams that are not over."""
        return len(self._streams)

    @property
    def streams_available(self) -> int:
        """Client: how many more `open_stream` may open now."""
        if self._has_failed or self._is_going_away or self._peer_goes_away:
            return 0
        ids_left = (frames.MAX_STREAM_ID - self._highest_id) // 2
        return max(0, min(self._max_peer_streams - len(self._streams), ids_left))

    # --- what the peer sends -----------------------------------------------------------------------------------

    def receive(self, data: bytes, now_s: float) -> list[Event]:
        """What the peer's bytes say, in order.  `now_s` never goes back (any origin).

        Never raises for what the peer sent: a broken rule queues RST_STREAM or GOAWAY and yields StreamReset or
        ConnectionFailed.  After ConnectionFailed all input is ignored.
        """
        if self._has_failed:
            return []
        events: list[Event] = []
        self._events = events
        self._openings.clear()
        self._control.refill(now_s, self._sender.useful_frames * _EARNED_PER_FRAME)
        self._resets.refill(now_s)
        self._sender.useful_frames = 0
        try:
            self._reader.read(data, self)
        except Violation as violation:
            self.terminate(violation.code, violation.reason)
            events.append(ConnectionFailed(violation.code, violation.reason))
        return events

    def on_block(self, block: bytes, stream_id: int, end_stream: bool, data: bytes, position: int) -> int:
        """A whole header block, up to `position`; returns how far `data` is read."""
        headers = self._decoder.cached.get(block)
        if headers is None:
            headers = self._decoder.decode(block)
        if stream_id == self._highest_id + 2 and stream_id & 1 and self._is_server:
            self._highest_id = stream_id
            return self._on_request(stream_id, headers, end_stream, data, position)
        stream = self._streams.get(stream_id)
        if stream is not None:
            if not stream.is_remote_open:
                self._fail_stream(stream_id, ErrorCode.STREAM_CLOSED)
            elif headers.list_bytes > self._limits.max_header_list_bytes:
                self._fail_stream(stream_id, ErrorCode.ENHANCE_YOUR_CALM)
            elif self._is_server or stream.has_response:
                self._on_trailers(stream, headers, end_stream)
            else:
                self._on_response(stream, headers, end_stream)
            return position
        if self._is_server and stream_id > self._highest_id and stream_id & 1:
            if stream_id > self._highest_id + 2:
                self._gaps.append(range(self._highest_id + 1, stream_id))
            self._highest_id = stream_id
            return self._on_request(stream_id, headers, end_stream, data, position)
        if self._is_idle(stream_id) or any(stream_id in gap for gap in self._gaps):
            raise Violation(ErrorCode.PROTOCOL_ERROR, f"headers on stream {stream_id}, which may not be opened")
        if stream_id not in self._remembered_resets:
            raise Violation(ErrorCode.STREAM_CLOSED, f"headers on stream {stream_id}, which is over")
        self._pay()
        return position

    def _on_request(self, stream_id: int, headers: Headers, end_stream: bool, data: bytes, position: int) -> int:
        """A new stream.  Where DATA of it follows in `data` at once and is nothing special, it is taken along."""
        limits = self._limits
        if not headers.is_request or headers.list_bytes > limits.max_header_list_bytes:
            is_too_long = headers.list_bytes > limits.max_header_list_bytes
            self._fail_stream(stream_id, ErrorCode.ENHANCE_YOUR_CALM if is_too_long else ErrorCode.PROTOCOL_ERROR)
            return position
        if len(self._streams) >= limits.max_streams or self._has_gone_away:
            self._pay()
            self._remember_reset(stream_id)
            self._sender.chunks.append(frames.rst_stream(stream_id, ErrorCode.REFUSED_STREAM))
            return position
        expected = headers.content_length
        if end_stream and expected > 0:
            self._fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
            return position
        body = b""
        if not end_stream and len(data) - position >= frames.HEAD_BYTES and data[position + 3] == frames.DATA:
            head, flags, body_stream_id = frames.HEAD.unpack_from(data, position)
            size = head >> 8
            stop = position + frames.HEAD_BYTES + size
            if (
                body_stream_id == stream_id
                and (flags == frames.END_STREAM or (flags == 0 and size and expected < 0))
                and expected in (-1, size)
                and stop <= len(data)
                and size <= limits.max_frame_bytes
                and size <= self._receive_window
            ):
                body = data[position + frames.HEAD_BYTES : stop]
                self._receive_window -= size
                end_stream = flags == frames.END_STREAM
                position = stop
        window = limits.stream_window_bytes - len(body)
        self._streams[stream_id] = stream = Stream(stream_id, self._sender.initial_window, window, not end_stream)
        if expected >= 0:
            stream.content_length = expected
        opening = RequestReceived(stream_id, headers, body, end_stream)
        self._events.append(opening)
        if not (body or end_stream):
            self._openings[stream_id] = opening
        return position

    def _on_response(self, stream: Stream, headers: Headers, end_stream: bool) -> None:
        """Client: interim responses (1xx) are dropped."""
        is_interim = headers.status[:1] == "1"
        if not headers.is_response or (is_interim and end_stream):
            self._fail_stream(stream.id, ErrorCode.PROTOCOL_ERROR)
        elif is_interim:
            self._pay()
        else:
            stream.has_response = True
            stream.content_length = headers.content_length
            self._events.append(ResponseReceived(stream.id, headers, end_stream))
            if end_stream:
                self._end_remote(stream)

    def _on_trailers(self, stream: Stream, headers: Headers, end_stream: bool) -> None:
        if not headers.is_trailers or not end_stream or self._is_short(stream):
            self._fail_stream(stream.id, ErrorCode.PROTOCOL_ERROR)
            return
        self._events.append(TrailersReceived(stream.id, headers))
        self._end_remote(stream)

    def on_data(self, payload: bytes, flags: int, stream_id: int) -> None:
        size = len(payload)
        if size > self._receive_window:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is exceeded")
        self._receive_window -= size
        stream = self._streams.get(stream_id)
        if (
            flags == frames.END_STREAM
            and stream is not None
            and stream.is_remote_open
            and not stream.received
            and stream.content_length in (-1, size)
            and size <= stream.receive_window
            and self._is_server
        ):
            # The hot path: a body in one piece.
            opening = self._openings.get(stream_id)
            if opening is None:
                self._events.append(DataReceived(stream_id, payload, True))
            else:
                opening.data, opening.end_stream = payload, True
            stream.is_remote_open = False
            if not stream.is_local_open:
                self._end_remote(stream)
            return
        if flags & frames.PADDED:
            start, stop = without_extras(payload, 0, size, frames.PADDED)
            payload = payload[start:stop]
        if stream is None or not stream.is_remote_open:
            if self._is_idle(stream_id):
                raise Violation(ErrorCode.PROTOCOL_ERROR, f"data on stream {stream_id}")
            self.consumed(0, size)
            if stream is None and stream_id in self._remembered_resets:
                self._pay()
            else:
                self._fail_stream(stream_id, ErrorCode.STREAM_CLOSED)
            return
        stream.receive_window -= size
        stream.received += len(payload)
        end_stream = bool(flags & frames.END_STREAM)
        is_beyond_window = stream.receive_window < 0
        is_before_headers = not (self._is_server or stream.has_response)
        is_too_long = 0 <= stream.content_length < stream.received
        if is_beyond_window or is_before_headers or is_too_long or (end_stream and self._is_short(stream)):
            self.consumed(0, size)
            self._fail_stream(stream_id, ErrorCode.FLOW_CONTROL_ERROR if is_beyond_window else ErrorCode.PROTOCOL_ERROR)
            return
        if size > len(payload):
            self.consumed(stream_id, size - len(payload))
        if not (payload or end_stream):
            self._pay()
            return
        self._events.append(DataReceived(stream_id, payload, end_stream))
        if end_stream:
            self._end_remote(stream)

    def on_control(self, kind: int, payload: bytes, flags: int, stream_id: int) -> None:
        """All frames that bring neither headers nor data.  None is free: see `Limits.control_burst`."""
        self._pay()
        if kind == frames.WINDOW_UPDATE:
            self._on_window_update(payload, stream_id)
        elif kind == frames.RST_STREAM:
            self._on_rst_stream(payload, stream_id)
        elif kind == frames.PRIORITY:
            if stream_id == 0:
                raise Violation(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
            if len(payload) != 5:
                self._fail_stream(stream_id, ErrorCode.FRAME_SIZE_ERROR)
        elif kind == frames.PUSH_PROMISE:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE")
        elif kind in (frames.SETTINGS, frames.PING, frames.GOAWAY):
            if stream_id != 0:
                raise Violation(ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream_id}")
            if kind == frames.SETTINGS:
                self._on_settings(payload, flags)
            elif kind == frames.PING:
                self._on_ping(payload, flags)
            else:
                self._on_goaway(payload)

    def _on_window_update(self, payload: bytes, stream_id: int) -> None:
        increment = _uint32(payload) & frames.MAX_WINDOW_BYTES
        sender = self._sender
        if stream_id == 0:
            if increment == 0:
                raise Violation(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            if sender.window + increment > frames.MAX_WINDOW_BYTES:
                raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")
            self._tell_drained(sender.open_connection(increment))
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise Violation(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE on stream {stream_id}")
        elif increment == 0:
            self._fail_stream(stream_id, ErrorCode.PROTOCOL_ERROR)
        elif stream.send_window + increment > frames.MAX_WINDOW_BYTES:
            self._fail_stream(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            self._tell_drained(sender.open_stream(stream, increment))

    def _on_rst_stream(self, payload: bytes, stream_id: int) -> None:
        code = _uint32(payload)
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            if self._is_idle(stream_id):
                raise Violation(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM on stream {stream_id}")
            return
        self._sender.drop(stream)
        self._events.append(StreamReset(stream_id, code, True))
        if self._is_server and not self._resets.spend():
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "too many streams were reset")

    def _on_settings(self, payload: bytes, flags: int) -> None:
        if flags & frames.ACK:
            if payload:
                raise Violation(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with content")
            self._events.append(SettingsAcknowledged())
            return
        values = settings.parse(payload, self._is_server)
        sender = self._sender
        self._max_peer_streams = values.get(frames.SETTINGS_MAX_CONCURRENT_STREAMS, self._max_peer_streams)
        if frames.SETTINGS_MAX_FRAME_SIZE in values:
            sender.set_max_frame_bytes(values[frames.SETTINGS_MAX_FRAME_SIZE])
        if frames.SETTINGS_HEADER_TABLE_SIZE in values:
            sender.set_table_bytes(values[frames.SETTINGS_HEADER_TABLE_SIZE])
        sender.chunks.append(frames.SETTINGS_ACK)
        self._has_started = True
        self._events.append(SettingsReceived())
        window = values.get(frames.SETTINGS_INITIAL_WINDOW_SIZE)
        if window is not None and window != sender.initial_window:
            self._pay(len(self._streams) // 16)  # every stream is touched
            widest = max((stream.send_window for stream in self._streams.values()), default=0)
            if widest + window - sender.initial_window > frames.MAX_WINDOW_BYTES:
                raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE makes a window overflow")
            self._tell_drained(sender.change_initial_window(window, self._streams.values()))

    def _on_ping(self, payload: bytes, flags: int) -> None:
        if len(payload) != 8:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        if not flags & frames.ACK:
            self._sender.chunks.append(frames.ping(payload, frames.ACK))
        elif payload != _GOING_AWAY:
            self._events.append(PingAcknowledged(payload))
        elif self._is_going_away and not self._has_gone_away:
            self._finish_going_away()

    def _on_goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        last_id = _uint32(payload[:4]) & frames.MAX_STREAM_ID
        self._peer_goes_away = True
        self._events.append(GoAwayReceived(last_id, _uint32(payload[4:8]), payload[8:]))
        if not self._is_server:
            for stream_id in [stream_id for stream_id in self._streams if stream_id > last_id]:
                self._sender.drop(self._streams.pop(stream_id))
                self._events.append(StreamReset(stream_id, ErrorCode.REFUSED_STREAM, True))

    # --- what both need ----------------------------------------------------------------------------------------

    def _is_idle(self, stream_id: int) -> bool:
        """No stream of this id was ever opened (0 and a server's are none)."""
        return stream_id > self._highest_id or not stream_id & 1

    def _is_short(self, stream: Stream) -> bool:
        """Content-Length promised more, or less, than has come at the end (section 8.1.1).  A response without any
        content may name the length that it would have."""
        if stream.content_length < 0 or stream.content_length == stream.received:
            return False
        return self._is_server or stream.received > 0

    def _end_remote(self, stream: Stream) -> None:
        stream.is_remote_open = False
        if stream.is_over:
            del self._streams[stream.id]

    def _tell_drained(self, drained: list[Stream]) -> None:
        for stream in drained:
            self._events.append(Drained(stream.id))
            if stream.is_over:
                del self._streams[stream.id]

    def _pay(self, count: int = 1) -> None:
        if not self._control.spend(count):
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "too many frames of control")

    def _fail_stream(self, stream_id: int, code: ErrorCode) -> None:
        """A stream cannot go on for what the peer sent.  A peer may do that only as often as reset streams itself."""
        self._sender.chunks.append(frames.rst_stream(stream_id, code))
        self._remember_reset(stream_id)
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._sender.drop(stream)
            self._events.append(StreamReset(stream_id, code, False))
        if not self._resets.spend():
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "too many streams had to be reset")

    def _remember_reset(self, stream_id: int) -> None:
        remembered = self._remembered_resets
        remembered[stream_id] = None
        if len(remembered) > _MAX_REMEMBERED_RESETS:
            del remembered[next(iter(remembered))]

    def _finish_going_away(self) -> None:
        self._has_gone_away = True
        self._sender.chunks.append(frames.goaway(self._highest_id if self._is_server else 0, ErrorCode.NO_ERROR))


def _uint32(payload: bytes) -> int:
    if len(payload) != 4:
        raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"4 bytes expected, {len(payload)} came")
    return int.from_bytes(payload, "big")
