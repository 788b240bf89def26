"""Two proposers that overtake each other for ever (Paxos Made Simple, section 2.4), and what ends it."""

from __future__ import annotations

from random import Random

import pytest

from quorate.consensus.replica import Message, NodeId, RandomSource
from quorate.consensus.single_decree.hard_state import decode_proposer
from quorate.consensus.single_decree.messages import Accept
from quorate.simulation.trace import Trace
from tests.consensus.single_decree.world import World


class AtOnce:
    """Draws the shortest wait: no back-off at all."""

    def randrange(self, start: int, stop: int) -> int:
        return start


class LargeValue:
    """A message takes 10 ms, and one that carries a proposed value to an acceptor 30."""

    def copies(self, sender: NodeId, to: NodeId, message: Message) -> list[int]:
        return [30 if isinstance(message, Accept) else 10]

    def write_ms(self) -> int:
        return 0


def duel(random: RandomSource, acceptors: int, trace: Trace | None = None) -> World:
    """Proposer 2 starts between the promises that proposer 1 gets and the arrival of what it asks to accept."""
    return World(tuple(range(3, 3 + acceptors)), {1: 0, 2: 25}, LargeValue(), random, trace=trace)


@pytest.mark.parametrize("acceptors", [1, 3])
def test_without_back_off_they_overtake_each_other_for_ever(acceptors: int) -> None:
    world = duel(AtOnce(), acceptors)
    world.run(until_ms=60_000)
    assert world.ledger.accepted == {}
    # It is no stand-still: every 50 ms each of them begins a ballot, in a round above the other's.
    rounds = [host.durable["proposer"] for host in world.hosts.values() if host.node in (1, 2)]
    assert [decode_proposer(state) > 1_000 for state in rounds] == [True, True]


@pytest.mark.parametrize("acceptors", [1, 3])
def test_with_back_off_one_of_them_gets_through(acceptors: int) -> None:
    for seed in range(100):
        world = duel(Random(seed), acceptors)
        world.run(until_ms=5_000, enough=world.has_everybody_learned)
        assert world.has_everybody_learned()
        assert len(world.ledger.chosen) == 1
