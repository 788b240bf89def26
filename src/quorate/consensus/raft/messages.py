"""What Raft servers say to one another.

The thesis' remote procedure calls are pairs of one-way messages here, because a network
may lose, repeat and reorder either half.  Every message carries its sender's term.
"""

from __future__ import annotations

from typing import TypeAlias

from quorate.consensus.membership import PREFIX
from quorate.consensus.records import Entry
from quorate.consensus.replica import Message
from quorate.consensus.sanity import MAX_NUMBER, is_sane_configuration
from quorate.consensus.timing import MAX_ROUND_TRIP_MS


class RaftMessage(Message, frozen=True, array_like=True, tag="raft.{}".format, gc=False):
    """Base of Raft's messages."""

    term: int


class RequestVote(RaftMessage, frozen=True, array_like=True, gc=False):
    """Candidate to voters (thesis figure 3.1).

    With `pre_vote` the term is the one that the candidate *would* stand in; nobody's state
    changes by asking (thesis section 9.6).  With `transfer` its leader told it to stand, so
    that nobody need protect that leader (section 3.10).
    """

    last_position: int
    last_term: int
    pre_vote: bool
    transfer: bool = False


class Vote(RaftMessage, frozen=True, array_like=True, gc=False):
    """Answer to `RequestVote`.  A granted pre-vote echoes the term asked for; all else has the voter's own term."""

    granted: bool
    pre_vote: bool

    def vouches(self) -> bool:
        return True


class Append(RaftMessage, frozen=True, array_like=True, gc=False):
    """Leader to others: entries, heartbeat and probe in one (the thesis' AppendEntries).

    `entries` follow the entry at `previous_position`.  `round` is the leader's newest
    heartbeat round (see `barriers`), `round_trip_ms` what it measured (see `timing`).
    """

    previous_position: int
    previous_term: int
    commit_position: int
    round: int
    entries: tuple[Entry, ...] = ()
    round_trip_ms: int = 0

    def payload_bytes(self) -> int:
        return sum([len(entry.payload) for entry in self.entries])


class Appended(RaftMessage, frozen=True, array_like=True, gc=False):
    """The sender's log agrees with the leader's, and is durable, through `match_position`."""

    round: int
    match_position: int

    def vouches(self) -> bool:
        return True


class AppendRejected(RaftMessage, frozen=True, array_like=True, gc=False):
    """The sender has no entry of the leader's at `rejected_position`.

    `hint_position` is the last place where the two logs can agree as far as the sender
    can tell, and `hint_term` the term of its entry there.  From a server of a higher term
    only the term counts.
    """

    round: int
    rejected_position: int
    hint_position: int
    hint_term: int

    def vouches(self) -> bool:
        return True


class Commit(RaftMessage, frozen=True, array_like=True, gc=False):
    """Everything through `commit_position` is committed; the leader knows that the receiver holds it."""

    commit_position: int


class TimeoutNow(RaftMessage, frozen=True, array_like=True, gc=False):
    """The leader of this term hands over: the receiver, which holds its whole log, is to stand at once."""

    def asks_to_lead(self) -> bool:
        return True


class BarrierRequest(RaftMessage, frozen=True, array_like=True, gc=False):
    """A read barrier asked of a follower, forwarded to its leader.

    Barrier ids begin anew when a process does, so `asker` (drawn at random when the
    replica was built) keeps an old answer from passing a new barrier.
    """

    asker: int
    barrier_id: int


class BarrierAnswer(RaftMessage, frozen=True, array_like=True, gc=False):
    """Answer to `BarrierRequest`; position -1 says that the barrier failed."""

    asker: int
    barrier_id: int
    position: int


AnyMessage: TypeAlias = (
    RequestVote | Vote | Append | Appended | AppendRejected | Commit | TimeoutNow | BarrierRequest | BarrierAnswer
)


def is_sane(message: RaftMessage) -> bool:
    """Whether the numbers in a message could have come from a server that follows the protocol.

    Bytes off the network can decode into any integers.  What fails here is ignored.
    """
    if not 0 <= message.term <= MAX_NUMBER:
        return False
    if isinstance(message, Append):
        return _is_sane_append(message)
    if isinstance(message, Appended):
        return message.round >= 0 and 0 <= message.match_position <= MAX_NUMBER
    if isinstance(message, AppendRejected):
        return message.round >= 0 and 0 <= message.hint_position <= message.rejected_position <= MAX_NUMBER
    if isinstance(message, RequestVote):
        return 0 <= message.last_position <= MAX_NUMBER and 0 <= message.last_term < max(message.term, 1)
    return not isinstance(message, BarrierAnswer) or message.position <= MAX_NUMBER


def _is_sane_append(message: Append) -> bool:
    """Entries must be contiguous, their terms must not fall, and none may be newer than its leader."""
    position = message.previous_position
    term = message.previous_term
    if not (0 <= position <= MAX_NUMBER and 0 <= message.commit_position <= MAX_NUMBER):
        return False
    if not (0 <= message.round <= MAX_NUMBER and 0 <= message.round_trip_ms <= MAX_ROUND_TRIP_MS):
        return False
    if term < 0 or (position == 0) != (term == 0):
        return False
    for entry in message.entries:
        position += 1
        if entry.position != position or entry.generation < term or entry.generation == 0:
            return False
        if entry.payload.startswith(PREFIX) and not is_sane_configuration(entry.payload):
            return False
        term = entry.generation
    return term <= message.term
