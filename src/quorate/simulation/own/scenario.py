"""A user's client code as the clients of a simulated run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from quorate.checking.history import HistoryError, Operation
from quorate.checking.linearizability import Verdict, check
from quorate.checking.models import Model
from quorate.consensus.replica import NodeId
from quorate.services.interface import Service
from quorate.simulation.cluster import client_host
from quorate.simulation.machine import Machine
from quorate.simulation.own.recorder import ClientHistory, RunHistory
from quorate.simulation.own.statemachine import StateMachine, StateMachineUnderTest, tell
from quorate.simulation.plan import Plan
from quorate.simulation.scheduler import Simulation
from quorate.simulation.services import SERVICES
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.under_test import WatchedService
from quorate.simulation.violation import Violation
from quorate.statemachine.machine import StateMachine as ReplicatedClass


class ClientWorld:
    """What one client has of the world.  All randomness and time of the client's comes from here, or from its loop."""

    def __init__(self, workload: ScenarioWorkload, number: int, machine: Machine) -> None:
        self.number = number
        """From 0; that of `finish` comes behind those of the clients."""
        self.servers = workload.servers
        """ "host:port" of every node."""
        self.random = Random(f"{workload.plan.seed}/own client {number}")
        self.history = ClientHistory(workload.history, machine, self.progress)
        self.coverage = workload.coverage
        """What the run exercised, by name: count what your test wants to be sure of."""
        self.progressed = 0
        """How often there was progress."""
        self._workload = workload
        self._machine = machine

    @property
    def stopping(self) -> bool:
        """The client should come to its end."""
        most = self._workload.plan.max_operations
        return self._workload.stopping or (most is not None and self.progressed >= most)

    def progress(self) -> None:
        """The client has come on.  An operation that was recorded as done says so by itself.

        When all faults are over, every client that has not ended must come on, or the run fails.
        """
        self.progressed += 1

    def now_s(self) -> float:
        """True time in seconds from the start of the run, the same on all machines: no real client has that."""
        return self._machine.true_s()


Client: TypeAlias = Callable[[ClientWorld], Coroutine[Any, Any, None]]
Check: TypeAlias = Callable[[Sequence[Operation]], Iterable[str]]
"""All operations that were done, or may have been, to what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A user's code, and what must hold."""

    client: Client
    """What each client does, until `world.stopping`."""
    finish: Client | None = None
    """Run once, alone, when all clients have ended and all faults are over."""
    state_machine: Callable[[], StateMachine | ReplicatedClass] | None = None
    """What the clients talk to; None for Quorate's ZooKeeper service."""
    model: Model | None = None
    """The operations must be linearizable as those of this object."""
    check: Check | None = None


