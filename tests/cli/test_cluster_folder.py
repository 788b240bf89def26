"""The folder of `quorate up`: what it keeps, and what is never deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate.cli.cluster_folder import locked_folder, node_folder, note_formed, open_cluster, remove_cluster
from quorate.cli.errors import CommandError

MARK = """
format = 3
cluster = "lab"
nodes = 3
protocol = "raft"
services = ["etcd"]
removing = false
formed = false
"""


def make_cluster(path: Path, nodes: int = 3) -> None:
    """A folder as a run leaves it."""
    with locked_folder(path):
        mark = open_cluster(path, nodes, default_nodes=3)
        for node in range(mark.nodes):
            (node_folder(path, node) / "data" / "log").mkdir(parents=True)
            (node_folder(path, node) / "node.log").write_text("words")
            (node_folder(path, node) / "data" / "log" / "1").write_text("records")


def test_a_cluster_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lab"
    with locked_folder(path):
        made = open_cluster(path, 5, default_nodes=3)
    with locked_folder(path):
        assert open_cluster(path, default_nodes=3) == made
        assert open_cluster(path, 5, "zookeeper=zab", default_nodes=3) == made
    assert made.nodes == 5
    assert made.protocol == "cluster=raft,etcd=raft,zookeeper=zab"


def test_clusters_have_ids_of_their_own(tmp_path: Path) -> None:
    ids = set()
    for name in ("a", "b"):
        with locked_folder(tmp_path / name):
            ids.add(open_cluster(tmp_path / name, default_nodes=3).cluster)
    assert len(ids) == 2


def test_another_number_of_nodes_is_refused_with_advice(tmp_path: Path) -> None:
    make_cluster(tmp_path)
    with locked_folder(tmp_path), pytest.raises(CommandError) as caught:
        open_cluster(tmp_path, 5, default_nodes=3)
    assert "was made with 3 nodes, not 5" in caught.value.message
    assert "--nodes 3" in caught.value.message
    assert "--fresh" in caught.value.message


def test_another_protocol_is_refused_with_advice(tmp_path: Path) -> None:
    make_cluster(tmp_path)
    with locked_folder(tmp_path), pytest.raises(CommandError, match="--protocol cluster=raft,etcd=raft,zookeeper=zab"):
        open_cluster(tmp_path, None, "zab", default_nodes=3)


def test_quorums_that_need_not_meet_are_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        with pytest.raises(CommandError, match=r"--protocol paxos:3\+2: .* must add up to more than 5"):
            open_cluster(tmp_path, 5, "paxos:3+2", default_nodes=3)
        made = open_cluster(tmp_path, 5, "etcd=paxos:4+2", default_nodes=3)
        assert made.protocol == "cluster=raft,etcd=paxos:4+2,zookeeper=zab"
        assert open_cluster(tmp_path, default_nodes=3) == made


def test_services_are_decided_once(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        made = open_cluster(tmp_path, services=("zookeeper", "etcd"), default_nodes=3)
        assert open_cluster(tmp_path, default_nodes=3) == made
        assert open_cluster(tmp_path, services=("zookeeper", "etcd"), default_nodes=3) == made
        with pytest.raises(CommandError) as caught:
            open_cluster(tmp_path, services=("etcd",), default_nodes=3)
    assert "was made to serve zookeeper,etcd, not etcd" in caught.value.message
    assert "--services zookeeper,etcd" in caught.value.message
    assert "--fresh" in caught.value.message


def test_a_folder_from_before_there_were_services_goes_on_with_zookeeper(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(MARK.replace("format = 3", "format = 2").replace('services = ["etcd"]', ""))
    with locked_folder(tmp_path):
        mark = open_cluster(tmp_path, default_nodes=3)
        assert mark.services == ("zookeeper",)
        with pytest.raises(CommandError, match="was made to serve zookeeper, not zookeeper,etcd"):
            open_cluster(tmp_path, services=("zookeeper", "etcd"), default_nodes=3)
        assert note_formed(tmp_path, mark) == open_cluster(tmp_path, default_nodes=3)


def test_one_cluster_at_a_time_runs_in_a_folder(tmp_path: Path) -> None:
    with locked_folder(tmp_path), pytest.raises(CommandError, match=r"another `quorate up` \(process \d+\)"):
        locked_folder(tmp_path).__enter__()
    with locked_folder(tmp_path):
        pass


def test_removing_leaves_nothing_of_the_cluster(tmp_path: Path) -> None:
    make_cluster(tmp_path)
    with locked_folder(tmp_path):
        remove_cluster(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["up.lock"]
        assert open_cluster(tmp_path, 5, default_nodes=3).nodes == 5


def test_removing_where_nothing_is_does_nothing(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        before = sorted(tmp_path.iterdir())
        remove_cluster(tmp_path)
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("foreign", ["thesis.txt", "node-0/thesis.txt", "node-x/thesis.txt", "node-10/thesis.txt"])
def test_nothing_is_removed_beside_foreign_files(tmp_path: Path, foreign: str) -> None:
    make_cluster(tmp_path)
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    with locked_folder(tmp_path), pytest.raises(CommandError, match="not Quorate's"):
        remove_cluster(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_is_never_followed_or_removed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "node.log").write_text("years of work")
    folder = tmp_path / "lab"
    make_cluster(folder, nodes=1)
    (folder / "node-1").symlink_to(home)
    with locked_folder(folder), pytest.raises(CommandError, match="node-1"):
        remove_cluster(folder)
    assert (home / "node.log").exists()


def test_a_removal_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    make_cluster(tmp_path)
    with locked_folder(tmp_path):
        old = open_cluster(tmp_path, default_nodes=3)
    mark = tmp_path / "cluster.toml"
    mark.write_text(mark.read_text().replace("removing = false", "removing = true"))
    with locked_folder(tmp_path):
        new = open_cluster(tmp_path, 1, default_nodes=3)
    assert (new.nodes, new.cluster == old.cluster) == (1, False)
    assert not node_folder(tmp_path, 0).exists()


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CommandError, match=r"holds other files \(thesis.txt\)"), locked_folder(tmp_path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="is not a folder"), locked_folder(tmp_path / "file"):
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = ", "is damaged"),
        ("x = 1", "is not the mark of a Quorate cluster"),
        (MARK.replace('"etcd"', '"consul"'), 'services "consul" is no service: there are zookeeper, etcd'),
        (MARK.replace('services = ["etcd"]', ""), "services must be a list of at least one of"),
        ("format = 1", "has format 1; this version of Quorate knows formats up to 3 only"),
    ],
)
def test_a_strange_mark_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "cluster.toml").write_text(text)
    with locked_folder(tmp_path):
        with pytest.raises(CommandError, match=expected):
            open_cluster(tmp_path, default_nodes=3)
        with pytest.raises(CommandError, match=expected):
            remove_cluster(tmp_path)
