"""What is told of runs: text for people, data for machines, and the record of one run as files and a diagram."""

from __future__ import annotations

import shlex
import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quorate.simulation.campaign import Runner, Summary, Totals, summary_of
from quorate.simulation.diagram_html import Report, render_html
from quorate.simulation.diagram_text import Verdict, render_text
from quorate.simulation.plan import Injection, Outcome, Plan
from quorate.simulation.shrink import clients_of
from quorate.simulation.trace import Trace, TraceEvent, relevant
from quorate.simulation.violation import Violation

TEXT_EVENTS = 60
"""Events of a diagram in the terminal."""
PAGE_EVENTS = 400
"""Events of a diagram as a page."""
MAX_TEXT = 100
"""Letters of a violation in a table, and of a line of its text elsewhere."""
MAX_LINES = 20
"""Of the text of a violation that is told a second time."""
SEEN = "  seen     "


# --- one run, recorded ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recording:
    """A run that is to be recorded: what to write, and how to draw."""

    plan: Plan
    command: str
    """What to type to see the same again."""
    width: int
    """Of the diagram as text, in letters."""
    trace: Path | None = None
    """Where to write the events as JSON lines."""
    page: Path | None = None
    """Where to write the diagram as HTML."""
    ascii_only: bool = False


@dataclass(frozen=True, slots=True)
class Recorded:
    summary: Summary
    diagram: str
    """The last relevant events as text; "" where there is no trace."""
    unwritten: tuple[str, ...] = ()
    """Why a file could not be written, of each."""


def record(run: Runner, recording: Recording) -> Recorded:
    """Do a run with a trace, draw its end, and write what is to be written."""
    started = time.perf_counter()
    try:
        outcome = run(recording.plan, record=True)
    except Violation as violation:
        outcome = Outcome(recording.plan, violation)
    summary = summary_of(outcome, time.perf_counter() - started)
    around = _event_to_explain(outcome.trace, outcome.violation) if outcome.trace is not None else None
    if outcome.trace is None or around is None:
        return Recorded(summary, "")
    events = relevant(outcome.trace, around, TEXT_EVENTS)
    # A violation that was found in the end is no event of its own.
    verdict = Verdict(around, str(outcome.violation)) if outcome.violation and around.kind != "violation" else None
    diagram = render_text(events, recording.width, verdict, ascii_only=recording.ascii_only)
    unwritten = []
    for file, write in ((recording.trace, _write_trace), (recording.page, _write_page)):
        if file is None:
            continue
        try:
            write(file, recording, summary, outcome.trace, around)
        except OSError as error:
            unwritten.append(f"cannot write {file}: {error.strerror}")
    return Recorded(summary, diagram, tuple(unwritten))


def _write_trace(file: Path, recording: Recording, summary: Summary, trace: Trace, around: TraceEvent) -> None:
    with file.open("wb") as stream:
        stream.writelines(trace.lines())


def _write_page(file: Path, recording: Recording, summary: Summary, trace: Trace, around: TraceEvent) -> None:
    head = Report(recording.plan.seed, summary.check, summary.text, recording.command)
    violation = around if summary.check else None
    page = render_html(relevant(trace, around, PAGE_EVENTS), head, violation)
    file.write_text(page, encoding="utf-8")


def _event_to_explain(trace: Trace, violation: Violation | None) -> TraceEvent | None:
    """Where the violation showed; the last event where there is none; None where nothing happened."""
    events = trace.events
    if violation is not None and violation.at_s is not None:
        # Found out in the end, from what a client had seen.
        seen = [event for event in events if event.place == violation.place and event.time_s <= violation.at_s]
        if seen:
            return seen[-1]
    return next((event for event in events if event.kind == "violation"), events[-1] if events else None)


# --- plans ---------------------------------------------------------------------------------------


def command_of(plan: Plan, all_faults: Sequence[str]) -> str:
    """The command that draws this plan from its seed and runs it."""
    usual = Plan(seed=0)
    words = ["quorate", "simulate", "--seed", str(plan.seed)]
    for option, value, default in (
        ("--protocol", plan.protocol or "", ""),
        ("--service", plan.service, usual.service),
        ("--nodes", str(plan.nodes), str(usual.nodes)),
        ("--clients", str(plan.clients), str(usual.clients)),
        ("--rate", _exact(plan.operations_per_s), _exact(usual.operations_per_s)),
        ("--duration", _exact(plan.duration_s), _exact(usual.duration_s)),
        ("--faults", ",".join(plan.faults) or "none", ",".join(all_faults)),
    ):
        if value != default:
            words += [option, value]
    return shlex.join(words)


