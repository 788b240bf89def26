"""The networks that protocols are compared on, by name, and what is compared.

A profile says where nodes are and how far apart.  Clients stand beside a node, at the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from quorate.consensus.paxos import flexible
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.replica import ConsensusProtocol
from quorate.node.protocols import quorum_sizes
from quorate.quorums import Flexible

Bounds: TypeAlias = tuple[float, float]
"""Of a time in seconds; what happens lies anywhere between, each time anew."""

SAME_PLACE_S: Bounds = (50e-6, 150e-6)
QUICK_SYNC_S: Bounds = (50e-6, 300e-6)
"""How long a sync takes on a good local disk (docs/performance.md)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Node i is at place i modulo the number of places."""

    name: str
    title: str
    about: str
    places: tuple[str, ...]
    one_way_s: Mapping[tuple[int, int], Bounds] = field(default_factory=dict)
    """Between two places, the smaller number first."""
    same_place_s: Bounds = SAME_PLACE_S
    loss: float = 0.0
    """Share of what goes between two nodes that is lost on the way and sent again by TCP."""
    sync_s: Bounds = QUICK_SYNC_S
    slow_delay_factor: float = 1.0
    """The last node's messages, both ways, take so many times as long."""
    slow_sync_s: Bounds | None = None
    """And its syncs this long."""

    def place_of(self, node: int) -> int:
        return node % len(self.places)

    def delay_s(self, one: int, other: int) -> Bounds:
        """One way between two nodes, or what stands beside them."""
        first, second = sorted((self.place_of(one), self.place_of(other)))
        return self.same_place_s if first == second else self.one_way_s[first, second]


RACK = Profile("rack", "one rack", "all nodes in one rack: 0.2 ms there and back", ("rack",))
ZONES = Profile(
    "zones",
    "three zones",
    "three data centres of one region: 1.2 ms there and back between them",
    ("zone a", "zone b", "zone c"),
    {(0, 1): (0.5e-3, 0.7e-3), (1, 2): (0.5e-3, 0.7e-3), (0, 2): (0.5e-3, 0.7e-3)},
)
CONTINENTS = Profile(
    "continents",
    "three continents",
    "Europe, America, Asia: 85 ms there and back from Europe to America, 165 on to Asia, 230 from Europe to Asia",
    ("Europe", "America", "Asia"),
    {(0, 1): (40e-3, 45e-3), (1, 2): (80e-3, 85e-3), (0, 2): (112e-3, 118e-3)},
)
SLOW_NODE = Profile(
    "slow-node",
    "one slow node",
    "one rack; the last node's messages take ten times as long, and its syncs 20 to 40 ms",
    ("rack",),
    slow_delay_factor=10.0,
    slow_sync_s=(20e-3, 40e-3),
)
LOSSY = Profile(
    "lossy",
    "lossy links",
    "three zones, and between any two nodes one packet in a hundred is lost: TCP sends it again after 0.2 s",
    ZONES.places,
    ZONES.one_way_s,
    loss=0.01,
)
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {profile.name: profile for profile in (RACK, ZONES, CONTINENTS, SLOW_NODE, LOSSY)}
)

STEPS = Profile(
    "steps",
    "steps",
    "every message takes exactly 50 ms one way, disks and a client's way to its node no time: time counts steps",
    ("everywhere",),
    same_place_s=(0.05, 0.05),
    sync_s=(0.0, 0.0),
)
"""Not a network that anybody has: one on which a time is a number of round trips."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One of what is compared: a protocol, with quorums that are majorities or of other sizes."""

    name: str
    protocol: str
    is_flexible: bool = False
    """With sizes that follow from the number of nodes."""
    given_sizes: tuple[int, int] | None = None
    """Of the quorums of phase 1 and phase 2; not of one that is flexible."""

    def sizes(self, nodes: int) -> tuple[int, int] | None:
        """(phase 1, phase 2) where they are no majorities.

        Of *flexible* phase 2 is one less than a majority, phase 1 the least that is safe.
        """
        if not self.is_flexible:
            return self.given_sizes
        decision = max(1, nodes // 2)
        return nodes + 1 - decision, decision

    def problem(self, nodes: int) -> str | None:
        """Why so many nodes cannot have its quorums."""
        sizes = self.sizes(nodes)
        try:
            if sizes is not None:
                Flexible(tuple(range(nodes)), *sizes)
        except ValueError as error:
            return str(error)
        return None

    def title(self, nodes: int) -> str:
        """Also what a node is told with the setting `protocol`."""
        sizes = self.sizes(nodes)
        return self.protocol if sizes is None else f"{self.protocol}:{sizes[0]}+{sizes[1]}"

    def build(self, nodes: int) -> ConsensusProtocol:
        """For nodes that can have its quorums; see `problem`."""
        sizes = self.sizes(nodes)
        return PROTOCOLS[self.protocol] if sizes is None else flexible(*sizes)


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            Variant("raft", "raft"),
            Variant("paxos", "paxos"),
            Variant("zab", "zab"),
            Variant("flexible", "paxos", is_flexible=True),
        )
    }
)
"""What `--protocol` may name, beside paxos:4+2 and its like; see `variant_of`."""


def variant_of(name: str) -> Variant:
    """One of VARIANTS, or Paxos with quorums of sizes of one's own, by the setting `protocol` of a node that has them.

    Raises KeyError.
    """
    sizes = quorum_sizes(name)
    return VARIANTS[name] if sizes is None else Variant(name, name.partition(":")[0], given_sizes=sizes)