class ScenarioUnderTest:
    """`quorate.simulation.under_test.ServiceUnderTest`; one of these belongs to one run."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._served: WatchedService = SERVICES["zookeeper"]
        if scenario.state_machine is not None:
            self._served = StateMachineUnderTest(scenario.state_machine)
        self.name = self._served.name

    def service(self, node: NodeId, agreement: StoreAgreement) -> Service:
        return self._served.service(node, agreement)

    def look(self, store: object) -> None:
        self._served.look(store)

    def position(self, store: object) -> int:
        return self._served.position(store)

    def describe(self, data: bytes, from_client: bool) -> str:
        return self._served.describe(data, from_client)

    def workload(self, simulation: Simulation, servers: list[str], plan: Plan) -> ScenarioWorkload:
        return ScenarioWorkload(simulation, servers, plan, self._scenario)


class ScenarioWorkload:
    """`quorate.simulation.under_test.Workload`: each client on a machine of its own; at last, `finish` on another."""

    def __init__(self, simulation: Simulation, servers: Sequence[str], plan: Plan, scenario: Scenario) -> None:
        self.servers = list(servers)
        self.plan = plan
        self.stopping = False
        self.coverage = Counter[str]()
        self.history = RunHistory(self.coverage, self._note)
        self._simulation = simulation
        self._scenario = scenario
        self._numbers = range(plan.clients) if plan.client_numbers is None else plan.client_numbers
        self._worlds: dict[int, ClientWorld] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._progressed_before: dict[int, int] = {}
        self._finished = False

    def _note(self, machine: Machine, kind: str, text: str) -> None:
        if self._simulation.trace is not None:
            self._simulation.trace.note(machine.name, machine.true_s(), kind, text)

    # --- the run -----------------------------------------------------------------------------

    def start(self) -> None:
        if self.stopping:
            # Shrinking cut the run so short that it ended before its clients began.
            return
        for number in self._numbers:
            self._begin(number, self._scenario.client)

    def _begin(self, number: int, client: Client) -> None:
        machine = self._simulation.boot(client_host(number), f"client-{number}")
        world = self._worlds[number] = ClientWorld(self, number, machine)
        task = self._running[number] = self._simulation.start(machine, client(world), "client")
        task.add_done_callback(lambda ended: self._ended(number, ended))

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._running[number]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._simulation.stop(Violation("client failed", f"client-{number}: {tell(error)}", f"client-{number}"))
        elif self.stopping and not self._running:
            self._finish_soon(number)

    def _finish_soon(self, last: int | None) -> None:
        if self._scenario.finish is None or last == self.plan.clients:
            self._finished = True
        else:
            # Not from within a client's turn: this boots another machine.
            self._simulation.after(0.0, self._begin, self.plan.clients, self._scenario.finish)

    def completed(self) -> int:
        return sum(world.progressed for world in self._worlds.values())

    def demand_progress(self) -> None:
        self._progressed_before = {number: self._worlds[number].progressed for number in self._running}

    def is_content(self) -> bool:
        before = self._progressed_before
        return all(self._worlds[number].progressed > before.get(number, 0) for number in self._running)

    def stop(self) -> None:
        self.stopping = True
        if not self._running:
            self._finish_soon(None)

    def is_done(self) -> bool:
        return self._finished

    # --- checks ------------------------------------------------------------------------------

    def violations(self) -> Iterator[Violation]:
        operations = self.history.all()
        if self._scenario.check is not None:
            try:
                texts = self._scenario.check(operations)
                # A str is a sequence of str, too: its letters.
                for text in [texts] if isinstance(texts, str) else texts:
                    yield _violation("own check", text, operations)
            except Exception as error:
                yield Violation("own check", tell(error))
        if self._scenario.model is not None:
            yield from self._nonlinearizable(operations, self._scenario.model)

    def _nonlinearizable(self, operations: Sequence[Operation], model: Model) -> Iterator[Violation]:
        try:
            answer = check(operations, model)
        except HistoryError as error:
            yield Violation("history", f"operation {error.line}: {error.reason}")
            return
        if answer.verdict is not Verdict.VALID:
            key = "" if answer.key is None else f", key {answer.key},"
            shown = "\n".join(map(_describe, answer.counterexample)) or "the steps ran out"
            text = f"{answer.verdict.value} as a {model.name}{key}: {shown}"
            yield _violation("linearizability", text, answer.counterexample)


def _violation(check: str, text: str, operations: Sequence[Operation]) -> Violation:
    """It showed in the last of these operations."""
    if not operations:
        return Violation(check, text)
    last = max(operations, key=_end_s)
    return Violation(check, text, str(last.process).partition("/")[0], _end_s(last))


def _end_s(operation: Operation) -> float:
    return operation.invoked_at if operation.returned_at is None else operation.returned_at


def _describe(operation: Operation) -> str:
    argument = "" if operation.argument is None else f" {operation.argument!r}"
    known = operation.returned_at is not None
    until = f"to {operation.returned_at:.6f} s: {operation.result!r}" if known else "on: nobody knows the outcome"
    return f"{operation.process} {operation.f}{argument} from {operation.invoked_at:.6f} {until}"
