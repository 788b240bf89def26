"""The admin listener: status, health and metrics over HTTP/1.1, by h11 on any asyncio loop.

    GET  /status               all that this node knows of itself, as JSON
    GET  /health               200 where this node can serve clients, else 503 and why
    GET  /metrics              the numbers of /status in Prometheus' text format
    POST /snapshot             start a snapshot of every group
    POST /reset-longest-stop   forget the longest stop of the loop, to measure anew

One request a connection is all that its users need, so every answer closes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, cast

import h11
import msgspec

_log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
MAX_REQUEST_BYTES = 16 << 10

Answer = tuple[HTTPStatus, str, bytes]


class AdminPages:
    """What the paths answer, from a node's status."""

    def __init__(
        self, status: Callable[[], dict[str, Any]], actions: Mapping[str, Callable[[], dict[str, Any]]]
    ) -> None:
        self._status = status
        self._actions = actions

    def answer(self, method: str, path: str) -> Answer:
        if path in self._actions:
            if method != "POST":
                return _text(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes POST\n")
            return _json(HTTPStatus.OK, self._actions[path]())
        if method not in ("GET", "HEAD"):
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes GET\n")
        if path == "/status":
            return _json(HTTPStatus.OK, self._status())
        if path == "/health":
            return self._health()
        if path == "/metrics":
            lines = "".join(f"{line}\n" for line in prometheus_lines(self._status()))
            return HTTPStatus.OK, "text/plain; version=0.0.4", lines.encode()
        known = ", ".join(["/status", "/health", "/metrics", *sorted(self._actions)])
        return _text(HTTPStatus.NOT_FOUND, f"nothing is at {path}; there are {known}\n")

    def _health(self) -> Answer:
        status = self._status()
        leaderless = [group["service"] for group in status["groups"] if group["leader"] is None]
        healthy = not leaderless and not status["log_full"]
        body = {"healthy": healthy, "without_leader": leaderless, "log_full": status["log_full"]}
        return _json(HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE, body)


def prometheus_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Every number of a node's status as a sample; those of groups carry a `service` label."""
    for name, value in status.items():
        # What the first group repeats at the top is for people; counted here it would be counted twice.
        if isinstance(value, bool | int | float) and name not in status["groups"][0]:
            yield f"quorate_{name} {float(value):g}"
    for group in status["groups"]:
        label = f'{{service="{group["service"]}"}}'
        yield f"quorate_is_leader{label} {int(group['role'] == 'leader')}"
        for name, value in group.items():
            if isinstance(value, bool | int | float):
                yield f"quorate_{name}{label} {float(value):.17g}"
        for part in ("store", "door"):
            for name, value in group[part].items():
                yield f"quorate_{part}_{name}{label} {float(value):.17g}"


def _json(status: HTTPStatus, body: Any) -> Answer:
    return status, "application/json", msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"


def _text(status: HTTPStatus, body: str) -> Answer:
    return status, "text/plain; charset=utf-8", body.encode()


class _AdminConnection(asyncio.Protocol):
    """One request, one answer."""

    def __init__(self, pages: AdminPages) -> None:
        self._pages = pages
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._deadline = asyncio.get_running_loop().call_later(REQUEST_TIMEOUT_S, self._timed_out)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._deadline is not None:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Request):
                    self._request = event
                elif isinstance(event, h11.EndOfMessage):
                    self._respond()
                    return
                elif isinstance(event, h11.ConnectionClosed):
                    self._transport.close()
                    return
        except h11.RemoteProtocolError as error:
            self._send(_text(HTTPStatus(error.error_status_hint), f"{error}\n"))

    def _timed_out(self) -> None:
        if self._transport is not None:
            self._send(_text(HTTPStatus.REQUEST_TIMEOUT, f"no whole request came within {REQUEST_TIMEOUT_S:.0f} s\n"))

    def _respond(self) -> None:
        assert self._request is not None
        method = self._request.method.decode("ascii")
        path = self._request.target.decode("ascii").partition("?")[0]
        self._send(self._pages.answer(method, path))

    def _send(self, answer: Answer) -> None:
        assert self._transport is not None
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._transport.close()
            return
        status, content_type, body = answer
        head = h11.Response(
            status_code=status.value,
            headers=[("content-type", content_type), ("content-length", str(len(body))), ("connection", "close")],
        )
        out = self._http.send(head) or b""
        if self._request is None or self._request.method != b"HEAD":
            out += self._http.send(h11.Data(data=body)) or b""
        self._transport.write(out)
        self._transport.close()


class AdminListener:
    """Listens for admin requests."""

    def __init__(self, pages: AdminPages) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Raises OSError where the address cannot be listened on."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _AdminConnection(self._pages), host, port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
