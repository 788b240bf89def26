"""`quorate compare`: the measured answer to "which protocol should I choose?"."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from quorate.cli.errors import CommandError, Interrupted
from quorate.cli.plots import require_matplotlib
from quorate.cli.progress import ProgressLine
from quorate.node.config import MAX_MEMBERS
from quorate.node.protocols import quorum_sizes

PROFILE_NAMES = ("rack", "zones", "continents", "slow-node", "lossy")
VARIANT_NAMES = ("raft", "paxos", "zab", "flexible")
LEAST_NODES = 3
QUICK_REQUESTS, QUICK_LOADED, QUICK_CRASHES = 30, 500, 5
QUICK_ROUNDS, QUICK_KILLS = 2, 2

EPILOG = """\b
Examples:
  quorate compare                                   everything; some minutes
  quorate compare --quick                           fewer of everything
  quorate compare --profile continents --no-real    one network, simulated only
  quorate compare --protocol paxos --protocol paxos:5+3 --nodes 7
  quorate compare --output report                   also report/report.html, plots as SVG and PNG, figures.json

\b
Networks (--profile): rack, zones (three zones), continents (three continents), slow-node (one slow node in a
rack), lossy (three zones, 1 % of packets lost). flexible is Paxos that writes with one node less than a
majority and elects with as many more; paxos:4+2 elects with 4 nodes and writes with 2.

\b
Simulated figures come from whole nodes on a simulated network: the same seed gives the same figures. Real ones
come from three nodes of each protocol on this machine, loaded in turn, with data in a folder that is removed;
paxos:4+2 and its like are among them only with --nodes 3, and without them there is a partition of four
nodes into halves.

\b
Exit codes:
  0    measured
  1    a trial failed, nodes did not start, or the report cannot be written
  2    wrong options
  130  ended by Ctrl-C

docs/choosing.md says what follows from the figures.
"""


class VariantName(click.Choice[str]):
    """Also paxos:4+2 and its like."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if quorum_sizes(value) is not None:
            return value
        if value not in self.choices:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, self.choices))} or like 'paxos:4+2'.", param, ctx)
        return value


@click.command(epilog=EPILOG)
@click.option(
    "--profile",
    "profiles",
    type=click.Choice(PROFILE_NAMES),
    multiple=True,
    help="A simulated network. May be given several times.  [default: all]",
)
@click.option(
    "--protocol",
    "protocols",
    type=VariantName(VARIANT_NAMES),
    multiple=True,
    help="What to compare, these or paxos:4+2 and its like. May be given several times.  [default: all of these]",
)
@click.option(
    "--nodes",
    type=click.IntRange(LEAST_NODES, MAX_MEMBERS),
    default=5,
    show_default=True,
    metavar="N",
    help="Nodes of a simulated cluster.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="What the simulated figures follow from.")
@click.option("--quick", is_flag=True, help="Fewer requests, crashes and rounds.")
@click.option("--real/--no-real", default=True, help="Also measure real nodes on this machine.  [default: real]")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also write a report with plots to this folder.",
)
@click.option("--json", "wants_json", is_flag=True, help="Print all figures as JSON instead of tables.")
def compare(
    profiles: tuple[str, ...],
    protocols: tuple[str, ...],
    nodes: int,
    seed: int,
    quick: bool,
    real: bool,
    output: Path | None,
    wants_json: bool,
) -> None:
    """Compare Raft, Paxos and ZAB: what writes cost, how long there is no leader, who can do what when parted.

    The same work over each protocol, and over Paxos with quorums of other sizes: simulated on named networks, and
    for real on this machine.
    """
    # Imported only here: `quorate --help` asks each command for its first line, and must not wait for whole nodes.
    from quorate.cli.compare_real import NODES, RealFailed, RealSize, measure_real, real_protocols
    from quorate.cli.compare_report import REPORT, as_json, write_report
    from quorate.cli.compare_tables import introduction, sections_of
    from quorate.comparison.commits import CommitSize
    from quorate.comparison.jobs import Choice, TaskFailed
    from quorate.comparison.jobs import compare as compare_simulated
    from quorate.comparison.profiles import variant_of

    if output is not None:
        require_matplotlib()
    folder = _existing(output)
    chosen = protocols or VARIANT_NAMES
    # `flexible` may have a row by its sizes already.
    named = {variant_of(name).title(nodes) for name in chosen if name in VARIANT_NAMES}
    own_sizes = tuple(name for name in dict.fromkeys(chosen) if name not in (*VARIANT_NAMES, *named))
    for name in own_sizes:
        if (problem := variant_of(name).problem(nodes)) is not None:
            raise click.BadParameter(f"{name} on {nodes} nodes: {problem}", param_hint="'--protocol'")
    choice = Choice(
        profiles=tuple(name for name in PROFILE_NAMES if name in (profiles or PROFILE_NAMES)),
        variants=(*(name for name in VARIANT_NAMES if name in chosen), *own_sizes),
        nodes=nodes,
        seed=seed,
        commits=CommitSize(QUICK_REQUESTS, QUICK_LOADED) if quick else CommitSize(),
        **({"crashes": QUICK_CRASHES} if quick else {}),
    )
    line = ProgressLine(sys.stderr)
    try:
        found = compare_simulated(choice, lambda done, tasks: line.show(lambda: f"simulated: {done} of {tasks} trials"))
        measured = []
        titles = real_protocols(choice)
        if real and titles:
            size = RealSize(QUICK_ROUNDS, QUICK_KILLS) if quick else RealSize()
            measured = measure_real(titles, size, folder, lambda text: line.show(lambda: text))
    except (TaskFailed, RealFailed) as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        line.clear()
        raise Interrupted("ended by Ctrl-C; no process is left behind.") from None
    line.clear()
    if real and len(titles) < len(choice.variants):
        click.echo(f"{', '.join(own_sizes)}: not measured with real nodes, of which there are {NODES}.", err=True)
    if wants_json:
        click.echo(as_json(choice, found, measured).decode(), nl=False)
    else:
        sections = (section.render() for section in sections_of(choice, found, measured))
        click.echo("\n\n\n".join([introduction(choice), *sections]))
    if output is not None:
        write_report(output, choice, found, measured)
        click.echo(f"\nThe report is in {output / REPORT}.", err=wants_json)


def _existing(output: Path | None) -> Path:
    """Where the report goes, and real nodes keep their data meanwhile: on a disk that the user works on."""
    if output is None:
        return Path.cwd()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot use {output}: {error.strerror}") from error
    return output
