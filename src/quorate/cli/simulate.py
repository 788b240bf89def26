"""`quorate simulate`: the same nodes on a simulated network, disk and clock, from seeds."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TextIO

import click
import msgspec
from click.core import ParameterSource

from quorate.cli.errors import EXIT_FAILURE
from quorate.cli.progress import REWRITE_S, ProgressLine
from quorate.cli.tables import render_table
from quorate.node.config import MAX_MEMBERS
from quorate.node.protocols import PROTOCOL_NAMES
from quorate.simulation import report
from quorate.simulation.campaign import (
    COVERAGE_NODES,
    COVERAGE_RUNS,
    COVERAGE_S,
    DETERMINISM,
    EVERY_FAULT_RUNS,
    Runner,
    Summary,
    Totals,
    campaign,
    time_limit_s,
)
from quorate.simulation.plan import (
    MOST_CLIENTS,
    MOST_DURATION_S,
    MOST_OPERATIONS_PER_S,
    Injection,
    Plan,
    problem_of,
    read_plan,
    write_plan,
)
from quorate.simulation.report import Recorded, Recording
from quorate.simulation.shrink import Progress, shrink
from quorate.simulation.workers import HANG, Lost, Workers

EXIT_UNWRITTEN = 2
"""Of a wrong option, too: that of the file."""
EXIT_INTERRUPTED = 130
NARROWEST, USUAL_WIDTH, WIDEST = 80, 120, 200
"""Letters that a line of a diagram has at least, where there is no terminal, and at most."""
PLAN_SUFFIX = ".plan.json"
COUNTS = ("times", "in runs")

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
  0    no check was violated, and a campaign that had to exercise everything did
  1    a violation, or something was not exercised
  2    wrong options, a file that is no plan, or a file that could not be written
  130  ended by Ctrl-C

\b
A campaign must exercise everything (elections, snapshots, torn writes ...) if it has all faults, 3 nodes or
more, and 20 runs or more with 1200 simulated seconds in all; from 100 such runs on, every fault must act.

docs/simulation.md says what is simulated and how to read a failure.
"""


@dataclass(frozen=True, slots=True)
class Laboratory:
    """What the command needs of the simulator."""

    run: Runner
    draw_plan: Callable[[int, Plan], Plan]
    """The plan of a seed, with the settings of another plan."""
    faults: Mapping[str, str]
    """Name -> what it does, in a line."""
    problem_of_injection: Callable[[Injection], str]
    """Why there can be no such fault; "" where there can."""
    services: tuple[str, ...]
    required_coverage: Callable[[Plan, int], tuple[str, ...]]
    """Of campaigns of so many plans like this one."""


def load_laboratory() -> Laboratory:
    """Imported only here: `quorate --help` asks each command for its first line, and must not wait for whole nodes."""
    from quorate.simulation.faults import FAULTS
    from quorate.simulation.faults.limits import problem_of_injection
    from quorate.simulation.run import Options, draw_plan, required_coverage, run
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
        plan = draw_plan(seed, options)
        # A very short run is over before some of its faults.  They have no length then, which no plan may say.
        begun = tuple(injection for injection in plan.injections if injection.at_s < plan.duration_s)
        return msgspec.structs.replace(plan, injections=begun)

    about = {name: fault.about for name, fault in FAULTS.items()}
    return Laboratory(run, draw, about, problem_of_injection, tuple(SERVICES), required_coverage)


