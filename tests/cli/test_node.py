"""`quorate node`: flags over the file, and refusals that a supervisor understands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quorate.cli.main import main
from quorate.node.config import Address, NodeConfig

FILE = """
cluster = "lab"
node = 0
data = "data"
[members]
0 = "127.0.0.1:3181"
1 = "127.0.0.1:3182"
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[NodeConfig]:
    """The configurations with which nodes were started; the node itself ends at once with exit code 5."""
    configs: list[NodeConfig] = []

    def run_node(config: NodeConfig) -> int:
        configs.append(config)
        return 5

    monkeypatch.setattr("quorate.node.process.run_node", run_node)
    return configs


def run(tmp_path: Path, *arguments: str, file: str = FILE) -> Result:
    (tmp_path / "node.toml").write_text(file)
    return CliRunner().invoke(main, ["node", "--config", str(tmp_path / "node.toml"), *arguments])


def test_the_node_gets_the_file_and_gives_the_exit_code(tmp_path: Path, started: list[NodeConfig]) -> None:
    assert run(tmp_path).exit_code == 5
    (config,) = started
    assert config.node == 0
    assert config.data == tmp_path / "data"
    assert config.listen.peer == Address("127.0.0.1", 3181)


def test_a_protocol_is_written_in_one_way(tmp_path: Path, started: list[NodeConfig]) -> None:
    file = f'protocol = "paxos"\n{FILE}'
    assert run(tmp_path, file=file).exit_code == 5
    assert run(tmp_path, "--protocol", "etcd=raft, zookeeper=raft", file=file).exit_code == 5
    assert run(tmp_path, "--set", "protocol=etcd=zab", file=file).exit_code == 5
    assert [config.protocol for config in started] == ["paxos", "raft", "cluster=raft,etcd=zab,zookeeper=zab"]
    result = run(tmp_path, "--protocol", "paxos:1+1")
    assert result.exit_code == 78
    assert 'protocol = "paxos:1+1": quorums of 1 nodes for phase 1 and 1 for phase 2 need not meet' in result.output


def test_flags_win_over_the_file(tmp_path: Path, started: list[NodeConfig]) -> None:
    result = run(
        tmp_path,
        *("--node", "1", "--data", "elsewhere", "--listen-zookeeper", "0.0.0.0:1", "--listen-admin", "[::1]:2"),
        *("--listen-peer", "0.0.0.0:3", "--set", "timing.election_timeout_ms=900", "--set", "cluster=other"),
    )
    assert result.exit_code == 5, result.output
    (config,) = started
    assert config.node == 1
    assert config.data == Path.cwd() / "elsewhere"
    assert config.listen.zookeeper == Address("0.0.0.0", 1)
    assert config.listen.admin == Address("::1", 2)
    assert config.listen.peer == Address("0.0.0.0", 3)
    assert config.timing.election_timeout_ms == 900
    assert config.cluster == "other"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--node", "3"), "node = 3: is not in [members], which lists 0, 1"),
        (("--listen-admin", "x"), 'listen.admin = "x": must be "host:port"'),
        (("--set", "timing.heartbeat=1"), "timing.heartbeat: no such setting; known are timing.election_timeout_ms"),
        (("--set", "members.0=0.0.0.0:1"), "must be an address that the other nodes can connect to"),
        (("--set", "timing=1"), "timing = 1: must be a section, [timing]"),
    ],
)
def test_a_wrong_setting_is_refused(
    tmp_path: Path, started: list[NodeConfig], arguments: tuple[str, ...], expected: str
) -> None:
    result = run(tmp_path, *arguments)
    assert result.exit_code == 78
    assert result.output.startswith(f"Error: {tmp_path / 'node.toml'}: ")
    assert expected in result.output
    assert not started


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["node", "--config", str(tmp_path / "none.toml")])
    assert result.exit_code == 78
    assert result.output == f"Error: {tmp_path / 'none.toml'}: there is no such file\n"


@pytest.mark.parametrize("setting", ["novalue", "=1"])
def test_a_malformed_set_option(tmp_path: Path, setting: str) -> None:
    result = run(tmp_path, "--set", setting)
    assert result.exit_code == 2
    assert "must be NAME=VALUE" in result.output


def test_closing_the_pipe_stops_the_process() -> None:
    """What `--stop-with-fd` starts: SIGTERM to itself once the other end is closed."""
    program = (
        "import sys; from quorate.cli.node import _stop_with; print('here', flush=True); _stop_with(int(sys.argv[1]))"
    )
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(read_end)], pass_fds=(read_end,), stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(read_end)
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert process.poll() is None
        os.close(write_end)
        assert process.wait(timeout=20) == -signal.SIGTERM
