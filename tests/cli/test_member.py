"""`quorate member` against admin listeners that say what a test wants: words, exit codes, and what is asked of whom."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quorate.cli.main import main
from quorate.node.config import make_config
from tests.cli.fake_nodes import CLUSTER_ID, cluster, http, listener, member_of, status_of


def member(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["member", *arguments])


def verdict(status: str = "200 OK", **content: Any) -> bytes:
    full = {"done": False, "version": 1, "lines": [], "problem": None, "danger": None, **content}
    return http(json.dumps(full).encode(), status)


class Lab:
    """Three nodes whose members follow a script: each look at them is one step further."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, Any]] = []
        """(node, path, body) of every POST."""
        self.answer = verdict(done=True, version=2, lines=["voters 3 -> 3, majority 2"])
        self.steps: list[dict[str, Any]] = [{}]
        """What each next status differs in; the last one stays."""
        self.dead: set[int] = set()
        self._lock = threading.Lock()
        self._decided = False

    def status(self, node: int, admins: list[str]) -> Any:
        if node in self.dead:
            return None
        with self._lock:
            step = {}
            if self._decided:
                step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        step = dict(step)
        members = step.pop("members", {})
        status = status_of(node, admins, **step)
        by_node = {m["node"]: m for m in status["members"]} | {
            number: member_of(number, "", **about) for number, about in members.items() if about is not None
        }
        status["members"] = [m for number, m in sorted(by_node.items()) if members.get(number, m) is not None]
        return status

    def post(self, node: int, path: str, body: Any) -> bytes:
        self.asked.append((node, path, body))
        self._decided = True
        return self.answer

    @contextmanager
    def running(self) -> Iterator[list[str]]:
        with cluster(self.status, post=self.post) as admins:
            yield admins


@pytest.fixture
def lab() -> Lab:
    return Lab()


NEW = {"peer": "10.0.0.4:3181", "voter": False, "connected": False, "incarnation": ""}
CAME = {**NEW, "connected": True, "incarnation": "c" * 32}


# --- list ------------------------------------------------------------------------------------


def test_list(lab: Lab) -> None:
    lab._decided = True
    lab.steps = [
        {
            "version": 4,
            "under_way": {"1": 3},
            "members": {1: {"refilling": True, "voter": False}, 2: {"leaving": True, "connected": False}, 3: NEW},
            "voters": [0, 1],
        }
    ]
    with lab.running() as admins:
        result = member("list", "--endpoint", admins[0])
        as_json = member("list", "--endpoint", admins[0], "--json")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == f"cluster lab (id {CLUSTER_ID}, version 4, 1 voter)"
    assert lines[2].split() == ["node", "role", "address", "admin", "connected", "incarnation", "lag"]
    assert lines[3].split() == ["0", "voter", "127.0.0.1:3181", admins[0], "yes", "00000000", "0"]
    assert [line.split()[1] for line in lines[4:7]] == ["refilling", "leaving", "learner"]
    assert lines[6].split() == ["3", "learner", "10.0.0.4:3181", "?", "no", "not", "come", "yet", "-"]
    assert "under way: group zookeeper is at version 3 of 4" in lines
    data = json.loads(as_json.output)
    assert (data["cluster_id"], data["version"], data["under_way"]) == (CLUSTER_ID, 4, {"1": 3})
    assert [m["role"] for m in data["members"]] == ["voter", "refilling", "leaving", "learner"]
    assert data["members"][0]["lag"] == 0
    assert data["members"][3]["incarnation"] is None


def test_list_shows_how_far_each_is_behind() -> None:
    with cluster(status_of) as admins:
        data = json.loads(member("list", "--endpoint", admins[2], "--json").output)
    assert [m["lag"] for m in data["members"]] == [0, 2, 4]


def test_list_of_a_cluster_that_is_forming() -> None:
    def status(node: int, admins: list[str]) -> Any:
        if node:
            return None
        return status_of(
            *(node, admins),
            state="forming",
            waiting_for="node 2 (x:1) missing",
            groups=[],
            cluster_id=None,
            membership={"version": 0, "under_way": {}, "cluster_id": None},
        )

    with cluster(status) as admins:
        result = member("list", "--endpoint", admins[0])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("cluster lab (not formed yet)")
    assert "node 0 is forming: node 2 (x:1) missing" in result.output


