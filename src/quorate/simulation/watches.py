"""What watches a group: the invariants of every protocol, and those of the one that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from quorate.consensus.membership import Configuration
from quorate.consensus.paxos import quorums_of_size
from quorate.consensus.replica import Effects, Event, NodeId, Status
from quorate.node.protocols import quorum_sizes
from quorate.simulation.invariants import GroupInvariants
from quorate.simulation.paxos_group import PaxosGroup
from quorate.simulation.paxos_invariants import EXERCISED as PAXOS_COUNTS
from quorate.simulation.paxos_invariants import PaxosInvariants
from quorate.simulation.raft_invariants import RaftInvariants
from quorate.simulation.zab_invariants import EXERCISED as ZAB_COUNTS
from quorate.simulation.zab_invariants import ZabInvariants

CLOCK_SLACK_S: Final = 0.002
"""A simulated clock goes at half the true speed or faster."""

OWN_COVERAGE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"raft": ("truncations",), "paxos": PAXOS_COUNTS, "zab": ("truncations", *ZAB_COUNTS)}
)
"""What a campaign must exercise of a protocol on which some group runs."""


class OwnInvariants(Protocol):
    """What one protocol owes beyond what every protocol does."""

    @property
    def counts(self) -> Mapping[str, int]:
        """What a run has exercised of that protocol alone, in its own words."""
        ...

    def stepped(self, node: NodeId, event: Event, effects: Effects, status: Callable[[], Status]) -> None: ...


Watch: TypeAlias = tuple[GroupInvariants, OwnInvariants]


def watch(protocol_name: str, voters: Sequence[NodeId]) -> Watch:
    """All that watches one group with these first voters."""
    if protocol_name == "raft":
        group = GroupInvariants(voters, CLOCK_SLACK_S)
        return group, RaftInvariants(group)
    if protocol_name == "zab":
        group = GroupInvariants(voters, CLOCK_SLACK_S)
        return group, ZabInvariants(group)
    sizes = quorum_sizes(protocol_name)
    paxos = PaxosGroup(voters, CLOCK_SLACK_S, Configuration.quorum if sizes is None else quorums_of_size(*sizes))
    return paxos, PaxosInvariants(paxos)
