"""Which sessions a node has heard from, and the two notes by which doors tell each other.

Only the leader's clock decides when a session ends, so every other door reports the
sessions it heard from: a *touch note*, at once when a client pings and else with the next
tick.  The leader's door answers with a *confirmation*.  A ping waits for the confirmation of
a note that was sent after it came: a confirmation of an earlier note would promise less
time than the client believes it has.  Notes may be lost, so whatever waits goes into the
next note again.

Layout of both notes, big-endian: kind (1 byte), number (8 bytes), then session ids of 8
bytes each.  A touch note lists the sessions heard from; a confirmation carries the touch
note's number and lists those that it does *not* confirm.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence

_HEAD = struct.Struct(">BQ")
_TOUCHED = 1
_CONFIRMED = 2


class Touched(tuple[int, tuple[int, ...]]):
    """(number, sessions heard from)"""

    __slots__ = ()


class Confirmed(tuple[int, tuple[int, ...]]):
    """(number of the touch note, sessions in it that are not confirmed)"""

    __slots__ = ()


def encode_touched(number: int, sessions: Collection[int]) -> bytes:
    return _encode(_TOUCHED, number, sessions)


def encode_confirmed(number: int, refused: Collection[int]) -> bytes:
    return _encode(_CONFIRMED, number, refused)


def decode(note: bytes) -> Touched | Confirmed:
    """Raises ValueError where `note` is neither."""
    if len(note) < _HEAD.size or (len(note) - _HEAD.size) % 8:
        raise ValueError(f"session note: expected {_HEAD.size} bytes and a multiple of 8 more, found {len(note)} bytes")
    kind, number = _HEAD.unpack_from(note)
    sessions: Sequence[int] = struct.unpack_from(f">{(len(note) - _HEAD.size) // 8}q", note, _HEAD.size)
    if kind == _TOUCHED:
        return Touched((number, tuple(sessions)))
    if kind == _CONFIRMED:
        return Confirmed((number, tuple(sessions)))
    raise ValueError(f"session note: expected kind {_TOUCHED} or {_CONFIRMED}, found {kind}")


def _encode(kind: int, number: int, sessions: Collection[int]) -> bytes:
    return _HEAD.pack(kind, number) + struct.pack(f">{len(sessions)}q", *sessions)


class Touches:
    """One door's list of sessions heard from and of pings that wait for the leader's word."""

    __slots__ = ("_number", "_waiting", "heard", "urgent")

    def __init__(self) -> None:
        self.heard: dict[int, None] = {}
        """Sessions heard from since they were last reported; the door writes straight into it."""
        self.urgent = False
        """A ping came since the last report: it should not wait for the tick."""
        self._waiting: dict[int, int] = {}
        """Session with an unanswered ping -> number of the first note that reported it, 0 before any did."""
        self._number = 0

    def ping(self, session: int) -> None:
        """Its client pinged.  A second ping before the first was answered waits for a later note."""
        self._waiting[session] = 0
        self.urgent = True

    def forget(self, session: int) -> None:
        """Its connection is gone: nothing waits any more.  That it was heard from stays true."""
        self._waiting.pop(session, None)

    def has_any(self) -> bool:
        """Whether there is anything to report."""
        return bool(self.heard or self._waiting)

    def take(self) -> dict[int, None]:
        """All sessions to report: those heard from, and those whose pings wait."""
        heard = self.heard
        heard.update(dict.fromkeys(self._waiting))
        self.heard = {}
        self.urgent = False
        return heard

    def note(self) -> tuple[int, bytes] | None:
        """(number, touch note) for the leader's door; None where there is nothing to report."""
        sessions = self.take()
        if not sessions:
            return None
        self._number += 1
        for session, number in self._waiting.items():
            if number == 0:
                self._waiting[session] = self._number
        return self._number, encode_touched(self._number, sessions)

    def confirm(self, confirmed: Confirmed) -> list[int]:
        """Sessions whose pings may now be answered."""
        number, refused = confirmed
        return self._release(
            session for session, since in self._waiting.items() if 0 < since <= number and session not in refused
        )

    def confirm_here(self, touched: Iterable[int]) -> list[int]:
        """The same on the leader itself, where no note is needed: `touched` are the sessions its clock took."""
        return self._release(session for session in touched if session in self._waiting)

    def _release(self, sessions: Iterable[int]) -> list[int]:
        released = list(sessions)
        for session in released:
            del self._waiting[session]
        return released