class Refilled:
    """Four nodes; node 0 lost its folder, and knows of the members no more than its settings say: `known`."""

    def __init__(self, known: list[int], **about: Any) -> None:
        self.known = known
        self.about = {"membership": {"version": 0, "under_way": {}, "cluster_id": None}, **about}
        self.silent: set[int] = set()

    def status(self, node: int, admins: list[str]) -> Any:
        if node in self.silent:
            return None
        if node:
            return status_of(node, admins, version=7)
        status = status_of(node, admins, leader=None, groups=[], **self.about)
        status["members"] = [m for m in status["members"] if m["node"] in self.known]
        return status


JOINING = {"state": "joining", "waiting_for": "no member has let it in", "cluster_id": None}


@pytest.mark.parametrize("about", [{}, JOINING, {**JOINING, "membership": {"version": 9}}])
@pytest.mark.parametrize(("known", "endpoints"), [([0, 1], [0]), ([0], [0, 2]), ([], [0, 3, 2]), ([0, 1], [2, 0])])
def test_list_is_not_what_a_node_says_that_is_being_refilled(
    known: list[int], endpoints: list[int], about: dict[str, Any]
) -> None:
    with cluster(Refilled(known, **about).status, nodes=4) as admins:
        options = [text for endpoint in endpoints for text in ("--endpoint", admins[endpoint])]
        data = json.loads(member("list", "--json", *options).output)
    assert (data["version"], data["cluster_id"]) == (7, CLUSTER_ID)
    assert [(m["node"], m["lag"]) for m in data["members"]] == [(0, None), (1, 1), (2, 3), (3, 5)]


def test_list_is_what_a_node_says_that_is_being_refilled_where_nobody_else_answers() -> None:
    refilled = Refilled([0, 1], **JOINING)
    refilled.silent = {1, 2, 3}
    with cluster(refilled.status, nodes=4) as admins:
        result = member("list", "--endpoint", admins[0], "--endpoint", admins[2])
    assert result.exit_code == 0, result.output
    assert "node 0 is joining: no member has let it in" in result.output


def test_list_is_what_the_node_says_that_knows_most() -> None:
    """Node 0 has not heard yet that node 1 was removed, nor that node 3 came."""

    def status(node: int, admins: list[str]) -> Any:
        status = status_of(node, admins, version=1 if node == 0 else 3)
        status["members"] = [m for m in status["members"] if m["node"] != (3 if node == 0 else 1)]
        return None if node == 1 else status

    with cluster(status, nodes=4) as admins:
        data = json.loads(member("list", "--json", "--endpoint", admins[0]).output)
        shown = CliRunner().invoke(main, ["status", "--endpoint", admins[0]])
    assert data["version"] == 3
    assert [(m["node"], m["lag"] is None) for m in data["members"]] == [(0, False), (2, False), (3, False)]
    assert "node 1" not in shown.output


@pytest.mark.parametrize("other", [{"cluster": "other"}, {"cluster_id": "cd" * 16}])
def test_a_node_of_another_cluster_is_not_believed(other: dict[str, Any]) -> None:
    with (
        cluster(lambda node, admins: status_of(node, admins, version=9, **other), nodes=4) as others,
        cluster(status_of) as admins,
    ):
        data = json.loads(member("list", "--json", "--endpoint", admins[0], "--endpoint", others[3]).output)
    assert (data["version"], data["cluster"], len(data["members"])) == (1, "lab", 3)


