"""One value is chosen, ever, under every fault; and the same walks find each deliberate bug."""

from __future__ import annotations

import pytest

from tests.consensus.single_decree.mutants import MUTANTS
from tests.consensus.single_decree.walks import walk
from tests.consensus.single_decree.world import Agents, Violation

SEEDS = 600
MOST_SEEDS = 1500
"""In which a deliberate bug must be found.  Nearly all are within a hundred."""


def test_one_proposed_value_is_chosen_and_learned_on_every_walk() -> None:
    worlds = [walk(seed) for seed in range(SEEDS)]
    assert all(len(world.ledger.chosen) == 1 for world in worlds)
    # Walks on which nobody contradicts anybody would check nothing.
    contended = [world for world in worlds if len({proposal.value for proposal in world.ledger.accepted}) > 1]
    long = [world for world in worlds if len(world.ledger.accepted) > 4]
    restarted = [world for world in worlds if sum(host.lives for host in world.hosts.values()) > 20]
    for those in (contended, long, restarted):
        assert len(those) > SEEDS // 20


@pytest.mark.parametrize("name", MUTANTS)
def test_the_walks_find_an_agent_that(name: str) -> None:
    assert is_found(MUTANTS[name]), f"{MOST_SEEDS} seeds, and nothing wrong with an agent that {name}"


def is_found(agents: Agents) -> bool:
    for seed in range(MOST_SEEDS):
        try:
            walk(seed, agents)
        except Violation:
            return True
    return False
