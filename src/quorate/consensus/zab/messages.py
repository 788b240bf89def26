"""What ZAB servers say to one another, under the paper's and ZooKeeper's names.

The paper's channels are TCP connections; here each message may be lost, repeated and
reordered, so what hangs on the order says which entry or round it is about.  Every message
carries an epoch: its sender's accepted epoch, which for a leader is the one that it leads.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from quorate.consensus.membership import PREFIX
from quorate.consensus.records import Entry
from quorate.consensus.replica import Message, NodeId
from quorate.consensus.sanity import MAX_NUMBER, is_sane_configuration
from quorate.consensus.timing import MAX_ROUND_TRIP_MS


class ZabMessage(Message, frozen=True, array_like=True, tag="zab.{}".format, gc=False):
    """Base of ZAB's messages."""

    epoch: int


# --- leader election ---------------------------------------------------------------------


class Vote(msgspec.Struct, frozen=True, array_like=True, gc=False, repr_omit_defaults=True):
    """For whom, and how good its history is.  Votes compare as (epoch, zxid, id): the greatest wins."""

    current_epoch: int
    generation: int
    position: int
    """(generation, position) is the zxid of the last entry."""
    node: NodeId
    aside: bool = False
    """Worse than any vote for a node that does not stand aside."""

    def __lt__(self, other: Vote) -> bool:
        return self._rank() < other._rank()

    def __gt__(self, other: Vote) -> bool:
        return self._rank() > other._rank()

    def _rank(self) -> tuple[bool, int, int, int, NodeId]:
        return not self.aside, self.current_epoch, self.generation, self.position, self.node


class Notification(ZabMessage, frozen=True, array_like=True, gc=False):
    """A vote in an election's `round`.  `looking` is false where the sender follows its choice already."""

    round: int
    vote: Vote
    looking: bool

    def vouches(self) -> bool:
        return True


class Leading(ZabMessage, frozen=True, array_like=True, gc=False):
    """Answer of an established leader to whoever looks for one."""


# --- discovery (paper, phase 1) ----------------------------------------------------------


class FollowerInfo(ZabMessage, frozen=True, array_like=True, gc=False):
    """CEPOCH: the sender wants to follow the receiver, and has accepted `epoch`, from `promised_to` (-1: nobody)."""

    promised_to: NodeId

    def vouches(self) -> bool:
        return True


class NewEpoch(ZabMessage, frozen=True, array_like=True, gc=False):
    """NEWEPOCH: the sender wants to lead `epoch`, or does where it is `established`: its discovery is over."""

    established: bool


class AckEpoch(ZabMessage, frozen=True, array_like=True, gc=False):
    """ACK-E: the sender accepts no earlier epoch any more; `current_epoch` and zxid say how good its history is."""

    current_epoch: int
    generation: int
    position: int

    def vouches(self) -> bool:
        return True


# --- synchronisation and broadcast (phases 2 and 3) ----------------------------------------


class FromLeader(ZabMessage, frozen=True, array_like=True, gc=False):
    """Base of what only an established leader says.

    It is about the entry with this zxid in the leader's history, and what comes after it.
    `round` is the leader's newest heartbeat round (see `barriers`).
    """

    round: int
    previous_position: int
    previous_generation: int


class Truncate(FromLeader, frozen=True, array_like=True, gc=False):
    """TRUNC: the history of the receiver goes beyond this entry and the leader's does not: forget the rest."""


class Diff(FromLeader, frozen=True, array_like=True, gc=False):
    """DIFF: a part of the initial history, the entries that were there before the leader's epoch."""

    entries: tuple[Entry, ...]

    def payload_bytes(self) -> int:
        return sum([len(entry.payload) for entry in self.entries])


class NewLeader(FromLeader, frozen=True, array_like=True, gc=False):
    """NEWLEADER: with the opening entry of the epoch the initial history is complete; accept it as a whole."""

    entries: tuple[Entry, ...]
    """The opening entry."""


class Propose(FromLeader, frozen=True, array_like=True, gc=False):
    """PROPOSE: entries of the leader's epoch; and what is committed by now."""

    commit_position: int
    entries: tuple[Entry, ...]

    def payload_bytes(self) -> int:
        return sum([len(entry.payload) for entry in self.entries])


class Ping(FromLeader, frozen=True, array_like=True, gc=False):
    """Heartbeat and probe: no entries.  `round_trip_ms` is what the leader measured (see `timing`)."""

    commit_position: int
    round_trip_ms: int = 0


class UpToDate(ZabMessage, frozen=True, array_like=True, gc=False):
    """UPTODATE (the paper's COMMIT after ACK-LD): the initial history is committed, and all through here."""

    commit_position: int


class Commit(ZabMessage, frozen=True, array_like=True, gc=False):
    """COMMIT: everything through `commit_position`; the leader knows that the receiver holds it."""

    commit_position: int


class Ack(ZabMessage, frozen=True, array_like=True, gc=False):
    """ACK: the sender's history agrees with the leader's, and is durable, through `position`."""

    round: int
    position: int

    def vouches(self) -> bool:
        return True


