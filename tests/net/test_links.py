"""Links between two simulated machines: what arrives, what is lost, who is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from quorate.net.connection import Direction
from quorate.net.handshake import Handshake, LocalIdentity
from quorate.net.links import Links
from quorate.net.listener import PeerListener
from quorate.simulation.scheduler import Simulation

PORT = 7400
HOSTS = {0: "10.0.0.1", 1: "10.0.0.2"}


class Station:
    """One node's links and listener, and what it heard."""

    def __init__(self, node: int, cluster: str = "orders") -> None:
        self.heard: list[tuple[int, list[Any]]] = []
        self.events: list[tuple[str, int]] = []
        local = LocalIdentity(cluster, "raft", node, f"{node:032x}", "")
        handshake = Handshake(local, frozenset(HOSTS), lambda peer, incarnation: None)
        peers = {peer: (host, PORT) for peer, host in HOSTS.items() if peer != node}
        self.links = Links(peers, handshake, self, 1 << 20)
        self.listener = PeerListener(handshake, self, self, msgspec.msgpack.decode, 1 << 20)

    def received(self, peer: int, items: list[Any]) -> None:
        self.heard.append((peer, items))

    def burst_ended(self, peer: int) -> None:
        pass

    def connected(self, peer: int) -> None:
        self.events.append(("connected", peer))

    def lost(self, peer: int, direction: Direction) -> None:
        self.events.append(("lost", peer))

    def frame(self, connection: object, peer: int, body: bytes) -> None:
        raise AssertionError("no snapshots here")

    def ended(self, connection: object) -> None:
        raise AssertionError("no snapshots here")

    async def start(self, node: int) -> None:
        await self.listener.start(HOSTS[node], PORT)
        self.links.start()

    def say(self, peer: int, *items: Any) -> None:
        for item in items:
            self.links.by_peer[peer].queue(item)
        self.links.flush()


def start(simulation: Simulation, node: int, make: Callable[[], Station]) -> Station:
    async def begin() -> Station:
        station = make()
        await station.start(node)
        return station

    return simulation.run(simulation.boot(HOSTS[node]), begin())


def wait(simulation: Simulation, seconds: float) -> None:
    simulation.pass_until(simulation.now_s + seconds)


def test_one_flush_is_one_frame_in_order() -> None:
    simulation = Simulation()
    zero, one = start(simulation, 0, lambda: Station(0)), start(simulation, 1, lambda: Station(1))
    wait(simulation, 1)
    zero.say(1, "a", "b")
    zero.say(1, "c")
    one.say(0, "d")
    wait(simulation, 1)
    assert one.heard == [(0, ["a", "b"]), (0, ["c"])]
    assert zero.heard == [(1, ["d"])]


def test_a_killed_peer_is_noticed_and_linked_again() -> None:
    simulation = Simulation()
    zero = start(simulation, 0, lambda: Station(0))
    start(simulation, 1, lambda: Station(1))
    wait(simulation, 1)
    simulation.kill(HOSTS[1])
    wait(simulation, 1)
    assert ("lost", 1) in zero.events
    zero.say(1, "into the void")
    again = start(simulation, 1, lambda: Station(1))
    wait(simulation, 3)
    zero.say(1, "hello again")
    wait(simulation, 1)
    assert again.heard == [(0, ["hello again"])]


def test_a_partition_is_noticed_by_silence() -> None:
    simulation = Simulation()
    zero, one = start(simulation, 0, lambda: Station(0)), start(simulation, 1, lambda: Station(1))
    wait(simulation, 1)
    simulation.network.cut(HOSTS[0], HOSTS[1])
    simulation.network.cut(HOSTS[1], HOSTS[0])
    wait(simulation, 8)
    assert ("lost", 1) in zero.events and ("lost", 0) in one.events
    simulation.network.mend(HOSTS[0], HOSTS[1])
    simulation.network.mend(HOSTS[1], HOSTS[0])
    wait(simulation, 10)
    zero.say(1, "together")
    wait(simulation, 1)
    assert one.heard == [(0, ["together"])]


def test_a_peer_of_another_cluster_is_refused_and_both_say_so(caplog: pytest.LogCaptureFixture) -> None:
    simulation = Simulation()
    with caplog.at_level(logging.WARNING):
        zero = start(simulation, 0, lambda: Station(0))
        one = start(simulation, 1, lambda: Station(1, cluster="stock"))
        wait(simulation, 5)
    assert not zero.links.by_peer[1].connected and not one.links.by_peer[0].connected
    refusals = [
        record.message for record in caplog.records if "cluster 'stock', this node to 'orders'" in record.message
    ]
    assert any("refused a peer connection" in message for message in refusals)
    assert any("it refused us" in message for message in refusals)


def test_garbage_at_the_peer_port_is_refused_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    simulation = Simulation()
    zero, one = start(simulation, 0, lambda: Station(0)), start(simulation, 1, lambda: Station(1))

    async def stranger(first_bytes: bytes) -> None:
        reader, writer = await asyncio.open_connection(HOSTS[1], PORT)
        writer.write(first_bytes)
        await reader.read(1 << 16)
        writer.close()

    elsewhere = simulation.boot("10.0.0.9")
    with caplog.at_level(logging.WARNING):
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x05hello", b"\xff" * 4, b""):
            simulation.run(elsewhere, stranger(garbage))
    zero.say(1, "still here")
    wait(simulation, 1)
    assert one.heard == [(0, ["still here"])]
    assert sum("refused a peer connection" in record.message for record in caplog.records) == 4
