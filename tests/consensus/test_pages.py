"""The diagrams on the protocols' pages are what happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quorate.consensus.paxos.messages import Accept
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.replica import PeerLost, Propose
from quorate.consensus.zab import messages as zab
from tests.consensus.drawn import DrawnLab
from tests.consensus.lab import InFlight

PAGES = Path(__file__).parents[2] / "docs" / "protocols"
WIDTH = 112


def an_order_that_survives_its_leader() -> str:
    """Of what node 1 proposes, a is lost and b reaches node 3 alone.  Node 2 leads next."""
    lab = DrawnLab(PROTOCOLS["paxos"], 3)
    lab.tick(1)
    lab.run(until_ms=600)
    lab.loses = lambda flight: is_accept(flight, 2) or (is_accept(flight, 3) and flight.to == 2)
    lab.step(1, Propose(b"a"))
    lab.step(1, Propose(b"b"))
    lab.run(until_ms=615)
    lab.crash(1)
    lab.loses = lambda flight: False
    lab.tick(2)
    lab.run(until_ms=2000)
    assert [entry.payload for entry in lab.servers[3].applied] == [b"", b"", b"", b""]
    return lab.drawing(WIDTH, first_s=0.5)


def is_accept(flight: InFlight, position: int) -> bool:
    message = flight.message
    return isinstance(message, Accept) and any(entry.position == position for entry in message.entries)


def a_history_that_is_cut() -> str:
    """Node 3 leads, and crashes with an entry that nobody else has got.  When it is back, that goes."""
    lab = DrawnLab(PROTOCOLS["zab"], 3)
    for node in (1, 2, 3):
        lab.tick(node)
    lab.run(until_ms=400)
    assert lab.leaders() == [3]
    lab.loses = lambda flight: isinstance(flight.message, zab.Propose)
    lab.step(3, Propose(b"a"))
    lab.run(until_ms=405)
    lab.crash(3)
    lab.loses = lambda flight: False
    for node in (1, 2):
        lab.step(node, PeerLost(3))
    lab.run(until_ms=600)
    assert lab.leaders() == [2]
    lab.start_again(3)
    lab.tick(3)
    lab.run(until_ms=800)
    assert lab.servers[3].applied == lab.servers[2].applied
    return lab.drawing(WIDTH, first_s=0.4)


@pytest.mark.parametrize(
    ("page", "draw"), [("paxos.md", an_order_that_survives_its_leader), ("zab.md", a_history_that_is_cut)]
)
def test_the_page_shows(page: str, draw: Callable[[], str]) -> None:
    drawing = draw()
    assert drawing in (PAGES / page).read_text(encoding="utf-8"), f"this belongs on the page:\n{drawing}"
