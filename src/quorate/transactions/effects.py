"""Events in, effects out: the same manners as a replica's (`quorate.consensus.replica`), for transactions.

`step(event, now_ms)` changes a coordinator or participant and returns `Effects`.  Whoever
runs it carries them out in this order:

1. send `messages`, which need not wait;
2. make `records` durable, after those of all earlier tickets; then send
   `messages_after_persist` and feed `Persisted(ticket)`.

*Durable* means synced to a disk for a process, and applied from the group's log for a group
(see the head of the package).  Time is an argument, in milliseconds of a clock that never
goes back and has no meaning between machines.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from quorate.transactions.messages import Address, AnyMessage
from quorate.transactions.records import AnyRecord


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed.  Due whenever `now_ms` reaches `deadline_ms()`; harmless earlier."""


class Receive(msgspec.Struct, frozen=True):
    """A message from `sender`.  One that makes no sense is ignored."""

    sender: Address
    message: AnyMessage


class Persisted(msgspec.Struct, frozen=True, gc=False):
    """The records of every effect with a ticket up to `ticket` are durable."""

    ticket: int


class Begin(msgspec.Struct, frozen=True):
    """Coordinator only: run a transaction, one operation at each participant; `client` gets its `Outcome`.

    `number` is `Coordinator.next_number`, or more.  Numbers only grow, so one that comes a
    second time is refused as `Refusal.NOT_NEW`, also after a restart.  Refused too until
    the first ticket is persisted.
    """

    number: int
    client: Address
    operations: dict[Address, bytes]


Event: TypeAlias = Tick | Receive | Persisted | Begin


class Refusal(enum.Enum):
    """Why a coordinator did nothing with a Begin.  Nobody was asked to prepare."""

    NOT_OPEN = "this life of the coordinator is not durable yet"
    NOT_NEW = "the transaction's number is not new"
    NOT_OURS = "the transaction's number is none that this life of the coordinator may give out"
    NO_PARTICIPANTS = "a transaction needs a participant"


class Refused(msgspec.Struct, frozen=True, gc=False):
    """`text` says which number came and which was expected."""

    refusal: Refusal
    text: str


class Send(msgspec.Struct, frozen=True):
    """One message to one address."""

    to: Address
    message: AnyMessage


@dataclass(slots=True)
class Effects:
    """All that one step wants.  Lists are in order."""

    records: list[AnyRecord] = field(default_factory=list)
    ticket: int = 0
    """Ticket of `records` and `messages_after_persist`; 0 where both are empty."""
    messages: list[Send] = field(default_factory=list)
    messages_after_persist: list[Send] = field(default_factory=list)
    refused: Refused | None = None
    """Set where a Begin was refused."""
