"""An acceptor: the memory of the protocol (Paxos Made Simple, section 2.2)."""

from __future__ import annotations

from quorate.consensus.replica import NodeId, Send
from quorate.consensus.single_decree.hard_state import decode_acceptor, encode_acceptor
from quorate.consensus.single_decree.messages import (
    Accept,
    Accepted,
    Effects,
    PaxosMessage,
    Prepare,
    Promise,
    Proposal,
    Rejected,
    ToAcceptor,
)


class Acceptor:
    """Answers every request at once; does nothing by itself."""

    def __init__(self, learners: tuple[NodeId, ...], recovered: bytes | None = None) -> None:
        """`recovered` is the last `Effects.state` that is durable.  Raises InvalidHardState."""
        self._learners = learners
        self.promised, self.accepted = decode_acceptor(recovered)
        """It accepts nothing below `promised`, which never falls, and `accepted` is never above it."""

    def receive(self, sender: NodeId, message: ToAcceptor) -> Effects:
        if message.ballot < self.promised:
            return Effects(messages=(Send(sender, Rejected(message.ballot, self.promised)),))
        if isinstance(message, Prepare):
            return self._promise(sender, message)
        return self._accept(message)

    def _promise(self, proposer: NodeId, message: Prepare) -> Effects:
        former = self.promised
        self.promised = message.ballot
        answer = Promise(message.ballot, self.accepted)
        return self._effects(self.promised != former, (proposer,), answer)

    def _accept(self, message: Accept) -> Effects:
        former = self.promised, self.accepted
        self.promised = message.ballot
        self.accepted = Proposal(message.ballot, message.value)
        answer = Accepted(message.ballot, message.value)
        return self._effects((self.promised, self.accepted) != former, self._learners, answer)

    def _effects(self, has_changed: bool, to: tuple[NodeId, ...], answer: PaxosMessage) -> Effects:
        state = encode_acceptor(self.promised, self.accepted) if has_changed else None
        return Effects(state, tuple([Send(node, answer) for node in to]))
