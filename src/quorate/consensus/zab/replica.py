"""The replica: takes each event to the role that the server has, and changes the role.

Each change of role is one method here, so that they can be read one after another:

                no leader heard           a quorum votes for it          a quorum accepted its epoch
    Follower -------------------> Looking ---------------------> Discovery ------------------------> Leader
      ^  |                           |                            |   ^                                |
      |  +-- its leader hands over --|----------------------------|---+                                |
      |                              | a quorum votes for another |                                    |
      +------------------------------+----------------------------+ a leader, or a later epoch, is heard of
"""

from __future__ import annotations

from quorate.consensus.barriers import Barrier
from quorate.consensus.membership import Configuration, InvalidConfiguration, decode_configuration
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
from quorate.consensus.zab.core import Core
from quorate.consensus.zab.discovery import Discovery
from quorate.consensus.zab.follower import Follower
from quorate.consensus.zab.leader import Leader
from quorate.consensus.zab.looking import Looking
from quorate.consensus.zab.messages import (
    MAX_NUMBER,
    Ack,
    AckEpoch,
    BarrierAnswer,
    BarrierRequest,
    Commit,
    FollowerInfo,
    FromLeader,
    HandOver,
    Leading,
    NewEpoch,
    Notification,
    OutOfSync,
    Ping,
    TakeOver,
    UpToDate,
    Vote,
    ZabMessage,
    is_sane,
)

MAX_ASKER = 1 << 31


