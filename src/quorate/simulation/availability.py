"""Does a cluster decide where `quorate.availability` says that it can?  States of a graph, each lived through once.

    for state in draw_states(graph, 100, seed=0):
        assert decides(state, "raft") == state.somebody_hears_a_majority()

A whole cluster is booted on a simulated network and comes to work.  Then what has failed in a state fails at once:
nodes lose their power, links are cut both ways.  A while later there is a leader that a quorum has answered since, or
there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from random import Random

from quorate.availability import Graph, Link, majority
from quorate.services.interface import Service
from quorate.simulation.cluster import ClusterSettings, SimulatedCluster, host_of
from quorate.simulation.scheduler import Simulation

FORMING_LIMIT_S = 60.0
LOOK_S = 0.25
SETTLING_S = 20.0
"""Simulated.  An election takes a second or two; where links are cut it may have to be repeated."""
ANSWERED_WITHIN_MS = 5_000
"""A leader that no quorum has answered for longer than this does not lead any more."""


@dataclass(frozen=True, slots=True)
class State:
    """What works of a graph at one time."""

    size: int
    working: frozenset[int]
    cut: frozenset[Link]
    """Pairs of nodes that have no link, or whose link has failed."""

    def heard_by(self, node: int) -> int:
        """How many nodes this one hears directly, itself included; 0 where it does not work."""
        if node not in self.working:
            return 0
        return 1 + sum((min(node, other), max(node, other)) not in self.cut for other in self.working - {node})

    def somebody_hears_a_majority(self) -> bool:
        return any(self.heard_by(node) >= majority(self.size) for node in self.working)


def draw_states(graph: Graph, count: int, seed: int) -> Iterator[State]:
    """States as they come, by the graph's probabilities."""
    random = Random(f"{seed}/availability")
    for _ in range(count):
        working = frozenset(node for node, failure in enumerate(graph.node_failure) if random.random() >= failure)
        links = combinations(range(graph.size), 2)
        cut = frozenset(link for link in links if random.random() < graph.failure_between(*link))
        yield State(graph.size, working, cut)


def decides(state: State, protocol: str, service: Service, seed: int) -> bool:
    """Whether a cluster that came to work before the state came upon it has a leader after it."""
    simulation = Simulation(seed)
    cluster = SimulatedCluster(simulation, ClusterSettings(state.size, service, protocol=protocol))
    for node in cluster.members:
        cluster.start(node)
    while cluster.leader() is None:
        assert simulation.now_s < FORMING_LIMIT_S, (
            f"{state.size} sound nodes have no leader after {FORMING_LIMIT_S:g} s"
        )
        simulation.pass_until(simulation.now_s + LOOK_S)
    for one, other in state.cut:
        simulation.network.cut(host_of(one), host_of(other))
        simulation.network.cut(host_of(other), host_of(one))
    for node in set(cluster.members) - state.working:
        cluster.kill(node, power_loss=True)
    simulation.pass_until(simulation.now_s + SETTLING_S)
    decided = any(_leads(cluster, node) for node in state.working)
    for node in state.working:
        cluster.kill(node)
    return decided


def _leads(cluster: SimulatedCluster, node: int) -> bool:
    group = cluster.group(node)
    if group is None or not group.leads():
        return False
    contact_ms = group.quorum_contact_ms()
    return contact_ms is not None and group.now_ms() - contact_ms < ANSWERED_WITHIN_MS
