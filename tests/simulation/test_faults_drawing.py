"""What is drawn from seeds, and that clusters survive it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from quorate.simulation.cluster import client_host
from quorate.simulation.disk import SYNC_S
from quorate.simulation.faults import FAULTS, Setting
from quorate.simulation.faults.drawing import draw_injections
from quorate.simulation.faults.sequences import SEQUENCES
from quorate.simulation.plan import Injection
from tests.simulation.faults_stage import Stage

SETTING = Setting(nodes=3, clients=10, begin_s=0.0, end_s=60.0)
DISABLING = frozenset(
    {
        *("crash", "power-loss", "power-loss-in-operation", "stop", "pause", "full-disk", "failing-disk", "corruption"),
        *("partition-halves", "partition-isolation", "partition-one-way", "partition-flapping"),
    }
)
"""Faults that take a node, or several, out of every quorum.  The others only make it harder."""


def _plans(count: int, setting: Setting = SETTING) -> list[tuple[Injection, ...]]:
    return [draw_injections(seed, setting, list(FAULTS)) for seed in range(count)]


def test_injections_lie_within_the_phase() -> None:
    setting = Setting(nodes=5, clients=3, begin_s=2.0, end_s=30.0)
    for plan in _plans(200, setting):
        assert list(plan) == sorted(plan, key=lambda injection: injection.at_s)
        for injection in plan:
            assert setting.begin_s <= injection.at_s
            assert injection.for_s >= 0
            assert injection.at_s + injection.for_s <= setting.end_s + 1e-9, injection


def test_every_fault_and_every_sequence_is_drawn() -> None:
    drawn = Counter(injection.fault for plan in _plans(100) for injection in plan)
    assert set(drawn) == set(FAULTS)
    assert min(drawn.values()) >= 5
    for sequence in SEQUENCES:
        assert sequence.parts <= set(FAULTS)


def test_what_is_meant_for_one_protocol_is_drawn_for_it_alone() -> None:
    plans = {
        protocol: [
            draw_injections(seed, replace(SETTING, protocols=frozenset({protocol})), list(FAULTS)) for seed in range(60)
        ]
        for protocol in ("raft", "paxos")
    }
    assert plans["raft"] == [draw_injections(seed, SETTING, list(FAULTS)) for seed in range(60)]
    assert plans["paxos"] != plans["raft"]


def test_runs_differ_in_kind() -> None:
    kinds = [frozenset(injection.fault for injection in plan) for plan in _plans(100)]
    assert len(set(kinds)) > 80
    assert sum(len(kind) == 1 for kind in kinds) >= 5
    assert sum(len(kind) > 12 for kind in kinds) >= 5


def test_only_what_is_enabled_is_drawn() -> None:
    names = ["crash", "partition-halves"]
    for seed in range(50):
        assert {injection.fault for injection in draw_injections(seed, SETTING, names)} <= set(names)
    assert draw_injections(1, SETTING, []) == ()


@pytest.mark.parametrize(("nodes", "clients"), [(1, 0), (2, 1)])
def test_small_worlds_bear_every_fault(nodes: int, clients: int) -> None:
    stage = Stage(nodes, clients)
    for seed in range(20):
        for injection in draw_injections(seed, Setting(nodes, clients, 0.0, 60.0), list(FAULTS)):
            stage.world.schedule([injection], FAULTS)
    stage.simulation.pass_until(5.0)
    assert not stage.violations


def test_most_of_the_time_a_quorum_can_work_and_often_it_cannot() -> None:
    step_s, steps, disabled, troubled = 0.25, 0, 0, 0
    for plan in _plans(200):
        bad = [injection for injection in plan if injection.for_s < SETTING.end_s]
        for step in range(int(SETTING.end_s / step_s)):
            at_s = step * step_s
            now = [injection for injection in bad if injection.at_s <= at_s < injection.at_s + injection.for_s]
            targets = [injection.target for injection in now if injection.fault in DISABLING]
            nodes = sum(2 if target in ("all", "majority") else not target.startswith("client") for target in targets)
            steps += 1
            disabled += nodes >= 2
            troubled += bool(now)
    assert 0.05 < disabled / steps < 0.25
    assert 0.4 < troubled / steps < 0.75


def test_draws_do_not_depend_on_the_order_of_names_or_on_hashes() -> None:
    assert draw_injections(7, SETTING, list(FAULTS)) == draw_injections(7, SETTING, list(FAULTS)[::-1])
    code = (
        "from tests.simulation.test_faults_drawing import run_with_faults, _plans\n"
        "import hashlib\n"
        "print(hashlib.sha256(repr(_plans(50)).encode()).hexdigest())\n"
        "stage = run_with_faults(3, 10.0)\n"
        "print(stage.simulation.digest(), sorted(stage.world.coverage.items()))\n"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert answers[0] == answers[1]
    assert len(answers[0].splitlines()) == 2


def run_with_faults(seed: int, duration_s: float) -> Stage:
    """A cluster of three under drawn faults for a while, with clients that write; not healed yet."""
    stage = Stage(clients=4, seed=seed, spares=2)
    setting = Setting(nodes=3, clients=4, begin_s=0.0, end_s=duration_s)
    stage.world.schedule(draw_injections(seed, setting, list(FAULTS)), FAULTS)
    for client in range(4):
        stage.write_from(client, size_bytes=200 if client else 2000, pause_s=0.1)
    stage.simulation.pass_until(duration_s)
    return stage


@pytest.mark.parametrize("seed", range(4))
def test_a_cluster_comes_back_from_everything(seed: int) -> None:
    stage = run_with_faults(seed, 20.0)
    assert not stage.violations
    stage.world.heal()
    stage.pass_time(12)
    assert not stage.violations
    stage.wait_for(lambda: not stage.world.operator.unsettled(), within_s=40.0)
    assert stage.cluster.leader() is not None
    assert stage.writes_within(3.0) > 20


def test_heal_leaves_no_trace_of_any_fault() -> None:
    stage = Stage(clients=2)
    stage.elected()
    for name in FAULTS:
        target = "client-1,all" if name in ("pause", "partition-client") else "0"
        amount = {"clock-skew": 0.02, "clock-jump": 5000.0, "resets": 0.1, "partition-flapping": 0.3}.get(name, 0.3)
        # The damage, which does not heal, comes in other tests.
        if name != "corruption":
            stage.begin(name, target, amount)
    stage.pass_time(1.0)
    touched = set(stage.world.coverage)
    assert {"crash", "power-loss", "pause", "delay", "loss", "full-disk", "failing-disk", "slow-disk"} <= touched
    stage.world.heal()
    stage.pass_time(0.0)
    network = stage.simulation.network
    for quality in network.qualities.values():
        assert (quality.cuts, quality.loss, quality.delay_factor) == (0, 0.0, 1.0)
    assert network.split_share == 0.0
    assert stage.mailbox.rates is None
    for disk in stage.cluster.disks.values():
        assert disk.capacity_bytes is None and disk.ops_until_death is None
        assert disk.sync_s == SYNC_S and not disk.failing_syncs
    assert stage.world.up() == [0, 1, 2]
    for machine in stage.simulation.machines.values():
        assert machine.paused_until_s <= stage.simulation.now_s
        assert machine.wall_jump_ms == 0
        local_s = machine.local_s()
        now_s = stage.simulation.now_s
        assert machine.true_of(local_s + 1.0) == pytest.approx(now_s + 1.0)
    resets = network.connections_reset
    stage.pass_time(3)
    assert network.connections_reset == resets
    assert stage.closed() == set()
    assert client_host(0) in stage.simulation.machines
    assert not stage.violations


def test_nothing_begins_after_heal() -> None:
    stage = Stage()
    stage.elected()
    now_s = stage.simulation.now_s
    stage.world.schedule([Injection("crash", now_s + 1.0, 1.0, "all")], FAULTS)
    stage.world.heal()
    stage.pass_time(1.5)
    assert stage.world.up() == [0, 1, 2]