def test_list_shows_whom_a_learner_replaces(lab: Lab) -> None:
    lab._decided = True
    lab.steps = [
        {"version": 2, "members": {0: {"replaces": 2}, 3: {**CAME, "replaces": 1}, 4: {**CAME, "replaces": None}}}
    ]
    with lab.running() as admins:
        lines = member("list", "--endpoint", admins[1]).output.splitlines()
        data = json.loads(member("list", "--endpoint", admins[1], "--json").output)
    assert re.match(r"\s*3\s+learner, replaces 1\s", lines[6]), lines
    assert re.match(r"\s*4\s+learner\s", lines[7]), lines
    assert re.match(r"\s*0\s+voter\s", lines[3]), "whoever votes has replaced already"
    assert [(m["role"], m["replaces"]) for m in data["members"][2:]] == [
        ("voter", None),
        ("learner", 1),
        ("learner", None),
    ]


# --- changes ---------------------------------------------------------------------------------


def test_add_says_how_to_start_the_node(lab: Lab) -> None:
    lab.steps = [
        {"version": 2, "under_way": {"0": 1, "1": 1}, "members": {3: NEW}},
        {"version": 2, "members": {3: NEW}},
    ]
    with lab.running() as admins:
        result = member("add", "3", "10.0.0.4:3181", "--endpoint", admins[1])
    assert result.exit_code == 0, result.output
    asked = {"change": "add", "node": 3, "address": "10.0.0.4:3181", "dry_run": False, "force": False, "expected": 0}
    assert lab.asked == [(1, "/members", asked)]
    assert result.output.startswith("voters 3 -> 3, majority 2\n")
    assert "group zookeeper: settled at version 2\ngroup cluster: settled at version 2\n" in result.output
    assert f"quorate member promote 3 --endpoint {admins[1]}" in result.output
    settings = re.search(r"  cluster = .*?\n\n", result.output, re.DOTALL)
    assert settings is not None
    config = make_config(tomllib.loads(settings[0]))
    assert (config.cluster, config.node, config.join, sorted(config.members)) == ("lab", 3, True, [0, 1, 2, 3])
    assert str(config.members[3]) == "10.0.0.4:3181"


def test_add_of_a_node_that_waits_already(lab: Lab) -> None:
    lab.steps = [{"version": 3, "members": {3: CAME}}]
    with lab.running() as admins:
        result = member("add", "3", "10.0.0.4:3181", "--endpoint", admins[0])
    assert result.exit_code == 0, result.output
    assert "group zookeeper: settled at version 3" in result.output
    assert result.output.endswith(
        f"node 3 is a learner. When it has caught up, let it vote:  quorate member promote 3 --endpoint {admins[0]}\n"
    )


@pytest.mark.parametrize("came", [True, False])
def test_add_to_a_lone_node_reminds_of_its_settings(lab: Lab, came: bool) -> None:
    others = {0: {"voter": False}, 2: None}
    lab.steps = [{"version": 2, "voters": [1], "members": {**others, 3: CAME if came else NEW}}]
    with lab.running() as admins:
        lone = member("add", "3", "10.0.0.4:3181", "--endpoint", admins[1])
        lab.steps[0]["members"][0] = {}
        several = member("add", "3", "10.0.0.4:3181", "--endpoint", admins[1])
    assert lone.exit_code == several.exit_code == 0, lone.output
    assert "\nNode 1 is the only voter. Put `join = true` into its settings too" in lone.output
    assert "only voter" not in several.output


def test_promote(lab: Lab) -> None:
    lab.steps = [
        {"version": 1},  # a node that has not heard of it yet
        {"version": 2, "under_way": {"1": 1}, "members": {3: {**CAME, "voter": True}}},
        {"version": 2, "members": {3: {**CAME, "voter": True}}},
    ]
    with lab.running() as admins:
        result = member("promote", "3", "--endpoint", admins[0])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[1:] == [
        "group cluster: settled at version 2",
        "group zookeeper: settled at version 2",
        "node 3 votes",
    ]


def test_remove_goes_on_with_the_others_when_the_node_that_was_asked_ends(lab: Lab) -> None:
    lab.steps = [{"version": 2, "members": {2: None}}]

    def post(node: int, path: str, body: Any) -> bytes:
        lab.dead.add(2)
        return lab.post(node, path, body)

    with cluster(lab.status, post=post) as admins:
        result = member("remove", "2", "--endpoint", admins[2])
    assert lab.asked[0][0] == 2
    assert result.exit_code == 0, result.output
    assert result.output.endswith("node 2 is no member any more; its process ends by itself\n")


