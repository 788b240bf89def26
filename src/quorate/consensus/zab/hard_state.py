"""What a server must never forget: the epoch that it accepted, for whom, and the epoch of its history.

The paper's names are f.p for the accepted epoch (the last NEWEPOCH acknowledged) and f.a
for the current one (the last NEWLEADER acknowledged).  That the accepted epoch was promised
to one leader is added, because here a NEWEPOCH may come twice.
"""

from __future__ import annotations

import struct

import msgspec

from quorate.consensus.records import InvalidState
from quorate.consensus.replica import NodeId

_LAYOUT = struct.Struct(">BQqQ")
"""Format version, accepted epoch, to whom it is promised (-1 for nobody), current epoch."""
_VERSION = 1
_NOBODY = -1


class InvalidHardState(InvalidState):
    """A recovered record does not hold two epochs and a promise."""


class HardState(msgspec.Struct, frozen=True, gc=False):
    accepted_epoch: int
    promised_to: NodeId | None
    """Whose NEWEPOCH it was."""
    current_epoch: int


def encode_hard_state(state: HardState) -> bytes:
    promised_to = _NOBODY if state.promised_to is None else state.promised_to
    return _LAYOUT.pack(_VERSION, state.accepted_epoch, promised_to, state.current_epoch)


def decode_hard_state(data: bytes | None) -> HardState:
    """A server that never saved any has accepted epoch 0.  Raises InvalidHardState."""
    if data is None:
        return HardState(0, None, 0)
    if len(data) != _LAYOUT.size:
        raise InvalidHardState(f"ZAB hard state has {len(data)} bytes, expected {_LAYOUT.size}")
    version, accepted_epoch, promised_to, current_epoch = _LAYOUT.unpack(data)
    if version != _VERSION:
        raise InvalidHardState(f"ZAB hard state has format {version}, expected {_VERSION}")
    if current_epoch > accepted_epoch:
        raise InvalidHardState(f"ZAB hard state has current epoch {current_epoch} above accepted {accepted_epoch}")
    return HardState(accepted_epoch, None if promised_to == _NOBODY else promised_to, current_epoch)


def generation_of(state: bytes | None) -> int:
    """The accepted epoch.  Raises InvalidHardState."""
    return decode_hard_state(state).accepted_epoch


def state_at(generation: int) -> bytes:
    """Of a server that accepted that epoch from nobody; how good its history is, its log says."""
    return encode_hard_state(HardState(generation, None, 0))
