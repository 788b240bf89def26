"""The diagrams on the protocol's page are what happens."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from quorate.consensus.synchronous.floodset import Outcome, flood
from quorate.consensus.synchronous.late import one_late_message
from quorate.consensus.synchronous.rounds import Crash
from quorate.simulation.diagram_text import render_text
from quorate.simulation.trace import Trace

PAGE = Path(__file__).parents[3] / "docs" / "protocols" / "synchronous.md"


def draw(outcome: Outcome, crashes: Collection[Crash], rounds: int) -> str:
    """Round r is second r: all speak at its beginning, hear in its middle, and think at its end."""
    trace = Trace()
    numbers: dict[int, int] = {}
    for round_ in range(1, rounds + 2):
        for index, delivery in enumerate(outcome.deliveries):
            if delivery.sent_round == round_:
                text = f"round {round_}: {{{', '.join(sorted(delivery.message))}}}"
                numbers[index] = trace.send(name(delivery.sender), round_, name(delivery.receiver), text)
        for crash in crashes:
            if crash.round == round_:
                trace.note(name(crash.process), round_ + 0.1, "crash", "")
        for index, delivery in enumerate(outcome.deliveries):
            if delivery.heard_round == round_:
                trace.receive(name(delivery.receiver), round_ + 0.5, numbers[index])
        if round_ == rounds:
            for node, decision in outcome.decisions.items():
                trace.note(name(node), round_ + 0.9, "note", f"decides {decision}")
    return render_text(trace.events, 100)


def name(node: int) -> str:
    return f"node-{node}"


def a_late_message() -> str:
    _, late = one_late_message()
    return draw(late, [Crash(1, 1, frozenset({2}))], 2)


def the_same_in_time() -> str:
    in_time, _ = one_late_message()
    return draw(in_time, [Crash(1, 1, frozenset({2}))], 2)


def too_few_rounds() -> str:
    crashes = [Crash(1, 1, frozenset({2})), Crash(2, 2, frozenset({3}))]
    return draw(flood({1: "a", 2: "b", 3: "c", 4: "d"}, 2, crashes), crashes, 2)


@pytest.mark.parametrize("drawing", [a_late_message, the_same_in_time, too_few_rounds])
def test_the_page_shows(drawing: Callable[[], str]) -> None:
    text = drawing()
    assert text in PAGE.read_text(encoding="utf-8"), f"this belongs on the page:\n{text}"