def test_replace_waits_until_the_new_one_votes(lab: Lab) -> None:
    lab.steps = [
        {"version": 2, "members": {3: NEW}},
        {"version": 2, "members": {3: NEW}},
        {"version": 3, "members": {3: CAME}},
        {"version": 4, "under_way": {"1": 3}, "members": {1: None, 3: {**CAME, "voter": True}}},
        {"version": 4, "members": {1: None, 3: {**CAME, "voter": True}}},
    ]
    with lab.running() as admins:
        result = member("replace", "1", "3", "10.0.0.4:3181", "--endpoint", admins[0])
    assert result.exit_code == 0, result.output
    body = lab.asked[0][2]
    assert (body["change"], body["node"], body["new_node"], body["address"]) == ("replace", 1, 3, "10.0.0.4:3181")
    assert 'services = ["zookeeper"]\n  join = true\n' in result.output
    assert result.output.endswith("node 3 votes in the place of node 1, whose process ends by itself\n")


@pytest.mark.parametrize(
    "command", [("add", "3", "h:1"), ("promote", "1"), ("remove", "1"), ("replace", "1", "3", "h:1")]
)
def test_a_dry_run_changes_nothing(lab: Lab, command: tuple[str, ...]) -> None:
    lab.answer = verdict(lines=["voters 3 -> 4, majority 2 -> 3"])
    with lab.running() as admins:
        result = member(*command, "--dry-run", "--endpoint", admins[0])
    assert result.exit_code == 0, result.output
    assert result.output == "voters 3 -> 4, majority 2 -> 3\ndry run: nothing was changed\n"
    assert [body["dry_run"] for _, _, body in lab.asked] == [True]


def test_a_problem_is_said_with_what_to_do(lab: Lab) -> None:
    lab.answer = verdict(problem="node 1 is a member already, at 127.0.0.1:3182")
    with lab.running() as admins:
        result = member("add", "1", "127.0.0.1:9999", "--endpoint", admins[0])
    assert result.exit_code == 1
    assert result.output == (
        "Error: node 1 is a member already, at 127.0.0.1:3182. Nothing was changed. "
        f"`quorate member list --endpoint {admins[0]}` shows how things are.\n"
    )


def test_a_danger_needs_force(lab: Lab) -> None:
    danger = "only 1 of the remaining 2 voters is connected: nothing could be decided"
    lab.answer = verdict(lines=["voters 3 -> 2"], danger=danger)
    with lab.running() as admins:
        result = member("remove", "1", "--endpoint", admins[0])
        rehearsed = member("remove", "1", "--dry-run", "--endpoint", admins[0])
        lab.answer = verdict(lines=["voters 3 -> 2"], danger=danger, done=True, version=2)
        forced = member("remove", "1", "--force", "--no-wait", "--endpoint", admins[0])
    assert result.exit_code == 1
    assert f"Error: {danger}. Nothing was changed. If you want that, run it again with --force.\n" in result.output
    assert rehearsed.exit_code == 1
    assert forced.exit_code == 0
    assert f"by force: {danger}\n" in forced.output
    assert [body["force"] for _, _, body in lab.asked] == [False, False, True]


def test_no_wait_returns_when_it_is_decided(lab: Lab) -> None:
    lab.steps = [{"version": 2, "under_way": {"1": 1}}]
    with lab.running() as admins:
        result = member("promote", "2", "--no-wait", "--endpoint", admins[0])
    assert result.exit_code == 0
    assert "decided: version 2. The groups follow by themselves" in result.output


def test_what_is_not_done_in_time_says_what_it_waits_for(lab: Lab) -> None:
    lab.steps = [{"version": 2, "under_way": {"1": 1}, "members": {3: {**CAME, "connected": False}}}]
    with lab.running() as admins:
        result = member("promote", "3", "--timeout", "0", "--endpoint", admins[0])
    assert result.exit_code == 1
    assert (
        "Error: decided (version 2), but not done after 0 s: group zookeeper is at version 1 of 2; "
        "node 3 is not connected. It goes on by itself" in result.output
    )
    assert f"take it back with `quorate member remove 3 --endpoint {admins[0]}`" in result.output


