"""Every node is stopped and started again in turn: no client notices more than a lost connection."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest
from kazoo.exceptions import ConnectionLoss, KazooException

from tests.processes.cluster import Cluster, Node, eventually, fail, running, succeed
from tests.processes.conftest import MakeCluster

pytestmark = pytest.mark.processes

ELECTION_TIMEOUT_MS = 5_000
"""So long that no write could go on by an election in the time that this test takes to see it go on."""


class Increments:
    """A client that counts up, again and again, with a retry for a connection that is lost."""

    def __init__(self, cluster: Cluster, path: str) -> None:
        self.client = cluster.client()
        self.path = path
        self.client.create(path, b"0")
        self.acknowledged = 0
        self.lost: list[float] = []
        """When an attempt was answered by a lost connection."""

    def write(self, stopping: threading.Event) -> None:
        """Any other error than a lost connection is raised, and ends the test."""
        while not stopping.is_set():
            try:
                self.client.set(self.path, b"%d" % (self.acknowledged + 1))
            except ConnectionLoss:
                self.lost.append(time.monotonic())
                stopping.wait(0.005)
                continue
            self.acknowledged += 1


def restart(cluster: Cluster, node: Node) -> str:
    """Stop the node as an operator does, and start it again; returns what it logged while it stopped."""
    since = len(node.log_text())
    assert node.stop(signal.SIGTERM) == 0
    said = node.log_text()[since:]
    cluster.start_node(node)
    cluster.wait_ready()
    return said


def wait_for_increments(counters: list[Increments], more: int = 20) -> None:
    wanted = [counter.acknowledged + more for counter in counters]
    eventually(
        lambda: all(c.acknowledged >= count for c, count in zip(counters, wanted, strict=True)), "clients go on writing"
    )


def test_a_rolling_restart_costs_no_write_and_no_election_timeout(make_cluster: MakeCluster) -> None:
    timing = {"election_timeout_ms": ELECTION_TIMEOUT_MS, "max_election_timeout_ms": ELECTION_TIMEOUT_MS}
    cluster = make_cluster(settings={"timing": timing}).start()
    counters = [Increments(cluster, f"/counter-{i}") for i in range(3)]
    waiting = list(counters)
    handed_over = 0
    with running(lambda stopping: waiting.pop().write(stopping), count=len(counters)):
        wait_for_increments(counters)
        # From the leader on, whose successor is then restarted too.
        for node in [cluster.leader(), *cluster.followers()]:
            led = cluster.leader() is node
            reign = cluster.leader().require_status().reign()
            lost = [len(counter.lost) for counter in counters]
            said = restart(cluster, node)
            wait_for_increments(counters)
            if led:
                handed_over += 1
                assert "handed the leadership over to node" in said, said
                assert "the leadership stays here" not in said, said
                # One new leadership, by the transfer: an election after a timeout would have made another one.
                assert cluster.leader().require_status().reign() == reign + 1
            else:
                assert cluster.leader().require_status().reign() == reign
            # Only the node that went away takes connections with it, and each at most a few times.
            for counter, before in zip(counters, lost, strict=True):
                assert len(counter.lost) - before <= 3, f"{counter.path}: {counter.lost[before:]}"
    assert handed_over >= 2
    for counter in counters:
        assert int(counter.client.retry(counter.client.get, counter.path)[0]) >= counter.acknowledged
    for node in cluster.nodes:
        assert "Traceback" not in node.log_text(), node.log_text()[-4000:]


def test_clients_of_other_nodes_keep_their_connections_when_the_leader_stops(cluster: Cluster) -> None:
    leader = cluster.leader()
    client: Any = cluster.client(cluster.followers())
    client.create("/steady", b"")
    states: list[Any] = []
    client.add_listener(states.append)
    failures: list[KazooException] = []

    def write(stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                client.set("/steady", b"x")
            except KazooException as error:
                failures.append(error)

    # So many at once that some write is under way whenever the leader stops.
    with running(write, count=8):
        eventually(lambda: client.get("/steady")[1].version > 100, "writes go on")
        assert leader.stop(signal.SIGTERM) == 0
        eventually(lambda: cluster.leader() is not leader, "another node leads")
        before = client.get("/steady")[1].version
        eventually(lambda: client.get("/steady")[1].version > before + 20, "writes go on")
    assert failures == [] and states == []


def test_leadership_is_transferred_by_hand(cluster: Cluster) -> None:
    leader = cluster.leader()
    [target, other] = cluster.followers()
    client = cluster.client([other])
    client.create("/steady", b"")
    dry_run = ("leader", "transfer", "--to", str(target.node), "--dry-run")
    eventually(lambda: cluster.command(*dry_run).returncode == 0, "it is known how far the target is")
    assert cluster.leader() is leader
    succeed(cluster.command("leader", "transfer", "--to", str(target.node)))
    eventually(lambda: cluster.leader() is target, "the target leads")
    client.set("/steady", b"after")
    for group in target.require_status().raw["groups"]:
        assert group["leader"] == target.node, group
    assert "no node 9" in fail(cluster.command("leader", "transfer", "--to", "9"))
    assert cluster.leader() is target
