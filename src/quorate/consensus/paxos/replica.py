"""The replica: takes each event to the role that the server has, and changes the role.

Each change of role is one method here, so that they can be read one after another:

                 no leader heard            a quorum would promise        a quorum promised
    Follower --------------------> PRE_VOTE -------------------> PREPARE ------------------> Leader
       ^  |                           |                             ^                          |
       |  +-- its leader hands over --|-----------------------------+                          |
       |                              |                             |                          |
       +---- a leader is heard of, or a higher ballot promised; a quorum refuses or is out of touch
"""

from __future__ import annotations

from quorate.consensus.core import QuorumOf
from quorate.consensus.membership import Configuration
from quorate.consensus.paxos.ballots import owner_of, round_of
from quorate.consensus.paxos.candidate import Candidate
from quorate.consensus.paxos.core import Core
from quorate.consensus.paxos.follower import Follower, answer_prepare
from quorate.consensus.paxos.leader import Leader
from quorate.consensus.paxos.messages import (
    Accept,
    Accepted,
    BarrierAnswer,
    BarrierRequest,
    Chosen,
    Missing,
    PaxosMessage,
    Prepare,
    PreVote,
    PreVoted,
    Promise,
    Rejected,
    TimeoutNow,
    is_sane,
)
from quorate.consensus.pre_vote import PreVoteReplica
from quorate.consensus.records import Recovered
from quorate.consensus.replica import Message, NodeId, RandomSource, ReplicaConfig


