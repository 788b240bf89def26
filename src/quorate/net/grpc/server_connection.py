"""One client's connection to the server: HTTP/2's events in, calls up, answers out.

What answers a client gathers in HTTP/2's output until the server flushes the connection, once at the end of each turn
of the loop in which something was added.  So a batch of answers is one write.

What a client can make the server hold is bounded on every side:

- Requests that are not answered: beyond `MAX_HELD_BYTES`, or `server.MAX_HELD_BYTES` of all clients, the client gets no
  more credit (HTTP/2's windows) until some are.  It is still read, so that its pings and cancellations are heard.
- Compressed requests: they are decompressed as far as the same bounds allow, and some in each turn of the loop
  (`server.MAX_INFLATED_BYTES`); the rest waits as it came, for which there is no more credit.
- Messages of which only a part has come: beyond `MAX_PARTIAL_BYTES` the call that adds one more part is ended.
- Unary answers that the client has asked for and does not take: beyond `max_unread_bytes` further requests wait, or are
  refused where they are streams, and services let answers wait that they have yet to make (`Call.must_wait`).
- Streamed answers: a service pauses at `low_water_bytes` of each call (`Call.unsent_bytes`).  Where it does not, and
  what it sent in excess comes to `max_unread_bytes`, the client is cut off.
- A socket that takes nothing is not read either, and a client of which nothing is heard is cut off (`look_after`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from quorate.net.grpc.calls import Call, Streaming, Unary
from quorate.net.grpc.framing import IDENTITY, PREFIX, PREFIX_BYTES, MessageDecoder, encode_message
from quorate.net.grpc.lingering import Lingering
from quorate.net.grpc.request import (
    OK_RESPONSE,
    OK_TRAILERS,
    ONLY_OK_TRAILERS,
    RESPONSE_HEADERS,
    RequestHead,
    head_of,
    only_trailers,
    trailers,
)
from quorate.net.grpc.server_call import ServerCall
from quorate.net.grpc.status import Code, GrpcError
from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import Connection, Role
from quorate.net.http2.events import (
    ConnectionFailed,
    DataReceived,
    Drained,
    Event,
    RequestReceived,
    StreamReset,
    TrailersReceived,
)

if TYPE_CHECKING:
    from quorate.net.grpc.server import GrpcServer

_log = logging.getLogger(__name__)

MAX_HELD_BYTES: Final = 16 << 20
MAX_PARTIAL_BYTES: Final = 64 << 20
"""More than for whole requests: no credit can be withheld here, because then none of the messages might ever be whole,
and honest clients send many large ones side by side, a frame of each in turn."""
REFUSAL_PATIENCE_S: Final = 0.02
"""A call that is refused for its headers is told so when its request ends, or after this long.

An answer in the middle of a request is right by the RFC, and there are clients that hang or hide it (curl 7.88).
"""
PING_AFTER_S: Final = 60.0
"""A client of which nothing was heard for so long is asked for a sign of life; etcd's own default is two hours."""
SILENCE_LIMIT_S: Final = 80.0
"""And cut off after this time: it had 20 s for the answer, as with etcd."""

STOPPING: Final = "the server is stopping"

_PING: Final = b"quorate?"


