"""`quorate availability`: how probably is a decision reached, when nodes and links fail?"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from quorate.availability import (
    AvailabilityError,
    Direct,
    Graph,
    Needs,
    Relayed,
    check_flexible,
    majority,
    needs_of_any,
    needs_of_leader_or_next,
    needs_of_one,
    textbook_undecided,
    undecided,
)
from quorate.cli.availability_graph import Description, describe_graph
from quorate.cli.availability_plot import Curve, check_plot, write_plot
from quorate.cli.availability_simulated import compare_with_simulation
from quorate.cli.errors import CommandError
from quorate.cli.progress import ProgressLine
from quorate.cli.tables import render_table
from quorate.node.config import MAX_MEMBERS
from quorate.node.protocols import PROTOCOL_NAMES

EPILOG = """\b
Examples:
  quorate availability                                five nodes, each linked to each
  quorate availability --nodes 3 --node-failure 0.05 --link-failure 0
  quorate availability --nodes 7 --flexible 6,2 --flexible 5,3
  quorate availability --node-failure 4=0.2           the last of five nodes is a worse machine
  quorate availability --links 0-1,1-2,2-3,3-0        a ring of four
  quorate availability --graph zones.txt --plot zones.svg
  quorate availability --node-failure 0.2 --link-failure 0.3 --simulate 100 --protocol zab

\b
What counts as reaching a decision: some coordinator works and hears enough nodes, itself included.
  majority         more than half of the nodes
  flexible Q1, Q2  phase 1 elects with Q1, phase 2 decides with Q2, and Q1 + Q2 > nodes
                   phase 2: a leader was elected before anything failed
                   both phases: election and decision among what works now, so the larger of Q1 and Q2
  2-phase commit   all nodes
The columns:
  textbook         enough nodes work; links and coordinators do not come into it
  node 0, direct   node 0 coordinates and hears others over its own links
  any, direct      some working node, the best placed, hears enough over its own links; in the row "phase 2"
                   node 0 leads, and another node needs both phases
  ..., relayed     a node is heard over any path of working links between working nodes

\b
A graph in a file, one thing a line; without link lines each node is linked to each:
  nodes 4
  node 3 0.2       node 3 fails with 0.2, the others as --node-failure says
  link 0-1
  link 1-2 0.05    this link fails with 0.05, the others as --link-failure says
  link 2-3         # a comment

\b
Exit codes:
  0    printed
  1    the plot cannot be drawn or written
  2    the options or the file are wrong, or ask for a quorum that is impossible or unsafe

