"""A server that looks for a leader: fast leader election, in which the best history wins.

Everybody tells everybody whom it votes for, first itself, and goes over to a better vote as
soon as it hears of one.  Once a quorum votes alike, its choice begins a discovery and the
others follow it.  Votes count within one *round*; who is behind joins the newer round.
Nothing here is durable or binds anybody: it only finds somebody whose discovery is likely
to succeed, so to look disturbs no leader (as Raft's pre-votes do not).
"""

from __future__ import annotations

import msgspec

from quorate.consensus.replica import NodeId
from quorate.consensus.zab.core import Core
from quorate.consensus.zab.messages import Notification, Vote


class Looking:
    """Takes part in one election, of this round at first.  It says nothing until `tell_all` or `receive`."""

    def __init__(self, core: Core, round: int) -> None:
        self.core = core
        self.vote: Vote | None = None
        """None only where this server may not stand and has not heard of anybody who may."""
        self._votes: dict[NodeId, Vote] = {}
        self._elected: Vote | None = None
        """What was elected, as its node itself says: by a quorum that this server's log may not know yet."""
        self.election_ms = core.now_ms + core.draw_election_timeout_ms()
        """When this round is given up for a new one: somebody who was voted for may be gone."""
        self.resend_ms = 0
        """When notifications are repeated; 0 before they were sent."""
        self._enter(round)

    def _enter(self, round: int) -> None:
        self.core.election_round = round
        self._votes = {}
        self._elected = None
        self.vote = self._own_vote() if self.core.may_stand() else None

    def _own_vote(self) -> Vote:
        core, vote = self.core, self.core.own_vote()
        return vote if core.now_ms >= core.aside_until_ms else msgspec.structs.replace(vote, aside=True)

    def deadline_ms(self) -> int:
        return min(self.election_ms, self.resend_ms)

    def tick(self) -> bool:
        """Whether to begin a new round; notifications may be lost, so they are repeated before that."""
        if self.core.now_ms >= self.election_ms:
            if self.vote is not None and self.vote.node == self.core.node_id:
                self.core.stand_aside()
            return True
        if self.core.now_ms >= self.resend_ms:
            self.tell_all()
        return False

    def receive(self, sender: NodeId, message: Notification) -> None:
        core = self.core
        if message.round < core.election_round:
            if message.looking:
                self.tell(sender)
            return
        is_news = message.round > core.election_round
        if is_news:
            self._enter(message.round)
        # In a round votes only get better, so an earlier one that comes late is known by that.
        self._votes[sender] = max(message.vote, self._votes.get(sender, message.vote))
        if self.vote is None or message.vote > self.vote:
            # Others may still vote for this server, from when it was a voter: that does not make it stand.
            if message.vote.node == core.node_id and not core.may_stand():
                return
            self.vote = message.vote
            is_news = True
        if not message.looking and message.vote.node == sender:
            self._elected = message.vote
        if is_news or not self.resend_ms:
            self.tell_all()
        elif message.looking and message.vote < self.vote:
            self.tell(sender)

    def elected(self) -> Vote | None:
        """What a quorum votes for, this server among them.

        Not somebody who votes for another by now: others who still follow it would send this server there and back.
        """
        if self.vote is None or self.vote == self._elected:
            return self.vote
        if self._votes.get(self.vote.node, self.vote) != self.vote:
            return None
        supporters = [node for node, vote in self._votes.items() if vote == self.vote]
        if self.core.is_voter:
            supporters.append(self.core.node_id)
        return self.vote if self.core.quorum.is_quorum(supporters) else None

    def tell(self, to: NodeId) -> None:
        core = self.core
        if self.vote is not None:
            core.send(to, Notification(core.accepted_epoch, core.election_round, self.vote, True))

    def tell_all(self) -> None:
        """The voters that this server knows; and its choice, whom its log may not know yet."""
        self.resend_ms = self.core.now_ms + max(self.core.timing.election_timeout_ms // 4, 1)
        voters = self.core.voters
        for voter in voters:
            if voter != self.core.node_id:
                self.tell(voter)
        if self.vote is not None and self.vote.node not in voters and self.vote.node != self.core.node_id:
            self.tell(self.vote.node)
