"""One run of the simulator: boot, work under faults, heal, demand progress, check everything.

    outcome = run(draw_plan(seed=7, options=Options(faults=("crash", "partition-isolation"))))

*Safety phase.*  From 0 to `plan.duration_s` clients work while faults come and go.  Nothing need succeed;
nothing may go wrong.  *Healing phase.*  All faults end, and now the cluster must come back: a leader, progress for
every client, all nodes that may run at the same position with equal stores.  Then what the clients recorded is
checked.  Protocol invariants and the agreement of stores are checked all along, and the first violation ends the run.

Nothing follows from anything but the plan: the same plan gives the same `Outcome.digest`.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.replica import Message, NodeId
from quorate.node.node import named_protocol
from quorate.node.protocols import protocols_of, quorum_sizes
from quorate.node.room import CLUSTER_GROUP
from quorate.services.interface import Service
from quorate.simulation.campaign import EVERY_FAULT_RUNS
from quorate.simulation.cluster import CLIENT_PORT, PEER_PORT, SERVICE_GROUP, ClusterSettings, SimulatedCluster
from quorate.simulation.faults import CHANGES_OF_MEMBERS, FAULTS, Setting
from quorate.simulation.faults.drawing import draw_injections
from quorate.simulation.labels import Labels
from quorate.simulation.machine import Machine
from quorate.simulation.mailbox import MailboxFaults
from quorate.simulation.observation import Observer
from quorate.simulation.operator import members_of
from quorate.simulation.plan import Outcome, Plan
from quorate.simulation.scheduler import Deadlock, Simulation
from quorate.simulation.services import SERVICES
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.trace import FAULTS as FAULTS_PLACE
from quorate.simulation.trace import Trace
from quorate.simulation.under_test import ServiceUnderTest
from quorate.simulation.undisturbed import undisturbed
from quorate.simulation.violation import Violation
from quorate.simulation.watches import OWN_COVERAGE
from quorate.simulation.world import World

SPARES = 2
CLIENTS_START_S = 0.5
FAULTS_START_S = 1.0
PROGRESS_LIMIT_S = 40.0
"""After the faults: sessions may have to expire and clients to find their way back."""
FINISH_LIMIT_S = 40.0
SETTLING_LIMIT_S = 40.0
"""Several nodes may have to be filled one after the other."""
AGREEMENT_LIMIT_S = 20.0
ANSWER_LIMIT_S = 5.0
"""Nobody asks for anything any more, and all nodes have a leader: far longer than any barrier waits."""
PACES = 40.0
"""And as much longer as a client takes over so many operations: where few are asked for, each waits long."""
LOOK_S = 0.25
REQUIRED_COVERAGE = (
    *("elections", "step downs", "snapshots sent", "snapshots installed", "barriers passed"),
    *("barriers failed", "messages dropped", "messages delayed", "messages duplicated", "connections reset"),
    *("crashes", "power losses", "torn writes"),
    *("partitions", "folders set aside", "configuration changes", "joint configurations", "learners promoted"),
    *("members removed", "leaders removed", "refills", "transfers done", "transfers given up"),
    *("nodes ended as removed", "wipe"),
)
"""What a campaign with all faults must have exercised, beside what its protocols and its service ask for.

