"""Connections that speak just enough HTTP/2 for a client that costs little beside the servers that it measures."""

from __future__ import annotations

import socket
import struct

import hpack

from cluster import BenchmarkError
from h2load import frame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
LARGEST_WINDOW = (1 << 31) - 1


def http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Connection:
    """Calls one method, and counts marks in what comes, without decoding it."""

    def __init__(self, endpoint: str, path: str) -> None:
        host, _, port = endpoint.rpartition(":")
        encoder = hpack.Encoder()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", endpoint)]
        headers += [("content-type", "application/grpc"), ("te", "trailers")]
        self._headers = encoder.encode(headers)
        # All of them are in the server's table behind the first request, and stay there.
        self._headers_again = encoder.encode(headers)
        self._stream = -1
        self._rest = b""
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
        self.socket.sendall(
            PREFACE
            + http2_frame(SETTINGS, 0, 0, settings)
            + http2_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65535))
            + http2_frame(SETTINGS, ACK, 0, b"")
        )

    def request(self, *messages: bytes, end: bool = True) -> None:
        """Open a stream with each of the messages; `end` where no further follow."""
        parts = []
        for message in messages:
            self._stream += 2
            parts.append(http2_frame(HEADERS, END_HEADERS, self._stream, self._headers))
            parts.append(http2_frame(DATA, END_STREAM if end else 0, self._stream, frame(message)))
            self._headers = self._headers_again
        self.socket.sendall(b"".join(parts))

    def read(self, mark: bytes) -> int:
        """How often the mark came."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise BenchmarkError("the server closed a connection")
        data = self._rest + chunk
        self._rest = data[-len(mark) + 1 :]
        return data.count(mark)
