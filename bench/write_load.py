"""Writes without end that outlive their servers: `python write_load.py --pause 0 HOST:PORT...`.

Each connection is a session that keeps `window` setData of 100 bytes unanswered and, having an answer, waits `pause`
seconds before it sends the next.  A connection that ends is opened anew at the same address, with the same session
while the server knows it.  Runs until SIGTERM, or until stdin ends; then prints how many writes were acknowledged.

`zkload` measures; this one goes on through elections, and measures nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import struct
import sys
from typing import cast

import uvloop

RECONNECT_SECONDS = 0.05
SESSION_TIMEOUT_MS = 30_000
PING_SECONDS = 5.0
VALUE = b"x" * 100
PREFIX = "/write-load"
CREATE, SET_DATA, PING = 1, 5, 11
_OPEN_ACL = struct.pack(">ii", 1, 31) + b"\0\0\0\x05world" + b"\0\0\0\x06anyone" + bytes(4)


def _sized(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def _request(xid: int, operation: int, record: bytes = b"") -> bytes:
    return _sized(struct.pack(">ii", xid, operation) + record)


class Session(asyncio.Protocol):
    """One session and its connection of the moment."""

    acknowledged = 0

    def __init__(self, host: str, port: int, number: int, window: int, pause_s: float) -> None:
        self._host, self._port = host, port
        self._window, self._pause_s = window, pause_s
        path = _sized(f"{PREFIX}-{number}".encode())
        # Servers hand the xid back and do not look at it, so that one request can be sent again and again.
        self._set = _request(1, SET_DATA, path + _sized(VALUE) + struct.pack(">i", -1))
        self._create = _request(2, CREATE, path + _sized(VALUE) + _OPEN_ACL)
        self._session, self._password = 0, bytes(16)
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._greeted = False
        self._ended = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._ended.clear()
            self._received.clear()
            self._greeted = False
            with contextlib.suppress(OSError):
                await loop.create_connection(lambda: self, self._host, self._port)
                await self._ping_until_it_ends()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _ping_until_it_ends(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), PING_SECONDS)
                return
            if self._greeted and self._transport is not None:
                self._transport.write(_request(-2, PING))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        record = struct.pack(">iqiq", 0, 0, SESSION_TIMEOUT_MS, self._session) + _sized(self._password) + b"\0"
        self._transport.write(_sized(record))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        received = self._received
        at = replies = 0
        while len(received) - at >= 4:
            (size,) = struct.unpack_from(">i", received, at)
            if len(received) - at < 4 + size:
                break
            if self._greeted:
                replies += self._is_set(at + 4)
            else:
                self._greet(bytes(received[at + 4 : at + 4 + size]))
            at += 4 + size
        del received[:at]
        if replies and self._pause_s:
            asyncio.get_running_loop().call_later(self._pause_s, self._send, replies)
        elif replies:
            self._send(replies)

    def _is_set(self, at: int) -> bool:
        """Whether the reply at this offset is of a setData."""
        xid, _, code = struct.unpack_from(">iqi", self._received, at)
        self.acknowledged += xid == 1 and code == 0
        return bool(xid == 1)

    def _greet(self, greeting: bytes) -> None:
        _, timeout_ms, self._session = struct.unpack_from(">iiq", greeting)
        self._password = greeting[20:36]
        if timeout_ms <= 0:
            self._session, self._password = 0, bytes(16)
            if self._transport is not None:
                self._transport.abort()
            return
        self._greeted = True
        if self._transport is not None:
            self._transport.write(self._create)
        self._send(self._window)

    def _send(self, count: int) -> None:
        if self._transport is not None and self._greeted:
            self._transport.write(self._set * count)


async def run(addresses: list[tuple[str, int]], connections: int, window: int, pause_s: float) -> None:
    """Keep the load up until SIGTERM or the end of stdin."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    # Whoever started this holds the other end: should it be killed, the load ends.
    loop.add_reader(sys.stdin.fileno(), stopping.set)
    sessions = [Session(*addresses[i % len(addresses)], i, window, pause_s) for i in range(connections)]
    tasks = [loop.create_task(session.run()) for session in sessions]
    await stopping.wait()
    for task in tasks:
        task.cancel()
    print(sum(session.acknowledged for session in sessions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("addresses", nargs="+", metavar="HOST:PORT")
    arguments = parser.parse_args()
    parts = [address.rpartition(":") for address in arguments.addresses]
    addresses = [(host, int(port)) for host, _, port in parts]
    uvloop.run(run(addresses, arguments.connections, arguments.window, arguments.pause))


if __name__ == "__main__":
    main()
