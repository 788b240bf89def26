"""Everything that a node takes from the machine it runs on, beside the event loop itself.

Handing it in is what lets the same node run in production and in simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from quorate.storage.disk import Disk


@dataclass(frozen=True, slots=True)
class ApplyPace:
    """How an entry is applied."""

    commands: int = 64
    """A store is given so many at a time: the same number on every node, so that all stores see the same calls."""
    entry_s: float = 0.01
    """An entry that takes longer goes on in the loop's next turn: heartbeats and other groups come between."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The disk, the wall clock and the source of randomness."""

    disk: Disk
    wall_ms: Callable[[], int]
    """Unix time in milliseconds."""
    clock: Callable[[], float]
    """Seconds that also pass within a turn of the loop, to measure durations with.  Time itself is the loop's."""
    random: Random
    """In production one that cannot be predicted: session passwords are drawn from it."""
    process_id: int = 0
    """For status only."""
    watch_loop: bool = True
    """Measure how long the loop stands still.  A simulated one does so only where it is told to."""
    pace: ApplyPace = ApplyPace()
