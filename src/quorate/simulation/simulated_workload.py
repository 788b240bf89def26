"""Clients as a run of the simulator uses them, whatever the service (`quorate.simulation.under_test.Workload`).

Each client is on a machine of its own; when all have ended, one more looks at what they leave.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

from quorate.checking.history import Operation
from quorate.checking.linearizability import Verdict, check
from quorate.checking.models import Model
from quorate.simulation.cluster import client_host
from quorate.simulation.plan import Plan
from quorate.simulation.scheduler import Simulation
from quorate.simulation.violation import Violation


class Clients(Protocol):
    """All clients of a run, by number."""

    async def run_client(self, number: int) -> None:
        """One client's life, on its own machine."""
        ...

    async def inspect(self) -> None:
        """When all clients have ended: look at what they leave behind."""
        ...

    def stop(self) -> None:
        """Tell the clients to end, each as soon as its present activity is over."""
        ...

    def is_stopping(self) -> bool: ...

    def completed(self) -> list[int]:
        """For each client how many of its calls were answered: where this stands still there is no progress."""
        ...

    def coverage(self) -> Counter[str]:
        """What they did and saw."""
        ...


class SimulatedWorkload(ABC):
    """Boots the machines, and knows when all is done.  What was recorded is for a service's own class to judge."""

    def __init__(self, simulation: Simulation, clients: Clients, plan: Plan) -> None:
        self._simulation = simulation
        self._clients = clients
        self._numbers = range(plan.clients) if plan.client_numbers is None else plan.client_numbers
        self._inspector = plan.clients
        self._running: dict[int, asyncio.Task[None]] = {}
        self._completed_before: list[int] = []
        self._done = False

    @property
    def coverage(self) -> Counter[str]:
        """What the clients did and saw."""
        return self._clients.coverage()

    def start(self) -> None:
        """Boot the clients' machines and let them work."""
        for number in self._numbers:
            machine = self._simulation.boot(client_host(number), f"client-{number}")
            task = self._simulation.start(machine, self._clients.run_client(number), "client")
            self._running[number] = task
            task.add_done_callback(lambda done, number=number: self._ended(number, done))  # type: ignore[misc]

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._running[number]
        self._raise_on(task)
        if not self._running and self._clients.is_stopping():
            self._inspect_soon()

    def _raise_on(self, task: asyncio.Task[None]) -> None:
        """A client that fails has a bug, of ours: let the simulation hear of it."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            task.get_loop().call_exception_handler({"message": "the workload failed", "exception": error})

    def completed(self) -> int:
        """Operations that were answered so far."""
        return sum(self._clients.completed())

    def demand_progress(self) -> None:
        """From now on every client must come on."""
        self._completed_before = self._clients.completed()

    def is_content(self) -> bool:
        """Every client that has not ended has come on since `demand_progress`."""
        completed = self._clients.completed()
        return all(completed[number] > self._completed_before[number] for number in self._running)

    def stop(self) -> None:
        """Begin nothing more; look at what is left when all clients have ended."""
        self._clients.stop()
        if not self._running:
            self._inspect_soon()

    def _inspect_soon(self) -> None:
        # Not from within a client's turn: this boots another machine.
        self._simulation.after(0.0, self._inspect)

    def _inspect(self) -> None:
        machine = self._simulation.boot(client_host(self._inspector), f"client-{self._inspector}")
        task = self._simulation.start(machine, self._clients.inspect(), "inspector")
        task.add_done_callback(self._inspected)

    def _inspected(self, task: asyncio.Task[None]) -> None:
        self._raise_on(task)
        self._done = True

    def is_done(self) -> bool:
        """All that `stop` set off is done."""
        return self._done

    @abstractmethod
    def violations(self) -> Iterable[Violation]:
        """What contradicts the service's promise."""


def not_linearizable(operations: list[Operation], model: Model) -> Iterator[Violation]:
    """What cannot be put in one order, or could not be decided: no kind of valid."""
    answer = check(operations, model)
    if answer.verdict is not Verdict.VALID:
        shown = "; ".join(_operation_text(operation) for operation in answer.counterexample)
        yield Violation("linearizability", f"{answer.verdict.value}: key {answer.key}: {shown or 'out of steps'}")


def _operation_text(operation: Operation) -> str:
    """An operation of a history that is not linearizable, in a line."""
    returned = "" if operation.returned_at is None else f"{operation.returned_at:.6f}"
    result = "unknown" if operation.returned_at is None else repr(operation.result)
    return (
        f"{operation.process} {operation.f} {operation.argument!r} = {result} [{operation.invoked_at:.6f}, {returned}]"
    )
