"""`quorate leader` against admin listeners that hand over when they are asked."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quorate.cli.main import main
from tests.cli.fake_nodes import cluster, group_of, http, status_of


def leader(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["leader", *arguments])


class Groups:
    """Three nodes; zookeeper is led by node 0, the cluster's group by node 1, until they hand over."""

    def __init__(self) -> None:
        self.leaders: dict[str, int | None] = {"zookeeper": 0, "cluster": 1}
        self.generations = {"zookeeper": 3, "cluster": 5}
        self.asked: list[tuple[int, Any]] = []
        self.obeys = True
        self.admins: list[str] = []
        self.unled: dict[str, int] = {}
        """Of services that are not led: how many more times a node says so."""
        self.unled_next: dict[str, int] = {}
        """These lose their leader with the first transfer."""
        self.points_to: dict[int, int] = {}
        """Nodes that say that they do not lead, and who does."""

    def status(self, node: int, admins: list[str]) -> Any:
        self.admins = admins
        voters = list(range(len(admins)))
        leaders = {name: None if self._is_unled(name) else leader for name, leader in self.leaders.items()}
        groups = [
            group_of(number, name, node, voters, leaders[name], self.generations[name])
            for number, name in ((1, "zookeeper"), (0, "cluster"))
        ]
        return status_of(node, admins, groups=groups)

    def _is_unled(self, service: str) -> bool:
        left = self.unled.get(service, 0)
        self.unled[service] = left - 1
        return left > 0

    def post(self, node: int, path: str, body: Any) -> bytes:
        assert path == "/transfer"
        self.asked.append((node, body))
        if self._is_unled(body["service"]):
            content: dict[str, object] = {"problem": "this node does not lead", "leader": None, "leader_admin": ""}
            return http(json.dumps(content).encode(), "409 Conflict")
        if node in self.points_to:
            to = self.points_to[node]
            content = {"problem": f"node {node} does not lead", "leader": to, "leader_admin": self.admins[to]}
            return http(json.dumps(content).encode(), "409 Conflict")
        if not body["dry_run"] and self.obeys:
            self.leaders[body["service"]] = 2 if body["node"] is None else body["node"]
            self.generations[body["service"]] += 1
            self.unled |= self.unled_next
        answer = {"done": not body["dry_run"], "version": 1, "lines": ["node 2 holds everything"]}
        return http(json.dumps({**answer, "problem": None, "danger": None}).encode())


@pytest.fixture
def groups() -> Groups:
    return Groups()


def test_list(groups: Groups) -> None:
    with cluster(groups.status) as admins:
        result = leader("list", "--endpoint", admins[2])
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.output.splitlines()] == [
        ["service", "leader", "term", "ready", "followed", "by", "admin"],
        ["zookeeper", "node", "0", "3", "yes", "3", "of", "3", "voters", admins[0]],
        ["cluster", "node", "1", "5", "yes", "3", "of", "3", "voters", admins[1]],
    ]


def test_list_of_a_group_without_leader(groups: Groups) -> None:
    groups.leaders["cluster"] = None
    with cluster(groups.status) as admins:
        result = leader("list", "--endpoint", admins[2])
    assert result.exit_code == 1
    assert re.search(r"^cluster +none ", result.output, re.MULTILINE)


def test_transfer_of_every_group(groups: Groups) -> None:
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--endpoint", admins[2])
    assert result.exit_code == 0, result.output
    assert groups.asked == [
        (0, {"service": "zookeeper", "node": None, "dry_run": False}),
        (1, {"service": "cluster", "node": None, "dry_run": False}),
    ]
    said = re.sub(r"[0-9]\.[0-9]{2} s", "T s", result.output).splitlines()
    assert said == [
        "node 2 holds everything",
        "zookeeper: node 0 led, node 2 leads now (term 4), after T s",
        "node 2 holds everything",
        "cluster: node 1 led, node 2 leads now (term 6), after T s",
    ]


