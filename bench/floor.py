"""How long must one write take on this machine, if no code of ours ran at all?

    python bench/floor.py [--folder DIR] [--seconds S]

Four bare processes stand in for a client, a leader and two followers, and pass the bytes of one put along, one at a
time: client, leader, both followers, leader at the first answer, client.  Nothing is parsed, proposed or applied.  Once
without a disk, which is the floor of a linearizable read, and once with a write and an fdatasync on each node before
it answers, which is the floor of a put.  What `bench/etcd.py` measures at 1x1 beyond that is the work of the servers
and of its load generator.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import uvloop

REQUEST = bytes(160)
REPLY = bytes(95)
RECORD = bytes(216)
FILE_BYTES = 1 << 20
"""Written before, as Quorate's segments are: a sync has data to write and no change of size."""

Sync = Callable[[], None]
Received = Callable[[asyncio.Transport, bytes], None]


def make_sync(file: Path | None) -> Sync:
    """Write one record and sync it, at the next place of the file."""
    if file is None:
        return lambda: None
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, bytes(FILE_BYTES), 0)
    os.fsync(descriptor)
    offset = 0

    def sync() -> None:
        nonlocal offset
        os.pwrite(descriptor, RECORD, offset)
        os.fdatasync(descriptor)
        offset = (offset + len(RECORD)) % (FILE_BYTES - len(RECORD))

    return sync


class Endpoint(asyncio.Protocol):
    """Hands what comes in to `received`."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received(self.transport, data)


async def serve(received: Received, port: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Endpoint(received), "127.0.0.1", 0)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def follow(file: Path | None, port: Connection) -> None:
    sync = make_sync(file)

    def received(leader: asyncio.Transport, requests: bytes) -> None:
        sync()
        leader.write(requests)

    uvloop.run(serve(received, port))


def lead(file: Path | None, follower_ports: list[int], port: Connection) -> None:
    sync = make_sync(file)
    owed: dict[asyncio.Transport, int] = {}
    """Bytes that each follower has yet to answer; one that owes none has answered the newest request."""
    waiting: list[asyncio.Transport] = []

    def requested(client: asyncio.Transport, request: bytes) -> None:
        waiting.append(client)
        for follower in owed:
            owed[follower] += len(request)
            follower.write(request)
        sync()

    def answered(follower: asyncio.Transport, answers: bytes) -> None:
        owed[follower] -= len(answers)
        if waiting and not owed[follower]:
            waiting.pop().write(REPLY)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for follower_port in follower_ports:
            transport, _ = await loop.create_connection(lambda: Endpoint(answered), "127.0.0.1", follower_port)
            owed[transport] = 0
        await serve(requested, port)

    uvloop.run(main())


@contextmanager
def running(target: Callable[..., None], *arguments: object) -> Iterator[int]:
    """A node in a process of its own; the port on which it listens."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=target, args=(*arguments, sending), daemon=True)
    process.start()
    sending.close()  # so that a process that ends before it has a port ends the waiting for it, with EOFError
    try:
        yield receiving.recv()
    finally:
        process.kill()
        process.join()


def measure(folder: Path | None, seconds: float) -> list[float]:
    """Round trips in seconds, one after the other."""

    def file(name: str) -> Path | None:
        return None if folder is None else folder / name

    with ExitStack() as stack:
        ports = [stack.enter_context(running(follow, file(name))) for name in ("follower-1", "follower-2")]
        port = stack.enter_context(running(lead, file("leader"), ports))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        durations_s = []
        end_s = time.monotonic() + seconds
        while (began_s := time.monotonic()) < end_s:
            client.sendall(REQUEST)
            client.recv(len(REPLY))
            durations_s.append(time.monotonic() - began_s)
        return durations_s


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the files go, to choose the disk (default: temporary)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement (default 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-floor-", dir=options.folder) as folder:
        for name, place in (("without a disk", None), ("with a sync on each node", Path(folder))):
            durations_s = measure(place, options.seconds)
            p10, *_, p90 = statistics.quantiles(durations_s, n=10)
            p50 = statistics.median(durations_s)
            print(f"{name:26} p10 {p10 * 1e6:6,.0f} µs   p50 {p50 * 1e6:6,.0f} µs   p90 {p90 * 1e6:6,.0f} µs")


if __name__ == "__main__":
    main()
