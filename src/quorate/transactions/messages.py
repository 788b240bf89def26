"""What coordinator, participants and clients say to one another.

Messages may be lost, delayed, repeated and reordered.  Each names its transaction, and none
means anything else when it comes a second time.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

Address: TypeAlias = str
"""Name of a coordinator, participant or client; of a group it names whoever leads it."""


class TransactionId(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Unique for ever: the coordinator's numbers only grow, and no two of its lives share one."""

    coordinator: Address
    number: int
    """generation << 32 | counter, where each life of the coordinator is a generation."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages.  They travel as msgpack arrays."""

    transaction: TransactionId


class Prepare(Message, frozen=True, array_like=True, tag=True):
    """Coordinator to participant, phase one: lock what the operation needs, and promise to be able to do it."""

    participants: tuple[Address, ...]
    """Everybody who takes part, in order: whom to ask when the coordinator is silent."""
    finished_below: int
    """No transaction of this coordinator with a smaller number needs to be remembered by anybody."""
    operation: bytes


class Vote(Message, frozen=True, array_like=True, tag=True):
    """Participant to coordinator.  A yes is a promise that outlives crashes; a no comes with its reason."""

    yes: bool
    result: bytes = b""
    """What the operation returns, with a yes."""
    reason: str = ""


class Decision(Message, frozen=True, array_like=True, tag=True):
    """Coordinator to participants, phase two.  Also the answer to `Inquiry`, from the coordinator or a peer."""

    committed: bool


class Acknowledgement(Message, frozen=True, array_like=True, tag=True):
    """Participant to coordinator: a commit is durable here, and will not be asked about again."""


class Inquiry(Message, frozen=True, array_like=True, tag=True):
    """A participant in doubt to the coordinator and its peers.  Whoever does not know either is silent."""


class Outcome(Message, frozen=True, array_like=True, tag=True):
    """Coordinator to client: how it ended."""

    committed: bool
    results: dict[Address, bytes] = {}
    """What each participant's operation returned, where it was committed."""
    reason: str = ""
    """Why it was aborted."""


AnyMessage: TypeAlias = Prepare | Vote | Decision | Acknowledgement | Inquiry | Outcome
