"""`quorate up`: what it checks before anything starts, and what it says."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from quorate.cli.admin import NoAnswer, NodeAnswer, NodeStatus, fetch_status
from quorate.cli.cluster_folder import ClusterMark, locked_folder, open_cluster, remove_cluster, write_node_config
from quorate.cli.cluster_view import Agreement, ClusterView, NodeView
from quorate.cli.errors import CommandError
from quorate.cli.main import main
from quorate.cli.ports import BasePorts, check_ports
from quorate.cli.up import Formation, news, node_config, what_to_try
from quorate.node.config import Address, load_config
from tests.cli.fake_nodes import status_of
from tests.processes.cluster import eventually

BOTH = ("zookeeper", "etcd")
PORTS = BasePorts({"zookeeper": 2181, "etcd": 2379}, 3181, 4181)


def up(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["up", *arguments])


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        servers = [held.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


LISTENERS = (*BOTH, "peer", "admin")


@pytest.mark.parametrize("option", LISTENERS)
def test_a_port_in_use_is_named_with_its_option(tmp_path: Path, taken: int, option: str) -> None:
    ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True)) | {option: taken}
    arguments = [argument for name, port in ports.items() for argument in (f"--{name}-port", str(port))]
    result = up("--nodes", "1", "--services", "etcd,zookeeper", "--data", str(tmp_path / "lab"), *arguments)
    assert result.exit_code == 1
    assert f"port {taken} (--{option}-port, node 0) is in use by another program" in result.output
    assert result.output.count("in use") == 1
    assert not (tmp_path / "lab" / "node-0").exists(), "nothing was started"


def test_nothing_is_deleted_while_a_port_is_in_use(tmp_path: Path, taken: int) -> None:
    with locked_folder(tmp_path):
        mark = open_cluster(tmp_path, 1, default_nodes=3)
    result = up("--nodes", "1", "--fresh", "--data", str(tmp_path), "--zookeeper-port", str(taken))
    assert result.exit_code == 1
    with locked_folder(tmp_path):
        assert open_cluster(tmp_path, default_nodes=3) == mark


def test_ports_that_overlap_are_refused() -> None:
    with pytest.raises(CommandError) as caught:
        check_ports(BasePorts({"zookeeper": 2181}, 2183, 4181), 3)
    assert "port 2183 (--zookeeper-port, node 2) is wanted by --peer-port of node 0 too" in caught.value.message


def test_ports_beyond_the_last_are_refused() -> None:
    zookeeper, peer = free_ports(2)
    with pytest.raises(CommandError, match=r"port 65536 \(--admin-port, node 1\) does not exist"):
        check_ports(BasePorts({"zookeeper": zookeeper}, peer, 65535), 2)


def test_a_connection_that_lingers_does_not_count_as_use() -> None:
    """TIME_WAIT of an earlier run must not keep the next from starting."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        assert client.recv(1) == b""
        client.close()
    peer, admin = free_ports(2)
    check_ports(BasePorts({"zookeeper": port}, peer, admin), 1)


