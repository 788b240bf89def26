"""The two numbers that a server must never forget: its term and whom it voted for in it."""

from __future__ import annotations

import struct

from quorate.consensus.records import InvalidState
from quorate.consensus.replica import NodeId

_LAYOUT = struct.Struct(">BQq")
"""Format version, term, vote (-1 for none)."""
_VERSION = 1
_NO_VOTE = -1


class InvalidHardState(InvalidState):
    """A recovered record does not hold a term and a vote."""


def encode_hard_state(term: int, voted_for: NodeId | None) -> bytes:
    return _LAYOUT.pack(_VERSION, term, _NO_VOTE if voted_for is None else voted_for)


def decode_hard_state(data: bytes | None) -> tuple[int, NodeId | None]:
    """(term, vote); a server that never saved any is in term 0.  Raises InvalidHardState."""
    if data is None:
        return 0, None
    if len(data) != _LAYOUT.size:
        raise InvalidHardState(f"Raft hard state has {len(data)} bytes, expected {_LAYOUT.size}")
    version, term, vote = _LAYOUT.unpack(data)
    if version != _VERSION:
        raise InvalidHardState(f"Raft hard state has format {version}, expected {_VERSION}")
    return term, None if vote == _NO_VOTE else vote


def generation_of(state: bytes | None) -> int:
    """The term.  Raises InvalidHardState."""
    return decode_hard_state(state)[0]


def state_at(generation: int) -> bytes:
    """Of a server that has not voted in that term yet."""
    return encode_hard_state(generation, None)
