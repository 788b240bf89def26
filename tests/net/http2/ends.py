"""Two ends on one line, and a peer by hand that may break every rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from quorate.net.http2 import frames
from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import Connection, Role
from quorate.net.http2.events import ConnectionFailed, DataReceived, Event, RequestReceived
from quorate.net.http2.headers import encode
from quorate.net.http2.limits import Limits
from quorate.net.http2.sending import ResponseForm

REQUEST_PAIRS = (
    *((":method", "POST"), (":scheme", "http"), (":path", "/etcdserverpb.KV/Range"), (":authority", "localhost")),
    *(("content-type", "application/grpc"), ("te", "trailers")),
)
REQUEST = encode(REQUEST_PAIRS)
RESPONSE = encode([(":status", "200"), ("content-type", "application/grpc")])
TRAILERS = encode([("grpc-status", "0")])
WHOLE = ResponseForm(RESPONSE, TRAILERS)

E = TypeVar("E")


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream_id: int
    payload: bytes = b""

    def __bytes__(self) -> bytes:
        return frames.HEAD.pack(len(self.payload) << 8 | self.kind, self.flags, self.stream_id) + self.payload


def parse(output: bytes) -> list[Frame]:
    """All frames of one end's output, after its preface if it is a client's."""
    output = output.removeprefix(frames.PREFACE)
    found, position = [], 0
    while position < len(output):
        head, flags, stream_id = frames.HEAD.unpack_from(output, position)
        position += 9 + (head >> 8)
        assert position <= len(output), "output ends within a frame"
        found.append(Frame(head & 0xFF, flags, stream_id, output[position - (head >> 8) : position]))
    return found


def headers(stream_id: int, block: bytes = REQUEST, flags: int = frames.END_HEADERS) -> Frame:
    return Frame(frames.HEADERS, flags, stream_id, block)


def data(stream_id: int, payload: bytes = b"", flags: int = 0) -> Frame:
    return Frame(frames.DATA, flags, stream_id, payload)


def request(stream_id: int, body: bytes = b"body") -> list[Frame]:
    return [headers(stream_id), data(stream_id, body, frames.END_STREAM)]


def rst(stream_id: int, code: int = ErrorCode.CANCEL) -> Frame:
    return Frame(frames.RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def window(stream_id: int, increment: int) -> Frame:
    return Frame(frames.WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def settings(*values: tuple[int, int]) -> Frame:
    return Frame(frames.SETTINGS, 0, 0, b"".join(frames.SETTING.pack(*value) for value in values))


def ping(payload: bytes = b"12345678", flags: int = 0) -> Frame:
    return Frame(frames.PING, flags, 0, payload)


class Bench:
    """One Connection, shaken hands with, and we are its peer by hand."""

    def __init__(
        self, role: Role = Role.SERVER, limits: Limits | None = None, peer_settings: Iterable[tuple[int, int]] = ()
    ) -> None:
        self.connection = Connection(role, limits or Limits())
        self.now_s = 0.0
        self.opening = parse(self.connection.take_output())
        preface = frames.PREFACE if role is Role.SERVER else b""
        self.connection.receive(preface + bytes(settings(*peer_settings)), self.now_s)
        self.connection.take_output()

    def send(self, *sent: Frame) -> list[Event]:
        return self.connection.receive(b"".join(map(bytes, sent)), self.now_s)

    def answers(self) -> list[Frame]:
        return parse(self.connection.take_output())

    def resets(self) -> list[tuple[int, int]]:
        """(stream, code) of RST_STREAM in the output."""
        return [
            (answer.stream_id, int.from_bytes(answer.payload, "big"))
            for answer in self.answers()
            if answer.kind == frames.RST_STREAM
        ]


def failure(events: list[Event]) -> ConnectionFailed | None:
    return next((event for event in events if isinstance(event, ConnectionFailed)), None)


def of_type(kind: type[E], events: Iterable[object]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


class Pair:
    """A client and a server; `run` carries bytes until both are silent, and consumes all data."""

    def __init__(self, client: Limits | None = None, server: Limits | None = None, piece_bytes: int = 1 << 30) -> None:
        self.client = Connection(Role.CLIENT, client or Limits())
        self.server = Connection(Role.SERVER, server or Limits())
        self.client_events: list[Event] = []
        self.server_events: list[Event] = []
        self.consumes = True
        self.piece_bytes = piece_bytes
        self.now_s = 0.0

    def run(self) -> None:
        while self._carry(self.client, self.server, self.server_events) + self._carry(
            self.server, self.client, self.client_events
        ):
            pass

    def _carry(self, source: Connection, target: Connection, heard: list[Event]) -> int:
        output = source.take_output()
        for start in range(0, len(output), self.piece_bytes):
            for event in target.receive(output[start : start + self.piece_bytes], self.now_s):
                heard.append(event)
                if self.consumes and isinstance(event, DataReceived | RequestReceived):
                    target.consumed(event.stream_id, len(event.data))
        return len(output)


def body_of(stream_id: int, events: Iterable[Event]) -> bytes:
    parts = [event.data for event in events if isinstance(event, DataReceived | RequestReceived)
             if event.stream_id == stream_id]  # fmt: skip
    return b"".join(parts)
