"""What proposers, acceptors and learners say to one another, and what a step of theirs wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec

from quorate.consensus.replica import Message, NodeId, Send

MAX_ROUND: Final = (1 << 62) - 1
"""No decision takes so many attempts: decoding a message with more is an error."""


class Ballot(NamedTuple):
    """The paper's proposal number.  Compared by round, then by the proposer's node; rounds count from 1."""

    round: Annotated[int, msgspec.Meta(ge=0, le=MAX_ROUND)]
    node: NodeId


NO_BALLOT: Final = Ballot(0, 0)
"""Below every ballot that a proposer uses: what an acceptor has promised that was never asked."""


class Proposal(NamedTuple):
    """A numbered value.  No two proposals have the same ballot, because a proposer never uses one twice."""

    ballot: Ballot
    value: bytes


class PaxosMessage(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Base of the messages: all are about one ballot."""

    ballot: Ballot


class Prepare(PaxosMessage, frozen=True, array_like=True, tag=True, gc=False):
    """Phase 1a, proposer to acceptors: promise to accept nothing below this ballot, and tell what you accepted."""


class Promise(PaxosMessage, frozen=True, array_like=True, tag=True, gc=False):
    """Phase 1b, acceptor to proposer: promised; `accepted` is its highest-numbered accepted proposal, if any."""

    accepted: Proposal | None


class Accept(PaxosMessage, frozen=True, array_like=True, tag=True, gc=False):
    """Phase 2a, proposer to acceptors: accept this proposal."""

    value: bytes


class Accepted(PaxosMessage, frozen=True, array_like=True, tag=True, gc=False):
    """Phase 2b, acceptor to learners: it has accepted this proposal."""

    value: bytes


class Rejected(PaxosMessage, frozen=True, array_like=True, tag=True, gc=False):
    """Acceptor to proposer: nothing can come of this ballot here, because of a promise to a higher one."""

    promised: Ballot


AnyMessage: TypeAlias = Prepare | Promise | Accept | Accepted | Rejected
ToAcceptor: TypeAlias = Prepare | Accept
ToProposer: TypeAlias = Promise | Rejected


@dataclass(frozen=True, slots=True)
class Effects:
    """All that one step wants: `state` is made durable, *then* `messages` leave.

    Steps need not wait for the disk, but their effects keep their order: no message leaves
    before the states of all earlier steps are durable, even where its own step has none.
    """

    state: bytes | None = None
    """Takes the place of the agent's former state; None where that still holds."""
    messages: tuple[Send, ...] = ()
    """Also to the agent's own node, where another agent may be: they talk as if they were apart."""
