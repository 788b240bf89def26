"""Which numbers and entries off the network are nonsense, whatever the protocol.

Bytes can decode into any integers.  What fails here, or in the protocols' `is_sane`, is ignored.
"""

from __future__ import annotations

from typing import Final

from quorate.consensus.membership import InvalidConfiguration, decode_configuration

MAX_NUMBER: Final = (1 << 62) - 1
"""Generations and positions above this are nonsense: no cluster lives that long, and hard state holds 64 bits."""


def is_sane_configuration(payload: bytes) -> bool:
    """Of an entry that begins as a configuration: one without voters is none of ours, since nobody could commit it."""
    try:
        return bool(decode_configuration(payload).voters)
    except InvalidConfiguration:
        return False
