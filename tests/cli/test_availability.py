"""`quorate availability`: what it prints, draws and refuses."""

from __future__ import annotations

import math
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quorate.cli.main import main

SVG = "{http://www.w3.org/2000/svg}"


def availability(*arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["availability", *map(str, arguments)], input=stdin)


def chances(result: Result) -> dict[str, list[float]]:
    """Decision -> its probabilities: textbook, then one node and any over direct links, then the two relayed."""
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("decision"))
    rows = {}
    for line in lines[begin + 1 : lines.index("", begin)]:
        name, _, numbers = line.partition(" of ")
        rows[name.rsplit(maxsplit=1)[0].strip()] = [float(number) for number in numbers.split()[1:]]
    return rows


def refused(result: Result) -> str:
    """The error's text, of a command that was refused with one error and no more."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("Error: ") == 1
    return result.stderr.partition("Error: ")[2].strip()


# --- the table ------------------------------------------------------------------------------------


def test_the_table_of_three_nodes() -> None:
    """Textbooks print 0.9 ** 3 + 3 * 0.9 ** 2 * 0.1 = 0.972.  Node 0 has 0.9 * (1 - (1 - 0.9 * 0.8) ** 2) = 0.82944."""
    result = availability("--nodes", "3", "--node-failure", "0.1", "--link-failure", "0.2")
    assert result.exit_code == 0
    assert (
        result.output
        == """\
3 nodes, each linked to each; nodes fail with probability 0.1, links fail with probability 0.2.
The probability that a decision is reached:

decision                    needs   textbook  node 0, direct  any, direct  node 0, relayed  any, relayed
majority                    2 of 3  0.972000        0.829440     0.917568         0.829440      0.917568
flexible 3, 1: phase 2      1 of 3  0.999000        0.900000     0.900000         0.900000      0.900000
flexible 3, 1: both phases  3 of 3  0.729000        0.466560     0.653184         0.653184      0.653184
2-phase commit              3 of 3  0.729000        0.466560     0.653184         0.653184      0.653184

The textbook counts nodes that work and takes it that they hear each other; here a vote needs links that
work, too. A majority fails with 0.028 in the textbook and, whoever coordinates, with 0.0824 over
direct links, 0.0824 where messages are relayed around failed ones.
A coordinator that nobody replaces must itself work: node 0 fails with 0.1, and so a majority
around it fails with 0.171.
Phase 2 alone counts on a leader elected before, node 0; where that one cannot decide, "any" needs an election
among what still works: both phases.
"""
    )


def test_perfect_links_are_the_textbook_and_it_says_so() -> None:
    result = availability("--nodes", "5", "--link-failure", "0")
    assert "Links never fail here" in result.output
    textbook, _, any_direct, _, any_relayed = chances(result)["majority"]
    assert textbook == any_direct == any_relayed == pytest.approx(0.9999901494)


def test_a_ring_reaches_all_only_by_relaying() -> None:
    result = availability("--links", "0-1,1-2,2-3,3-0", "--node-failure", "0", "--link-failure", "0.1")
    assert result.output.startswith("4 nodes, 4 links;")
    relayed = 0.9**4 + 4 * 0.9**3 * 0.1
    assert chances(result)["2-phase commit"] == pytest.approx([1, 0, 0, relayed, relayed])


def test_one_node_and_one_link_have_probabilities_of_their_own() -> None:
    arguments = ("--nodes", "2", "--node-failure", "0.5", "--node-failure", "1=0", "--link-failure", "1-0=0.25")
    result = availability(*arguments)
    assert "(1 with 0)" in result.output
    assert "(0-1 with 0.25)" in result.output
    assert chances(result)["2-phase commit"] == pytest.approx([0.5, *[0.375] * 4])


def test_many_probabilities_are_counted_and_not_listed() -> None:
    own = [word for node in range(5) for word in ("--node-failure", f"{node}=0.{node}")]
    assert "nodes fail with probability 0.01 (5 with others)" in availability(*own).output


def test_another_coordinator() -> None:
    arguments = ("--nodes", "3", "--node-failure", "2=0.4", "--link-failure", "0")
    assert chances(availability(*arguments, "--coordinator", "2"))["majority"][1] == pytest.approx(0.6 * (1 - 1e-4))
    assert chances(availability(*arguments, "--coordinator", "0"))["majority"][1] > 0.98


def test_several_flexible_quorums() -> None:
    rows = chances(availability("--nodes", "6", "--flexible", "4,3", "--flexible", "6,1"))
    for sizes in ("4, 3", "6, 1"):
        assert rows[f"flexible {sizes}: phase 2"] > rows[f"flexible {sizes}: both phases"]
    assert rows["flexible 4, 3: both phases"] == rows["majority"]
    assert rows["flexible 6, 1: both phases"] == rows["2-phase commit"]


def test_where_an_election_asks_for_less_than_a_decision_it_costs_nothing() -> None:
    rows = chances(availability("--nodes", "5", "--flexible", "2,4"))
    assert rows["flexible 2, 4: phase 2"] == rows["flexible 2, 4: both phases"]


def test_a_failure_too_small_for_decimals_is_shown_all_the_same() -> None:
    result = availability("--nodes", "3", "--node-failure", "1e-9", "--link-failure", "0")
    assert "1 - 3e-18" in result.output


GRAPH = """\
# two good machines, one bad one at the end of a line
nodes 3
node 2 0.5

