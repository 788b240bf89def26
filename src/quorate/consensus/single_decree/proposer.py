"""A proposer: tries to get a value chosen, and finds out what may have been (Paxos Made Simple, 2.2 and 2.4)."""

from __future__ import annotations

import enum
from typing import Final

from quorate.consensus.replica import NodeId, RandomSource, Send
from quorate.consensus.single_decree.hard_state import decode_proposer, encode_proposer
from quorate.consensus.single_decree.messages import (
    NO_BALLOT,
    Accept,
    Ballot,
    Effects,
    PaxosMessage,
    Prepare,
    Promise,
    Proposal,
    Rejected,
    ToProposer,
)
from quorate.quorums import Majority

MAX_DOUBLINGS: Final = 5
"""The bound of the back-off grows to 2**5 timeouts, in which any few rivals find room."""


class Phase(enum.Enum):
    """What a proposer is doing."""

    IDLE = "has no value to propose, or need not any more"
    PREPARE = "phase 1: gathers promises"
    ACCEPT = "phase 2: has asked to accept"
    BACK_OFF = "waits before it tries a higher ballot"


class Proposer:
    """Proposes one value, in ballot after ballot, until it is stopped.  It never learns what is chosen by itself."""

    def __init__(
        self,
        node_id: NodeId,
        acceptors: Majority,
        random: RandomSource,
        recovered: bytes | None = None,
        timeout_ms: int = 200,
    ) -> None:
        """`recovered` is the last `Effects.state` that is durable.  Raises InvalidHardState.

        `timeout_ms` is how long a ballot may take, and should be a few round trips with
        their writes to disk; a bad guess costs time and nothing else.
        """
        self._node_id = node_id
        self._acceptors = acceptors
        self._random = random
        self._timeout_ms = timeout_ms
        self._round = decode_proposer(recovered)
        """The highest used or heard of.  What was used is durable before it is spoken of, so none is used twice."""
        self._value: bytes | None = None
        self._promises: dict[NodeId, Promise] = {}
        self._failures = 0
        self.phase = Phase.IDLE
        self.ballot = NO_BALLOT
        """The latest one of its own."""
        self.deadline_ms: int | None = None
        """When `tick` is due; None while idle."""

    def propose(self, value: bytes, now_ms: int) -> Effects:
        """Try to get `value` chosen.  Another one may be, and is then what this proposer proposes too."""
        assert self._value is None, "a proposer proposes one value of its own"
        self._value = value
        return self._prepare(now_ms)

    def stop(self) -> None:
        """A value is known to be chosen: further ballots would only repeat it."""
        self.phase = Phase.IDLE
        self.deadline_ms = None

    def tick(self, now_ms: int) -> Effects:
        """Time has passed.  Harmless before the deadline."""
        if self.deadline_ms is None or now_ms < self.deadline_ms:
            return Effects()
        if self.phase is Phase.BACK_OFF:
            return self._prepare(now_ms)
        self._back_off(now_ms)
        return Effects()

    def receive(self, sender: NodeId, message: ToProposer, now_ms: int) -> Effects:
        if sender not in self._acceptors.members or message.ballot != self.ballot:
            return Effects()  # late: about a ballot that was given up
        if isinstance(message, Rejected):
            return self._receive_rejected(message, now_ms)
        return self._receive_promise(sender, message, now_ms)

    def _receive_promise(self, acceptor: NodeId, message: Promise, now_ms: int) -> Effects:
        if self.phase is not Phase.PREPARE:
            return Effects()  # a majority had promised before
        self._promises[acceptor] = message
        if not self._acceptors.is_quorum(self._promises):
            return Effects()
        self.phase = Phase.ACCEPT
        self.deadline_ms = now_ms + self._timeout_ms
        return self._to_acceptors(Accept(self.ballot, self._value_to_propose()))

    def _receive_rejected(self, message: Rejected, now_ms: int) -> Effects:
        """There is a rival: let it go first.  Perhaps this ballot could still succeed, which would do no harm."""
        self._round = max(self._round, message.promised.round)
        if self.phase in (Phase.PREPARE, Phase.ACCEPT):
            self._back_off(now_ms)
        return Effects()

    def _value_to_propose(self) -> bytes:
        """That of the highest-numbered proposal that the promises tell of, else its own (P2c)."""
        told: list[Proposal] = [promise.accepted for promise in self._promises.values() if promise.accepted]
        if told:
            return max(told, key=lambda proposal: proposal.ballot).value
        assert self._value is not None
        return self._value

    def _prepare(self, now_ms: int) -> Effects:
        self._round += 1
        self.ballot = Ballot(self._round, self._node_id)
        self._promises = {}
        self.phase = Phase.PREPARE
        self.deadline_ms = now_ms + self._timeout_ms
        return self._to_acceptors(Prepare(self.ballot), encode_proposer(self._round))

    def _back_off(self, now_ms: int) -> None:
        """Wait for a random part of a time that doubles: sooner or later one proposer has two phases to itself."""
        bound_ms = self._timeout_ms << min(self._failures, MAX_DOUBLINGS)
        self._failures += 1
        self.phase = Phase.BACK_OFF
        self.deadline_ms = now_ms + self._random.randrange(0, bound_ms)

    def _to_acceptors(self, message: PaxosMessage, state: bytes | None = None) -> Effects:
        return Effects(state, tuple([Send(node, message) for node in self._acceptors.members]))
