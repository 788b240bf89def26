"""Damaged, foreign, forgotten and full data folders, with real nodes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.exceptions import ConnectionLoss, SystemZookeeperError

from quorate.storage.log_blocks import BLOCK_HEADER_BYTES, Block
from quorate.storage.log_segments import walk
from tests.processes.cluster import SMALL_STORAGE, Cluster, Node, eventually, pause
from tests.processes.conftest import MakeCluster

pytestmark = pytest.mark.processes

EXIT_DAMAGED_DATA, EXIT_WRONG_CONFIGURATION = 74, 78


def fill(client: Any, name: str, count: int) -> None:
    """`count` znodes of 500 bytes each."""
    for result in [client.create_async(f"/{name}-{i:04d}", b"x" * 500) for i in range(count)]:
        result.get(60)


def flip(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x55
    path.write_bytes(data)


def blocks_of(segment: Path) -> list[Block]:
    sequence = int(segment.name.partition(".")[0])
    return [block for block in walk(segment.read_bytes(), sequence) if isinstance(block, Block)]


def newest_begun(node: Node) -> Path:
    """The segment that the node was writing."""
    return next(segment for segment in reversed(node.segments()) if blocks_of(segment))


def healed(cluster: Cluster, node: Node) -> str:
    """Start a node that must set its data aside, and wait until it votes again; returns what it logged about it."""
    since = len(node.log_text())
    cluster.start_node(node)
    line = node.wait_for_log("it was set aside in damaged-", since)
    cluster.wait_settled([0, 1, 2])
    assert (node.data / "damaged-1" / "WHY.txt").exists()
    return line


# --- damage -----------------------------------------------------------------------------------


def test_a_node_with_a_flipped_byte_in_the_middle_of_its_log_sets_it_aside_and_is_refilled(cluster: Cluster) -> None:
    client = cluster.client()
    fill(client, "before", 50)
    node = cluster.followers()[0]
    node.kill()
    [segment] = [segment for segment in node.segments() if blocks_of(segment)]
    blocks = blocks_of(segment)
    damaged = blocks[len(blocks) // 2]
    flip(segment, damaged.offset + BLOCK_HEADER_BYTES)
    inspected = subprocess.run(
        [sys.executable, "-m", "quorate", "log", "inspect", os.fspath(node.data)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert inspected.returncode != 0
    assert str(damaged.offset) in inspected.stdout + inspected.stderr
    assert f"log/{segment.name} at offset {damaged.offset}" in healed(cluster, node)
    again = cluster.client([node])
    again.sync("/")
    assert len([name for name in again.get_children("/") if name.startswith("before")]) == 50


def test_the_only_voter_touches_nothing_that_is_damaged(make_cluster: MakeCluster) -> None:
    """There is nobody to refill it from: the message stays the same until somebody acts."""
    cluster = make_cluster(nodes=1).start()
    fill(cluster.client(), "before", 20)
    node = cluster.nodes[0]
    node.kill()
    segment = newest_begun(node)
    damaged = blocks_of(segment)[2]
    flip(segment, damaged.offset + BLOCK_HEADER_BYTES)
    for _ in range(2):
        since = len(node.log_text())
        cluster.start_node(node)
        assert node.exit_code() == EXIT_DAMAGED_DATA
        text = node.log_text()[since:]
        assert f"log/{segment.name} at offset {damaged.offset}" in text
        assert "neither votes nor serves" in text
    assert not (node.data / "damaged-1").exists()


def test_damage_of_the_newest_block_after_an_orderly_stop_is_no_torn_tail(cluster: Cluster) -> None:
    fill(cluster.client(), "before", 20)
    node = cluster.followers()[0]
    assert node.stop() == 0
    segment = newest_begun(node)
    last = [block for block in blocks_of(segment) if block.body][-1]
    flip(segment, last.offset + BLOCK_HEADER_BYTES)
    assert f"log/{segment.name} at offset {last.offset}" in healed(cluster, node)


def test_a_log_that_was_cut_off_is_set_aside(cluster: Cluster) -> None:
    fill(cluster.client(), "before", 20)
    node = cluster.followers()[0]
    node.kill()
    segment = newest_begun(node)
    os.truncate(segment, blocks_of(segment)[2].offset + 10)
    assert f"log/{segment.name} at offset" in healed(cluster, node)


@pytest.mark.parametrize("damage", ["half a block more", "newest block flipped", "newest block zeroed"])
def test_a_torn_tail_is_cut_and_reported_and_the_node_catches_up(cluster: Cluster, damage: str) -> None:
    """A write that a crash cut off; and what cannot be told from it, the newest block damaged after its sync."""
    client = cluster.client()
    fill(client, "before", 20)
    node = cluster.followers()[0]
    node.kill()
    segment = newest_begun(node)
    data = bytearray(segment.read_bytes())
    last = blocks_of(segment)[-1]
    cut_at = last.offset
    if damage == "half a block more":
        cut_at = last.end
        data[last.end : last.end + 60] = data[last.offset : last.offset + 60]
    elif damage == "newest block flipped":
        data[last.offset + BLOCK_HEADER_BYTES] ^= 0x55
    else:
        data[last.offset + BLOCK_HEADER_BYTES : last.end] = bytes(last.end - last.offset - BLOCK_HEADER_BYTES)
    segment.write_bytes(data)
    fill(client, "while-down", 5)
    cluster.start_node(node)
    line = node.wait_for_log("cut a torn tail")
    assert f"log/{segment.name} at offset {cut_at}" in line
    cluster.wait_ready()
    again = cluster.client([node])
    again.sync("/")
    assert len([name for name in again.get_children("/") if name.startswith(("before", "while-down"))]) == 25


def test_a_damaged_snapshot_is_set_aside(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(settings=SMALL_STORAGE).start()
    client = cluster.client()
    fill(client, "before", 400)
    node = cluster.followers()[0]
    eventually(lambda: node.require_status().snapshot_position > 0, "a snapshot is taken")
    assert node.stop() == 0
    [snapshot] = sorted((node.data / "snapshots").glob("*.snapshot"))[-1:]
    flip(snapshot, snapshot.stat().st_size // 2)
    assert f"snapshots/{snapshot.name} at offset" in healed(cluster, node)
    fill(client, "after", 10)


def test_a_missing_snapshot_is_noticed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(settings=SMALL_STORAGE).start()
    fill(cluster.client(), "before", 400)
    node = cluster.followers()[0]
    eventually(lambda: node.require_status().snapshot_position > 0, "a snapshot is taken")
    assert node.stop() == 0
    shutil.rmtree(node.data / "snapshots")
    assert "is missing from snapshots/" in healed(cluster, node)


def test_a_log_that_is_gone_is_refilled(cluster: Cluster) -> None:
    node = cluster.followers()[0]
    assert node.stop() == 0
    shutil.rmtree(node.data / "log")
    assert "its log is gone" in healed(cluster, node)


def test_a_damaged_identity_is_set_aside(cluster: Cluster) -> None:
    node = cluster.followers()[0]
    assert node.stop() == 0
    identity = node.data / "identity.json"
    identity.write_text(identity.read_text().replace('"node": ', '"node": 1'))
    assert "identity.json is damaged" in healed(cluster, node)


# --- whose data ---------------------------------------------------------------------------------


def test_a_node_refuses_the_data_folder_of_another_node(cluster: Cluster) -> None:
    one, other = cluster.followers()
    for node in (one, other):
        assert node.stop() == 0
    shutil.rmtree(one.data)
    shutil.copytree(other.data, one.data)
    cluster.start_node(one)
    assert one.exit_code() == EXIT_WRONG_CONFIGURATION
    assert f"belongs to node {other.node}, not node {one.node}" in one.log_text()


def test_a_node_refuses_the_data_folder_of_another_cluster(make_cluster: MakeCluster, tmp_path: Path) -> None:
    former = make_cluster(nodes=1, name="former").start()
    assert former.nodes[0].stop() == 0
    cluster = make_cluster(nodes=1, name="latter", data_folders={0: former.nodes[0].data})
    cluster.start_node(cluster.nodes[0])
    assert cluster.nodes[0].exit_code() == EXIT_WRONG_CONFIGURATION
    assert "belongs to cluster 'former', not 'latter'" in cluster.nodes[0].log_text()


def test_a_data_folder_serves_one_process(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    second = Node(node.config, node.folder / "second", ())
    cluster.start_node(second)
    assert second.exit_code() == EXIT_WRONG_CONFIGURATION
    assert "in use by another process" in second.log_text()


def members_version(node: Node) -> int:
    return int(node.require_status().raw["membership"]["version"])


def test_a_wiped_folder_under_the_old_name_does_not_vote_before_it_is_refilled(cluster: Cluster) -> None:
    client = cluster.client()
    client.create("/kept", b"1")
    wiped, other = cluster.followers()
    leader = cluster.leader()
    # Without `other` a majority would need the vote of the node that has forgotten its votes.
    other.kill()
    wiped.kill()
    shutil.rmtree(wiped.data)
    eventually(lambda: leader.require_status().leader is None, "the leader steps down without a quorum")
    cluster.start_node(wiped)
    wiped.wait_for_log("it refused us")
    pause(3)
    assert leader.require_status().leader is None
    assert wiped.require_status().leader is None
    before = members_version(leader)
    cluster.start_node(other)
    # A learner first, then a voter.  Until somebody leads, the old members still look settled.
    eventually(lambda: members_version(leader) >= before + 2, "the members have taken the new folder for a voter's")
    cluster.wait_settled([0, 1, 2])
    client.retry(client.set, "/kept", b"2")
    assert client.retry(client.get, "/kept")[0] == b"2"
    # It votes again: with it alone, the leader goes on.
    other.kill()
    cluster.leader()
    assert client.retry(client.get, "/kept")[0] == b"2"


# --- full disks -----------------------------------------------------------------------------------

TMPFS_BYTES = 1 << 20


class SmallDisk:
    """A file system of one MiB and a file that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[list[SmallDisk]]:
    disks: list[SmallDisk] = []
    try:
        for number in range(3):
            folder = tmp_path / f"disk-{number}"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(folder)]
            mounted = subprocess.run(command, capture_output=True, text=True, check=False)
            if mounted.returncode:
                pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
            disks.append(SmallDisk(folder))
        yield disks
    finally:
        for disk in disks:
            subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


