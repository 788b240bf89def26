"""A gRPC client on asyncio: one connection, calls of every kind.

For our own client and the simulator, so it is simple rather than fast, and runs on the simulated loop.  What happened
to a call that failed is told apart as far as it can be: `NotSentError` means that the server has not looked at it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Final, cast

from quorate.net.grpc.framing import IDENTITY, MessageDecoder, encode_message
from quorate.net.grpc.headers import (
    CONTENT_TYPE,
    code_of_http_status,
    decode_status_message,
    format_timeout,
    is_grpc,
    parse_status,
)
from quorate.net.grpc.status import Code, GrpcError
from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import CannotOpenStream, Connection, Role
from quorate.net.http2.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    GoAwayReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from quorate.net.http2.headers import Headers, encode
from quorate.net.http2.limits import Limits

MAX_MESSAGE_BYTES: Final = 256 << 20
PING_AFTER_S: Final = 10.0
"""With calls under way, a server of which nothing was heard for so long is asked for a sign of life.  etcd takes such
pings from five seconds on as an attack."""
SILENCE_LIMIT_S: Final = 20.0
"""And given up after this time."""
_PING: Final = b"quorate!"


class NotSentError(GrpcError):
    """The call certainly had no effect: it did not leave, or the server says that it has not looked at it."""


class ClientStream:
    """One call.  Made by `Channel.stream`."""

    def __init__(self, connection: _ClientConnection, stream_id: int) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._decoder = MessageDecoder(MAX_MESSAGE_BYTES, IDENTITY)
        self._messages: deque[bytes] = deque()
        self._uncredited_bytes = 0
        """Received, and not given back to the server's window: the messages are waiting for `receive`."""
        self._half_closed = False
        self._status: GrpcError | None = None
        """How the call ended, also with OK."""
        self._waiter: asyncio.Future[None] | None = None

    def send(self, message: bytes) -> None:
        """Queue one message; no effect where the call is over."""
        self._send(encode_message(message), end_stream=False)

    def half_close(self) -> None:
        """Say that no more messages come."""
        if not self._half_closed:
            self._send(b"", end_stream=True)

    def send_last(self, message: bytes) -> None:
        """`send` and `half_close`."""
        self._send(encode_message(message), end_stream=True)

    def _send(self, data: bytes, *, end_stream: bool) -> None:
        assert not self._half_closed, "nothing can be sent after half_close"
        self._half_closed = end_stream
        if self._status is None:
            self._connection.http2.send_data(self._stream_id, data, end_stream)
            self._connection.schedule()

    def cancel(self) -> None:
        """End the call; no effect where it is over.  `receive` raises CANCELLED behind the messages that have come."""
        self.end(GrpcError(Code.CANCELLED, "cancelled by the client"))

    async def receive(self) -> bytes | None:
        """The next message; None where the call has ended with OK.  Raises GrpcError where it has not."""
        while not self._messages and self._status is None:
            assert self._waiter is None, "one receives at a time"
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._messages:
            message = self._messages.popleft()
            self._give_credit()
            return message
        assert self._status is not None
        if self._status.code is Code.OK:
            return None
        raise self._status

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.receive()) is not None:
            yield message

    # --- the connection's side ---------------------------------------------------------------

    def response(self, event: ResponseReceived) -> None:
        headers = event.headers
        if event.end_stream or headers.status != "200":
            self._end_by(headers)
        elif not is_grpc(dict(headers.fields).get("content-type", "")):
            self.end(GrpcError(Code.UNKNOWN, "the answer is not gRPC"))

    def data(self, event: DataReceived) -> None:
        self._uncredited_bytes += len(event.data)
        try:
            self._messages += self._decoder.feed(event.data)
        except GrpcError as error:
            self.end(error)
            return
        self._give_credit()
        if event.end_stream:
            self.end(GrpcError(Code.INTERNAL, "the answer ended without a status"))
        else:
            self._wake()

    def trailers(self, event: TrailersReceived) -> None:
        self._end_by(event.headers)

    def _end_by(self, headers: Headers) -> None:
        fields = dict(headers.fields)
        message = decode_status_message(fields.get("grpc-message", ""))
        status = fields.get("grpc-status")
        if status is not None:
            self.end(GrpcError(parse_status(status), message))
        elif headers.status:
            self.end(GrpcError(code_of_http_status(headers.status), f"HTTP status {headers.status}"))
        else:
            self.end(GrpcError(Code.INTERNAL, "the answer ended without a status"))

    def end(self, status: GrpcError) -> None:
        """By the server, or for a reason of our own; no effect where it is over."""
        if self._status is not None:
            return
        if status.code is Code.OK and self._decoder.buffered_bytes:
            status = GrpcError(Code.INTERNAL, "the answer ended amid a message")
        self._status = status
        # No effect where both sides have ended theirs.
        self._connection.http2.reset(self._stream_id, ErrorCode.CANCEL)
        self._connection.forget(self._stream_id)
        self._give_credit()
        self._wake()

    def _give_credit(self) -> None:
        """The server may send more once all messages were taken; also where it is still amid the first."""
        if self._uncredited_bytes and (not self._messages or self._status is not None):
            self._connection.http2.consumed(self._stream_id, self._uncredited_bytes)
            self._uncredited_bytes = 0
            self._connection.schedule()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _ClientConnection(asyncio.Protocol):
    """HTTP/2's events in, calls up; what calls send leaves at the end of the turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.http2 = Connection(Role.CLIENT, Limits())
        self.started: asyncio.Future[None] = self._loop.create_future()
        """Done when the server's preface has come; fails with NotSentError."""
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, ClientStream] = {}
        self._waiting_for_room: dict[asyncio.Future[None], None] = {}
        self._is_scheduled = False
        self._is_leaving = False
        """The server wants no more calls."""
        self._paused = False
        self._heard_s = self._loop.time()
        self._pinged = False
        self._watching: asyncio.TimerHandle | None = None

    @property
    def is_usable(self) -> bool:
        return self._transport is not None and not self._is_leaving and not self.http2.has_failed

    # --- the transport's side ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.schedule()

    def data_received(self, data: bytes) -> None:
        self._heard_s = now_s = self._loop.time()
        for event in self.http2.receive(data, now_s):
            self._handle(event)
        if self.http2.has_started and not self.started.done():
            self.started.set_result(None)
        self._make_room()
        self.schedule()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        why = "the connection was closed" if exc is None else f"the connection was lost: {exc}"
        if not self.started.done():
            self.started.set_exception(NotSentError(Code.UNAVAILABLE, why))
            self.started.exception()  # whoever waited for it may have given up
        for stream in list(self._streams.values()):
            stream.end(GrpcError(Code.UNAVAILABLE, why))
        self._make_room()
        if self._watching is not None:
            self._watching.cancel()
        self.closed.set_result(None)

    def _handle(self, event: Event) -> None:
        if isinstance(event, ResponseReceived | DataReceived | TrailersReceived):
            stream = self._streams.get(event.stream_id)
            if stream is None:
                if isinstance(event, DataReceived):
                    self.http2.consumed(event.stream_id, len(event.data))
            elif isinstance(event, DataReceived):
                stream.data(event)
            elif isinstance(event, ResponseReceived):
                stream.response(event)
            else:
                stream.trailers(event)
        elif isinstance(event, StreamReset):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.end(_error_of_reset(event))
        elif isinstance(event, GoAwayReceived):
            self._is_leaving = True
        elif isinstance(event, ConnectionFailed):
            for stream in list(self._streams.values()):
                stream.end(GrpcError(Code.UNAVAILABLE, f"the server broke HTTP/2's rules: {event.reason}"))

    # --- calls -------------------------------------------------------------------------------

    def open(self, block: bytes) -> ClientStream:
        """Raises NotSentError."""
        try:
            stream_id = self.http2.open_stream(block, False)
        except CannotOpenStream as error:
            raise NotSentError(Code.UNAVAILABLE, "the server takes no more calls now") from error
        self._streams[stream_id] = stream = ClientStream(self, stream_id)
        if self._watching is None:
            self._heard_s = self._loop.time()
            self._watching = self._loop.call_later(PING_AFTER_S, self._watch_silence)
        self.schedule()
        return stream

    def forget(self, stream_id: int) -> None:
        del self._streams[stream_id]
        self._make_room()
        self.schedule()

    async def room(self) -> None:
        """Wait while as many calls are under way as the server allows."""
        while self.is_usable and not self.http2.streams_available:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting_for_room[waiter] = None
            try:
                await waiter
            finally:
                self._waiting_for_room.pop(waiter, None)

    def _make_room(self) -> None:
        for waiter in self._waiting_for_room:
            if not waiter.done():
                waiter.set_result(None)

    def _watch_silence(self) -> None:
        self._watching = None
        if not self._streams or self._transport is None:
            return
        silent_s = self._loop.time() - self._heard_s
        if silent_s >= SILENCE_LIMIT_S:
            self._transport.abort()
            return
        if silent_s < PING_AFTER_S:
            self._pinged = False
        elif not self._pinged:
            self._pinged = True
            self.http2.ping(_PING)
            self.schedule()
        limit_s = SILENCE_LIMIT_S if self._pinged else PING_AFTER_S
        self._watching = self._loop.call_later(limit_s - silent_s, self._watch_silence)

    # --- writing -----------------------------------------------------------------------------

    def schedule(self) -> None:
        """Write at the end of this turn."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        transport = self._transport
        if transport is None or self._paused:
            return
        output = self.http2.take_output()
        if output:
            transport.write(output)
        if self.http2.has_failed or (self._is_leaving and not self._streams):
            transport.close()

    def close(self) -> None:
        for stream in list(self._streams.values()):
            stream.cancel()
        if self._transport is not None:
            self.http2.terminate(ErrorCode.NO_ERROR, "")
            self._paused = False
            self._flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _error_of_reset(event: StreamReset) -> GrpcError:
    """After "Errors" in "gRPC over HTTP2"."""
    message = f"the stream was reset (HTTP/2's code {event.code})"
    if event.code == ErrorCode.REFUSED_STREAM:
        return NotSentError(Code.UNAVAILABLE, message)
    if event.code == ErrorCode.CANCEL:
        return GrpcError(Code.CANCELLED, message)
    if event.code == ErrorCode.ENHANCE_YOUR_CALM:
        return GrpcError(Code.RESOURCE_EXHAUSTED, message)
    if event.code == ErrorCode.INADEQUATE_SECURITY:
        return GrpcError(Code.PERMISSION_DENIED, message)
    return GrpcError(Code.INTERNAL, message)


class Channel:
    """A connection to one server, in plaintext.  When it is lost, `connect` makes a new one."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._authority = f"{host}:{port}"
        self._connection: _ClientConnection | None = None
        self._connecting = asyncio.Lock()

    async def connect(self) -> None:
        """Ready when the server has said its first word.  Raises NotSentError.  No effect where it is connected."""
        async with self._connecting:
            if not self.is_connected:
                self._connection = await self._dial()

    async def _dial(self) -> _ClientConnection:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _ClientConnection, self._host, self._port
            )
        except OSError as error:
            raise NotSentError(Code.UNAVAILABLE, f"no connection to {self._authority}: {error}") from error
        try:
            await asyncio.shield(connection.started)
        except BaseException:
            connection.abort()
            raise
        return connection

    @property
    def is_connected(self) -> bool:
        """New calls can be made."""
        return self._connection is not None and self._connection.is_usable

    async def unary(
        self,
        path: str,
        message: bytes,
        timeout_s: float | None = None,
        metadata: Iterable[tuple[str, str]] = (),
    ) -> bytes:
        """One message, one answer.

        Raises GrpcError: the server's status; UNAVAILABLE where the connection is lost, and as NotSentError where there
        is none; DEADLINE_EXCEEDED after `timeout_s`, as NotSentError where the call waited for others all the time.
        """
        loop = asyncio.get_running_loop()
        connection = self._usable()
        started_s = loop.time()
        if not connection.http2.streams_available:
            try:
                await asyncio.wait_for(connection.room(), timeout_s)
            except TimeoutError:
                raise NotSentError(Code.DEADLINE_EXCEEDED, "too many calls are under way") from None
        left_s = None if timeout_s is None else timeout_s - (loop.time() - started_s)
        stream = connection.open(self._head(path, left_s, metadata))
        stream.send_last(message)
        expiry = None
        if left_s is not None:
            expired = GrpcError(Code.DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s")
            expiry = loop.call_later(left_s, stream.end, expired)
        try:
            answer = await stream.receive()
            if answer is None or await stream.receive() is not None:
                raise GrpcError(Code.INTERNAL, "cardinality violation: a unary answer has one message")
            return answer
        finally:
            stream.cancel()
            if expiry is not None:
                expiry.cancel()

    def stream(self, path: str, metadata: Iterable[tuple[str, str]] = ()) -> ClientStream:
        """Open a call of any kind.  Raises NotSentError."""
        return self._usable().open(self._head(path, None, metadata))

    async def close(self) -> None:
        """Cancel all calls and close the connection.  It can be connected again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            await asyncio.wait([connection.closed], timeout=1)
            connection.abort()

    def _usable(self) -> _ClientConnection:
        if self._connection is None or not self._connection.is_usable:
            raise NotSentError(Code.UNAVAILABLE, f"not connected to {self._authority}")
        return self._connection

    def _head(self, path: str, timeout_s: float | None, metadata: Iterable[tuple[str, str]]) -> bytes:
        timeout = () if timeout_s is None else (("grpc-timeout", format_timeout(timeout_s)),)
        return encode(
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", self._authority),
                ("te", "trailers"),
                ("content-type", CONTENT_TYPE),
                *timeout,
                *metadata,
            ]
        )
