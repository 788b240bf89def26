"""A candidate: first asks whether it could win (pre-vote), then stands in a new term."""

from __future__ import annotations

import enum

from quorate.consensus.raft.core import Core
from quorate.consensus.raft.messages import RequestVote, Vote
from quorate.consensus.replica import NodeId


class Ballot(enum.Enum):
    """What is being asked for.  A pre-vote changes nobody's state (thesis section 9.6)."""

    PRE_VOTE = "pre-candidate"
    VOTE = "candidate"


class Candidate:
    """Gathers votes for one ballot.  For `Ballot.VOTE` the server has entered its term and voted for itself."""

    def __init__(self, core: Core, ballot: Ballot, transfer: bool = False) -> None:
        """`transfer`: the leader itself told this server to stand."""
        assert core.may_stand()
        self.core = core
        self.ballot = ballot
        pre_vote = ballot is Ballot.PRE_VOTE
        timeout_ms = core.draw_election_timeout_ms()
        self.election_ms = core.now_ms + (timeout_ms // 2 if pre_vote else timeout_ms)
        """When this ballot is given up for a new one: sooner for pre-votes, since asking for them disturbs nobody."""
        self._answers: dict[NodeId, bool] = {}
        assert pre_vote or core.voted_for == core.node_id
        term = core.term + 1 if pre_vote else core.term
        request = RequestVote(term, core.log.last_position, core.log.last_generation, pre_vote, transfer)
        for voter in core.voters:
            if voter != core.node_id:
                core.send(voter, request)

    def receive_vote(self, sender: NodeId, message: Vote) -> None:
        if message.pre_vote == (self.ballot is Ballot.PRE_VOTE):
            # The first answer holds: a voter answers a ballot one way only.
            self._answers.setdefault(sender, message.granted)

    def has_won(self) -> bool:
        """Its own vote counts like any other, and like any other not before it is durable."""
        if self.ballot is Ballot.VOTE and not self.core.promise_is_durable():
            return False
        return self.core.quorum.is_quorum([*self._voters(granted=True), self.core.node_id])

    def has_lost(self) -> bool:
        """A quorum has refused, so that no quorum is left to grant."""
        return self.core.quorum.is_quorum(self._voters(granted=False))

    def _voters(self, granted: bool) -> list[NodeId]:
        return [voter for voter, answer in self._answers.items() if answer == granted]
