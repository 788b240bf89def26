"""A cluster of whole nodes on simulated machines, and all that may be done to it.

Each node is a machine with a disk of its own.  Nothing of the node knows: it gets a loop, an `Environment` and its
configuration, as in production.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.replica import ConsensusProtocol
from quorate.node.config import Address, LimitsConfig, ListenConfig, NodeConfig, StorageConfig
from quorate.node.environment import Environment
from quorate.node.node import HostedService, Node
from quorate.node.repair import start_node
from quorate.services.interface import Service
from quorate.simulation.disk import SimulatedDisk
from quorate.simulation.machine import Machine
from quorate.simulation.scheduler import Simulation

CLIENT_PORT, PEER_PORT, ADMIN_PORT = 2181, 3181, 4181
SERVICE_GROUP = 1


def host_of(node: int) -> str:
    return f"10.0.0.{node + 1}"


def client_host(client: int) -> str:
    return f"10.0.1.{client + 1}"


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What a simulated cluster is made of.

    Small segments and snapshots, so that short runs see many of them, and a short tail in memory, so that a
    follower which was away for some seconds needs a snapshot.
    """

    nodes: int
    service: Service
    protocol: str = "raft"
    limits: LimitsConfig = field(default_factory=lambda: LimitsConfig(max_tail_bytes=1 << 11))
    storage: StorageConfig = field(
        default_factory=lambda: StorageConfig(segment_bytes=1 << 14, snapshot_log_bytes=1 << 16)
    )