def test_another_number_of_nodes_is_refused(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        open_cluster(tmp_path, 3, default_nodes=3)
    result = up("--nodes", "5", "--data", str(tmp_path))
    assert result.exit_code == 1
    assert "was made with 3 nodes, not 5" in result.output


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        result = up("--data", str(tmp_path))
    assert result.exit_code == 1
    assert "another `quorate up`" in result.output


@pytest.mark.parametrize("nodes", ["0", "10", "three"])
def test_a_senseless_number_of_nodes_is_refused(nodes: str) -> None:
    result = up("--nodes", nodes)
    assert result.exit_code == 2
    assert "--nodes" in result.output


def test_the_nodes_settings(tmp_path: Path) -> None:
    mark = ClusterMark("lab", 3, "raft", BOTH)
    configs = [node_config(tmp_path, mark, PORTS, node) for node in range(3)]
    for node, config in enumerate(configs):
        assert load_config(write_node_config(tmp_path, config)) == config
        assert config.listen.zookeeper == Address("127.0.0.1", 2181 + node)
        assert config.listen.etcd == Address("127.0.0.1", 2379 + node)
        assert config.services == BOTH
        assert config.listen.peer == config.members[node] == Address("127.0.0.1", 3181 + node)
        assert config.listen.admin == Address("127.0.0.1", 4181 + node)
        assert config.data == tmp_path / f"node-{node}" / "data"


def test_what_to_try_is_python_that_runs(tmp_path: Path) -> None:
    configs = [node_config(tmp_path, ClusterMark("lab", 3, "raft", BOTH), PORTS, n) for n in range(3)]
    text = what_to_try(configs, 4711, tmp_path)
    program = re.search(r"\n  from kazoo.*?\n\n", text, re.DOTALL)
    assert program is not None
    compile(re.sub(r"^  ", "", program[0], flags=re.MULTILINE), "<what to try>", "exec")
    assert 'hosts="127.0.0.1:2181,127.0.0.1:2182,127.0.0.1:2183"' in text
    assert "etcdctl --endpoints=127.0.0.1:2379,127.0.0.1:2380,127.0.0.1:2381 put greeting hello" in text
    assert "kill -9 4711" in text
    assert "--endpoint " not in text
    elsewhere = [
        node_config(
            tmp_path, ClusterMark("lab", 1, "raft", BOTH), BasePorts({"zookeeper": 2191, "etcd": 2379}, 3181, 4191), 0
        )
    ]
    assert "status --endpoint 127.0.0.1:4191" in what_to_try(elsewhere, 4711, tmp_path)


def test_what_to_try_names_only_what_is_served(tmp_path: Path) -> None:
    def text_for(service: str, port: int) -> str:
        mark = ClusterMark("lab", 1, "raft", (service,))
        return what_to_try([node_config(tmp_path, mark, BasePorts({service: port}, 3181, 4181), 0)], 4711, tmp_path)

    assert "etcd" not in text_for("zookeeper", 2181)
    only_etcd = text_for("etcd", 2379)
    assert "--endpoints=127.0.0.1:2379 put" in only_etcd
    assert "kazoo" not in only_etcd
    assert "zkCli" not in only_etcd


@pytest.mark.parametrize("services", ["", "consul", "etcd,"])
def test_services_that_do_not_exist_are_refused(services: str) -> None:
    result = up("--services", services)
    assert result.exit_code == 2
    assert "there are zookeeper, etcd" in result.output


def test_a_port_of_a_service_that_is_off_does_not_matter(tmp_path: Path, taken: int) -> None:
    [peer] = free_ports(1)
    options = ["--zookeeper-port", str(taken), "--peer-port", str(peer), "--admin-port", str(taken)]
    result = up("--nodes", "1", "--services", "etcd", "--data", str(tmp_path), *options)
    assert f"port {taken} (--admin-port, node 0) is in use" in result.output
    assert "--zookeeper-port" not in result.output


def led_by(**leaders: int | None) -> dict[str, Agreement | None]:
    """In term 3."""
    return {
        service: None if node is None else Agreement(node, 3, True, ("term", "3")) for service, node in leaders.items()
    }


def test_what_is_new_of_the_leaders() -> None:
    both = led_by(zookeeper=0, etcd=1)
    assert not [*news(both, both)]
    assert [*news(both, led_by(zookeeper=0, etcd=2))] == ["node 2 leads etcd now (term 3)"]
    assert [*news(both, led_by(zookeeper=None, etcd=1))] == [
        "no leader of zookeeper is followed by a quorum of the voters"
    ]
    assert [*news(led_by(etcd=None), led_by(etcd=1))] == ["node 1 leads now (term 3)"]
    assert not [*news(led_by(etcd=None), led_by(etcd=None))]


def view_of(*nodes: int, **about: Any) -> ClusterView:
    """What these nodes answer."""

    def answer(node: int) -> NodeAnswer:
        raw = status_of(node, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], **about)
        return NodeAnswer(msgspec.convert(raw, NodeStatus), raw)

    return ClusterView(tuple(NodeView(node, None, answer(node)) for node in nodes))