class ZabReplica:
    """One server of one ZAB group.  Implements `quorate.consensus.replica.Replica`."""

    def __init__(self, config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> None:
        self._core = Core(config, recovered, random, now_ms)
        self._asker = random.randrange(0, MAX_ASKER)
        """Tells this replica's forwarded barriers from those before a restart."""
        follower = Follower(self._core, self._asker)
        follower.wait_briefly()
        self._role: Follower | Looking | Discovery | Leader = follower
        self._announced = self._leadership()
        self._announced_role: Follower | Looking | Discovery | Leader = follower

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
        return role.heartbeat_ms if isinstance(role, Leader) else role.deadline_ms()

    def status(self) -> Status:
        core, role = self._core, self._role
        leadership = self._leadership()
        return Status(
            role=leadership.role,
            leader=leadership.leader,
            generation=core.accepted_epoch,
            ready=leadership.ready,
            voters=core.voters,
            learners=tuple(core.configuration.learners),
            first_position=core.log.base_position + 1,
            last_position=core.log.last_position,
            commit_position=core.commit_position,
            durable_position=core.durable_position,
            words={
                "accepted_epoch": core.accepted_epoch,
                "current_epoch": core.current_epoch,
                "state": self._state(),
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
                self._look()
        elif role.tick():
            self._look()

    def _persisted(self, ticket: int) -> None:
        self._core.persisted(ticket)
        role = self._role
        if isinstance(role, Leader):
            role.persisted()
        elif isinstance(role, Discovery):
            self._count_acks(role)

    def _read_barrier(self, barrier_id: int) -> None:
        role = self._role
        if isinstance(role, Leader):
            role.barrier(Barrier(barrier_id, self._core.node_id, None))
        elif isinstance(role, Follower):
            role.forward_barrier(barrier_id)
        else:
            self._core.effects.barriers_failed.append(barrier_id)

    def _peer_lost(self, peer: NodeId) -> None:
        """Of the chosen leader this ends a vain wait: who looks finds it again, should it be there."""
        role = self._role
        if isinstance(role, Leader):
            role.peer_lost(peer)
        elif isinstance(role, Follower):
            if role.leader == peer:
                self._look()
        elif isinstance(role, Looking) and role.vote is not None and role.vote.node == peer:
            self._look()

    def _snapshot_arrived(self, event: SnapshotArrived) -> None:
        # The numbers came with the snapshot, off the network.
        if not (1 <= event.position_generation <= event.generation <= MAX_NUMBER and event.position <= MAX_NUMBER):
            return
        if event.generation != self._core.accepted_epoch or event.sender == self._core.node_id:
            return  # a leader of an epoch that was not accepted cannot know what is lacking here
        try:
            encoded = event.configuration
            configuration = decode_configuration(encoded) if encoded else self._core.config.initial
        except InvalidConfiguration:
            return
        follower = self._follow_established(event.sender)
        if follower is not None:
            follower.take_snapshot(event, configuration)

    # --- messages ------------------------------------------------------------------------

    def _receive(self, sender: NodeId, message: Message) -> None:
        assert isinstance(message, ZabMessage), message
        # Of senders that are no members as well: of whom this server's log does not know yet
        # may lead it, or need its vote.  What they say is not counted.
        if sender == self._core.node_id or not is_sane(message):
            return
        if isinstance(message, FromLeader):
            self._receive_from_leader(sender, message)
        elif isinstance(message, Ack | OutOfSync | BarrierRequest):
            self._receive_from_follower(sender, message)
        elif isinstance(message, Commit | UpToDate):
            if message.epoch == self._core.accepted_epoch:
                follower = self._follow_established(sender)
                if follower is not None:
                    follower.receive_commit(message.commit_position)
        elif isinstance(message, BarrierAnswer):
            if message.epoch == self._core.accepted_epoch and isinstance(self._role, Follower):
                self._role.receive_barrier_answer(message)
        else:
            self._receive_rare(sender, message)

    def _receive_rare(self, sender: NodeId, message: ZabMessage) -> None:
        """What elections, discoveries and transfers consist of."""
        if isinstance(message, Notification):
            self._receive_notification(sender, message)
        elif isinstance(message, Leading):
            self._receive_leading(sender, message)
        elif isinstance(message, FollowerInfo):
            self._receive_follower_info(sender, message)
        elif isinstance(message, NewEpoch):
            self._receive_new_epoch(sender, message)
        elif isinstance(message, AckEpoch):
            self._receive_ack_epoch(sender, message)
        elif isinstance(message, HandOver):
            self._receive_hand_over(sender, message)
        else:
            assert isinstance(message, TakeOver), message
            self._receive_take_over(sender, message)

    def _receive_from_leader(self, sender: NodeId, message: FromLeader) -> None:
        """Only who was accepted by a quorum says such things: whoever hears them in a later epoch goes over."""
        core, role = self._core, self._role
        if message.epoch == core.accepted_epoch:
            follower = self._follow_established(sender)
            if follower is not None:
                follower.receive(message)
        elif not isinstance(message, Ping):
            return  # late, or the next ping will say the same
        elif message.epoch < core.accepted_epoch:
            # A leader of the past; or one whom this server cannot follow unless it finds a later epoch.
            core.send_follower_info(sender)
        elif isinstance(role, Follower) and role.leader == sender and not role.established:
            role.seek()
        else:
            self._follow(sender)

    def _receive_from_follower(self, sender: NodeId, message: Ack | OutOfSync | BarrierRequest) -> None:
        role = self._role
        if not isinstance(role, Leader) or message.epoch != self._core.accepted_epoch:
            return
        if isinstance(message, Ack):
            role.receive_ack(sender, message)
        elif isinstance(message, OutOfSync):
            role.receive_out_of_sync(sender, message)
        else:
            role.receive_barrier_request(sender, message.asker, message.barrier_id)

    # --- leader election -----------------------------------------------------------------

    def _receive_notification(self, sender: NodeId, message: Notification) -> None:
        """Whoever follows a leader, or leads, takes no part in elections: that keeps a working leader its followers."""
        core, role = self._core, self._role
        if isinstance(role, Looking):
            role.receive(sender, message)
            self._count_votes(role)
        elif isinstance(role, Leader):
            if message.looking:
                core.send(sender, Leading(core.accepted_epoch))
        elif isinstance(role, Discovery):
            if message.looking:
                self._tell_choice(sender, role.vote)
        elif role.leader is None:
            if message.looking:
                self._join_election(sender, message)
        elif role.leader == sender:
            if self._does_not_lead(role, message):
                self._join_election(sender, message)
        elif message.looking and role.vote is not None and not role.established:
            self._tell_choice(sender, role.vote)

    def _does_not_lead(self, role: Follower, message: Notification) -> bool:
        """Whether this, said by the chosen leader, shows that it leads nobody; and is no late message."""
        if message.round > self._core.election_round:
            return True
        if role.established or message.vote.node == role.leader:
            return False
        return not message.looking or role.vote is None or message.vote > role.vote

    def _tell_choice(self, to: NodeId, vote: Vote) -> None:
        core = self._core
        core.send(to, Notification(core.accepted_epoch, core.election_round, vote, False))

    def _receive_leading(self, sender: NodeId, message: Leading) -> None:
        role = self._role
        if isinstance(role, Looking) or (isinstance(role, Follower) and role.leader is None):
            if message.epoch < self._core.accepted_epoch:
                self._core.send_follower_info(sender)
            else:
                self._follow(sender)

    def _count_votes(self, looking: Looking) -> None:
        vote = looking.elected()
        if vote is None:
            return
        if vote.node == self._core.node_id:
            self._discover(vote)
        else:
            self._follow(vote.node, vote)

    # --- discovery -----------------------------------------------------------------------

    def _receive_follower_info(self, sender: NodeId, message: FollowerInfo) -> None:
        core, role = self._core, self._role
        if isinstance(role, Discovery):
            role.receive_info(sender, message)
            self._count_acks(role)
        elif isinstance(role, Leader):
            if sender not in core.peers:
                return
            core.seen_epoch = max(core.seen_epoch, message.epoch)
            if message.epoch > core.accepted_epoch:
                # It cannot come back to this epoch, and a leader of a later one may be at work.
                self._look()
            else:
                role.receive_follower_info(sender)
        elif isinstance(role, Looking):
            role.tell(sender)
        elif role.leader is not None:
            vote = role.vote if role.vote is not None else Vote(0, 0, 0, role.leader)
            self._tell_choice(sender, vote)

    def _receive_new_epoch(self, sender: NodeId, message: NewEpoch) -> None:
        """NEWEPOCH: accepted from the chosen leader alone, once; again only to repeat the answer to it.

        An epoch promised to another leader is accepted from one who has it already: a
        quorum accepted it from him, so the other will never find one.
        """
        core, role = self._core, self._role
        if not isinstance(role, Follower) or role.leader != sender:
            return
        if message.epoch > core.accepted_epoch:
            if role.established:
                return
            core.promise(message.epoch, sender)
            role.postpone_election()
        elif message.epoch < core.accepted_epoch or not (message.established or core.promised_to == sender):
            core.send_follower_info(sender)
            return
        last = core.own_vote()
        core.send(sender, AckEpoch(core.accepted_epoch, last.current_epoch, last.generation, last.position))

    def _receive_ack_epoch(self, sender: NodeId, message: AckEpoch) -> None:
        role = self._role
        if isinstance(role, Discovery):
            if role.receive_ack(sender, message):
                self._count_acks(role)
            else:
                self._look()
        elif isinstance(role, Leader) and message.epoch == self._core.accepted_epoch:
            role.receive_ack_epoch(sender, message)

    def _count_acks(self, discovery: Discovery) -> None:
        if discovery.is_complete():
            self._role = Leader(self._core, discovery.acks)

    # --- handing over --------------------------------------------------------------------

    def _receive_hand_over(self, sender: NodeId, message: HandOver) -> None:
        core, role = self._core, self._role
        follows = isinstance(role, Follower) and role.established and role.leader == sender
        if follows and message.epoch == core.accepted_epoch and core.is_synchronised() and core.is_voter:
            self._discover(core.own_vote(), transfer=True)

    def _receive_take_over(self, sender: NodeId, message: TakeOver) -> None:
        core, role = self._core, self._role
        if message.epoch != core.accepted_epoch:
            return
        if isinstance(role, Leader):
            handed_over = role.successor() == sender
        else:
            handed_over = isinstance(role, Follower) and role.established
        if handed_over:
            self._follow(sender, transfer=True)

    # --- changes of role -----------------------------------------------------------------

    def _leave(self) -> None:
        """The role ends: what waits for it fails."""
        if isinstance(self._role, Leader):
            self._role.resign()
        elif isinstance(self._role, Follower):
            self._role.fail_barriers()

    def _look(self) -> None:
        """No leader is heard from: take part in the next election; or wait to be found, where this is no voter."""
        self._leave()
        if self._core.may_stand():
            self._role = Looking(self._core, self._core.election_round + 1)
            self._role.tell_all()
            self._count_votes(self._role)
        else:
            self._role = Follower(self._core, self._asker)

    def _join_election(self, sender: NodeId, message: Notification) -> None:
        """Somebody looks for a leader, and there is none: vote, even where this server's log says that it may not.

        A server that does not know yet that it was promoted may be needed to elect whoever
        knows, and the votes of others are counted by nobody.
        """
        self._leave()
        self._role = Looking(self._core, max(self._core.election_round, message.round))
        self._role.receive(sender, message)
        self._count_votes(self._role)

    def _follow(self, leader: NodeId, vote: Vote | None = None, transfer: bool = False) -> None:
        """Begin to follow a leader that this server has not heard from in its accepted epoch."""
        self._leave()
        self._role = Follower(self._core, self._asker, leader, vote, transfer)
        self._role.seek()

    def _follow_established(self, sender: NodeId) -> Follower | None:
        """`sender` leads the accepted epoch.  None where it is not to be followed."""
        role = self._role
        if isinstance(role, Leader):
            return None
        if isinstance(role, Discovery) and role.transfer and role.epoch is None:
            return None  # the leader that handed over
        if isinstance(role, Follower):
            if role.leader == sender:
                role.hear_from_leader()
                return role
            if role.established or role.transfer:
                return None
        self._leave()
        follower = self._role = Follower(self._core, self._asker, sender)
        follower.hear_from_leader()
        return follower

    def _discover(self, vote: Vote, transfer: bool = False) -> None:
        self._leave()
        self._role = Discovery(self._core, vote, transfer)
        self._count_acks(self._role)

    # --- leadership, for the node --------------------------------------------------------

    def _state(self) -> str:
        """In ZooKeeper's words, but for the phase that it leaves out."""
        role = self._role
        if isinstance(role, Looking):
            return "looking"
        if isinstance(role, Discovery):
            return "discovering"
        if isinstance(role, Leader):
            return "leading"
        if role.leader is None:
            return "waiting"
        if not role.established:
            return "joining"
        name = "following" if self._core.is_voter else "observing"
        return name if self._core.is_synchronised() else "synchronising"

    def _leadership(self) -> Leadership:
        """A leader that may still fail in discovery leads nobody yet."""
        core, role = self._core, self._role
        if isinstance(role, Leader):
            return Leadership(Role.LEADER, core.node_id, core.accepted_epoch, role.is_ready())
        if isinstance(role, Follower):
            leader = role.leader if role.established else None
            return Leadership(Role.FOLLOWER if core.is_voter else Role.LEARNER, leader, core.accepted_epoch)
        return Leadership(Role.CANDIDATE if core.may_stand() else Role.LEARNER, None, core.accepted_epoch)

    def _may_have_new_leadership(self) -> bool:
        """False on almost every step: a role object keeps its leader once that is established, and its epoch."""
        role = self._role
        if role is not self._announced_role or self._core.accepted_epoch != self._announced.generation:
            return True
        if isinstance(role, Leader):
            return not self._announced.ready and role.is_ready()
        return isinstance(role, Follower) and role.established and self._announced.leader is None
