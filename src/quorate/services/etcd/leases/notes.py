"""How a door asks the leader's how long a lease has still to live.  The other notes are `keepalive.touches`.

Layout of both, big-endian: kind (1 byte), number of the question (8 bytes); then, 8 bytes, the lease's id or what
remains of it in milliseconds, UNKNOWN where the leader's clock has no such lease.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

_NOTE: Final = Struct(">BQq")
_ASKED: Final = 3
_TOLD: Final = 4
UNKNOWN: Final = -1


class Asked(NamedTuple):
    number: int
    lease: int


class Told(NamedTuple):
    number: int
    remaining_ms: int


def is_about_time(note: bytes) -> bool:
    """Whether it is a note of this module."""
    return note[:1] in (bytes((_ASKED,)), bytes((_TOLD,)))


def encode_asked(number: int, lease: int) -> bytes:
    return _NOTE.pack(_ASKED, number, lease)


def encode_told(number: int, remaining_ms: int) -> bytes:
    return _NOTE.pack(_TOLD, number, remaining_ms)


def decode(note: bytes) -> Asked | Told:
    """Raises ValueError where `note` is neither."""
    if len(note) != _NOTE.size:
        raise ValueError(f"note about a lease's time: expected {_NOTE.size} bytes, found {len(note)}")
    kind, number, value = _NOTE.unpack(note)
    if kind == _ASKED:
        return Asked(number, value)
    if kind == _TOLD:
        return Told(number, value)
    raise ValueError(f"note about a lease's time: expected kind {_ASKED} or {_TOLD}, found {kind}")
