"""Which sets of nodes decide: pure predicates, asked with node ids and never with counts.

A count of votes cannot tell a duplicate from a second voter, and a sum means nothing once
two configurations decide jointly.  So a protocol keeps *who* agreed and asks here whether
those nodes form a quorum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias


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


@dataclass(frozen=True, slots=True)
class Joint:
    """Quorums of two sets of voters at once, while one takes over from the other (Raft thesis, section 4.3)."""

    old: Majority
    new: Majority

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(sorted({*self.old.members, *self.new.members}))

    def is_quorum(self, nodes: Collection[int]) -> bool:
        return self.old.is_quorum(nodes) and self.new.is_quorum(nodes)

    def greatest_held(self, values: Mapping[int, int]) -> int:
        return min(self.old.greatest_held(values), self.new.greatest_held(values))


@dataclass(frozen=True, slots=True)
class Nobody:
    """Of a node that knows no voters: nothing is ever decided."""

    members: tuple[int, ...] = ()

    def is_quorum(self, nodes: Collection[int]) -> bool:
        return False

    def greatest_held(self, values: Mapping[int, int]) -> int:
        raise ValueError("nobody holds anything")


Quorum: TypeAlias = Majority | Joint | Nobody
