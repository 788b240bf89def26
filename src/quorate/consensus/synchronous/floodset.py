"""FloodSet: tell everybody all that you have seen, f + 1 times, then decide (Lynch, section 6.2.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from quorate.consensus.replica import NodeId
from quorate.consensus.synchronous.rounds import Crash, Delivery, Late, run_rounds


class FloodSet:
    """One process.  It decides in the last of its rounds, and not again, whatever it hears later."""

    def __init__(self, value: str, rounds: int) -> None:
        """Agreement takes one round more than processes may stop."""
        assert rounds > 0
        self._rounds = rounds
        self.seen = frozenset({value})
        self.decision: str | None = None

    def speak(self, round_: int) -> frozenset[str]:
        return self.seen

    def hear(self, round_: int, messages: Sequence[frozenset[str]]) -> None:
        self.seen = self.seen.union(*messages)
        if round_ == self._rounds:
            self.decision = min(self.seen)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    decisions: dict[NodeId, str]
    """Of those that did not stop."""
    seen: dict[NodeId, frozenset[str]]
    """What they know in the end, which may be more than they decided on."""
    deliveries: list[Delivery[frozenset[str]]]

    @property
    def agrees(self) -> bool:
        return len(set(self.decisions.values())) <= 1


def flood(
    values: Mapping[NodeId, str], rounds: int, crashes: Collection[Crash] = (), late: Collection[Late] = ()
) -> Outcome:
    """Run FloodSet among processes that begin with these values."""
    processes = {node: FloodSet(value, rounds) for node, value in values.items()}
    deliveries = run_rounds(processes, rounds, crashes, late)
    decisions = {node: process.decision for node, process in processes.items() if process.decision is not None}
    return Outcome(decisions, {node: processes[node].seen for node in decisions}, deliveries)
