"""`quorate check`: is a recorded history linearizable?"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import click

from quorate.checking.history import HistoryError, Operation, describe, read_json_lines
from quorate.checking.jepsen import read_jepsen
from quorate.checking.linearizability import DEFAULT_MAX_STEPS, Answer
from quorate.checking.linearizability import check as check_history
from quorate.checking.models import MODELS, Model
from quorate.cli.tables import render_table

EXIT_INVALID = 1
EXIT_UNREADABLE = 2
EXIT_UNDECIDED = 3
EXIT_INTERRUPTED = 130
EXIT_CODES_OF_VERDICTS = MappingProxyType({"valid": 0, "invalid": EXIT_INVALID, "undecided": EXIT_UNDECIDED})

MOST_LINES = 40
"""A part with more operations shows its last ones."""
MOST_COLUMNS = 60
"""Width of the time line."""

EPILOG = """\b
Examples:
  quorate check history.jsonl --model kv
  quorate check store/latest/history.edn --model register --independent
  my-recorder | quorate check - --model lock && echo sound

\b
A history in JSON lines, one event a line, in the order in which they happened:
  {"type": "invoke", "process": 0, "f": "put", "key": "x", "value": 1}
  {"type": "ok",     "process": 0, "f": "put", "key": "x", "value": 1}
  {"type": "invoke", "process": 1, "f": "get", "key": "x"}
  {"type": "ok",     "process": 1, "f": "get", "key": "x", "value": 1}
"fail" says that it certainly did not happen, "info" that nobody knows.

\b
Models:
  register  read, write, cas                one value, null at first
  kv        get, put, append, delete, cas   a value for each key
  queue     enqueue, dequeue                first in, first out; null from an empty one
  lock      acquire, release                one holder, by process

\b
Exit codes:
  0    valid: some order explains what every client saw
  1    invalid: no order does; the smallest part that cannot be ordered is shown
  2    the file cannot be read or is malformed, or the options are wrong
  3    undecided: --max-steps ran out first
  130  ended by Ctrl-C

