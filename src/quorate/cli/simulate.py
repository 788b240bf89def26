"""`quorate simulate`: the same nodes on a simulated network, disk and clock, from seeds."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from quorate.cli.tables import render_table
from quorate.node.config import MAX_MEMBERS, PROTOCOLS

if TYPE_CHECKING:
    from quorate.simulation.console import Laboratory
    from quorate.simulation.plan import Plan

ALL, NONE = "all", "none"
SHRINK_TRIES = 200

DRAWN_BY = ("seed", "seeds", "protocol", "service", "nodes", "clients", "rate", "duration", "faults")
"""What a plan from a file has already decided."""

EPILOG = """\b
Examples:
  quorate simulate                              one run, seed 0, all faults, a minute of simulated time
  quorate simulate --seeds 1000                 a campaign on all cores; stops at the first violation
  quorate simulate --seeds 300 --nodes 5 --keep-going
  quorate simulate --seed 17 --trace run.jsonl --diagram run.html
  quorate simulate --faults crash,power-loss --duration 20
  quorate simulate --seeds 20 --twice           is every run the same when it is run again?
  quorate simulate --plan quorate-failure-17.plan.json

\b
Every run follows from its seed and these options, byte for byte. After a violation the run is made smaller
as long as the same check is violated, and what is left is written to files, drawn, and can be repeated by
one command. Ctrl-C ends a campaign and shows how far it came.

\b
Exit codes:
  0    no check was violated, and a campaign of 20 runs or more with all faults exercised everything
  1    a violation, or something was not exercised
  2    wrong options, or a file that is no plan
  130  ended by Ctrl-C

docs/simulation.md says what is simulated and how to read a failure.
"""


def load_laboratory() -> Laboratory:
    """Only here, because `quorate --help` asks every command's module for its first line."""
    from quorate.simulation.console import Laboratory
    from quorate.simulation.faults import FAULTS
    from quorate.simulation.run import REQUIRED_COVERAGE, Options, draw_plan, run
    from quorate.simulation.services import SERVICES

    def draw(seed: int, settings: Plan) -> Plan:
        options = Options(
            protocol=settings.protocol,
            service=settings.service,
            nodes=settings.nodes,
            clients=settings.clients,
            operations_per_s=settings.operations_per_s,
            duration_s=settings.duration_s,
            faults=settings.faults,
        )
        return draw_plan(seed, options)

    about = {name: fault.about for name, fault in FAULTS.items()}
    return Laboratory(run, draw, about, tuple(SERVICES), REQUIRED_COVERAGE)


@click.command(epilog=EPILOG)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="The first seed.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="How many seeds.")
@click.option(
    "--protocol", type=click.Choice(PROTOCOLS), default=PROTOCOLS[0], show_default=True, help="Consensus protocol."
)
@click.option("--service", default="zookeeper", show_default=True, metavar="NAME", help="What the nodes serve.")
@click.option(
    "--nodes", type=click.IntRange(1, MAX_MEMBERS), default=3, show_default=True, metavar="N", help="How many nodes."
)
@click.option(
    "--clients", type=click.IntRange(1, 250), default=10, show_default=True, metavar="N", help="Clients at a time."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 100_000, min_open=True),
    default=100.0,
    show_default=True,
    metavar="N",
    help="Operations per simulated second, of all clients together.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0, 1_000_000, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Simulated time with faults. Healing follows it.",
)
@click.option(
    "--faults", default=ALL, show_default=True, metavar="LIST", help="Names with commas between them, `all` or `none`."
)
@click.option("--list-faults", is_flag=True, help="Print the names of the faults and what each does.")
@click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="Processes.  [default: one for each core]")
@click.option("--keep-going", is_flag=True, help="Run all seeds, also after a violation.")
@click.option("--twice", is_flag=True, help="Run each seed twice; a difference is a violation of determinism.")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run a plan from a file.",
)
@click.option(
    "--trace", type=click.Path(path_type=Path), metavar="FILE", help="Write the events of the one run, as JSON lines."
)
@click.option(
    "--diagram", type=click.Path(path_type=Path), metavar="FILE", help="Draw the end of the one run, as HTML."
)
@click.option(
    "--shrink/--no-shrink", default=None, help="Make a failing run smaller.  [default: yes, but not with --plan]"
)
@click.option(
    "--shrink-tries",
    type=click.IntRange(1),
    default=SHRINK_TRIES,
    show_default=True,
    metavar="N",
    help="Runs that may be spent on it.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where the files of a failure go.  [default: the current folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON, and nothing else.")
