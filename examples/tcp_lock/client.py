"""A client of the lock service, to use and to copy.

python -m examples.tcp_lock.client printer --hold 5
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from examples.tcp_lock.server import CLIENT_PORT, LEASE_S, end_if_silent


class LockLost(Exception):
    """The connection ended, and with it the place in the queue, or the lock.  It is as if one had never asked."""


class LockClient:
    """One connection to any of the servers, "host:port".  Ask for one lock at a time."""

    def __init__(self, servers: Sequence[str], on_place: Callable[[int], None] = lambda place: None) -> None:
        """`on_place` is told how many are before us, whenever that changes."""
        self._servers = random.sample(servers, len(servers))
        self._on_place = on_place
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[Held]:
        """Wait for the lock, hold it, and give it back.  Raises LockLost; then ask again, at the end of the queue.

        What the lock protects must refuse a lower token than it has seen: no lock service can keep a client that
        slept for too long from believing that the lock is still its own.
        """
        try:
            reader = await self._ask(name)
            while (words := await _line(reader))[:2] != ["GRANTED", name]:
                if words[:2] != ["QUEUED", name]:
                    raise LockLost(" ".join(words) or "the connection ended")
                self._on_place(int(words[2]))
            held = Held(int(words[2]), asyncio.create_task(_line(reader)))
            try:
                yield held
                if held.is_lost():
                    raise LockLost(f"{name} was lost meanwhile")
                assert self._writer is not None
                self._writer.write(f"UNLOCK {name}\n".encode())
                if await held.next_line != ["RELEASED", name]:
                    raise LockLost(f"{name} was lost meanwhile")
            finally:
                held.next_line.cancel()
        except BaseException:
            # Nobody knows what the server would say next.
            await self.close()
            raise

    async def _ask(self, name: str) -> asyncio.StreamReader:
        if self._reader is None:
            for _ in self._servers:
                self._servers.append(self._servers.pop(0))
                host, _, port = self._servers[0].rpartition(":")
                with suppress(OSError):
                    opening = asyncio.open_connection(host, int(port))
                    reader, writer = await asyncio.wait_for(opening, LEASE_S)
                    end_if_silent(writer, LEASE_S)
                    self._reader, self._writer = reader, writer
                    break
        if self._reader is None or self._writer is None:
            raise LockLost("no server can be reached")
        self._writer.write(f"LOCK {name}\n".encode())
        return self._reader

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()
        self._reader = self._writer = None


class Held:
    """A lock that is ours until `is_lost`."""

    def __init__(self, token: int, next_line: asyncio.Task[list[str]]) -> None:
        self.token = token
        """Higher than that of every holder before."""
        self.next_line = next_line
        """Whatever the server says before it was asked to is the end."""

    def is_lost(self) -> bool:
        return self.next_line.done()

    async def lost(self) -> None:
        """Until it is."""
        await asyncio.wait([self.next_line])


async def _line(reader: asyncio.StreamReader) -> list[str]:
    """Its words; none where the connection has ended."""
    try:
        return (await reader.readuntil(b"\n")).decode().split()
    except (asyncio.IncompleteReadError, OSError):
        return []


async def hold(servers: Sequence[str], name: str, hold_s: float) -> None:
    client = LockClient(servers, lambda place: print(f"{place} before us", flush=True))
    while True:
        try:
            async with client.lock(name) as held:
                print(f"{name} is ours for {hold_s:g} s, token {held.token}", flush=True)
                with suppress(TimeoutError):
                    await asyncio.wait_for(held.lost(), hold_s)
            print(f"{name} given back", flush=True)
            return await client.close()
        except LockLost as lost:
            print(f"{lost}; asking again", flush=True)
            await asyncio.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description="Wait for a lock, hold it for a while, and give it back.")
    parser.add_argument("name")
    parser.add_argument("--hold", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument(
        "--servers",
        default=",".join(f"127.0.0.1:{CLIENT_PORT + node}" for node in range(3)),
        help="host:port,... (default: %(default)s)",
    )
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(hold(arguments.servers.split(","), arguments.name, arguments.hold))


if __name__ == "__main__":
    main()
