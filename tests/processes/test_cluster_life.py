"""What a cluster of real processes does when nodes stop, start, pause, fall behind and lose their sessions."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from kazoo.exceptions import ConnectionLoss

from tests.processes.cluster import SMALL_STORAGE, Cluster, eventually, pause, running
from tests.processes.conftest import MakeCluster
from tests.processes.raw_client import EPHEMERAL, RawClient, create_body, get_data_body

pytestmark = pytest.mark.processes

NO_NODE, SESSION_MOVED = -101, -118


def quorate_status(cluster: Cluster, node: int, *options: str) -> subprocess.CompletedProcess[str]:
    endpoint = str(cluster.nodes[node].config.listen.admin)
    command = [sys.executable, "-m", "quorate", "status", "--endpoint", endpoint, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_nodes_that_are_asked_to_stop_do_so_cleanly_and_find_their_data_again(cluster: Cluster) -> None:
    client = cluster.client()
    client.create("/kept", b"for good")
    stat = client.get("/kept")[1]
    client.stop()
    codes = [
        node.stop(number)
        for node, number in zip(cluster.nodes, (signal.SIGTERM, signal.SIGINT, signal.SIGTERM), strict=True)
    ]
    assert codes == [0, 0, 0]
    for node in cluster.nodes:
        assert "stopping" in node.log_text()
        assert "Traceback" not in node.log_text()
    cluster.start()
    for node in cluster.nodes:
        assert cluster.client([node]).get("/kept") == (b"for good", stat)
        assert "torn tail" not in node.log_text(), "an orderly stop leaves no torn tail"


def test_one_node_alone_is_a_cluster(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=1).start()
    [node] = cluster.nodes
    client = cluster.client()
    client.create("/alone", b"1")
    node.kill()
    cluster.start()
    eventually(lambda: client.connected, "the client is connected again")
    version = client.retry(client.set, "/alone", b"2").version
    assert client.retry(client.get, "/alone")[0] == b"2"
    assert version in (1, 2)
    assert quorate_status(cluster, 0).returncode == 0


def test_status_tells_by_its_exit_code_whether_there_is_a_quorum(cluster: Cluster) -> None:
    leader = cluster.leader()
    answer = quorate_status(cluster, leader.node, "--json")
    assert answer.returncode == 0, answer
    assert json.loads(answer.stdout)["services"]["zookeeper"]["leader"] == leader.node

    followers = cluster.followers()
    followers[0].kill()
    answer = quorate_status(cluster, leader.node)
    assert answer.returncode == 0, answer
    assert "unreachable" in answer.stdout

    followers[1].kill()
    # A leader without a quorum notices it after an election timeout at the latest.
    answer = eventually(
        lambda: found if (found := quorate_status(cluster, leader.node)).returncode else None, "no quorum"
    )
    assert answer.returncode == 1
    assert "NO QUORUM" in answer.stdout

    leader.kill()
    assert quorate_status(cluster, leader.node).returncode == 1


def test_a_follower_that_missed_more_than_the_log_holds_is_sent_a_snapshot(make_cluster: MakeCluster) -> None:
    settings = {**SMALL_STORAGE, "limits": {"max_tail_bytes": 1 << 16}}
    cluster = make_cluster(settings=settings).start()
    lagging = cluster.followers()[0]
    client = cluster.client([node for node in cluster.nodes if node is not lagging])
    client.create("/before", b"seen")
    assert lagging.stop() == 0
    missed_from = client.get("/before")[1].mzxid
    for result in [client.create_async(f"/missed-{i:04d}", b"x" * 1000) for i in range(600)]:
        result.get(60)
    client.delete("/before")
    eventually(
        lambda: all(node.require_status().snapshot_position > 0 for node in cluster.nodes if node.runs()),
        "the others have taken snapshots",
    )
    cluster.start_node(lagging)
    lagging.wait_for_log("installed the snapshot")
    cluster.wait_ready()

    late = cluster.client([lagging])
    late.sync("/")
    names = late.get_children("/")
    assert sum(name.startswith("missed-") for name in names) == 600
    assert "before" not in names
    assert late.get("/missed-0599")[1].czxid > missed_from
    # What came as a snapshot is durable: the node finds it again without its peers' help.
    assert lagging.stop() == 0
    cluster.start_node(lagging)
    cluster.wait_ready()
    assert len(cluster.client([lagging]).get_children("/")) == len(names)


def test_a_leader_that_stood_still_finds_another_in_its_place(cluster: Cluster) -> None:
    old = cluster.leader()
    others = cluster.followers()
    on_old = cluster.client([old], timeout_s=30)
    on_old.create("/counted", b"")
    holder = cluster.client(others, timeout_s=10)
    holder.create("/held", b"", ephemeral=True)
    acknowledged: list[int] = []

    def write(stopping: threading.Event) -> None:
        writer = cluster.client(others)
        while not stopping.is_set():
            try:
                acknowledged.append(writer.set("/counted", b"x").version)
            except ConnectionLoss:
                pause(0.01)

    with running(write):
        eventually(lambda: len(acknowledged) > 20, "writes are acknowledged")
        old.suspend()
        began_s = time.monotonic()
        # The pause is given: three seconds, in which the others must not wait for the old leader.
        before = len(acknowledged)
        pause(3 - (time.monotonic() - began_s))
        during = len(acknowledged) - before
        old.resume()
        new = eventually(
            lambda: (
                node if (node := cluster.leader()) is not old and old.require_status().leader == node.node else None
            ),
            "the old leader follows the new one",
        )
    assert new is not old
    assert during > 0, "writes went on while the old leader stood still"
    assert old.require_status().role == "follower"
    assert acknowledged == sorted(set(acknowledged)), "a version was acknowledged twice or out of order"

    reader = cluster.client([old])
    reader.sync("/counted")
    stat = reader.get("/counted")[1]
    assert stat.version >= acknowledged[-1]
    # Both sessions outlived the pause: the one on the node that stood still, and the other.
    assert on_old.retry(on_old.exists, "/held").ephemeralOwner == holder.client_id[0]
    assert on_old.retry(on_old.set, "/counted", b"y").version > stat.version


def test_a_session_ends_on_time_though_the_leader_that_kept_its_time_is_killed(cluster: Cluster) -> None:
    leader = cluster.leader()
    followers = cluster.followers()
    living = cluster.client(followers, timeout_s=3)
    living.create("/living", b"", ephemeral=True)
    watcher = cluster.client(followers)
    expired = threading.Event()
    with RawClient(followers[0].config.listen.zookeeper) as dying:
        assert dying.open_session(3_000) == 3_000
        assert dying.call(create_body(1, "/dying", b"", EPHEMERAL))[0] == 0
        # A watch on a znode that is not there yet would fire when it appears.
        watcher.sync("/dying")
        assert watcher.exists("/dying", watch=lambda event: expired.set())
        leader.kill()
        killed_s = time.monotonic()
    # A client that vanishes says nothing: its connection ends, its session does not.
    assert expired.wait(60), "nobody ended the session of a client that is gone"
    took_s = time.monotonic() - killed_s
    assert took_s > 2.5, f"the session of 3 s ended after {took_s:.1f} s"
    assert watcher.retry(watcher.exists, "/dying") is None
    assert watcher.retry(watcher.exists, "/living") is not None

    cluster.start_node(leader)
    cluster.wait_ready()
    late = cluster.client([leader])
    assert late.exists("/dying") is None
    assert late.exists("/living") is not None
    with RawClient(leader.config.listen.zookeeper) as again:
        assert again.open_session(3_000, dying.session, dying.password) == 0, "timeout 0 says that it has expired"


def test_a_session_moves_to_another_node_with_its_password_only(cluster: Cluster) -> None:
    first, second, third = (node.config.listen.zookeeper for node in cluster.nodes)
    with RawClient(first) as before, RawClient(second) as thief, RawClient(third) as after:
        before.open_session(10_000)
        assert before.call(create_body(1, "/mine", b"", EPHEMERAL))[0] == 0
        assert thief.open_session(10_000, before.session, b"x" * 16) == 0
        assert after.open_session(10_000, before.session, before.password) == 10_000
        assert after.call(get_data_body(1, "/mine"))[0] == 0
        # The former connection learns that it is not the session's any more, and is closed.
        try:
            code, _ = before.call(create_body(2, "/too-late", b""))
        except (EOFError, ConnectionError):
            code = SESSION_MOVED
        assert code == SESSION_MOVED
        assert after.call(get_data_body(2, "/too-late"))[0] == NO_NODE
