"""Replicas of one store must be equal wherever they have come equally far.

A store that counts what it applied has a number for each of its states.  The first replica
to reach one says what it came to, as a checksum; the others must come to the same.
"""

from __future__ import annotations

from collections.abc import Callable

from quorate.consensus.replica import NodeId
from quorate.simulation.violation import Violation


class StoreAgreement:
    """The stores of one group, on all nodes, over all their restarts."""

    def __init__(self, on_violation: Callable[[Violation], None]) -> None:
        self._on_violation = on_violation
        self._batches: dict[int, tuple[NodeId, int]] = {}
        """State number after a batch to (the first node there, checksum of the batch and of its results)."""
        self._states: dict[int, tuple[NodeId, int]] = {}
        """The same for whole states, where they were looked at."""

    def applied(self, node: NodeId, number: int, checksum: int) -> None:
        """A batch brought the node's store to state `number`."""
        first, known = self._batches.setdefault(number, (node, checksum))
        if known != checksum:
            self.violated(
                "state machine agreement",
                f"at {number} nodes {first} and {node} applied other commands, at another time, or with other results",
            )

    def is_at(self, node: NodeId, number: int, checksum: int) -> None:
        """The whole state of the node's store, which has the number `number`."""
        first, known = self._states.setdefault(number, (node, checksum))
        if known != checksum:
            self.violated("state machine agreement", f"at {number} the stores of nodes {first} and {node} differ")

    def violated(self, check: str, text: str) -> None:
        self._on_violation(Violation(check, text))