docs/availability.md says how it is computed and what the model leaves out.
"""


@click.command(epilog=EPILOG)
@click.option("--nodes", type=int, help="How many nodes, up to 12.  [default: 5, or as many as --links names]")
@click.option(
    "--node-failure",
    "node_failures",
    metavar="P|NODE=P",
    multiple=True,
    help="Probability that a node has failed: of all, or of one node. May be given several times.  [default: 0.01]",
)
@click.option(
    "--link-failure",
    "link_failures",
    metavar="P|A-B=P",
    multiple=True,
    help="Probability that a link has failed: of all, or of one link. May be given several times.  [default: 0.01]",
)
@click.option("--links", metavar="A-B,...", help="The links that exist, instead of one between any two nodes.")
@click.option(
    "--graph",
    "graph_file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Read nodes and links from a file; - is standard input.",
)
@click.option(
    "--flexible",
    "flexible_sizes",
    metavar="Q1,Q2",
    multiple=True,
    help="Flexible quorums to compare. May be given several times.  "
    "[default: Q2 one below a majority, Q1 the least that is safe]",
)
@click.option("--coordinator", type=int, default=0, show_default=True, help="The node of the columns that name one.")
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also draw it over a range of node failures: a .svg, .png or .html file.",
)
@click.option(
    "--simulate",
    "states",
    metavar="STATES",
    type=click.IntRange(min=1),
    help="Also draw so many states of the nodes and links, let a simulated cluster live through each, and compare.",
)
@click.option(
    "--protocol", type=click.Choice(PROTOCOL_NAMES), default=PROTOCOL_NAMES[0], show_default=True, help="Of --simulate."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of --simulate.")
def availability(
    nodes: int | None,
    node_failures: Sequence[str],
    link_failures: Sequence[str],
    links: str | None,
    graph_file: Path | None,
    flexible_sizes: Sequence[str],
    coordinator: int,
    plot_file: Path | None,
    states: int | None,
    protocol: str,
    seed: int,
) -> None:
    """Compute the exact probability that a decision is reached, for several kinds of quorums.

    Nodes and links fail independently, with the probabilities given; the sum goes over every state that they can be
    in. Beside it stands what the textbooks' formulas say, and why the two differ.
    """
    try:
        description = describe_graph(nodes, links, graph_file, node_failures, link_failures)
        graph = description.graph()
        if not 0 <= coordinator < graph.size:
            raise AvailabilityError(f"node {coordinator} cannot coordinate: the nodes are 0 to {graph.size - 1}")
        decisions = choose_decisions(graph.size, coordinator, flexible_sizes)
    except AvailabilityError as error:
        raise click.UsageError(str(error)) from error
    if states is not None and graph.size > MAX_MEMBERS:
        raise click.UsageError(f"a cluster has {MAX_MEMBERS} nodes at most: --simulate cannot have {graph.size}")
    if plot_file is not None:
        check_plot(plot_file)
    columns = compute(graph, decisions, coordinator)
    text = render(description, graph, decisions, columns, coordinator)
    click.echo(text)
    if plot_file is not None:
        try:
            write_plot(plot_file, sweep(description, decisions, columns), description.title(), text)
        except OSError as error:
            raise CommandError(f"cannot write {plot_file}: {error.strerror}") from error
        click.echo(f"\nThe plot is in {plot_file}.")
    if states is not None:
        any_direct = undecided(graph.node_failure, columns[1].stuck[0])
        click.echo(f"\n{compare_with_simulation(graph, protocol, states, seed, any_direct)}")


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of the table."""

    name: str
    quorum: int
    of_one: Needs
    of_any: Needs


@dataclass(frozen=True, slots=True)
class Column:
    """One model: for each decision the probability that it is not reached, by set of working nodes."""

    coordinator: str
    reach: str
    stuck: tuple[list[float], ...]


def choose_decisions(nodes: int, coordinator: int, flexible_sizes: Sequence[str]) -> list[Decision]:
    """Raises AvailabilityError for quorums that are impossible or unsafe."""

    def plain(name: str, quorum: int) -> Decision:
        return Decision(name, quorum, needs_of_one(nodes, coordinator, quorum), needs_of_any(nodes, quorum))

    decisions = [plain("majority", majority(nodes))]
    # One below a majority: for even n that costs phase 1 nothing.
    below = max(1, majority(nodes) - 1)
    for election, decision in [_sizes(text) for text in flexible_sizes] or [(nodes + 1 - below, below)]:
        check_flexible(nodes, election, decision)
        name = f"flexible {election}, {decision}"
        leader_or_next = needs_of_leader_or_next(nodes, coordinator, election, decision)
        of_leader = needs_of_one(nodes, coordinator, decision)
        decisions.append(Decision(f"{name}: phase 2", decision, of_leader, leader_or_next))
        decisions.append(plain(f"{name}: both phases", max(election, decision)))
    decisions.append(plain("2-phase commit", nodes))
    return decisions


def _sizes(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and len(part) < 10 for part in parts):
        raise AvailabilityError(f"--flexible wants two sizes like 4,2 and not {text!r}")
    return int(parts[0]), int(parts[1])


def compute(graph: Graph, decisions: Sequence[Decision], coordinator: int) -> list[Column]:
    """What does not depend on the probabilities of the nodes, so that a plot can vary them."""
    asked = dict.fromkeys(needs for decision in decisions for needs in (decision.of_one, decision.of_any))
    line = ProgressLine(sys.stderr)
    direct, relayed = Direct(graph), Relayed(graph)
    stuck: dict[str, dict[Needs, list[float]]] = {"direct": {}, "relayed": {}}
    for number, needs in enumerate(asked, 1):

        def show(done: int, number: int = number) -> None:
            line.show(
                lambda: f"sum {number} of {len(asked)} over direct links: {done:,} of {1 << graph.size:,} sets of nodes"
            )

        stuck["direct"][needs] = direct.stuck(needs, show)
        stuck["relayed"][needs] = relayed.stuck(needs)
    line.clear()
    columns = []
    for reach, known in stuck.items():
        columns.append(Column(f"node {coordinator}", reach, tuple(known[decision.of_one] for decision in decisions)))
        columns.append(Column("any", reach, tuple(known[decision.of_any] for decision in decisions)))
    return columns


