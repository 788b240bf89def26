"""Shrinking finds exactly what was planted, by few runs, whatever the number of processes."""

from __future__ import annotations

import pytest

from quorate.simulation.campaign import Runner, Summary, summary_of
from quorate.simulation.plan import Injection, Plan
from quorate.simulation.shrink import Progress, shrink
from tests.simulation.fake_runs import (
    CULPRIT,
    POISON,
    harmless_injections,
    run_badly_with_13_and_15,
    run_poisoned,
    run_when_crash_of_0_precedes_poison,
)


def failure(run: Runner, plan: Plan) -> Summary:
    summary = summary_of(run(plan), 0.0)
    assert summary.check
    return summary


def poisoned_plan(harmless: int) -> Plan:
    injections = sorted([*harmless_injections(harmless), CULPRIT], key=lambda injection: injection.at_s)
    return Plan(seed=7, injections=tuple(injections))


@pytest.fixture(scope="module")
def shrunk() -> Progress:
    progress = Progress(failure(run_poisoned, poisoned_plan(40)), max_tries=200)
    shrink(progress, run_poisoned, jobs=2)
    return progress


def test_only_the_injection_that_does_it_is_left(shrunk: Progress) -> None:
    assert [(injection.fault, injection.at_s) for injection in shrunk.smallest.plan.injections] == [(POISON, 21.5)]
    assert shrunk.smallest.check == "poisoned", "a smaller plan that violates something else is no answer"


def test_it_is_as_short_as_it_may_be(shrunk: Progress) -> None:
    plan = shrunk.smallest.plan
    assert plan.injections[0].for_s <= 0.1
    assert plan.duration_s <= 21.8


def test_only_the_client_that_does_it_is_left_with_few_operations(shrunk: Progress) -> None:
    assert shrunk.smallest.plan.client_numbers == (3,)
    assert shrunk.smallest.plan.max_operations == 8, "five are needed, and powers of two are tried"


def test_what_is_not_shrunk_stays(shrunk: Progress) -> None:
    plan = shrunk.smallest.plan
    assert (plan.seed, plan.nodes, plan.protocol, plan.clients) == (7, 3, None, 10)


def test_it_takes_few_runs(shrunk: Progress) -> None:
    assert shrunk.tries <= 80


def test_more_processes_come_to_the_same(shrunk: Progress) -> None:
    progress = Progress(failure(run_poisoned, poisoned_plan(40)), max_tries=200)
    shrink(progress, run_poisoned, jobs=1)
    assert progress.smallest.plan == shrunk.smallest.plan
    assert progress.tries == shrunk.tries


@pytest.mark.parametrize("max_tries", [1, 5])
def test_it_ends_after_so_many_tries_with_what_it_has(max_tries: int) -> None:
    failed = failure(run_poisoned, poisoned_plan(40))
    progress = Progress(failed, max_tries)
    shrink(progress, run_poisoned, jobs=2)
    assert progress.tries == max_tries
    assert len(progress.smallest.plan.injections) < len(failed.plan.injections), "what comes after the violation"
    assert progress.smallest.check == "poisoned"


def test_a_failure_that_needs_nothing_loses_everything() -> None:
    plan = Plan(seed=13, injections=harmless_injections(20))
    progress = Progress(failure(run_badly_with_13_and_15, plan), max_tries=100)
    shrink(progress, run_badly_with_13_and_15, jobs=2)
    assert progress.smallest.plan.injections == ()
    assert progress.smallest.plan.client_numbers == ()
    assert progress.smallest.plan.duration_s <= 0.1
    assert progress.tries <= 15


def test_interrupting_leaves_the_smallest_so_far() -> None:
    progress = Progress(failure(run_poisoned, poisoned_plan(40)), max_tries=200)

    def interrupt() -> None:
        if progress.tries >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shrink(progress, run_poisoned, jobs=2, on_tick=interrupt)
    assert len(progress.smallest.plan.injections) < 41
    assert CULPRIT in progress.smallest.plan.injections


def test_several_causes_are_all_kept() -> None:
    both = (Injection("crash", 1.0, 0.0, "0"), *harmless_injections(15, duration_s=5.0), Injection(POISON, 5.0, 0.0))
    progress = Progress(failure(run_when_crash_of_0_precedes_poison, Plan(seed=1, injections=both)), max_tries=200)
    shrink(progress, run_when_crash_of_0_precedes_poison, jobs=2)
    assert progress.smallest.plan.injections == (both[0], both[-1])
