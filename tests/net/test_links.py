"""Links between two simulated machines: what arrives, what is lost, who is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from quorate.net.connection import Direction
from quorate.net.handshake import RefusalCode
from quorate.net.links import Links
from quorate.net.listener import PeerListener
from quorate.simulation.scheduler import Simulation
from tests.net.gates import RememberingGate, identity, incarnation

PORT = 7400
HOSTS = {0: "10.0.0.1", 1: "10.0.0.2"}


class Station:
    """One node's links and listener, and what it heard."""

    def __init__(self, node: int, **changes: Any) -> None:
        self.heard: list[tuple[int, list[Any]]] = []
        self.events: list[tuple[str, int]] = []
        self.gate = RememberingGate(identity(node, **changes))
        self.links = Links(self.gate.handshake, self, 1 << 20)
        for peer, host in HOSTS.items():
            if peer != node:
                self.links.ensure(peer, (host, PORT))
        self.listener = PeerListener(self.gate.handshake, self, self, msgspec.msgpack.decode, 1 << 20)

    def received(self, peer: int, items: list[Any]) -> None:
        self.heard.append((peer, items))

    def burst_ended(self, peer: int) -> None:
        pass

    def connected(self, peer: int) -> None:
        self.events.append(("connected", peer))

    def accepted(self, peer: int) -> None:
        assert self.listener.incarnation_of(peer) is not None

    def lost(self, peer: int, direction: Direction) -> None:
        self.events.append((f"lost {direction.name.lower()}", peer))

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
    assert ("lost outgoing", 1) in zero.events
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
    assert ("lost incoming", 1) in zero.events and ("lost incoming", 0) in one.events
    assert ("lost outgoing", 1) in zero.events and ("lost outgoing", 0) in one.events
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
    assert sum("refused a peer connection" in message for message in refusals) == 1, "once, not at every attempt"
    assert sum("it refused us" in message for message in refusals) == 1
    assert len(one.gate.refusals) > 3, "the node hears of every one"
    assert {refusal[:2] for refusal in one.gate.refusals} == {(0, RefusalCode.OTHER_CLUSTER)}


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


# --- members that come, go and move ----------------------------------------------------------


def both(simulation: Simulation) -> tuple[Station, Station]:
    """Two stations that are linked, their events so far forgotten."""
    stations = start(simulation, 0, lambda: Station(0)), start(simulation, 1, lambda: Station(1))
    wait(simulation, 1)
    for station in stations:
        assert [name for name, _ in station.events] == ["connected"]
        station.events.clear()
    return stations


def test_a_link_says_who_is_at_its_other_end() -> None:
    simulation = Simulation()
    zero = start(simulation, 0, lambda: Station(0))
    link = zero.links.by_peer[1]
    assert (link.peer_incarnation, zero.listener.incarnation_of(1)) == (None, None)
    start(simulation, 1, lambda: Station(1, release="7.0"))
    wait(simulation, 3)
    assert (link.peer_incarnation, link.peer_release, link.peer_admin) == (incarnation(1), "7.0", "10.0.0.2:80")
    assert zero.listener.incarnation_of(1) == incarnation(1)
    simulation.kill(HOSTS[1])
    wait(simulation, 3)
    assert (link.peer_incarnation, zero.listener.incarnation_of(1)) == (None, None)


def test_a_removed_peer_is_lost_once_and_never_dialled_again() -> None:
    simulation = Simulation()
    zero, one = both(simulation)
    link = zero.links.by_peer[1]

    async def remove() -> None:
        zero.links.remove(1)
        zero.links.remove(1)
        zero.listener.disconnect(1)
        assert zero.events == [], "not from within the call: the node may be in the middle of a step"
        assert not link.connected and zero.links.by_peer == {}
        assert zero.listener.incarnation_of(1) is None
        zero.gate.members = set()

    simulation.run(simulation.machines[HOSTS[0]], remove())
    wait(simulation, 10)
    assert sorted(zero.events) == [("lost incoming", 1), ("lost outgoing", 1)]
    assert one.events.count(("lost incoming", 0)) == 1, "it is not dialled any more"
    assert one.gate.refusals[-1][:2] == (0, RefusalCode.UNKNOWN)
    assert not one.links.by_peer[0].connected


