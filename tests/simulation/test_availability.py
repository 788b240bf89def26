"""Whole clusters decide where some node hears a majority, and nowhere else."""

from __future__ import annotations

import pytest

from quorate.availability import Graph
from quorate.consensus.protocols import PROTOCOLS
from quorate.services.zookeeper.service import ZOOKEEPER
from quorate.simulation.availability import State, decides, draw_states
from quorate.simulation.undisturbed import undisturbed

NODE_1_HEARS_ALL = State(5, frozenset({0, 1, 4}), frozenset({(0, 4)}))
"""Whoever elects by the greatest id must find out that node 4 reaches nobody but node 1."""
NOBODY_HEARS_TWO_OTHERS = State(5, frozenset({0, 1, 3, 4}), frozenset({(0, 3), (0, 4), (1, 3), (1, 4)}))
TWO_OF_FIVE = State(5, frozenset({2, 3}), frozenset())


def _decides(state: State, protocol: str, seed: int = 0) -> bool:
    with undisturbed():
        return decides(state, protocol, ZOOKEEPER, seed)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_one_node_that_hears_a_majority_leads(protocol: str) -> None:
    assert NODE_1_HEARS_ALL.somebody_hears_a_majority()
    assert _decides(NODE_1_HEARS_ALL, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("state", [NOBODY_HEARS_TWO_OTHERS, TWO_OF_FIVE], ids=["two pairs", "two nodes"])
def test_nobody_leads_where_nobody_hears_a_majority(protocol: str, state: State) -> None:
    assert not state.somebody_hears_a_majority()
    assert not _decides(state, protocol)


def test_states_come_with_the_probabilities_of_the_graph() -> None:
    graph = Graph((0.0, 1.0, 0.5), {(0, 1): 0.0, (0, 2): 1.0})
    states = list(draw_states(graph, 400, seed=0))
    assert all(0 in state.working and 1 not in state.working for state in states)
    assert 160 < sum(2 in state.working for state in states) < 240
    # There is no link 1-2, and 0-2 never works.
    assert {state.cut for state in states} == {frozenset({(0, 2), (1, 2)})}


def test_the_same_seed_draws_the_same_states() -> None:
    graph = Graph((0.5,) * 4, {(0, 1): 0.5, (1, 2): 0.5, (2, 3): 0.5})
    assert list(draw_states(graph, 20, seed=7)) == list(draw_states(graph, 20, seed=7))
    assert list(draw_states(graph, 20, seed=7)) != list(draw_states(graph, 20, seed=8))
