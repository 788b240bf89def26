"""Histories: what clients did and saw, as events in a file and as operations in memory.

A history is written as events: a client *invokes* an operation, and later its outcome is known to be `ok`, `fail`
(it certainly did not happen) or `info` (nobody knows).  `Pairing` turns events into operations, and every reader of
a format uses it, so that the same mistakes get the same words.  docs/checking.md describes the JSON lines format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TypeAlias

import msgspec

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

EVENT_TYPES = ("invoke", "ok", "fail", "info")
MOST_NESTED = 100
"""Levels of values within an event.  What compares and shows values is recursive."""
OBSERVERS = frozenset({"read", "get", "dequeue"})
"""Operations whose `ok` says what they found.  Without a value it would silently mean null."""


class HistoryError(Exception):
    """A history is malformed: the line (of the file, or the number of the operation) and what is wrong there."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one client.  Those that certainly did not happen are in no list of operations.

    Times are in any unit that never goes back.  One operation is before another where it returned *earlier* than the
    other was invoked, or where one process did both; equal times of two processes say nothing about the order.
    """

    process: int | str
    """One sequential client.  After an unknown outcome it does nothing more: the old operation may still run."""
    f: str
    """What it does; each model (models.py) knows its own."""
    key: str | None
    """What it does it to.  Operations on different keys are checked apart."""
    argument: JsonValue
    result: JsonValue
    """What came back; meaningless where `returned_at` is None."""
    invoked_at: int | float
    returned_at: int | float | None
    """None: the outcome is unknown.  It may take effect at any later time, or never."""
    line: int
    """Line, or number, of its invocation; for reports."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as a reader found it.  `time` is already filled in where the file has none."""

    line: int
    type: str
    process: int | str
    f: str | None
    key: str | None
    value: JsonValue
    has_value: bool
    time: int | float


Inspect: TypeAlias = Callable[[Operation], object]
"""Raises HistoryError, such as `Model.action`."""


class Pairing:
    """Puts events together to operations, in the order in which they come.

    `inspect` is called with each operation that certainly did not happen, as one whose outcome is unknown.  It raises
    HistoryError where no such operation exists: a recorder that is wrong must not hide behind `fail`.
    """

    def __init__(self, inspect: Inspect | None = None) -> None:
        self._inspect = inspect
        self._invoked: dict[int | str, Event] = {}
        self._lost: dict[int | str, int] = {}
        """Processes whose outcome was unknown -> the line that said so."""
        self._time: int | float | None = None
        self._operations: list[Operation] = []
        self._events = 0

    def add(self, event: Event) -> None:
        """Raises HistoryError where the event does not fit those before it."""
        self._events += 1
        if self._time is not None and event.time < self._time:
            raise HistoryError(event.line, f"the time goes back, from {self._time} to {event.time}")
        self._time = event.time
        if event.type == "invoke":
            self._invoke(event)
        else:
            self._complete(event)

    def _invoke(self, event: Event) -> None:
        if event.process in self._lost:
            raise HistoryError(
                event.line,
                f"process {event.process!r} goes on although the outcome of its operation is unknown since line "
                f"{self._lost[event.process]}; that operation may still run, so the client needs a new process",
            )
        running = self._invoked.get(event.process)
        if running is not None:
            raise HistoryError(
                event.line,
                f"process {event.process!r} invokes {event.f} while its {running.f} of line {running.line} "
                "is still running",
            )
        self._invoked[event.process] = event

    def _complete(self, event: Event) -> None:
        invoked = self._invoked.pop(event.process, None)
        if invoked is None:
            raise HistoryError(event.line, f"{event.type} of process {event.process!r}, which invoked nothing")
        if event.f is not None and event.f != invoked.f:
            raise HistoryError(event.line, f"{event.type} of {event.f}, but line {invoked.line} invoked {invoked.f}")
        if event.key is not None and event.key != invoked.key:
            raise HistoryError(
                event.line, f"{event.type} for key {event.key!r}, but line {invoked.line} has key {invoked.key!r}"
            )
        if event.type == "info":
            self._lost[event.process] = event.line
            self._operations.append(_operation(invoked, None))
        elif event.type == "ok":
            if invoked.f in OBSERVERS and not event.has_value:
                raise HistoryError(event.line, f'"value" is missing: what {invoked.f} found')
            self._operations.append(_operation(invoked, event))
        elif self._inspect is not None:
            self._inspect(_operation(invoked, None))

    def finish(self) -> list[Operation]:
        """The operations by time of invocation; what still runs has an unknown outcome.

        Raises HistoryError where there is none: a check of nothing must not pass.
        """
        if not self._events:
            raise HistoryError(1, "no events")
        self._operations += [_operation(invoked, None) for invoked in self._invoked.values()]
        self._invoked.clear()
        if not self._operations:
            raise HistoryError(1, "every operation failed, so there is nothing to check")
        return sorted(self._operations, key=lambda operation: operation.line)