def test_a_peer_that_was_never_reached_is_removed_without_a_word() -> None:
    simulation = Simulation()
    zero = start(simulation, 0, lambda: Station(0))
    wait(simulation, 1)
    zero.links.remove(1)
    start(simulation, 1, lambda: Station(1))
    wait(simulation, 5)
    assert zero.events == [] and zero.links.by_peer == {}
    assert zero.listener.incarnation_of(1) == incarnation(1), "the other direction is the listener's"


def test_a_peer_that_is_removed_and_added_again_is_lost_before_it_is_connected() -> None:
    simulation = Simulation()
    zero, one = both(simulation)

    async def again() -> None:
        zero.links.remove(1)
        zero.links.ensure(1, ("10.0.0.9", PORT))
        zero.links.ensure(1, (HOSTS[1], PORT))

    simulation.run(simulation.machines[HOSTS[0]], again())
    wait(simulation, 1)
    assert zero.events == [("lost outgoing", 1), ("connected", 1)]
    zero.say(1, "here again")
    wait(simulation, 1)
    assert one.heard == [(0, ["here again"])]


def test_a_peer_that_moved_is_dialled_at_its_new_address_at_once() -> None:
    """At its old one it cannot even be refused: packets vanish, and dialling would last its whole timeout."""
    simulation = Simulation()
    elsewhere = "10.0.0.7"

    async def begin() -> Station:
        station = Station(0)
        station.links.ensure(1, (elsewhere, PORT))
        await station.start(0)
        return station

    simulation.network.cut(HOSTS[0], elsewhere)
    zero = simulation.run(simulation.boot(HOSTS[0]), begin())
    start(simulation, 1, lambda: Station(1))
    wait(simulation, 2)
    assert not zero.links.by_peer[1].connected

    async def move() -> None:
        zero.links.ensure(1, (HOSTS[1], PORT))
        zero.links.ensure(1, (HOSTS[1], PORT))

    simulation.run(simulation.machines[HOSTS[0]], move())
    wait(simulation, 0.1)
    assert zero.links.by_peer[1].connected
    assert [event for event in zero.events if event == ("connected", 1)] == [("connected", 1)]


def test_a_new_address_leaves_a_connection_alone_and_counts_from_the_next_dialling_on() -> None:
    simulation = Simulation()
    zero, _ = both(simulation)

    async def move() -> None:
        zero.links.ensure(1, ("10.0.0.7", PORT))

    simulation.run(simulation.machines[HOSTS[0]], move())
    wait(simulation, 2)
    assert zero.links.by_peer[1].connected and zero.events == []
    simulation.kill(HOSTS[1])
    start(simulation, 1, lambda: Station(1))
    wait(simulation, 3)
    assert not zero.links.by_peer[1].connected


def test_another_data_folder_takes_over_only_once_it_is_admitted() -> None:
    """A wiped node starts beside the one that still runs under its id."""
    simulation = Simulation()
    zero, one = both(simulation)
    wiped_host, wiped = "10.0.0.7", "ff" * 16

    async def begin() -> Station:
        station = Station(1, incarnation=wiped)
        station.links.start()
        return station

    other = simulation.run(simulation.boot(wiped_host), begin())
    wait(simulation, 3)
    assert other.gate.refusals[-1][:2] == (0, RefusalCode.OTHER_FOLDER)
    assert zero.listener.incarnation_of(1) == incarnation(1) and zero.events == []
    zero.gate.folders[1] = wiped
    wait(simulation, 3)
    assert zero.listener.incarnation_of(1) == wiped
    assert zero.events == [("lost incoming", 1)]
    other.say(0, "new")
    one.say(0, "old")
    wait(simulation, 1)
    assert zero.heard == [(1, ["new"])]


def test_a_peer_cut_off_while_it_speaks_says_no_more() -> None:
    """What it had sent in the same burst is not handed up."""

    class Strict(Station):
        def received(self, peer: int, items: list[Any]) -> None:
            super().received(peer, items)
            self.listener.disconnect(peer)

    simulation = Simulation()
    zero, one = start(simulation, 0, lambda: Strict(0)), start(simulation, 1, lambda: Station(1))
    wait(simulation, 1)
    one.say(0, "first")
    one.say(0, "second")
    wait(simulation, 3)
    assert zero.heard == [(1, ["first"])]
    assert zero.events.count(("lost incoming", 1)) == 1
    one.say(0, "after it dialled again")
    wait(simulation, 1)
    assert zero.heard[1:] == [(1, ["after it dialled again"])]
