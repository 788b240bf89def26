"""A candidate: first asks whether it could win (pre-vote), then stands in a new term."""

from __future__ import annotations

from quorate.consensus.pre_vote import BaseCandidate
from quorate.consensus.raft.core import Core
from quorate.consensus.raft.messages import RequestVote, Vote
from quorate.consensus.replica import NodeId


class Candidate(BaseCandidate[Core]):
    """Gathers votes.  But for a pre-vote the server has entered its term and voted for itself."""

    def __init__(self, core: Core, pre_vote: bool, transfer: bool = False) -> None:
        """`transfer`: the leader itself told this server to stand."""
        super().__init__(core, pre_vote)
        assert pre_vote or core.voted_for == core.node_id
        term = core.term + 1 if pre_vote else core.term
        request = RequestVote(term, core.log.last_position, core.log.last_generation, pre_vote, transfer)
        for voter in core.voters:
            if voter != core.node_id:
                core.send(voter, request)

    def receive_vote(self, sender: NodeId, message: Vote) -> None:
        if message.pre_vote == self.pre_vote:
            self._answers.setdefault(sender, message.granted)

    def has_won(self) -> bool:
        """Its own vote counts like any other, and like any other not before it is durable."""
        if not self.pre_vote and not self.core.promise_is_durable():
            return False
        return self.core.quorum.is_quorum([*self._voters(granted=True), self.core.node_id])

    def has_lost(self) -> bool:
        """A quorum has refused, so that no quorum is left to grant."""
        return self.core.quorum.is_quorum(self._voters(granted=False))