def _exact(number: float) -> str:
    """So that it reads as the same number again."""
    return repr(number).removesuffix(".0")


def command_of_file(file: Path) -> str:
    return shlex.join(["quorate", "simulate", "--plan", str(file)])


def describe_size(plan: Plan) -> str:
    """One line: what there is to look at in a run of this plan."""
    operations = "" if plan.max_operations is None else f" with {_count(plan.max_operations, 'operation')} each"
    return (
        f"{_count(len(plan.injections), 'fault')}, {_count(len(clients_of(plan)), 'client')}{operations}, "
        f"{plan.duration_s:g} s"
    )


def describe_injection(injection: Injection) -> str:
    lasts = f" for {injection.for_s:g} s" if injection.for_s else ""
    target = f", target {injection.target}" if injection.target else ""
    amount = f", amount {injection.amount:g}" if injection.amount else ""
    return f"{injection.fault} at {injection.at_s:g} s{lasts}{target}{amount}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# --- violations ----------------------------------------------------------------------------------


def render_violation(summary: Summary, command: str) -> str:
    when = f" after {summary.violated_at_s:.3f} simulated s" if summary.violated_at_s else ""
    return (
        f"VIOLATION in seed {summary.plan.seed}{when}\n"
        f"  check    {summary.check}\n{_indented(_wrapped(summary.text))}\n  repeat   {command}"
    )


def render_seen(text: str) -> str:
    """What was seen of a smaller run: its violation, of a traceback the line that says most."""
    lines = [first_line(text)] if text.startswith("Traceback") else _wrapped(text)
    more = [f"... and {len(lines) - MAX_LINES} lines more"] if len(lines) > MAX_LINES else []
    return _indented(lines[:MAX_LINES] + more)


def _wrapped(text: str) -> list[str]:
    options = textwrap.TextWrapper(MAX_TEXT, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [part for line in text.strip().splitlines() for part in options.wrap(line) or [""]] or [""]


def _indented(lines: Sequence[str]) -> str:
    return SEEN + f"\n{' ' * len(SEEN)}".join(lines)


def failure_rows(failures: Iterable[Summary]) -> list[list[str]]:
    """Of each: seed, check, simulated time, what was seen."""
    return [
        [str(summary.plan.seed), summary.check, f"{summary.violated_at_s:.3f}", first_line(summary.text)]
        for summary in failures
    ]


def first_line(text: str) -> str:
    """The line that says most: the last of a traceback, the first of anything else."""
    lines = text.strip().splitlines() or [""]
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


# --- campaigns -----------------------------------------------------------------------------------


def coverage_rows(totals: Totals, names: Iterable[str]) -> list[list[str]]:
    """Of each: name, how often it was exercised, in how many of the runs; the most frequent first."""
    often_first = sorted(names, key=lambda name: (-totals.coverage[name], name))
    return [[name, str(totals.coverage[name]), str(totals.in_runs[name])] for name in often_first]


def render_totals(totals: Totals, real_s: float) -> str:
    speed = totals.simulated_s / real_s if real_s else 0.0
    verdict = _count(len(totals.failures), "violation") if totals.failures else "no violation"
    return (
        f"{_count(totals.runs, 'run')}, {totals.simulated_s:.0f} simulated s in {real_s:.1f} s "
        f"({speed:.1f} per s), digest {totals.digest()[:16]}: {verdict}"
    )


def render_missing(missing: Sequence[str], runs: int) -> str:
    return (
        f"NOT EXERCISED in {runs} runs: {', '.join(missing)}\n"
        "  A campaign with all faults that never meets these says nothing about them. Run more seeds, or longer ones\n"
        "  (--seeds, --duration), with more clients and operations (--clients, --rate); if that does not help, the\n"
        "  faults or the workload have to be mended. A campaign with only some of the --faults need not meet all."
    )


def as_data(totals: Totals, real_s: float) -> dict[str, object]:
    """The part of `--json` that is of the runs."""
    return {
        "runs": totals.runs,
        "simulated_s": round(totals.simulated_s, 3),
        "real_s": round(real_s, 3),
        "digest": totals.digest(),
        "digests": {str(seed): digest for seed, digest in sorted(totals.digests.items())},
        "coverage": {name: totals.coverage[name] for name in sorted({**totals.coverage, **totals.faults})},
    }


def failure_as_data(summary: Summary, command: str) -> dict[str, object]:
    return {
        "seed": summary.plan.seed,
        "check": summary.check,
        "text": summary.text,
        "violated_at_s": summary.violated_at_s,
        "repeat": command,
    }