@pytest.mark.parametrize(
    ("command", "back"),
    [
        (("promote", "2"), ", or take it back with `quorate member remove 2 --endpoint {}`."),
        (("replace", "1", "3", "h:1"), ", or take it back with `quorate member remove 3 --endpoint {}`."),
        (("remove", "1"), "."),
    ],
)
def test_ctrl_c_after_the_decision_says_that_it_goes_on(lab: Lab, command: tuple[str, ...], back: str) -> None:
    lab.steps = [{"version": 2, "under_way": {"1": 1}}]
    looks = 0

    def status(node: int, admins: list[str]) -> Any:
        nonlocal looks
        looks += 1 if lab.asked else 0
        if looks == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return lab.status(node, admins)

    with cluster(status, post=lab.post) as admins:
        result = member(*command, "--endpoint", admins[0])
    assert result.exit_code == 130, result.output
    assert result.output.endswith(
        "Error: interrupted, but decided (version 2); not done yet: group zookeeper is at version 1 of 2. "
        f"It goes on by itself: watch it with `quorate member list --endpoint {admins[0]}`{back.format(admins[0])}\n"
    )


@pytest.mark.parametrize("dry_run", [False, True])
def test_ctrl_c_before_the_answer_is_an_unknown_outcome(lab: Lab, dry_run: bool) -> None:
    given_up = threading.Event()

    def post(node: int, path: str, body: Any) -> bytes:
        os.kill(os.getpid(), signal.SIGINT)
        given_up.wait(10)
        return b""

    with cluster(lab.status, post=post) as admins:
        result = member("remove", "1", "--endpoint", admins[0], *(["--dry-run"] if dry_run else []))
        given_up.set()
    words = f"Look with `quorate member list --endpoint {admins[0]}` before you try again"
    assert (result.exit_code, words in result.output) == ((1, False) if dry_run else (130, True)), result.output


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (verdict("503 Service Unavailable", problem="no leader decided within 10 s"), "no leader decided within 10 s"),
        (b"", "it does not speak HTTP"),
        (http(b"oops", "500 Internal Server Error"), "it answers HTTP status 500"),
        (http(b"oops"), "not like a Quorate node"),
    ],
)
def test_an_unknown_outcome_has_its_own_exit_code(lab: Lab, answer: bytes, words: str) -> None:
    lab.answer = answer
    with lab.running() as admins:
        result = member("remove", "1", "--endpoint", admins[0])
        rehearsed = member("remove", "1", "--dry-run", "--endpoint", admins[0])
    assert result.exit_code == 3
    assert "Error: the outcome is unknown: " in result.output
    assert words in result.output
    assert f"look with `quorate member list --endpoint {admins[0]}` before you try again" in result.output
    assert rehearsed.exit_code == 1, "a dry run changes nothing, whatever comes of it"
    assert "Nothing was changed" in rehearsed.output


def test_a_node_without_these_pages_is_not_an_unknown_outcome(lab: Lab) -> None:
    lab.answer = http(b"", "404 Not Found")
    with lab.running() as admins:
        result = member("remove", "1", "--endpoint", admins[0])
    assert result.exit_code == 1
    assert "Nothing was changed" in result.output


def test_nobody_answers() -> None:
    with listener(lambda _: b"") as port:
        pass
    for command in (("list",), ("remove", "1")):
        result = member(*command, "--endpoint", f"127.0.0.1:{port}")
        assert result.exit_code == 1
        assert "Error: no node answers (127.0.0.1:" in result.output


@pytest.mark.parametrize("address", ["nowhere", "10.0.0.1:0", "0.0.0.0:3181"])
def test_a_bad_address_is_refused_before_anything_is_asked(lab: Lab, address: str) -> None:
    with lab.running() as admins:
        result = member("add", "3", address, "--endpoint", admins[0])
    assert result.exit_code == 2
    assert not lab.asked
