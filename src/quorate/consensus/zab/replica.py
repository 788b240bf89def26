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

from quorate.consensus.base_replica import BaseReplica
from quorate.consensus.records import Recovered
from quorate.consensus.replica import Message, NodeId, RandomSource, ReplicaConfig
from quorate.consensus.zab.core import Core
from quorate.consensus.zab.discovery import Discovery
from quorate.consensus.zab.follower import Follower
from quorate.consensus.zab.leader import Leader
from quorate.consensus.zab.looking import Looking
from quorate.consensus.zab.messages import (
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


class ZabReplica(BaseReplica[Core]):
    """One server of one ZAB group."""

    _role: Follower | Looking | Discovery | Leader

    def __init__(self, config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> None:
        super().__init__(Core(config, recovered, random, now_ms))

    def _first_role(self) -> Follower:
        """A server that has just started will look soon, since that disturbs nobody."""
        follower = Follower(self._core, self._asker)
        follower.hasten_election()
        return follower

    def _words(self) -> dict[str, int | str]:
        core = self._core
        return {"accepted_epoch": core.accepted_epoch, "current_epoch": core.current_epoch, "state": self._state()}

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
                self._role.receive_barrier_answer(message.asker, message.barrier_id, message.position)
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
                self._begin_election()
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
                self._begin_election()
        elif isinstance(role, Leader) and message.epoch == self._core.accepted_epoch:
            role.receive_ack_epoch(sender, message)

    def _count(self) -> None:
        if isinstance(self._role, Discovery):
            self._count_acks(self._role)

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

    def _step_down(self) -> None:
        self._begin_election()

    def _leader_lost(self, peer: NodeId) -> None:
        """Of the chosen leader this ends a vain wait: who looks finds it again, should it be there."""
        role = self._role
        if isinstance(role, Follower):
            if role.leader == peer:
                self._begin_election()
        elif isinstance(role, Looking) and role.vote is not None and role.vote.node == peer:
            self._begin_election()

    def _begin_election(self) -> None:
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

    def _follow_sender(self, sender: NodeId, generation: int) -> Follower | None:
        """A leader of an epoch that was not accepted cannot know what is lacking here."""
        return self._follow_established(sender) if generation == self._core.accepted_epoch else None

    def _discover(self, vote: Vote, transfer: bool = False) -> None:
        self._leave()
        self._role = Discovery(self._core, vote, transfer)
        self._count_acks(self._role)

    # --- leadership, for the node --------------------------------------------------------

    def _may_have_new_leadership(self) -> bool:
        """Here a role may go on to another epoch, and a follower is told only late who leads."""
        role = self._role
        if role is not self._announced_role or self._core.accepted_epoch != self._announced.generation:
            return True
        if isinstance(role, Leader):
            return not self._announced.ready and role.is_ready()
        return isinstance(role, Follower) and role.established and self._announced.leader is None