A check of something that never happens checks nothing.
"""
RARE_COVERAGE = ("gaps filled", "void entries")
"""What of that only long campaigns must have: successors seldom know a slot and not the one before."""
KEPT_EVENTS = 50_000
"""Of a recorded run: far more than anybody looks at, and no more memory than a machine has."""


@dataclass(frozen=True, slots=True)
class Options:
    """What plans are drawn within.  The same as in `Plan`."""

    protocol: str | None = None
    service: str = "zookeeper"
    nodes: int = 3
    clients: int = 10
    operations_per_s: float = 100.0
    duration_s: float = 60.0
    faults: tuple[str, ...] = tuple(FAULTS)


def required_coverage(plan: Plan, runs: int) -> tuple[str, ...]:
    """What a campaign of so many plans like this one with all faults must have exercised."""
    protocols = _protocols_of(plan.protocol, plan.service)
    own = dict.fromkeys(name for protocol in sorted(protocols) for name in OWN_COVERAGE[protocol.partition(":")[0]])
    required = (*REQUIRED_COVERAGE, *own, *SERVICES[plan.service].required_coverage)
    return required if runs >= EVERY_FAULT_RUNS else tuple(name for name in required if name not in RARE_COVERAGE)


def draw_plan(seed: int, options: Options) -> Plan:
    """The plan of a seed.  Raises KeyError for a fault that does not exist.

    Where quorums have sizes of their own the members cannot change, and faults that need that are left out.
    """
    for name in options.faults:
        if name not in FAULTS:
            raise KeyError(name)
    protocols = _protocols_of(options.protocol, options.service)
    kinds = frozenset(name.partition(":")[0] for name in protocols)
    setting = Setting(options.nodes, options.clients, FAULTS_START_S, options.duration_s, kinds)
    faults = options.faults
    if any(quorum_sizes(name) is not None for name in protocols):
        faults = tuple(name for name in faults if name not in CHANGES_OF_MEMBERS)
    return Plan(
        seed=seed,
        protocol=options.protocol,
        service=options.service,
        nodes=options.nodes,
        clients=options.clients,
        operations_per_s=options.operations_per_s,
        duration_s=options.duration_s,
        faults=faults,
        injections=tuple(draw_injections(seed, setting, faults)),
    )


def _protocols_of(protocol: str | None, service: str) -> frozenset[str]:
    """The names of all that some group runs on."""
    return frozenset(protocols_of(protocol, (service,)).values())


def run_seed(seed: int, options: Options, *, record: bool = False) -> Outcome:
    return run(draw_plan(seed, options), record=record)


def run(plan: Plan, *, record: bool = False, service: ServiceUnderTest | None = None) -> Outcome:
    """Carry a plan out.  With `record`, the outcome holds a trace; that changes nothing of the run.

    `service` stands for a service that is not in `SERVICES`.
    """
    outcome = Outcome(plan)
    with undisturbed():
        running = _Run(plan, service or SERVICES[plan.service], record)
        try:
            running.go()
        except Violation as violation:
            outcome.violation = violation
            outcome.violated_at_s = running.simulation.now_s
            running.found(violation)
        outcome.coverage = running.coverage()
        outcome.digest = running.simulation.digest()
        outcome.simulated_s = running.simulation.now_s
        outcome.trace = running.simulation.trace
        running.end()
        del running
        gc.collect()
    return outcome


class _Run:
    """The parts of one run, put together."""

    def __init__(self, plan: Plan, service: ServiceUnderTest, record: bool) -> None:
        self.plan = plan
        self.simulation = Simulation(plan.seed)
        self._service = service
        self._faults = Counter[str]()
        simulation = self.simulation
        if record:
            simulation.trace = Trace(KEPT_EVENTS)
            simulation.network.describe = Labels(PEER_PORT, CLIENT_PORT, service.describe)
        simulation.on_unhandled = self._unhandled
        mailbox = MailboxFaults(Random(f"{plan.seed}/mailbox"))
        members = range(plan.nodes)
        protocols = {name: named_protocol(name, PROTOCOLS) for name in _protocols_of(plan.protocol, plan.service)}
        self._observer = Observer(members, self._violated, mailbox, self._note if record else None, protocols)
        self._agreement = StoreAgreement(self._violated)
        self._stores: dict[NodeId, object] = {}
        self._violation: Violation | None = None
        self._cluster = SimulatedCluster(
            simulation,
            ClusterSettings(plan.nodes, service.service(0, self._agreement), plan.protocol, SPARES),
            protocols=self._protocols,
            service=self._service_of,
        )
        self._world = World(
            simulation,
            self._cluster,
            self._observer,
            plan.clients,
            self._violated,
            mailbox=mailbox,
            coverage=self._faults,
        )
        self._workload = service.workload(simulation, self._cluster.client_addresses(), plan)

    # --- parts -------------------------------------------------------------------------------

    def _protocols(self, node: NodeId) -> Any:
        def receive(sender: NodeId, items: list[tuple[int, Message]]) -> None:
            self._cluster.nodes[node].received(sender, items)

        return self._observer.protocols(
            node, [SERVICE_GROUP, CLUSTER_GROUP], self._cluster.machine(node).true_s, receive
        )

    def _service_of(self, node: NodeId) -> Service:
        service = self._service.service(node, self._agreement)

        def create_store() -> object:
            store: object = service.create_store()
            self._stores[node] = store
            return store

        return replace(service, create_store=create_store)

    def _unhandled(self, machine: Machine, context: dict[str, Any]) -> None:
        error = context.get("exception")
        text = f"{machine.name}: {context.get('message')}: {error!r}"
        violation = Violation("unhandled error", text, machine.name)
        violation.__cause__ = error
        self.simulation.stop(violation)

    def _violated(self, violation: Violation) -> None:
        """Whatever watches saw it in the turn of some machine, or in none."""
        machine = self.simulation.turning()
        if not violation.place and machine is not None:
            violation.place = machine.name
        self._note_violation(violation, self.simulation.now_s if machine is None else machine.true_s())
        self.simulation.stop(violation)

    def _note(self, node: NodeId, kind: str, text: str) -> None:
        assert self.simulation.trace is not None
        self.simulation.trace.note(f"node-{node}", self._cluster.machine(node).true_s(), kind, text)

    def found(self, violation: Violation) -> None:
        """The run has ended with it; where it was found out only now, the trace says so now."""
        self._note_violation(violation, self.simulation.now_s)

    def _note_violation(self, violation: Violation, time_s: float) -> None:
        trace = self.simulation.trace
        if trace is not None and self._violation is None:
            trace.note(violation.place or FAULTS_PLACE, time_s, "violation", str(violation))
        self._violation = self._violation or violation

    # --- phases ------------------------------------------------------------------------------

    def go(self) -> None:
        """All phases.  Raises Violation."""
        plan, simulation = self.plan, self.simulation
        try:
            self._world.start()
            simulation.at(CLIENTS_START_S, self._workload.start)
            self._world.schedule(plan.injections, FAULTS)
            simulation.pass_until(plan.duration_s)
            self._world.heal()
            self._workload.demand_progress()
            unhurried_s = PACES * plan.clients / plan.operations_per_s
            self._demand(self._has_progress, PROGRESS_LIMIT_S + unhurried_s, "progress for all clients")
            self._workload.stop()
            self._demand(self._workload.is_done, FINISH_LIMIT_S + unhurried_s, "an end of all clients' work")
            self._demand(self._is_settled, SETTLING_LIMIT_S, "end of all changes of the members")
            self._demand(self._has_agreement, AGREEMENT_LIMIT_S, "all nodes at the same position")
            self._demand(self._has_answered, ANSWER_LIMIT_S, "answer to every read barrier")
        except Deadlock as error:
            raise Violation("deadlock", str(error)) from error
        # As a step of the simulation, which is what ends with the violation that it finds.
        simulation.after(0.0, self._look)
        simulation.pass_until(simulation.now_s)
        for violation in self._workload.violations():
            raise violation

    def _look(self) -> None:
        for node in self._members():
            self._service.look(self._stores[node])

    def _demand(self, holds: Callable[[], bool], limit_s: float, what: str) -> None:
        deadline_s = self.simulation.now_s + limit_s
        while not holds():
            if self.simulation.now_s >= deadline_s:
                raise Violation("liveness", f"no {what} within {limit_s:.0f} s after the faults: {self._describe()}")
            self.simulation.pass_until(self.simulation.now_s + LOOK_S)

    def _has_progress(self) -> bool:
        return self._cluster.leader() is not None and self._workload.is_content()

    def _has_agreement(self) -> bool:
        members = self._members()
        if self._world.operator.unsettled() or not members:
            return False
        return len({self._service.position(self._stores[node]) for node in members}) == 1

    def _members(self) -> list[NodeId]:
        return sorted(members_of(self._world.operator.newest()))

    def _is_settled(self) -> bool:
        return not self._world.operator.unsettled()

    def _has_answered(self) -> bool:
        """No node's replica owes anybody an answer: a client would wait for it until it gives its connection up."""
        group = self._observer.groups[SERVICE_GROUP]
        return not any(group.unanswered_barriers(node) for node in self._members())

    def _describe(self) -> str:
        nodes = "; ".join(
            f"node {node}: {role} of {leader} in generation {generation}, applied {applied}"
            for node, (role, leader, generation, applied) in sorted(self._cluster.describe().items())
        )
        unsettled = self._world.operator.unsettled()
        members = f"; members: {unsettled}" if unsettled else ""
        return f"{nodes}{members}; {self._workload.completed()} operations answered in all"

    # --- the end -----------------------------------------------------------------------------

    def coverage(self) -> Counter[str]:
        coverage = Counter(self._workload.coverage)
        coverage.update(self._faults)
        coverage.update({name.replace("_", " "): count for name, count in self._observer.coverage().items()})
        coverage["connections reset"] += self.simulation.network.connections_reset
        coverage["operations"] = self._workload.completed()
        return coverage

    def end(self) -> None:
        """No machine outlives its run."""
        for host in list(self.simulation.machines):
            self.simulation.kill(host)