docs/checking.md has the formats and models in full.
"""


@click.command(epilog=EPILOG)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--model",
    "model_name",
    required=True,
    type=click.Choice(tuple(MODELS)),
    help="What the operations were done to.",
)
@click.option(
    "--format",
    "file_format",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "jsonl", "edn"]),
    help="JSON lines, or Jepsen's history.edn; auto looks at the first characters.",
)
@click.option("--independent", is_flag=True, help="Values of an EDN history are [key value], as of jepsen.independent.")
@click.option(
    "--max-steps",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_STEPS,
    show_default=True,
    help="How much to try before giving up; twenty million take 5 to 26 seconds and up to a GB.",
)
def check(file: Path, model_name: str, file_format: str, independent: bool, max_steps: int) -> None:
    """Check whether a history of operations is linearizable.

    FILE holds what clients invoked and what they were answered; - reads it from standard input. The history is
    linearizable if its operations could have happened one at a time, each while it ran.
    """
    model = MODELS[model_name]
    begin = time.monotonic()
    try:
        operations = _read(file, file_format, independent, model)
        progress = _Progress(len(operations)) if sys.stderr.isatty() else None
        try:
            answer = check_history(operations, model, max_steps, progress)
        finally:
            if progress is not None:
                progress.clear()
    except HistoryError as error:
        raise _Unreadable(f"{_name(file)}: {error}") from error
    except OSError as error:
        raise _Unreadable(f"cannot read {_name(file)}: {error.strerror}") from error
    except KeyboardInterrupt:
        # Click would answer with 1, which means invalid here.
        click.echo("Interrupted: nothing is decided.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException:
        raise
    except Exception as error:
        # Python would end with 1, which means invalid here.
        raise _Unreadable(f"{_name(file)}: quorate has a bug with this history: {error!r:.200}") from error
    _print(answer, model_name, time.monotonic() - begin)
    sys.exit(EXIT_CODES_OF_VERDICTS[answer.verdict.value])


class _Unreadable(click.ClickException):
    exit_code = EXIT_UNREADABLE


class _Progress:
    """One line on a terminal that is written over and over."""

    def __init__(self, operations: int) -> None:
        self._operations = operations
        self._width = 0

    def __call__(self, done: int, steps: int) -> None:
        text = f"{done:,} of {self._operations:,} operations checked, {steps:,} steps"
        click.echo("\r" + text.ljust(self._width), nl=False, err=True)
        self._width = len(text)

    def clear(self) -> None:
        if self._width:
            click.echo("\r" + " " * self._width + "\r", nl=False, err=True)


def _name(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)


def _read(file: Path, file_format: str, independent: bool, model: Model) -> list[Operation]:
    """Raises HistoryError, OSError and, for options that do not fit the file, click.UsageError."""
    content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    content = content.removeprefix(b"\xef\xbb\xbf")
    if file_format == "auto":
        file_format = "jsonl" if _looks_like_json(content) else "edn"
    if file_format == "jsonl":
        if independent:
            raise click.UsageError('--independent is for EDN; in JSON lines the key is in the field "key"')
        return read_json_lines(content.split(b"\n"), model.action)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise HistoryError(line, f"not UTF-8: {error.reason}") from error
    return read_jepsen(text, independent, model.action)


def _looks_like_json(content: bytes) -> bool:
    """An object begins with a brace and a quote; in EDN a colon follows, or it begins with something else.

    So does an array of objects, which the reader of JSON lines refuses in better words.
    """
    begin = content.lstrip()[:100]
    if begin[:1] == b"[":
        begin = begin[1:].lstrip()
        return begin[:1] == b"{" and begin[1:].lstrip()[:1] == b'"'
    return not begin or (begin[:1] == b"{" and begin[1:].lstrip()[:1] in (b'"', b"}", b""))


def _print(answer: Answer, model_name: str, taken_s: float) -> None:
    keys = f" on {answer.keys:,} keys" if answer.keys > 1 else ""
    click.echo(
        f"{answer.verdict.value}: {answer.operations:,} operations{keys} of a {model_name}, "
        f"{answer.steps:,} steps, {taken_s:.1f} s"
    )
    where = "" if answer.key is None else f" on key {_show(answer.key)}"
    if answer.verdict.value == "undecided":
        click.echo(f"The steps ran out{where}. It may be valid or not; --max-steps tries longer.")
    elif answer.verdict.value == "invalid":
        _print_counterexample(answer, where)


def _print_counterexample(answer: Answer, where: str) -> None:
    count = len(answer.counterexample)
    what = "This operation" if count == 1 else f"These {count} operations"
    click.echo(f"\n{what}{where} cannot be put in an order, whatever else happened:\n")
    shown = answer.counterexample[-MOST_LINES:]
    if len(shown) < count:
        click.echo(f"({count - len(shown)} earlier ones are left out)")
    lines = _time_lines(shown)
    rows = [
        [str(each.line), _show(each.process), _describe(each), line] for each, line in zip(shown, lines, strict=True)
    ]
    click.echo(render_table(["line", "process", "operation", "time"], rows, right=frozenset({"line", "process"})))
    if answer.stuck or answer.order:
        click.echo("\nThe longest order that was found:\n")
        first = max(0, len(answer.order) - MOST_LINES)
        if first:
            click.echo(f"  ... {first} operations")
        for number, operation in enumerate(answer.order[first:], first + 1):
            click.echo(f"  {number}. {_describe(operation)} (line {operation.line})")
        click.echo(f"  Then {answer.state}.")
        for operation in answer.stuck[:MOST_LINES]:
            click.echo(f"  {_describe(operation)} (line {operation.line}) cannot follow.")


def _time_lines(operations: Sequence[Operation]) -> list[str]:
    """For each operation when it ran, beside the others: only the order of events counts, not the time between."""
    moments = sorted(
        {each.invoked_at for each in operations}
        | {each.returned_at for each in operations if each.returned_at is not None}
    )
    step = max(1, min(6, MOST_COLUMNS // max(1, len(moments))))
    column = {moment: number * step for number, moment in enumerate(moments)}
    end = len(moments) * step
    lines = []
    for each in operations:
        start = column[each.invoked_at]
        if each.returned_at is None:
            lines.append(" " * start + "|" + "-" * (end - start - 1) + "?")
        else:
            lines.append(" " * start + "|" + "-" * (column[each.returned_at] - start - 1) + "|")
    return lines


def _describe(operation: Operation) -> str:
    """`get -> 3`, `put 3`, `cas [1,2] -> false`, `put 4 (outcome unknown)`."""
    text = operation.f if operation.argument is None else f"{operation.f} {_show(operation.argument)}"
    if operation.returned_at is None:
        return f"{text} (outcome unknown)"
    finds = operation.f in ("read", "get", "dequeue") or isinstance(operation.result, bool)
    return f"{text} -> {_show(operation.result)}" if finds else text


def _show(value: object) -> str:
    return describe(value)
