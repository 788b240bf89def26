"""Faults that change the members do so, and what they leave behind settles."""

from __future__ import annotations

import pytest

from tests.simulation.faults_stage import Stage


def _stage(seed: str = "members") -> Stage:
    stage = Stage(seed=seed, spares=2)
    stage.write_from(0)
    stage.wait_for(lambda: (newest := stage.world.operator.newest()) is not None and not newest.under_way())
    return stage


def _voters(stage: Stage) -> list[int]:
    newest = stage.world.operator.newest()
    assert newest is not None
    return newest.voters


def _settle(stage: Stage) -> None:
    stage.world.heal()
    stage.wait_for(lambda: not stage.world.operator.unsettled(), within_s=40.0)
    assert stage.writes_within(2.0) > 10
    assert not stage.violations


def test_a_spare_is_added_and_promoted() -> None:
    stage = _stage()
    stage.begin("add-member", amount=1.0)
    stage.wait_for(lambda: len(_voters(stage)) == 4)
    _settle(stage)
    assert stage.count("add-member") == 1
    assert stage.observer.coverage()["learners_promoted"] == 2


def test_the_leader_is_replaced_and_its_process_ends() -> None:
    stage = _stage()
    leader = stage.elected()
    stage.begin("replace-member", "leader")
    stage.wait_for(lambda: stage.count("nodes ended as removed") == 1)
    assert leader not in stage.world.in_service and leader not in _voters(stage)
    _settle(stage)


def test_a_node_that_was_removed_may_be_added_with_an_empty_folder() -> None:
    stage = _stage()
    for added in (1, 2, 3):
        stage.begin("add-member", amount=1.0, for_s=6.0)  # goes on while it is removed: it must not be added again
        while stage.count("add-member") < added or len(_voters(stage)) == 3:
            stage.pass_time(0.1)
        stage.begin("remove-member", "follower", for_s=6.0)
        stage.wait_for(lambda: len(_voters(stage)) == 3)
        stage.pass_time(7.0)
    _settle(stage)


def test_a_removal_that_is_not_forced_leaves_a_failure_to_be_borne() -> None:
    stage = _stage()
    stage.begin("remove-member", "follower", for_s=3.0)
    stage.pass_time(4.0)
    assert _voters(stage) == [0, 1, 2] and stage.count("changes refused") > 2
    stage.begin("remove-member", "follower", 1.0, for_s=3.0)
    stage.pass_time(4.0)
    assert len(_voters(stage)) == 2
    _settle(stage)


@pytest.mark.parametrize("target", ["leader", "follower"])
def test_somebody_goes_amid_a_change(target: str) -> None:
    stage = _stage()
    stage.begin("crash-amid-change", target, 0.0, for_s=8.0)
    stage.begin("replace-member", "0", for_s=8.0)
    stage.pass_time(8.5)
    assert stage.count("crash-amid-change") >= 1
    assert not stage.observer.on_configuration
    _settle(stage)


def test_leaderships_are_handed_over() -> None:
    stage = _stage()
    stage.begin("transfer", "all", 0.3, for_s=5.0)
    stage.pass_time(6.0)
    assert stage.count("transfers done") > 3
    _settle(stage)


def test_a_wiped_leader_is_filled_and_votes_again() -> None:
    stage = _stage()
    leader = stage.elected()
    stage.begin("wipe", "leader", 1.0, for_s=0.5)
    assert not any(stage.world.operator.may_lose(node) for node in range(3) if node != leader)
    stage.wait_for(lambda: all(stage.world.operator.may_lose(node) for node in range(3)))
    _settle(stage)
    assert _voters(stage) == [0, 1, 2]
