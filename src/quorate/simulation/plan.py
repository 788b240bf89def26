"""A run of the simulator as a value: what is drawn from the seed, and what came of it.

Every fault of a run is drawn before it begins and stands in its plan.  So a failing run is made smaller by taking
things out of the plan, and a plan that was written to a file is the whole of a reproduction.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from quorate.simulation.trace import Trace
from quorate.simulation.violation import Violation


class Injection(msgspec.Struct, frozen=True):
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


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run follows from.  Times in simulated seconds."""

    seed: int
    protocol: str = "raft"
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


def write_plan(plan: Plan, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")


def read_plan(path: Path) -> Plan:
    """Raises OSError, ValueError (with what is wrong in it)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan, strict=True)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path} is not a plan of the simulator: {error}") from error
