"""Whole runs: a small campaign, and what a run must and must not depend on.

The long campaigns are `make soak`; that the checks can fail is `make mutants`.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from quorate.simulation.faults import CHANGES_OF_MEMBERS
from quorate.simulation.plan import Plan
from quorate.simulation.run import Options, draw_plan, required_coverage, run, run_seed
from quorate.simulation.services import SERVICES

SHORT = Options(duration_s=15.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service", "seeds", "required", "unmet"),
    [
        ("zookeeper", "6", required_coverage(Plan(seed=0), 6), 3),
        ("etcd", "2", SERVICES["etcd"].required_coverage, 1),  # two runs do not see all that nodes may do
    ],
)
def test_a_campaign_finds_nothing(service: str, seeds: str, required: tuple[str, ...], unmet: int) -> None:
    report = campaign("--service", service, "--seeds", seeds)
    exercised = {name for name, count in report["coverage"].items() if count}
    missing = set(required) - exercised
    assert len(missing) <= unmet, missing


@pytest.mark.slow
@pytest.mark.parametrize("service", ["zookeeper", "etcd"])
def test_every_run_is_the_same_again(service: str) -> None:
    report = campaign("--service", service, "--seeds", "1", "--duration", "15", "--twice")
    assert report["coverage"]["operations"] > 1000


def campaign(*options: str) -> Any:
    """What a campaign reports that finds nothing."""
    command = [sys.executable, "-m", "quorate", "simulate", *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_five_nodes() -> None:
    outcome = run_seed(1, replace(SHORT, nodes=5))
    assert outcome.violation is None
    assert outcome.coverage["operations"] > 500


@pytest.mark.parametrize("protocol", ["zab", "paxos", "cluster=raft,zookeeper=paxos"])
def test_every_protocol(protocol: str) -> None:
    outcome = run_seed(2, replace(SHORT, protocol=protocol))
    assert outcome.violation is None
    assert outcome.coverage["elections"] > 1


def test_quorums_of_ones_own_sizes_among_members_that_stay() -> None:
    outcome = run_seed(4, replace(SHORT, protocol="paxos:3+1"))
    assert outcome.violation is None
    assert outcome.coverage["elections"] > 1
    assert outcome.coverage["configuration changes"] == 0
    assert not CHANGES_OF_MEMBERS & set(outcome.plan.faults)


@pytest.mark.parametrize("nodes", [1, 2])
def test_few_nodes_without_faults(nodes: int) -> None:
    assert run_seed(1, replace(SHORT, nodes=nodes, duration_s=5.0, faults=())).violation is None


def test_recording_changes_nothing() -> None:
    plan = draw_plan(3, SHORT)
    recorded, plain = run(plan, record=True), run(plan)
    assert recorded.digest == plain.digest
    assert recorded.coverage == plain.coverage
    assert recorded.trace is not None and len(recorded.trace.events) > 1000
    assert plain.trace is None


def test_another_seed_is_another_run() -> None:
    assert run_seed(1, SHORT).digest != run_seed(2, SHORT).digest


def test_a_run_does_not_depend_on_what_its_process_did_before() -> None:
    options = replace(SHORT, duration_s=6.0)
    first = run_seed(7, options).digest
    run_seed(8, options)
    gc.collect()
    assert run_seed(7, options).digest == first


def test_a_run_does_not_depend_on_the_hash_seed() -> None:
    script = "from quorate.simulation.run import Options, run_seed; print(run_seed(5, Options(duration_s=8.0)).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2", "random")
    }
    assert len(digests) == 1


def test_a_run_leaves_nothing_behind(capfd: pytest.CaptureFixture[str]) -> None:
    was_enabled, hook = gc.isenabled(), sys.unraisablehook
    run_seed(3, replace(SHORT, duration_s=6.0))
    gc.collect()
    assert (gc.isenabled(), sys.unraisablehook) == (was_enabled, hook)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(KeyError, match="earthquake"):
        draw_plan(1, replace(SHORT, faults=("earthquake",)))


def test_injections_lie_within_the_safety_phase() -> None:
    for seed in range(30):
        plan = draw_plan(seed, Options())
        assert all(each.at_s > 0 and each.at_s + each.for_s <= plan.duration_s for each in plan.injections)
