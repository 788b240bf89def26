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

from quorate.consensus.barriers import Barrier
from quorate.consensus.membership import Configuration, InvalidConfiguration, decode_configuration
from quorate.consensus.raft.candidate import Ballot, Candidate
from quorate.consensus.raft.core import Core
from quorate.consensus.raft.follower import Follower
from quorate.consensus.raft.leader import Leader
from quorate.consensus.raft.messages import (
    MAX_NUMBER,
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
from quorate.consensus.replica import (
    ChangeMembers,
    Compacted,
    Effects,
    Event,
    Leadership,
    Message,
    NodeId,
    PeerLost,
    Persisted,
    Propose,
    RandomSource,
    ReadBarrier,
    Receive,
    Refusal,
    ReplicaConfig,
    Role,
    SnapshotArrived,
    SnapshotSent,
    Status,
    Tick,
    TransferLeadership,
)

MAX_ASKER = 1 << 31


class RaftReplica:
    """One server of one Raft group.  Implements `quorate.consensus.replica.Replica`."""

    def __init__(self, config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> None:
        self._core = Core(config, recovered, random, now_ms)
        self._asker = random.randrange(0, MAX_ASKER)
        """Tells this replica's forwarded barriers from those before a restart."""
        self._role: Follower | Candidate | Leader = Follower(self._core, None, self._asker)
        self._announced = self._leadership()
        self._announced_role: Follower | Candidate | Leader = self._role

    # --- the interface -------------------------------------------------------------------

    def step(self, event: Event, now_ms: int) -> Effects:
        core = self._core
        core.begin(now_ms)
        if isinstance(event, Receive):
            self._receive(event.sender, event.message)
        elif isinstance(event, Persisted):
            self._persisted(event.ticket)
        elif isinstance(event, Propose):
            role = self._role
            core.effects.refused = role.propose(event.payload) if isinstance(role, Leader) else Refusal.NOT_LEADER
        elif isinstance(event, Tick):
            self._tick()
        else:
            self._take_rare(event)
        effects = core.finish()
        if effects.configuration is not None or self._may_have_new_leadership():
            leadership = self._leadership()
            if leadership != self._announced:
                effects.leadership = self._announced = leadership
            self._announced_role = self._role
        return effects

    def deadline_ms(self) -> int:
        role = self._role
        if isinstance(role, Leader):
            return role.heartbeat_ms
        return role.election_ms if isinstance(role, Candidate) else role.deadline_ms()

    def status(self) -> Status:
        core, role = self._core, self._role
        leadership = self._leadership()
        return Status(
            role=leadership.role,
            leader=leadership.leader,
            generation=core.term,
            ready=leadership.ready,
            voters=core.voters,
            learners=tuple(core.configuration.learners),
            first_position=core.log.base_position + 1,
            last_position=core.log.last_position,
            commit_position=core.commit_position,
            durable_position=core.durable_position,
            words={
                "term": core.term,
                "voted_for": -1 if core.voted_for is None else core.voted_for,
                "state": role.ballot.value if isinstance(role, Candidate) else leadership.role.value,
                "election_timeout_ms": core.timing.election_timeout_ms,
            },
            peer_positions=role.peer_positions() if isinstance(role, Leader) else {},
            successor=role.successor() if isinstance(role, Leader) else None,
        )

    def configuration(self) -> Configuration:
        return self._core.configuration

    def settled_version(self) -> int:
        return -1 if self._core.is_changing() else self._core.configuration.version

    def quorum_contact_ms(self) -> int | None:
        role = self._role
        return role.rounds.contact_ms if isinstance(role, Leader) and role.is_ready() else None

    def uncommitted_bytes(self) -> int:
        return self._role.uncommitted_bytes if isinstance(self._role, Leader) else 0

    # --- events --------------------------------------------------------------------------

    def _take_rare(self, event: Event) -> None:
        core, role = self._core, self._role
        if isinstance(event, ReadBarrier):
            self._read_barrier(event.barrier_id)
        elif isinstance(event, Compacted):
            core.compact(event.position)
        elif isinstance(event, SnapshotArrived):
            self._snapshot_arrived(event)
        elif isinstance(event, SnapshotSent):
            if isinstance(role, Leader):
                role.snapshot_sent(event.peer, event.position)
        elif isinstance(event, PeerLost):
            self._peer_lost(event.peer)
        else:
            assert isinstance(event, ChangeMembers | TransferLeadership), event
            core.effects.refused = self._lead(event)

    def _lead(self, event: ChangeMembers | TransferLeadership) -> Refusal | None:
        role = self._role
        if not isinstance(role, Leader):
            return Refusal.NOT_LEADER
        if isinstance(event, ChangeMembers):
            return role.change(event.goal)
        return role.transfer_to(event.target, event.avoid)

    def _tick(self) -> None:
        role = self._role
        if isinstance(role, Leader):
            if not role.tick():
                self._become_follower(None)
        elif isinstance(role, Follower):
            if role.tick():
                self._ask_pre_vote()
        elif self._core.now_ms >= role.election_ms:
            self._ask_pre_vote()

    def _persisted(self, ticket: int) -> None:
        self._core.persisted(ticket)
        role = self._role
        if isinstance(role, Leader):
            role.persisted()
        elif isinstance(role, Candidate):
            self._count_votes(role)

    def _read_barrier(self, barrier_id: int) -> None:
        role = self._role
        if isinstance(role, Leader):
            role.barrier(Barrier(barrier_id, self._core.node_id, None))
        elif isinstance(role, Follower):
            role.forward_barrier(barrier_id)
        else:
            self._core.effects.barriers_failed.append(barrier_id)

    def _peer_lost(self, peer: NodeId) -> None:
        role = self._role
        if isinstance(role, Leader):
            role.peer_lost(peer)
        elif isinstance(role, Follower) and role.leader == peer:
            role.leader_lost()

    def _snapshot_arrived(self, event: SnapshotArrived) -> None:
        # The numbers came with the snapshot, off the network.
        if not (1 <= event.position_generation <= event.generation <= MAX_NUMBER and event.position <= MAX_NUMBER):
            return
        if event.generation < self._core.term or event.sender == self._core.node_id:
            return
        try:
            encoded = event.configuration
            configuration = decode_configuration(encoded) if encoded else self._core.config.initial
        except InvalidConfiguration:
            return
        if event.generation > self._core.term:
            self._enter_term(event.generation, event.sender)
        follower = self._follow(event.sender)
        if follower is not None:
            follower.take_snapshot(event, configuration)

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
                self._role.receive_barrier_answer(message)
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
            self._count_votes(role)

    def _count_votes(self, candidate: Candidate) -> None:
        if candidate.has_lost():
            self._become_follower(None)
        elif candidate.has_won():
            if candidate.ballot is Ballot.PRE_VOTE:
                self._stand()
            else:
                self._become_leader()

    def _leader_is_alive(self) -> bool:
        return isinstance(self._role, Leader) or (isinstance(self._role, Follower) and self._role.leader_is_alive())

    # --- changes of role -----------------------------------------------------------------

    def _enter_term(self, term: int, leader: NodeId | None) -> None:
        """A higher term was heard of: follow in it."""
        self._core.enter_term(term)
        self._become_follower(leader)

    def _become_follower(self, leader: NodeId | None) -> None:
        role = self._role
        if isinstance(role, Leader):
            role.resign()
        elif isinstance(role, Follower):
            role.fail_barriers()
        self._role = Follower(self._core, leader, self._asker)

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

    def _ask_pre_vote(self) -> None:
        """No leader is heard from: ask whether a candidacy could win, before disturbing anyone with a new term."""
        if isinstance(self._role, Follower):
            self._role.fail_barriers()
        self._role = Candidate(self._core, Ballot.PRE_VOTE)
        self._count_votes(self._role)

    def _stand(self, transfer: bool = False) -> None:
        """A quorum would vote for this server, or its leader wants it to lead: enter a new term and ask for votes."""
        core = self._core
        if isinstance(self._role, Follower):
            self._role.fail_barriers()
        core.enter_term(core.term + 1)
        core.vote_for(core.node_id)
        self._role = Candidate(core, Ballot.VOTE, transfer)

    def _become_leader(self) -> None:
        assert isinstance(self._role, Candidate) and self._role.has_won()
        self._role = Leader(self._core)

    # --- leadership, for the node --------------------------------------------------------

    def _leadership(self) -> Leadership:
        core, role = self._core, self._role
        if isinstance(role, Leader):
            return Leadership(Role.LEADER, core.node_id, core.term, role.is_ready())
        if isinstance(role, Candidate):
            return Leadership(Role.CANDIDATE, None, core.term)
        return Leadership(Role.FOLLOWER if core.is_voter else Role.LEARNER, role.leader, core.term)

    def _may_have_new_leadership(self) -> bool:
        """False on almost every step: a role object lives in one term, and within it only these two can change.

        And whether it votes, which a configuration says.
        """
        role = self._role
        if role is not self._announced_role:
            return True
        if isinstance(role, Leader):
            return not self._announced.ready and role.is_ready()
        return isinstance(role, Follower) and role.leader != self._announced.leader