class FiniteRange(click.FloatRange):
    """NaN is in every range, as it is neither below nor above it."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number that one can count to.", param, ctx)
        return number


@click.command(epilog=EPILOG)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="The first seed.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="How many seeds.")
@click.option(
    "--protocol",
    metavar="NAME",
    help=f"Consensus protocol: {', '.join(PROTOCOL_NAMES)}, paxos:4+2 for quorums of 4 nodes in phase 1 and 2 in "
    "phase 2, or one for each group, as in cluster=raft,zookeeper=zab.  "
    "[default: zab for zookeeper, else raft; raft for the cluster's own group]",
)
@click.option("--service", default="zookeeper", show_default=True, metavar="NAME", help="What the nodes serve.")
@click.option(
    "--nodes", type=click.IntRange(1, MAX_MEMBERS), default=3, show_default=True, metavar="N", help="How many nodes."
)
@click.option(
    "--clients",
    type=click.IntRange(1, MOST_CLIENTS),
    default=10,
    show_default=True,
    metavar="N",
    help="Clients at a time.",
)
@click.option(
    "--rate",
    type=FiniteRange(0, MOST_OPERATIONS_PER_S, min_open=True),
    default=100.0,
    show_default=True,
    metavar="N",
    help="Operations per simulated second, of all clients together.",
)
@click.option(
    "--duration",
    type=FiniteRange(0, MOST_DURATION_S, min_open=True),
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
    protocol: str | None,
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
    _refuse_unwritable(output, plan_file, trace, diagram)
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


def _refuse_unwritable(output: Path, plan: Path | None, trace: Path | None, diagram: Path | None) -> None:
    """A long campaign must not end with its failure lost."""
    for folder in (output, *(file.parent for file in (trace, diagram) if file is not None)):
        if not folder.is_dir():
            raise click.UsageError(f"{folder} is no folder. Make it first, or write elsewhere.")
    named = [(name, file) for name, file in (("plan", plan), ("trace", trace), ("diagram", diagram)) if file]
    for (one, file), (other, same) in combinations(named, 2):
        if file.resolve() == same.resolve():
            raise click.UsageError(f"--{one} and --{other} are the same file: {same}")
    try:
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise click.UsageError(
            f"cannot write in {output.absolute()}: {error.strerror}. Choose another --output."
        ) from error


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
    if plan.service not in laboratory.services:
        return f"service {plan.service!r} is none of: {', '.join(laboratory.services)}"
    for name in plan.faults:
        if name not in laboratory.faults:
            return f"faults: there is no fault {name!r}; known are: {', '.join(laboratory.faults)}"
    for place, injection in enumerate(plan.injections):
        if problem := laboratory.problem_of_injection(injection):
            return f"injections[{place}]: {problem}"
    return problem_of(plan)


# --- the call ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    seeds: range
    plan_of: Callable[[int], Plan]
    """By seed."""
    plan_file: Path | None
    """Where the only plan came from, if from a file."""
    jobs: int
    keep_going: bool
    twice: bool
    trace: Path | None
    diagram: Path | None
    shrink_tries: int
    """0: do not shrink."""
    output: Path
    as_json: bool


@dataclass(slots=True)
class Files:
    """Where the record of a failure goes."""

    plan: Path
    trace: Path
    page: Path

    def named(self) -> Iterator[tuple[str, Path]]:
        yield from (("plan", self.plan), ("trace", self.trace), ("diagram", self.page))


@dataclass(slots=True)
class Console:
    """One call of the command."""

    laboratory: Laboratory
    request: Request
    progress: ProgressLine = field(default_factory=lambda: ProgressLine(sys.stderr))
    totals: Totals = field(default_factory=Totals)
    started: float = field(default_factory=time.monotonic)
    failures: list[dict[str, object]] = field(default_factory=list)
    """For `--json`."""
    unwritten: list[str] = field(default_factory=list)
    """Why a file could not be written, of each."""

    def run(self) -> int:
        """The exit code."""
        interrupted = False
        try:
            self._run_all()
        except KeyboardInterrupt:
            interrupted = True
        real_s = time.monotonic() - self.started
        self.progress.clear()
        missing = self._missing() if not interrupted else []
        self._say_totals(real_s, missing, interrupted)
        if not interrupted:
            try:
                self._explain_failures()
            except KeyboardInterrupt:
                interrupted = True
                self.progress.clear()
                self._say("Interrupted.")
        for problem in self.unwritten:
            click.echo(f"Error: {problem}", err=True)
        if self.request.as_json:
            data = report.as_data(self.totals, real_s) | {
                "interrupted": interrupted,
                "missing": missing,
                "failures": self.failures,
                "unwritten": self.unwritten,
            }
            click.echo(json.dumps(data, indent=2))
        if interrupted:
            return EXIT_INTERRUPTED
        if self.totals.failures or missing:
            return EXIT_FAILURE
        return EXIT_UNWRITTEN if self.unwritten else 0

    # --- the runs ----------------------------------------------------------------------------

    def _run_all(self) -> None:
        request = self.request
        if request.trace is not None or request.diagram is not None:
            plan = request.plan_of(request.seeds[0])
            recorded = self._record(plan, self._command(plan), request.trace, request.diagram)
            self.totals.add(recorded.summary)
            return
        summaries = campaign(
            map(request.plan_of, request.seeds),
            self.laboratory.run,
            request.jobs,
            keep_going=request.keep_going,
            twice=request.twice,
            on_tick=lambda: self.progress.show(self._progress_text),
        )
        with closing(summaries):
            for summary in summaries:
                self.totals.add(summary)
                if summary.check:
                    self.progress.clear()
                    if request.keep_going:
                        click.echo(f"seed {summary.plan.seed}: {summary.check}", err=True)

    def _progress_text(self) -> str:
        totals, real_s = self.totals, max(time.monotonic() - self.started, 0.001)
        return (
            f"{totals.runs}/{len(self.request.seeds)} seeds, {totals.simulated_s:.0f} simulated s, "
            f"{totals.simulated_s / real_s:.1f} per s, {totals.coverage['operations'] / real_s:.0f} operations/s, "
            f"{len(totals.failures)} violations"
        )

    def _record(self, plan: Plan, command: str, trace: Path | None, page: Path | None) -> Recorded:
        width = min(WIDEST, max(NARROWEST, shutil.get_terminal_size((USUAL_WIDTH, 24)).columns))
        recording = Recording(plan, command, width, trace, page, ascii_only=not _can_show_boxes(sys.stdout))
        with Workers(1, partial(report.record, self.laboratory.run)) as workers:
            workers.begin(0, recording, 3 * time_limit_s(plan))
            while not (ended := workers.wait(REWRITE_S)):
                self.progress.show(lambda: f"recording seed {plan.seed} ...")
        self.progress.clear()
        _, _, result = ended[0]
        if isinstance(result, Lost):
            return Recorded(Summary(plan, result.why, result.text), "")
        self.unwritten += result.unwritten
        return result

    # --- what came of them -------------------------------------------------------------------

    def _missing(self) -> list[str]:
        """What the campaign had to exercise and did not."""
        seeds, totals = self.request.seeds, self.totals
        if len(seeds) < COVERAGE_RUNS or totals.runs < len(seeds):
            return []
        first = self.request.plan_of(seeds[0])
        is_small = first.nodes < COVERAGE_NODES or len(seeds) * first.duration_s < COVERAGE_S
        if is_small or set(first.faults) != set(self.laboratory.faults):
            return []
        every_fault = [f"fault {name}" for name in totals.missing(self.laboratory.faults)]
        missing = totals.missing(self.laboratory.required_coverage(first, len(seeds)))
        return missing + (every_fault if len(seeds) >= EVERY_FAULT_RUNS else [])

    def _say_totals(self, real_s: float, missing: Sequence[str], interrupted: bool) -> None:
        totals = self.totals
        if totals.coverage:
            others = [name for name in totals.coverage if name not in totals.faults]
            for head, names in (("exercised", others), ("fault", list(totals.faults))):
                if names:
                    rows = report.coverage_rows(totals, names)
                    self._say(render_table([head, *COUNTS], rows, right=frozenset(COUNTS)) + "\n")
        if interrupted:
            self._say(f"Interrupted after {totals.runs} of {len(self.request.seeds)} runs.")
        self._say(report.render_totals(totals, real_s))
        if missing:
            self._say("\n" + report.render_missing(missing, totals.runs))
        if len(totals.failures) > 1:
            rows = report.failure_rows(failed for _, failed in sorted(totals.failures.items()))
            self._say("\n" + render_table(["seed", "check", "at s", "seen"], rows, right=frozenset({"seed", "at s"})))

    def _explain_failures(self) -> None:
        """The first failure; with --keep-going, the first of each check."""
        told = {}
        for seed, failed in sorted(self.totals.failures.items()):
            told[seed] = report.failure_as_data(failed, self._command(failed.plan, failed.check))
            self.failures.append(told[seed])
        first = self.totals.first_failures()
        for failed in first if self.request.keep_going else first[:1]:
            self._explain(failed, told[failed.plan.seed])

    def _explain(self, failed: Summary, told: dict[str, object]) -> None:
        request = self.request
        self._say("\n" + report.render_violation(failed, self._command(failed.plan, failed.check)))
        if failed.check in (HANG, DETERMINISM):
            self._say(f"A violation of {failed.check} is neither shrunk nor drawn: no run of it can be relied on.")
            return
        progress = Progress(failed, request.shrink_tries)
        is_copy = request.plan_file is not None and not request.shrink_tries
        files = _files(request.plan_file) if is_copy and request.plan_file else _files_of_seed(request, failed)
        try:
            if request.shrink_tries:
                self._shrink(progress)
        finally:
            # Also where Ctrl-C ends the shrinking: what was found so far is worth having.
            if not is_copy:
                self._say_shrunk(failed, progress)
                self._write_plan(progress.smallest.plan, files.plan)
        told |= {"tries": progress.tries, "smallest": report.describe_size(progress.smallest.plan)}
        self._draw(progress.smallest, files)
        told |= {name: str(file) for name, file in files.named() if file.exists()}
        told["repeat_smallest"] = report.command_of_file(files.plan)

    def _shrink(self, progress: Progress) -> None:
        def text() -> str:
            plan = progress.smallest.plan
            return f"shrinking: {progress.tries} of {progress.max_tries} tries; left: {report.describe_size(plan)}"

        self._say(f"Shrinking, by {progress.max_tries} runs at most ...")
        try:
            shrink(progress, self.laboratory.run, self.request.jobs, on_tick=lambda: self.progress.show(text))
        finally:
            self.progress.clear()

    def _say_shrunk(self, failed: Summary, progress: Progress) -> None:
        before, after = failed.plan, progress.smallest.plan
        if after == before:
            self._say(f"Nothing could be taken from it: {report.describe_size(before)}." if progress.tries else "")
            return
        self._say(f"Shrunk by {progress.tries} runs:")
        self._say(f"  from     {report.describe_size(before)}\n  to       {report.describe_size(after)}")
        for injection in after.injections:
            self._say(f"             {report.describe_injection(injection)}")
        if progress.smallest.text != failed.text:
            self._say(report.render_seen(progress.smallest.text))

    def _draw(self, smallest: Summary, files: Files) -> None:
        command = report.command_of_file(files.plan)
        recorded = self._record(smallest.plan, command, files.trace, files.page)
        if recorded.summary.check != smallest.check or recorded.summary.digest != smallest.digest:
            self._say(
                "WARNING: the recorded run was not the same as the run before it "
                f"({recorded.summary.check or 'no violation'}, digest {recorded.summary.digest[:16]} "
                f"instead of {smallest.digest[:16]}). The simulation is not deterministic; --twice finds out more."
            )
        if recorded.diagram:
            self._say(f"\nThe last relevant events:\n\n{recorded.diagram}\n")
        for name, file in files.named():
            if name != "plan" and not any(str(file) in problem for problem in self.unwritten):
                self._say_file(name, file)
        self._say(f"  repeat   {command}")

    def _write_plan(self, plan: Plan, file: Path) -> None:
        try:
            write_plan(plan, file)
        except OSError as error:
            self.unwritten.append(f"cannot write {file}: {error.strerror}")
        else:
            self._say_file("plan", file)

    def _say_file(self, name: str, file: Path) -> None:
        self._say(f"  {name:<8} {file}")

    def _command(self, plan: Plan, check: str = "") -> str:
        if self.request.plan_file is not None:
            command = report.command_of_file(self.request.plan_file)
        else:
            command = report.command_of(plan, tuple(self.laboratory.faults))
        return f"{command} --twice" if check == DETERMINISM else command

    def _say(self, text: str) -> None:
        if text and not self.request.as_json:
            click.echo(text)


def _files_of_seed(request: Request, failed: Summary) -> Files:
    return _files(request.output / f"quorate-failure-{failed.plan.seed}{PLAN_SUFFIX}")


def _files(plan: Path) -> Files:
    stem = plan.name.removesuffix(PLAN_SUFFIX)
    return Files(plan, plan.with_name(f"{stem}.trace.jsonl"), plan.with_name(f"{stem}.html"))


def _can_show_boxes(stream: TextIO) -> bool:
    """Whether lines and arrows can be printed there."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"