class ServerConnection(asyncio.Protocol):
    """See the module.  Only its transport, its calls and the server call it."""

    __slots__ = (
        "_calls",
        "_counted_bytes",
        "_credit_bytes",
        "_deferred",
        "_excess_bytes",
        "_heard_s",
        "_held_bytes",
        "_http2",
        "_is_leaving",
        "_lingering",
        "_loop",
        "_partial_bytes",
        "_patience",
        "_paused",
        "_pinged",
        "_postponed",
        "_refused",
        "_sending",
        "_server",
        "_starved",
        "_transport",
        "_unsent_bytes",
        "_waiting",
        "_withheld",
        "is_scheduled",
        "peer",
    )

    def __init__(self, server: GrpcServer) -> None:
        self.peer = ""
        self.is_scheduled = False
        """The server will flush it at the end of this turn."""
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._http2 = Connection(Role.SERVER, server.limits)
        self._transport: asyncio.Transport | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._heard_s = self._loop.time()
        self._pinged = False
        self._calls: dict[int, ServerCall] = {}
        self._paused = False
        """The socket takes no more."""
        self._is_leaving = False
        self._unsent_bytes = 0
        """Answers that are not in the kernel's hands, as of the last flush, and all that was added since."""
        self._held_bytes = 0
        """Messages of unary calls that are not answered."""
        self._counted_bytes = 0
        """As many as the server knows of."""
        self._partial_bytes = 0
        """Beginnings of messages."""
        self._credit_bytes = 0
        """Of requests that came whole: to be given back with the next flush."""
        self._withheld: list[tuple[int, int]] = []
        """(stream, bytes) of data whose credit the client gets when it holds less."""
        self._postponed: deque[tuple[ServerCall, bytes, bool]] = deque()
        """(call, data, it is the last of the request) of compressed requests that are not decompressed yet."""
        self._deferred: dict[ServerCall, None] = {}
        """Whole unary requests of a client that should read first."""
        self._waiting: dict[ServerCall, Callable[[Call], None]] = {}
        """Dispatched ones, whose answers wait for the same -> what to call then."""
        self._sending: dict[ServerCall, None] = {}
        """Calls to look at when the output was written: they have streamed something, or hold back."""
        self._starved: dict[ServerCall, None] = {}
        """Calls whose streamed answers wait for the client's windows."""
        self._lingering = Lingering(self._http2)
        self._refused: dict[int, bytes] = {}
        """Streams that are refused -> the answer, which waits for the end of the request."""
        self._excess_bytes = 0
        """Streamed by calls that should have held back."""

    # --- the transport's side ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
        if self._server.admit(self):
            self._patience = self._loop.call_later(self._server.options.handshake_s, self._lose_patience)
            self._schedule()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._patience is not None:
            self._patience.cancel()
        self._server.dismiss(self)
        self._postponed.clear()
        for call in list(self._calls.values()):
            self._cancel(call)

    def pause_writing(self) -> None:
        # What a client asks for while it does not read would only pile up.
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self._heard_s = self._loop.time()
        if self._transport is not None:
            self._transport.resume_reading()
            self._schedule()

    def data_received(self, data: bytes) -> None:
        self._heard_s = now_s = self._loop.time()
        calls = self._calls
        for event in self._http2.receive(data, now_s):
            if type(event) is RequestReceived:
                self._request(event)
            elif type(event) is DataReceived:
                call = calls.get(event.stream_id)
                if call is not None:
                    self._part(call, event.data, event.end_stream)
                else:
                    self._body_of_none(event.stream_id, event.data, event.end_stream)
            else:
                self._other(event)
        if self._patience is not None and self._http2.has_started:
            self._patience.cancel()
            self._patience = None
        self._schedule()

    # --- requests ----------------------------------------------------------------------------

    def _request(self, event: RequestReceived) -> None:
        server = self._server
        head = event.headers.derived
        if type(head) is not RequestHead:
            head = head_of(event.headers, server.methods, server.services)
        method = head.method
        if method is None or head.refusal is not None:
            self._refuse(event, head.refusal)
            return
        stream_id, data = event.stream_id, event.data
        self._calls[stream_id] = call = ServerCall(self, stream_id, head)
        server.counters.calls += 1
        if head.timeout_s is not None:
            call.deadline_s = self._heard_s + head.timeout_s
            server.deadlines.add(call, call.deadline_s)
        if type(method) is Streaming:
            self._open(call, method)
            if call.is_over:
                self._body_of_none(stream_id, data, event.end_stream)
                return
        if data or event.end_stream:
            self._part(call, data, event.end_stream)

    def _open(self, call: ServerCall, method: Streaming) -> None:
        if self._unsent_bytes > self._server.options.max_unread_bytes:
            self.fail(call, Code.RESOURCE_EXHAUSTED, "too many answers on this connection are not read")
            return
        handler = method.open(call)
        if call.is_over:
            # It was ended from within `open`, when there was no handler to be told.
            handler.closed()
        else:
            call.handler = handler

    def _refuse(self, event: RequestReceived, refusal: bytes | None) -> None:
        assert refusal is not None
        self._server.counters.calls_refused += 1
        self._refused[event.stream_id] = refusal
        self._body_of_none(event.stream_id, event.data, event.end_stream)
        if event.stream_id in self._refused:
            self._loop.call_later(REFUSAL_PATIENCE_S, self._answer_refused, event.stream_id, False)

    def _answer_refused(self, stream_id: int, has_ended: bool) -> None:
        refusal = self._refused.pop(stream_id, None)
        if refusal is not None and self._transport is not None:
            self._http2.send_headers(stream_id, refusal, True)
            if not has_ended:
                self._lingering.add(stream_id)
            self._schedule()

    def _body_of_none(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Of a stream that was refused, or whose call is over."""
        self._http2.consumed(0, len(data))
        if end_stream:
            self._lingering.ended(stream_id)
            self._answer_refused(stream_id, True)

    def _part(self, call: ServerCall, data: bytes, end_stream: bool) -> None:
        call.half_closed = end_stream
        size = len(data)
        if end_stream and call.head.is_plain_unary and call.decoder is None and size >= PREFIX_BYTES:
            # The hot path: a unary request in one piece.
            flag, length = PREFIX.unpack_from(data)
            if not flag and length == size - PREFIX_BYTES and length <= self._server.options.max_message_bytes:
                self._credit_bytes += size
                call.held_bytes = size
                self._held_bytes += size
                self._dispatch(call, data[PREFIX_BYTES:])
                return
        postpones = call.head.encoding != IDENTITY and (
            bool(self._postponed) or self._held_bytes > MAX_HELD_BYTES or self._server.is_full
        )
        if size:
            if postpones or self._held_bytes > MAX_HELD_BYTES or self._server.holds_too_much:
                self._withheld.append((call.stream_id, size))
            else:
                self._http2.consumed(call.stream_id, size)
        if postpones:
            self._postponed.append((call, data, end_stream))
        else:
            self._decode(call, data, end_stream)

    def _decode_postponed(self) -> None:
        while self._postponed and self._held_bytes <= MAX_HELD_BYTES and not self._server.is_full:
            call, data, end_stream = self._postponed.popleft()
            if not call.is_over:
                self._decode(call, data, end_stream)
        if self._postponed and self._held_bytes <= MAX_HELD_BYTES:
            if self._server.holds_too_much:
                self._server.starve(self)
            else:
                self._schedule()

    def _decode(self, call: ServerCall, data: bytes, end_stream: bool) -> None:
        try:
            if data:
                self._take(call, data)
            if end_stream and not call.is_over:
                self._request_ended(call)
        except GrpcError as error:
            self.fail(call, error.code, error.message)

    def _take(self, call: ServerCall, data: bytes) -> None:
        """Raises GrpcError where the call ends of it."""
        options = self._server.options
        decoder = call.decoder
        if decoder is None:
            call.decoder = decoder = MessageDecoder(options.max_message_bytes, call.head.encoding)
        before_bytes = decoder.buffered_bytes
        try:
            messages = decoder.feed(data)
        finally:
            self._partial_bytes += decoder.buffered_bytes - before_bytes
        if self._partial_bytes > max(MAX_PARTIAL_BYTES, options.max_message_bytes):
            raise GrpcError(Code.RESOURCE_EXHAUSTED, "too many messages on this connection have come only in part")
        if call.head.encoding != IDENTITY:
            self._server.inflated_bytes += sum(map(len, messages))
        for message in messages:
            if call.is_over:
                return
            if call.handler is not None:
                call.handler.message(message)
            elif call.message is not None:
                raise GrpcError(Code.INTERNAL, "cardinality violation: a unary request has one message")
            else:
                call.message = message
                call.held_bytes = len(message)
                self._held_bytes += len(message)

    def _request_ended(self, call: ServerCall) -> None:
        """Raises GrpcError where the call ends of it, in the words of the grpc-go that is in etcd 3.4."""
        if call.decoder is not None and call.decoder.buffered_bytes:
            raise GrpcError(Code.UNKNOWN, "unexpected EOF")
        if call.handler is not None:
            call.handler.half_closed()
        elif call.message is None:
            raise GrpcError(Code.UNKNOWN, "EOF")
        else:
            message, call.message = call.message, None
            self._dispatch(call, message)

    def _dispatch(self, call: ServerCall, message: bytes) -> None:
        """A unary request is whole."""
        if self._deferred or self._unsent_bytes > self._server.options.max_unread_bytes:
            call.message = message
            self._deferred[call] = None
            return
        method = call.head.method
        assert type(method) is Unary
        call.is_dispatched = True
        method.handle(call, message)

    def _other(self, event: Event) -> None:
        if type(event) is StreamReset:
            self._lingering.ended(event.stream_id)
            self._refused.pop(event.stream_id, None)
            call = self._calls.get(event.stream_id)
            if call is not None:
                call.half_closed = True
                self._cancel(call)
        elif type(event) is Drained:
            call = self._calls.get(event.stream_id)
            if call is not None and self._starved.pop(call, self) is None:
                self._sending[call] = None
        elif type(event) is TrailersReceived:
            # gRPC's requests have none; they end the request like anything that ends it.
            call = self._calls.get(event.stream_id)
            if call is not None:
                self._part(call, b"", True)
            else:
                self._body_of_none(event.stream_id, b"", True)
        elif type(event) is ConnectionFailed:
            self._server.counters.connections_failed += 1
            _log.info("closing %s: %s", self.peer, event.reason)

    # --- answers -----------------------------------------------------------------------------

    def reply(self, call: ServerCall, message: bytes) -> None:
        if call.responding:
            self.send(call, message)
            self.finish(call)
            return
        self._http2.send_response(call.stream_id, OK_RESPONSE, encode_message(message))
        self._unsent_bytes += len(message)
        self._end(call)

    def fail(self, call: ServerCall, code: Code, message: str) -> None:
        block = trailers(code, message) if call.responding else only_trailers(code, message)
        self._http2.send_headers(call.stream_id, block, True)
        self._server.counters.calls_failed += 1
        self._end(call)

    def finish(self, call: ServerCall) -> None:
        self._http2.send_headers(call.stream_id, OK_TRAILERS if call.responding else ONLY_OK_TRAILERS, True)
        self._end(call)

    def send(self, call: ServerCall, message: bytes) -> None:
        assert type(call.head.method) is Streaming, "a unary method answers by reply"
        if not call.responding:
            call.responding = True
            self._http2.send_headers(call.stream_id, RESPONSE_HEADERS, False)
        self._http2.send_data(call.stream_id, encode_message(message), False)
        size = len(message) + PREFIX_BYTES
        if call.unsent_streamed_bytes > self._server.options.low_water_bytes:
            call.excess_bytes += size
            self._excess_bytes += size
        call.unsent_streamed_bytes += size
        self._unsent_bytes += size
        if call not in self._starved:
            self._sending[call] = None
        self._schedule()

    def unsent_bytes(self, call: ServerCall) -> int:
        unsent_bytes = call.unsent_streamed_bytes
        if self._paused and self._transport is not None:
            unsent_bytes += self._transport.get_write_buffer_size()
        if unsent_bytes > self._server.options.low_water_bytes:
            call.holds_back = True
            if call not in self._starved:
                self._sending[call] = None
        return unsent_bytes

    def must_wait(self, call: ServerCall, resume: Callable[[Call], None]) -> bool:
        if self._unsent_bytes <= self._server.options.max_unread_bytes:
            return False
        self._waiting[call] = resume
        return True

    def expire(self, call: ServerCall) -> None:
        """Its deadline has passed."""
        block = (trailers if call.responding else only_trailers)(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
        self._http2.send_headers(call.stream_id, block, True)
        self._server.counters.calls_failed += 1
        self._cancel(call)

    def _cancel(self, call: ServerCall) -> None:
        """It ends without the service's doing."""
        self._end(call)

    def _end(self, call: ServerCall) -> None:
        """The call is over: nothing of it is kept."""
        call.connection = None
        del self._calls[call.stream_id]
        if call.deadline_s is not None:
            self._server.deadlines.remove(call, call.deadline_s)
        self._held_bytes -= call.held_bytes
        if call.is_dispatched:
            if self._waiting:
                self._waiting.pop(call, None)
        else:
            if call.decoder is not None:
                self._partial_bytes -= call.decoder.buffered_bytes
            self._deferred.pop(call, None)
            self._sending.pop(call, None)
            self._starved.pop(call, None)
            self._excess_bytes -= call.excess_bytes
            if call.handler is not None:
                call.handler.closed()
        if not call.half_closed:
            self._lingering.add(call.stream_id)
        if not self.is_scheduled:
            self._schedule()

    # --- the end of a turn ---------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self.is_scheduled:
            self._server.schedule(self)

    def flush(self) -> None:
        """Write all that was answered in this turn, and see to what waited for that."""
        self.is_scheduled = False
        if self._held_bytes != self._counted_bytes:
            self._server.hold(self._held_bytes - self._counted_bytes)
            self._counted_bytes = self._held_bytes
        transport, http2 = self._transport, self._http2
        if transport is None:
            return
        if self._postponed:
            self._decode_postponed()
        self._give_credit()
        if self._is_leaving:
            self._end_streams()
        if not self._paused or http2.has_failed:
            output = http2.take_output()
            if output:
                transport.write(output)
            if http2.has_failed or http2.is_drained:
                transport.close()
                return
            self._settle(transport)
        if self._excess_bytes > self._server.options.max_unread_bytes:
            self._cut_off(f"it has not read {self._excess_bytes} bytes")

    def _give_credit(self) -> None:
        if self._credit_bytes:
            # Stream 0: these requests have come to their ends, only the connection's window matters.
            self._http2.consumed(0, self._credit_bytes)
            self._credit_bytes = 0
        if not self._withheld or self._postponed or self._held_bytes > MAX_HELD_BYTES:
            return
        if self._server.holds_too_much:
            self._server.starve(self)
        else:
            for stream_id, count in self._withheld:
                self._http2.consumed(stream_id, count)
            self._withheld.clear()

    def _settle(self, transport: asyncio.Transport) -> None:
        """What could be written is: who may go on?"""
        http2 = self._http2
        self._unsent_bytes = http2.queued_total()
        if self._paused:
            self._unsent_bytes += transport.get_write_buffer_size()
        if self._sending:
            calls, self._sending = self._sending, {}
            for call in calls:
                self._settle_call(call)
        while self._deferred and self._unsent_bytes <= self._server.options.max_unread_bytes:
            call = next(iter(self._deferred))
            del self._deferred[call]
            method, message = call.head.method, call.message
            assert type(method) is Unary and message is not None
            call.message = None
            call.is_dispatched = True
            method.handle(call, message)
        if self._waiting and self._unsent_bytes <= self._server.options.max_unread_bytes:
            waiting, self._waiting = self._waiting, {}
            for call, resume in waiting.items():
                resume(call)

    def _settle_call(self, call: ServerCall) -> None:
        if call.is_over:
            return
        queued_bytes = self._http2.queued_bytes(call.stream_id)
        call.unsent_streamed_bytes = queued_bytes
        if queued_bytes:
            self._starved[call] = None
            return
        self._excess_bytes -= call.excess_bytes
        call.excess_bytes = 0
        if not call.holds_back:
            return
        if self._paused:
            self._sending[call] = None
        else:
            call.holds_back = False
            assert call.handler is not None
            call.handler.writable()

    # --- leaving -------------------------------------------------------------------------------

    def _lose_patience(self) -> None:
        self._patience = None
        self._cut_off("there was no HTTP/2 in time")

    def look_after(self, now_s: float) -> None:
        """Called every few seconds: a client whose machine is gone says nothing, not even goodbye."""
        silent_s = now_s - self._heard_s
        if silent_s < PING_AFTER_S:
            self._pinged = False
        elif silent_s >= SILENCE_LIMIT_S:
            self._cut_off(f"it has been silent for {silent_s:.0f} s")
        elif not self._pinged:
            self._pinged = True
            self._http2.ping(_PING)
            self._schedule()

    def go_away(self) -> None:
        """Take no new calls.  The connection is closed behind the last unary call under way."""
        self._is_leaving = True
        self._lingering.leave()
        self._http2.go_away()
        self._schedule()

    def _end_streams(self) -> None:
        """The server leaves: streams, which may have no end of their own, go on no longer than unary calls."""
        calls = list(self._calls.values())
        if not any(isinstance(call.head.method, Unary) for call in calls):
            for call in calls:
                if not call.is_over:
                    self.fail(call, Code.UNAVAILABLE, STOPPING)

    def end_calls(self) -> None:
        """Tell whoever still waits that the server leaves, and close."""
        for call in list(self._calls.values()):
            if not call.is_over:
                self.fail(call, Code.UNAVAILABLE, STOPPING)
        self._http2.terminate(ErrorCode.NO_ERROR, STOPPING)
        self._schedule()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _cut_off(self, why: str) -> None:
        if self._transport is not None:
            self._server.counters.connections_cut += 1
            _log.info("closing %s: %s", self.peer, why)
            self._transport.abort()
