"""What an acceptor must never forget besides its entries: its promise, and under which ballots it accepted.

An entry's generation is the ballot under which its value was *first* proposed, which is
the same on every replica.  Mostly it was accepted under that ballot, too, and the entry
alone says so.  Where a later leader proposed the value again, the ballot is kept here, by
position *and* generation.  The state is written before the entry, so a crash between the
two leaves the former entry with its former ballot.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec

from quorate.consensus.records import InvalidState

_HEAD = struct.Struct(">BQQI")
"""Format version, promised ballot, chosen position, number of runs."""
_RUN = struct.Struct(">QQQQ")
"""First and last position, generation, ballot."""
_VERSION = 1


class InvalidHardState(InvalidState):
    """A recovered record does not hold an acceptor's state."""


class HardState(msgspec.Struct, frozen=True):
    promised: int = 0
    """No proposal under a lower ballot is accepted any more."""
    chosen_position: int = 0
    """The entries through here are durable, and are the chosen ones.  It lags: it spares work after a restart."""
    reaccepted: dict[tuple[int, int], int] = {}
    """(position, generation) to the ballot under which the entry was accepted, where that is not the generation."""


def encode_hard_state(promised: int, chosen_position: int, reaccepted: Mapping[tuple[int, int], int]) -> bytes:
    """Leaders propose again what stands side by side, so runs of positions are few."""
    runs: list[list[int]] = []
    for (position, generation), ballot in sorted(reaccepted.items(), key=_by_generation):
        if runs and runs[-1][1:] == [position - 1, generation, ballot]:
            runs[-1][1] = position
        else:
            runs.append([position, position, generation, ballot])
    head = _HEAD.pack(_VERSION, promised, chosen_position, len(runs))
    return head + b"".join([_RUN.pack(*run) for run in runs])


def _by_generation(item: tuple[tuple[int, int], int]) -> tuple[int, int]:
    (position, generation), _ = item
    return generation, position


def decode_hard_state(data: bytes | None) -> HardState:
    """Of a server that never saved any: nothing promised.  Raises InvalidHardState."""
    if data is None:
        return HardState()
    if len(data) < _HEAD.size:
        raise InvalidHardState(f"Paxos hard state has {len(data)} bytes, expected at least {_HEAD.size}")
    version, promised, chosen_position, count = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise InvalidHardState(f"Paxos hard state has format {version}, expected {_VERSION}")
    if len(data) != _HEAD.size + count * _RUN.size:
        raise InvalidHardState(f"Paxos hard state of {count} runs has {len(data)} bytes")
    reaccepted: dict[tuple[int, int], int] = {}
    for first, last, generation, ballot in _RUN.iter_unpack(data[_HEAD.size :]):
        for position in range(first, last + 1):
            reaccepted[position, generation] = ballot
    return HardState(promised, chosen_position, reaccepted)


def generation_of(state: bytes | None) -> int:
    """The promised ballot.  Raises InvalidHardState."""
    return decode_hard_state(state).promised


def state_at(generation: int) -> bytes:
    """Of a server that accepted nothing again."""
    return encode_hard_state(generation, 0, {})