def _operation(invoked: Event, completed: Event | None) -> Operation:
    assert invoked.f is not None
    return Operation(
        process=invoked.process,
        f=invoked.f,
        key=invoked.key,
        argument=invoked.value,
        result=None if completed is None else completed.value,
        invoked_at=invoked.time,
        returned_at=None if completed is None else completed.time,
        line=invoked.line,
    )


def read_json_lines(lines: Iterable[bytes], inspect: Inspect | None = None) -> list[Operation]:
    """The operations of a history in JSON lines; `inspect` as in `Pairing`.  Raises HistoryError."""
    pairing = Pairing(inspect)
    timed: bool | None = None
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        hint = "; write one object a line, with no array around them" if text.lstrip()[:1] == b"[" else ""
        try:
            fields: object = msgspec.json.decode(text)
        except RecursionError as error:
            raise HistoryError(number, f"nested more than {MOST_NESTED} deep") from error
        except ValueError as error:
            raise HistoryError(number, f"not JSON: {error}{hint}") from error
        if _is_nested_deep(fields):
            raise HistoryError(number, f"nested more than {MOST_NESTED} deep")
        if not isinstance(fields, dict):
            raise HistoryError(number, f"an event is a JSON object, not {describe(fields)}{hint}")
        if timed is None:
            timed = "time" in fields
        elif timed != ("time" in fields):
            raise HistoryError(number, '"time" must be in all events or in none')
        pairing.add(_event(number, fields))
    return pairing.finish()


def _is_nested_deep(value: object) -> bool:
    level = [value]
    for _ in range(MOST_NESTED + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _event(line: int, fields: dict[str, JsonValue]) -> Event:
    for name in ("type", "process"):
        if name not in fields:
            raise HistoryError(line, f'"{name}" is missing')
    kind, process, f = fields["type"], fields["process"], fields.get("f")
    if not isinstance(kind, str) or kind not in EVENT_TYPES:
        raise HistoryError(line, f'"type" is {describe(kind)}, not one of {", ".join(EVENT_TYPES)}')
    if isinstance(process, bool) or not isinstance(process, int | str):
        raise HistoryError(line, f'"process" is {describe(process)}, not a whole number or a string')
    if kind == "invoke" and "f" not in fields:
        raise HistoryError(line, '"f" is missing')
    if "f" in fields and not isinstance(f, str):
        raise HistoryError(line, f'"f" is {describe(f)}, not a string')
    assert f is None or isinstance(f, str)
    time = fields.get("time", line)
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise HistoryError(line, f'"time" is {describe(time)}, not a number')
    return Event(
        line, kind, process, f, key_text(line, fields.get("key")), fields.get("value"), "value" in fields, time
    )


def key_text(line: int, key: JsonValue) -> str | None:
    """A key as operations have it: whole numbers become their digits.  Raises HistoryError."""
    if key is None or isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise HistoryError(line, f"a key is a string or a whole number, not {describe(key)}")


def write_json_lines(operations: Iterable[Operation], file: IO[bytes]) -> None:
    """Write a history that `read_json_lines` reads back; unknown outcomes are written as such by having no outcome.

    A process's operations must come in the order in which it did them.
    """
    events: list[tuple[int | float, int, int, Operation]] = []
    for number, operation in enumerate(operations):
        events.append((operation.invoked_at, number, 0, operation))
        if operation.returned_at is not None:
            events.append((operation.returned_at, number, 1, operation))
    events.sort(key=lambda event: event[:3])
    for time, _, completed, operation in events:
        fields: dict[str, JsonValue] = {
            "type": "ok" if completed else "invoke",
            "process": operation.process,
            "f": operation.f,
        }
        if operation.key is not None:
            fields["key"] = operation.key
        fields["value"] = operation.result if completed else operation.argument
        fields["time"] = time
        file.write(msgspec.json.encode(fields) + b"\n")


def describe(value: object, limit: int = 40) -> str:
    """A value for people, as JSON, cut where it is long."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError):
        text = ascii(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