def on_small_disks(make_cluster: MakeCluster, disks: list[SmallDisk]) -> Cluster:
    folders = {number: disk.folder / "data" for number, disk in enumerate(disks)}
    return make_cluster(settings=SMALL_STORAGE, data_folders=folders).start()


def write_until_refused(client: Any, disks: list[SmallDisk]) -> dict[str, bytes]:
    """Create znodes until one is refused for a full disk; returns those that were acknowledged.

    The outcome of a write that is under way in the very moment in which a disk becomes full may
    be unknown, and its connection is closed.  No session can be moved to another connection
    while the disks are full, so the disks get room then, and are filled anew.
    """
    written: dict[str, bytes] = {}
    for number in range(3000):
        if number % 20 == 0:
            for disk in disks:
                disk.fill()
        path, data = f"/full-{number:04d}", b"%d" % number * 100
        try:
            client.create(path, data)
        except SystemZookeeperError:
            return written
        except ConnectionLoss:
            for disk in disks:
                disk.make_room()
            client.retry(client.sync, "/")
            continue
        written[path] = data
    raise AssertionError("the disks are full, and writes still go on")


def test_full_disks_refuse_writes_and_serve_reads_until_there_is_room(
    small_disks: list[SmallDisk], make_cluster: MakeCluster
) -> None:
    cluster = on_small_disks(make_cluster, small_disks)
    states: list[Any] = []
    client = cluster.client()
    client.create("/before", b"1")
    written = write_until_refused(client, small_disks)
    assert written, "something fits before the disks are full"
    client.add_listener(states.append)

    # Clear, repeatable, on a connection that stays; reads go on, on every node.
    for _ in range(3):
        with pytest.raises(SystemZookeeperError):
            client.set("/before", b"2")
        assert client.get("/before")[0] == b"1"
    client.sync("/before")
    assert states == [], "the connection stays"
    leader = cluster.leader()
    assert leader.require_status().log_full
    leader.wait_for_log("the disk is full")

    # A node starts on a full disk, and a full disk does not keep the others from electing: votes still fit.
    # That leader may not be ready: it cannot commit while the one follower left has no room for what it lacks.
    leader.kill()
    others = [node for node in cluster.nodes if node is not leader]
    eventually(
        lambda: len({node.require_status().leader for node in others} - {leader.node, None}) == 1,
        "the others follow a new leader",
    )
    cluster.start_node(leader)
    eventually(lambda: leader.require_status().leader is not None, "the former leader follows the new one")

    for disk in small_disks:
        disk.make_room()
    cluster.wait_ready()
    eventually(lambda: not any(node.require_status().log_full for node in cluster.nodes), "there is room again")
    client.retry(client.set, "/before", b"2")
    for node in cluster.nodes:
        again = cluster.client([node])
        again.sync("/")
        found = {path: again.get(path)[0] for path in written}
        assert found == written, "nothing that was acknowledged is lost"
        assert node.log_text().count("no write is taken") <= 6, "the log is not flooded"


