"""`quorate compare`: its options, tables and files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from quorate.cli.compare import PROFILE_NAMES, VARIANT_NAMES
from quorate.cli.compare_real import RealFigures, RealSize, measure_real, real_protocols
from quorate.cli.compare_report import FIGURES, REPORT, as_json, write_report
from quorate.cli.compare_tables import answers, introduction, sections_of
from quorate.cli.main import main
from quorate.comparison.commits import CommitSize, Times
from quorate.comparison.crashes import LIMIT_S, CrashFigures
from quorate.comparison.jobs import Choice, Figures, Found, Task, gather, partitions, perform, tasks_of
from quorate.comparison.partitions import SideFigures
from quorate.comparison.profiles import PROFILES, VARIANTS

CHOICE = Choice(("rack",), ("raft", "flexible"), 3, commits=CommitSize(3, 30), crashes=2)
REAL = [
    RealFigures("raft", "raft", 5000.0, (1.0, 1.0), Times(1.0, 2.0), (1.0, 1.0), Times(0.5, 0.6), (0.1, 0.2)),
    RealFigures("zab", "raft", 4500.0, (0.8, 1.0), Times(1.1, 2.0), (1.2, 1.0), Times(0.5, 0.6), (0.1, 0.4)),
]


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def found() -> Found:
    """A small comparison with one partition; of the rest one trial stands for all of its kind."""
    figures: list[tuple[Task, Figures]] = []
    commits = perform(Task(CHOICE, "flexible", "rack"))
    for task in tasks_of(CHOICE):
        if task.crash is not None:
            figures.append((task, CrashFigures(task.crash.value, (0.2, LIMIT_S), (0, 12), (14, 120))))
        elif task.partition is None:
            figures.append((task, commits))
        elif task.partition == 0:
            figures.append((task, perform(task)))
    return gather(figures)


def test_the_names_are_those_of_the_comparison() -> None:
    assert tuple(PROFILES) == PROFILE_NAMES
    assert tuple(VARIANTS) == VARIANT_NAMES


@pytest.mark.parametrize(
    "arguments",
    [("--profile", "moon"), ("--protocol", "viewstamped"), ("--nodes", 2), ("--nodes", 10), ("--seed", "x")],
)
def test_wrong_options(arguments: tuple[object, ...]) -> None:
    result = compare(*arguments)
    assert result.exit_code == 2
    assert "Error: Invalid value for" in result.output


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [("paxos:4+1", "must add up to more than 5"), ("paxos:6+1", "of 6 nodes is impossible with 5 voters")],
)
def test_sizes_of_quorums_that_so_many_nodes_cannot_have(sizes: str, problem: str) -> None:
    result = compare("--protocol", "raft", "--protocol", sizes, "--nodes", 5)
    assert result.exit_code == 2
    assert sizes in result.output and problem in " ".join(result.output.split())


def test_sizes_of_ones_own_are_measured_beside_the_rest() -> None:
    choice = replace(CHOICE, variants=("flexible", "paxos:3+3"), nodes=5)
    assert {task.variant for task in tasks_of(choice)} == {"flexible", "paxos:3+3"}
    assert "paxos:3+3: Paxos that elects with 3 nodes and writes with 3" in introduction(choice)


def test_with_sizes_of_ones_own_every_partition_is_of_so_many_nodes() -> None:
    choice = replace(CHOICE, nodes=5)
    beside = replace(choice, variants=("raft", "paxos:5+1"))
    assert [partition.name for partition in partitions(choice) if partition not in partitions(beside)] == ["two halves"]
    assert partitions(replace(beside, nodes=4)) == partitions(replace(choice, nodes=4))


def test_sizes_of_ones_own_are_for_real_nodes_only_if_there_are_so_many() -> None:
    choice = replace(CHOICE, variants=("raft", "flexible", "paxos:2+2"))
    assert real_protocols(choice) == ["raft", "paxos:3+1", "paxos:2+2"]
    assert real_protocols(replace(choice, nodes=5)) == ["raft", "paxos:3+1"]


def test_every_figure_is_in_a_table(found: Found) -> None:
    tables = _tables(found)
    steps, latency, losses, duels, partitions, load, kills = tables
    assert "raft" in steps and "paxos:3+1" in steps
    assert latency.splitlines()[-1].split()[:3] == ["one", "rack", "paxos:3+1"]
    assert f"> {LIMIT_S:.0f}" in losses
    assert "12" in duels
    assert "leader cut off" in partitions
    assert "4,500  0.90 (0.80-1.00)" in load
    assert kills.splitlines()[-1].split() == ["zab", "2", "0.250", "0.400"]
    assert all(len(line) <= 160 for table in tables for line in table.splitlines())


def _tables(found: Found) -> list[str]:
    return [section.render() for section in sections_of(CHOICE, found, REAL)]


def test_the_choice_between_writing_and_agreeing_is_visible(found: Found) -> None:
    """Of three nodes, flexible quorums let the leader write alone: the majority then must not."""
    table = next(table for table in _tables(found) if table.startswith("Partitions"))
    leader, majority = (line.split() for line in table.splitlines()[-2:])
    assert leader[-6:] == ["no", "no", "stale", "yes", "yes", "yes"]
    assert majority[-6:] == ["yes", "yes", "yes", "no", "no", "stale"]


def test_answers_of_a_side_in_words() -> None:
    assert answers(SideFigures("a", 2, 2, 0, 2, 0)) == ("yes", "no", "yes")
    assert answers(SideFigures("a", 2, 1, 1, 2, 2)) == ("1 of 2", "1 of 2", "stale")
    assert answers(SideFigures("a", 2, 0, 0, 2, 1)) == ("no", "no", "some stale")
    assert answers(SideFigures("a", 2, 0, 0, 0, 0)) == ("no", "no", "no")


def test_the_report_holds_everything_and_loads_nothing(found: Found, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "report"
    write_report(folder, CHOICE, found, REAL)
    page = (folder / REPORT).read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<svg") == 4
    assert page.count("<table>") == 7
    assert '<td class="stale">stale</td>' in page
    assert all(word not in page for word in ("<script", "src=", "<link"))
    for name in ("latency", "messages", "without-leader", "duels"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
        ElementTree.parse(folder / f"{name}.svg")
    assert (folder / FIGURES).read_bytes() == as_json(CHOICE, found, REAL)


def test_figures_as_json(found: Found) -> None:
    document = json.loads(as_json(CHOICE, found, []))
    assert document["choice"]["seed"] == 0
    assert set(document["simulated"]["commits"]["rack"]) == {"raft", "flexible"}
    assert document["real"] == []


def test_a_report_that_cannot_be_written_is_found_out_about_early(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    result = compare("--output", tmp_path / "file" / "report")
    assert result.exit_code == 1
    assert result.output == f"Error: cannot use {tmp_path / 'file' / 'report'}: Not a directory\n"


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as Python marks what cannot be imported
    result = compare("--output", tmp_path)
    assert result.exit_code == 1
    assert result.output == "Error: plots need matplotlib, which is not installed: pip install quorate[plots]\n"


def test_ctrl_c_leaves_no_process() -> None:
    command = [sys.executable, "-u", "-c", INTERRUPTED]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        while "simulated: 0 of" not in (line := process.stderr.readline()):
            assert line, "it ended by itself"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        output, errors = process.communicate(timeout=60)
    # There was an end of its output, so none of its processes holds that any more.
    assert (process.returncode, output) == (130, "")
    assert "Error: ended by Ctrl-C" in errors
    assert "Traceback" not in errors


INTERRUPTED = """
from quorate.cli import main, progress
progress.LINE_S = 0.0
main.main(["compare", "--profile", "continents", "--no-real"], prog_name="quorate")
"""


@pytest.mark.processes
def test_real_nodes_are_loaded_and_killed_and_gone_in_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    first, second = measure_real(("raft", "paxos"), RealSize(rounds=1, kills=1), tmp_path, said.append)
    assert (first.protocol, second.protocol, second.reference) == ("raft", "paxos", "raft")
    assert first.writes_ratios == (1.0,)
    for figures in (first, second):
        assert figures.writes_per_s > 0
        assert len(figures.without_leader_s) == 1
    assert len(said) == 2
    assert not list(tmp_path.iterdir())
