"""A small cluster with a world around it, for tests of faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random

from quorate.client.zookeeper import ZooKeeperClient
from quorate.client.zookeeper_errors import ZooKeeperError
from quorate.consensus.replica import ConsensusProtocol
from quorate.node.room import CLUSTER_GROUP
from quorate.services.zookeeper.service import ZOOKEEPER
from quorate.simulation.cluster import SERVICE_GROUP, ClusterSettings, SimulatedCluster, client_host, host_of
from quorate.simulation.faults import FAULTS
from quorate.simulation.mailbox import MailboxFaults
from quorate.simulation.observation import Observer
from quorate.simulation.plan import Injection
from quorate.simulation.scheduler import Simulation
from quorate.simulation.violation import Violation
from quorate.simulation.world import World


class Stage:
    """Nodes that have elected a leader, and the hosts of clients, on which nothing runs at first."""

    def __init__(self, nodes: int = 3, clients: int = 2, seed: int | str = "stage", spares: int = 0) -> None:
        self.simulation = Simulation(seed)
        self.violations: list[Violation] = []
        self.mailbox = MailboxFaults(Random(f"{seed}/mailbox"))
        self.observer = Observer(range(nodes), self.violations.append, self.mailbox)
        settings = ClusterSettings(nodes, ZOOKEEPER, spares=spares)
        self.cluster = SimulatedCluster(self.simulation, settings, protocols=self._protocols)
        self.world = World(
            self.simulation,
            self.cluster,
            self.observer,
            clients,
            self.violations.append,
            mailbox=self.mailbox,
        )
        self.writes_done = 0
        self.world.start()
        for client in range(clients):
            self.simulation.boot(client_host(client), f"client-{client}")

    def _protocols(self, node: int) -> Mapping[str, ConsensusProtocol]:
        machine = self.simulation.machines[host_of(node)]
        return self.observer.protocols(
            node,
            [SERVICE_GROUP, CLUSTER_GROUP],
            machine.true_s,
            lambda peer, items: self.cluster.nodes[node].received(peer, items),
        )

    # --- time ---------------------------------------------------------------------------------

    def pass_time(self, duration_s: float) -> None:
        self.simulation.pass_until(self.simulation.now_s + duration_s)

    def wait_for(self, condition: Callable[[], object], within_s: float = 20.0) -> None:
        until_s = self.simulation.now_s + within_s
        while not condition():
            assert self.simulation.now_s < until_s, f"not within {within_s} s: {self.cluster.describe()}"
            self.pass_time(0.02)

    def elected(self) -> int:
        self.wait_for(lambda: self.cluster.leader() is not None)
        leader = self.cluster.leader()
        assert leader is not None
        return leader

    def follower(self) -> int:
        leader = self.elected()
        return next(node for node in self.cluster.members if node != leader)

    # --- faults and load ----------------------------------------------------------------------

    def begin(self, fault: str, target: str = "", amount: float = 0.0, for_s: float = 1e6) -> None:
        injection = Injection(fault, self.simulation.now_s, for_s, target, amount)
        self.world.begin(FAULTS[fault], injection)

    def count(self, name: str) -> int:
        return self.world.coverage[name]

    def write_from(self, client: int, size_bytes: int = 20, pause_s: float = 0.02) -> None:
        """Let a client write again and again, whatever happens."""
        machine = self.simulation.machines[client_host(client)]
        self.simulation.start(machine, self._writing(client, size_bytes, pause_s))

    async def _writing(self, client: int, size_bytes: int, pause_s: float) -> None:
        random = Random(f"{self.simulation.seed}/{client}")
        lives = 0
        while True:
            lives += 1
            zookeeper = ZooKeeperClient(self.cluster.client_addresses(), random, 8000)
            try:
                await zookeeper.start()
                path = f"/client-{client}-{lives}"
                await zookeeper.create(path, b"")
                while True:
                    await zookeeper.set(path, bytes(size_bytes))
                    self.writes_done += 1
                    await asyncio.sleep(pause_s)
            except ZooKeeperError:
                await zookeeper.close()
                await asyncio.sleep(0.1)

    def writes_within(self, duration_s: float) -> int:
        before = self.writes_done
        self.pass_time(duration_s)
        return self.writes_done - before

    def closed(self) -> set[tuple[str, str]]:
        """The directions in which nothing gets through."""
        network = self.simulation.network
        return {link for link, quality in network.qualities.items() if not network.is_open(*link) and quality.cuts}


def host_pairs(one: list[int], other: list[int]) -> set[tuple[str, str]]:
    """Both directions between every node of one and every node of the other list."""
    return {(host_of(a), host_of(b)) for x, y in ((one, other), (other, one)) for a in x for b in y}
