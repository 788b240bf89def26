"""Snapshots of whole nodes: all groups are snapshotted, and a file that has rotted is found out and replaced."""

from __future__ import annotations

import pytest

from quorate.client.zookeeper import ZooKeeperClient
from quorate.node.node import Node
from quorate.storage.disk import DiskFull
from quorate.storage.snapshots import CorruptSnapshot, SnapshotWriter
from tests.node.whole_nodes import WholeNodes, endpoint_of


def write_some(cluster: WholeNodes, node: int, name: str) -> None:
    async def write() -> None:
        client = ZooKeeperClient([endpoint_of(node)], cluster.random, 4000)
        await client.start()
        for number in range(30):
            await client.create(f"/{name}-{number}", b"x" * 200)
        client.abandon()

    cluster.run(write())


def ask_for_snapshots(cluster: WholeNodes, node: int) -> list[int]:
    """As `POST /snapshot` does; the groups that it says."""
    started: list[int] = []

    async def ask() -> None:
        started.extend(cluster.nodes[node].start_snapshots()["started"])

    cluster.run(ask())
    return started


def positions(node: Node) -> dict[int, tuple[int, int]]:
    """Per group, the positions of its snapshot and of what it has applied."""
    return {group.group_id: (group.snapshot_position, group.applied_position) for group in node.groups()}


def rot(cluster: WholeNodes, node: int, *, gone: bool) -> list[str]:
    """The node's snapshot files of its service's group are damaged or gone; their names."""
    disk = cluster.disks[node]
    names = [name for name in disk.list("snapshots") if name.startswith("1-")]
    for name in names:
        if gone:
            disk.remove(f"snapshots/{name}")
        else:
            disk.flip_bit(f"snapshots/{name}", 800)
    return names


def check_files(node: Node) -> None:
    """Every group's newest snapshot is whole, and the one that its log rests on."""
    for group in node.groups():
        info = node.newest_snapshot(group)
        assert info is not None and info.position == group.snapshot_position
        assert list(node._snapshots.open(info))


def test_every_group_is_snapshotted_one_after_another() -> None:
    cluster = WholeNodes(1)
    leader = cluster.start_all()
    cluster.pass_time(2)
    write_some(cluster, leader, "a")
    node = cluster.nodes[leader]
    before = positions(node)
    assert ask_for_snapshots(cluster, leader) == [1, 0]
    assert ask_for_snapshots(cluster, leader) == [1, 0], (
        "asked again meanwhile, nothing is forgotten and nothing done twice"
    )
    cluster.pass_time(1)
    assert positions(node) == {group_id: (applied, applied) for group_id, (_, applied) in before.items()}
    assert ask_for_snapshots(cluster, leader) == [], "they would say nothing new"
    check_files(node)
    cluster.close()


def test_what_was_asked_for_and_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = WholeNodes(1)
    leader = cluster.start_all()
    cluster.pass_time(2)
    write_some(cluster, leader, "a")
    node = cluster.nodes[leader]

    def no_room(self: SnapshotWriter, *arguments: object) -> None:
        raise DiskFull("no room")

    with monkeypatch.context() as broken:
        broken.setattr(SnapshotWriter, "__init__", no_room)
        ask_for_snapshots(cluster, leader)
        cluster.pass_time(1)
        assert all(position == 0 for position, _ in positions(node).values())
    cluster.pass_time(31)
    assert all(position > 0 for position, _ in positions(node).values())
    cluster.close()


@pytest.mark.parametrize("gone", [False, True])
def test_a_lost_folder_is_refilled_although_the_leaders_snapshots_have_rotted(
    gone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = WholeNodes(3)
    cluster.start_all()
    cluster.wait_for(lambda: cluster.settled(1) or None)
    write_some(cluster, 0, "a")
    for node in cluster.members:
        assert ask_for_snapshots(cluster, node) == [1, 0]
    cluster.pass_time(2)
    # Started again, so that what the snapshots hold is no longer in the replicas' tails.
    for node in cluster.members:
        cluster.kill(node)
    leader = cluster.start_all()
    cluster.pass_time(3)
    leader = cluster.wait_for_leader()
    write_some(cluster, leader, "b")
    assert len(rot(cluster, leader, gone=gone)) == 1
    away = (leader + 1) % 3
    cluster.kill(away)
    cluster.wipe(away)
    cluster.start(away)
    cluster.wait_for(lambda: (cluster.settled(3) and away in cluster.voters()) or None)
    cluster.pass_time(1)
    assert len(cluster.store_digests()) == 1
    refused = [line for line in caplog.messages if "was not accepted" in line]
    assert len(refused) == (0 if gone else 1), "the rotten one is sent once"
    assert sum("a new snapshot is taken in its place" in line for line in caplog.messages) == 1
    check_files(cluster.nodes[leader])
    # What was written then is what a restart finds.
    cluster.kill(leader)
    cluster.start_and_wait(leader)
    cluster.wait_for(lambda: cluster.settled() or None)
    cluster.close()


def test_a_rotten_snapshot_is_replaced_although_nothing_new_was_applied() -> None:
    cluster = WholeNodes(1)
    leader = cluster.start_all()
    cluster.pass_time(2)
    write_some(cluster, leader, "a")
    ask_for_snapshots(cluster, leader)
    cluster.pass_time(1)
    node = cluster.nodes[leader]
    group = node.groups()[0]
    before = positions(node)
    good = node.newest_snapshot(group)
    assert good is not None
    cluster.run(node._snapshotter.verify(group, good))
    assert node.newest_snapshot(group) == good, "what is whole stays"
    cluster.disks[leader].flip_bit(good.path, 800)
    with pytest.raises(CorruptSnapshot):
        list(node._snapshots.open(good))
    cluster.run(node._snapshotter.verify(group, good))
    assert node.newest_snapshot(group) is None, "it is not offered any more"
    cluster.wait_for(lambda: node.newest_snapshot(group))
    assert positions(node) == before
    check_files(node)
    cluster.kill(leader)
    cluster.start_and_wait(leader)
    cluster.close()
