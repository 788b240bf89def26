"""The workload on a whole simulated cluster: it does everything that it is there for, and finds nothing wrong."""

from __future__ import annotations

import asyncio
import logging

import pytest

from quorate.checking.linearizability import Verdict, check
from quorate.checking.models import KV
from quorate.services.zookeeper.service import ZOOKEEPER
from quorate.simulation.cluster import ClusterSettings, SimulatedCluster, client_host
from quorate.simulation.plan import Plan
from quorate.simulation.scheduler import Simulation
from quorate.simulation.trace import Trace
from quorate.simulation.workload.client import WorkloadOptions
from quorate.simulation.workload.simulated import SimulatedZooKeeperWorkload
from quorate.simulation.workload.workload import Workload

CLIENTS = 10
WHAT_A_RUN_SEES = (
    *("get", "exists", "children", "set", "create", "delete", "multi", "sync", "close"),
    *("unknown outcomes", "sessions opened", "sessions closed", "sessions left", "sessions expired", "sessions moved"),
    "sessions vouched for",
    *("watches fired", "locks acquired", "fenced uses accepted", "fenced uses refused", "ephemerals vanished"),
)


class World:
    """Three nodes, ten clients, and what is done to them."""

    def __init__(self, seed: int, *, max_operations: int | None = None) -> None:
        self.simulation = Simulation(seed=seed)
        self.cluster = SimulatedCluster(self.simulation, ClusterSettings(3, ZOOKEEPER))
        for node in self.cluster.members:
            self.cluster.start(node)
        options = WorkloadOptions(seed, CLIENTS, max_operations=max_operations)
        self.workload = Workload(self.cluster.client_addresses(), options, lambda: self.simulation.now_s)
        self.tasks: list[asyncio.Task[None]] = []
        for number in range(CLIENTS):
            machine = self.simulation.boot(client_host(number), f"client-{number}")
            self.tasks.append(self.simulation.start(machine, self.workload.run_client(number)))

    def trouble(self) -> None:
        """A leader dies, some clients are asleep for longer than their sessions last, and a node is cut off."""
        simulation, cluster = self.simulation, self.cluster
        simulation.pass_until(4.0)
        leader = cluster.leader()
        assert leader is not None
        cluster.kill(leader, power_loss=True)
        asleep = [simulation.machines[client_host(number)] for number in range(0, CLIENTS, 3)]
        for machine in asleep:
            machine.pause()
        simulation.pass_until(6.0)
        cluster.start(leader)
        simulation.pass_until(13.0)
        for machine in asleep:
            machine.resume()
        simulation.pass_until(15.0)
        others = [f"10.0.0.{node + 1}" for node in (0, 2)] + [client_host(number) for number in range(0, CLIENTS, 2)]
        for host in others:
            simulation.network.cut("10.0.0.2", host)
        simulation.pass_until(18.0)
        for host in others:
            simulation.network.mend("10.0.0.2", host)
        simulation.pass_until(30.0)

    def finish(self) -> None:
        self.workload.stop()
        deadline_s = self.simulation.now_s + 30
        while not all(task.done() for task in self.tasks):
            assert self.simulation.now_s < deadline_s
            self.simulation.step()
        for task in self.tasks:
            task.result()
        inspector = self.simulation.boot(client_host(CLIENTS))
        self.simulation.run(inspector, self.workload.inspect())


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def test_a_cluster_in_trouble_keeps_its_promise_and_everything_is_seen() -> None:
    world = World(seed=2)
    world.trouble()
    before = world.workload.completed()
    world.simulation.pass_until(world.simulation.now_s + 25)  # a client may rest for longer than its session would last
    assert all(now > then for now, then in zip(world.workload.completed(), before, strict=True))
    world.finish()
    assert world.workload.findings() == []
    coverage = world.workload.coverage()
    assert [what for what in WHAT_A_RUN_SEES if not coverage[what]] == []
    answer = check(world.workload.operations(), KV)
    assert (answer.verdict, answer.keys) == (Verdict.VALID, 10)
    assert answer.operations > 1_000


def test_a_client_stops_after_its_operations_and_all_runs_alike_from_one_seed() -> None:
    def run() -> tuple[str, list[int], list[str]]:
        world = World(seed=5, max_operations=30)
        world.simulation.pass_until(40.0)
        assert all(task.done() for task in world.tasks)
        world.finish()
        assert world.workload.findings() == []
        calls = [repr(call) for call in world.workload.history.calls]
        return world.simulation.digest(), world.workload.completed(), calls

    first = run()
    assert all(25 <= completed < 80 for completed in first[1])
    assert first == run()


def test_the_simulator_can_use_it() -> None:
    simulation = Simulation(seed=3)
    simulation.trace = Trace()
    cluster = SimulatedCluster(simulation, ClusterSettings(3, ZOOKEEPER))
    for node in cluster.members:
        cluster.start(node)
    plan = Plan(seed=3, clients=4, operations_per_s=40.0, client_numbers=(0, 3))
    workload = SimulatedZooKeeperWorkload(simulation, cluster.client_addresses(), plan)
    workload.start()
    simulation.pass_until(5.0)
    workload.demand_progress()
    assert not workload.is_content()
    simulation.pass_until(30.0)  # a client may rest for longer than its session would last
    assert workload.is_content()
    assert sorted({session.client for session in workload.history.sessions}) == ["client-0", "client-3"]
    workload.stop()
    assert not workload.is_done()
    simulation.pass_until(60.0)
    assert workload.is_done()
    assert workload.completed() > 100
    noted = [(event.place, event.kind) for event in simulation.trace.events]
    answered = noted.count(("client-0", "return"))
    assert 30 < answered == noted.count(("client-0", "invoke"))
    assert list(workload.violations()) == []
    # A violation names the check and what was seen.
    read = next(call for call in workload.history.calls if call.synced and call.value and call.process)
    read.value = "what nobody wrote"
    assert {violation.check for violation in workload.violations()} == {"reads", "linearizability"}