def test_once_all_nodes_have_formed_the_cluster_none_forms_another(tmp_path: Path) -> None:
    ports = PORTS

    def joins() -> list[bool]:
        with locked_folder(tmp_path):
            mark = open_cluster(tmp_path, 3, default_nodes=3)
        return [node_config(tmp_path, mark, ports, node).join for node in range(3)]

    assert joins() == [False, False, False]
    with locked_folder(tmp_path):
        formation = Formation(tmp_path, open_cluster(tmp_path, default_nodes=3), ports)
        for view in (view_of(), view_of(0, 2), view_of(0, 1, cluster_id=None), view_of(0, 2)):
            formation.heed(view)
            assert not formation.mark.formed
        (tmp_path / "cluster.toml.new").mkdir()
        formation.heed(view_of(1))
        assert not formation.mark.formed, "it could not be written"
        (tmp_path / "cluster.toml.new").rmdir()
        formation.heed(view_of())
        assert formation.mark.formed
    assert joins() == [True, True, True]
    for node in range(3):
        assert load_config(tmp_path / f"node-{node}" / "node.toml").join, "for a node that is started again meanwhile"
    with locked_folder(tmp_path):
        remove_cluster(tmp_path)
    assert joins() == [False, False, False]


@pytest.mark.processes
def test_a_node_whose_data_vanished_waits_and_forms_no_new_cluster(tmp_path: Path) -> None:
    ports = dict(zip(("zookeeper", "peer", "admin"), free_ports(3), strict=True))
    options = [argument for name, port in ports.items() for argument in (f"--{name}-port", str(port))]
    options += ["--services", "zookeeper"]
    command = [sys.executable, "-m", "quorate", "up", "--nodes", "1", "--data", str(tmp_path), *options]

    def seen() -> str | None:
        """None while that is not clear."""
        with suppress(NoAnswer):
            status = asyncio.run(fetch_status(Address("127.0.0.1", ports["admin"]), 2)).status
            noted = "formed = true" in (tmp_path / "cluster.toml").read_text()
            if status.state == "joining":
                return "joining"
            if status.role == "leader" and noted:
                return "leader"
        return None

    def run(*more: str) -> str:
        """What becomes of the node: "leader" or "joining"."""
        with subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL) as process:
            try:
                return eventually(seen, "the node leads or is joining")
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=30)

    assert run() == "leader"
    assert run() == "leader", "the folder is there: what the settings say about joining changes nothing"
    shutil.rmtree(tmp_path / "node-0" / "data")
    assert run() == "joining"
    assert run("--fresh") == "leader"


@pytest.mark.processes
@pytest.mark.parametrize("reading", [True, False])
def test_a_node_starts_and_stops_whether_or_not_somebody_reads(tmp_path: Path, reading: bool) -> None:
    ports = dict(zip(("zookeeper", "peer", "admin"), free_ports(3), strict=True))
    options = [argument for name, port in ports.items() for argument in (f"--{name}-port", str(port))]
    options += ["--services", "zookeeper"]
    command = [sys.executable, "-m", "quorate", "up", "--nodes", "1", "--data", str(tmp_path), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        lines = iter(process.stdout.readline, "")
        assert next(line for line in lines if line.startswith("Node 0 leads after "))
        if reading:
            assert next(line for line in lines if line.startswith("Ctrl-C stops all nodes"))
        else:
            process.stdout.close()
        process.send_signal(signal.SIGTERM)
        if reading:
            assert [*lines][-1] == "All nodes are stopped.\n"
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
    log = (tmp_path / "node-0" / "node.log").read_text()
    assert "stopping" in log
