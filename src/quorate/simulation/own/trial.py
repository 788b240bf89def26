"""Seeds of a user's scenario, one after the other in this process, and what is told of the first that fails.

Not in other processes, as `quorate simulate` does it: what a test is made of need be importable nowhere else.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from quorate.checking.models import MODELS, Model
from quorate.simulation import report
from quorate.simulation.campaign import Runner, Summary, summarize
from quorate.simulation.faults import FAULTS
from quorate.simulation.own.scenario import Check, Client, Scenario, ScenarioUnderTest
from quorate.simulation.own.statemachine import StateMachine
from quorate.simulation.plan import Outcome, Plan, problem_of
from quorate.simulation.run import Options, draw_plan, run
from quorate.simulation.shrink import Progress, shrink_on
from quorate.statemachine.machine import StateMachine as ReplicatedClass

DIAGRAM_WIDTH: Final = 120
SHOWN_INJECTIONS: Final = 30
SHOWN_TEXT: Final = 6_000
"""Letters of what a check has to say; a traceback of deep recursion has no end."""


@dataclass(frozen=True, slots=True)
class Simulate:
    """The fixture `simulate` of pytest_plugin.py: runs a scenario, and fails the test with all that explains it."""

    fail: Callable[[str], NoReturn]
    repeat: Callable[[int], str]
    """Seed to the command that runs it again."""
    seeds: Sequence[int] | None = None
    """From the command line: instead of the test's own."""
    ascii_only: bool = False

    def __call__(
        self,
        client: Client,
        *,
        finish: Client | None = None,
        state_machine: Callable[[], StateMachine | ReplicatedClass] | None = None,
        model: str | Model | None = None,
        check: Check | None = None,
        seeds: int | Iterable[int] = 20,
        nodes: int = 3,
        clients: int = 4,
        duration_s: float = 20.0,
        faults: str | Sequence[str] = "all",
        protocol: str = "raft",
        shrink_tries: int = 25,
    ) -> Counter[str]:
        """Run the seeds; what all runs together exercised.  The first violation fails the test.

        `client` runs once for each of `clients`, on a machine of its own, while faults come and go for `duration_s`
        simulated seconds; `finish` once at the very end.  `state_machine` makes what they talk to (without it,
        ZooKeeper's service).  `model` ("register", "kv", "queue", "lock", or one of your own) and `check` judge what
        they recorded.  `seeds` are so many from 0, or these.  `faults` are "all", "none", or names.

        Raises ValueError for a model or a fault that does not exist, for numbers that make no run, and where there is
        no seed at all; RuntimeError where an event loop is running.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("simulate has event loops of its own: call it from a test that is not asynchronous")
        scenario = Scenario(client, finish, state_machine, _model(model), check)
        options = Options(
            protocol=protocol,
            service="statemachine" if state_machine is not None else "zookeeper",
            nodes=nodes,
            clients=clients,
            duration_s=duration_s,
            faults=_faults(faults),
        )
        if problem := _problem_of(options):
            raise ValueError(problem)
        coverage = Counter[str]()
        runner = runner_of(scenario)
        runs = 0
        for seed in self.seeds if self.seeds is not None else range(seeds) if isinstance(seeds, int) else seeds:
            runs += 1
            summary = summarize(runner, draw_plan(seed, options))
            if summary.check:
                self.fail(explain(summary, runner, self.repeat(seed), shrink_tries, ascii_only=self.ascii_only))
            coverage.update(summary.coverage)
        if not runs:
            # A test of nothing must not pass.
            given = seeds if self.seeds is None else "none, on the command line"
            raise ValueError(f"seeds: {given}; give how many there are, at least 1, or a list of them")
        return coverage


def _problem_of(options: Options) -> str:
    """Why there can be no run with them; "" where there can."""
    return problem_of(
        Plan(
            seed=0,
            protocol=options.protocol,
            nodes=options.nodes,
            clients=options.clients,
            duration_s=options.duration_s,
        )
    )


def runner_of(scenario: Scenario) -> Runner:
    def run_scenario(plan: Plan, *, record: bool = False) -> Outcome:
        return run(plan, record=record, service=ScenarioUnderTest(scenario))

    return run_scenario


def _model(model: str | Model | None) -> Model | None:
    if isinstance(model, str):
        if model not in MODELS:
            raise ValueError(f"model {model!r}: expected one of {', '.join(MODELS)}, or a Model")
        return MODELS[model]
    return model


def _faults(faults: str | Sequence[str]) -> tuple[str, ...]:
    if faults == "all":
        return tuple(FAULTS)
    if faults == "none":
        return ()
    names = tuple(faults.split(",") if isinstance(faults, str) else faults)
    for name in names:
        if name not in FAULTS:
            raise ValueError(f"fault {name!r}: expected all, none, or some of {', '.join(FAULTS)}")
    return names


# --- a failure -------------------------------------------------------------------------------


class _InThisProcess:
    """`quorate.simulation.shrink.Tries`: one run after the other, here."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._ended: list[tuple[int, Plan, Summary]] = []

    @property
    def idle(self) -> Sequence[int]:
        return () if self._ended else (0,)

    def begin(self, worker: int, task: Plan, limit_s: float) -> None:
        self._ended.append((worker, task, summarize(self._runner, task)))

    def wait(self, timeout_s: float) -> Sequence[tuple[int, Plan, Summary]]:
        ended, self._ended = self._ended, []
        return ended


