"""What `quorate simulate` does and says, once its options are understood."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TextIO

import click

from quorate.cli.errors import EXIT_FAILURE, CommandError
from quorate.simulation import report
from quorate.simulation.campaign import COVERAGE_RUNS, DETERMINISM, Runner, Summary, Totals, campaign, time_limit_s
from quorate.simulation.plan import Plan, write_plan
from quorate.simulation.report import Recorded, Recording
from quorate.simulation.shrink import Progress, shrink
from quorate.simulation.workers import HANG, Lost, Workers

EXIT_INTERRUPTED = 130
LINE_S = 10.0
"""Between two lines of progress where there is no terminal."""
REWRITE_S = 0.1
"""Between two states of the line of progress on a terminal."""
NARROWEST, USUAL_WIDTH, WIDEST = 80, 120, 200
"""Letters that a line of a diagram has at least, where there is no terminal, and at most."""
PLAN_SUFFIX = ".plan.json"


@dataclass(frozen=True, slots=True)
class Laboratory:
    """What the command needs of the simulator."""

    run: Runner
    draw_plan: Callable[[int, Plan], Plan]
    """The plan of a seed, with the settings of another plan."""
    faults: Mapping[str, str]
    """Name -> what it does, in a line."""
    services: tuple[str, ...]
    required_coverage: tuple[str, ...]


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


class ProgressLine:
    """How far things are, on stderr: one line that is rewritten on a terminal, now and then a new one elsewhere."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._next = clock() + (0.0 if self._is_terminal else LINE_S)

    def show(self, text: Callable[[], str]) -> None:
        now = self._clock()
        if now < self._next:
            return
        if self._is_terminal:
            self._next = now + REWRITE_S
            width = shutil.get_terminal_size().columns
            self._stream.write(f"\r{text()[: width - 1]}\x1b[K")
        else:
            self._next = now + LINE_S
            self._stream.write(f"{text()}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Make room for other output."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


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

    def run(self) -> int:
        """The exit code.  Raises CommandError where a file cannot be written."""
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
        if self.request.as_json:
            data = report.as_data(self.totals, real_s) | {
                "interrupted": interrupted,
                "missing": missing,
                "failures": self.failures,
            }
            click.echo(json.dumps(data, indent=2))
        if interrupted:
            return EXIT_INTERRUPTED
        return EXIT_FAILURE if self.totals.failures or missing else 0

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
        if result.problem:
            raise CommandError(result.problem)
        return result

    # --- what came of them -------------------------------------------------------------------

    def _missing(self) -> list[str]:
        """What the campaign had to exercise and did not."""
        seeds, totals = self.request.seeds, self.totals
        if len(seeds) < COVERAGE_RUNS or totals.runs < len(seeds):
            return []
        if set(self.request.plan_of(seeds[0]).faults) != set(self.laboratory.faults):
            return []
        return totals.missing(self.laboratory.required_coverage)

    def _say_totals(self, real_s: float, missing: Sequence[str], interrupted: bool) -> None:
        totals = self.totals
        if totals.coverage:
            self._say(report.render_coverage(totals) + "\n")
        if interrupted:
            self._say(f"Interrupted after {totals.runs} of {len(self.request.seeds)} runs.")
        self._say(report.render_totals(totals, real_s))
        if missing:
            self._say("\n" + report.render_missing(missing, totals.runs))
        if len(totals.failures) > 1:
            self._say("\n" + report.render_failures([failed for _, failed in sorted(totals.failures.items())]))

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
                _write(progress.smallest.plan, files.plan)
                self._say_file("plan", files.plan)
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
            self._say(f"  seen     {report.first_line(progress.smallest.text)}")

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
            if name != "plan" and file.exists():
                self._say_file(name, file)
        self._say(f"  repeat   {command}")

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


def _write(plan: Plan, file: Path) -> None:
    try:
        write_plan(plan, file)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from error


def _files_of_seed(request: Request, failed: Summary) -> Files:
    return _files(request.output / f"quorate-failure-{failed.plan.seed}{PLAN_SUFFIX}")


def _files(plan: Path) -> Files:
    stem = plan.name.removesuffix(PLAN_SUFFIX)
    return Files(plan, plan.with_name(f"{stem}.trace.jsonl"), plan.with_name(f"{stem}.html"))


def _can_show_boxes(stream: TextIO) -> bool:
    """Whether lines and arrows can be printed there."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"
