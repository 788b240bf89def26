"""Damaged, emptied and lost data folders: the cluster heals by itself where it can, and says what to do where not."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processes.cluster import Cluster, Node, eventually, fail, pause, quorate, succeed
from tests.processes.conftest import MakeCluster
from tests.processes.writer import Writer, check_nothing_is_lost, read_tree, wait_for_writes, written

pytestmark = pytest.mark.processes

MANY_SEGMENTS = {"storage": {"segment_bytes": 1 << 16, "snapshot_log_bytes": 64 << 20}}
"""Small files of the log, and no snapshot that would let old ones go."""
FILES = 5
"""The last two of a log's files may hold nothing yet: one is written, one is a spare."""
WRITERS = 2
WINDOW = 4
PAUSE_S = 0.005


def damage(node: Node, chance: random.Random) -> Path:
    """Flip some bytes in the middle of a full file of a log that nobody has open; returns the file."""
    segments = node.segments()
    assert len(segments) >= FILES, f"expected a file that is full: {segments}"
    segment = segments[1]
    data = bytearray(segment.read_bytes())
    for _ in range(8):
        data[len(data) // 2 + chance.randrange(256)] ^= 0xFF
    segment.write_bytes(data)
    return segment


def incarnation(cluster: Cluster, node: Node) -> str:
    members = eventually(cluster.members, "a node says who the members are")
    return next(str(member["incarnation"]) for member in members["members"] if member["node"] == node.node)


def wait_healed(cluster: Cluster, node: Node, former: str) -> None:
    """Wait until the node votes again under another incarnation, without a person's help."""
    numbers = sorted(member.node for member in cluster.nodes)
    eventually(lambda: incarnation(cluster, node) != former, f"node {node.node} is known under its new folder")
    cluster.wait_settled(numbers)


def test_a_damaged_segment_and_then_a_deleted_folder_heal_by_themselves_under_load(make_cluster: MakeCluster) -> None:
    chance = random.Random(4)
    cluster = make_cluster(settings=MANY_SEGMENTS).start()
    writers = [Writer(cluster, f"writer-{i}", WINDOW, PAUSE_S) for i in range(WRITERS)]
    with written(writers):
        damaged = cluster.followers()[0]
        eventually(lambda: len(damaged.segments()) >= FILES, "the log has several files")
        former = incarnation(cluster, damaged)
        damaged.kill()
        segment = damage(damaged, chance)
        wait_for_writes(writers)
        since = len(damaged.log_text())
        cluster.start_node(damaged)
        line = damaged.wait_for_log("set aside", since)
        assert segment.name in line and "offset" in line, line
        wait_healed(cluster, damaged, former)
        assert (damaged.data / "damaged-1").is_dir()
        wait_for_writes(writers)

        # Another one, that leads; and all of its folder.
        emptied = cluster.leader()
        if emptied is damaged:
            emptied = cluster.followers()[0]
        former = incarnation(cluster, emptied)
        emptied.kill()
        shutil.rmtree(emptied.data)
        wait_for_writes(writers)
        cluster.start_node(emptied)
        wait_healed(cluster, emptied, former)
        wait_for_writes(writers)
    check_nothing_is_lost(cluster, writers)

    # Both count again: with either of them and without the third node writes go on.
    third = next(node for node in cluster.nodes if node not in (damaged, emptied))
    third.kill()
    client = cluster.client([damaged, emptied])
    client.retry(client.create, "/decided-by-both", b"")
    cluster.start_node(third)
    cluster.wait_ready()
    assert third.require_status().raw["groups"][0]["voters"] == [0, 1, 2]
    for node in cluster.nodes:
        assert "Traceback" not in node.log_text(), node.log_text()[-4000:]


def test_a_node_that_is_damaged_again_and_again_is_refilled_each_time(make_cluster: MakeCluster) -> None:
    cluster = make_cluster().start()
    writers = [Writer(cluster, "writer-0", WINDOW, PAUSE_S)]
    with written(writers):
        for _ in range(3):
            node = cluster.leader()
            former = incarnation(cluster, node)
            node.kill()
            shutil.rmtree(node.data)
            cluster.start_node(node)
            wait_healed(cluster, node, former)
            wait_for_writes(writers)
    check_nothing_is_lost(cluster, writers)


def test_while_one_node_is_refilled_another_that_is_damaged_does_not_vote_either(make_cluster: MakeCluster) -> None:
    """A refill of many megabytes leaves the time to stop the node as a learner."""
    cluster = make_cluster(settings={"limits": {"max_tail_bytes": 1 << 16}}).start()
    client = cluster.client()
    for number in range(100):
        client.create(f"/large-{number}", bytes(500_000))
    keeper = cluster.leader()
    first, second = cluster.followers()
    for _ in range(5):
        first.kill()
        shutil.rmtree(first.data)
        cluster.start_node(first)

        def is_learner() -> bool | None:
            members = keeper.ask("/members")
            return any(m["node"] == first.node and m["refilling"] for m in members["members"]) if members else None

        eventually(is_learner, f"node {first.node} is let in as a learner", every_s=0.001)
        first.suspend()
        # It is out of the groups' voters a moment after the members say so, and does not come back while it sleeps.
        pause(1)
        groups = keeper.require_status().raw["groups"]
        if all(first.node not in [*group["voters"], *group["old_voters"]] for group in groups):
            break
        first.resume()
        cluster.wait_settled([0, 1, 2])
    else:
        pytest.skip("the refill was over each time before the node could be stopped: this machine is too fast or busy")

    second.kill()
    shutil.rmtree(second.data)
    cluster.start_node(second)
    first.resume()
    second.wait_for_log("let in")
    # Long enough for any number of elections and refills, were one possible.
    pause(4)
    for node in cluster.nodes:
        status = node.require_status()
        assert status.role != "leader", f"node {node.node} leads: {status.raw}"
        for group in status.raw["groups"]:
            assert second.node not in group["voters"] or node is not second
    why = second.require_status().raw
    assert why["state"] == "joining" and "another data folder" in why["waiting_for"], why
    answer = cluster.command("status")
    assert answer.returncode == 1 and "NO QUORUM" in answer.stdout, answer
    # The survivor knows where the others are; a node that is being refilled may not yet.
    answer = quorate("member", "list", "--endpoint", str(keeper.config.listen.admin))
    assert "no leader of the cluster's own group" in answer.stdout, answer.stdout
    assert "another data folder" in answer.stdout, answer.stdout


# --- a quorum that is gone for good ----------------------------------------------------------------


def test_recover_makes_a_cluster_of_the_survivor_that_old_members_cannot_join(make_cluster: MakeCluster) -> None:
    cluster = make_cluster().start()
    client = cluster.client()
    stat = client.retry(client.create, "/kept", b"for good", include_data=True)[1]
    client.stop()
    former_id = eventually(cluster.members, "a node says who the members are")["cluster_id"]
    survivor, returning, lost = cluster.nodes
    cluster.wait_ready()
    for node in cluster.nodes:
        node.stop()
    shutil.rmtree(lost.data)
    # This one only seems to be lost: it comes back later, from a machine that was switched on again.
    kept_away = returning.data.with_name("kept-away")
    returning.data.rename(kept_away)

    succeed(recover(survivor))
    cluster.start_node(survivor)
    cluster.has_left(returning)
    cluster.has_left(lost)
    cluster.wait_settled([survivor.node])
    members = eventually(cluster.members, "the survivor says who the members are")
    assert members["cluster_id"] not in (former_id, "", None)
    alone = cluster.client([survivor])
    assert alone.get("/kept") == (b"for good", stat)
    alone.create("/later", b"")

    # The old member, with all that it knew, is no part of this.
    kept_away.rename(returning.data)
    cluster.start_node(returning)
    pause(3)
    after = eventually(cluster.members, "the survivor says who the members are")
    assert [member["node"] for member in after["members"]] == [survivor.node]
    assert after["version"] == members["version"]
    if returning.runs():
        assert returning.require_status().role != "leader"
        returning.wait_for_log("cluster")
    alone.create("/later-still", b"")
    returning.kill()

    # With new nodes it becomes a cluster again that bears a failure.
    for number in (7, 8):
        node = cluster.new_node(number)
        cluster.start_node(node)
        succeed(cluster.command("member", "add", str(number), node.peer))
        cluster.wait_until_it_came(number)
        cluster.wait_settled(sorted(n.node for n in cluster.nodes if n is not node), [number])
        succeed(cluster.command("member", "promote", str(number), "--force"))
    cluster.wait_settled([survivor.node, 7, 8])
    assert cluster.client([cluster.node(8)]).get("/kept") == (b"for good", stat)


def recover(node: Node, *options: str) -> subprocess.CompletedProcess[str]:
    return quorate("recover", "--data", str(node.data), "--yes", *options)


# --- backups ---------------------------------------------------------------------------------------


def test_a_backup_taken_under_load_becomes_a_new_cluster(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster().start()
    writers = [Writer(cluster, f"writer-{i}", WINDOW, PAUSE_S) for i in range(WRITERS)]
    backup = tmp_path / "backup"
    client = cluster.client()
    for number in range(300):
        client.create(f"/before-{number}", b"x" * 1000)
    with written(writers):
        wait_for_writes(writers)
        succeed(cluster.command("snapshot", "save", str(backup)))
        wait_for_writes(writers)
    told = succeed(quorate("snapshot", "inspect", str(backup)))
    members = eventually(cluster.members, "a node says who the members are")
    assert members["cluster_id"] in told
    held = read_tree(cluster, cluster.nodes[0])
    check_nothing_is_lost(cluster, writers)

    restored = make_cluster(nodes=1, name=cluster.name)
    [node] = restored.nodes
    refuses_damaged(backup, node, tmp_path)
    succeed(restore(backup, node))
    restored.start()
    found = read_tree(restored, node)
    for path in held:
        if path.startswith("/before-"):
            assert found[path] == held[path]
    # Everything else is as it was at one moment: a part of what came later, and nothing else.
    assert {path for path in found if path not in held} == set()
    again = eventually(restored.members, "the restored node says who the members are")
    assert again["cluster_id"] not in (members["cluster_id"], "", None)

    # Once more into the same folder is refused, and changes nothing.
    node.stop()
    before = files(node.data)
    fail(restore(backup, node))
    assert files(node.data) == before


def restore(backup: Path, node: Node) -> subprocess.CompletedProcess[str]:
    where = ("--data", str(node.data), "--node", str(node.node), "--peer", node.peer)
    return quorate("snapshot", "restore", str(backup), *where)


def refuses_damaged(backup: Path, node: Node, folder: Path) -> None:
    """A backup with a flipped bit, one that is cut off and one that is none are refused, and nothing is changed."""
    whole = backup.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    cases: Sequence[tuple[str, bytes]] = (
        ("flipped", bytes(flipped)),
        ("cut", whole[: len(whole) * 2 // 3]),
        ("longer", whole + b"x"),
        ("foreign", b"not a backup" * 100),
        ("empty", b""),
    )
    before = files(node.data)
    for name, content in cases:
        damaged = folder / name
        damaged.write_bytes(content)
        for answer in (quorate("snapshot", "inspect", str(damaged)), restore(damaged, node)):
            assert str(damaged) in fail(answer), name
        assert files(node.data) == before, name


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds, but for the lock that whoever opens it leaves behind."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if "lock" not in name}
