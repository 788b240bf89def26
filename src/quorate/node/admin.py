"""The admin listener: HTTP/1.1 by h11 on any asyncio loop.

`AdminPages` is a table from (method, path) to handlers, which the node fills: with
`observing_pages` of this module, and with what it lets people do.

    GET /status    all that this node knows of itself, as JSON
    GET /members   the part of it that is about the members
    GET /health, /livez, /readyz   200 or 503, and why (`node.health`)
    GET /metrics   for Prometheus (`node.metrics`)

A handler takes the request's JSON body, None where there is none, and gives an `Answer`, an
awaitable of one, or a `Stream`.  One request a connection is all that its users need, so
every answer closes.  Whoever sends or reads too slowly is cut off: requests must come, and
answers be taken, within bounds of time and size, on a bounded number of connections.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeAlias, cast

import h11
import msgspec

from quorate.node import health
from quorate.node.metrics import CONTENT_TYPE

_log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 10.0
"""For a whole request to come in."""
ANSWER_TIMEOUT_S: Final = 900.0
"""For an awaited answer, so that none is awaited for ever: handlers know better bounds and what to say then."""
DRAIN_TIMEOUT_S: Final = 30.0
"""For a client to take what it was sent, or one chunk of a stream."""
MAX_REQUEST_BYTES: Final = 16 << 10
MAX_BODY_BYTES: Final = 64 << 10
MAX_CONNECTIONS: Final = 64
"""Fewer than the files that are kept free for them (`descriptors.RESERVED`)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer of any length, status 200.

    An error in the middle cuts the connection, so that the client sees that the end is
    missing.  A generator is closed in the end, early where the client goes.
    """

    content_type: str
    chunks: AsyncIterator[bytes]


class BadRequest(Exception):
    """A handler's: the body asks for something that makes no sense; the message says what."""


Body: TypeAlias = dict[str, Any] | None
Reply: TypeAlias = Answer | Stream
Handler: TypeAlias = Callable[[Body], Reply | Awaitable[Reply]]
Route: TypeAlias = tuple[str, str]
"""(method, path)"""