def test_transfer_of_one_service_to_one_node(groups: Groups) -> None:
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--to", "1", "--service", "zookeeper", "--endpoint", admins[2])
    assert result.exit_code == 0, result.output
    assert groups.asked == [(0, {"service": "zookeeper", "node": 1, "dry_run": False})]


@pytest.mark.parametrize("answers_without_leader", range(1, 12))
def test_a_leader_that_was_lost_just_now_is_waited_for(groups: Groups, answers_without_leader: int) -> None:
    """Whether that is seen in the nodes' status, or only when the leader of a moment ago is asked."""
    groups.unled["zookeeper"] = answers_without_leader
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--service", "zookeeper", "--endpoint", admins[0])
    assert result.exit_code == 0, result.output
    assert "zookeeper: node 0 led, node 2 leads now" in result.output


def test_a_leader_that_is_lost_with_the_transfer_before_is_waited_for(groups: Groups) -> None:
    groups.unled_next["cluster"] = 7
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--endpoint", admins[0])
    assert result.exit_code == 0, result.output
    assert "cluster: node 1 led, node 2 leads now" in result.output


def test_a_service_without_leader(groups: Groups) -> None:
    groups.leaders["zookeeper"] = None
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--service", "zookeeper", "--timeout", "0.1", "--endpoint", admins[0])
    assert result.exit_code == 1
    assert "zookeeper has no leader, also after 0.1 s" in result.output
    assert groups.asked == []


def test_who_leads_already_is_left_alone(groups: Groups) -> None:
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--to", "0", "--service", "zookeeper", "--endpoint", admins[2])
    assert result.exit_code == 0
    assert result.output == "zookeeper: node 0 leads already\n"
    assert not groups.asked


def test_the_leader_has_changed_meanwhile(groups: Groups) -> None:
    groups.points_to = {0: 1}
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--service", "zookeeper", "--endpoint", admins[0])
    assert result.exit_code == 0, result.output
    assert [node for node, _ in groups.asked] == [0, 1]


def test_nodes_that_point_at_one_another(groups: Groups) -> None:
    groups.points_to = {0: 1, 1: 0}
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--service", "zookeeper", "--endpoint", admins[0])
    assert result.exit_code == 1
    assert "do not agree on who leads zookeeper" in result.output


def test_a_dry_run(groups: Groups) -> None:
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--service", "zookeeper", "--dry-run", "--endpoint", admins[0])
    assert result.exit_code == 0
    assert result.output == ("node 2 holds everything\ndry run: nothing was changed\nzookeeper: node 0 leads\n")
    assert groups.leaders["zookeeper"] == 0


def test_a_leader_that_leads_on(groups: Groups) -> None:
    groups.obeys = False
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--service", "zookeeper", "--timeout", "0", "--endpoint", admins[0])
    assert result.exit_code == 1
    assert "Error: zookeeper: node 0 leads after 0 s. Nothing is lost" in result.output


def test_a_refusal(groups: Groups) -> None:
    def post(node: int, path: str, body: Any) -> bytes:
        return http(
            b'{"done": false, "version": 1, "lines": [], "problem": "node 7 is not another voter of the group"}'
        )

    with cluster(groups.status, post=post) as admins:
        result = leader("transfer", "--to", "7", "--endpoint", admins[0])
    assert result.exit_code == 1
    assert "Error: node 7 is not another voter of the group. Nothing was changed." in result.output


def test_an_unknown_service(groups: Groups) -> None:
    with cluster(groups.status, post=groups.post) as admins:
        result = leader("transfer", "--service", "etcd", "--endpoint", admins[0])
    assert result.exit_code == 2
    assert "there are zookeeper, cluster" in result.output


def test_an_unknown_outcome(groups: Groups) -> None:
    with cluster(groups.status, post=lambda node, path, body: b"") as admins:
        result = leader("transfer", "--endpoint", admins[0])
    assert result.exit_code == 3
    assert "look with `quorate leader list" in result.output
