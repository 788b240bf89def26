"""Whole simulated nodes, in the rare orders of things that a review once proved wrong."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from quorate.client.zookeeper import ZooKeeperClient
from quorate.client.zookeeper_errors import ServerError
from quorate.consensus.raft.core import Core
from quorate.node.config import LimitsConfig
from quorate.node.snapshotting import Snapshotter
from quorate.services.zookeeper.door import ZooKeeperDoor
from quorate.storage.log import Log
from quorate.storage.snapshots import Receiver, SnapshotWriter
from tests.node.whole_nodes import PROTOCOL, WholeNodes, endpoint_of

SMALL_TAIL = LimitsConfig(max_tail_bytes=64 << 10, max_message_bytes=16 << 10)


def client_of(cluster: WholeNodes, *nodes: int) -> ZooKeeperClient:
    hosts = [endpoint_of(node) for node in nodes or cluster.nodes]
    return ZooKeeperClient(hosts, Random(1), timeout_ms=4_000)


def write_much(cluster: WholeNodes, node: int, count: int) -> None:
    async def work() -> None:
        async with client_of(cluster, node) as client:
            if await client.exists("/big") is None:
                await client.create("/big")
            for _ in range(count):
                await client.set("/big", bytes(1_000))

    cluster.run(work())


def started(
    count: int = 3, limits: LimitsConfig | None = None, protocol: str = PROTOCOL
) -> tuple[WholeNodes, int, int]:
    """A cluster, its leader and one follower."""
    cluster = WholeNodes(count, seed=1, limits=limits, protocol=protocol)
    leader = cluster.start_all()
    return cluster, leader, next((node for node in cluster.nodes if node != leader), leader)


def slow_installs(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Loading takes as long as that of a big store would."""
    install = Snapshotter._feed

    async def slowly(self: Snapshotter, *arguments: object) -> object:
        await asyncio.sleep(seconds)
        return await install(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Snapshotter, "_feed", slowly)


def caught_up(cluster: WholeNodes, node: int, leader: int) -> None:
    cluster.wait_for(lambda: cluster.applied(node) >= cluster.applied(leader) or None, limit_s=60)
    assert not cluster.nodes[node].failed.done()
    assert cluster.stores[node].digest() == cluster.stores[leader].digest()


def test_a_newer_snapshot_arrives_while_an_older_one_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, leader, away = started(limits=SMALL_TAIL)
    cluster.lose_power(away)
    write_much(cluster, leader, 600)
    slow_installs(monkeypatch, 4.0)
    finish = Receiver.finish

    async def slowly(self: Receiver) -> object:
        # So that the leader has compacted beyond this snapshot when it hears that it arrived.
        await asyncio.sleep(1.0)
        return await finish(self)

    monkeypatch.setattr(Receiver, "finish", slowly)
    cluster.start_and_wait(away)
    cluster.pass_time(0.5)
    write_much(cluster, leader, 600)
    cluster.pass_time(2.0)
    write_much(cluster, leader, 100)
    cluster.pass_time(12.0)
    caught_up(cluster, away, leader)
    cluster.close()


def test_an_own_snapshot_gives_way_to_one_from_a_peer() -> None:
    cluster, leader, away = started(limits=SMALL_TAIL)
    write_much(cluster, leader, 60)
    cluster.pass_time(1)
    cluster.lose_power(away)
    write_much(cluster, leader, 600)
    node = cluster.start_and_wait(away)
    cluster.disks[away].sync_s = (0.5, 0.5)
    for _ in range(40):
        cluster.run(_call(node.start_snapshots))
        cluster.pass_time(0.05)
    caught_up(cluster, away, leader)
    cluster.close()


async def _call(action: object) -> object:
    return action()  # type: ignore[operator]


