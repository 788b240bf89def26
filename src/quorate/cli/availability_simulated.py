"""`quorate availability --simulate`: do whole clusters decide where the model says that they can?"""

from __future__ import annotations

import sys
from math import sqrt
from typing import TYPE_CHECKING

from quorate.availability import Graph
from quorate.cli.progress import ProgressLine

if TYPE_CHECKING:
    from quorate.simulation.availability import State

SHOWN = 10
"""States in which the cluster did not do what the model says."""


def compare_with_simulation(graph: Graph, protocol: str, states: int, seed: int, undecided: float) -> str:
    """Live through so many states of the graph, and say how what came of them compares with the model.

    `undecided` is the probability that no coordinator hears a majority over its own links.
    """
    # The simulator is not needed by anybody who only wants the sums.
    from quorate.services.zookeeper.service import ZOOKEEPER
    from quorate.simulation.availability import decides, draw_states
    from quorate.simulation.undisturbed import undisturbed

    line = ProgressLine(sys.stderr)
    decided = 0
    contrary: list[State] = []
    for number, state in enumerate(draw_states(graph, states, seed)):
        with undisturbed():
            found = decides(state, protocol, ZOOKEEPER, seed + number)
        decided += found
        if found != state.somebody_hears_a_majority():
            contrary.append(state)
        done = number + 1
        line.show(lambda done=done: f"{done} of {states} states simulated")  # type: ignore[misc]
    line.clear()
    error = sqrt(undecided * (1 - undecided) / states)
    text = (
        f"Simulated: whole nodes on {protocol}, in {states} states drawn with these probabilities. They had a leader\n"
        f"whom a majority answers in {decided}, {decided / states:.4f} of them; the model says {1 - undecided:.4f}"
        f" (majority; any, direct),\nto be met within {2 * error:.4f} in 19 of 20 such draws."
    )
    if not contrary:
        return f"{text} In every one of the states the cluster did what the model says."
    shown = "\n".join(f"  {_describe(state)}" for state in contrary[:SHOWN])
    return f"{text}\nIn {len(contrary)} states the cluster did not do what the model says:\n{shown}"


def _describe(state: State) -> str:
    working = ", ".join(map(str, sorted(state.working))) or "none"
    cut = ", ".join(f"{one}-{other}" for one, other in sorted(state.cut) if {one, other} <= state.working) or "none"
    expected = "decides" if state.somebody_hears_a_majority() else "does not decide"
    return f"by the model it {expected}: nodes that work: {working}; links cut between them: {cut}"
