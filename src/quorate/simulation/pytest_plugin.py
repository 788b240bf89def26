"""The pytest fixture `simulate` (docs/simulation_own.md).

pytest imports this module at its start wherever Quorate is installed, so the simulator is imported when a test asks
for the fixture, and no sooner.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from quorate.simulation.own.trial import Simulate


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("quorate", "simulation (quorate)")
    group.addoption("--simulate-seed", type=int, metavar="N", help="run `simulate` with this seed, to repeat a failure")
    group.addoption("--simulate-seeds", type=int, metavar="N", help="run `simulate` with so many seeds, from 0")


@pytest.fixture
def simulate(request: pytest.FixtureRequest) -> Simulate:
    """Simulate a state machine or client code of your own."""
    from quorate.simulation.own.trial import Simulate

    config = request.config
    file = os.path.relpath(request.path, config.invocation_params.dir)
    test = "::".join([file, *request.node.nodeid.split("::")[1:]])

    def fail(text: str) -> NoReturn:
        pytest.fail(text, pytrace=False)

    def repeat(seed: int) -> str:
        return f"pytest {shlex.quote(test)} --simulate-seed {seed}"

    # What tests print is captured, so this asks the terminal behind it.
    encoding = getattr(sys.__stdout__, "encoding", None) or ""
    return Simulate(fail, repeat, _seeds(config), ascii_only=encoding.lower().replace("-", "") != "utf8")


def _seeds(config: pytest.Config) -> list[int] | None:
    """Those of the command line."""
    seed, count = config.getoption("simulate_seed"), config.getoption("simulate_seeds")
    if seed is not None:
        return [seed]
    return None if count is None else list(range(count))
