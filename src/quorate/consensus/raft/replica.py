"""The replica: takes each event to the role that the server has, and changes the role.

Each change of role is one method here, so that they can be read one after another:

                 no leader heard            a quorum would grant         a quorum granted
    Follower --------------------> PRE_VOTE -------------------> VOTE -------------------> Leader
       ^  |                           |                           ^                          |
       |  +-- its leader hands over --|---------------------------+                          |
       |                              |                           |                          |
       +---- a leader or a higher term is heard of; a quorum refuses or is out of touch -----+
"""

from __future__ import annotations

from quorate.consensus.pre_vote import PreVoteReplica
from quorate.consensus.raft.candidate import Candidate
from quorate.consensus.raft.core import Core
from quorate.consensus.raft.follower import Follower
from quorate.consensus.raft.leader import Leader
from quorate.consensus.raft.messages import (
    Append,
    Appended,
    AppendRejected,
    BarrierAnswer,
    BarrierRequest,
    Commit,
    RaftMessage,
    RequestVote,
    TimeoutNow,
    Vote,
    is_sane,
)
from quorate.consensus.records import Recovered
from quorate.consensus.replica import Message, NodeId, RandomSource, ReplicaConfig


class RaftReplica(PreVoteReplica[Core]):
    """One server of one Raft group."""

    _role: Follower | Candidate | Leader

    def __init__(self, config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> None:
        super().__init__(Core(config, recovered, random, now_ms))

    def _words(self) -> dict[str, int | str]:
        core, role = self._core, self._role
        state = self._leadership().role.value
        if isinstance(role, Candidate) and role.pre_vote:
            state = "pre-candidate"
        return {"term": core.term, "voted_for": -1 if core.voted_for is None else core.voted_for, "state": state}

    # --- messages ------------------------------------------------------------------------

    def _receive(self, sender: NodeId, message: Message) -> None:
        core = self._core
        assert isinstance(message, RaftMessage), message
        # Of senders that are no members as well: of whom this server's log does not know yet
        # may lead it, or need its vote (thesis section 4.1).  What they say is not counted.
        if sender == core.node_id or not is_sane(message):
            return
        if isinstance(message, RequestVote):
            self._receive_vote_request(sender, message)
            return
        if message.term != core.term:
            if message.term < core.term:
                self._answer_stale(sender, message)
                return
            if isinstance(message, Vote) and message.pre_vote and message.granted:
                # Granted for a term that nobody has entered yet.
                if isinstance(self._role, Candidate) and message.term == core.term + 1:
                    self._receive_vote(sender, message)
                return
            self._enter_term(message.term, sender if isinstance(message, Append | Commit | TimeoutNow) else None)
        self._receive_in_term(sender, message)

    def _receive_in_term(self, sender: NodeId, message: RaftMessage) -> None:
        """A message of this very term.  One that the role has no use for is late, and ignored."""
        core = self._core
        if isinstance(message, Append):
            follower = self._follow(sender)
            if follower is not None:
                follower.receive_append(message)
        elif isinstance(message, Commit):
            follower = self._follow(sender)
            if follower is not None:
                follower.receive_commit(message)
        elif isinstance(message, Vote):
            self._receive_vote(sender, message)
        elif isinstance(message, TimeoutNow):
            if core.is_voter and self._follow(sender) is not None:
                self._stand(transfer=True)
        elif isinstance(message, BarrierAnswer):
            if isinstance(self._role, Follower):
                self._role.receive_barrier_answer(message.asker, message.barrier_id, message.position)
        elif isinstance(self._role, Leader):
            if isinstance(message, Appended):
                self._role.receive_appended(sender, message)
            elif isinstance(message, AppendRejected):
                self._role.receive_rejected(sender, message)
            elif isinstance(message, BarrierRequest):
                self._role.receive_barrier_request(sender, message.asker, message.barrier_id)

    def _answer_stale(self, sender: NodeId, message: RaftMessage) -> None:
        """Tell a leader of a past term that it is one.  Its answers and our own old ones are of no use."""
        if isinstance(message, Append):
            self._core.send(sender, AppendRejected(self._core.term, 0, message.previous_position, 0, 0))

    def _receive_vote_request(self, sender: NodeId, message: RequestVote) -> None:
        """Thesis figure 3.1, RequestVote, with sections 4.2.3 (live leaders) and 9.6 (pre-vote)."""
        core = self._core
        if message.term > core.term and not message.transfer and self._leader_is_alive():
            return
        if message.term > core.term and not message.pre_vote:
            self._enter_term(message.term, None)
        granted = self._would_vote(sender, message)
        if granted and not message.pre_vote:
            if isinstance(self._role, Candidate):
                self._become_follower(None)
            assert isinstance(self._role, Follower)
            core.vote_for(sender)
            self._role.postpone_election()
        term = message.term if granted else core.term
        core.send(sender, Vote(term, granted, message.pre_vote))

    def _would_vote(self, sender: NodeId, message: RequestVote) -> bool:
        """One vote a term, and only for a log that is at least as up to date (Raft paper, section 5.4.1)."""
        core, role = self._core, self._role
        if message.term < core.term:
            return False
        if message.term == core.term:
            if core.voted_for not in (None, sender):
                return False
            if isinstance(role, Follower) and role.leader not in (None, sender):
                return False
        return (message.last_term, message.last_position) >= (core.log.last_generation, core.log.last_position)

    def _receive_vote(self, sender: NodeId, message: Vote) -> None:
        role = self._role
        if isinstance(role, Candidate):
            role.receive_vote(sender, message)
            self._count()

    # --- changes of role -----------------------------------------------------------------

    def _enter_term(self, term: int, leader: NodeId | None) -> None:
        """A higher term was heard of: follow in it."""
        self._core.enter_term(term)
        self._become_follower(leader)

    def _follow(self, sender: NodeId) -> Follower | None:
        """`sender` speaks as the leader of this term.  None where it cannot be: two claim the same term."""
        role = self._role
        if isinstance(role, Follower):
            if role.leader is None or role.leader == sender:
                role.hear_from(sender)
                return role
            return None
        if isinstance(role, Candidate):
            self._become_follower(sender)
            assert isinstance(self._role, Follower)
            return self._role
        return None

    def _follow_sender(self, sender: NodeId, generation: int) -> Follower | None:
        if generation < self._core.term:
            return None
        if generation > self._core.term:
            self._enter_term(generation, sender)
        return self._follow(sender)

    def _follower(self, leader: NodeId | None) -> Follower:
        return Follower(self._core, self._asker, leader)

    def _enter_own_generation(self) -> None:
        core = self._core
        core.enter_term(core.term + 1)
        core.vote_for(core.node_id)

    def _candidate(self, pre_vote: bool, transfer: bool = False) -> Candidate:
        return Candidate(self._core, pre_vote, transfer)

    def _become_leader(self) -> None:
        assert isinstance(self._role, Candidate) and self._role.has_won()
        self._role = Leader(self._core)
