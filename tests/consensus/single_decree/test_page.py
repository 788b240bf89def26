"""The diagrams on the protocol's page are what happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from quorate.consensus.replica import Message, NodeId
from quorate.consensus.single_decree.messages import Accept
from quorate.simulation.diagram_text import render_text
from quorate.simulation.trace import Trace
from tests.consensus.single_decree.test_duel import AtOnce, duel
from tests.consensus.single_decree.world import World

PAGE = Path(__file__).parents[3] / "docs" / "protocols" / "single_decree_paxos.md"


class OnlyNodeThreeHearsNodeOne:
    """What node 1 asks to accept is lost on its way to the others; node 5 is farther away than they are."""

    def copies(self, sender: NodeId, to: NodeId, message: Message) -> list[int]:
        if sender == 1 and isinstance(message, Accept) and to != 3:
            return []
        return [18 if 5 in (sender, to) else 10]

    def write_ms(self) -> int:
        return 0


def a_value_that_outlives_its_proposer() -> str:
    trace = Trace()
    world = World((3, 4, 5), {1: 0, 2: 60}, OnlyNodeThreeHearsNodeOne(), Random(0), trace=trace)
    world.after(35, lambda: world.crash(1))
    world.run(until_ms=200)
    assert world.ledger.chosen == {b"a1"}
    return render_text(trace.events, 112)


def a_duel() -> str:
    trace = Trace()
    duel(AtOnce(), 1, trace).run(until_ms=200)
    return "\n".join(render_text(trace.events, 100).splitlines()[:27])


def a_duel_with_back_off() -> str:
    trace = Trace()
    world = duel(Random(0), 1, trace)
    world.run(until_ms=5_000, enough=world.has_everybody_learned)
    return render_text(trace.events, 100)


@pytest.mark.parametrize("draw", [a_value_that_outlives_its_proposer, a_duel, a_duel_with_back_off])
def test_the_page_shows(draw: Callable[[], str]) -> None:
    drawing = draw()
    assert drawing in PAGE.read_text(encoding="utf-8"), f"this belongs on the page:\n{drawing}"