class SimulatedCluster:
    """Nodes by id.  `start`, `kill` and `start` again at will; between two calls, let the simulation go on."""

    def __init__(
        self,
        simulation: Simulation,
        settings: ClusterSettings,
        *,
        protocols: Callable[[int], Mapping[str, ConsensusProtocol]] | None = None,
        service: Callable[[int], Service] | None = None,
    ) -> None:
        self.simulation = simulation
        self.settings = settings
        self.nodes: dict[int, Node] = {}
        """Those that run.  One that is starting is in `starting`."""
        self.starting: dict[int, asyncio.Task[None]] = {}
        self.members = range(settings.nodes)
        self.disks = {node: SimulatedDisk(f"{simulation.seed}/{node}") for node in self.members}
        self.on_end: Callable[[int, BaseException, bool], None] | None = None
        """Told of a node whose process ended by itself, why, and whether it had come to serve.

        Without it, that ends the simulation's run.
        """
        self.on_power_loss: Callable[[int, int], None] | None = None
        """Told of a node that lost its power in the middle of an operation, and of how many unsynced changes."""
        self._random = Random(f"{simulation.seed}/cluster")
        self._protocols = protocols or (lambda _: PROTOCOLS)
        self._service = service or (lambda _: settings.service)

    def config(self, node: int) -> NodeConfig:
        host = host_of(node)
        members = {member: Address(host_of(member), PEER_PORT) for member in self.members}
        listen = ListenConfig(Address(host, PEER_PORT), Address(host, ADMIN_PORT), Address(host, CLIENT_PORT))
        return NodeConfig(
            "simulated",
            node,
            Path("unused"),
            members,
            listen,
            protocol=self.settings.protocol,
            limits=self.settings.limits,
            storage=self.settings.storage,
        )

    def client_addresses(self) -> list[str]:
        return [f"{host_of(node)}:{CLIENT_PORT}" for node in self.members]

    # --- lives -------------------------------------------------------------------------------

    def start(self, node: int) -> None:
        """Switch a node's machine on; it serves a little later."""
        machine = self.simulation.boot(host_of(node), f"node-{node}")
        machine.on_death = lambda: self._died(node)
        self.disks[node].attach(machine)
        task = self.simulation.start(machine, self._begin(node, machine), "node")
        self.starting[node] = task
        task.add_done_callback(lambda done: self._started(node, machine, done))

    async def _begin(self, node: int, machine: Machine) -> None:
        random = Random(self._random.getrandbits(64))
        environment = Environment(self.disks[node], machine.wall_ms, machine.clock, random, watch_loop=False)
        hosted = HostedService(SERVICE_GROUP, self._service(node), host_of(node), CLIENT_PORT)
        config, protocols = self.config(node), self._protocols(node)

        def make() -> Node:
            began = self.nodes[node] = Node(config, environment, [hosted], protocols)
            began.failed.add_done_callback(lambda failed: self._failed(node, machine, failed.result(), served=True))
            return began

        await start_node(config, self.disks[node], make)

    def _started(self, node: int, machine: Machine, task: asyncio.Task[None]) -> None:
        if self.starting.get(node) is task:
            del self.starting[node]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(node, machine, error, served=False)

    def stop(self, node: int, done: Callable[[], None]) -> None:
        """Ask a node to stop in order, as SIGTERM does.  Once its process has ended, `done` is called."""
        machine = self.machine(node)
        task = self.simulation.start(machine, self._leave(node), "stop")
        task.add_done_callback(lambda left: self.simulation.after(0.0, self._left, node, machine, left, done))

    async def _leave(self, node: int) -> None:
        starting = self.starting.get(node)
        if starting is not None:
            await asyncio.wait([starting])
        await self.nodes[node].stop()

    def _left(self, node: int, machine: Machine, left: asyncio.Task[None], done: Callable[[], None]) -> None:
        error = left.exception()
        if error is not None:
            self._end(node, machine, error, served=True)
        elif machine.alive:
            self.kill(node)
            done()

    def _failed(self, node: int, machine: Machine, error: BaseException, *, served: bool) -> None:
        """A node cannot go on: its process ends, as `quorate node` does."""
        if not machine.alive:
            return
        self.simulation.after(0.0, lambda: self._end(node, machine, error, served=served))

    def _end(self, node: int, machine: Machine, error: BaseException, *, served: bool) -> None:
        if not machine.alive:
            return
        self.kill(node)
        if self.on_end is None:
            raise error
        self.on_end(node, error, served)

    def _died(self, node: int) -> None:
        """The machine lost its power in the middle of what it did."""
        lost = self.buried(node, power_loss=True)
        if self.on_power_loss is not None:
            self.on_power_loss(node, lost)

    def is_up(self, node: int) -> bool:
        return host_of(node) in self.simulation.machines

    def machine(self, node: int) -> Machine:
        return self.simulation.machines[host_of(node)]

    def kill(self, node: int, *, power_loss: bool = False) -> int:
        """SIGKILL, or a loss of power, in which what was not synced may be gone; how many changes that were."""
        self.simulation.kill(host_of(node), power_loss=power_loss)
        return self.buried(node, power_loss=power_loss)

    def buried(self, node: int, *, power_loss: bool) -> int:
        """The node's machine is dead: forget the node and settle its disk.  How many changes were not synced."""
        self.nodes.pop(node, None)
        self.starting.pop(node, None)
        if power_loss:
            return self.disks[node].lose_power(self._random)
        self.disks[node].detach()
        return 0

    # --- looking -----------------------------------------------------------------------------

    def leader(self) -> int | None:
        """The node that leads, where it is ready and a majority agrees."""
        views = {node: running.status() for node, running in self.nodes.items() if node not in self.starting}
        for node, status in views.items():
            followers = [other for other in views.values() if other["leader"] == node]
            if status["role"] == "leader" and status["ready"] and 2 * len(followers) > len(self.members):
                return node
        return None

    def applied(self, node: int) -> int:
        position: int = self.nodes[node].status()["groups"][0]["applied_position"]
        return position

    def describe(self) -> dict[int, tuple[str, int | None, int, int]]:
        return {
            node: (status["role"], status["leader"], status["generation"], self.applied(node))
            for node, status in ((node, running.status()) for node, running in self.nodes.items())
        }
