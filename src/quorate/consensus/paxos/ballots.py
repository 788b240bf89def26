"""Ballots: the pair (round, node) as one integer, so that a ballot is a generation like any other.

The node is in the low bits.  Two nodes can therefore never own the same ballot, whatever
they do not know of one another, and a higher round is a higher ballot whoever owns it
(Paxos Made Simple, section 2.2: "different proposers choose their numbers from disjoint
sets of numbers").
"""

from __future__ import annotations

from typing import Final

from quorate.consensus.replica import NodeId

NODE_BITS: Final = 16
MAX_NODE: Final = (1 << NODE_BITS) - 1
MAX_NUMBER: Final = (1 << 62) - 1
"""Ballots and positions above this are nonsense: no cluster lives that long, and hard state holds 64 bits."""


def ballot_of(round_number: int, node: NodeId) -> int:
    assert 0 <= node <= MAX_NODE, node
    return round_number << NODE_BITS | node


def owner_of(ballot: int) -> NodeId:
    """The only node that may propose under it."""
    return ballot & MAX_NODE


def round_of(ballot: int) -> int:
    return ballot >> NODE_BITS
