"""Which ids a node has heard from, and the two notes by which doors tell each other.

An *id* is a session's or a lease's.  Only the leader's clock decides when one ends, so every
other door reports the ids it heard from: a *touch note*, at once when a client pings and else
with the next tick.  The leader's door answers with a *confirmation*.  A ping waits for the
confirmation of a note that was sent after it came: a confirmation of an earlier note would
promise less time than the client believes it has.  Notes may be lost, so whatever waits goes
into the next note again.

Layout of both notes, big-endian: kind (1 byte), number (8 bytes), then ids of 8 bytes each.
A touch note lists the ids heard from; a confirmation carries the touch note's number and
lists those that it does *not* confirm.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence

_HEAD = struct.Struct(">BQ")
_TOUCHED = 1
_CONFIRMED = 2


class Touched(tuple[int, tuple[int, ...]]):
    """(number, ids heard from)"""

    __slots__ = ()


class Confirmed(tuple[int, tuple[int, ...]]):
    """(number of the touch note, ids in it that are not confirmed)"""

    __slots__ = ()


def encode_touched(number: int, ids: Collection[int]) -> bytes:
    return _encode(_TOUCHED, number, ids)


def encode_confirmed(number: int, refused: Collection[int]) -> bytes:
    return _encode(_CONFIRMED, number, refused)


def decode(note: bytes) -> Touched | Confirmed:
    """Raises ValueError where `note` is neither."""
    if len(note) < _HEAD.size or (len(note) - _HEAD.size) % 8:
        raise ValueError(f"touch note: expected {_HEAD.size} bytes and a multiple of 8 more, found {len(note)} bytes")
    kind, number = _HEAD.unpack_from(note)
    ids: Sequence[int] = struct.unpack_from(f">{(len(note) - _HEAD.size) // 8}q", note, _HEAD.size)
    if kind == _TOUCHED:
        return Touched((number, tuple(ids)))
    if kind == _CONFIRMED:
        return Confirmed((number, tuple(ids)))
    raise ValueError(f"touch note: expected kind {_TOUCHED} or {_CONFIRMED}, found {kind}")


def _encode(kind: int, number: int, ids: Collection[int]) -> bytes:
    return _HEAD.pack(kind, number) + struct.pack(f">{len(ids)}q", *ids)


class Touches:
    """One door's list of ids heard from and of pings that wait for the leader's word."""

    __slots__ = ("_number", "_waiting", "heard", "urgent")

    def __init__(self) -> None:
        self.heard: dict[int, None] = {}
        """Ids heard from since they were last reported; the door writes straight into it."""
        self.urgent = False
        """A ping came since the last report: it should not wait for the tick."""
        self._waiting: dict[int, int] = {}
        """Id with an unanswered ping -> number of the first note that reported it, 0 before any did."""
        self._number = 0

    def ping(self, id_: int) -> None:
        """Its client pinged.  A second ping before the first was answered waits for a later note."""
        self._waiting[id_] = 0
        self.urgent = True

    def forget(self, id_: int) -> None:
        """Nobody waits for it any more.  That it was heard from stays true."""
        self._waiting.pop(id_, None)

    def has_any(self) -> bool:
        """Whether there is anything to report."""
        return bool(self.heard or self._waiting)

    def take(self) -> dict[int, None]:
        """All ids to report: those heard from, and those whose pings wait."""
        heard = self.heard
        heard.update(dict.fromkeys(self._waiting))
        self.heard = {}
        self.urgent = False
        return heard

    def note(self) -> tuple[int, bytes] | None:
        """(number, touch note) for the leader's door; None where there is nothing to report."""
        ids = self.take()
        if not ids:
            return None
        self._number += 1
        for id_, number in self._waiting.items():
            if number == 0:
                self._waiting[id_] = self._number
        return self._number, encode_touched(self._number, ids)

    def confirm(self, confirmed: Confirmed) -> list[int]:
        """Ids whose pings may now be answered."""
        number, ids = confirmed
        refused = frozenset(ids)
        return self._release(id_ for id_, since in self._waiting.items() if 0 < since <= number and id_ not in refused)

    def confirm_here(self, touched: Iterable[int]) -> list[int]:
        """The same on the leader itself, where no note is needed: `touched` are the ids its clock took."""
        return self._release(id_ for id_ in touched if id_ in self._waiting)

    def _release(self, ids: Iterable[int]) -> list[int]:
        released = list(ids)
        for id_ in released:
            del self._waiting[id_]
        return released
