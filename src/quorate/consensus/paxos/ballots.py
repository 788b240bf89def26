"""Ballots: the pair (round, node) as one integer, so that a ballot is a generation like any other.

The node is in the low nine decimal digits: 4000000002 is node 2's ballot of round 4.  Two nodes
can therefore never own the same ballot, whatever they do not know of one another, and a
higher round is a higher ballot whoever owns it (Paxos Made Simple, section 2.4: "different
proposers choose their numbers from disjoint sets of numbers").
"""

from __future__ import annotations

from typing import Final

from quorate.consensus.replica import NodeId

NODES: Final = 1_000_000_000
"""Node ids are below this, in every cluster; that leaves four thousand million rounds."""


def ballot_of(round_number: int, node: NodeId) -> int:
    assert 0 <= node < NODES, node
    return round_number * NODES + node


def owner_of(ballot: int) -> NodeId:
    """The only node that may propose under it."""
    return ballot % NODES


def round_of(ballot: int) -> int:
    return ballot // NODES


def describe(ballot: int) -> str:
    """For people, as round and node."""
    return f"ballot {round_of(ballot)}.{owner_of(ballot)}"