@click.pass_context
def simulate(
    ctx: click.Context,
    seed: int,
    seeds: int,
    protocol: str,
    service: str,
    nodes: int,
    clients: int,
    rate: float,
    duration: float,
    faults: str,
    list_faults: bool,
    jobs: int | None,
    keep_going: bool,
    twice: bool,
    plan_file: Path | None,
    trace: Path | None,
    diagram: Path | None,
    shrink: bool | None,
    shrink_tries: int,
    output: Path,
    as_json: bool,
) -> None:
    """Run whole clusters under faults in simulated time, and check every history."""
    from quorate.simulation.console import Console, Request
    from quorate.simulation.plan import Plan

    laboratory = load_laboratory()
    if list_faults:
        click.echo(render_table(["fault", "what it does"], list(laboratory.faults.items())))
        return
    _refuse_contradictions(ctx)
    if plan_file is not None:
        settings = _read_plan(plan_file, laboratory)
    else:
        settings = Plan(
            seed=seed,
            protocol=protocol,
            service=service,
            nodes=nodes,
            clients=clients,
            operations_per_s=rate,
            duration_s=duration,
            faults=_parse_faults(faults, laboratory.faults),
        )
        if problem := _problem_of(settings, laboratory):
            raise click.UsageError(problem)
    for folder in {output, *(file.parent for file in (trace, diagram) if file is not None)}:
        if not folder.is_dir():
            raise click.UsageError(f"{folder} is no folder. Make it first, or write elsewhere.")
    request = Request(
        seeds=range(settings.seed, settings.seed + seeds),
        plan_of=lambda number: settings if plan_file is not None else laboratory.draw_plan(number, settings),
        plan_file=plan_file,
        jobs=jobs or os.cpu_count() or 1,
        keep_going=keep_going,
        twice=twice,
        trace=trace,
        diagram=diagram,
        shrink_tries=shrink_tries if (plan_file is None if shrink is None else shrink) else 0,
        output=output,
        as_json=as_json,
    )
    sys.exit(Console(laboratory, request).run())


def _refuse_contradictions(ctx: click.Context) -> None:
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if "plan_file" in given:
        for name in DRAWN_BY:
            if name in given:
                raise click.UsageError(f"--{name} and --plan contradict each other: the plan says it already.")
    for name in ("trace", "diagram"):
        if name in given and (ctx.params["seeds"] > 1 or ctx.params["twice"]):
            raise click.UsageError(f"--{name} is of a single run: leave --seeds and --twice out.")
    if "shrink_tries" in given and ctx.params["shrink"] is False:
        raise click.UsageError("--shrink-tries and --no-shrink contradict each other.")


def _parse_faults(text: str, known: Mapping[str, str]) -> tuple[str, ...]:
    """In the order of `known`, so that the order in which they were typed makes no other plan."""
    if text in (ALL, NONE):
        return tuple(known) if text == ALL else ()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise click.BadParameter(
                f"there is no fault {name!r}. Known are: {', '.join(known)}; or `all`, or `none`.",
                param_hint="--faults",
            )
    return tuple(name for name in known if name in names)


def _read_plan(file: Path, laboratory: Laboratory) -> Plan:
    from quorate.simulation.plan import read_plan

    try:
        plan = read_plan(file)
    except OSError as error:
        raise click.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="--plan") from error
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--plan") from error
    if problem := _problem_of(plan, laboratory):
        raise click.BadParameter(f"{file}: {problem}", param_hint="--plan")
    return plan


def _problem_of(plan: Plan, laboratory: Laboratory) -> str:
    """Why this plan cannot be run here; "" where it can."""
    if plan.protocol not in PROTOCOLS:
        return f"protocol {plan.protocol!r} is none of: {', '.join(PROTOCOLS)}"
    if plan.service not in laboratory.services:
        return f"service {plan.service!r} is none of: {', '.join(laboratory.services)}"
    if not 1 <= plan.nodes <= MAX_MEMBERS:
        return f"{plan.nodes} nodes; there may be 1 to {MAX_MEMBERS}"
    for injection in plan.injections:
        if injection.fault not in laboratory.faults:
            return f"there is no fault {injection.fault!r}; known are: {', '.join(laboratory.faults)}"
    return ""
