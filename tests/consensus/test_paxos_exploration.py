"""Multi-Paxos under everything that a network and a disk may do to it, from seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from quorate.consensus.core import QuorumOf
from quorate.consensus.membership import Configuration
from quorate.consensus.paxos import PROTOCOL, flexible
from quorate.consensus.replica import ConsensusProtocol
from quorate.quorums import Flexible, PhasedQuorum
from tests.consensus.exploration import CLIMATES, Walk
from tests.consensus.lab import Lab
from tests.consensus.paxos_invariants import PaxosInLab


@dataclass(frozen=True, slots=True)
class Explored:
    walk: Walk
    invariants: PaxosInLab


def explore(
    nodes: int,
    seed: int,
    steps: int,
    protocol: ConsensusProtocol = PROTOCOL,
    quorum_of: QuorumOf = Configuration.quorum,
) -> Explored:
    watching: list[PaxosInLab] = []

    def watch(lab: Lab) -> PaxosInLab:
        watching.append(PaxosInLab(lab, quorum_of))
        return watching[0]

    walk = Walk(protocol, nodes, seed, watch)
    walk.run(steps)
    return Explored(walk, watching[0])


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("climate", range(len(CLIMATES)))
def test_every_invariant_holds_on_a_walk(nodes: int, climate: int) -> None:
    walks = [explore(nodes, seed, steps=3000) for seed in range(climate, 3 * len(CLIMATES), len(CLIMATES))]
    # A walk that elects nobody and commits nothing would check nothing.
    assert sum(walk.invariants.leaderships for walk in walks) >= 4
    assert sum(len(walk.invariants.committed) for walk in walks) >= 20
    assert sum(walk.invariants.barriers_passed for walk in walks) >= 1
    assert not CLIMATES[climate].change or sum(walk.invariants.changes for walk in walks) >= 4
    assert not CLIMATES[climate].hand_over or sum(walk.invariants.own.counts["hand-overs"] for walk in walks) >= 2


@pytest.mark.parametrize(("nodes", "phase_1_size", "phase_2_size"), [(3, 3, 1), (4, 3, 2), (5, 4, 2), (5, 2, 4)])
def test_every_invariant_holds_with_flexible_quorums(nodes: int, phase_1_size: int, phase_2_size: int) -> None:
    def quorum_of(configuration: Configuration) -> PhasedQuorum:
        return Flexible(tuple(configuration.voters), phase_1_size, phase_2_size)

    protocol = flexible(phase_1_size, phase_2_size)
    seeds = [seed for seed, climate in enumerate(CLIMATES) if not climate.change]
    walks = [explore(nodes, seed, 1000, protocol, quorum_of) for seed in seeds]
    assert sum(walk.invariants.leaderships for walk in walks) >= 4
    assert sum(len(walk.invariants.committed) for walk in walks) >= 20


def test_the_same_seed_walks_the_same_way() -> None:
    first, second = (explore(3, seed=5, steps=1500) for _ in range(2))
    assert first.invariants.committed == second.invariants.committed
    assert first.walk.lab.now_ms == second.walk.lab.now_ms
