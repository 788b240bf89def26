"""`quorate recover`: what it says before it does anything, and what it refuses."""

from __future__ import annotations

import re
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quorate.cli.main import main
from quorate.node.config import make_config
from quorate.storage.identity import Identity
from quorate.storage.real_disk import RealDisk
from quorate.storage.set_aside import set_aside
from tests.node.survivors import CLUSTER_ID, INCARNATIONS, backup, leave


def recover(*arguments: str | Path, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["recover", *map(str, arguments)], input=answer)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of node 1 of three, stopped."""
    with closing(RealDisk(tmp_path / "data")) as disk:
        leave(disk)
    return tmp_path / "data"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def identity_of(folder: Path) -> Identity:
    with closing(RealDisk(folder)) as disk:
        identity = Identity.load(disk)
    assert identity is not None
    return identity


def damage(folder: Path) -> None:
    (segment, *_) = sorted((folder / "log").iterdir())
    content = bytearray(segment.read_bytes())
    content[content.index(b"10.0.0.1") + 1] ^= 1
    segment.write_bytes(content)


def test_it_says_what_was_found_and_what_it_means(data: Path) -> None:
    before = files(data)
    result = recover("--data", data, answer="n\n")
    assert result.exit_code == 1
    assert files(data) == before, "a person said no"
    lines = result.output.splitlines()
    assert lines[0] == f"{data}: node 1 of cluster lab (id {CLUSTER_ID}), members at version 4"
    assert lines[3].split() == ["zookeeper", "4", "term", "2", "term", "3", "0", "0,", "1,", "2"]
    assert lines[4].split() == ["cluster", "3", "term", "2", "term", "2", "0", "0,", "1,", "2"]
    assert "Voters beside it: 0, 2." in lines
    assert any(line.startswith("Mind: group 1: the last entry is of term 2") for line in lines)
    assert "- writes that only the lost members had are gone, acknowledged or not;" in lines
    assert "- no former member can ever join it again with its data" in result.output


def test_recover(data: Path) -> None:
    result = recover("--data", data, answer="y\n")
    assert result.exit_code == 0, result.output
    identity = identity_of(data)
    assert identity.recovered_from == CLUSTER_ID
    assert identity.cluster_id not in ("", CLUSTER_ID)
    assert identity.incarnation != INCARNATIONS[1]
    assert f"what was there before is in {data}/before-recovery-1" in result.output
    assert (data / "before-recovery-1" / "identity.json").exists()
    assert identity.cluster_id in result.output
    assert '  1 = "10.0.0.2:3181"\n' in result.output
    settings = re.search(r"  cluster = .*?\n\n", result.output, re.DOTALL)
    assert settings is not None
    assert make_config(tomllib.loads(settings[0])).join, "should the folder be lost, no new cluster is formed"
    assert "quorate member add ID HOST:PORT" in result.output


def test_yes_asks_nothing(data: Path) -> None:
    assert recover("--data", data, "--yes").exit_code == 0
    assert identity_of(data).recovered_from == CLUSTER_ID


def test_the_settings_say_where_the_folder_is(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('cluster = "lab"\nnode = 1\ndata = "data"\n[members]\n0 = "h:1"\n1 = "127.0.0.1:9"\n')
    result = recover("--config", file, "--yes")
    assert result.exit_code == 0, result.output
    assert '  1 = "127.0.0.1:9"\n' in result.output
    assert recover("--config", tmp_path / "none", "--yes").exit_code == 78


def test_the_folder_of_up(data: Path, tmp_path: Path) -> None:
    assert recover("--data", tmp_path, "--yes").exit_code == 0
    assert identity_of(data).recovered_from == CLUSTER_ID


def test_a_running_node_keeps_its_folder(data: Path) -> None:
    with closing(RealDisk(data)):
        before = files(data)
        result = recover("--data", data, "--yes")
        assert files(data) == before
    assert result.exit_code == 1
    assert "a running node holds" in result.output
    assert "nothing was changed" in result.output


def test_another_id(data: Path) -> None:
    before = files(data)
    result = recover("--data", data, "--node", "2", "--yes")
    assert result.exit_code == 1
    assert "that of node 1, not of node 2" in result.output
    assert files(data) == before


def test_what_was_set_aside_can_be_recovered(data: Path) -> None:
    with closing(RealDisk(data)) as disk:
        assert set_aside(disk, "a snapshot was damaged") == "damaged-1"
    advice = recover("--data", data, "--yes")
    assert advice.exit_code == 1
    assert f"quorate recover --data {data}/damaged-1" in advice.output
    with closing(RealDisk(data)):
        held = recover("--data", data / "damaged-1", "--yes")
    assert held.exit_code == 1
    assert "a running node holds" in held.output
    result = recover("--data", data / "damaged-1", "--yes")
    assert result.exit_code == 0, result.output
    assert f'  data = "{data}/damaged-1"' in result.output
    assert identity_of(data / "damaged-1").recovered_from == CLUSTER_ID


def test_what_cannot_be_read_is_refused_with_advice(data: Path) -> None:
    with closing(RealDisk(data)) as disk:
        set_aside(disk, "a flipped bit")
    damage(data / "damaged-1")
    before = files(data / "damaged-1")
    result = recover("--data", data / "damaged-1", "--yes")
    assert result.exit_code == 1
    assert "cannot be recovered: log/" in result.output
    assert "Take the folder of another survivor, or a backup: quorate recover --from-backup" in result.output
    after = files(data / "damaged-1")
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("arguments", [(), ("--from-backup", "b")])
def test_something_is_missing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert recover(*arguments).exit_code == 2
    assert recover("--from-backup", "b", "--data", tmp_path, "--node", "1").exit_code == 2


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    result = recover("--data", tmp_path, "--yes")
    assert result.exit_code == 1
    assert "is not the data folder of a node" in result.output


def test_from_a_backup(tmp_path: Path) -> None:
    file = tmp_path / "lab.quorate"
    with closing(RealDisk(tmp_path / "served")) as disk:
        file.write_bytes(backup(disk))
    arguments = ("--from-backup", file, "--data", tmp_path / "new", "--node", "0", "--peer", "127.0.0.1:9")
    refused = recover(*arguments, answer="n\n")
    assert refused.exit_code == 1
    assert "- writes that were made after this backup are gone" in refused.output
    assert not (tmp_path / "new").exists()
    result = recover(*arguments, "--yes")
    assert result.exit_code == 0, result.output
    assert identity_of(tmp_path / "new").recovered_from == CLUSTER_ID
