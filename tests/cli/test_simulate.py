"""`quorate simulate` with planted runs: exit codes, messages, files, Ctrl-C; and a real run at the end."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner, Result

from quorate.cli import simulate as command
from quorate.cli.main import main
from quorate.cli.progress import ProgressLine
from quorate.cli.simulate import Laboratory
from quorate.simulation.campaign import Runner
from quorate.simulation.plan import Injection, Plan, read_plan, write_plan
from quorate.simulation.shrink import Progress
from quorate.simulation.trace import Trace
from tests.simulation.fake_runs import (
    CULPRIT,
    POISON,
    harmless_injections,
    run_badly_by_process,
    run_badly_with_13_and_15,
    run_by_process,
    run_poisoned,
    run_raising,
    run_well,
)

FAULTS = {"crash": "a node is killed", "delay": "packets take longer", POISON: "somebody drinks it"}


def draw(seed: int, settings: Plan) -> Plan:
    """Seeds from 5 on are poisoned where that may be drawn."""
    injections = harmless_injections(8, settings.duration_s) if "delay" in settings.faults else ()
    if seed >= 5 and POISON in settings.faults:
        injections += (CULPRIT,)
    return Plan(
        seed=seed,
        protocol=settings.protocol,
        nodes=settings.nodes,
        clients=settings.clients,
        operations_per_s=settings.operations_per_s,
        duration_s=settings.duration_s,
        faults=settings.faults,
        injections=injections,
    )


def problem_of_injection(injection: Injection) -> str:
    return "" if injection.fault in FAULTS else f"there is no fault {injection.fault!r}"


@dataclass
class Fake:
    """Calls the command with a laboratory in which everything is planted."""

    monkeypatch: pytest.MonkeyPatch
    laboratory: Laboratory

    def __call__(self, *arguments: str, run: Runner = run_well, required: tuple[str, ...] = ()) -> Result:
        laboratory = replace(self.laboratory, run=run, required_coverage=lambda *_: required)
        self.monkeypatch.setattr(command, "load_laboratory", lambda: laboratory)
        return CliRunner().invoke(main, ["simulate", *arguments])


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    monkeypatch.chdir(tmp_path)
    return Fake(monkeypatch, Laboratory(run_well, draw, FAULTS, problem_of_injection, ("zookeeper",), lambda *_: ()))


# --- options -------------------------------------------------------------------------------------


def test_the_faults_are_listed_with_a_line_each(simulate: Fake) -> None:
    result = simulate("--list-faults")
    assert result.exit_code == 0
    assert [line.split(None, 1) for line in result.output.splitlines()[1:]] == [list(pair) for pair in FAULTS.items()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--faults crash,earthquake", "there is no fault 'earthquake'. Known are: crash, delay, poison; or `all`"),
        ("--faults ,", "there is no fault ''"),
        ("--service etcd", "service 'etcd' is none of: zookeeper"),
        ("--protocol telepathy", "'telepathy' is no protocol"),
        ("--seeds 0", "0 is not in the range"),
        ("--nodes 0", "0 is not in the range"),
        ("--duration 0", "0.0 is not in the range"),
        ("--seeds 2 --trace t.jsonl", "--trace is of a single run"),
        ("--twice --diagram d.html", "--diagram is of a single run"),
        ("--no-shrink --shrink-tries 3", "--shrink-tries and --no-shrink contradict each other"),
        ("--output nowhere", "nowhere is no folder"),
        ("--trace nowhere/t.jsonl", "nowhere is no folder"),
        ("--plan missing.json", "cannot read missing.json: No such file"),
        ("--plan good.json --seed 7", "--seed and --plan contradict each other"),
        ("--plan good.json --faults all", "--faults and --plan contradict each other"),
        ("--plan bad.json", "bad.json is not a plan of the simulator"),
        ("--rate nan", "nan is no number that one can count to"),
        ("--duration nan", "nan is no number that one can count to"),
        ("--trace x --diagram ../{folder}/x", "--trace and --diagram are the same file"),
        ("--plan good.json --trace good.json", "--plan and --trace are the same file"),
        ("--output /proc", "cannot write in /proc: "),
        ("--plan strange.json", "strange.json: injections[0]: there is no fault 'flood'"),
        ("--plan drawn.json", "drawn.json: faults: there is no fault 'flood'; known are: crash, delay, poison"),
        ("--plan far.json", "far.json: injections[0] (crash): target '7': there is no node 7; they are from 0 to 2"),
        ("--plan other.json", "protocol: 'telepathy' is no protocol: there are raft"),
        ("--plan none.json", "nodes is 0; there may be 1 to"),
    ],
)
def test_wrong_options_are_told_in_one_message(simulate: Fake, arguments: str, message: str) -> None:
    write_plan(Plan(seed=1), Path("good.json"))
    Path("bad.json").write_text('{"seed": "one"}')
    write_plan(Plan(seed=1, injections=(Injection("flood", 1.0, 1.0),)), Path("strange.json"))
    write_plan(Plan(seed=1, faults=("flood",)), Path("drawn.json"))
    write_plan(Plan(seed=1, injections=(Injection("crash", 1.0, 1.0, "7"),)), Path("far.json"))
    write_plan(Plan(seed=1, protocol="telepathy"), Path("other.json"))
    write_plan(Plan(seed=1, nodes=0), Path("none.json"))
    result = simulate(*arguments.format(folder=Path.cwd().name).split())
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


# --- runs that go well ---------------------------------------------------------------------------


def test_a_run_tells_what_it_exercised(simulate: Fake) -> None:
    result = simulate("--faults", "none")
    assert result.exit_code == 0, result.output
    assert "operations       100        1" in result.output
    assert re.search(r"^1 run, 60 simulated s in .*: no violation$", result.output, re.MULTILINE)


def test_a_campaign_says_the_same_whatever_the_number_of_processes(simulate: Fake) -> None:
    def campaign(jobs: str) -> dict[str, object]:
        result = simulate("--seeds", "8", "--seed", "40", "--jobs", jobs, "--faults", "none", "--json")
        assert result.exit_code == 0
        data: dict[str, object] = json.loads(result.stdout)
        assert cast(float, data.pop("real_s")) > 0
        return data

    one = campaign("1")
    assert one == campaign("2")
    assert list(cast("dict[str, str]", one["digests"])) == [str(seed) for seed in range(40, 48)]
    assert one["runs"] == 8
    assert one["failures"] == one["missing"] == []
    assert cast("dict[str, int]", one["coverage"])["operations"] == 800


def test_trace_and_diagram_of_a_run_that_went_well(simulate: Fake) -> None:
    result = simulate("--trace", "run.jsonl", "--diagram", "run.html", "--faults", "crash")
    assert result.exit_code == 0, result.output
    with Path("run.jsonl").open("rb") as file:
        assert len(Trace.read(file).events) == 3
    assert "quorate simulate --seed 0 --faults crash" in Path("run.html").read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_is_an_error(simulate: Fake) -> None:
    Path("taken").mkdir()
    result = simulate("--trace", "taken", "--faults", "none")
    assert result.exit_code == 2
    assert "Error: cannot write taken: Is a directory\n" in result.stderr
    result = simulate("--trace", "/dev/full", "--diagram", "run.html", "--faults", "none", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["unwritten"] == ["cannot write /dev/full: No space left on device"]
    assert result.stderr.endswith("Error: cannot write /dev/full: No space left on device\n")
    assert Path("run.html").exists()


def test_a_violation_counts_for_more_than_a_file_that_cannot_be_written(simulate: Fake) -> None:
    Path("quorate-failure-5.plan.json").mkdir()
    result = simulate("--seed", "5", "--no-shrink", run=run_poisoned)
    assert result.exit_code == 1
    assert "Error: cannot write quorate-failure-5.plan.json: Is a directory\n" in result.stderr
    assert "  trace    quorate-failure-5.trace.jsonl\n" in result.stdout


# --- coverage ------------------------------------------------------------------------------------


def test_a_campaign_with_all_faults_must_exercise_everything(simulate: Fake) -> None:
    arguments = ("--seeds", "20", "--faults", "all", "--jobs", "2")
    result = simulate(*arguments, required=("operations", "elections"))
    assert result.exit_code == 0, result.output
    result = simulate(*arguments, required=("operations", "watches fired", "snapshots sent"))
    assert result.exit_code == 1
    assert "NOT EXERCISED in 20 runs: watches fired, snapshots sent\n" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        "--seeds 19 --faults all",
        "--seeds 20 --faults crash",
        "--seeds 20 --nodes 2",
        "--seeds 20 --nodes 1",
        "--seeds 20 --duration 59",
    ],
)
def test_smaller_campaigns_need_not(simulate: Fake, arguments: str) -> None:
    assert simulate(*arguments.split(), required=("snapshots sent",)).exit_code == 0


def test_in_a_hundred_runs_every_fault_must_act(simulate: Fake) -> None:
    """Poison comes from seed 5 on, but never in these."""
    assert simulate("--seeds", "99", "--seed", "-99").exit_code == 0
    result = simulate("--seeds", "100", "--seed", "-100")
    assert result.exit_code == 1
    assert "NOT EXERCISED in 100 runs: fault poison\n" in result.output
    assert simulate("--seeds", "100", "--seed", "-94").exit_code == 0


# --- violations ----------------------------------------------------------------------------------


def test_a_violation_is_told_shrunk_recorded_and_can_be_repeated(simulate: Fake) -> None:
    failed = simulate("--seeds", "100", "--jobs", "2", run=run_poisoned)
    assert failed.exit_code == 1
    assert "VIOLATION in seed 5 after 22.500 simulated s\n  check    poisoned\n  seen     somebody" in failed.output
    assert "  from     9 faults, 10 clients, 60 s\n  to       1 fault, 1 client" in failed.output
    assert "poison at 21.5 s for" in failed.output
    assert "poisoned: somebody drank it" in failed.output.partition("The last relevant events:")[2]
    repeat_seed, repeat_plan = (line.split(None, 1)[1] for line in failed.output.splitlines() if "  repeat " in line)
    assert repeat_seed == "quorate simulate --seed 5"
    assert repeat_plan == "quorate simulate --plan quorate-failure-5.plan.json"

    plan = read_plan(Path("quorate-failure-5.plan.json"))
    assert [injection.fault for injection in plan.injections] == [POISON]
    assert plan.client_numbers == (3,)
    with Path("quorate-failure-5.trace.jsonl").open("rb") as file:
        assert Trace.read(file).events[-1].kind == "violation"
    assert repeat_plan in Path("quorate-failure-5.html").read_text(encoding="utf-8")

    again = simulate(*shlex.split(repeat_seed)[2:], "--shrink-tries", "1", run=run_poisoned)
    assert "VIOLATION in seed 5 after 22.500 simulated s" in again.output
    write_plan(plan, Path("quorate-failure-5.plan.json"))
    again = simulate(*shlex.split(repeat_plan)[2:], run=run_poisoned)
    assert again.exit_code == 1
    assert "  check    poisoned" in again.output
    assert "Shrinking" not in again.output
    assert "The last relevant events:" in again.output
    assert read_plan(Path("quorate-failure-5.plan.json")) == plan


def test_without_shrinking_the_whole_plan_is_written(simulate: Fake, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    result = simulate("--seed", "5", "--no-shrink", "--output", "out", run=run_poisoned)
    assert result.exit_code == 1
    assert len(read_plan(Path("out/quorate-failure-5.plan.json")).injections) == 9
    assert sorted(file.name for file in Path("out").iterdir()) == [
        "quorate-failure-5.html",
        "quorate-failure-5.plan.json",
        "quorate-failure-5.trace.jsonl",
    ]


def test_tries_are_bounded(simulate: Fake) -> None:
    result = simulate("--seed", "5", "--shrink-tries", "2", run=run_poisoned)
    assert "Shrunk by 2 runs:" in result.output
    assert len(read_plan(Path("quorate-failure-5.plan.json")).injections) > 1


def test_keep_going_lists_all_and_shrinks_the_first_of_each_check(simulate: Fake) -> None:
    result = simulate("--seed", "10", "--seeds", "10", "--keep-going", run=run_badly_with_13_and_15)
    assert result.exit_code == 1
    assert re.findall(r"^ *(\d+)  (unlucky|fifteen) ", result.stdout, re.MULTILINE) == [
        ("13", "unlucky"), ("15", "fifteen"), ("17", "unlucky"),
    ]  # fmt: skip
    assert sorted(file.name for file in Path().glob("*.plan.json")) == [
        "quorate-failure-13.plan.json",
        "quorate-failure-15.plan.json",
    ]


def test_a_failure_as_json(simulate: Fake) -> None:
    result = simulate("--seed", "5", "--json", run=run_poisoned)
    assert result.exit_code == 1
    (failure,) = json.loads(result.stdout)["failures"]
    assert (failure["seed"], failure["check"], failure["text"]) == (5, "poisoned", "somebody drank it")
    assert failure["repeat"] == "quorate simulate --seed 5"
    assert failure["repeat_smallest"] == "quorate simulate --plan quorate-failure-5.plan.json"
    assert all(Path(failure[name]).exists() for name in ("plan", "trace", "diagram"))


def test_a_run_that_differs_from_itself_is_a_violation(simulate: Fake) -> None:
    result = simulate("--seeds", "6", "--faults", "none", "--jobs", "2", "--twice", run=run_by_process)
    assert result.exit_code == 1
    assert "  check    determinism\n" in result.output
    assert "  repeat   quorate simulate --seed 3 --faults none --twice\n" in result.output
    assert not list(Path().glob("quorate-failure*"))


def test_a_recorded_run_that_differs_is_told(simulate: Fake) -> None:
    """The run that is recorded is in another process than the run that failed."""
    result = simulate("--seed", "3", "--faults", "none", "--no-shrink", run=run_badly_by_process)
    assert "WARNING: the recorded run was not the same as the run before it" in result.output


def test_a_bug_of_the_simulator_is_told_with_where_it_is(simulate: Fake) -> None:
    result = simulate("--seed", "2", "--faults", "none", "--no-shrink", run=run_raising)
    assert result.exit_code == 1
    assert "  check    error LookupError\n" in result.output
    assert "there is no such thing" in result.output


# --- progress and Ctrl-C -------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_one_line_on_a_terminal_and_now_and_then_one_elsewhere() -> None:
    for stream, expected in ((Terminal(), "\rone\x1b[K\rthree\x1b[K\r\x1b[K"), (io.StringIO(), "three\n")):
        clock = Clock()
        line = ProgressLine(stream, clock)
        for now, text in ((0.0, "one"), (0.05, "two"), (10.5, "three")):
            clock.now = now
            line.show(partial(str, text))
        line.clear()
        assert stream.getvalue() == expected


def test_ctrl_c_while_shrinking_leaves_the_smallest_plan_so_far(
    simulate: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(progress: Progress, run: Runner, jobs: int, *, on_tick: Callable[[], None]) -> None:
        progress.tries = 3
        progress.smallest = replace(progress.smallest, plan=Plan(seed=5, injections=(CULPRIT,)))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "shrink", interrupted)
    result = simulate("--seed", "5", run=run_poisoned)
    assert result.exit_code == 130
    assert "Shrunk by 3 runs:" in result.output
    assert "  plan     quorate-failure-5.plan.json\nInterrupted.\n" in result.output
    assert read_plan(Path("quorate-failure-5.plan.json")).injections == (CULPRIT,)


INTERRUPTED = """
from quorate.cli import main, progress, simulate
from tests.cli.test_simulate import FAULTS, draw, problem_of_injection
from tests.simulation.fake_runs import run_without_end
progress.LINE_S = 0.0
simulate.load_laboratory = lambda: simulate.Laboratory(
    run_without_end, draw, FAULTS, problem_of_injection, ("zookeeper",), ())
main.main(["simulate", "--seeds", "3", "--jobs", "2", "--faults", "none"], prog_name="quorate")
"""


def test_ctrl_c_shows_how_far_it_came_and_leaves_no_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("2/3 seeds, 120 simulated s"):
            assert line, "it ended by itself"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        output, errors = process.communicate(timeout=60)
    # There was an end of its output, so none of its processes holds that any more.
    assert process.returncode == 130, errors
    assert "Interrupted after 2 of 3 runs.\n2 runs, 120 simulated s" in output
    assert "Traceback" not in errors
