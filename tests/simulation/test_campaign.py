"""Campaigns of planted runs: what comes back, when they stop, and what becomes of processes that hang or die."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest

from quorate.simulation.campaign import Runner, Summary, Totals, campaign, time_limit_s
from quorate.simulation.plan import Plan
from quorate.simulation.workers import HANG
from tests.simulation.fake_runs import (
    run_badly_with_13_and_15,
    run_by_process,
    run_into_death,
    run_raising,
    run_that_sleeps,
    run_well,
    run_without_end,
)


def plans(*seeds: int) -> Iterator[Plan]:
    return (Plan(seed=seed, duration_s=10.0) for seed in seeds)


def checks(summaries: Iterator[Summary]) -> dict[int, str]:
    return {summary.plan.seed: summary.check for summary in summaries}


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_plan_is_run_once(jobs: int) -> None:
    totals = Totals()
    for summary in campaign(plans(*range(20)), run_well, jobs):
        assert summary.check == ""
        totals.add(summary)
    assert sorted(totals.digests) == list(range(20))
    assert totals.runs == 20
    assert totals.simulated_s == 200.0
    assert totals.coverage["elections"] == 40
    assert totals.in_runs["elections"] == 20
    assert totals.in_runs["watches fired"] == 0
    assert totals.missing(["elections", "watches fired", "never heard of"]) == ["watches fired", "never heard of"]


def test_the_digest_of_a_campaign_does_not_depend_on_the_order_of_its_ends() -> None:
    summaries = [Summary(Plan(seed=seed), digest=f"digest of {seed}") for seed in range(5)]
    totals, reverse, other = Totals(), Totals(), Totals()
    for summary in summaries:
        totals.add(summary)
    for summary in reversed(summaries):
        reverse.add(summary)
    for summary in summaries[:4]:
        other.add(summary)
    assert totals.digest() == reverse.digest() != other.digest()


def test_a_violation_ends_a_campaign_with_the_lowest_failing_seed_among_its_runs() -> None:
    found = checks(campaign(plans(*range(10, 1000)), run_badly_with_13_and_15, 3))
    assert found[13] == "unlucky"
    assert set(range(10, 13)) <= set(found)
    assert len(found) <= 3 + 2 * 3  # those before it, and what was under way in three processes


def test_keep_going_runs_all_and_tells_all_failures() -> None:
    totals = Totals()
    for summary in campaign(plans(*range(10, 20)), run_badly_with_13_and_15, 2, keep_going=True):
        totals.add(summary)
    assert totals.runs == 10
    assert sorted(totals.failures) == [13, 15, 17]
    assert [summary.plan.seed for summary in totals.first_failures()] == [13, 15]
    assert totals.failures[13].text == "it is 13"
    assert totals.failures[13].violated_at_s == 12.5


def test_what_a_run_raises_is_a_violation() -> None:
    summaries = {summary.plan.seed: summary for summary in campaign(plans(1, 2, 3, 4), run_raising, 1, keep_going=True)}
    assert [summaries[seed].check for seed in (1, 2, 3, 4)] == ["", "error LookupError", "", "raised"]
    assert "there is no such thing" in summaries[2].text
    assert "run_raising" in summaries[2].text, "a traceback says where"
    assert summaries[4].text == "all the way"


def test_a_run_that_turns_in_circles_is_ended_and_told_and_the_others_are_not_lost() -> None:
    def limit_s(plan: Plan) -> float:
        return 1.0 if plan.seed == 1 else 60.0

    ran = list(campaign(plans(*range(6)), run_without_end, 2, keep_going=True, limit_s=limit_s))
    assert checks(iter(ran)) == {0: "", 1: HANG, 2: "", 3: "", 4: "", 5: ""}
    assert next(summary.text for summary in ran if summary.check) == "no end after 1 s of processor time"


def test_a_run_that_does_nothing_is_ended_too() -> None:
    def limit_s(plan: Plan) -> float:
        return 0.2 if plan.seed == 1 else 60.0

    assert checks(campaign(plans(0, 1), run_that_sleeps, 1, limit_s=limit_s)) == {0: "", 1: HANG}


def test_a_process_that_dies_is_told_and_replaced() -> None:
    summaries = {summary.plan.seed: summary for summary in campaign(plans(0, 1, 2), run_into_death, 1, keep_going=True)}
    assert [summaries[seed].check for seed in (0, 1, 2)] == ["", "died", ""]
    assert "code 9" in summaries[1].text


def test_twice_finds_a_run_that_depends_on_its_process() -> None:
    assert checks(campaign(plans(*range(6)), run_by_process, 2, keep_going=True)) == dict.fromkeys(range(6), "")
    found = list(campaign(plans(*range(6)), run_by_process, 2, keep_going=True, twice=True))
    assert checks(iter(found)) == {0: "", 1: "", 2: "", 3: "determinism", 4: "", 5: ""}
    assert len(found) == 6, "two runs, one summary"


@pytest.mark.parametrize("run", [run_well, run_badly_with_13_and_15])
def test_twice_finds_nothing_in_runs_that_are_the_same(run: Runner) -> None:
    found = checks(campaign(plans(12, 13), run, 1, keep_going=True, twice=True))
    assert found == {12: "", 13: "unlucky" if run is run_badly_with_13_and_15 else ""}


def test_closing_a_campaign_ends_its_processes() -> None:
    summaries = campaign(plans(1, 2, 3), run_without_end, 2)
    assert next(summaries).plan.seed == 2, "seed 1 hangs in the other process"
    assert multiprocessing.active_children()
    summaries.close()
    assert not multiprocessing.active_children()


def test_a_tick_comes_while_nothing_ends() -> None:
    class Enough(Exception):
        pass

    def tick() -> None:
        raise Enough

    with pytest.raises(Enough):
        list(campaign(plans(1), run_without_end, 1, on_tick=tick))
    assert not multiprocessing.active_children()


def test_larger_runs_may_take_longer() -> None:
    usual = time_limit_s(Plan(seed=0))
    assert usual > 60
    assert time_limit_s(Plan(seed=0, duration_s=600.0)) > usual
    assert time_limit_s(Plan(seed=0, nodes=5)) > usual
    assert time_limit_s(Plan(seed=0, operations_per_s=1000.0)) > usual
