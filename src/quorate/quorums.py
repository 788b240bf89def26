"""Which sets of nodes decide: pure predicates, asked with node ids and never with counts.

A count of votes cannot tell a duplicate from a second voter, and a sum means nothing once
two configurations decide jointly.  So a protocol keeps *who* agreed and asks here whether
those nodes form a quorum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Majority:
    """More than half of `members`.  Any two quorums share a node, which is all that safety asks of them."""

    members: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.members or len(set(self.members)) != len(self.members):
            raise ValueError(f"voters must be distinct and at least one, not {self.members}")

    def is_quorum(self, nodes: Collection[int]) -> bool:
        """Do these node ids form a quorum?  Ids that are not members do not matter."""
        present = 0
        for member in self.members:
            if member in nodes:
                present += 1
        return 2 * present > len(self.members)

    def greatest_held(self, values: Mapping[int, int]) -> int:
        """The greatest value that some quorum holds or exceeds: {n: values[n] >= v} is a quorum.

        `values` maps every member to a number; entries of others do not matter.
        """
        ascending = sorted([values[member] for member in self.members])
        return ascending[(len(ascending) - 1) // 2]
