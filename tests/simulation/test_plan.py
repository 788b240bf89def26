"""Plans in files, which people may edit: what is wrong with one is said, with its field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quorate.simulation.faults import FAULTS
from quorate.simulation.faults.limits import AMOUNTS, problem_of_injection
from quorate.simulation.plan import Injection, Plan, problem_of, read_plan, write_plan
from quorate.simulation.run import Options, draw_plan

GOOD: dict[str, object] = {"seed": 3, "clients": 5, "injections": [{"fault": "crash", "at_s": 2, "for_s": 1}]}


def read(tmp_path: Path, text: str) -> Plan:
    file = tmp_path / "plan.json"
    file.write_text(text)
    return read_plan(file)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"protocol": "telepathy"}, "protocol: 'telepathy' is no protocol: there are raft"),
        ({"nodes": 10}, "nodes is 10; there may be 1 to 9"),
        ({"clients": 0}, "clients is 0; there may be 1 to 250"),
        ({"clients": 251}, "clients is 251"),
        ({"operations_per_s": 0}, "operations_per_s is 0.0; it must be more than 0, and at most 100000"),
        ({"operations_per_s": -1}, "operations_per_s is -1.0"),
        ({"duration_s": 0}, "duration_s is 0.0; it must be more than 0, and at most 1000000"),
        ({"duration_s": 1e300}, "duration_s is 1e+300"),
        ({"max_operations": 0}, "max_operations is 0; it must be at least 1"),
        ({"client_numbers": [4, 5]}, "client_numbers has 5; with 5 clients, they are from 0 to 4"),
        ({"client_numbers": [-1]}, "client_numbers has -1"),
        ({"client_numbers": [1, 1]}, "client_numbers has a client twice"),
    ],
)
def test_a_plan_that_cannot_be_run_is_told(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    assert problem_of(read(tmp_path, json.dumps(GOOD))) == ""
    assert problem_of(read(tmp_path, json.dumps(GOOD | changes))).startswith(problem)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"at_s": -2}, "at_s is -2.0; it must be from 0 to 1000000"),
        ({"at_s": 1e300}, "at_s is 1e+300"),
        ({"for_s": -2}, "for_s is -2.0"),
        ({"target": "3"}, "target '3': there is no node 3; they are from 0 to 2"),
        ({"target": "leader,client-5"}, "target 'leader,client-5': there is no client-5; they are from 0 to 4"),
        ({"target": "client-x"}, "target 'client-x' has 'client-x'; a target is a list"),
        ({"target": "0,"}, "target '0,' has ''"),
        ({"target": "-1"}, "target '-1' has '-1'"),
        ({"target": "٣"}, "target '٣' has"),
    ],
)
def test_a_fault_that_cannot_be_is_told(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    injection = {"fault": "crash", "at_s": 2, "for_s": 1, "target": "all,leader,follower,majority,2,client-4"}
    read_back = [read(tmp_path, json.dumps(GOOD | {"injections": [one]})) for one in (injection, injection | changes)]
    assert problem_of(read_back[0]) == ""
    assert problem_of(read_back[1]).startswith(f"injections[0] (crash): {problem}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_told(value: float) -> None:
    assert problem_of(Plan(seed=1, operations_per_s=value))
    assert problem_of(Plan(seed=1, duration_s=value))
    for injection in (
        Injection("crash", value, 1.0),
        Injection("crash", 1.0, value),
        Injection("x", 1.0, 1.0, "", value),
    ):
        assert problem_of(Plan(seed=1, injections=(injection,)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"seed": "3"}',
        '{"seed": 3, "dration_s": 5}',
        '{"seed": 3, "injections": [{"fault": "crash", "at_s": 2, "for_s": 1, "targt": "0"}]}',
    ],
)
def test_what_has_not_the_form_of_a_plan_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="is not a plan of the simulator"):
        read(tmp_path, text)


def test_bytes_are_no_plan(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    for content in (bytes(range(256)), b'{"seed": 1, "protocol": "\xff"}'):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is not a plan of the simulator"):
            read_plan(file)


@pytest.mark.parametrize(
    ("injection", "problem"),
    [
        (Injection("flood", 1.0, 1.0, "0"), "there is no fault 'flood'; known are: delay, "),
        (Injection("crash", 1.0, 1.0), "crash needs a target"),
        (Injection("resets", 1.0, 1.0, "all", 0.0), "the amount of resets is 0.0; it must be from 0.001 to 1000"),
        (Injection("message-loss", 1.0, 1.0, "all", 5.0), "the amount of message-loss is 5.0; it must be from 0 to 1"),
        (Injection("clock-jump", 1.0, 1.0, "0", 1e300), "the amount of clock-jump is 1e+300"),
    ],
)
def test_a_fault_cannot_be_asked_for_anything(injection: Injection, problem: str) -> None:
    assert problem_of_injection(injection).startswith(problem)


def test_whatever_is_drawn_is_a_plan_also_from_a_file(tmp_path: Path) -> None:
    assert set(AMOUNTS) <= set(FAULTS)
    for nodes in (1, 2, 3, 5):
        for seed in range(60):
            plan = draw_plan(seed, Options(nodes=nodes))
            assert problem_of(plan) == ""
            assert not list(filter(None, map(problem_of_injection, plan.injections)))
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
