"""Logical clocks: what happened before what, where no two machines agree on the time.

**Happens before** (L. Lamport, "Time, Clocks, and the Ordering of Events in a Distributed
System", CACM 21(7), 1978).  A run is a set of events, each at one process.  Event a
*happens before* event b, written a → b, where

1. both are at the same process and a comes first, or
2. a is the sending of a message and b is the receipt of that message, or
3. there is an event c with a → c and c → b.

Two different events of which neither happens before the other are *concurrent*.  That is
no statement about time: concurrent events may lie an hour apart.  It says that neither can
have influenced the other, whatever the processes do, because no chain of messages leads
from one to the other.  Conversely a → b says that a *may* have influenced b, not that it did.

→ is a partial order.  The two clocks of this module are two ways to number its events.

**A Lamport clock** is one number per process.  Each event adds one; each message carries
its sender's number, and the receiver first raises its own to it.  So

    a → b   implies   L(a) < L(b).

The converse does not hold: from L(a) < L(b) follows only that b did *not* happen before a.
Equal numbers mean concurrent events, different numbers mean nothing by themselves.  With
the process as tie-break the stamps (time, process) order all events totally, in one of the
many ways that do not contradict →.  That is what a Lamport clock is good for: an order
that all agree on, at the price of one integer, where any order that respects causes will do
(Lamport's own example is a lock without a server).

**A vector clock** is one number per process *at each* process (C. Fidge, "Timestamps in
Message-Passing Systems That Preserve the Partial Ordering", 1988; F. Mattern, "Virtual Time
and Global States of Distributed Systems", 1988).  V(a)[p] is how many events of p are a
itself or happened before it: it says exactly how much of everyone's history a can know of.
An event adds one to its own process's number; a receipt first takes the larger number
everywhere.  Where V ≤ W means "at no process larger",

    a → b   if and only if   V(a) ≤ V(b) and V(a) ≠ V(b),

so two vectors tell whether a happened before b, after it, or concurrently with it.  (To
ask only that of an event a of process p one number is enough: a → b exactly where
V(a)[p] ≤ V(b)[p] and a is not b.)  The price is a number per process in every message, and
it cannot be had for less: vectors that tell → exactly need as many components as there
are processes (B. Charron-Bost, 1991).

**What neither can tell.**  How much time passed.  What went by another way than the
messages that carry stamps: two processes that share a disk, or people who telephone, have a
common past that these clocks do not see.  Whether a possible cause was a real one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, final

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class Order(enum.Enum):
    """How one event, or its vector clock, stands to another."""

    BEFORE = "before"
    AFTER = "after"
    EQUAL = "equal"
    CONCURRENT = "concurrent"


class LamportStamp(NamedTuple):
    """The number of one event.  Stamps are ordered by time, then process: a total order that respects →."""

    time: int
    process: str


@final
@dataclass(slots=True)
class LamportClock:
    """The Lamport clock of one process.  `time` is that of its last event; 0 where there was none."""

    process: str
    time: int = 0

    def tick(self) -> LamportStamp:
        """The stamp of the next event of this process.  If the event sends messages, its stamp goes with them."""
        self.time += 1
        return LamportStamp(self.time, self.process)

    def receive(self, sent: LamportStamp) -> LamportStamp:
        """The stamp of the event in which a message with stamp `sent` arrives."""
        self.time = max(self.time, sent.time)
        return self.tick()


@final
class VectorClock:
    """How many events of each process are in the past of an event, the event itself among them.

    An immutable value.  Processes that are not named have the number 0, so clocks of
    different sets of processes can be compared and merged, and processes may be added
    during a run.
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[str, int] = _NOTHING) -> None:
        """Raises ValueError where a number is negative."""
        for process, count in counts.items():
            if count < 0:
                raise ValueError(f"the number of events of {process} is {count}, below 0")
        self._counts: Final = {process: count for process, count in counts.items() if count}

    def __getitem__(self, process: str) -> int:
        return self._counts.get(process, 0)

    def counts(self) -> dict[str, int]:
        """The numbers that are not 0, by process name in alphabetical order."""
        return dict(sorted(self._counts.items()))

    def increment(self, process: str) -> VectorClock:
        """The clock of the next event of `process`, where this is the clock of its last one."""
        return VectorClock({**self._counts, process: self[process] + 1})

    def merge(self, other: VectorClock) -> VectorClock:
        """The past of both: at each process the larger number."""
        ahead = {process: count for process, count in other._counts.items() if count > self[process]}
        return VectorClock({**self._counts, **ahead})

    def compare(self, other: VectorClock) -> Order:
        """BEFORE where the event with this clock happened before the one with the other clock."""
        if self == other:
            return Order.EQUAL
        if self <= other:
            return Order.BEFORE
        if other <= self:
            return Order.AFTER
        return Order.CONCURRENT

    def __le__(self, other: VectorClock) -> bool:
        """Whether the other past holds this one.  A partial order: `not a <= b` does not imply `b <= a`."""
        return all(count <= other[process] for process, count in self._counts.items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VectorClock):
            return NotImplemented
        return self._counts == other._counts

    def __hash__(self) -> int:
        return frozenset(self._counts.items()).__hash__()

    def __str__(self) -> str:
        return " ".join(f"{process}:{count}" for process, count in self.counts().items())

    def __repr__(self) -> str:
        return f"VectorClock({self.counts()!r})"
