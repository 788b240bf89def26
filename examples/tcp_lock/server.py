"""A node of the lock service: the replicated locks, and a TCP port that speaks lines of text.

    python -m examples.tcp_lock.server --node 0        # and 1, and 2, in other terminals
    printf 'LOCK printer\\n' | nc 127.0.0.1 7200        # or nc alone, and type

    LOCK name      QUEUED name n      n are before you; said again whenever n changes
                   GRANTED name token
    UNLOCK name    RELEASED name      also while waiting
    LEADER         LEADER node        or -
                   LOST name          the lease is over, the lock is not yours any more
    anything       ERROR why          not done; with `ERROR closing: why` the connection ends, and with it its locks

A connection is a session.  When it ends, its locks are free.  Where its node dies and cannot say so, they are free when
the lease is over, which the node renews for its connections as long as it lives.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from examples.tcp_lock.locks import Locks, NoSession

import quorate

MAX_LINE_BYTES = 300
MAX_UNREAD_BYTES = 1 << 16
LEAVING_S = 1.0
PEER_PORT, CLIENT_PORT = 7100, 7200
"""Of node 0 on one machine."""
LEASE_S = 5.0


def end_if_silent(writer: asyncio.StreamWriter, lease_s: float) -> None:
    """Have the kernel end the connection when the other machine is gone, which nobody else would notice."""
    connection = writer.get_extra_info("socket")
    seconds = max(1, int(lease_s))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000 * seconds)


class LockServer:
    """Connections on one side, one node of the replicated locks on the other."""

    def __init__(self, locks: quorate.Replicated[Locks], lease_ms: int) -> None:
        self.locks = locks
        self.lease_ms = lease_ms
        self.connections: dict[str, Connection] = {}
        """By session."""
        self.handlers: dict[asyncio.Task[None], Connection] = {}

    async def serve(self, host: str, port: int) -> None:
        """Until the node stops.  Raises why, where it failed, and OSError where the address is taken."""
        server = await asyncio.start_server(self.connected, host, port, limit=MAX_LINE_BYTES)
        work = [start(each) for each in (self.locks.wait_stopped(), self.tell(), self.renew(), self.expire())]
        await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        server.close()
        await self.send_away()
        for task in work:
            task.cancel()
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, quorate.NodeStopped):
                raise outcome
        await self.locks.wait_stopped()

    async def leave(self) -> None:
        """Send everybody away, which frees their locks at once, and stop the node."""
        await self.send_away(LEAVING_S)
        await self.locks.stop()

    async def send_away(self, limit_s: float | None = None) -> None:
        for connection in self.handlers.values():
            connection.end("this node stops")
        if self.handlers:
            await asyncio.wait(self.handlers, timeout=limit_s)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end_if_silent(writer, self.lease_ms / 1000)
        connection = Connection(self, reader, writer)
        task: asyncio.Task[None] = start(self.handle(connection))
        self.handlers[task] = connection
        task.add_done_callback(self.handlers.pop)
        await task

    async def handle(self, connection: Connection) -> None:
        try:
            await connection.serve()
        except (OSError, quorate.NodeStopped):
            pass  # its session is closed below, or ends with its lease
        finally:
            connection.writer.close()
            if connection.session is not None:
                await self.until_done(Locks.close, connection.session)
                del self.connections[connection.session]

    async def until_done(self, command: Any, *args: Any) -> None:
        """For commands that may be done twice."""
        while True:
            try:
                return await self.locks.submit(command, *args)
            except (quorate.Refused, quorate.OutcomeUnknown):
                await asyncio.sleep(0.1)
            except quorate.NodeStopped:
                return  # the lease will end

    # --- what happens without being asked ------------------------------------------------------

    async def tell(self) -> None:
        """Tell connections of their places, after every change."""
        async for _ in self.locks.changes():
            wanted = {name for connection in self.connections.values() for name in connection.asked}
            if not wanted:
                continue
            # Linearizable: a node that was behind must not tell of a grant that is over.
            while (places := await self.places(sorted(wanted))) is None:  # noqa: ASYNC110 - who knows is elsewhere
                await asyncio.sleep(0.1)
            for name, (queue, token) in places.items():
                for place, session in enumerate(queue):
                    if (connection := self.connections.get(session)) is not None:
                        connection.tell(name, place, token)

    async def places(self, names: list[str]) -> dict[str, tuple[list[str], int]] | None:
        """None where nobody knows at present."""
        try:
            return await self.locks.query(Locks.places, names)
        except quorate.Refused:
            return None

    async def renew(self) -> None:
        """Keep alive the sessions of those who are connected."""
        while True:
            await asyncio.sleep(self.lease_ms / 3000)
            alive = [session for session, connection in self.connections.items() if connection.is_open]
            if alive:
                try:
                    gone = await self.locks.submit(Locks.renew, alive, self.lease_ms)
                except (quorate.Refused, quorate.OutcomeUnknown):
                    continue
                for session in gone:
                    if (connection := self.connections.get(session)) is not None and connection.is_open:
                        connection.end("the lease is over")

    async def expire(self) -> None:
        """On the leader: end sessions that nobody renews.  A new one grants all a full lease first, to be renewed."""
        led_s = 0.0
        while True:
            await asyncio.sleep(self.lease_ms / 4000)
            led_s = led_s + self.lease_ms / 4000 if self.locks.leads else 0.0
            if led_s * 1000 > self.lease_ms:
                try:
                    await self.locks.submit(Locks.expire)
                except (quorate.Refused, quorate.OutcomeUnknown):
                    continue


class Connection:
    """One client: its session, and what it was told."""

    def __init__(self, server: LockServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.session: str | None = None
        """None until it asks for a lock."""
        self.is_open = False
        """The session is there, as far as is known."""
        self.asked: dict[str, int | None] = {}
        """Lock -> the place that it was told of last."""

    async def serve(self) -> None:
        """Until the client leaves, or must."""
        while not self.writer.is_closing():
            try:
                line = await self.reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                return self.end(f"a line has at most {MAX_LINE_BYTES} bytes")
            if not line.isascii():
                self.say("ERROR expected ASCII")
                continue
            try:
                await self.obey(line.decode("ascii").split())
            except NoSession:
                return self.end("the lease is over")
            except quorate.CommandError as error:
                self.say(f"ERROR {type(error).__name__} {error}")
            except quorate.Refused as error:
                self.say(f"ERROR try again: {error}")
            except quorate.OutcomeUnknown as error:
                # Whatever came of it ends with the session.
                return self.end(str(error))

    async def obey(self, words: list[str]) -> None:
        locks = self.server.locks
        match words:
            case ["LOCK", name]:
                if self.session is None:
                    self.session = uuid.uuid4().hex
                    self.server.connections[self.session] = self
                if not self.is_open:
                    await locks.submit(Locks.open, self.session, self.server.lease_ms)
                    self.is_open = True
                await self.ask(self.session, name)
            case ["UNLOCK", name]:
                await locks.submit(Locks.unlock, self.session or "", name)
                self.asked.pop(name, None)
                self.say(f"RELEASED {name}")
            case ["LEADER"]:
                self.say(f"LEADER {'-' if locks.leader is None else locks.leader}")
            case _:
                self.say("ERROR expected LOCK name, UNLOCK name or LEADER")

    async def ask(self, session: str, name: str) -> None:
        """What it came to is told by `LockServer.tell`, as every later place is."""
        anew = name not in self.asked
        self.asked.setdefault(name, None)
        try:
            await self.server.locks.submit(Locks.lock, session, name)
        except quorate.Refused:
            if anew:
                del self.asked[name]
            raise

    def tell(self, name: str, place: int, token: int) -> None:
        if name in self.asked and self.asked[name] != place:
            self.asked[name] = place
            self.say(f"QUEUED {name} {place}" if place else f"GRANTED {name} {token}")

    def end(self, why: str) -> None:
        """The session is over, or must be."""
        self.is_open = False
        if self.writer.is_closing():
            return
        for name in self.asked:
            self.say(f"LOST {name}")
        self.asked.clear()
        self.say(f"ERROR closing: {why}")
        self.writer.close()

    def say(self, line: str) -> None:
        self.writer.write(f"{line}\n".encode())
        if self.writer.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.writer.transport.abort()  # it does not read


async def run(arguments: argparse.Namespace) -> None:
    members = dict(enumerate(arguments.members.split(",")))
    data = arguments.data or Path("tcp-lock-data", f"node-{arguments.node}")
    locks = quorate.Replicated(
        Locks, node=arguments.node, members=members, data=data, protocol=arguments.protocol, name="tcp-lock"
    )
    async with locks:
        server = LockServer(locks, round(arguments.lease * 1000))
        leaving: list[asyncio.Task[None]] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: leaving.append(start(server.leave())))
        host, port = arguments.listen
        print(f"node {arguments.node} serves clients on {host}:{port}", flush=True)
        await server.serve(host, port)


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def seconds(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise ValueError
    return float(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", type=int, required=True, help="which of the members this is, from 0")
    parser.add_argument(
        "--members",
        default=",".join(f"127.0.0.1:{PEER_PORT + node}" for node in range(3)),
        help="host:port of each, for each other (default: %(default)s)",
    )
    parser.add_argument(
        "--listen", type=address, help=f"host:port for clients (default: 127.0.0.1:{CLIENT_PORT} + node)"
    )
    parser.add_argument("--data", type=Path, help="folder of this node (default: tcp-lock-data/node-N)")
    parser.add_argument("--protocol", default="paxos", choices=("raft", "paxos", "zab"))
    parser.add_argument(
        "--lease", type=seconds, default=LEASE_S, help="seconds that a dead node's clients keep their locks"
    )
    arguments = parser.parse_args()
    arguments.listen = arguments.listen or ("127.0.0.1", CLIENT_PORT + arguments.node)
    logging.basicConfig(level=logging.WARNING, format=f"node {arguments.node}: %(message)s")
    try:
        asyncio.run(run(arguments))
    except (quorate.CannotStart, quorate.StateMachineFailed, OSError) as error:
        raise SystemExit(f"node {arguments.node}: {error}") from error


if __name__ == "__main__":
    main()
