"""Making a failing run smaller: the same check violated with fewer faults, clients, operations, in less time.

The lists of a plan are shrunk by delta debugging (Zeller and Hildebrandt, *Simplifying and Isolating Failure-Inducing
Input*, 2002; complements only, which for one cause is a search by halves), the numbers by trying small ones first.
Candidates are run side by side in all processes, and the first in order that violates the same check is taken.  So
what comes out follows from the plan and the number of tries, not from how many processes there are, or how fast.

Nodes are never fewer: a cluster of another size has other quorums, and its failure would be another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Protocol, TypeVar

import msgspec

from quorate.simulation.campaign import (
    TICK_S,
    Runner,
    Summary,
    nothing,
    summarize,
    summary_of_lost,
    time_limit_s,
)
from quorate.simulation.plan import Plan
from quorate.simulation.workers import Lost, Workers

Item = TypeVar("Item")

AFTER_VIOLATION_S = 0.1
"""A run is cut so much later than its violation was seen."""

SHORTEST_S = 0.05
"""No injection and no run is made shorter: it would be no easier to read."""

FRACTIONS = (0.125, 0.25, 0.5, 0.75)


@dataclass(slots=True)
class Progress:
    """How far shrinking has come.  Whoever interrupts it still has `smallest`."""

    smallest: Summary
    """Violates the same check as the run that was to be shrunk."""
    max_tries: int
    tries: int = 0
    """Runs whose outcome was asked for.  A few more are begun in advance."""


def shrink(
    progress: Progress,
    run: Runner,
    jobs: int,
    *,
    limit_s: Callable[[Plan], float] = time_limit_s,
    on_tick: Callable[[], None] = nothing,
) -> None:
    """Make the plan of a failed run smaller, until nothing can be taken from it or the tries are used up."""
    assert progress.smallest.check, "a run that went well has nothing to shrink"
    with Workers(jobs, partial(summarize, run)) as workers:
        shrink_on(workers, progress, limit_s=limit_s, on_tick=on_tick)


class Tries(Protocol):
    """Whoever runs plans: `Workers`, or something like them where runs cannot go to other processes."""

    @property
    def idle(self) -> Sequence[int]: ...

    def begin(self, worker: int, task: Plan, limit_s: float) -> None: ...

    def wait(self, timeout_s: float) -> Sequence[tuple[int, Plan, Summary | Lost]]: ...


def shrink_on(
    workers: Tries,
    progress: Progress,
    *,
    limit_s: Callable[[Plan], float] = time_limit_s,
    on_tick: Callable[[], None] = nothing,
) -> None:
    """As `shrink`, with runs by these workers."""
    tester = _Tester(progress, workers, limit_s, on_tick)
    while not tester.is_exhausted:
        before = tester.plan
        for reduce in (_cut_after_violation, _drop_injections, _drop_clients, _drop_operations, _shorten):
            reduce(tester)
        if tester.plan == before:
            return


@dataclass(slots=True)
class _Tester:
    """Tries plans, and keeps the smallest that fails."""

    progress: Progress
    workers: Tries
    limit_s: Callable[[Plan], float]
    on_tick: Callable[[], None]
    known: dict[Plan, Summary] = field(default_factory=dict)
    begun: set[Plan] = field(default_factory=set)
    counted: set[Plan] = field(default_factory=set)

    @property
    def plan(self) -> Plan:
        return self.progress.smallest.plan

    @property
    def is_exhausted(self) -> bool:
        return self.progress.tries >= self.progress.max_tries

    def adopt(self, candidates: Sequence[Plan]) -> bool:
        """Go on with the first of these plans that fails.  False where none does, or the tries are used up."""
        candidates = [plan for plan in candidates if plan != self.plan]
        for number, plan in enumerate(candidates):
            if plan not in self.counted:
                if self.is_exhausted:
                    return False
                self.progress.tries += 1
                self.counted.add(plan)
            summary = self._outcome(candidates[number:])
            if summary.check == self.progress.smallest.check:
                self.progress.smallest = summary
                return True
        return False

    def _outcome(self, plans: Sequence[Plan]) -> Summary:
        """What the first of these plans comes to; processes with nothing to do take up the others meanwhile."""
        while plans[0] not in self.known:
            fresh = (plan for plan in plans if plan not in self.begun)
            for worker, plan in zip(self.workers.idle, fresh, strict=False):
                self.workers.begin(worker, plan, self.limit_s(plan))
                self.begun.add(plan)
            for _, plan, result in self.workers.wait(TICK_S):
                self.known[plan] = summary_of_lost(plan, result) if isinstance(result, Lost) else result
            self.on_tick()
        return self.known[plans[0]]


def _cut_after_violation(tester: _Tester) -> None:
    """Let the run end where the violation was seen, and drop what was to be injected later."""
    plan, violated_at_s = tester.plan, tester.progress.smallest.violated_at_s
    earlier = tuple(injection for injection in plan.injections if injection.at_s <= violated_at_s)
    duration_s = min(plan.duration_s, round(violated_at_s + AFTER_VIOLATION_S, 3))
    tester.adopt(
        [
            msgspec.structs.replace(plan, injections=earlier, duration_s=duration_s),
            msgspec.structs.replace(plan, injections=earlier),
        ]
    )


def _drop_injections(tester: _Tester) -> None:
    _minimize(
        tester,
        lambda plan: plan.injections,
        lambda plan, injections: msgspec.structs.replace(plan, injections=injections),
    )


def clients_of(plan: Plan) -> tuple[int, ...]:
    return tuple(range(plan.clients)) if plan.client_numbers is None else plan.client_numbers


def _drop_clients(tester: _Tester) -> None:
    _minimize(
        tester,
        clients_of,
        lambda plan, numbers: msgspec.structs.replace(plan, client_numbers=numbers),
    )


def _minimize(
    tester: _Tester,
    items_of: Callable[[Plan], tuple[Item, ...]],
    with_items: Callable[[Plan, tuple[Item, ...]], Plan],
) -> None:
    """Delta debugging: drop parts of a list, first large ones, until no single item can be dropped."""
    if items_of(tester.plan) and tester.adopt([with_items(tester.plan, ())]):
        return
    parts = 2
    while len(items := items_of(tester.plan)) > 1:
        parts = min(parts, len(items))
        bounds = [len(items) * part // parts for part in range(parts + 1)]
        without = [items[:begin] + items[end:] for begin, end in pairwise(bounds)]
        if tester.adopt([with_items(tester.plan, smaller) for smaller in without]):
            parts = max(2, parts - 1)
        elif parts == len(items):
            return
        else:
            parts *= 2


def _drop_operations(tester: _Tester) -> None:
    plan, clients = tester.plan, len(clients_of(tester.plan))
    if not clients:
        return
    most = plan.max_operations
    if most is None:
        most = math.ceil(plan.operations_per_s * plan.duration_s / clients)
    fewer = [2**power for power in range(most.bit_length()) if 2**power < most]
    tester.adopt([msgspec.structs.replace(plan, max_operations=number) for number in fewer])


def _shorten(tester: _Tester) -> None:
    """Shorter injections, all of them and one by one; then a shorter run, without what would begin after its end."""
    plan = tester.plan
    tester.adopt([_with_shorter_injections(plan, range(len(plan.injections)), part) for part in FRACTIONS])
    for number in range(len(plan.injections)):
        tester.adopt([_with_shorter_injections(tester.plan, [number], part) for part in FRACTIONS])
    plan = tester.plan
    ends = [injection.at_s + injection.for_s for injection in plan.injections]
    durations = [plan.duration_s * part for part in FRACTIONS]
    durations.append(max(ends, default=0.0) + AFTER_VIOLATION_S)
    tester.adopt(
        [
            msgspec.structs.replace(
                plan,
                duration_s=round(duration_s, 3),
                injections=tuple(injection for injection in plan.injections if injection.at_s < duration_s),
            )
            for duration_s in sorted(durations)
            if SHORTEST_S <= duration_s < plan.duration_s
        ]
    )


def _with_shorter_injections(plan: Plan, numbers: Sequence[int], part: float) -> Plan:
    """The same plan where nothing can be made shorter."""
    injections = list(plan.injections)
    for number in numbers:
        for_s = round(injections[number].for_s * part, 3)
        if for_s >= SHORTEST_S:
            injections[number] = msgspec.structs.replace(injections[number], for_s=for_s)
    return msgspec.structs.replace(plan, injections=tuple(injections))
