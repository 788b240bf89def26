"""ZooKeeper's protocol by hand, for clients that do what kazoo would never do.

Byte layouts from ZooKeeper's `zookeeper.jute`; independent of the code under test.
"""

from __future__ import annotations

import socket
import struct
from typing import Self

from quorate.node.config import Address

CREATE, GET_DATA = 1, 4
EPHEMERAL = 1

_OPEN_ACL = struct.pack(">ii", 1, 31) + b"\0\0\0\x05world" + b"\0\0\0\x06anyone"


def buffer(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def frame(body: bytes) -> bytes:
    return buffer(body)


def connect_body(timeout_ms: int, session: int = 0, password: bytes = bytes(16), last_zxid: int = 0) -> bytes:
    return struct.pack(">iqiq", 0, last_zxid, timeout_ms, session) + buffer(password) + b"\0"


def request_body(xid: int, operation: int, record: bytes) -> bytes:
    return struct.pack(">ii", xid, operation) + record


def get_data_body(xid: int, path: str) -> bytes:
    return request_body(xid, GET_DATA, buffer(path.encode()) + b"\0")


def create_body(xid: int, path: str, data: bytes, flags: int = 0) -> bytes:
    return request_body(xid, CREATE, buffer(path.encode()) + buffer(data) + _OPEN_ACL + struct.pack(">i", flags))


class RawClient:
    """One connection to one node, with blocking calls.  Closing it leaves its session to expire."""

    def __init__(self, address: Address, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(60)
        self.socket.connect(address)
        self.session = 0
        self.password = bytes(16)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def open_session(self, timeout_ms: int, session: int = 0, password: bytes = bytes(16)) -> int:
        """Open or resume a session; returns its timeout (ms), which is 0 where it has expired."""
        self.socket.sendall(frame(connect_body(timeout_ms, session, password)))
        reply = self.read_frame()
        _, agreed_ms, self.session = struct.unpack_from(">iiq", reply)
        self.password = reply[20:36]
        return int(agreed_ms)

    def call(self, body: bytes) -> tuple[int, bytes]:
        """Send one request; returns the error code of its reply and the record behind it."""
        self.socket.sendall(frame(body))
        reply = self.read_frame()
        return struct.unpack_from(">iqi", reply)[2], reply[16:]

    def read_frame(self) -> bytes:
        """Raises EOFError where the node closed the connection."""
        (length,) = struct.unpack(">i", self.read_exactly(4))
        return self.read_exactly(length)

    def read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError(f"the node closed the connection after {len(data)} of {size} bytes")
            data += part
        return data

    def read_to_end(self) -> bytes:
        """Everything until the node closes the connection, in whatever way."""
        parts = []
        try:
            while part := self.socket.recv(1 << 16):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)
