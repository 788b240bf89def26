"""What Multi-Paxos servers say to one another: the papers' messages, each for many slots at once.

Every message carries a ballot: what a leader or candidate says that of its own, and an
answer that of what it answers, but for `Rejected` and a `PreVoted` that refuses, which carry
the one that their sender has promised.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from quorate.consensus.membership import PREFIX
from quorate.consensus.records import Entry
from quorate.consensus.replica import Message
from quorate.consensus.sanity import MAX_NUMBER, is_sane_configuration
from quorate.consensus.timing import MAX_ROUND_TRIP_MS


class PaxosMessage(Message, frozen=True, array_like=True, tag="paxos.{}".format, gc=False):
    """Base of Multi-Paxos' messages."""

    ballot: int


class AcceptedValue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an acceptor accepted last in a slot, and under which ballot (Paxos Made Simple: its highest-numbered)."""

    entry: Entry
    ballot: int


class PreVote(PaxosMessage, frozen=True, array_like=True, gc=False):
    """Would you promise this ballot?  Nobody's state changes by asking.

    `commit_position` is what the candidate knows to be chosen: who cannot tell it what follows refuses.
    """

    commit_position: int


class PreVoted(PaxosMessage, frozen=True, array_like=True, gc=False):
    """Answer to `PreVote`.  One that grants echoes the ballot."""

    granted: bool

    def vouches(self) -> bool:
        return True


class Prepare(PaxosMessage, frozen=True, array_like=True, gc=False):
    """Phase 1a, once for all slots from `first_position` on.

    With `transfer` its leader told the candidate to stand, so nobody need protect that leader.
    """

    first_position: int
    transfer: bool = False


class Promise(PaxosMessage, frozen=True, array_like=True, gc=False):
    """Phase 1b, in parts: everything that the sender accepted in slots `first_position` ... `last_position`.

    Entries through `commit_position` are chosen.  The part that is `complete` says that there is nothing after it.
    """

    commit_position: int
    first_position: int
    last_position: int
    complete: bool
    accepted: tuple[AcceptedValue, ...] = ()

    def vouches(self) -> bool:
        return True


class Rejected(PaxosMessage, frozen=True, array_like=True, gc=False):
    """The sender promised `ballot`, which is why it does not follow `rejected_ballot`.

    Where that is the higher one, its owner knows too little to be told what it asked.
    """

    rejected_ballot: int

    def vouches(self) -> bool:
        return True


class Accept(PaxosMessage, frozen=True, array_like=True, gc=False):
    """Phase 2a for the slots of `entries`, and heartbeat.

    `sent_position` is the last slot that the leader ever sent to the receiver, this message
    included: what is missing before it got lost.  `round` is the leader's newest heartbeat
    round (see `barriers`), `round_trip_ms` what it measured (see `timing`).
    """

    sent_position: int
    commit_position: int
    round: int
    entries: tuple[Entry, ...] = ()
    round_trip_ms: int = 0

    def payload_bytes(self) -> int:
        return sum([len(entry.payload) for entry in self.entries])


class Accepted(PaxosMessage, frozen=True, array_like=True, gc=False):
    """Phase 2b: slots `first_position` ... `last_position` are durable, accepted under this ballot or known chosen."""

    round: int
    first_position: int
    last_position: int

    def vouches(self) -> bool:
        return True


class Missing(PaxosMessage, frozen=True, array_like=True, gc=False):
    """The sender follows this ballot, and lacks a slot that was sent to it: `first_position` is the first."""

    round: int
    first_position: int

    def vouches(self) -> bool:
        return True


class Chosen(PaxosMessage, frozen=True, array_like=True, gc=False):
    """Everything through `commit_position` is chosen; the leader knows that the receiver accepted it."""

    commit_position: int


class TimeoutNow(PaxosMessage, frozen=True, array_like=True, gc=False):
    """The leader of this ballot hands over: the receiver, which accepted all that it proposed, is to stand at once."""

    def asks_to_lead(self) -> bool:
        return True


class BarrierRequest(PaxosMessage, frozen=True, array_like=True, gc=False):
    """A read barrier asked of a follower, forwarded to its leader.

    Barrier ids begin anew when a process does, so `asker` (drawn at random when the
    replica was built) keeps an old answer from passing a new barrier.
    """

    asker: int
    barrier_id: int


class BarrierAnswer(PaxosMessage, frozen=True, array_like=True, gc=False):
    """Answer to `BarrierRequest`; position -1 says that the barrier failed."""

    asker: int
    barrier_id: int
    position: int


AnyMessage: TypeAlias = (
    PreVote
    | PreVoted
    | Prepare
    | Promise
    | Rejected
    | Accept
    | Accepted
    | Missing
    | Chosen
    | TimeoutNow
    | BarrierRequest
    | BarrierAnswer
)


def is_sane(message: PaxosMessage) -> bool:
    """Whether the numbers in a message could have come from a server that follows the protocol.

    Bytes off the network can decode into any integers.  What fails here is ignored.
    """
    if not 0 <= message.ballot <= MAX_NUMBER:
        return False
    if isinstance(message, Accept):
        return _is_sane_accept(message)
    if isinstance(message, Accepted):
        return message.round >= 0 and 1 <= message.first_position <= message.last_position + 1 <= MAX_NUMBER
    if isinstance(message, Chosen):
        return 0 <= message.commit_position <= MAX_NUMBER
    if isinstance(message, Promise):
        return _is_sane_promise(message)
    if isinstance(message, Missing):
        return message.round >= 0 and 1 <= message.first_position <= MAX_NUMBER
    if isinstance(message, Prepare):
        return 1 <= message.first_position <= MAX_NUMBER
    if isinstance(message, PreVote):
        return 0 <= message.commit_position <= MAX_NUMBER
    if isinstance(message, Rejected):
        return 0 <= message.rejected_ballot <= MAX_NUMBER
    return not isinstance(message, BarrierAnswer) or message.position <= MAX_NUMBER


def _is_sane_accept(message: Accept) -> bool:
    """Entries stand side by side, and none is newer than its leader."""
    if not (0 <= message.commit_position <= MAX_NUMBER and 0 <= message.sent_position <= MAX_NUMBER):
        return False
    if not (0 <= message.round <= MAX_NUMBER and 0 <= message.round_trip_ms <= MAX_ROUND_TRIP_MS):
        return False
    position = message.entries[0].position - 1 if message.entries else 0
    if position < 0 or position + len(message.entries) > message.sent_position:
        return False
    for entry in message.entries:
        position += 1
        if entry.position != position or not 1 <= entry.generation <= message.ballot:
            return False
        if entry.payload.startswith(PREFIX) and not is_sane_configuration(entry.payload):
            return False
    return True


def _is_sane_promise(message: Promise) -> bool:
    """Entries are in order within the part, and accepted under a ballot between their own and the promised one."""
    first, last = message.first_position, message.last_position
    if not (1 <= first <= last + 1 <= MAX_NUMBER and 0 <= message.commit_position <= MAX_NUMBER):
        return False
    before = first - 1
    for value in message.accepted:
        entry = value.entry
        if not before < entry.position <= last or not 1 <= entry.generation <= value.ballot < message.ballot:
            return False
        if entry.payload.startswith(PREFIX) and not is_sane_configuration(entry.payload):
            return False
        before = entry.position
    return True