def test_a_snapshot_that_finds_no_room_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, leader, _ = started(1)
    write_much(cluster, leader, 20)
    disk = cluster.disks[leader]
    node = cluster.nodes[leader]

    def no_room(self: SnapshotWriter, *arguments: object) -> None:
        raise OSError(24, "too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(SnapshotWriter, "__init__", no_room)
        cluster.run(_call(node.start_snapshots))
        cluster.pass_time(1)
    assert node.status()["groups"][0]["snapshot_position"] == 0
    cluster.run(_call(node.start_snapshots))
    cluster.wait_for(lambda: node.status()["groups"][0]["snapshot_position"] or None)
    assert not node.failed.done()
    assert [name for name in disk.list("snapshots") if name.endswith(".partial")] == []
    cluster.close()


def test_a_follower_without_room_refuses_and_does_not_leave_clients_waiting() -> None:
    cluster, leader, follower = started()

    async def connect() -> ZooKeeperClient:
        client = client_of(cluster, follower)
        await client.start()
        return client

    client = cluster.run(connect())
    disk = cluster.disks[follower]
    disk.capacity_bytes = disk.used_bytes()
    write_much(cluster, leader, 400)

    async def write() -> None:
        async with asyncio.timeout(10):
            with pytest.raises(ServerError) as refused:
                await client.create("/x")
            assert refused.value.code == -1

    cluster.run(write())
    disk.capacity_bytes = None
    cluster.pass_time(5)

    async def write_again() -> None:
        await client.create("/x")
        await client.close()

    cluster.run(write_again())
    caught_up(cluster, follower, leader)
    cluster.close()


def test_peers_may_speak_while_a_node_is_still_opening_its_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, _, away = started()
    cluster.lose_power(away)
    opened = ZooKeeperDoor.start

    async def slowly(self: ZooKeeperDoor) -> None:
        await asyncio.sleep(1)
        await opened(self)

    monkeypatch.setattr(ZooKeeperDoor, "start", slowly)
    node = cluster.start_and_wait(away)
    cluster.pass_time(1)
    assert not node.failed.done()
    cluster.close()


def test_after_a_bug_a_node_vouches_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, leader, follower = started(protocol="raft")
    commit = Core.commit
    struck = False

    def stumble(self: Core, position: int) -> bool:
        nonlocal struck
        if self.node_id == follower and self._log_changed and not struck:
            struck = True
            raise AssertionError("a bug of ours, after the log in memory was changed")
        return commit(self, position)

    monkeypatch.setattr(Core, "commit", stumble)
    ended: list[tuple[int, BaseException]] = []
    cluster.on_end = lambda node, error, _: ended.append((node, error))
    write_much(cluster, leader, 5)
    (node, error) = ended.pop()
    assert (node, type(error)) == (follower, AssertionError) and not ended
    believed = cluster.nodes[leader].status()["groups"][0]["peer_positions"][str(follower)]
    disk = cluster.disks[follower]
    _, recovery = Log.open(disk, segment_bytes=1 << 16)
    positions = [entry.position for entry in recovery.groups[1].entries]
    assert positions == list(range(1, len(positions) + 1))
    assert believed <= len(positions)
    cluster.close()


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_done_of_a_pipeline_is_always_its_beginning(seed: int, power_loss: bool) -> None:
    """A leader dies under pipelined writes: of each connection's writes a prefix is done, never one behind a gap.

    The followers see a reset where its process was killed, and silence where it lost its power.
    """
    from tests.services.zookeeper.raw import Raw

    cluster = WholeNodes(3, seed)
    leader = cluster.start_all()
    follower = next(node for node in cluster.nodes if node != leader)

    async def pump(number: int, raw: Raw) -> None:
        for index in range(2_000):
            if raw.writer.is_closing() or raw.reader.at_eof() or raw.reader.exception() is not None:
                return
            raw.send_create(index + 1, b"/c%d-%06d" % (number, index))
            await asyncio.sleep(0.00005)

    async def begin() -> list[asyncio.Task[None]]:
        raws = [await Raw.open(endpoint_of(follower)) for _ in range(8)]
        loop = asyncio.get_running_loop()
        return [loop.create_task(pump(number, raw)) for number, raw in enumerate(raws)]

    pumps = cluster.run(begin())
    cluster.pass_time(0.05 + seed * 0.0013)
    cluster.kill(leader, power_loss=power_loss)
    cluster.wait_for_leader()
    cluster.pass_time(5)

    async def end() -> set[str]:
        for task in pumps:
            task.cancel()
        async with client_of(cluster) as client:
            await client.sync()
            return set(await client.get_children("/"))

    names = cluster.run(end())
    for number in range(8):
        done = sorted(int(name.split("-")[1]) for name in names if name.startswith(f"c{number}-"))
        assert done == list(range(len(done)))
    cluster.close()


@pytest.mark.parametrize("amid", ["snapshot", "kill"])
def test_an_entry_is_applied_in_pieces(amid: str) -> None:
    """Its commands take several turns of the loop, and much may come between two of them."""
    cluster, leader, follower = started()
    group = cluster.group(follower)
    assert group is not None
    seen: list[int] = []

    async def write() -> None:
        async with client_of(cluster, leader) as client:
            await client.create("/counted")
            await asyncio.gather(*(client.set("/counted", b"%d" % number) for number in range(100)))

    async def look() -> None:
        while not group.is_amid_entry():  # noqa: ASYNC110 - it is so for one turn only
            await asyncio.sleep(0)
        seen.append(cluster.stores[follower].zxid)
        if amid == "snapshot":
            assert cluster.nodes[follower].start_snapshot(group)

    cluster.simulation.start(cluster.machine(follower), look())
    cluster.run(write())
    assert 0 < seen[0] < cluster.stores[leader].zxid
    cluster.wait_for(lambda: amid == "kill" or group.snapshot_position > 0 or None)
    cluster.kill(follower)
    cluster.start_and_wait(follower)
    caught_up(cluster, follower, leader)
