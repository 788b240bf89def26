"""`quorate status` against admin listeners that say what a test wants."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quorate.cli.main import main
from tests.cli.fake_nodes import cluster, http, listener, status_of, with_etcd


def ask(*endpoints: str, as_json: bool = False) -> Result:
    arguments = [argument for endpoint in endpoints for argument in ("--endpoint", endpoint)]
    return CliRunner().invoke(main, ["status", *arguments, *(["--json"] if as_json else [])])


def rows(result: Result) -> dict[str, list[str]]:
    """The table's rows by node."""
    return {line.split()[0]: line.split() for line in result.output.splitlines() if line[:1].isdigit()}


def test_a_healthy_cluster() -> None:
    with cluster(status_of) as admins:
        result = ask(admins[1])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == "cluster lab (3 nodes, raft): node 0 leads in term 3"
    assert rows(result) == {
        "0": ["0", "leader", "3", "1,200", "1,200", "0", "16.0", "MiB", "-", "127.0.0.1:2181", admins[0]],
        "1": ["1", "follower", "3", "1,199", "1,198", "2", "16.0", "MiB", "2.0", "KiB", "127.0.0.1:2182", admins[1]],
        "2": ["2", "follower", "3", "1,198", "1,196", "4", "16.0", "MiB", "4.0", "KiB", "127.0.0.1:2183", admins[2]],
    }


def test_two_services_are_told_apart() -> None:
    with cluster(lambda node, admins: with_etcd(status_of(node, admins), leader=2)) as admins:
        result = ask(admins[1])
        as_json = ask(admins[1], as_json=True)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "cluster lab (3 nodes, raft): node 0 leads zookeeper in term 3, node 2 leads etcd in term 7"
    assert lines[2].split()[:3] == ["node", "service", "role"]
    assert [(line.split()[1:4], line.split()[-2]) for line in lines[3:] if line.startswith("2")] == [
        (["zookeeper", "follower", "3"], "127.0.0.1:2183"),
        (["etcd", "leader", "7"], "127.0.0.1:2381"),
    ]
    assert {name: led["leader"] for name, led in json.loads(as_json.output)["services"].items()} == {
        "zookeeper": 0,
        "etcd": 2,
    }


def test_each_service_has_its_leadership_in_its_own_protocols_words() -> None:
    def status(node: int, admins: list[str]) -> Any:
        said = with_etcd(status_of(node, admins), leader=2)
        for group, leadership in zip(said["groups"], ("epoch 3", "ballot 7.2", "term 3"), strict=True):
            group["leadership"] = leadership
        return {**said, "protocol": "cluster=raft,etcd=paxos,zookeeper=zab"}

    with cluster(status) as admins:
        lines = ask(admins[1]).output.splitlines()
    assert lines[0] == (
        "cluster lab (3 nodes, cluster=raft,etcd=paxos,zookeeper=zab): "
        "node 0 leads zookeeper in epoch 3, node 2 leads etcd in ballot 7.2"
    )
    assert lines[2].split()[3] == "epoch/ballot"
    assert [line.split()[1:4] for line in lines[3:] if line.startswith("2")] == [
        ["zookeeper", "follower", "3"],
        ["etcd", "leader", "7.2"],
    ]


def test_one_of_two_services_without_a_leader_is_no_quorum() -> None:
    with cluster(lambda node, admins: with_etcd(status_of(node, admins), leader=None)) as admins:
        result = ask(admins[1])
        as_json = ask(admins[1], as_json=True)
    assert result.exit_code == 1
    assert "NO QUORUM for etcd: no leader is followed by 2 of 3 voters" in result.output
    assert as_json.exit_code == 1
    answer = json.loads(as_json.output)
    assert answer["quorum"] is False
    assert answer["services"]["zookeeper"]["leader"] == 0
    assert answer["services"]["etcd"] is None


def test_json_holds_all_that_the_nodes_say() -> None:
    with cluster(status_of) as admins:
        result = ask(admins[0], as_json=True)
    assert result.exit_code == 0
    answer = json.loads(result.output)
    assert answer["quorum"] is True
    assert answer["services"] == {"zookeeper": {"leader": 0, "generation": 3, "leadership": "term 3", "ready": True}}
    assert [node["status"] for node in answer["nodes"]] == [status_of(node, admins) for node in range(3)]
    assert [node["problem"] for node in answer["nodes"]] == [None, None, None]


def test_one_node_down_is_shown_and_a_majority_is_enough() -> None:
    with cluster(lambda node, admins: None if node == 2 else status_of(node, admins)) as admins:
        result = ask(admins[0])
        as_json = ask(admins[0], as_json=True)
    assert result.exit_code == 0
    assert rows(result)["2"][1] == "unreachable"
    assert "node 2 does not answer: " in result.output
    assert as_json.exit_code == 0
    assert json.loads(as_json.output)["nodes"][2]["status"] is None


def test_two_nodes_down_is_no_quorum() -> None:
    with cluster(lambda node, admins: None if node else status_of(node, admins)) as admins:
        result = ask(admins[0])
        as_json = ask(admins[0], as_json=True)
    assert result.exit_code == 1
    assert "NO QUORUM: no leader is followed by 2 of 3 voters" in result.output
    assert as_json.exit_code == 1
    assert json.loads(as_json.output)["quorum"] is False


def test_a_leader_cut_off_from_its_followers_is_no_quorum() -> None:
    def status(node: int, admins: list[str]) -> Any:
        return status_of(node, admins) if node == 0 else status_of(node, admins, leader=None, generation=4)

    with cluster(status) as admins:
        result = ask(admins[0])
    assert result.exit_code == 1


