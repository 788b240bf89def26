"""A run of the simulator as a value: what is drawn from the seed, and what came of it.

Every fault of a run is drawn before it begins and stands in its plan.  So a failing run is made smaller by taking
things out of the plan, and a plan that was written to a file is the whole of a reproduction.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from quorate.node.config import MAX_MEMBERS
from quorate.node.protocols import check_quorums, protocols_of
from quorate.simulation.trace import Trace
from quorate.simulation.violation import Violation

MOST_CLIENTS = 250
"""Each is the last part of an address, and one number more is for whoever looks in the end."""
MOST_OPERATIONS_PER_S = 100_000.0
MOST_DURATION_S = 1_000_000.0
TARGET = re.compile(r"all|leader|follower|majority|(?P<node>[0-9]{1,3})|client-(?P<client>[0-9]{1,3})")


class Injection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault, at one time, against one target."""

    fault: str
    """Name in `quorate.simulation.faults.FAULTS`."""
    at_s: float
    """True time at which it begins."""
    for_s: float
    """How long it lasts; 0 for what has no duration."""
    target: str = ""
    """Whom it is meant for: "0" or "0,2" for nodes, "leader", "follower", "client-3", "all"; as the fault says."""
    amount: float = 0.0
    """How much of it; as the fault says."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a run follows from.  Times in simulated seconds."""

    seed: int
    protocol: str | None = None
    """As in `NodeConfig`: None for the service's own."""
    service: str = "zookeeper"
    nodes: int = 3
    clients: int = 10
    """Clients at a time."""
    operations_per_s: float = 100.0
    """Of all clients together."""
    duration_s: float = 60.0
    """Of the safety phase; the healing phase follows it."""
    faults: tuple[str, ...] = ()
    """Names of the faults that were drawn from."""
    injections: tuple[Injection, ...] = ()
    client_numbers: tuple[int, ...] | None = None
    """Only these clients take part; None for all."""
    max_operations: int | None = None
    """Each client stops after as many operations."""


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    plan: Plan
    violation: Violation | None = None
    violated_at_s: float = 0.0
    coverage: Counter[str] = field(default_factory=Counter)
    """What the run exercised: elections, snapshots sent, crashes, watches fired ..."""
    digest: str = ""
    """Equal for equal runs."""
    simulated_s: float = 0.0
    trace: Trace | None = None
    """Where it was asked for."""


def problem_of(plan: Plan) -> str:
    """The first field with which the plan cannot be run, and why; "" where it can.

    Of services and faults only their owners know: names, and amounts that a fault can bear, are not checked here.
    """
    return next(_problems(plan), "")


def _problems(plan: Plan) -> Iterator[str]:
    try:
        check_quorums(protocols_of(plan.protocol, (plan.service,)), plan.nodes)
    except ValueError as error:
        yield f"protocol: {error}"
    if not 1 <= plan.nodes <= MAX_MEMBERS:
        yield f"nodes is {plan.nodes}; there may be 1 to {MAX_MEMBERS}"
    if not 1 <= plan.clients <= MOST_CLIENTS:
        yield f"clients is {plan.clients}; there may be 1 to {MOST_CLIENTS}"
    for name, value, most in (
        ("operations_per_s", plan.operations_per_s, MOST_OPERATIONS_PER_S),
        ("duration_s", plan.duration_s, MOST_DURATION_S),
    ):
        if not 0 < value <= most:  # nor NaN
            yield f"{name} is {value}; it must be more than 0, and at most {most:.0f}"
    if plan.max_operations is not None and plan.max_operations < 1:
        yield f"max_operations is {plan.max_operations}; it must be at least 1"
    numbers = plan.client_numbers or ()
    for number in numbers:
        if not 0 <= number < plan.clients:
            yield f"client_numbers has {number}; with {plan.clients} clients, they are from 0 to {plan.clients - 1}"
    if len(set(numbers)) < len(numbers):
        yield "client_numbers has a client twice"
    for place, injection in enumerate(plan.injections):
        for problem in _problems_of_injection(injection, plan):
            yield f"injections[{place}] ({injection.fault}): {problem}"


def _problems_of_injection(injection: Injection, plan: Plan) -> Iterator[str]:
    for name, value in (("at_s", injection.at_s), ("for_s", injection.for_s)):
        if not 0 <= value <= MOST_DURATION_S:  # nor NaN
            yield f"{name} is {value}; it must be from 0 to {MOST_DURATION_S:.0f}"
    if not math.isfinite(injection.amount):
        yield f"amount is {injection.amount}"
    for part in injection.target.split(",") if injection.target else ():
        match = TARGET.fullmatch(part)
        if match is None:
            yield (
                f"target {injection.target!r} has {part!r}; a target is a list, with commas, of all, leader, follower, "
                "majority, numbers of nodes, and client- with the number of a client"
            )
        elif match["node"] and int(match["node"]) >= plan.nodes:
            yield f"target {injection.target!r}: there is no node {part}; they are from 0 to {plan.nodes - 1}"
        elif match["client"] and int(match["client"]) >= plan.clients:
            yield f"target {injection.target!r}: there is no {part}; they are from 0 to {plan.clients - 1}"


def write_plan(plan: Plan, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")


def read_plan(path: Path) -> Plan:
    """Raises OSError, ValueError where it has not the form of a plan; `problem_of` says more."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan, strict=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a plan of the simulator: {error}") from error
