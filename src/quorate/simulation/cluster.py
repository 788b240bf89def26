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
from quorate.node.environment import ApplyPace, Environment
from quorate.node.group import ReplicatedGroup
from quorate.node.node import HostedService, Node
from quorate.node.repair import start_node
from quorate.services.interface import Service
from quorate.simulation.disk import SimulatedDisk
from quorate.simulation.machine import Machine
from quorate.simulation.scheduler import Simulation
from quorate.storage.moves import REASON_NAME

CLIENT_PORT, PEER_PORT, ADMIN_PORT = 2181, 3181, 4181
SERVICE_GROUP = 1
COMMANDS_APPLIED_AT_ONCE = 4
"""Few, so that much comes between the pieces of an entry."""


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
    """First members."""
    service: Service
    protocol: str | None = "raft"
    """As in `NodeConfig`."""
    spares: int = 0
    """Nodes more, which belong to no cluster until they are added to one."""
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
        """The first ones."""
        self.known = range(settings.nodes + settings.spares)
        """Every node that there may be, spares behind the first members."""
        self.disks = {node: SimulatedDisk(f"{simulation.seed}/{node}") for node in self.known}
        self.on_end: Callable[[int, BaseException, bool], None] | None = None
        """Told of a node whose process ended by itself, why, and whether it had come to serve.

        Without it, that ends the simulation's run.
        """
        self.on_power_loss: Callable[[int, int], None] | None = None
        """Told of a node that lost its power in the middle of an operation, and of how many unsynced changes."""
        self.on_set_aside: Callable[[int, str], None] | None = None
        """Told of a node that found its folder damaged, set it aside for this reason, and begins anew."""
        self._random = Random(f"{simulation.seed}/cluster")
        self._protocols = protocols or (lambda _: PROTOCOLS)
        self._service = service or (lambda _: settings.service)
        for node in self.known:
            # Nothing runs there yet, and the kernel says so at once to whoever connects.
            simulation.powered[host_of(node)] = None

    def config(self, node: int) -> NodeConfig:
        """Of the first members each names all of them; a spare joins them."""
        host = host_of(node)
        named = sorted({*self.members, node})
        members = {member: Address(host_of(member), PEER_PORT) for member in named}
        listen = ListenConfig(Address(host, PEER_PORT), Address(host, ADMIN_PORT), Address(host, CLIENT_PORT))
        return NodeConfig(
            "simulated",
            node,
            Path("unused"),
            members,
            listen,
            protocol=self.settings.protocol,
            join=node not in self.members,
            limits=self.settings.limits,
            storage=self.settings.storage,
        )

    def client_addresses(self) -> list[str]:
        """Of all nodes that there may be: a client that knew the first members alone would lose touch."""
        return [f"{host_of(node)}:{CLIENT_PORT}" for node in self.known]

    def peer_address(self, node: int) -> str:
        return f"{host_of(node)}:{PEER_PORT}"

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
        # Virtual time does not pass within a turn: every piece of an entry is applied in a turn of its own.
        pace = ApplyPace(commands=COMMANDS_APPLIED_AT_ONCE, entry_s=0.0)
        environment = Environment(self.disks[node], machine.wall_ms, machine.clock, random, watch_loop=False, pace=pace)
        hosted = HostedService(SERVICE_GROUP, self._service(node), host_of(node), CLIENT_PORT)
        attempts: list[int] = []

        def make(config: NodeConfig) -> Node:
            if attempts and self.on_set_aside is not None:
                self.on_set_aside(node, self._newest_reason(node))
            attempts.append(node)
            began = self.nodes[node] = Node(config, environment, [hosted], self._protocols(node))
            began.failed.add_done_callback(lambda failed: self._failed(node, machine, failed.result(), served=True))
            return began

        await start_node(self.config(node), self.disks[node], make)

    def _started(self, node: int, machine: Machine, task: asyncio.Task[None]) -> None:
        if self.starting.get(node) is task:
            del self.starting[node]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(node, machine, error, served=False)

    def _newest_reason(self, node: int) -> str:
        disk = self.disks[node]
        folders = [name for name in disk.list("") if name.startswith("damaged-")]
        newest = max(folders, key=lambda name: int(name.removeprefix("damaged-")))
        return disk.read(f"{newest}/{REASON_NAME}").decode(errors="replace").strip()

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

    def wipe(self, node: int) -> None:
        """Empty the disk of a node that is down: who starts there next has forgotten everything."""
        assert not self.is_up(node), f"node {node} runs"
        self.disks[node].wipe()

    # --- looking -----------------------------------------------------------------------------

    def group(self, node: int, group_id: int = SERVICE_GROUP) -> ReplicatedGroup | None:
        """A group on a node that runs and belongs to a cluster."""
        running = self.nodes.get(node)
        if running is None or node in self.starting:
            return None
        return next((group for group in running.groups() if group.group_id == group_id), None)

    def leader(self, group_id: int = SERVICE_GROUP) -> int | None:
        """The node that leads a group, where it is ready and a quorum of its voters agrees."""
        groups = {node: group for node in self.nodes if (group := self.group(node, group_id)) is not None}
        for node, group in groups.items():
            if group.leads():
                agreeing = [other for other, seen in groups.items() if seen.leadership.leader == node]
                if group.replica.configuration().quorum().is_quorum(agreeing):
                    return node
        return None

    def applied(self, node: int) -> int:
        """0 where it belongs to no cluster yet."""
        group = self.group(node)
        return group.applied_position if group is not None else 0

    def describe(self) -> dict[int, tuple[str, int | None, int, int]]:
        return {
            node: (status["role"], status["leader"], status["generation"], self.applied(node))
            for node, status in ((node, running.status()) for node, running in self.nodes.items())
        }
