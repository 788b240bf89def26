"""Links, listener and probe on every loop that they must run on: they must not come to depend on one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
import uvloop

from quorate import __version__
from quorate.net.connection import Direction
from quorate.net.handshake import (
    ANY_NODE,
    WIRE_VERSION,
    HandshakeRefused,
    LocalIdentity,
    Portrait,
    RefusalCode,
)
from quorate.net.links import Links
from quorate.net.listener import PeerListener
from quorate.net.probe import probe
from quorate.simulation.scheduler import Simulation
from tests.net.gates import RememberingGate, identity, incarnation

HOST = "127.0.0.1"
NOBODY = LocalIdentity(cluster="", protocol="", node=ANY_NODE, incarnation="", address="")
Work = Callable[[], Coroutine[Any, Any, None]]


def on_asyncio(work: Work) -> None:
    asyncio.run(work())


def on_uvloop(work: Work) -> None:
    uvloop.run(work())


def on_simulated_loop(work: Work) -> None:
    simulation = Simulation()
    simulation.run(simulation.boot(HOST), work())


every_loop = pytest.mark.parametrize("run", [on_asyncio, on_uvloop, on_simulated_loop])


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


class TellingGate(RememberingGate):
    """Tells its station of refusals."""

    def __init__(self, station: Station, node: int) -> None:
        super().__init__(identity(node))
        self.station = station

    def refused_by(self, peer: int, code: RefusalCode, cluster_id: str, reason: str) -> None:
        super().refused_by(peer, code, cluster_id, reason)
        self.station.tell("refused", peer, code)


class Station:
    """A node's links and listener; `happened` is awaited for what they tell."""

    def __init__(self, node: int, ports: list[int]) -> None:
        self.port = ports[node]
        self.events: list[tuple[Any, ...]] = []
        self.news = asyncio.Event()
        self.gate = TellingGate(self, node)
        self.links = Links(self.gate.handshake, self, 1 << 20)
        self.listener = PeerListener(self.gate.handshake, self, self, msgspec.msgpack.decode, 1 << 20)

    async def start(self) -> None:
        await self.listener.start(HOST, self.port)
        self.links.start()

    async def stop(self) -> None:
        await self.links.stop()
        await self.listener.stop()

    async def happened(self, *event: Any) -> None:
        async with asyncio.timeout(10):
            while event not in self.events:
                self.news.clear()
                await self.news.wait()

    def tell(self, *event: Any) -> None:
        self.events.append(event)
        self.news.set()

    def received(self, peer: int, items: list[Any]) -> None:
        self.tell("received", peer, items)

    def burst_ended(self, peer: int) -> None:
        pass

    def connected(self, peer: int) -> None:
        self.tell("connected", peer)

    def accepted(self, peer: int) -> None:
        self.tell("accepted", peer)

    def lost(self, peer: int, direction: Direction) -> None:
        self.tell("lost", peer, direction)

    def frame(self, connection: object, peer: int, body: bytes) -> None:
        raise AssertionError("no snapshots here")

    def ended(self, connection: object) -> None:
        raise AssertionError("no snapshots here")


@every_loop
def test_peers_come_move_and_go(run: Callable[[Work], None]) -> None:
    async def work() -> None:
        ports = free_ports(3)
        zero, one = Station(0, ports), Station(1, ports)
        await zero.start()
        await one.start()
        zero.links.ensure(1, (HOST, ports[2]))
        one.links.ensure(0, (HOST, ports[0]))
        await one.happened("connected", 0)
        zero.links.ensure(1, (HOST, ports[1]))
        await zero.happened("connected", 1)
        assert zero.links.by_peer[1].peer_incarnation == incarnation(1)
        zero.links.by_peer[1].queue("hello")
        zero.links.flush()
        await one.happened("received", 0, ["hello"])

        zero.events.clear()
        zero.links.remove(1)
        zero.links.ensure(1, (HOST, ports[1]))
        await zero.happened("connected", 1)
        assert zero.events == [("lost", 1, Direction.OUTGOING), ("connected", 1)]

        zero.gate.members = set()
        zero.links.remove(1)
        zero.listener.disconnect(1)
        await zero.happened("lost", 1, Direction.INCOMING)
        await one.happened("lost", 0, Direction.OUTGOING)
        await one.happened("refused", 0, RefusalCode.UNKNOWN)
        assert one.gate.refusals[0] == (0, RefusalCode.UNKNOWN, "", "node 1 is no member")
        await zero.stop()
        await one.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(work)


@every_loop
def test_a_probe_tells_who_is_there(run: Callable[[Work], None]) -> None:
    async def work() -> None:
        ports = free_ports(2)
        one = Station(1, ports)
        await one.start()
        one.gate.members = set()
        portrait = await probe((HOST, ports[1]), NOBODY, 5)
        local = identity(1)
        assert portrait == Portrait(WIRE_VERSION, __version__, "orders", "", "raft", 1, incarnation(1), local.address)
        assert one.gate.admitted == [] and one.events == []
        with pytest.raises(OSError):
            await probe((HOST, ports[0]), NOBODY, 5)
        await one.stop()

    run(work)


@every_loop
@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "it closed the connection during the handshake"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an answer of 1213486160 bytes was announced"),
        (b"\0\0\0\5hello", "the answer is not a Quorate handshake"),
    ],
)
def test_a_probe_of_something_else_says_so(run: Callable[[Work], None], answer: bytes, complaint: str) -> None:
    async def work() -> None:
        [port] = free_ports(1)

        async def another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(another, HOST, port)
        with pytest.raises(HandshakeRefused, match=complaint):
            await probe((HOST, port), NOBODY, 5)
        server.close()

    run(work)


@every_loop
def test_a_probe_does_not_wait_for_ever(run: Callable[[Work], None]) -> None:
    async def work() -> None:
        [port] = free_ports(1)
        done = asyncio.Event()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await done.wait()
            writer.close()

        server = await asyncio.start_server(mute, HOST, port)
        with pytest.raises(TimeoutError):
            await probe((HOST, port), NOBODY, 0.05)
        done.set()
        server.close()

    run(work)
