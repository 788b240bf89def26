"""What clients record of what they do: operations of `quorate.checking.history`.

    with world.history.operation("increment") as operation:
        operation.ok(int(await counter.call(b"increment")))

An operation that certainly was not done is in no list.  Where an exception leaves the block, that is known of
`Refused`; any other leaves the outcome unknown, and the exception goes on its way.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from quorate.checking.history import JsonValue, Operation
from quorate.simulation.machine import Machine
from quorate.statemachine.errors import Refused


class Note(Protocol):
    """Notes an event in the run's trace, where it has one."""

    def __call__(self, machine: Machine, kind: str, text: str) -> None: ...


class RunHistory:
    """What all clients of one run recorded."""

    def __init__(self, coverage: Counter[str], note: Note) -> None:
        self.coverage = coverage
        self.note = note
        self.numbers = 0
        self.operations: list[Operation] = []
        """All but those that certainly were not done, in the order in which their outcomes were known."""
        self.open: dict[int, OpenOperation] = {}
        """By number: those under way, of which the outcome is unknown where they never end."""

    def all(self) -> list[Operation]:
        """By invocation."""
        unended = [operation.as_operation(None) for operation in self.open.values()]
        return sorted([*self.operations, *unended], key=lambda operation: operation.line)


class ClientHistory:
    """One client's part.  `progress` is called for every operation that was done."""

    def __init__(self, run: RunHistory, machine: Machine, progress: Callable[[], None]) -> None:
        self.run = run
        self.machine = machine
        self.progress = progress
        self._free_processes: list[str] = []
        self._processes = 0

    def operation(self, f: str, argument: JsonValue = None, *, key: str | None = None) -> OpenOperation:
        """An operation that begins where the `with` block does.  The model says what it may be called.

        Operations of one client may overlap: those that do are told apart as if different clients did them.
        """
        return OpenOperation(self, f, argument, key)

    def take_process(self) -> str:
        """A process that does nothing at this moment."""
        if self._free_processes:
            return self._free_processes.pop()
        self._processes += 1
        name = self.machine.name
        return name if self._processes == 1 else f"{name}/{self._processes}"

    def give_back_process(self, process: str) -> None:
        self._free_processes.append(process)


class _End(enum.Enum):
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


class OpenOperation:
    """One operation: say `ok`, `fail` or `unknown` once, before the block ends."""

    def __init__(self, client: ClientHistory, f: str, argument: JsonValue, key: str | None) -> None:
        self._client = client
        self._f = f
        self._argument = argument
        self._key = key
        self._process = ""
        self._number = 0
        self._invoked_at_s = 0.0
        self._result: JsonValue = None
        self._end: _End | None = None

    def __enter__(self) -> OpenOperation:
        client, run = self._client, self._client.run
        run.numbers += 1
        self._number = run.numbers
        self._process = client.take_process()
        self._invoked_at_s = client.machine.true_s()
        run.open[self._number] = self
        run.note(client.machine, "invoke", self._describe())
        return self

    def ok(self, result: JsonValue = None) -> None:
        """It was done, with this result."""
        self._finish(_End.OK, result)

    def fail(self) -> None:
        """It certainly was not done, and never will be."""
        self._finish(_End.FAIL)

    def unknown(self) -> None:
        """It may have been done, or may yet be."""
        self._finish(_End.UNKNOWN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._end is None:
            if kind is None:
                raise RuntimeError(f"{self._describe()}: the block ended without ok(), fail() or unknown()")
            self._finish(_End.FAIL if issubclass(kind, Refused) else _End.UNKNOWN)

    def as_operation(self, returned_at_s: float | None) -> Operation:
        return Operation(
            self._process,
            self._f,
            self._key,
            self._argument,
            self._result,
            self._invoked_at_s,
            returned_at_s,
            self._number,
        )

    def _finish(self, end: _End, result: JsonValue = None) -> None:
        if self._end is not None:
            raise RuntimeError(f"{self._describe()}: the outcome is said twice, {self._end.value} and {end.value}")
        self._end, self._result = end, result
        if not self._client.machine.alive:
            # The run is over, and what it left is being collected.
            return
        client, run = self._client, self._client.run
        del run.open[self._number]
        shown = end.value if result is None else f"{end.value} {result!r}"
        run.note(client.machine, "return", f"{self._describe()}: {shown}")
        if end is _End.UNKNOWN:
            run.operations.append(self.as_operation(None))
            run.coverage["unknown outcomes"] += 1
            return
        client.give_back_process(self._process)
        if end is _End.FAIL:
            run.coverage["failed operations"] += 1
            return
        run.operations.append(self.as_operation(client.machine.true_s()))
        run.coverage["operations"] += 1
        run.coverage[self._f] += 1
        client.progress()

    def _describe(self) -> str:
        key = "" if self._key is None else f" {self._key}"
        argument = "" if self._argument is None else f" {self._argument!r}"
        return f"{self._f}{key}{argument}"
