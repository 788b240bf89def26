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

from quorate.consensus.barriers import Barrier
from quorate.consensus.core import QuorumOf
from quorate.consensus.membership import Configuration, InvalidConfiguration, decode_configuration
from quorate.consensus.paxos.ballots import MAX_NUMBER, owner_of, round_of
from quorate.consensus.paxos.candidate import Candidate, Phase
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


class PaxosReplica:
    """One server of one Multi-Paxos group.  Implements `quorate.consensus.replica.Replica`."""

    def __init__(
        self,
        config: ReplicaConfig,
        recovered: Recovered,
        random: RandomSource,
        now_ms: int,
        quorum_of: QuorumOf = Configuration.quorum,
    ) -> None:
        """`quorum_of`: who decides in a configuration, by default majorities."""
        self._core = Core(config, recovered, random, now_ms, quorum_of)
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
            generation=core.promised,
            ready=leadership.ready,
            voters=core.voters,
            learners=tuple(core.configuration.learners),
            first_position=core.log.base_position + 1,
            last_position=core.log.last_position,
            commit_position=core.commit_position,
            durable_position=core.durable_position,
            words={
                "ballot": f"{round_of(core.promised)}.{owner_of(core.promised)}",
                "state": role.phase.value if isinstance(role, Candidate) else leadership.role.value,
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
            self._count_promises(role)

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
        # The numbers came with the snapshot, off the network.  (A void entry's generation is 0.)
        if not (0 <= event.position_generation <= event.generation <= MAX_NUMBER and 1 <= event.position <= MAX_NUMBER):
            return
        if event.generation < self._core.promised or event.sender == self._core.node_id:
            return
        try:
            encoded = event.configuration
            configuration = decode_configuration(encoded) if encoded else self._core.config.initial
        except InvalidConfiguration:
            return
        follower = self._follow(event.sender, event.generation)
        if follower is not None:
            follower.take_snapshot(event, configuration)

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
            self._count_promises(self._role)

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
                self._count_promises(role)
        elif isinstance(message, BarrierAnswer):
            role.receive_barrier_answer(message)

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
            self._count_promises(role)

    def _count_promises(self, candidate: Candidate) -> None:
        if candidate.has_lost():
            self._become_follower(None)
        elif candidate.has_won():
            if candidate.phase is Phase.PRE_VOTE:
                self._stand()
            else:
                self._become_leader()

    def _leader_is_alive(self) -> bool:
        return isinstance(self._role, Leader) or (isinstance(self._role, Follower) and self._role.leader_is_alive())

    # --- changes of role -----------------------------------------------------------------

    def _become_follower(self, leader: NodeId | None) -> None:
        role = self._role
        if isinstance(role, Leader):
            role.resign()
        elif isinstance(role, Follower):
            role.fail_barriers()
        self._role = Follower(self._core, leader, self._asker)

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

    def _ask_pre_vote(self) -> None:
        """No leader is heard from: ask whether a candidacy could win, before disturbing anyone with a new ballot."""
        if isinstance(self._role, Follower):
            self._role.fail_barriers()
        self._role = Candidate(self._core, Phase.PRE_VOTE)
        self._count_promises(self._role)

    def _stand(self, transfer: bool = False) -> None:
        """A quorum would promise, or the leader wants this server to lead: prepare a new ballot (phase 1a)."""
        core = self._core
        if isinstance(self._role, Follower):
            self._role.fail_barriers()
        core.promise(core.next_ballot())
        self._role = Candidate(core, Phase.PREPARE, transfer)

    def _become_leader(self) -> None:
        candidate = self._role
        assert isinstance(candidate, Candidate) and candidate.has_won()
        self._role = Leader(self._core, candidate.proposals(), candidate.commit_position(), candidate.heard)

    # --- leadership, for the node --------------------------------------------------------

    def _leadership(self) -> Leadership:
        core, role = self._core, self._role
        if isinstance(role, Leader):
            return Leadership(Role.LEADER, core.node_id, core.promised, role.is_ready())
        if isinstance(role, Candidate):
            return Leadership(Role.CANDIDATE, None, core.promised)
        return Leadership(Role.FOLLOWER if core.is_voter else Role.LEARNER, role.leader, core.promised)

    def _may_have_new_leadership(self) -> bool:
        """False on almost every step: a role object lives under one ballot, and under it only these two can change.

        And whether it votes, which a configuration says.
        """
        role = self._role
        if role is not self._announced_role:
            return True
        if isinstance(role, Leader):
            return not self._announced.ready and role.is_ready()
        return isinstance(role, Follower) and role.leader != self._announced.leader
