"""A client that speaks frames and nothing more: for what no proper client would do."""

from __future__ import annotations

import asyncio
import struct

from quorate.services.zookeeper.jute import Reader
from quorate.services.zookeeper.protocol import (
    REPLY_HEADER,
    REQUEST_HEADER,
    ConnectRequest,
    ConnectResponse,
    Create,
    Op,
    PathAndWatch,
    SetData,
    WatcherEvent,
)


class Raw:
    """One connection.  Replies come as (xid, zxid, error code, record)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.session = 0
        self.password = b""
        self.timeout_ms = 0
        self._corked: list[bytes] | None = None

    @classmethod
    async def dial(cls, endpoint: str) -> Raw:
        host, port = endpoint.split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    @classmethod
    async def open(
        cls,
        endpoint: str,
        timeout_ms: int = 10_000,
        session: int = 0,
        password: bytes = bytes(16),
        seen_zxid: int = 0,
    ) -> Raw:
        raw = await cls.dial(endpoint)
        await raw.shake_hands(ConnectRequest(seen_zxid, timeout_ms, session, password))
        return raw

    async def shake_hands(self, request: ConnectRequest) -> ConnectResponse:
        self.send_frame(request.encode())
        response = ConnectResponse.decode(Reader(await self.frame()))
        self.session, self.password, self.timeout_ms = response.session_id, response.password, response.timeout_ms
        return response

    def send_bytes(self, data: bytes) -> None:
        if self._corked is None:
            self.writer.write(data)
        else:
            self._corked.append(data)

    def cork(self) -> None:
        """Keep what is sent until `uncork`, so that it arrives in one piece."""
        self._corked = []

    def uncork(self) -> None:
        data, self._corked = b"".join(self._corked or []), None
        self.writer.write(data)

    def send_frame(self, frame: bytes) -> None:
        self.send_bytes(struct.pack(">i", len(frame)) + frame)

    def send(self, xid: int, op: int, record: bytes = b"") -> None:
        self.send_frame(REQUEST_HEADER.pack(xid, op) + record)

    def send_create(self, xid: int, path: bytes, data: bytes = b"", flags: int = 0) -> None:
        self.send(xid, Op.CREATE, Create(path, data, flags=flags).encode())

    def send_set(self, xid: int, path: bytes, data: bytes) -> None:
        self.send(xid, Op.SET_DATA, SetData(path, data).encode())

    def send_get(self, xid: int, path: bytes, watch: bool = False) -> None:
        self.send(xid, Op.GET_DATA, PathAndWatch(path, watch).encode())

    async def frame(self) -> bytes:
        """The next frame; IncompleteReadError where the connection was closed."""
        async with asyncio.timeout(5):
            size = struct.unpack(">i", await self.reader.readexactly(4))[0]
            return await self.reader.readexactly(size)

    async def reply(self) -> tuple[int, int, int, bytes]:
        frame = await self.frame()
        xid, zxid, code = REPLY_HEADER.unpack_from(frame)
        return xid, zxid, code, frame[REPLY_HEADER.size :]

    async def call(self, xid: int, op: int, record: bytes = b"") -> tuple[int, bytes]:
        """(error code, record) of the reply, which must be the next thing that comes."""
        self.send(xid, op, record)
        got_xid, _, code, body = await self.reply()
        assert got_xid == xid
        return code, body

    async def event(self) -> tuple[int, bytes]:
        """(event type, path); the next frame must be a watch event."""
        xid, zxid, code, body = await self.reply()
        assert (xid, zxid, code) == (-1, -1, 0)
        event = WatcherEvent.decode(Reader(body))
        return event.event_type, event.path

    async def is_closed(self, within_seconds: float = 5) -> bool:
        """True once the server has closed the connection; what is still unread is dropped."""
        try:
            async with asyncio.timeout(within_seconds):
                while await self.reader.read(1 << 16):
                    pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True

    async def is_silent(self, seconds: float = 0.3) -> bool:
        """True where nothing comes for so long (simulated time, on the simulated loop)."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.readexactly(1)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.writer.close()


def data_of(record: bytes) -> bytes | None:
    """The data of a getData reply."""
    return Reader(record).buffer("data")