def test_a_follower_with_a_full_disk_holds_nobody_up_and_catches_up_later(
    small_disks: list[SmallDisk], make_cluster: MakeCluster
) -> None:
    cluster = on_small_disks(make_cluster, small_disks)
    poor = cluster.followers()[0]
    disk = small_disks[poor.node]
    client = cluster.client([node for node in cluster.nodes if node is not poor])
    client.create("/counted", b"")
    for number in range(600):
        if number % 20 == 0:
            disk.fill()
        client.set("/counted", b"%d" % number * 100)
    eventually(lambda: poor.require_status().log_full, "the follower's disk is full")
    poor.wait_for_log("the disk is full")
    assert poor.require_status().commit_position < cluster.leader().require_status().commit_position

    disk.make_room()
    cluster.wait_ready()
    assert poor.log_text().count("no write is taken") <= 6, "the log is not flooded"
    late = cluster.client([poor])
    late.sync("/")
    assert late.get("/counted")[0] == b"599" * 100


def test_a_leader_whose_followers_disks_are_full_refuses_writes_too(
    small_disks: list[SmallDisk], make_cluster: MakeCluster
) -> None:
    """No quorum can hold another entry, although the leader could: its clients must not wait for ever."""
    cluster = on_small_disks(make_cluster, small_disks)
    leader = cluster.leader()
    poor = [disk for disk in small_disks if disk is not small_disks[leader.node]]
    client = cluster.client([leader])
    states: list[Any] = []
    client.add_listener(states.append)
    client.create("/before", b"1")
    written = write_until_refused(client, poor)
    for _ in range(3):
        with pytest.raises(SystemZookeeperError):
            client.set("/before", b"2")
        assert client.get("/before")[0] == b"1"
    assert states == [], "the connection stays"
    assert not leader.require_status().log_full

    small_disks[cluster.followers()[0].node].make_room()
    eventually(lambda: succeeds(client, "/before"), "one follower with room is enough for writes")
    for disk in poor:
        disk.make_room()
    cluster.wait_ready()
    for node in cluster.nodes:
        again = cluster.client([node])
        again.sync("/")
        assert {path: again.get(path)[0] for path in written} == written, "nothing that was acknowledged is lost"


def succeeds(client: Any, path: str) -> bool:
    try:
        client.set(path, b"2")
    except SystemZookeeperError:
        return False
    return True
