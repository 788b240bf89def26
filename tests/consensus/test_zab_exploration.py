"""ZAB under everything that a network and a disk may do to it, from seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from quorate.consensus.zab import PROTOCOL
from tests.consensus.exploration import CLIMATES, Walk
from tests.consensus.invariants import Invariants
from tests.consensus.zab_invariants import ZabInLab


@dataclass(frozen=True, slots=True)
class Explored:
    walk: Walk
    zab: ZabInLab

    @property
    def invariants(self) -> Invariants:
        return self.walk.invariants


def explore(nodes: int, seed: int, steps: int) -> Explored:
    walk = Walk(PROTOCOL, nodes, seed)
    zab = ZabInLab(walk.lab, walk.invariants)
    walk.run(steps)
    return Explored(walk, zab)


@pytest.mark.parametrize(("nodes", "seeds", "steps"), [(3, 3, 2500), (5, 2, 3500)])
@pytest.mark.parametrize("climate", range(len(CLIMATES)))
def test_every_invariant_holds_on_a_walk(nodes: int, seeds: int, steps: int, climate: int) -> None:
    walks = [explore(nodes, seed, steps) for seed in range(climate, seeds * len(CLIMATES), len(CLIMATES))]
    # A walk that elects nobody and commits nothing would check nothing.
    assert sum(walk.invariants.leaderships for walk in walks) >= 2
    assert sum(len(walk.invariants.committed) for walk in walks) >= 6
    assert not CLIMATES[climate].change or sum(walk.invariants.changes for walk in walks) >= 4


def test_the_walks_come_to_everything_that_a_leader_does() -> None:
    walks = [explore(3, seed, steps=2500) for seed in (1, 4, 5, 7, 11, 13, 21, 23)]
    assert sum(walk.zab.own.counts["TRUNC"] for walk in walks) >= 4
    assert sum(walk.invariants.group.counts.snapshots_installed for walk in walks) >= 4
    assert sum(walk.zab.own.counts["histories accepted"] for walk in walks) >= 40
    assert sum(walk.zab.own.counts["hand-overs"] for walk in walks) >= 4
    assert sum(walk.invariants.barriers_passed for walk in walks) >= 40


def test_the_same_seed_walks_the_same_way() -> None:
    first, second = (explore(3, seed=5, steps=1500) for _ in range(2))
    assert first.invariants.committed == second.invariants.committed
    assert first.walk.lab.now_ms == second.walk.lab.now_ms


@pytest.mark.parametrize(("nodes", "seed"), [(3, 525), (3, 731), (5, 590), (5, 22)])
def test_walks_that_once_found_something(nodes: int, seed: int) -> None:
    assert explore(nodes, seed, steps=3000).invariants.committed