link 0-1
link 2-1 0.25   # to the bad one
"""


@pytest.mark.parametrize("place", ["file", "standard input"])
def test_a_graph_in_a_file(place: str, tmp_path: Path) -> None:
    file = tmp_path / "line.txt"
    file.write_text(GRAPH)
    options = ("--node-failure", "0", "--link-failure", "0", "--coordinator", "1")
    result = availability("--graph", "-" if place == "standard input" else file, *options, stdin=GRAPH)
    assert result.output.startswith("3 nodes, 2 links; nodes fail with probability 0 (2 with 0.5), ")
    assert chances(result)["2-phase commit"] == pytest.approx([0.5, *[0.375] * 4])


def test_what_the_command_says_of_a_node_holds_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "line.txt"
    file.write_text(GRAPH)
    result = availability("--graph", file, "--node-failure", "2=0", "--link-failure", "1-2=1")
    assert "(2 with 0)" in result.output
    assert "(1-2 with 1)" in result.output


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--nodes 13", "13 nodes are too many"),
        ("--nodes 0", "at least one node"),
        ("--links 0-999999", "1000000 nodes are too many"),
        ("--nodes 5 --flexible 3,2", "Q1 = 3 and Q2 = 2 are not safe with 5 nodes: 3 + 2 is not more than 5, so a new"),
        ("--nodes 5 --flexible 6,1", "Q1 = 6 is impossible: a quorum of 5 nodes has 1 to 5"),
        ("--flexible 4", "two sizes like 4,2 and not '4'"),
        ("--flexible 4,-2", "two sizes like 4,2 and not '4,-2'"),
        ("--node-failure 1.5", "every node fails with probability 1.5, which is not between 0 and 1"),
        ("--node-failure nan", "every node fails with probability nan"),
        ("--node-failure=-0.1", "every node fails with probability -0.1"),
        ("--node-failure often", "a number and not 'often'"),
        ("--node-failure 7=0.1", "a probability is given for node 7, but the nodes are 0 to 4"),
        ("--node-failure x=0.1", "a node is a number from 0 and not 'x'"),
        ("--link-failure 0-1=2", "link 0-1 fails with probability 2"),
        ("--link-failure 0=0.1", "a link is two nodes like 0-1 and not '0'"),
        ("--links 0-1,1-2 --link-failure 0-2=0.1", "link 0-2, which does not exist"),
        ("--nodes 3 --links 0-1,1-3", "link 1-3 names node 3, but the nodes are 0 to 2"),
        ("--links 0-1,1-0", "link 0-1 twice"),
        ("--links 0-0", "link 0-0 leads from a node to itself"),
        ("--links 0-1,,1-2", "a link is two nodes like 0-1 and not ''"),
        ("--coordinator 5", "node 5 cannot coordinate: the nodes are 0 to 4"),
        ("--plot a.pdf", "a plot is written as .svg, .png, .html, not as '.pdf'"),
        ("--graph nowhere.txt", "cannot read nowhere.txt: No such file"),
        ("--graph - --nodes 3", "leave out --nodes and --links"),
    ],
)
def test_a_wrong_question_is_one_clear_error(arguments: str, said: str) -> None:
    assert said in refused(availability(*arguments.split()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'it needs a line "nodes N"'),
        ("nodes 3\nnodes 4", "standard input, line 2 says a second time"),
        ("nodes three", "line 1: a node is a number from 0 and not 'three'"),
        ("nodes 3\nnode 1", 'line 2: expected "nodes N", "node I P" or "link A-B [P]", not \'node 1\''),
        ("nodes 3\nnode 1 2", "line 2: node 1 fails with probability 2, which is not between 0 and 1"),
        ("nodes 3\nnode 3 0.1", "node 3, but the nodes are 0 to 2"),
        ("nodes 3\nlink 0-3", "link 0-3 names node 3, but the nodes are 0 to 2"),
        ("nodes 3\nlink 0-1 0.1\nlink 1-0", "line 3 names link 0-1 twice"),
        ("nodes 3\nedge 0-1", "line 2: expected"),
        ("nodes 99", "99 nodes are too many"),
        ("nodes 3\n" + "#" * 1_000_001, "too large"),
    ],
)
def test_a_wrong_file_is_one_clear_error(text: str, said: str) -> None:
    assert said in refused(availability("--graph", "-", stdin=text))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "graph.png"
    file.write_bytes(b"\x89PNG\xff")
    assert "is not a text in UTF-8" in refused(availability("--graph", file))


# --- the plot ---------------------------------------------------------------------------------------


def test_a_plot_as_svg_is_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        result = availability("--nodes", "3", "--plot", tmp_path / name)
        assert result.exit_code == 0
        assert result.output.endswith(f"The plot is in {tmp_path / name}.\n")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    lines = list(ElementTree.parse(tmp_path / "a.svg").iter(f"{SVG}path"))
    assert len(lines) > 2 * 4 * 3  # panels, decisions, models


def test_a_plot_as_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert availability("--nodes", "3", "--plot", tmp_path / "a.PNG").exit_code == 0
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_plot_as_a_page_holds_the_table_and_loads_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = availability("--nodes", "3", "--plot", tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert next(line for line in result.output.splitlines() if line.startswith("majority")) in page
    assert "<script" not in page
    assert "src=" not in page
    assert "<link" not in page


@pytest.mark.parametrize("never", ["fails", "decides"])
def test_a_plot_of_what_never_changes(never: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    failure = "0" if never == "fails" else "1"
    arguments = (
        "--nodes",
        "2",
        "--link-failure",
        "0",
        "--node-failure",
        f"0={failure}",
        "--node-failure",
        f"1={failure}",
    )
    assert availability(*arguments, "--plot", tmp_path / "a.svg").exit_code == 0


def test_curves_meet_the_table(tmp_path: Path) -> None:
    """What is drawn at a failure is what the table says of it."""
    from quorate.cli.availability import choose_decisions, compute, sweep
    from quorate.cli.availability_graph import Description

    description = Description(4, None, own_node_failure={3: 0.3})
    decisions = choose_decisions(4, 0, [])
    curves = sweep(description, decisions, compute(description.graph(), decisions, 0))
    curve = next(c for c in curves if (c.decision, c.coordinator, c.model) == ("majority", "any", "direct"))
    point = len(curve.undecided) // 2
    arguments = ("--nodes", "4", "--node-failure", str(curve.node_failures[point]), "--node-failure", "3=0.3")
    assert chances(availability(*arguments))["majority"][2] == pytest.approx(1 - curve.undecided[point], abs=1e-6)
    assert all(math.isfinite(value) for c in curves for value in c.undecided)


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as Python marks what cannot be imported
    result = availability("--plot", tmp_path / "a.svg")
    assert result.exit_code == 1
    assert result.output == "Error: plots need matplotlib, which is not installed: pip install quorate[plots]\n"
    assert availability("--nodes", "3").exit_code == 0


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = availability("--nodes", "3", "--plot", tmp_path / "nowhere" / "a.svg")
    assert result.exit_code == 1
    assert result.output.endswith("a.svg: No such file or directory\n")


def test_simulated_clusters_do_what_the_model_says() -> None:
    arguments = ("--nodes", "3", "--node-failure", "0.3", "--link-failure", "0.3")
    result = availability(*arguments, "--simulate", "4", "--protocol", "zab")
    assert result.exit_code == 0
    assert "whole nodes on zab, in 4 states" in result.output
    assert "In every one of the states the cluster did what the model says." in result.output


def test_a_graph_too_large_for_a_cluster_is_not_simulated() -> None:
    result = availability("--nodes", "10", "--simulate", "1")
    assert result.exit_code == 2
    assert "a cluster has 9 nodes at most: --simulate cannot have 10" in result.output
