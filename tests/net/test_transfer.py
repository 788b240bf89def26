"""Snapshots between two simulated machines: what arrives, and what is done about a transfer that goes wrong."""

from __future__ import annotations

import asyncio
import logging
from random import Random

import msgspec
import pytest

from quorate.net.connection import Direction
from quorate.net.frames import FrameEncoder
from quorate.net.handshake import Handshake, Purpose, Welcome
from quorate.net.listener import PeerListener
from quorate.net.transfer import Offer, TransferFailed, TransferReceiver, send_snapshot
from quorate.simulation.disk import SimulatedDisk
from quorate.simulation.scheduler import Simulation
from quorate.storage.snapshots import SnapshotInfo, Snapshots
from tests.net.gates import RememberingGate, identity, incarnation

SENDER, TAKER = "10.0.0.1", "10.0.0.2"
PORT = 7400
SLICES = [Random(number).randbytes(400_000) for number in range(5)]


MUTE = "10.0.0.3"


def handshake(node: int) -> Handshake:
    return RememberingGate(identity(node)).handshake


class Taker:
    """A node that takes snapshots of group 1, and nothing else."""

    def __init__(self, service: str = "zookeeper") -> None:
        self.disk = SimulatedDisk()
        self.snapshots = Snapshots(self.disk)
        self.arrived: list[tuple[int, Offer]] = []
        transfers = TransferReceiver(self.snapshots, {1: service}, self._arrived)
        self.listener = PeerListener(handshake(1), self, transfers, msgspec.msgpack.decode, 1 << 20)

    async def _arrived(self, peer: int, offer: Offer) -> None:
        self.arrived.append((peer, offer))

    def received(self, peer: int, items: list[object]) -> None:
        raise AssertionError("no messages here")

    def burst_ended(self, peer: int) -> None:
        pass

    def connected(self, peer: int) -> None:
        raise AssertionError("no messages here")

    def accepted(self, peer: int) -> None:
        raise AssertionError("no messages here")

    def lost(self, peer: int, direction: Direction) -> None:
        raise AssertionError("no messages here")


def start_taker(simulation: Simulation, service: str = "zookeeper") -> Taker:
    async def begin() -> Taker:
        taker = Taker(service)
        await taker.listener.start(TAKER, PORT)
        return taker

    machine = simulation.boot(TAKER)
    taker = simulation.run(machine, begin())
    taker.disk.attach(machine)
    return taker


async def write(snapshots: Snapshots, position: int = 7) -> SnapshotInfo:
    writer = snapshots.create(1, position, 3, "zookeeper")
    for slice_ in SLICES:
        await writer.write(slice_)
    return await writer.finish()


async def send(snapshots: Snapshots, info: SnapshotInfo, generation: int = 5) -> None:
    await send_snapshot(handshake(0), (TAKER, PORT), 1, snapshots, info, 1, generation)


def test_a_snapshot_arrives_whole() -> None:
    simulation = Simulation()
    taker = start_taker(simulation)
    source = Snapshots(SimulatedDisk())
    sender = simulation.boot(SENDER)
    info = simulation.run(sender, write(source))
    simulation.run(sender, send(source, info))
    assert [(peer, offer.position, offer.generation) for peer, offer in taker.arrived] == [(0, 7, 5)]
    assert list(taker.snapshots.open(info)) == SLICES


def test_a_snapshot_arrives_although_a_newer_one_replaces_it_meanwhile() -> None:
    simulation = Simulation()
    taker = start_taker(simulation)
    source = Snapshots(SimulatedDisk())

    async def scenario() -> SnapshotInfo:
        info = await write(source)
        sending = asyncio.get_running_loop().create_task(send(source, info))
        while not taker.disk.list("snapshots"):
            await asyncio.wait([sending], timeout=0.001)
        newer = await write(source, 8)
        source.remove_older(1, newer.position)
        await sending
        return info

    sender = simulation.boot(SENDER)
    info = simulation.run(sender, scenario())
    assert list(taker.snapshots.open(info)) == SLICES


def test_a_snapshot_that_is_gone_before_it_is_sent_fails_the_transfer() -> None:
    simulation = Simulation()
    start_taker(simulation)
    source = Snapshots(SimulatedDisk())

    async def scenario() -> None:
        info = await write(source)
        source.remove_older(1, info.position + 1)
        with pytest.raises(TransferFailed, match="cannot be opened"):
            await send(source, info)

    sender = simulation.boot(SENDER)
    simulation.run(sender, scenario())


