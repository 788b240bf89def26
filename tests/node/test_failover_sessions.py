"""Sessions of whole simulated nodes: who ends them, and when, after rare changes of the leader."""

from __future__ import annotations

import asyncio
import dataclasses
from random import Random

import pytest

from quorate.client.zookeeper import ZooKeeperClient
from quorate.node.config import LimitsConfig, NodeConfig, TimingConfig
from quorate.node.group import ReplicatedGroup
from quorate.node.snapshotting import Snapshotter
from quorate.services.zookeeper.protocol import PING_XID, Create, Op
from quorate.storage.snapshots import SnapshotInfo
from tests.node.whole_nodes import WholeNodes, endpoint_of
from tests.services.zookeeper.raw import Raw

SMALL_TAIL = LimitsConfig(max_tail_bytes=64 << 10)
LOADING_S = 6.0


def slow_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a snapshot from a peer takes as long as that of a big store would."""
    feed = Snapshotter._feed

    async def slowly(self: Snapshotter, group: ReplicatedGroup, info: SnapshotInfo) -> object:
        if group.is_installing():
            await asyncio.sleep(LOADING_S)
        return await feed(self, group, info)

    monkeypatch.setattr(Snapshotter, "_feed", slowly)


def write_much(cluster: WholeNodes, node: int) -> None:
    async def work() -> None:
        async with ZooKeeperClient([endpoint_of(node)], Random(1), timeout_ms=4_000) as client:
            await client.create("/big")
            for _ in range(600):
                await client.set("/big", bytes(1_000))

    cluster.run(work())


def test_a_leader_elected_while_it_loads_a_snapshot_ends_the_sessions_that_the_snapshot_brings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = WholeNodes(3, seed=1, limits=SMALL_TAIL)
    leader = cluster.start_all()
    loading, lagging = (node for node in cluster.nodes if node != leader)
    cluster.lose_power(loading)

    async def hold_lock() -> Raw:
        holder = await Raw.open(endpoint_of(leader), timeout_ms=4_000)
        await holder.call(1, Op.CREATE, Create(b"/lock", b"", flags=1).encode())
        return holder

    holder = cluster.run(hold_lock())
    write_much(cluster, leader)
    slow_installs(monkeypatch)
    cluster.start(loading)

    def group_is_installing() -> bool | None:
        return (loading in cluster.nodes and cluster.nodes[loading]._groups[1].is_installing()) or None

    cluster.wait_for(group_is_installing)
    # One more write that the lagging node misses: so the node that still loads must win.
    cluster.lose_power(lagging)

    async def write_one_more() -> None:
        raw = await Raw.open(endpoint_of(leader))
        assert (await raw.call(1, Op.CREATE, Create(b"/more", b"").encode()))[0] == 0

    cluster.run(write_one_more())
    holder.close()
    cluster.lose_power(leader)
    cluster.start_and_wait(lagging)
    assert cluster.wait_for_leader() == loading
    assert group_is_installing()
    cluster.wait_for(lambda: group_is_installing() is None or None)
    assert cluster.stores[loading].tree.get(b"/lock") is not None
    cluster.pass_time(6)
    assert cluster.leader() == loading
    assert cluster.stores[loading].tree.get(b"/lock") is None
    cluster.close()


@pytest.mark.parametrize(("election_timeout_ms", "heartbeat_interval_ms"), [(6_000, 2_000), (60_000, 20_000)])
def test_pings_are_answered_at_once_also_with_slow_heartbeats(
    monkeypatch: pytest.MonkeyPatch, election_timeout_ms: int, heartbeat_interval_ms: int
) -> None:
    cluster = WholeNodes(3, seed=1)
    usual = cluster.config

    def slower(node: int) -> NodeConfig:
        return dataclasses.replace(usual(node), timing=TimingConfig(election_timeout_ms, heartbeat_interval_ms))

    monkeypatch.setattr(cluster, "config", slower)
    leader = cluster.start_all(limit_s=300)

    async def ping_now_and_then() -> None:
        raw = await Raw.open(endpoint_of(leader), timeout_ms=4_000)
        for _ in range(6):
            raw.send(PING_XID, Op.PING)
            asked = cluster.simulation.now_s
            assert (await raw.reply())[0] == PING_XID
            assert cluster.simulation.now_s - asked < 0.1
            await asyncio.sleep(1.3)

    cluster.run(ping_now_and_then())
    cluster.close()
