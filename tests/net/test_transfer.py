"""Snapshots between two machines on a virtual loop: what arrives, and what is done about a transfer that goes wrong."""

from __future__ import annotations

import asyncio
from random import Random

import msgspec
import pytest

from quorate.net.connection import Direction
from quorate.net.handshake import Handshake, LocalIdentity
from quorate.net.listener import PeerListener
from quorate.net.transfer import Offer, TransferFailed, TransferReceiver, send_snapshot
from quorate.storage.snapshots import SnapshotInfo, Snapshots
from tests.support.memory_disk import MemoryDisk
from tests.support.virtual_loop import VirtualLoop

SENDER, TAKER = "10.0.0.1", "10.0.0.2"
PORT = 7400
SLICES = [Random(number).randbytes(400_000) for number in range(5)]


def handshake(node: int) -> Handshake:
    local = LocalIdentity("orders", "raft", node, f"{node:032x}", "")
    return Handshake(local, frozenset({0, 1}), lambda peer, incarnation: None)


class Taker:
    """A node that takes snapshots of group 1, and nothing else."""

    def __init__(self, service: str = "zookeeper") -> None:
        self.disk = MemoryDisk()
        self.snapshots = Snapshots(self.disk)
        self.arrived: list[tuple[int, Offer]] = []
        transfers = TransferReceiver(self.snapshots, {1: service}, self._arrived)
        self.listener = PeerListener(handshake(1), self, transfers, msgspec.msgpack.decode, 1 << 20)

    async def _arrived(self, peer: int, offer: Offer) -> None:
        self.arrived.append((peer, offer))

    def received(self, peer: int, items: list[object]) -> None:
        raise AssertionError("no messages here")

    def connected(self, peer: int) -> None:
        raise AssertionError("no messages here")

    def lost(self, peer: int, direction: Direction) -> None:
        raise AssertionError("no messages here")


def start_taker(loop: VirtualLoop, service: str = "zookeeper") -> Taker:
    async def begin() -> Taker:
        taker = Taker(service)
        await taker.listener.start(TAKER, PORT)
        return taker

    with loop.machine(TAKER):
        taker: Taker = loop.run_until_complete(begin())
        return taker


async def write(snapshots: Snapshots, position: int = 7) -> SnapshotInfo:
    writer = snapshots.create(1, position, 3, "zookeeper")
    for slice_ in SLICES:
        await writer.write(slice_)
    return await writer.finish()


async def send(snapshots: Snapshots, info: SnapshotInfo, generation: int = 5) -> None:
    await send_snapshot(handshake(0), (TAKER, PORT), 1, snapshots, info, 1, generation)


def test_a_snapshot_arrives_whole() -> None:
    loop = VirtualLoop()
    taker = start_taker(loop)
    source = Snapshots(MemoryDisk())
    with loop.machine(SENDER):
        info = loop.run_until_complete(write(source))
        loop.run_until_complete(send(source, info))
    assert [(peer, offer.position, offer.generation) for peer, offer in taker.arrived] == [(0, 7, 5)]
    assert list(taker.snapshots.open(info)) == SLICES


def test_a_snapshot_arrives_although_a_newer_one_replaces_it_meanwhile() -> None:
    loop = VirtualLoop()
    taker = start_taker(loop)
    source = Snapshots(MemoryDisk())

    async def scenario() -> SnapshotInfo:
        info = await write(source)
        sending = asyncio.get_running_loop().create_task(send(source, info))
        while not taker.disk.list("snapshots"):
            await asyncio.wait([sending], timeout=0.001)
        newer = await write(source, 8)
        source.remove_older(1, newer.position)
        await sending
        return info

    with loop.machine(SENDER):
        info = loop.run_until_complete(scenario())
    assert list(taker.snapshots.open(info)) == SLICES


def test_a_snapshot_that_is_gone_before_it_is_sent_fails_the_transfer() -> None:
    loop = VirtualLoop()
    start_taker(loop)
    source = Snapshots(MemoryDisk())

    async def scenario() -> None:
        info = await write(source)
        source.remove_older(1, info.position + 1)
        with pytest.raises(TransferFailed, match="cannot be opened"):
            await send(source, info)

    with loop.machine(SENDER):
        loop.run_until_complete(scenario())