@pytest.mark.parametrize("answer", [b"\xc1", b"\x82\xa4type\xa5taken\xa7problem\xa1\xff"], ids=["nonsense", "no-utf-8"])
def test_a_peer_whose_answer_cannot_be_read_fails_the_transfer(answer: bytes) -> None:
    simulation = Simulation()
    source = Snapshots(SimulatedDisk())

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(FrameEncoder().encode(Welcome("0.1", "", 1, incarnation(1), "", f"{MUTE}:{PORT}", {})))
        writer.write(len(answer).to_bytes(4, "big") + answer)

    async def scenario() -> None:
        info = await write(source)
        with pytest.raises(TransferFailed, match="node 1: "):
            await send_snapshot(handshake(0), (MUTE, PORT), 1, source, info, 1, 5)

    simulation.run(simulation.boot(MUTE), asyncio.start_server(babble, MUTE, PORT))
    simulation.run(simulation.boot(SENDER), scenario())


@pytest.mark.parametrize("last_words", ["nothing", "welcome"])
def test_a_peer_that_falls_silent_fails_the_transfer(last_words: str) -> None:
    """It accepts the connection and does not read; and it says welcome, but takes no chunk."""
    simulation = Simulation()
    source = Snapshots(SimulatedDisk())

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if last_words == "welcome":
            writer.write(FrameEncoder().encode(Welcome("0.1", "", 1, incarnation(1), "", f"{MUTE}:{PORT}", {})))
        writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def scenario() -> None:
        info = await write(source)
        began_s = simulation.now_s
        with pytest.raises(TransferFailed, match="node 1 was silent for too long"):
            await send_snapshot(handshake(0), (MUTE, PORT), 1, source, info, 1, 5)
        assert simulation.now_s - began_s < 60

    simulation.run(simulation.boot(MUTE), asyncio.start_server(mute, MUTE, PORT))
    sender = simulation.boot(SENDER)
    simulation.run(sender, asyncio.wait_for(scenario(), 3600))


def test_a_refused_offer_ends_the_transfer_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    simulation = Simulation()
    taker = start_taker(simulation, "another")
    source = Snapshots(SimulatedDisk())

    async def scenario() -> None:
        info = await write(source)
        with pytest.raises(TransferFailed, match="node 1: group 1 is 'another' here, not 'zookeeper'"):
            await send(source, info)

    sender = simulation.boot(SENDER)
    with caplog.at_level(logging.WARNING):
        simulation.run(sender, scenario())
        simulation.run(sender, asyncio.sleep(60))
    assert taker.disk.list("snapshots") == []
    assert caplog.records == []


def test_a_full_disk_at_the_other_end_ends_the_transfer_with_its_reason() -> None:
    simulation = Simulation()
    taker = start_taker(simulation)
    taker.disk.capacity_bytes = 1000
    source = Snapshots(SimulatedDisk())

    async def scenario() -> None:
        info = await write(source)
        with pytest.raises(TransferFailed, match="node 1: cannot store it: no room"):
            await send(source, info)

    sender = simulation.boot(SENDER)
    simulation.run(sender, scenario())


def test_a_sender_that_falls_silent_is_cut_off_and_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    simulation = Simulation()
    taker = start_taker(simulation)

    async def stop_half_way() -> None:
        _, writer = await asyncio.open_connection(TAKER, PORT)
        writer.write(FrameEncoder().encode(handshake(0).hello(1, Purpose.SNAPSHOT)))
        writer.write(FrameEncoder().encode(Offer(1, 5, 7, 3, 1000, "zookeeper")))
        await asyncio.sleep(1)
        assert len(taker.disk.list("snapshots")) == 1
        await asyncio.sleep(60)

    sender = simulation.boot(SENDER)
    with caplog.at_level(logging.WARNING):
        simulation.run(sender, stop_half_way())
    assert taker.disk.list("snapshots") == []
    assert any("silent" in message for message in caplog.messages)


def test_a_slow_disk_at_the_other_end_is_waited_for() -> None:
    simulation = Simulation()
    taker = start_taker(simulation)
    taker.disk.sync_s = (20, 20)
    source = Snapshots(SimulatedDisk())
    sender = simulation.boot(SENDER)
    info = simulation.run(sender, write(source))
    simulation.run(sender, send(source, info))
    assert list(taker.snapshots.open(info)) == SLICES


def test_a_newer_transfer_of_a_group_ends_the_older_one() -> None:
    simulation = Simulation()
    taker = start_taker(simulation)
    source = Snapshots(SimulatedDisk())

    async def scenario() -> SnapshotInfo:
        info = await write(source)
        _, writer = await asyncio.open_connection(TAKER, PORT)
        writer.write(FrameEncoder().encode(handshake(0).hello(1, Purpose.SNAPSHOT)))
        writer.write(FrameEncoder().encode(Offer(1, 5, 7, 3, info.size_bytes, "zookeeper")))
        await asyncio.sleep(1)
        with pytest.raises(TransferFailed, match="node 0 already sends it a snapshot by the leader of generation 5"):
            await send(source, info, generation=4)
        await send(source, info, generation=6)
        return info

    sender = simulation.boot(SENDER)
    info = simulation.run(sender, scenario())
    assert taker.disk.list("snapshots") == [info.path.removeprefix("snapshots/")]
    assert [offer.generation for _, offer in taker.arrived] == [6]
