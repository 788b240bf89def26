"""Every service on every protocol: load, kill -9, a node more and a node less, all restarted, and nothing is lost.

The other tests of this folder run on the defaults.  All of them on any other protocol:
QUORATE_PROTOCOL=paxos pytest -m processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading

import pytest

from tests.processes.cluster import SMALL_STORAGE, Cluster, Node, eventually, running, succeed
from tests.processes.conftest import MakeCluster
from tests.processes.writer import Writer, check_nothing_is_lost, wait_for_writes, written

pytestmark = pytest.mark.processes

WRITERS = 2
WINDOW = 4
PAUSE_S = 0.005


class Counter:
    """Counts up in one key of etcd's by `etcdctl`; an attempt that failed is made again."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.acknowledged = 0

    def write(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            if self._etcdctl(self.cluster.nodes, "put", "counter", str(self.acknowledged + 1)) == "OK\n":
                self.acknowledged += 1

    def found(self, node: Node) -> int:
        """By a linearizable read at one node."""
        return int(
            eventually(
                lambda: self._etcdctl([node], "get", "counter", "--print-value-only"), f"node {node.node} serves etcd"
            )
        )

    def _etcdctl(self, nodes: list[Node], *arguments: str) -> str:
        """What it printed; empty where it failed."""
        endpoints = ",".join(str(node.config.listen.etcd) for node in nodes if node.runs())
        command = ["etcdctl", "--endpoints", endpoints, "--command-timeout=2s", "--dial-timeout=1s", *arguments]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        return answer.stdout if answer.returncode == 0 else ""


@pytest.mark.skipif(shutil.which("etcdctl") is None, reason="etcdctl is not installed: run scripts/install-peers.sh")
@pytest.mark.parametrize("protocol", ["paxos", "zab"])  # most other tests here have Raft
def test_load_kill_grow_shrink_and_restart(make_cluster: MakeCluster, protocol: str) -> None:
    cluster = make_cluster(services=("zookeeper", "etcd"), settings=SMALL_STORAGE, protocol=protocol).start()
    writers = [Writer(cluster, f"writer-{i}", WINDOW, PAUSE_S) for i in range(WRITERS)]
    counter = Counter(cluster)
    with written(writers), running(counter.write):
        wait_for_writes(writers)
        killed = cluster.leader()
        killed.kill()
        wait_for_writes(writers)
        cluster.start_node(killed)

        new = cluster.new_node(3)
        cluster.start_node(new)
        succeed(cluster.command("member", "add", "3", new.peer))
        cluster.wait_until_it_came(3)
        eventually(lambda: cluster.command("member", "promote", "3").returncode == 0, "node 3 is let vote")
        leader = cluster.wait_settled([0, 1, 2, 3])
        succeed(cluster.command("member", "remove", str(leader.node)))
        cluster.has_left(leader)
        remaining = sorted(node.node for node in cluster.nodes)
        cluster.wait_settled(remaining)
        for writer in writers:
            writer.client.set_hosts(",".join(node.address for node in cluster.nodes))
        wait_for_writes(writers)

        for node in cluster.nodes:
            node.kill()
        for node in cluster.nodes:
            cluster.start_node(node)
        wait_for_writes(writers)
        before = counter.acknowledged
        eventually(lambda: counter.acknowledged > before, "etcd's clients go on")
    cluster.wait_ready()
    check_nothing_is_lost(cluster, writers)
    found = [counter.found(node) for node in cluster.nodes]
    assert found[0] in (counter.acknowledged, counter.acknowledged + 1) and len(set(found)) == 1, found
    words = {"raft": "term", "paxos": "ballot", "zab": "epoch"}[protocol]
    headline = succeed(cluster.command("status")).splitlines()[0]
    assert f", {protocol}): node " in headline and f" leads etcd in {words} " in headline, headline
