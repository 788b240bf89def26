"""A learner: finds out that a value was chosen (Paxos Made Simple, section 2.3)."""

from __future__ import annotations

from quorate.consensus.replica import NodeId
from quorate.consensus.single_decree.messages import Accepted
from quorate.quorums import Majority


class Learner:
    """Has learned as soon as it knows of a quorum of acceptors that accepted one proposal.

    They must agree on the ballot, not only on the value: of a value that was accepted by
    some in one ballot and by others in another one a proposer between the two need not have
    heard, so that it may not be chosen.
    """

    def __init__(self, acceptors: Majority) -> None:
        self._acceptors = acceptors
        self._latest: dict[NodeId, Accepted] = {}
        """By acceptor, of the highest ballot: what it no longer stands by is not needed to learn in the end."""
        self.chosen: bytes | None = None
        """The value, once it is known.  It never changes."""

    def receive(self, sender: NodeId, message: Accepted) -> None:
        former = self._latest.get(sender)
        if self.chosen is not None or sender not in self._acceptors.members:
            return
        if former is not None and former.ballot > message.ballot:
            return
        self._latest[sender] = message
        holders = [node for node, accepted in self._latest.items() if accepted.ballot == message.ballot]
        if self._acceptors.is_quorum(holders):
            self.chosen = message.value
