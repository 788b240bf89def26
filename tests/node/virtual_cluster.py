"""Whole nodes on a loop with virtual time: real code, sockets and disks in memory, one seed.

Each node is a machine of the `VirtualLoop` with a `MemoryDisk` of its own.  Nothing of the
node knows: this is what shows that all its I/O goes through the loop and the `Disk`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from quorate.node.config import Address, LimitsConfig, ListenConfig, NodeConfig, StorageConfig
from quorate.node.environment import Environment
from quorate.node.node import HostedService, Node
from quorate.services.interface import Service
from quorate.services.zookeeper.service import ZOOKEEPER
from quorate.services.zookeeper.store import Store
from tests.support.memory_disk import MemoryDisk
from tests.support.virtual_loop import VirtualLoop

T = TypeVar("T")

CLIENT_PORT, PEER_PORT, ADMIN_PORT = 2181, 3181, 4181
EPOCH_MS = 1_800_000_000_000


def host_of(node: int) -> str:
    return f"10.0.0.{node + 1}"


class VirtualCluster:
    """Nodes by id; `start`, `kill` (power loss) and `start` again at will."""

    def __init__(
        self,
        count: int = 3,
        seed: int = 0,
        *,
        storage: StorageConfig | None = None,
        limits: LimitsConfig | None = None,
    ) -> None:
        self.loop = VirtualLoop(seed)
        self.random = Random(seed)
        self.nodes: dict[int, Node] = {}
        self.disks = {node: MemoryDisk() for node in range(count)}
        self._stores: dict[int, Store] = {}
        self._limits = limits or LimitsConfig()
        self._storage = storage or StorageConfig(segment_bytes=1 << 16, snapshot_log_bytes=1 << 17)

    # --- machines ----------------------------------------------------------------------------

    def config(self, node: int) -> NodeConfig:
        host = host_of(node)
        members = {member: Address(host_of(member), PEER_PORT) for member in self.disks}
        listen = ListenConfig(Address(host, PEER_PORT), Address(host, ADMIN_PORT), Address(host, CLIENT_PORT))
        return NodeConfig("virtual", node, Path("unused"), members, listen, limits=self._limits, storage=self._storage)

    async def _begin(self, node: int) -> None:
        wall_ms = lambda: EPOCH_MS + int(self.loop.time() * 1000)  # noqa: E731
        environment = Environment(self.disks[node], wall_ms, self.loop.time, Random(self.random.getrandbits(64)))
        store = self._stores[node] = Store()
        service = Service("zookeeper", lambda: store, ZOOKEEPER.create_door)
        started = Node(self.config(node), environment, [HostedService(1, service, host_of(node), CLIENT_PORT)])
        await started.start()
        self.nodes[node] = started

    def start(self, node: int) -> Node:
        """Start a node and wait until it serves."""
        with self.loop.machine(host_of(node)):
            self.loop.run_until_complete(self._begin(node))
        return self.nodes[node]

    def start_soon(self, node: int) -> None:
        """Start a node beside whatever comes next."""
        with self.loop.machine(host_of(node)):
            self._starting = self.loop.create_task(self._begin(node))

    def start_all(self) -> None:
        for node in self.disks:
            self.start(node)

    def kill(self, node: int) -> None:
        """Power loss: no code of the node runs any more, and what its disk had not synced may be gone."""
        del self.nodes[node]
        self.loop.kill(host_of(node))
        self.disks[node] = self.disks[node].crash(self.random)

    # --- time --------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a client's work on a machine of its own."""
        with self.loop.machine("10.0.1.1"):
            result: T = self.loop.run_until_complete(work)
            return result

    def pass_time(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def wait_for(self, what: Callable[[], T | None], limit_s: float = 30.0) -> T:
        """Let time pass until `what` gives something."""
        deadline_s = self.loop.time() + limit_s
        while (found := what()) is None:
            assert self.loop.time() < deadline_s, f"still waiting after {limit_s} s: {self.describe()}"
            self.pass_time(0.01)
        return found

    # --- looking -----------------------------------------------------------------------------

    def leader(self) -> int | None:
        """The node that leads, where it is ready and a majority agrees."""
        views = {node: running.status() for node, running in self.nodes.items()}
        for node, status in views.items():
            followers = [other for other in views.values() if other["leader"] == node]
            if status["role"] == "leader" and status["ready"] and 2 * len(followers) > len(self.disks):
                return node
        return None

    def wait_for_leader(self, limit_s: float = 30.0) -> int:
        return self.wait_for(self.leader, limit_s)

    def applied(self, node: int) -> int:
        position: int = self.nodes[node].status()["groups"][0]["applied_position"]
        return position

    def digest(self, node: int) -> object:
        """Equal for equal stores."""
        return self._stores[node].digest()

    def describe(self) -> dict[int, tuple[str, int | None, int, int]]:
        return {
            node: (status["role"], status["leader"], status["generation"], self.applied(node))
            for node, status in ((node, running.status()) for node, running in self.nodes.items())
        }

    def close(self) -> None:
        """Stop what still runs, so that no task outlives the test."""
        for node, running in list(self.nodes.items()):
            with self.loop.machine(host_of(node)):
                self.loop.run_until_complete(running.stop())
        self.loop.close()


async def retry(attempt: Callable[[], Awaitable[T]], *errors: type[Exception], pause_s: float = 0.05) -> T:
    """Try until it succeeds; for what may be done twice."""
    while True:
        with contextlib.suppress(*errors):
            return await attempt()
        await asyncio.sleep(pause_s)
