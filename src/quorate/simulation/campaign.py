"""Many runs over many processes, and what they came to together.

for summary in campaign((draw_plan(seed, options) for seed in range(100)), run, jobs=2):
    print(summary.plan.seed, summary.check or "all is well")
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from quorate.simulation.plan import Outcome, Plan
from quorate.simulation.violation import Violation
from quorate.simulation.workers import Lost, Workers

TICK_S = 0.25
"""How often, in real time, somebody who waits for runs is told that time passes."""

COVERAGE_RUNS, COVERAGE_S, COVERAGE_NODES = 20, 1200.0, 3
"""A campaign of so many runs, with so many simulated seconds in all, of so many nodes must exercise everything.

With fewer nodes leaders never step down and no node may be damaged; a short run is over before its snapshots.
"""
EVERY_FAULT_RUNS = 100
"""In so many runs every fault must act: each run has but some of them."""

DETERMINISM = "determinism"


class Runner(Protocol):
    """`quorate.simulation.run.run`, or a fake of it.  A function of a module, because other processes call it."""

    def __call__(self, plan: Plan, *, record: bool = False) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a run, without its trace: it goes from process to process."""

    plan: Plan
    check: str = ""
    """The check that was violated; "" where all is well."""
    text: str = ""
    violated_at_s: float = 0.0
    coverage: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""
    simulated_s: float = 0.0
    real_s: float = 0.0


def summarize(run: Runner, plan: Plan) -> Summary:
    """Do a run.  Raises what `run` raises, but for Violation."""
    started = time.perf_counter()
    try:
        outcome = run(plan)
    except Violation as violation:
        outcome = Outcome(plan, violation)
    return summary_of(outcome, time.perf_counter() - started)


def summary_of(outcome: Outcome, real_s: float) -> Summary:
    violation = outcome.violation
    return Summary(
        plan=outcome.plan,
        check=violation.check if violation is not None else "",
        text=violation.text if violation is not None else "",
        violated_at_s=outcome.violated_at_s,
        coverage=dict(outcome.coverage),
        digest=outcome.digest,
        simulated_s=outcome.simulated_s,
        real_s=real_s,
    )


def summary_of_lost(plan: Plan, lost: Lost) -> Summary:
    """A run that came to no end is a violation too: of the simulator's own promise, or of the code that it runs."""
    return Summary(plan, lost.why, lost.text)


def time_limit_s(plan: Plan) -> float:
    """How much processor time a run may take before it counts as hanging: some thirty times what it should need."""
    size = max(1.0, plan.nodes / 3) * max(1.0, plan.operations_per_s / 100)
    return 240.0 + size * (plan.duration_s + 60.0)


def nothing() -> None:
    pass


def campaign(
    plans: Iterable[Plan],
    run: Runner,
    jobs: int,
    *,
    keep_going: bool = False,
    twice: bool = False,
    limit_s: Callable[[Plan], float] = time_limit_s,
    on_tick: Callable[[], None] = nothing,
) -> Generator[Summary, None, None]:
    """Run all plans in up to `jobs` processes; a summary of each, as they end.

    Without `keep_going`, no run is begun after a violation, but those under way come to their end.  So the first
    failing plan of all is always among the failures, however fast the processes are.  With `twice`, each plan
    that went well is run again, in another process where there is one, and a difference is a violation.

    Closing the generator kills the processes.
    """
    schedule = _Schedule(iter(plans), jobs)
    with Workers(jobs, partial(summarize, run)) as workers:
        while True:
            for worker in workers.idle:
                plan = schedule.next_for(worker)
                if plan is not None:
                    workers.begin(worker, plan, limit_s(plan))
            if not workers.busy:
                return
            for worker, plan, result in workers.wait(TICK_S):
                summary = summary_of_lost(plan, result) if isinstance(result, Lost) else result
                ended = schedule.ended(worker, summary) if twice else summary
                if ended is None:
                    continue
                if ended.check and not keep_going:
                    schedule.stop()
                yield ended
            on_tick()


@dataclass(slots=True)
class _Schedule:
    """Which plan is run next, and where."""

    plans: Iterator[Plan]
    jobs: int
    again: deque[tuple[int, Plan]] = field(default_factory=deque)
    """Plans that are to be run a second time, with the worker of the first time."""
    first: dict[int, Summary] = field(default_factory=dict)
    """By seed: what the first of two runs came to."""

    def next_for(self, worker: int) -> Plan | None:
        for entry in self.again:
            # Another process has another hash seed and another past, which must not matter.
            if entry[0] != worker or self.jobs == 1:
                self.again.remove(entry)
                return entry[1]
        return next(self.plans, None)

    def ended(self, worker: int, summary: Summary) -> Summary | None:
        """The summary of both runs of a plan; None after the first, where that went well."""
        first = self.first.pop(summary.plan.seed, None)
        if first is None:
            if summary.check:
                return summary
            self.first[summary.plan.seed] = summary
            self.again.append((worker, summary.plan))
            return None
        if not summary.check and summary.digest == first.digest:
            return first
        second = summary.digest if not summary.check else f"{summary.check}: {summary.text}"
        return replace(first, check=DETERMINISM, text=f"the first run came to {first.digest}, the second to {second}")

    def stop(self) -> None:
        """Begin no other plan.  Those begun still get their second run."""
        self.plans = iter(())


@dataclass(slots=True)
class Totals:
    """What a campaign came to, from whatever order in which its runs end."""

    runs: int = 0
    simulated_s: float = 0.0
    coverage: Counter[str] = field(default_factory=Counter)
    in_runs: Counter[str] = field(default_factory=Counter)
    """How many runs exercised a thing at all."""
    faults: dict[str, None] = field(default_factory=dict)
    """Those that were drawn from, in order: they are told also where none was drawn."""
    failures: dict[int, Summary] = field(default_factory=dict)
    """By seed."""
    digests: dict[int, str] = field(default_factory=dict)
    """By seed."""

    def add(self, summary: Summary) -> None:
        self.runs += 1
        self.simulated_s += summary.simulated_s
        self.digests[summary.plan.seed] = summary.digest
        self.faults.update(dict.fromkeys(summary.plan.faults))
        for name, count in summary.coverage.items():
            self.coverage[name] += count
            self.in_runs[name] += count > 0
        if summary.check:
            self.failures[summary.plan.seed] = summary

    def digest(self) -> str:
        """Equal for equal campaigns."""
        runs = sorted(self.digests.items())
        return hashlib.blake2b(repr(runs).encode(), digest_size=16).hexdigest()

    def first_failures(self) -> list[Summary]:
        """The failing run with the lowest seed of each check, by seed."""
        first: dict[str, Summary] = {}
        for _, summary in sorted(self.failures.items()):
            first.setdefault(summary.check, summary)
        return list(first.values())

    def missing(self, required: Collection[str]) -> list[str]:
        """What no run exercised, though it had to be."""
        return [name for name in required if not self.coverage[name]]
