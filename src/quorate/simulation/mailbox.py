"""Loss, duplication and reordering of consensus messages, at the mailbox of the replica that they reach.

TCP keeps what it carries whole and in order, so on the links these faults cannot happen one
message at a time.  Replicas promise to bear them all the same (`replica.Receive`); here is
where that promise is called in.  Nothing else that travels between nodes is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class MailboxRates:
    """The part of all messages, from 0 to 1, that meets each fate; together at most 1."""

    dropped: float = 0.0
    delayed: float = 0.0
    duplicated: float = 0.0
    """Delivered at once, and once more later."""
    longest_delay_s: float = 0.0
    """Of the machine's own time.  Each delay is drawn from 0 to this, so what comes later may overtake."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What becomes of one message."""

    now: bool
    again_after_s: float | None


class MailboxFaults:
    """Decides over messages one by one.  `rates` may be changed at any time: a fault begins and ends."""

    def __init__(self, random: Random) -> None:
        self.rates: MailboxRates | None = None
        """None: all is well, nothing is drawn, and deciding is not asked for."""
        self.dropped = 0
        self.delayed = 0
        self.duplicated = 0
        self._random = random

    def decide(self) -> Delivery:
        rates = self.rates
        if rates is None:
            return Delivery(True, None)
        fate = self._random.random()
        if fate < rates.dropped:
            self.dropped += 1
            return Delivery(False, None)
        fate -= rates.dropped
        if fate < rates.delayed:
            self.delayed += 1
            return Delivery(False, self._random.uniform(0, rates.longest_delay_s))
        fate -= rates.delayed
        if fate < rates.duplicated:
            self.duplicated += 1
            return Delivery(True, self._random.uniform(0, rates.longest_delay_s))
        return Delivery(True, None)
