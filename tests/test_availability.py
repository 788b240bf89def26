"""The probability of a decision: the sums against every state of nodes and links, against chance, and against Raft."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.availability import (
    MOST_NODES,
    AvailabilityError,
    Direct,
    Graph,
    Link,
    Needs,
    Relayed,
    check_flexible,
    complete_links,
    majority,
    needs_of_any,
    needs_of_leader_or_next,
    needs_of_one,
    textbook_undecided,
    undecided,
)
from quorate.consensus.protocols import PROTOCOLS
from tests.consensus.script import Script

WAYS: dict[str, type[Direct] | type[Relayed]] = {"direct": Direct, "relayed": Relayed}


def failing(graph: Graph, needs: Needs, reach: str) -> float:
    return undecided(graph.node_failure, WAYS[reach](graph).stuck(needs))


# --- one state of nodes and links, by looking ----------------------------------------------------


def heard_by(node: int, up: frozenset[int], working: frozenset[Link], reach: str) -> set[int]:
    """Itself and whom it hears."""
    heard = {node}
    while True:
        sources = {node} if reach == "direct" else set(heard)
        more = {other for a, b in working for s, other in ((a, b), (b, a)) if s in sources and other in up}
        if more <= heard:
            return heard
        heard |= more


def somebody_decides(up: frozenset[int], working: frozenset[Link], needs: Needs, reach: str) -> bool:
    return any((need := needs[node]) and len(heard_by(node, up, working, reach)) >= need for node in up)


def states(graph: Graph) -> Iterator[tuple[float, frozenset[int], frozenset[Link]]]:
    """Every state, with its probability."""
    links = list(graph.link_failure)
    for ups in itertools.product((False, True), repeat=graph.size):
        for works in itertools.product((False, True), repeat=len(links)):
            weight = math.prod(1 - f if up else f for f, up in zip(graph.node_failure, ups, strict=True))
            failures = zip(graph.link_failure.values(), works, strict=True)
            weight *= math.prod(1 - f if w else f for f, w in failures)
            up = frozenset(node for node, is_up in enumerate(ups) if is_up)
            yield weight, up, frozenset(link for link, w in zip(links, works, strict=True) if w)


def failing_by_states(graph: Graph, needs: Needs, reach: str) -> float:
    return math.fsum(weight for weight, up, working in states(graph) if not somebody_decides(up, working, needs, reach))


probabilities = st.sampled_from([0.0, 1.0, 0.5, 0.125, 0.01]) | st.floats(0, 1)
"""Often the same ones, so that nodes are alike."""


@st.composite
def questions(draw: st.DrawFn) -> tuple[Graph, Needs]:
    size = draw(st.integers(1, 4))
    node_failure = tuple(draw(probabilities) for _ in range(size))
    links = draw(st.lists(st.sampled_from(complete_links(size)), unique=True)) if size > 1 else []
    graph = Graph(node_failure, {link: draw(probabilities) for link in links})
    return graph, tuple(draw(st.none() | st.integers(1, size)) for _ in range(size))


@pytest.mark.parametrize("reach", WAYS)
@given(question=questions())
@settings(max_examples=150, deadline=None)
def test_the_sum_is_that_over_every_state_of_nodes_and_links(reach: str, question: tuple[Graph, Needs]) -> None:
    graph, needs = question
    assert failing(graph, needs, reach) == pytest.approx(failing_by_states(graph, needs, reach), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("reach", WAYS)
def test_five_nodes_of_two_kinds_and_a_broken_pair(reach: str) -> None:
    """Two zones, and no link between 0 and 4: 2 ** 14 states."""
    failures = {(a, b): 0.1 if (a < 2) == (b < 2) else 0.3 for a, b in complete_links(5) if (a, b) != (0, 4)}
    graph = Graph((0.1, 0.1, 0.2, 0.2, 0.2), failures)
    needs = needs_of_leader_or_next(5, 0, 4, 2)
    assert failing(graph, needs, reach) == pytest.approx(failing_by_states(graph, needs, reach), rel=1e-9)


# --- against chance, where states are too many ------------------------------------------------------


@pytest.mark.parametrize("reach", WAYS)
@pytest.mark.parametrize("coordinator", ["one", "any"])
def test_twelve_nodes_in_three_zones_agree_with_random_states(reach: str, coordinator: str) -> None:
    graph = Graph(
        tuple(0.1 if node < 8 else 0.4 for node in range(12)),
        {(a, b): 0.1 if a // 4 == b // 4 else 0.5 for a, b in complete_links(12)},
    )
    needs = needs_of_one(12, 0, 7) if coordinator == "one" else needs_of_any(12, 7 if reach == "direct" else 10)
    chance = random.Random(6)
    samples = 4000
    stuck = 0
    for _ in range(samples):
        up = frozenset(node for node, failure in enumerate(graph.node_failure) if chance.random() >= failure)
        working = frozenset(link for link, failure in graph.link_failure.items() if chance.random() >= failure)
        stuck += not somebody_decides(up, working, needs, reach)
    exact = failing(graph, needs, reach)
    assert 0.05 < exact < 0.95  # else a few thousand samples would say little
    assert abs(stuck / samples - exact) < 4 * math.sqrt(exact * (1 - exact) / samples)


# --- against Raft -------------------------------------------------------------------------------------


def raft_decides(size: int, up: frozenset[int], working: frozenset[Link]) -> bool:
    """Does a cluster in this state elect a leader that commits?"""
    script = Script(PROTOCOLS["raft"], lambda generation: b"")
    script.command(f"start {size}")
    for node in set(range(size)) - up:
        script.command(f"crash {node + 1}")
    for a, b in set(complete_links(size)) - working:
        script.command(f"partition {a + 1} | {b + 1}")
    if up:
        script.command("run 10000")
    assert script.lab is not None
    return bool(script.lab.leaders())


def test_raft_decides_in_exactly_the_states_of_any_coordinator_over_direct_links() -> None:
    """All 64 states of three nodes, weighted: what Raft does adds up to the probability that is printed."""
    graph = Graph((0.1, 0.2, 0.3), {(0, 1): 0.15, (0, 2): 0.25, (1, 2): 0.35})
    needs = needs_of_any(3, majority(3))
    by_raft = 0.0
    for weight, up, working in states(graph):
        decides = raft_decides(3, up, working)
        assert decides == somebody_decides(up, working, needs, "direct"), (up, working)
        by_raft += weight * (not decides)
    assert failing(graph, needs, "direct") == pytest.approx(by_raft)


# --- what is known in closed form -----------------------------------------------------------------------


@pytest.mark.parametrize("reach", WAYS)
@pytest.mark.parametrize("nodes", [1, 2, 5, 12])
def test_with_perfect_links_any_coordinator_is_the_textbook(nodes: int, reach: str) -> None:
    graph = Graph((0.07,) * nodes, dict.fromkeys(complete_links(nodes), 0.0))
    assert graph.links_are_perfect
    for quorum in (1, majority(nodes), nodes):
        binomial = sum(math.comb(nodes, k) * 0.93**k * 0.07 ** (nodes - k) for k in range(quorum))
        assert textbook_undecided(graph.node_failure, quorum) == pytest.approx(binomial)
        assert failing(graph, needs_of_any(nodes, quorum), reach) == pytest.approx(binomial)


def test_two_phase_commit_from_one_node_needs_every_node_and_every_link_of_it() -> None:
    graph = Graph((0.1,) * 6, dict.fromkeys(complete_links(6), 0.2))
    assert failing(graph, needs_of_one(6, 3, 6), "direct") == pytest.approx(1 - 0.9**6 * 0.8**5)


def test_a_ring_of_four_is_all_connected_unless_two_links_fail() -> None:
    graph = Graph((0.0,) * 4, dict.fromkeys([(0, 1), (1, 2), (2, 3), (0, 3)], 0.1))
    assert failing(graph, needs_of_any(4, 4), "relayed") == pytest.approx(1 - 0.9**4 - 4 * 0.9**3 * 0.1)
    assert failing(graph, needs_of_any(4, 4), "direct") == 1  # nobody has three links


@pytest.mark.parametrize("reach", WAYS)
def test_small_probabilities_keep_their_digits(reach: str) -> None:
    """Two of three: two nodes fail, or links leave none with a partner."""
    graph = Graph((1e-9,) * 3, dict.fromkeys(complete_links(3), 0.0))
    assert failing(graph, needs_of_any(3, 2), reach) == pytest.approx(3e-18, rel=1e-6, abs=0)


# --- what has no answer -----------------------------------------------------------------------------------


def test_unsafe_quorums_are_refused_and_safe_ones_are_not() -> None:
    for election, decision in itertools.product(range(1, 6), repeat=2):
        meets = all(
            set(one) & set(other)
            for one in itertools.combinations(range(5), election)
            for other in itertools.combinations(range(5), decision)
        )
        if meets:
            check_flexible(5, election, decision)
        else:
            with pytest.raises(AvailabilityError, match="are not safe with 5 nodes"):
                check_flexible(5, election, decision)


@pytest.mark.parametrize("sizes", [(0, 5), (6, 1), (3, 9)])
def test_impossible_quorums_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(AvailabilityError, match="a quorum of 5 nodes has 1 to 5"):
        check_flexible(5, *sizes)


@pytest.mark.parametrize(
    ("node_failure", "link_failure", "said"),
    [
        ((), {}, "at least one node"),
        ((0.1,) * (MOST_NODES + 1), {}, "13 nodes are too many"),
        ((0.1, 1.5), {}, "node 1 fails with probability 1.5"),
        ((0.1, math.nan), {}, "node 1 fails with probability nan"),
        ((0.1, 0.1), {(0, 2): 0.1}, "link 0-2 names node 2, but the nodes are 0 to 1"),
        ((0.1, 0.1), {(0, 1): -0.5}, "link 0-1 fails with probability -0.5"),
        ((0.1, 0.1), {(1, 0): 0.5}, "from a smaller node to a larger"),
    ],
)
def test_what_is_no_graph_is_refused(
    node_failure: tuple[float, ...], link_failure: dict[Link, float], said: str
) -> None:
    with pytest.raises(AvailabilityError, match=said):
        Graph(node_failure, link_failure)
