"""What a replica asks its node to make durable, the same for every protocol.

*Position* is the place of an entry in a group's log, counted from 1; position 0 stands
before the first entry.  *Generation* is the neutral word for Raft's term, Paxos' ballot
and ZAB's epoch: an integer that only grows.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One opaque batch of commands at one position of a group's log."""

    position: int
    generation: int
    payload: bytes


class SaveState(msgspec.Struct, frozen=True, gc=False):
    """The protocol's hard state (for Raft: term and vote), opaque to storage; the last one wins."""

    data: bytes


class SaveEntry(msgspec.Struct, frozen=True, gc=False):
    """Of several entries saved for one position the last one holds; positions may come out of order."""

    entry: Entry


class TruncateFrom(msgspec.Struct, frozen=True, gc=False):
    """Forget the entries at `position` and after it."""

    position: int


class CompactedThrough(msgspec.Struct, frozen=True, gc=False):
    """A durable snapshot covers everything through `position`, whose entry had `generation`.

    Entries at or before `position` need not be recovered.  Entries after it stay.
    """

    position: int
    generation: int
    configuration: bytes = b""
    """Who decided as of `position` (`membership.Configuration.encode`); empty where that is still the first."""


Record: TypeAlias = SaveState | SaveEntry | TruncateFrom | CompactedThrough


class InvalidState(ValueError):
    """A recovered state is not one that its protocol saved: the node must not vote on it."""


class Recovered(msgspec.Struct, frozen=True):
    """What a group's records come to when a log is read back: the argument from which a replica restarts.

    `entries` is sorted by position, holds no two of one position and none at or before
    `compacted.position`; a log of a protocol that accepts out of order may have holes.
    A new group is `Recovered()`.
    """

    state: bytes | None = None
    compacted: CompactedThrough = CompactedThrough(0, 0)
    entries: tuple[Entry, ...] = ()
