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

    def __init__(self, core: Core, ballot: Ballot) -> None:
        assert core.is_voter
        self.core = core
        self.ballot = ballot
        self.election_ms = core.now_ms + core.draw_election_timeout_ms()
        """When this ballot is given up for a new one."""
        self._answers: dict[NodeId, bool] = {}
        pre_vote = ballot is Ballot.PRE_VOTE
        assert pre_vote or core.voted_for == core.node_id
        term = core.term + 1 if pre_vote else core.term
        request = RequestVote(term, core.log.last_position, core.log.last_term, pre_vote)
        for peer in core.peers:
            if peer in core.quorum.members:
                core.send(peer, request)

    def receive_vote(self, sender: NodeId, message: Vote) -> None:
        if message.pre_vote == (self.ballot is Ballot.PRE_VOTE):
            # The first answer holds: a voter answers a ballot one way only.
            self._answers.setdefault(sender, message.granted)

    def has_won(self) -> bool:
        return self.core.quorum.is_quorum(self._voters(granted=True))

    def has_lost(self) -> bool:
        """A quorum has refused, so that no quorum is left to grant."""
        return self.core.quorum.is_quorum(self._voters(granted=False))

    def _voters(self, granted: bool) -> list[NodeId]:
        """Who answered so.  Its own vote counts like any other: not before it is durable."""
        voters = [voter for voter, answer in self._answers.items() if answer == granted]
        if granted and (self.ballot is Ballot.PRE_VOTE or self.core.state_is_durable()):
            voters.append(self.core.node_id)
        return voters