class AckLeader(Ack, frozen=True, array_like=True, gc=False):
    """ACK-LD: the `Ack` of a server that accepted the initial history: the epoch is its current one, durably."""


class OutOfSync(ZabMessage, frozen=True, array_like=True, gc=False):
    """The sender has no entry of the leader's at `rejected_position`.

    The two histories agree at `hint_position` at most, as far as the sender can tell, whose
    entry there has `hint_generation`.
    """

    round: int
    rejected_position: int
    hint_position: int
    hint_generation: int

    def vouches(self) -> bool:
        return True


# --- handing over, and read barriers -------------------------------------------------------


class HandOver(ZabMessage, frozen=True, array_like=True, gc=False):
    """The leader of this epoch hands over: the receiver, which holds its whole history, is to lead the next."""

    def asks_to_lead(self) -> bool:
        return True


class TakeOver(ZabMessage, frozen=True, array_like=True, gc=False):
    """The leader of this epoch handed over to the sender: follow it without an election."""


class BarrierRequest(ZabMessage, frozen=True, array_like=True, gc=False):
    """A read barrier asked of a follower, forwarded to its leader.

    Barrier ids begin anew when a process does, so `asker` (drawn at random when the
    replica was built) keeps an old answer from passing a new barrier.
    """

    asker: int
    barrier_id: int


class BarrierAnswer(ZabMessage, frozen=True, array_like=True, gc=False):
    """Answer to `BarrierRequest`; position -1 says that the barrier failed."""

    asker: int
    barrier_id: int
    position: int


AnyMessage: TypeAlias = (
    Notification
    | Leading
    | FollowerInfo
    | NewEpoch
    | AckEpoch
    | Truncate
    | Diff
    | NewLeader
    | Propose
    | Ping
    | UpToDate
    | Commit
    | Ack
    | AckLeader
    | OutOfSync
    | HandOver
    | TakeOver
    | BarrierRequest
    | BarrierAnswer
)


# --- sanity ------------------------------------------------------------------------------


def is_sane(message: ZabMessage) -> bool:
    """Whether the numbers in a message could have come from a server that follows the protocol.

    Bytes off the network can decode into any integers.  What fails here is ignored.
    """
    if not 0 <= message.epoch <= MAX_NUMBER:
        return False
    if isinstance(message, FromLeader):
        return _is_sane_stream(message)
    if isinstance(message, Ack):
        return message.round >= 0 and 0 <= message.position <= MAX_NUMBER
    if isinstance(message, OutOfSync):
        ordered = 0 <= message.hint_position <= message.rejected_position <= MAX_NUMBER
        return message.round >= 0 and ordered and 0 <= message.hint_generation <= message.epoch
    if isinstance(message, Commit | UpToDate):
        return 0 <= message.commit_position <= MAX_NUMBER
    if isinstance(message, AckEpoch):
        return _is_sane_history(message, message.epoch)
    if isinstance(message, Notification):
        return 0 <= message.round <= MAX_NUMBER and _is_sane_history(message.vote, MAX_NUMBER)
    return not isinstance(message, BarrierAnswer) or message.position <= MAX_NUMBER


def _is_sane_history(history: AckEpoch | Vote, epoch: int) -> bool:
    bounded = 0 <= history.generation <= epoch and 0 <= history.current_epoch <= epoch
    return bounded and 0 <= history.position <= MAX_NUMBER and (history.position == 0) == (history.generation == 0)


def _is_sane_stream(message: FromLeader) -> bool:
    """Entries are contiguous, epochs along them never fall, and each kind of message has its kind of entries."""
    position, generation, epoch = message.previous_position, message.previous_generation, message.epoch
    if not (0 <= message.round <= MAX_NUMBER and 0 <= position <= MAX_NUMBER and 0 <= generation <= epoch):
        return False
    if (position == 0) != (generation == 0) or epoch == 0:
        return False
    if isinstance(message, NewLeader):
        return generation < epoch and message.entries == (Entry(position + 1, epoch, b""),)
    if isinstance(message, Truncate):
        return generation < epoch
    if isinstance(message, Ping):
        return 0 <= message.commit_position <= MAX_NUMBER and 0 <= message.round_trip_ms <= MAX_ROUND_TRIP_MS
    if isinstance(message, Propose):
        if generation != epoch or not 0 <= message.commit_position <= MAX_NUMBER:
            return False
        return _are_sane_entries(message.entries, position, epoch, epoch)
    assert isinstance(message, Diff), message
    return _are_sane_entries(message.entries, position, max(generation, 1), epoch - 1)


def _are_sane_entries(entries: tuple[Entry, ...], position: int, lowest: int, highest: int) -> bool:
    for entry in entries:
        position += 1
        if entry.position != position or entry.generation < lowest:
            return False
        if entry.payload.startswith(PREFIX) and not is_sane_configuration(entry.payload):
            return False
        lowest = entry.generation
    return bool(entries) and lowest <= highest