POINTS = 25
LOWEST_SWEPT, HIGHEST_SWEPT = 0.001, 0.5


def sweep(description: Description, decisions: Sequence[Decision], columns: Sequence[Column]) -> list[Curve]:
    """Over failures of nodes, evenly spaced by their logarithm; nodes with a probability of their own keep it."""
    step = (HIGHEST_SWEPT / LOWEST_SWEPT) ** (1 / (POINTS - 1))
    swept = tuple(LOWEST_SWEPT * step**number for number in range(POINTS))
    states = [description.node_failure_with(failure) for failure in swept]
    curves = []
    for row, decision in enumerate(decisions):
        textbook = tuple(textbook_undecided(state, decision.quorum) for state in states)
        curves.append(Curve(decision.name, "", "textbook", swept, textbook))
        for column in columns:
            values = tuple(undecided(state, column.stuck[row]) for state in states)
            curves.append(Curve(decision.name, column.coordinator, column.reach, swept, values))
    return curves


# --- what is printed ---------------------------------------------------------------------------


def render(
    description: Description, graph: Graph, decisions: Sequence[Decision], columns: Sequence[Column], coordinator: int
) -> str:
    failures = [
        [
            textbook_undecided(graph.node_failure, decision.quorum),
            *(undecided(graph.node_failure, column.stuck[row]) for column in columns),
        ]
        for row, decision in enumerate(decisions)
    ]
    heads = ["decision", "needs", "textbook", *(f"{column.coordinator}, {column.reach}" for column in columns)]
    rows = [
        [decision.name, f"{decision.quorum} of {graph.size}", *map(show_chance, row)]
        for decision, row in zip(decisions, failures, strict=True)
    ]
    table = render_table(heads, rows, right=frozenset(heads[2:]))
    reasons = "\n".join(_reasons(graph, failures[0], coordinator))
    return f"{description.summary()}\nThe probability that a decision is reached:\n\n{table}\n\n{reasons}"


def show_chance(failure: float) -> str:
    """The probability of the contrary, with digits enough to see how it differs from 1."""
    if failure <= 0:
        return "1"
    if failure < 1e-12:
        return f"1 - {failure:.2g}"  # below what a float near 1 can hold
    chance = 1 - failure
    if chance < 1e-12:
        return "0"  # what is left is rounding
    if chance < 1e-4:
        return f"{chance:.3g}"
    return f"{chance:.{max(6, math.ceil(-math.log10(failure)) + 2)}f}"


def _reasons(graph: Graph, majority_row: Sequence[float], coordinator: int) -> list[str]:
    """Why the columns differ, by the example of the majority."""
    textbook, one_direct, any_direct, _, any_relayed = majority_row
    if graph.links_are_perfect:
        first = 'Links never fail here, so whoever works is heard: "any" is the textbook, but for phase 2 alone.'
    else:
        first = (
            "The textbook counts nodes that work and takes it that they hear each other; here a vote needs links that\n"
            f"work, too. A majority fails with {textbook:.3g} in the textbook and, whoever coordinates, with "
            f"{any_direct:.3g} over\ndirect links, {any_relayed:.3g} where messages are relayed around failed ones."
        )
    return [
        first,
        f"A coordinator that nobody replaces must itself work: node {coordinator} fails with "
        f"{graph.node_failure[coordinator]:.3g}, and so a majority\naround it fails with {one_direct:.3g}.",
        f"Phase 2 alone counts on a leader elected before, node {coordinator}; where that one cannot decide, "
        '"any" needs an election\namong what still works: both phases.',
    ]
