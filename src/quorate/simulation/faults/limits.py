"""What a fault can be asked for by a plan that somebody has edited."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from quorate.simulation.faults import FAULTS
from quorate.simulation.plan import Injection

NO_TARGET = frozenset({"coup", "add-member"})
"""They find their victims themselves."""
SHORTEST_PAUSE_S = 0.001
"""What acts again and again without a pause would never let time pass."""

AMOUNTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "delay": (0.0, 10_000.0),
        "loss": (0.0, 0.99),
        "resets": (SHORTEST_PAUSE_S, 1_000.0),
        "split-reads": (0.0, 1.0),
        "message-loss": (0.0, 1.0),
        "duplication": (0.0, 1.0),
        "reordering": (0.0, 1.0),
        "partition-halves": (0.0, 1.0),
        "partition-isolation": (0.0, 1.0),
        "partition-one-way": (0.0, 1.0),
        "partition-flapping": (SHORTEST_PAUSE_S, 1_000.0),
        "partition-client": (0.0, 2.0),
        "power-loss-in-operation": (0.0, 1_000_000.0),
        "power-loss-amid-names": (0.0, 1_000_000.0),
        "coup": (0.0, 1_000.0),
        "slow-disk": (0.0, 100.0),
        "full-disk": (0.0, 1e12),
        "corruption": (1.0, 1_000.0),
        "transfer": (SHORTEST_PAUSE_S, 1_000.0),
        "add-member": (0.0, 1.0),
        "remove-member": (0.0, 1.0),
        "wipe": (0.0, 1.0),
        "crash-amid-change": (0.0, 1_000.0),
        "clock-skew": (0.0, 0.5),
        "clock-jump": (-1e10, 1e10),
    }
)
"""The least and the most, far beyond what is drawn.  Others bear any amount, or do not heed it."""


def problem_of_injection(injection: Injection) -> str:
    """Why there can be no such injection, in any plan; "" where there can."""
    if injection.fault not in FAULTS:
        return f"there is no fault {injection.fault!r}; known are: {', '.join(FAULTS)}"
    if not injection.target and injection.fault not in NO_TARGET:
        return f"{injection.fault} needs a target"
    least, most = AMOUNTS.get(injection.fault, (-math.inf, math.inf))
    if not least <= injection.amount <= most:
        return f"the amount of {injection.fault} is {injection.amount}; it must be from {least:g} to {most:g}"
    return ""