def test_a_former_leader_does_not_hide_the_new_one() -> None:
    def status(node: int, admins: list[str]) -> Any:
        return status_of(node, admins) if node == 0 else status_of(node, admins, leader=1, generation=4)

    with cluster(status) as admins:
        result = ask(admins[0])
    assert result.exit_code == 0
    assert "node 1 leads in term 4" in result.output


def test_followers_of_an_earlier_term_do_not_count() -> None:
    def status(node: int, admins: list[str]) -> Any:
        return status_of(node, admins, generation=4 if node == 0 else 3)

    with cluster(status) as admins:
        assert ask(admins[0]).exit_code == 1


def test_a_full_disk_is_said() -> None:
    with cluster(lambda node, admins: status_of(node, admins, log_full=node == 1)) as admins:
        result = ask(admins[0])
    assert "node 1 refuses writes: its disk is full" in result.output


def test_a_member_that_was_never_met_is_unknown() -> None:
    def status(node: int, admins: list[str]) -> Any:
        answer = status_of(node, admins)
        answer["members"][2]["admin"] = ""
        return answer

    with cluster(status) as admins:
        result = ask(admins[0])
    assert result.exit_code == 0
    assert "node 2 does not answer: its admin address is not known yet" in result.output


def test_a_listener_on_every_interface_is_reached_where_its_peer_is() -> None:
    def status(node: int, admins: list[str]) -> Any:
        answer = status_of(node, admins)
        for member in answer["members"]:
            member["admin"] = member["admin"].replace("127.0.0.1", "0.0.0.0")
        return answer

    with cluster(status) as admins:
        assert ask(admins[0]).exit_code == 0


def test_a_port_that_belongs_to_another_node_is_not_mistaken() -> None:
    with cluster(lambda node, admins: status_of(node, admins, cluster="other" if node == 2 else "lab")) as admins:
        result = ask(admins[0])
    assert "node 2 does not answer: node 2 of cluster other answers there" in result.output


def test_the_port_for_zookeeper_clients_will_do() -> None:
    with cluster(status_of) as admins:

        def zookeeper(request: bytes) -> bytes:
            return f"clientPort=1\nadminEndpoint={admins[1]}\n".encode() if request == b"conf" else b""

        with listener(zookeeper) as port:
            result = ask(f"127.0.0.1:{port}")
    assert result.exit_code == 0, result.output
    assert len(rows(result)) == 3


def test_the_first_endpoint_that_answers_is_used() -> None:
    with listener(lambda _: b"") as silent, cluster(status_of) as admins:
        assert ask(f"127.0.0.1:{silent}", admins[0]).exit_code == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", "HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "HTTP"),
        (http(b"{}"), "not like a Quorate node"),
        (http(b"\xff"), "not like a Quorate node"),
        (http(b"no", "404 Not Found"), "HTTP status 404"),
        (http(json.dumps(status_of(0, ["a:1", "nowhere"])).encode()), "a member's address that is none"),
    ],
)
def test_something_else_answers(answer: bytes, expected: str) -> None:
    with listener(lambda _: answer) as port:
        result = ask(f"127.0.0.1:{port}")
    assert result.exit_code == 1
    assert expected in result.output
    assert "Traceback" not in result.output


def test_nothing_answers() -> None:
    with listener(lambda _: b"") as port:
        pass
    result = ask(f"127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "Error: no node answers (127.0.0.1:" in result.output
    assert "connection refused" in result.output
    assert "quorate up" in result.output


def test_a_bad_endpoint_is_refused() -> None:
    result = ask("nowhere")
    assert result.exit_code == 2
    assert 'must be "host:port"' in result.output


def test_learners_do_not_count_in_the_majority() -> None:
    """Two of three voters follow nobody: that a learner follows the leader does not help."""

    def status(node: int, admins: list[str]) -> Any:
        leader, generation = (0, 3) if node in (0, 3) else (None, 4)
        return status_of(node, admins, leader=leader, generation=generation, voters=[0, 1, 2])

    with cluster(status, nodes=4) as admins:
        assert ask(admins[0]).exit_code == 1
    with cluster(lambda node, admins: status_of(node, admins, voters=[0]), nodes=3) as admins:
        result = ask(admins[0])
    assert result.exit_code == 0
    assert result.output.startswith("cluster lab (3 nodes, 1 of them voting, raft): node 0 leads in term 3")
    assert rows(result)["2"][1] == "learner"


def test_while_voters_change_both_sets_must_follow() -> None:
    def status(node: int, admins: list[str]) -> Any:
        if node > 1:
            return None
        answer = status_of(node, admins, voters=[0, 1])
        for group in answer["groups"]:
            group["old_voters"] = [0, 2, 3]
        return answer

    with cluster(status, nodes=4) as admins:
        assert ask(admins[0]).exit_code == 1


def test_a_node_that_is_joining_says_what_it_waits_for() -> None:
    def status(node: int, admins: list[str]) -> Any:
        if node < 2:
            return status_of(node, admins, voters=[0, 1])
        why = "no member has been reached yet"
        waits: dict[str, Any] = {"state": "joining", "waiting_for": why, "cluster_id": None}
        return status_of(node, admins, groups=[], leader=None, **waits)

    with cluster(status) as admins:
        result = ask(admins[0])
    assert result.exit_code == 0, result.output
    assert rows(result)["2"][1] == "joining"
    assert "node 2 is joining: no member has been reached yet" in result.output
