"""A prospective leader in the paper's phase 1: finds an epoch that is new to a quorum, and the newest history.

    CEPOCH     from a quorum: the epoch must be above all that these have accepted
    NEWEPOCH   to them; whoever accepts it acknowledges nothing to earlier leaders any more
    ACK-E      from a quorum: no history of theirs is better than the own one, so that has all that is committed

In the paper the leader now fetches the best history.  Here it must have it already, as
leader election sees to (ZooKeeper does so too).  A follower whose history turns out to be
better is not counted: what is better there was committed by no quorum if one is found
without it.  Where none can be, the discovery has failed, and another server is found.
"""

from __future__ import annotations

from quorate.consensus.replica import NodeId
from quorate.consensus.zab.core import Core
from quorate.consensus.zab.messages import AckEpoch, FollowerInfo, NewEpoch, TakeOver, Vote


class Discovery:
    """Was voted for by a quorum, or told by the leader to take over (`transfer`)."""

    def __init__(self, core: Core, vote: Vote, transfer: bool = False) -> None:
        assert core.may_stand() and vote.node == core.node_id
        self.core = core
        self.vote = vote
        self.transfer = transfer
        self.epoch: int | None = None
        """The one that was promised to this server, once a quorum wants to follow it."""
        self.acks: dict[NodeId, AckEpoch] = {}
        self._infos: dict[NodeId, FollowerInfo] = {}
        self._better: set[NodeId] = set()
        """Voters whose history is better than the own one."""
        self.election_ms = core.now_ms + core.draw_election_timeout_ms()
        """When this is given up."""
        self.resend_ms = 0
        if transfer:
            self._summon()
        self._choose_epoch()

    def deadline_ms(self) -> int:
        return min(self.election_ms, self.resend_ms) if self.transfer else self.election_ms

    def tick(self) -> bool:
        """Whether to give up.  Followers repeat what gets lost, once they know that they are to follow."""
        core = self.core
        if core.now_ms >= self.election_ms:
            if not self.transfer:
                core.stand_aside()
            return True
        if self.transfer and core.now_ms >= self.resend_ms:
            self._summon()
        return False

    def _summon(self) -> None:
        """The leader hands over to this server: whoever follows that leader is to come here."""
        core = self.core
        self.resend_ms = core.now_ms + core.config.heartbeat_interval_ms
        for peer in core.peers:
            if peer not in self._infos:
                core.send(peer, TakeOver(core.current_epoch))

    def receive_info(self, sender: NodeId, message: FollowerInfo) -> None:
        """CEPOCH.  One that comes again shows that NEWEPOCH or ACK-E was lost."""
        core = self.core
        if sender not in core.peers:
            return
        self._infos[sender] = message
        core.seen_epoch = max(core.seen_epoch, message.epoch)
        own = (self.epoch, core.node_id)
        if self.epoch is None or (message.epoch >= self.epoch and (message.epoch, message.promised_to) != own):
            self._choose_epoch()
        else:
            core.send(sender, NewEpoch(self.epoch, False))

    def _choose_epoch(self) -> None:
        """An epoch above all that a quorum has accepted; it must be durable here before anybody hears of it.

        Otherwise this server might, after a crash, find the same number for another leadership.
        """
        core = self.core
        if not core.quorum.is_quorum([core.node_id, *self._infos]):
            return
        self.epoch = core.seen_epoch + 1
        core.promise(self.epoch, core.node_id)
        self.acks = {}
        for follower in self._infos:
            core.send(follower, NewEpoch(self.epoch, False))

    def receive_ack(self, sender: NodeId, message: AckEpoch) -> bool:
        """ACK-E; False where without those whose history is better than the own one there is no quorum."""
        core = self.core
        if message.epoch != self.epoch or sender not in core.peers:
            return True
        own = core.own_vote()
        theirs = Vote(message.current_epoch, message.generation, message.position, own.node)
        if sender in core.voters and theirs > own:
            self._better.add(sender)
            if core.quorum.is_quorum([node for node in core.voters if node not in self._better]):
                return True
            core.stand_aside()
            return False
        self.acks[sender] = message
        return True

    def is_complete(self) -> bool:
        """Its own promise counts like any other, and like any other not before it is durable."""
        core = self.core
        if self.epoch is None or not core.promise_is_durable():
            return False
        return core.quorum.is_quorum([core.node_id, *self.acks])
