"""Which sets of nodes decide: pure predicates, asked with node ids and never with counts.

A count of votes cannot tell a duplicate from a second voter, and a sum means nothing once
two configurations decide jointly.  So a protocol keeps *who* agreed and asks here whether
those nodes form a quorum.

Paxos asks two questions: whom a new leader must hear (phase 1), and who must accept a
value (phase 2).  Only quorums of *different* phases have to meet (Howard, Malkhi, Spiegelman:
Flexible Paxos, OPODIS 2016).  So every quorum here has a `phase_1` and a `phase_2`; they are
the same one, but for `Flexible`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Majority:
    """More than half of `members`.  Any two quorums share a node, which is all that safety asks of them."""

    members: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.members or len(set(self.members)) != len(self.members):
            raise ValueError(f"voters must be distinct and at least one, not {self.members}")

    @property
    def phase_1(self) -> Majority:
        return self

    @property
    def phase_2(self) -> Majority:
        return self

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

    @property
    def phase_1(self) -> Joint:
        return self

    @property
    def phase_2(self) -> Joint:
        return self

    def is_quorum(self, nodes: Collection[int]) -> bool:
        return self.old.is_quorum(nodes) and self.new.is_quorum(nodes)

    def greatest_held(self, values: Mapping[int, int]) -> int:
        return min(self.old.greatest_held(values), self.new.greatest_held(values))


@dataclass(frozen=True, slots=True)
class Nobody:
    """Of a node that knows no voters: nothing is ever decided."""

    members: tuple[int, ...] = ()

    @property
    def phase_1(self) -> Nobody:
        return self

    @property
    def phase_2(self) -> Nobody:
        return self

    def is_quorum(self, nodes: Collection[int]) -> bool:
        return False

    def greatest_held(self, values: Mapping[int, int]) -> int:
        raise ValueError("nobody holds anything")


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Any `size` of `members`.  Two of them need not meet: see `Flexible`, which builds them."""

    members: tuple[int, ...]
    size: int

    def is_quorum(self, nodes: Collection[int]) -> bool:
        present = 0
        for member in self.members:
            if member in nodes:
                present += 1
        return present >= self.size

    def greatest_held(self, values: Mapping[int, int]) -> int:
        """As `Majority.greatest_held`."""
        descending = sorted([values[member] for member in self.members], reverse=True)
        return descending[self.size - 1]


@dataclass(frozen=True, slots=True)
class Flexible:
    """Quorums of two sizes that always meet: any `phase_1_size` members to elect, any `phase_2_size` to accept.

    Raises ValueError where a leader could be elected by nodes none of which has heard of a value that was chosen.
    """

    members: tuple[int, ...]
    phase_1_size: int
    phase_2_size: int
    phase_1: AtLeast = field(init=False)
    phase_2: AtLeast = field(init=False)

    def __post_init__(self) -> None:
        members, total = self.members, len(self.members)
        if not members or len(set(members)) != total:
            raise ValueError(f"voters must be distinct and at least one, not {members}")
        for phase, size in ((1, self.phase_1_size), (2, self.phase_2_size)):
            if not 1 <= size <= total:
                raise ValueError(f"a quorum for phase {phase} of {size} nodes is impossible with {total} voters")
        if self.phase_1_size + self.phase_2_size <= total:
            raise ValueError(
                f"quorums of {self.phase_1_size} nodes for phase 1 and {self.phase_2_size} for phase 2 need not meet "
                f"among {total} voters, so a new leader could miss what was chosen: "
                f"the two sizes must add up to more than {total}"
            )
        object.__setattr__(self, "phase_1", AtLeast(members, self.phase_1_size))
        object.__setattr__(self, "phase_2", AtLeast(members, self.phase_2_size))


Quorum: TypeAlias = Majority | Joint | Nobody
PhasedQuorum: TypeAlias = Quorum | Flexible
"""What Paxos asks: it has a `phase_1` and a `phase_2`."""
