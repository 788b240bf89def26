"""What is told of runs: commands that repeat them, tables, and the record of a run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from quorate.simulation.campaign import Summary, Totals
from quorate.simulation.plan import Injection, Plan
from quorate.simulation.report import (
    Recording,
    as_data,
    command_of,
    command_of_file,
    coverage_rows,
    describe_injection,
    describe_size,
    failure_rows,
    first_line,
    record,
    render_missing,
    render_seen,
    render_totals,
    render_violation,
)
from quorate.simulation.trace import Trace
from tests.simulation.fake_runs import CULPRIT, run_found_in_the_end, run_poisoned, run_raising, run_well

ALL = ("crash", "delay", "loss")


@pytest.mark.parametrize(
    ("plan", "command"),
    [
        (Plan(seed=7, faults=ALL), "quorate simulate --seed 7"),
        (Plan(seed=-1), "quorate simulate --seed -1 --faults none"),
        (Plan(seed=0, faults=("crash", "loss")), "quorate simulate --seed 0 --faults crash,loss"),
        (
            Plan(seed=1, protocol="zab", nodes=5, clients=3, operations_per_s=2.5, duration_s=20.0, faults=ALL),
            "quorate simulate --seed 1 --protocol zab --nodes 5 --clients 3 --rate 2.5 --duration 20",
        ),
        (Plan(seed=1, duration_s=1234567.25, faults=ALL), "quorate simulate --seed 1 --duration 1234567.25"),
    ],
)
def test_the_command_that_repeats_a_run_says_what_is_unusual(plan: Plan, command: str) -> None:
    assert command_of(plan, ALL) == command


def test_the_command_for_a_file_can_be_typed() -> None:
    assert shlex.split(command_of_file(Path("my folder/it's.plan.json")))[-1] == "my folder/it's.plan.json"


def test_a_plan_in_a_few_words() -> None:
    assert describe_size(Plan(seed=0)) == "0 faults, 10 clients, 60 s"
    small = Plan(seed=0, injections=(CULPRIT,), client_numbers=(3,), max_operations=1, duration_s=2.5)
    assert describe_size(small) == "1 fault, 1 client with 1 operation each, 2.5 s"
    assert describe_injection(CULPRIT) == "poison at 21.5 s for 4 s, target leader, amount 2"
    assert describe_injection(Injection("crash", 1.0, 0.0)) == "crash at 1 s"


def test_a_violation_is_told_with_how_to_repeat_it() -> None:
    summary = Summary(Plan(seed=3), "election safety", "two leaders\nin term 4", 12.34567)
    assert render_violation(summary, "quorate simulate --seed 3").splitlines() == [
        "VIOLATION in seed 3 after 12.346 simulated s",
        "  check    election safety",
        "  seen     two leaders",
        "           in term 4",
        "  repeat   quorate simulate --seed 3",
    ]


def test_a_table_of_failures_shows_the_line_that_says_most() -> None:
    lost = Summary(Plan(seed=12), "error KeyError", "Traceback (most recent call last):\n  File ...\nKeyError: 3\n")
    assert failure_rows([Summary(Plan(seed=3), "liveness", "no leader\nat all", 61.5), lost]) == [
        ["3", "liveness", "61.500", "no leader"],
        ["12", "error KeyError", "0.000", "KeyError: 3"],
    ]
    assert len(first_line("x" * 1000)) == 100
    assert first_line("") == ""


def test_totals_count_and_name_what_was_never_exercised() -> None:
    totals = Totals()
    for seed in range(2):
        coverage = {"crashes": seed, "gets": 7, "loss": 3 * seed}
        totals.add(Summary(Plan(seed=seed, faults=ALL), coverage=coverage, simulated_s=60.0, digest="d"))
    assert coverage_rows(totals, ["crashes", "gets"]) == [["gets", "14", "2"], ["crashes", "1", "1"]]
    assert coverage_rows(totals, totals.faults) == [["loss", "3", "1"], ["crash", "0", "0"], ["delay", "0", "0"]]
    assert as_data(totals, 4.0)["coverage"] == {"crash": 0, "crashes": 1, "delay": 0, "gets": 14, "loss": 3}
    assert render_totals(totals, 4.0).startswith("2 runs, 120 simulated s in 4.0 s (30.0 per s), digest ")
    assert render_totals(totals, 4.0).endswith(": no violation")
    totals.add(Summary(Plan(seed=2), check="liveness"))
    assert render_totals(totals, 4.0).endswith(": 1 violation")
    assert "NOT EXERCISED in 3 runs: snapshots sent" in render_missing(["snapshots sent"], 3)


def test_recording_writes_the_trace_and_the_page_and_draws(tmp_path: Path) -> None:
    plan = Plan(seed=7, injections=(CULPRIT,))
    trace, page = tmp_path / "run.jsonl", tmp_path / "run.html"
    recorded = record(run_poisoned, Recording(plan, "quorate simulate --seed 7", 100, trace, page))
    assert (recorded.summary.check, recorded.unwritten) == ("poisoned", ())
    assert "poisoned: somebody drank it" in recorded.diagram
    with trace.open("rb") as file:
        assert [event.kind for event in Trace.read(file).events] == ["send", "receive", "invoke", "violation"]
    text = page.read_text(encoding="utf-8")
    assert "quorate simulate --seed 7" in text
    assert "somebody drank it" in text


def test_recording_draws_the_end_of_a_run_that_went_well(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    recorded = record(run_well, Recording(Plan(seed=7), "", 100, page=page, ascii_only=True))
    assert recorded.summary.check == ""
    assert "write x" in recorded.diagram
    assert recorded.diagram.isascii()
    assert "write x" in page.read_text(encoding="utf-8")


def test_recording_bears_a_run_that_leaves_no_trace(tmp_path: Path) -> None:
    recorded = record(run_raising, Recording(Plan(seed=4), "", 100, tmp_path / "run.jsonl"))
    assert (recorded.summary.check, recorded.diagram) == ("raised", "")
    assert not (tmp_path / "run.jsonl").exists()


def test_recording_says_which_file_it_could_not_write(tmp_path: Path) -> None:
    recorded = record(run_well, Recording(Plan(seed=7), "", 100, tmp_path))
    assert recorded.unwritten == (f"cannot write {tmp_path}: Is a directory",)
    assert recorded.diagram


def test_a_full_disk_is_told_with_the_file_and_the_other_file_is_written(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    recorded = record(run_well, Recording(Plan(seed=7), "", 100, Path("/dev/full"), page))
    assert recorded.unwritten == ("cannot write /dev/full: No space left on device",)
    assert page.exists()


def test_a_violation_that_was_found_in_the_end_is_drawn_below_the_event_that_showed_it() -> None:
    recorded = record(run_found_in_the_end, Recording(Plan(seed=7), "", 100, ascii_only=True))
    *_, event, verdict, more, last = recorded.diagram.splitlines()
    assert event.endswith("invoke: write x")
    assert verdict.endswith("VIOLATION: linearizability: invalid as a lock:")
    assert more.endswith("client-0/1 acquire from 1.0 on: nobody knows the")
    assert last.endswith("|           outcome")
    assert verdict.index("!") == event.index("o")


def test_what_was_seen_is_wrapped_and_not_cut() -> None:
    text = "invalid as a lock:\n" + "word " * 50 + "END"
    assert render_seen(text).splitlines()[0] == "  seen     invalid as a lock:"
    assert render_seen(text).endswith("END")
    told = render_violation(Summary(Plan(seed=3), "linearizability", text), "repeat")
    assert "END\n  repeat   repeat" in told
    assert max(map(len, told.splitlines())) <= 111
    assert render_seen("line\n" * 50).endswith("... and 30 lines more")
    assert render_seen("Traceback (most recent call last):\n  File ...\nKeyError: 3\n") == "  seen     KeyError: 3"
