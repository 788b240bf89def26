"""Runs that simulate nothing: what comes of a plan is planted, and known beforehand.

Functions of a module, because processes call them.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from random import Random

from quorate.simulation.plan import Injection, Outcome, Plan
from quorate.simulation.trace import Trace
from quorate.simulation.violation import Violation

POISON = "poison"
CULPRIT = Injection(POISON, 21.5, 4.0, "leader", 2.0)


def harmless_injections(number: int, duration_s: float = 60.0) -> tuple[Injection, ...]:
    random = Random("harmless")
    return tuple(
        Injection(random.choice(["delay", "crash"]), round(random.uniform(0, duration_s), 3), 2.0, str(number % 3))
        for number in range(number)
    )


def run_well(plan: Plan, *, record: bool = False) -> Outcome:
    """Nothing goes wrong."""
    coverage = Counter({"operations": 100, "elections": 2, "watches fired": 0})
    coverage.update(injection.fault for injection in plan.injections)
    outcome = Outcome(plan, coverage=coverage, digest=f"digest of {plan.seed}", simulated_s=plan.duration_s)
    if record:
        outcome.trace = _trace(outcome)
    return outcome


def run_badly_with_13_and_15(plan: Plan, *, record: bool = False) -> Outcome:
    """Seeds 13 and 15 violate different promises, and 17 the same as 13."""
    outcome = run_well(plan)
    if plan.seed in (13, 17):
        outcome.violation = Violation("unlucky", f"it is {plan.seed}")
    if plan.seed == 15:
        outcome.violation = Violation("fifteen", "it is what it is")
    outcome.violated_at_s = 12.5 if outcome.violation else 0.0
    if record:
        outcome.trace = _trace(outcome)
    return outcome


def run_poisoned(plan: Plan, *, record: bool = False) -> Outcome:
    """The injection of poison is what does it, if client 3 takes part and does five operations."""
    outcome = run_well(plan)
    poisons = [injection for injection in plan.injections if injection.fault == POISON]
    clients = range(plan.clients) if plan.client_numbers is None else plan.client_numbers
    operations = 1000 if plan.max_operations is None else plan.max_operations
    if poisons and poisons[0].at_s < plan.duration_s and 3 in clients and operations >= 5:
        outcome.violation = Violation("poisoned", "somebody drank it")
        outcome.violated_at_s = poisons[0].at_s + 1.0
    elif not plan.injections:
        outcome.violation = Violation("another check", "which is not what is looked for")
    if record:
        outcome.trace = _trace(outcome)
    return outcome


def run_found_in_the_end(plan: Plan, *, record: bool = False) -> Outcome:
    """What a client had seen turns out to be wrong."""
    outcome = run_well(plan, record=record)
    text = "invalid as a lock:\nclient-0/1 acquire from 1.0 on: nobody knows the outcome"
    outcome.violation = Violation("linearizability", text, "client-0", 1.8)
    return outcome


def run_when_crash_of_0_precedes_poison(plan: Plan, *, record: bool = False) -> Outcome:
    """Two injections together do it."""
    outcome = run_well(plan, record=record)
    crashes = [injection.at_s for injection in plan.injections if injection.fault == "crash" and injection.for_s == 0]
    poisons = [injection.at_s for injection in plan.injections if injection.fault == POISON]
    if crashes and poisons and crashes[0] < poisons[0] <= plan.duration_s:
        outcome.violation = Violation("both", "neither would do it alone")
        outcome.violated_at_s = poisons[0]
    return outcome


def run_raising(plan: Plan, *, record: bool = False) -> Outcome:
    """Seed 2 finds a bug in the simulator, and seed 4 a violation that nobody caught."""
    if plan.seed == 2:
        raise LookupError("there is no such thing")
    if plan.seed == 4:
        raise Violation("raised", "all the way")
    return run_well(plan, record=record)


def run_that_sleeps(plan: Plan, *, record: bool = False) -> Outcome:
    """Seed 1 waits for nothing."""
    if plan.seed == 1:
        threading.Event().wait()
    return run_well(plan, record=record)


def run_without_end(plan: Plan, *, record: bool = False) -> Outcome:
    """Seed 1 turns in circles."""
    while plan.seed == 1:
        pass
    return run_well(plan, record=record)


def run_into_death(plan: Plan, *, record: bool = False) -> Outcome:
    """Seed 1 takes its process along."""
    if plan.seed == 1:
        os._exit(9)
    return run_well(plan, record=record)


def run_by_process(plan: Plan, *, record: bool = False) -> Outcome:
    """What comes of seed 3 depends on the process."""
    outcome = run_well(plan, record=record)
    if plan.seed == 3:
        outcome.digest = f"process {os.getpid()}"
    return outcome


def run_badly_by_process(plan: Plan, *, record: bool = False) -> Outcome:
    """A violation, in a run that depends on the process."""
    outcome = run_well(plan, record=record)
    outcome.violation = Violation("fickle", "it is never the same")
    outcome.digest = f"process {os.getpid()}"
    return outcome


def _trace(outcome: Outcome) -> Trace:
    trace = Trace()
    number = trace.send("node-0", 1.0, "node-1", "append, term 2")
    trace.receive("node-1", 1.5, number)
    trace.note("client-0", 1.75, "invoke", "write x")
    if outcome.violation is not None:
        trace.note("node-1", outcome.violated_at_s, "violation", str(outcome.violation))
    return trace
