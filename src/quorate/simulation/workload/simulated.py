"""The ZooKeeper workload as a run of the simulator uses it (`quorate.simulation.under_test.Workload`)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

from quorate.checking.history import Operation
from quorate.checking.linearizability import Verdict, check
from quorate.checking.models import KV
from quorate.checking.zookeeper.records import History
from quorate.simulation.cluster import client_host
from quorate.simulation.plan import Plan
from quorate.simulation.scheduler import Simulation
from quorate.simulation.violation import Violation
from quorate.simulation.workload.client import WorkloadOptions
from quorate.simulation.workload.workload import Workload


class SimulatedZooKeeperWorkload:
    """Each client on a machine of its own; when all have ended, one more looks at what they leave."""

    def __init__(self, simulation: Simulation, servers: Sequence[str], plan: Plan) -> None:
        options = WorkloadOptions(plan.seed, plan.clients, plan.operations_per_s, max_operations=plan.max_operations)
        trace = simulation.trace
        note = None if trace is None else lambda client, kind, text: trace.note(client, simulation.now_s, kind, text)
        self._simulation = simulation
        self._workload = Workload(servers, options, lambda: simulation.now_s, note)
        self._numbers = range(plan.clients) if plan.client_numbers is None else plan.client_numbers
        self._inspector = plan.clients
        self._running: dict[int, asyncio.Task[None]] = {}
        self._completed_before: list[int] = []
        self._done = False

    @property
    def coverage(self) -> Counter[str]:
        """What the clients did and saw."""
        return self._workload.coverage()

    @property
    def history(self) -> History:
        """All that the clients recorded."""
        return self._workload.history

    def start(self) -> None:
        """Boot the clients' machines and let them work."""
        for number in self._numbers:
            machine = self._simulation.boot(client_host(number), f"client-{number}")
            task = self._simulation.start(machine, self._workload.run_client(number), "client")
            self._running[number] = task
            task.add_done_callback(lambda done, number=number: self._ended(number, done))  # type: ignore[misc]

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._running[number]
        self._raise_on(task)
        if not self._running and self._workload.is_stopping():
            self._inspect_soon()

    def _raise_on(self, task: asyncio.Task[None]) -> None:
        """A client that fails has a bug, of ours: let the simulation hear of it."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            task.get_loop().call_exception_handler({"message": "the workload failed", "exception": error})

    def completed(self) -> int:
        """Operations that were answered so far."""
        return sum(self._workload.completed())

    def demand_progress(self) -> None:
        """From now on every client must come on."""
        self._completed_before = self._workload.completed()

    def is_content(self) -> bool:
        """Every client that has not ended has come on since `demand_progress`."""
        completed = self._workload.completed()
        return all(completed[number] > self._completed_before[number] for number in self._running)

    def stop(self) -> None:
        """Begin nothing more; look at what is left when all clients have ended."""
        self._workload.stop()
        if not self._running:
            self._inspect_soon()

    def _inspect_soon(self) -> None:
        # Not from within a client's turn: this boots another machine.
        self._simulation.after(0.0, self._inspect)

    def _inspect(self) -> None:
        machine = self._simulation.boot(client_host(self._inspector), f"client-{self._inspector}")
        task = self._simulation.start(machine, self._workload.inspect(), "inspector")
        task.add_done_callback(self._inspected)

    def _inspected(self, task: asyncio.Task[None]) -> None:
        self._raise_on(task)
        self._done = True

    def is_done(self) -> bool:
        """All that `stop` set off is done."""
        return self._done

    def violations(self) -> Iterator[Violation]:
        """What contradicts ZooKeeper's promise, then what is not linearizable, or could not be decided."""
        for finding in self._workload.findings():
            seen_by = "" if finding.session is None else self._workload.history.sessions[finding.session].client
            yield Violation(finding.check, finding.text, seen_by, finding.at)
        answer = check(self._workload.operations(), KV)
        if answer.verdict is not Verdict.VALID:
            shown = "; ".join(_describe(operation) for operation in answer.counterexample)
            yield Violation("linearizability", f"{answer.verdict.value}: key {answer.key}: {shown or 'out of steps'}")


def _describe(operation: Operation) -> str:
    returned = "" if operation.returned_at is None else f"{operation.returned_at:.6f}"
    result = "unknown" if operation.returned_at is None else repr(operation.result)
    return (
        f"{operation.process} {operation.f} {operation.argument!r} = {result} [{operation.invoked_at:.6f}, {returned}]"
    )