def json_answer(body: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, "application/json", msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n")


def text_answer(text: str, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", text.encode())


def observing_pages(status: Callable[[], dict[str, Any]], metrics: Callable[[], bytes]) -> dict[Route, Handler]:
    """The pages that only look.  `status` gives the status document, `metrics` the page for Prometheus."""
    return {
        ("GET", "/status"): lambda _: json_answer(status()),
        ("GET", "/members"): lambda _: json_answer(members_of(status())),
        ("GET", "/health"): lambda _: _verdict(health.health(status())),
        ("GET", "/livez"): lambda _: _verdict(health.livez(status())),
        ("GET", "/readyz"): lambda _: _verdict(health.readyz(status())),
        ("GET", "/metrics"): lambda _: Answer(HTTPStatus.OK, CONTENT_TYPE, metrics()),
    }


def members_of(status: Mapping[str, Any]) -> dict[str, Any]:
    """What `GET /members` says, out of the status document."""
    membership = status["membership"]
    return {
        "cluster": status["cluster"],
        "cluster_id": status["cluster_id"],
        "version": membership["version"],
        "under_way": membership["under_way"],
        "members": status["members"],
    }


def _verdict(verdict: health.Verdict) -> Answer:
    good, body = verdict
    return json_answer(body, HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)


class AdminPages:
    """Which handler answers which request.  A GET answers HEAD too."""

    def __init__(self, routes: Mapping[Route, Handler]) -> None:
        self._routes = routes

    def answer(self, method: str, path: str, body: bytes = b"") -> Reply | Awaitable[Reply]:
        """Whatever the request deserves; a handler's failure is an answer too."""
        wanted = "GET" if method == "HEAD" else method
        handler = self._routes.get((wanted, path))
        if handler is None:
            return self._not_there(path)
        try:
            return handler(_read_body(body) if wanted == "POST" else None)
        except BadRequest as error:
            return _bad_request(error)
        except Exception as error:
            return _failed(method, path, error)

    def _not_there(self, path: str) -> Answer:
        if methods := [method for method, known in self._routes if known == path]:
            return text_answer(f"{path} takes {' or '.join(sorted(methods))}\n", HTTPStatus.METHOD_NOT_ALLOWED)
        known = ", ".join(sorted({known for _, known in self._routes}))
        return text_answer(f"nothing is at {path}; there are {known}\n", HTTPStatus.NOT_FOUND)


def _read_body(body: bytes) -> Body:
    if not body.strip():
        return None
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadRequest("the body is JSON but not an object: it must look like {...}")
    return content


def _bad_request(error: BadRequest) -> Answer:
    return json_answer({"problem": str(error)}, HTTPStatus.BAD_REQUEST)


def _failed(method: str, path: str, error: Exception) -> Answer:
    _log.error("%s %s failed: %s", method, path, error, exc_info=error)
    return json_answer({"problem": "the node could not answer; its log says why"}, HTTPStatus.INTERNAL_SERVER_ERROR)


class _AdminConnection(asyncio.Protocol):
    """One request, one answer."""

    def __init__(self, listener: AdminListener) -> None:
        self._listener = listener
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._deadline: asyncio.TimerHandle | None = None
        self._answering: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()

    # --- the transport's side ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._listener.take(self):
            self._send(text_answer("too many connections; try again\n", HTTPStatus.SERVICE_UNAVAILABLE))
            return
        self._set_deadline(REQUEST_TIMEOUT_S, self._timed_out)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._listener.leave(self)
        self._drop_deadline()
        if self._answering is not None:
            self._answering.cancel()

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def eof_received(self) -> bool:
        # A client that has asked may close its side and still wait for the answer.
        return self._answering is not None

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing() or self._answering is not None:
            return
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Request):
                    self._request = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > MAX_BODY_BYTES:
                        too_much = f"the body is larger than {MAX_BODY_BYTES} bytes\n"
                        self._send(text_answer(too_much, HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
                        return
                elif isinstance(event, h11.EndOfMessage):
                    self._respond()
                    return
                elif isinstance(event, h11.ConnectionClosed):
                    self._transport.close()
                    return
        except h11.RemoteProtocolError as error:
            self._send(text_answer(f"{error}\n", HTTPStatus(error.error_status_hint)))

    def cut_off(self) -> None:
        """No more of the answer can come.  An answer that is whole is still sent."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    # --- answering ---------------------------------------------------------------------------

    def _respond(self) -> None:
        assert self._request is not None
        self._drop_deadline()
        method = self._request.method.decode("ascii")
        path = self._request.target.decode("ascii").partition("?")[0]
        reply = self._listener.pages.answer(method, path, bytes(self._body))
        if isinstance(reply, Answer):
            self._send(reply)
            return
        work = self._stream(reply) if isinstance(reply, Stream) else self._await(method, path, reply)
        self._answering = asyncio.get_running_loop().create_task(work, name=f"admin {method} {path}")
        self._answering.add_done_callback(partial(self._answered, method, path))

    async def _await(self, method: str, path: str, coming: Awaitable[Reply]) -> None:
        reply: Reply
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reply = await coming
        except TimeoutError:
            late = {"problem": "there was no answer in time; what was asked for may still be done"}
            reply = json_answer(late, HTTPStatus.SERVICE_UNAVAILABLE)
        except BadRequest as error:
            reply = _bad_request(error)
        except Exception as error:
            reply = _failed(method, path, error)
        if isinstance(reply, Stream):
            await self._stream(reply)
        elif self._transport is not None:
            self._send(reply)

    async def _stream(self, stream: Stream) -> None:
        """In chunks, or until the end of the connection to a client of HTTP/1.0."""
        try:
            if self._transport is None:
                return
            self._write(self._head(HTTPStatus.OK, stream.content_type))
            if not self._wants_body():
                self._close()
                return
            async for chunk in stream.chunks:
                if chunk:
                    self._write(self._http.send(h11.Data(data=chunk)))
                async with asyncio.timeout(DRAIN_TIMEOUT_S):
                    await self._drained.wait()
            self._write(self._http.send(h11.EndOfMessage()))
            self._close()
        finally:
            if inspect.isasyncgen(stream.chunks):
                await stream.chunks.aclose()

    def _answered(self, method: str, path: str, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.warning("%s %s was cut off: %s", method, path, error or type(error).__name__)
        self.cut_off()

    def _timed_out(self) -> None:
        late = f"no whole request came within {REQUEST_TIMEOUT_S:.0f} s\n"
        self._send(text_answer(late, HTTPStatus.REQUEST_TIMEOUT))

    def _send(self, answer: Answer) -> None:
        assert self._transport is not None
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._transport.close()
            return
        out = self._head(answer.status, answer.content_type, ("content-length", str(len(answer.body))))
        if self._wants_body():
            out += self._http.send(h11.Data(data=answer.body)) or b""
        self._write(out)
        self._close()

    def _head(self, status: HTTPStatus, content_type: str, *more: tuple[str, str]) -> bytes:
        headers = [("content-type", content_type), *more, ("connection", "close")]
        return self._http.send(h11.Response(status_code=status.value, headers=headers, reason=status.phrase)) or b""

    def _wants_body(self) -> bool:
        return self._request is None or self._request.method != b"HEAD"

    def _write(self, data: bytes | None) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        if data:
            self._transport.write(data)

    def _close(self) -> None:
        """Close once all is sent, and in any case after a while: a client that reads nothing holds no connection."""
        assert self._transport is not None
        self._transport.close()
        self._set_deadline(DRAIN_TIMEOUT_S, self._transport.abort)

    def _set_deadline(self, after_s: float, then: Callable[[], None]) -> None:
        self._drop_deadline()
        self._deadline = asyncio.get_running_loop().call_later(after_s, then)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class AdminListener:
    """Listens for admin requests."""

    def __init__(self, pages: AdminPages) -> None:
        self.pages = pages
        self._server: asyncio.Server | None = None
        self.connections: dict[_AdminConnection, None] = {}

    async def start(self, host: str, port: int) -> None:
        """Raises OSError where the address cannot be listened on."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _AdminConnection(self), host, port)

    async def stop(self) -> None:
        """Listen no more, and cut off what is being answered: a backup without its end is told from a whole one."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.cut_off()

    def take(self, connection: _AdminConnection) -> bool:
        """Count a connection.  False where there are too many."""
        if len(self.connections) >= MAX_CONNECTIONS:
            return False
        self.connections[connection] = None
        return True

    def leave(self, connection: _AdminConnection) -> None:
        self.connections.pop(connection, None)
