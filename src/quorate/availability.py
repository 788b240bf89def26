"""How probably a decision is reached, when nodes and links fail: exact, by the states that they can be in.

**The model.**  A graph of nodes and undirected links.  Each node works with a probability of its own, and so does
each link; all are independent, and whoever works does so for the whole decision.  A *coordinator* (a leader, a
proposer, a coordinator of two-phase commit) decides if it works and hears enough nodes, itself included:

- a majority of n: n // 2 + 1;
- all of them, as two-phase commit asks (Gray, "Notes on Data Base Operating Systems", 1978);
- flexible quorums (Howard, Malkhi, Spiegelman, "Flexible Paxos", OPODIS 2016): Q1 to be elected and Q2 to decide,
  safe where Q1 + Q2 > n, because then every quorum of an election meets every quorum of a decision.

A node is *heard* if it works and either the **direct** link to it works, which is how consensus protocols talk, or
some path of working links over working nodes leads to it, where messages are **relayed** (by routers, by an overlay).

**Textbooks** print the probability that enough nodes work: the binomial sum for majorities, p ** n for all.  That is
this model with links that never fail between all nodes, and a coordinator chosen among those that work.

**The way.**  A complete graph of twelve nodes has 2 ** 66 states of its links, so they are not enumerated.  What is
enumerated is the 2 ** n sets of working nodes; for each, the probability that nobody decides is computed from the
links alone, by one of two sums over fewer cases (`Direct`, `Relayed`).  All terms of these sums are positive, so
small probabilities of failure keep their leading digits.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

MOST_NODES = 12

Link: TypeAlias = tuple[int, int]
"""Two nodes, the smaller one first."""

Needs: TypeAlias = tuple[int | None, ...]
"""For each node how many nodes, itself included, it must hear to decide; None where it does not coordinate."""


class AvailabilityError(ValueError):
    """The question has no answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes 0 .. n - 1 and the links between them, each with the probability that it has failed.

    Raises AvailabilityError for what is no graph of that kind.
    """

    node_failure: tuple[float, ...]
    link_failure: Mapping[Link, float]
    """Only links that exist: a pair that is missing has no link, as if it always failed."""

    def __post_init__(self) -> None:
        check_size(self.size)
        for node, failure in enumerate(self.node_failure):
            check_probability(failure, f"node {node}")
        for (first, second), failure in self.link_failure.items():
            for node in (first, second):
                if not 0 <= node < self.size:
                    raise AvailabilityError(
                        f"link {first}-{second} names node {node}, but the nodes are 0 to {self.size - 1}"
                    )
            if first >= second:
                raise AvailabilityError(f"link {first}-{second} must lead from a smaller node to a larger one")
            check_probability(failure, f"link {first}-{second}")

    @property
    def size(self) -> int:
        return len(self.node_failure)

    def failure_between(self, first: int, second: int) -> float:
        """The probability that no link works between these two."""
        return self.link_failure.get((min(first, second), max(first, second)), 1.0)

    @property
    def links_are_perfect(self) -> bool:
        """Is there a link between any two nodes, and does none ever fail?"""
        return all(failure == 0 for failure in self.link_failure.values()) and (
            len(self.link_failure) == math.comb(self.size, 2)
        )


def check_size(nodes: int) -> None:
    """Raises AvailabilityError if there are too few or too many nodes."""
    if nodes < 1:
        raise AvailabilityError("there must be at least one node")
    if nodes > MOST_NODES:
        raise AvailabilityError(
            f"{nodes} nodes are too many: every set of working nodes is looked at, which is feasible up to {MOST_NODES}"
        )


def check_probability(value: float, whose: str) -> None:
    """Raises AvailabilityError if it is none."""
    if not 0 <= value <= 1:  # also false for NaN
        raise AvailabilityError(f"{whose} fails with probability {value:g}, which is not between 0 and 1")


def complete_links(nodes: int) -> list[Link]:
    """A link between any two."""
    return [(first, second) for first in range(nodes) for second in range(first + 1, nodes)]


# --- what is needed ----------------------------------------------------------------------------


def majority(nodes: int) -> int:
    return nodes // 2 + 1


def check_flexible(nodes: int, election: int, decision: int) -> None:
    """Raises AvailabilityError unless every quorum of an election meets every quorum of a decision."""
    for name, size in (("Q1", election), ("Q2", decision)):
        if not 1 <= size <= nodes:
            raise AvailabilityError(f"{name} = {size} is impossible: a quorum of {nodes} nodes has 1 to {nodes}")
    if election + decision <= nodes:
        raise AvailabilityError(
            f"Q1 = {election} and Q2 = {decision} are not safe with {nodes} nodes: {election} + {decision} is not "
            f"more than {nodes}, so a new leader may hear {election} nodes of which none knows what {decision} decided"
        )


def needs_of_one(nodes: int, coordinator: int, quorum: int) -> Needs:
    """Only this node coordinates."""
    return tuple(quorum if node == coordinator else None for node in range(nodes))


def needs_of_any(nodes: int, quorum: int) -> Needs:
    """Any node may coordinate: one that hears enough suffices."""
    return (quorum,) * nodes


def needs_of_leader_or_next(nodes: int, leader: int, election: int, decision: int) -> Needs:
    """The leader needs only phase 2; any other node must first be elected, in the same state of nodes and links."""
    return tuple(decision if node == leader else max(election, decision) for node in range(nodes))


# --- the sums ----------------------------------------------------------------------------------


def textbook_undecided(node_failure: Sequence[float], quorum: int) -> float:
    """The probability that fewer than `quorum` nodes work: links and coordinators do not come into it."""
    working = [1.0]
    for failure in node_failure:
        working = [
            (working[count] * failure if count < len(working) else 0.0)
            + (working[count - 1] * (1 - failure) if count else 0.0)
            for count in range(len(working) + 1)
        ]
    return math.fsum(working[:quorum])


def undecided(node_failure: Sequence[float], stuck: Sequence[float]) -> float:
    """The probability that nobody decides, from that of each set of working nodes (`Direct.stuck`, `Relayed.stuck`)."""
    weights = [1.0]
    for failure in node_failure:
        weights = [weight * failure for weight in weights] + [weight * (1 - failure) for weight in weights]
    return min(1.0, math.fsum(map(operator.mul, weights, stuck)))


class Direct:
    """Nodes that hear each other over the direct link alone.

    For a given set of working nodes, *missing* is how many more nodes a node would have to hear.  Nodes are taken
    out one after another: when one is taken, each of its links to those that remain works or does not, and what
    remains to be known is only what is missing at the others.  So the states to sum over are these numbers, not the
    links.  Three things keep them few: where nothing is missing any more, that node decides, and the state is left out
    of a sum over those in which nobody does; who can no longer get what it is missing is marked with 0, whatever it
    had; and nodes that are alike (`_alike`) are interchangeable, so their numbers are kept sorted.

    Twelve alike nodes, linked each to each, take 15,000 steps; twelve of which no two are alike take 76 million, which
    is a minute or two.
    """

    def __init__(self, graph: Graph) -> None:
        self._size = graph.size
        self._failure = [[graph.failure_between(a, b) for b in range(graph.size)] for a in range(graph.size)]
        self._degree = [sum(failure < 1 for failure in row) for row in self._failure]

    def stuck(self, needs: Needs, progress: Callable[[int], None] = lambda done: None) -> list[float]:
        """For each set of working nodes, as a bit mask, the probability that none of them decides.

        `progress` is told how many of the 2 ** n sets are done.
        """
        kinds = self._kinds(needs)
        known: dict[tuple[int, ...], float] = {}
        answers = []
        for mask in range(1 << self._size):
            # Nodes of one kind stand for each other, so only how many of each kind work matters.
            counts = tuple(sum(mask >> node & 1 for node in kind) for kind in kinds)
            if counts not in known:
                known[counts] = self._nobody_decides([kind[:n] for kind, n in zip(kinds, counts, strict=True)], needs)
            answers.append(known[counts])
            progress(len(answers))
        return answers

    def _alike(self, a: int, b: int, needs: Needs) -> bool:
        """May these two swap places?  An equivalence: both have the same links to everybody else."""
        others = (node for node in range(self._size) if node not in (a, b))
        return needs[a] == needs[b] and all(self._failure[a][node] == self._failure[b][node] for node in others)

    def _kinds(self, needs: Needs) -> list[list[int]]:
        """Nodes that are alike, together.  First those at which nothing is missing, then those with few links."""
        kinds: list[list[int]] = []
        for node in sorted(range(self._size), key=lambda node: (needs[node] is not None, self._degree[node])):
            kind = next((kind for kind in kinds if self._alike(kind[0], node, needs)), None)
            if kind is None:
                kinds.append([node])
            else:
                kind.append(node)
        return kinds

    def _nobody_decides(self, kinds: Sequence[Sequence[int]], needs: Needs) -> float:
        """With exactly these nodes working, given by kinds."""
        nodes = [node for kind in kinds for node in kind]
        if any(needs[node] == 1 for node in nodes):
            return 0.0
        begins = accumulate((len(kind) for kind in kinds), initial=0)
        first_alike = [begin for kind, begin in zip(kinds, begins, strict=False) for _ in kind]
        links_left = [sum(self._failure[a][b] < 1 for b in nodes if a != b) for a in nodes]
        state = 0
        for place, node in enumerate(nodes):
            missing = (needs[node] or 1) - 1
            state |= (missing if missing <= links_left[place] else 0) << BITS * place
        states = {state: 1.0}
        for place, node in enumerate(nodes):
            for later in range(place + 1, len(nodes)):
                failure = self._failure[node][nodes[later]]
                if failure == 1:
                    continue
                links_left[place] -= 1
                links_left[later] -= 1
                states = _after_link(states, (place, later), failure, (links_left[place], links_left[later]))
                begin = max(first_alike[later], place + 1)
                if begin < later:
                    states = _sorted_between(states, begin, later)
        assert states.keys() <= {0}, "who has no links left misses nothing that it could get"
        return states.get(0, 0.0)


BITS = 4
"""A state of `Direct` is one integer with so many bits for each place: what is missing there, at most 11."""
PLACE = (1 << BITS) - 1


def _after_link(
    states: Mapping[int, float], places: tuple[int, int], failure: float, links_left: tuple[int, int]
) -> dict[int, float]:
    """The states after a link between two places has come to work or not."""
    first, second = (BITS * place for place in places)
    first_left, second_left = links_left
    after: dict[int, float] = {}
    for state, weight in states.items():
        first_missing, second_missing = state >> first & PLACE, state >> second & PLACE
        if not first_missing and not second_missing:
            after[state] = after.get(state, 0.0) + weight
            continue
        if first_missing != 1 and second_missing != 1:  # else one of them decides
            works = state - (bool(first_missing) << first) - (bool(second_missing) << second)
            after[works] = after.get(works, 0.0) + weight * (1 - failure)
        if failure:
            if first_missing > first_left:
                state -= first_missing << first
            if second_missing > second_left:
                state -= second_missing << second
            after[state] = after.get(state, 0.0) + weight * failure
    return after


def _sorted_between(states: Mapping[int, float], begin: int, last: int) -> dict[int, float]:
    """The states with the numbers of these places in ascending order, those that become equal added up."""
    places = range(begin, last + 1)
    cleared = ~sum(PLACE << BITS * place for place in places)
    after: dict[int, float] = {}
    for state, weight in states.items():
        numbers = sorted([state >> BITS * place & PLACE for place in places])
        key = state & cleared
        for place, number in zip(places, numbers, strict=True):
            key |= number << BITS * place
        after[key] = after.get(key, 0.0) + weight
    return after


class Relayed:
    """Nodes that hear each other over any path of working links between working nodes.

    Then all nodes of a connected component hear the same, and a set of working nodes is *stuck* if every component is
    too small for each of its nodes.  The component of the lowest node is a set T with the probability that T is
    connected and no link works between T and the rest; the rest is a smaller set with a sum of its own.  (The
    recursion for connectedness is E. N. Gilbert's, "Random Graphs", 1959, with a probability for each link.)  Sets and
    their subsets are 3 ** n pairs: half a million for twelve nodes.
    """

    def __init__(self, graph: Graph) -> None:
        self._size = graph.size
        self._components: list[list[tuple[int, float]]] = [[]]
        """For each set of working nodes: what may be the component of its lowest node, with the probability."""
        silence = [_products([graph.failure_between(a, b) for b in range(graph.size)]) for a in range(graph.size)]
        connected = [1.0]
        for mask in range(1, 1 << graph.size):
            found = []
            for part in _parts_with_lowest(mask):
                cut = connected[part]
                for node in _members(part):
                    cut *= silence[node][mask ^ part]
                    if not cut:
                        break
                else:
                    found.append((part, cut))
            # By rounding alone the rest could fall below 0.
            connected.append(max(0.0, 1.0 - math.fsum(weight for _, weight in found)))
            self._components.append([*found, (mask, connected[mask])])

    def stuck(self, needs: Needs) -> list[float]:
        """For each set of working nodes, as a bit mask, the probability that none of them decides."""
        decides = [
            any((need := needs[node]) and need <= part.bit_count() for node in _members(part))
            for part in range(1 << self._size)
        ]
        answers = [1.0]
        for mask in range(1, 1 << self._size):
            terms = (weight * answers[mask ^ part] for part, weight in self._components[mask] if not decides[part])
            answers.append(math.fsum(terms))
        return answers


def _products(factors: Sequence[float]) -> list[float]:
    """For each set of places, as a bit mask, the product of the factors there."""
    products = [1.0]
    for factor in factors:
        products += [product * factor for product in products]
    return products


def _members(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _parts_with_lowest(mask: int) -> Iterator[int]:
    """All proper subsets that hold the lowest member."""
    lowest = mask & -mask
    rest = mask ^ lowest
    part = rest
    while part:
        part = (part - 1) & rest
        yield part | lowest
