"""The fixture `simulate` as a user's pytest shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

FAILING = """
import asyncio
from quorate.simulation.own import StateMachineClient

class Counter:
    def __init__(self):
        self.value = 0
    def apply(self, command, time_ms):
        self.value += 1
        return str(self.value).encode()
    def snapshot(self):
        return str(self.value).encode()
    def restore(self, data):
        self.value = int(data)

async def client(world):
    async with StateMachineClient(world.servers, world.random) as counter:
        while not world.stopping:
            with world.history.operation("increment") as operation:
                operation.ok(int(await counter.call(b"increment")))
            await asyncio.sleep(0.05)

SETTINGS = dict(state_machine=Counter, duration_s=1, clients=2, faults="none", shrink_tries=2)

def never_seven(operations):
    return ["there is a seven" for each in operations if each.result == 7]

def test_fails(simulate):
    simulate(client, check=never_seven, seeds=[3, 4], **SETTINGS)

def test_passes(simulate):
    coverage = simulate(client, seeds=[3], **SETTINGS)
    assert coverage["increment"]
    print("COUNTED", coverage["increment"])
"""


def test_a_failure_says_all_that_is_needed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_mine=FAILING)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "VIOLATION in seed 3 after * simulated s",
            "  check    own check",
            "  seen     there is a seven",
            "  repeat   pytest test_mine.py::test_fails --simulate-seed 3",
            "Shrunk by 2 runs:",
            "  to       0 faults, *",
            "The last relevant events of the smallest run:",
            "*node-0*node-1*node-2*client-*",
            "*return: increment: ok*",
        ]
    )
    assert "trial.py" not in result.stdout.str(), "the inside of the simulator explains nothing"


def test_the_command_line_chooses_the_seeds(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_seeds(simulate):
            print("0S", *(simulate.seeds or ["its", "own"]))
        """
    )
    for arguments, seeds in (((), "its own"), (("--simulate-seed", "9"), "9"), (("--simulate-seeds", "3"), "0 1 2")):
        result = pytester.runpytest_inprocess("-s", "-p", "no:cacheprovider", *arguments)
        result.stdout.fnmatch_lines([f"*0S {seeds}"])


def test_a_seed_of_the_command_line_is_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_mine=FAILING)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "test_mine.py::test_fails", "--simulate-seed", "8")
    result.stdout.fnmatch_lines(["VIOLATION in seed 8 *"])


def test_the_examples_of_the_documentation_run(pytester: pytest.Pytester) -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulation_own.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(# test_\w+\.py\n.*?)```", page, re.DOTALL):
        Path(pytester.path, block.split()[1]).write_text(block, encoding="utf-8")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--simulate-seed", "0")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["VIOLATION in seed 0 *", "*invalid as a lock: *", "  repeat   pytest test_lock.py::*"])


def test_pytest_starts_without_the_simulator() -> None:
    """The plugin is imported by every pytest run of everybody who has Quorate installed."""
    code = "import quorate.simulation.pytest_plugin, sys; print(sorted(m for m in sys.modules if 'quorate' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['quorate', 'quorate.simulation', 'quorate.simulation.pytest_plugin']"