class PaxosReplica(PreVoteReplica[Core]):
    """One server of one Multi-Paxos group."""

    _role: Follower | Candidate | Leader
    _LOWEST_GENERATION = 0  # a void entry's

    def __init__(
        self,
        config: ReplicaConfig,
        recovered: Recovered,
        random: RandomSource,
        now_ms: int,
        quorum_of: QuorumOf = Configuration.quorum,
    ) -> None:
        """`quorum_of`: who decides in a configuration, by default majorities."""
        super().__init__(Core(config, recovered, random, now_ms, quorum_of))

    def _words(self) -> dict[str, int | str]:
        core, role = self._core, self._role
        state = self._leadership().role.value
        if isinstance(role, Candidate) and role.pre_vote:
            state = "pre-candidate"
        return {"ballot": f"{round_of(core.promised)}.{owner_of(core.promised)}", "state": state}

    # --- messages ------------------------------------------------------------------------

    def _receive(self, sender: NodeId, message: Message) -> None:
        core = self._core
        assert isinstance(message, PaxosMessage), message
        # Of senders that are no members as well: of whom this server's log does not know yet
        # may lead it, or need its promise.  What they say is not counted.
        if sender == core.node_id or not is_sane(message):
            return
        if message.ballot == core.promised:
            self._receive_under_promise(sender, message)
        else:
            self._receive_otherwise(sender, message)

    def _receive_under_promise(self, sender: NodeId, message: PaxosMessage) -> None:
        """Almost every message."""
        if isinstance(message, Accepted):
            if isinstance(self._role, Leader):
                self._role.receive_accepted(sender, message)
        elif isinstance(message, Accept):
            follower = self._follow(sender, message.ballot)
            if follower is not None:
                follower.receive_accept(message)
        elif isinstance(message, Chosen):
            follower = self._follow(sender, message.ballot)
            if follower is not None:
                follower.receive_chosen(message)
        elif isinstance(message, TimeoutNow):
            if self._follow(sender, message.ballot) is not None and self._core.is_voter:
                self._stand(transfer=True)
        elif isinstance(message, PreVote | PreVoted | Prepare | Rejected):
            self._receive_of_election(sender, message)
        else:
            self._receive_answer(sender, message)

    def _receive_otherwise(self, sender: NodeId, message: PaxosMessage) -> None:
        """Of another ballot than the promised one: answers to such are late, and ignored."""
        core = self._core
        if isinstance(message, PreVote | PreVoted | Prepare | Rejected):
            if not (isinstance(message, PreVote) or (isinstance(message, PreVoted) and message.granted)):
                core.saw(message.ballot)
            self._receive_of_election(sender, message)
        elif isinstance(message, Accept | Chosen | TimeoutNow):
            if message.ballot > core.promised:
                if self._follow(sender, message.ballot) is not None:
                    self._receive_under_promise(sender, message)
            elif isinstance(message, Accept):
                core.send(sender, Rejected(core.promised, message.ballot))

    def _receive_of_election(self, sender: NodeId, message: PreVote | PreVoted | Prepare | Rejected) -> None:
        if isinstance(message, PreVote):
            self._receive_pre_vote(sender, message)
        elif isinstance(message, Prepare):
            self._receive_prepare(sender, message)
        elif isinstance(message, Rejected):
            self._receive_rejected(sender, message)
        elif isinstance(self._role, Candidate):
            self._role.receive_pre_voted(sender, message)
            self._count()

    def _receive_answer(self, sender: NodeId, message: PaxosMessage) -> None:
        """Under this very ballot.  One that the role has no use for is late, and ignored."""
        role = self._role
        if isinstance(role, Leader):
            if isinstance(message, Missing):
                role.receive_missing(sender, message)
            elif isinstance(message, BarrierRequest):
                role.receive_barrier_request(sender, message.asker, message.barrier_id)
        elif isinstance(role, Candidate):
            if isinstance(message, Promise):
                role.receive_promise(sender, message)
                self._count()
        elif isinstance(message, BarrierAnswer):
            role.receive_barrier_answer(message.asker, message.barrier_id, message.position)

    def _receive_pre_vote(self, sender: NodeId, message: PreVote) -> None:
        core = self._core
        if self._leader_is_alive():
            return
        granted = message.ballot > core.promised and self._can_tell(message.commit_position + 1)
        core.send(sender, PreVoted(message.ballot if granted else core.promised, granted))

    def _receive_prepare(self, sender: NodeId, message: Prepare) -> None:
        """Phase 1b: promise, unless a higher ballot was promised (Paxos Made Simple, section 2.2, P1a)."""
        core, role = self._core, self._role
        if owner_of(message.ballot) != sender or (not message.transfer and self._leader_is_alive()):
            return
        is_repeated = message.ballot == core.promised and isinstance(role, Follower) and role.leader is None
        if (message.ballot <= core.promised and not is_repeated) or not self._can_tell(message.first_position):
            core.send(sender, Rejected(core.promised, message.ballot))
            return
        if not is_repeated:
            core.promise(message.ballot)
            self._become_follower(None)
        assert isinstance(self._role, Follower)
        self._role.postpone_election()
        answer_prepare(core, sender, message)

    def _can_tell(self, first_position: int) -> bool:
        """Whether what was accepted from there on is still held: where it is not, the candidate needs a snapshot."""
        return first_position > self._core.log.base_position

    def _receive_rejected(self, sender: NodeId, message: Rejected) -> None:
        role, promised = self._role, self._core.promised
        if message.rejected_ballot != promised:
            return
        if isinstance(role, Leader) and message.ballot > promised:
            self._become_follower(None)
        elif isinstance(role, Candidate):
            role.receive_rejected(sender)
            self._count()

    # --- changes of role -----------------------------------------------------------------

    def _follow(self, sender: NodeId, ballot: int) -> Follower | None:
        """`sender` speaks as the leader of a ballot not below the promised one.  None where that is not its own."""
        core, role = self._core, self._role
        if owner_of(ballot) != sender:
            return None
        if ballot == core.promised and isinstance(role, Follower):
            role.hear_from(sender)
            return role
        if ballot > core.promised:
            core.promise(ballot)
        self._become_follower(sender)
        assert isinstance(self._role, Follower)
        return self._role

    def _follow_sender(self, sender: NodeId, generation: int) -> Follower | None:
        return self._follow(sender, generation) if generation >= self._core.promised else None

    def _follower(self, leader: NodeId | None) -> Follower:
        return Follower(self._core, self._asker, leader)

    def _enter_own_generation(self) -> None:
        self._core.promise(self._core.next_ballot())

    def _candidate(self, pre_vote: bool, transfer: bool = False) -> Candidate:
        return Candidate(self._core, pre_vote, transfer)

    def _become_leader(self) -> None:
        candidate = self._role
        assert isinstance(candidate, Candidate) and candidate.has_won()
        self._role = Leader(self._core, candidate.proposals(), candidate.commit_position(), candidate.heard)