def explain(failed: Summary, runner: Runner, repeat: str, shrink_tries: int, *, ascii_only: bool) -> str:
    """All that there is to say of a failed run: its violation, a smaller run with the same, and its last events."""
    progress = Progress(failed, shrink_tries)
    shrink_on(_InThisProcess(runner), progress)
    smallest = progress.smallest
    recorded = report.record(runner, report.Recording(smallest.plan, repeat, DIAGRAM_WIDTH, ascii_only=ascii_only))
    parts = [report.render_violation(_cut(failed), repeat)]
    if smallest.plan != failed.plan:
        parts.append(_render_shrunk(failed, smallest, progress.tries))
    if _identity(recorded.summary) != _identity(smallest):
        parts.append(
            "WARNING: the same run came out differently when it was repeated. Some code has randomness of its own:\n"
            "`random`, `time`, `uuid`, `id`, or the order of a set (compare with PYTHONHASHSEED=0)."
        )
    if recorded.diagram:
        parts.append(f"The last relevant events of the smallest run:\n\n{recorded.diagram}")
    return "\n\n".join(parts)


def _identity(summary: Summary) -> tuple[str, str]:
    """Equal for equal runs.  The address in the repr of an object is no difference."""
    return summary.digest, re.sub(r"0x[0-9a-f]+", "", summary.text)


def _cut(failed: Summary) -> Summary:
    """With a text of bounded length."""
    if len(failed.text) <= SHOWN_TEXT:
        return failed
    half = SHOWN_TEXT // 2
    return Summary(
        failed.plan,
        failed.check,
        f"{failed.text[:half]}\n...\n{failed.text[-half:]}",
        failed.violated_at_s,
    )


def _render_shrunk(failed: Summary, smallest: Summary, tries: int) -> str:
    plan = smallest.plan
    lines = [
        f"Shrunk by {tries} runs:",
        f"  from     {report.describe_size(failed.plan)}",
        f"  to       {report.describe_size(plan)}",
        *(f"             {report.describe_injection(injection)}" for injection in plan.injections[:SHOWN_INJECTIONS]),
    ]
    if len(plan.injections) > SHOWN_INJECTIONS:
        lines.append(f"             and {len(plan.injections) - SHOWN_INJECTIONS} more")
    if smallest.text != failed.text:
        lines.append(report.render_seen(smallest.text))
    return "\n".join(lines)
