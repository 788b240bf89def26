"""ZooKeeper and etcd side by side: one set of nodes, two groups, leaders on nodes of their own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from quorate.node.config import make_config
from tests.processes.cluster import READY_S, Cluster, Node, eventually, fail, quorate, succeed
from tests.processes.conftest import MakeCluster
from tests.processes.up_command import UpCommand

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        shutil.which("etcdctl") is None, reason="etcdctl is not installed: run scripts/install-peers.sh"
    ),
]

BOTH = ("zookeeper", "etcd")


def etcdctl(*arguments: str) -> str:
    """What etcdctl prints; it must succeed."""
    command = ["etcdctl", f"--command-timeout={READY_S:g}s", *arguments]
    return succeed(
        subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=2 * READY_S,
            check=False,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
    )


def at(nodes: Sequence[Node]) -> str:
    return "--endpoints=" + ",".join(str(node.config.listen.etcd) for node in nodes)


def leaders(cluster: Cluster) -> Mapping[str, int]:
    """Service -> node, as `quorate status` sees it; empty while one has none."""
    answer = cluster.command("status", "--json")
    if answer.returncode != 0:
        return {}
    return {service: led["leader"] for service, led in json.loads(answer.stdout)["services"].items()}


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    """ZooKeeper is led by node 0 and etcd by node 1, and each holds something."""
    cluster = make_cluster(services=BOTH).start()
    eventually(lambda: leaders(cluster), "both services are led")
    succeed(cluster.command("leader", "transfer", "--service", "zookeeper", "--to", "0"))
    succeed(cluster.command("leader", "transfer", "--service", "etcd", "--to", "1"))
    client = cluster.client()
    client.create("/znode", b"of ZooKeeper")
    assert etcdctl(at(cluster.nodes), "put", "key", "of etcd") == "OK\n"
    return cluster


def test_leaders_sit_on_different_nodes_and_move_alone(cluster: Cluster) -> None:
    eventually(
        lambda: leaders(cluster) == {"zookeeper": 0, "etcd": 1}, "each service has the leader that was asked for"
    )
    headline = succeed(cluster.command("status")).splitlines()[0]
    assert re.search(r"node 0 leads zookeeper in \w+ [\d.]+, node 1 leads etcd in \w+ [\d.]+$", headline)
    for listener in BOTH:
        port_for_clients = str(getattr(cluster.node(2).config.listen, listener))
        assert succeed(quorate("status", "--endpoint", port_for_clients)).startswith(headline)
    cluster.node(1).kill()
    eventually(lambda: leaders(cluster).get("etcd") in (0, 2), "another node leads etcd")
    assert leaders(cluster)["zookeeper"] == 0
    assert etcdctl(at(cluster.nodes), "get", "key", "--print-value-only") == "of etcd\n"
    assert cluster.client([cluster.node(2)]).get("/znode")[0] == b"of ZooKeeper"


def test_a_node_that_is_added_gets_both(cluster: Cluster) -> None:
    [new] = [cluster.new_node(3)]
    stranger = make_config({**settings_of(new), "services": ["etcd"]})
    lone = Node(stranger, new.folder, ())
    cluster.start_node(lone)
    lone.require_status()
    refusal = fail(cluster.command("member", "add", "3", new.peer))
    assert 'serves etcd: set services = ["zookeeper", "etcd"] in its settings' in refusal
    assert lone.stop() == 0

    new = Node(new.config, new.folder, ())
    cluster.nodes[-1] = new
    cluster.start_node(new)
    succeed(cluster.command("member", "add", "3", new.peer))
    cluster.wait_until_it_came(3)
    succeed(cluster.command("member", "promote", "3"))
    cluster.wait_settled([0, 1, 2, 3])
    succeed(cluster.command("leader", "transfer", "--to", "3"))
    assert leaders(cluster) == {"zookeeper": 3, "etcd": 3}
    assert etcdctl(at([new]), "get", "key", "--print-value-only") == "of etcd\n"
    assert cluster.client([new]).get("/znode")[0] == b"of ZooKeeper"


def settings_of(node: Node) -> dict[str, Any]:
    config = node.config
    return {
        "cluster": config.cluster,
        "node": config.node,
        "data": str(config.data),
        "join": True,
        **({"protocol": config.protocol} if config.protocol is not None else {}),
        "members": {str(member): str(address) for member, address in config.members.items()},
        "listen": {name: str(getattr(config.listen, name)) for name in (*BOTH, "admin")},
    }


def test_a_backup_holds_both(cluster: Cluster, tmp_path: Path, make_cluster: MakeCluster) -> None:
    backup = tmp_path / "backup.quorate"
    succeed(cluster.command("snapshot", "save", str(backup)))
    inspected = json.loads(succeed(quorate("snapshot", "inspect", str(backup), "--json")))
    assert [(group["group"], group["service"]) for group in inspected["groups"]] == [
        (1, "zookeeper"),
        (2, "etcd"),
        (0, "cluster"),
    ]
    again = make_cluster(1, services=BOTH, name="rehearsal")
    [node] = again.nodes
    said = succeed(
        quorate(
            *("snapshot", "restore", str(backup), "--data", str(node.data), "--node", "0", "--peer", node.peer),
            *("--cluster", "rehearsal"),
        )
    )
    assert 'services = ["zookeeper", "etcd"]' in said
    again.start()
    assert etcdctl(at([node]), "get", "key", "--print-value-only") == "of etcd\n"
    assert again.client().get("/znode")[0] == b"of ZooKeeper"


def test_a_survivor_goes_on_with_both(cluster: Cluster, make_cluster: MakeCluster) -> None:
    survivor = cluster.node(2)
    eventually(lambda: len({tuple(applied(node)) for node in cluster.nodes}) == 1, "all nodes hold everything")
    for node in cluster.nodes:
        node.kill()
    said = succeed(quorate("recover", "--data", str(survivor.data), "--yes"))
    assert re.search(r"^zookeeper +\d.*\netcd +\d", said, re.MULTILINE), said
    cluster.start_node(survivor)
    assert etcdctl(at([survivor]), "get", "key", "--print-value-only") == "of etcd\n"
    assert cluster.client([survivor]).get("/znode")[0] == b"of ZooKeeper"


def applied(node: Node) -> list[int]:
    return [group["applied_position"] for group in node.require_status().raw["groups"]]


# --- through `quorate up` ---------------------------------------------------------------------


@pytest.fixture
def up(tmp_path: Path) -> Iterator[UpCommand]:
    running = UpCommand(tmp_path)
    running.start()
    yield running
    running.stop()


def test_what_up_prints_for_etcd_works_as_it_stands(up: UpCommand) -> None:
    said = up.what_to_try()
    put, get = (shlex.split(line) for line in re.findall(r"^  (etcdctl .*)$", said, re.MULTILINE))
    assert etcdctl(*put[1:]) == "OK\n"
    assert etcdctl(*get[1:]) == "greeting\nhello\n"
    row = re.search(r"^2 .*$", said, re.MULTILINE)
    assert row is not None
    assert f"127.0.0.1:{up.ports['zookeeper'] + 2}" in row[0]
    assert f"127.0.0.1:{up.ports['etcd'] + 2}" in row[0]

    [victim] = re.findall(r"kill -9 (\d+)", said)
    os.kill(int(victim), signal.SIGKILL)
    assert etcdctl(*get[1:]) == "greeting\nhello\n"
    eventually(lambda: "runs again" in up.said(), "up starts the node again")

    assert up.stop(signal.SIGINT) == 0
    up.start("--services", "etcd")
    assert up.exit_code() == 1
    assert "was made to serve zookeeper,etcd, not etcd" in up.said()
    up.start()
    up.what_to_try()
    assert etcdctl(*get[1:]) == "greeting\nhello\n"
