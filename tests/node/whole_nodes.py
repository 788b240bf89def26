"""A simulated cluster, with the short words in which the tests of this folder tell their stories."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from quorate.node.config import LimitsConfig
from quorate.node.node import Node
from quorate.node.protocols import protocol_text, protocols_of
from quorate.node.room import CLUSTER_GROUP
from quorate.node.roster import RemovedFromCluster
from quorate.services.cluster.commands import Add, Promote, Remove
from quorate.services.cluster.door import ChangeRefused, OutcomeUnknown
from quorate.services.cluster.plan import judge
from quorate.services.interface import Service
from quorate.services.zookeeper.service import ZOOKEEPER
from quorate.services.zookeeper.store import Store
from quorate.simulation.cluster import CLIENT_PORT, ClusterSettings, SimulatedCluster, client_host, host_of
from quorate.simulation.scheduler import Simulation

T = TypeVar("T")
PROTOCOL = os.environ.get("QUORATE_PROTOCOL") or protocol_text(protocols_of(None, [ZOOKEEPER.name]))
"""What the clusters of this folder's tests run on: the defaults, or all of it on what the environment says."""


def endpoint_of(node: int) -> str:
    return f"{host_of(node)}:{CLIENT_PORT}"


class WholeNodes(SimulatedCluster):
    """Nodes with ZooKeeper, and one machine for all their clients."""

    def __init__(
        self,
        count: int = 3,
        seed: int = 0,
        *,
        spares: int = 0,
        limits: LimitsConfig | None = None,
        protocol: str = PROTOCOL,
    ) -> None:
        settings = ClusterSettings(count, ZOOKEEPER, protocol, spares, limits or LimitsConfig())
        super().__init__(Simulation(seed), settings, service=self._with_store_at_hand)
        self.random = Random(seed)
        self.stores: dict[int, Store] = {}
        self.ended: dict[int, BaseException] = {}
        """Why a node's process ended by itself; only what was removed may."""
        self.on_end = self._ended
        self._clients = self.simulation.boot(client_host(0), "client-0")

    def _with_store_at_hand(self, node: int) -> Service:
        store = self.stores[node] = Store()
        return Service(ZOOKEEPER.name, lambda: store, ZOOKEEPER.create_door)

    def _ended(self, node: int, error: BaseException, served: bool) -> None:
        if not isinstance(error, RemovedFromCluster):
            raise error
        self.ended[node] = error

    # --- nodes -------------------------------------------------------------------------------

    def start_and_wait(self, node: int) -> Node:
        """Start a node and wait until it serves."""
        self.start(node)
        self.wait_for(lambda: node not in self.starting or None)
        return self.nodes[node]

    def start_all(self, limit_s: float = 30.0) -> int:
        """Start every node and wait for a leader: that one."""
        for node in self.members:
            self.start(node)
        return self.wait_for_leader(limit_s)

    def lose_power(self, node: int) -> None:
        self.kill(node, power_loss=True)

    def part(self, one: int, other: int) -> None:
        """Hold back what two nodes send to each other, until `mend`."""
        self.simulation.network.cut(host_of(one), host_of(other))
        self.simulation.network.cut(host_of(other), host_of(one))

    def mend(self, one: int, other: int) -> None:
        self.simulation.network.mend(host_of(one), host_of(other))
        self.simulation.network.mend(host_of(other), host_of(one))

    def close(self) -> None:
        """Stop what still runs; it must be able to."""
        for node in list(self.nodes):
            self.stop(node, lambda: None)
        self.wait_for(lambda: not self.nodes or None)

    # --- members -----------------------------------------------------------------------------

    def change(self, change: Add | Promote | Remove, *, limit_s: float = 30.0) -> None:
        """Have a change decided, as `quorate member` asks for it, and wait until every group has followed."""
        decided = self.wait_for(lambda: self._try(change), limit_s)
        self.wait_for(lambda: self.settled(decided) or None, limit_s)

    def _try(self, change: Add | Promote | Remove) -> int | None:
        """The version that it led to; None where it has to be asked for again."""
        leader = self.leader(CLUSTER_GROUP)
        if leader is None:
            return None
        node, answers = self.nodes[leader], list[int]()

        async def ask() -> None:
            verdict = judge(node.members, change, node.neighbours.alive(), node.neighbours.lags())
            if verdict.refusal(forced=True) is None and node.cluster_door is not None:
                with contextlib.suppress(ChangeRefused, OutcomeUnknown):
                    outcome = await node.cluster_door.submit(change)
                    if outcome.problem is None:
                        answers.append(outcome.version)

        self.simulation.start(self.machine(leader), ask())
        self.pass_time(0.1)
        return answers[0] if answers else None

    def settled(self, version: int = 0) -> bool:
        """All members serve, know the same members, and every group goes by them."""
        newest = max((node.members for node in self.nodes.values()), key=lambda store: store.version)
        if newest.version < version or newest.under_way() or any(m.refilling for m in newest.members.values()):
            return False
        serving = [node for node in newest.members if self.group(node) is not None]
        return len(serving) == len(newest.members) and all(
            group.replica.configuration() == newest.goal() and group.replica.settled_version() == newest.version
            for node in serving
            for group in self.nodes[node].groups()
        )

    def voters(self) -> list[int]:
        """Of the service's group, as its leader has them."""
        return list(self.nodes[self.wait_for_leader()].groups()[0].replica.configuration().voters)

    # --- time --------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """A client's work, to its end."""
        return self.simulation.run(self._clients, work)

    def pass_time(self, duration_s: float) -> None:
        self.simulation.pass_until(self.simulation.now_s + duration_s)

    def wait_for(self, what: Callable[[], T | None], limit_s: float = 30.0) -> T:
        """Let time pass until `what` gives something."""
        deadline_s = self.simulation.now_s + limit_s
        while (found := what()) is None:
            assert self.simulation.now_s < deadline_s, f"still waiting after {limit_s} s: {self.describe()}"
            self.pass_time(0.01)
        return found

    def wait_for_leader(self, limit_s: float = 30.0) -> int:
        return self.wait_for(self.leader, limit_s)

    # --- looking -----------------------------------------------------------------------------

    def store_digests(self) -> set[object]:
        """One where the stores of all running nodes are equal."""
        return {self.stores[node].digest() for node in self.nodes}


async def retry(attempt: Callable[[], Awaitable[T]], *errors: type[Exception], pause_s: float = 0.05) -> T:
    """Try until it succeeds; for what may be done twice."""
    while True:
        with contextlib.suppress(*errors):
            return await attempt()
        await asyncio.sleep(pause_s)
