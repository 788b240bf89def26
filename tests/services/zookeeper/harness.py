"""Doors of several nodes around one log in one process: a group without consensus, network or disk.

`Cluster` applies whatever any node submits to all stores, in one order, one batch a turn of
the loop, and gives tests the levers that a real group has no handle for: hold the log, lose
or refuse what waits, move the leadership, cut a node off from notes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from quorate.consensus.replica import Leadership, RandomSource, Role
from quorate.services.interface import DoorConfig, Refused
from quorate.services.zookeeper.commands import expire_session
from quorate.services.zookeeper.door import Expiry, ZooKeeperDoor
from quorate.services.zookeeper.store import Store
from quorate.simulation.scheduler import Simulation

T = TypeVar("T")

LOG = logging.getLogger("tests.zookeeper.harness")
TICK_S = 0.05


class FakeGroup:
    """One node's `quorate.services.interface.Group`."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.random: RandomSource = random.Random(node_id)
        self.leadership = cluster.leadership_of(node_id)
        self.is_congested = False
        self.submissions = 0

    def submit(self, commands: Sequence[bytes], waiters: Sequence[Any]) -> None:
        self.submissions += 1
        self.cluster.submit(self.node_id, list(commands), list(waiters))

    def barrier(self, done: Callable[[bool], None]) -> None:
        self.cluster.barrier(done)

    def congested(self) -> bool:
        return self.is_congested

    def tell(self, node: int, note: bytes) -> None:
        self.cluster.tell(self.node_id, node, note)

    def quorum_contact_ms(self) -> int | None:
        if not self.leadership.ready:
            return None
        return self.now_ms() - self.cluster.contact_age_ms

    def now_ms(self) -> int:
        return int(self.cluster.loop.time() * 1000)

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.now_ms()

    def describe(self) -> dict[str, Any]:
        return {"voters": list(self.cluster.nodes) or [self.node_id]}


class Node:
    def __init__(self, cluster: Cluster, node_id: int, config: DoorConfig) -> None:
        self.store = Store()
        self.group = FakeGroup(cluster, node_id)
        self.door = ZooKeeperDoor(self.store, self.group, config)

    @property
    def port(self) -> int:
        assert self.door._server is not None
        port: int = self.door._server.sockets[0].getsockname()[1]
        return port

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"


class Cluster:
    """Create it on the loop that runs it; `async with` starts and stops the doors."""

    def __init__(self, size: int = 1, **limits: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.leader: int | None = 1
        self.generation = 1
        self.contact_age_ms = 0
        self.held = False
        self.silenced: set[int] = set()
        self.errors: list[BaseException] = []
        """What doors raised: always a bug."""
        self.batches = 0
        self._log: list[tuple[int, list[bytes], list[Any]]] = []
        self._barriers: list[Callable[[bool], None]] = []
        self._due = False
        self.nodes: dict[int, Node] = {}
        for node_id in range(1, size + 1):
            self.nodes[node_id] = Node(self, node_id, DoorConfig("127.0.0.1", 0, "127.0.0.1:9", **limits))

    async def __aenter__(self) -> Cluster:
        self.loop.set_exception_handler(self._note_error)
        for node in self.nodes.values():
            await node.door.start()
        self.lead(self.leader)
        self._ticker = self.loop.call_later(TICK_S, self._tick)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._ticker.cancel()
        for node in self.nodes.values():
            await node.door.stop()
        if exc[0] is None:
            assert not self.errors, self.errors

    @property
    def endpoints(self) -> list[str]:
        return [node.endpoint for node in self.nodes.values()]

    # --- levers ------------------------------------------------------------------------------

    def lead(self, leader: int | None) -> None:
        """Make this node the leader, in a new generation."""
        self.leader = leader
        self.generation += 1
        for node_id, node in self.nodes.items():
            node.group.leadership = self.leadership_of(node_id)
            node.door.leadership_changed(node.group.leadership)

    def hold(self) -> None:
        """Apply nothing until `release`."""
        self.held = True

    def release(self) -> None:
        self.held = False
        self._schedule()

    def lose(self) -> None:
        """Everything that waits gets no answer, though it may have been applied: here, it is not."""
        for node_id, _, waiters in self._take():
            self.nodes[node_id].door.lost(waiters)

    def refuse(self, why: Refused) -> None:
        for node_id, _, waiters in self._take():
            self.nodes[node_id].door.refused(waiters, why)

    def expire(self, session: int) -> None:
        """As if its clock had run out on the leader."""
        generation = self.nodes[1].store.sessions[session].generation
        self.submit(1, [expire_session(session, generation)], [Expiry(session)])

    def cut_connections(self) -> None:
        for node in self.nodes.values():
            for connection in list(node.door._connections):
                connection.transport.abort()

    def congest(self, node_id: int, congested: bool) -> None:
        node = self.nodes[node_id]
        node.group.is_congested = congested
        if not congested:
            node.door.relieved()

    # --- the group's side ----------------------------------------------------------------------

    def leadership_of(self, node_id: int) -> Leadership:
        leads = node_id == self.leader
        return Leadership(Role.LEADER if leads else Role.FOLLOWER, self.leader, self.generation, leads)

    def submit(self, node_id: int, commands: list[bytes], waiters: list[Any]) -> None:
        self._log.append((node_id, commands, waiters))
        self._schedule()

    def barrier(self, done: Callable[[bool], None]) -> None:
        self._barriers.append(done)
        self._schedule()

    def tell(self, sender: int, receiver: int, note: bytes) -> None:
        if sender not in self.silenced and receiver not in self.silenced:
            self.loop.call_soon(self._guard, self.nodes[receiver].door.told, sender, note)

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            self.loop.call_soon(self._apply)

    def _take(self) -> list[tuple[int, list[bytes], list[Any]]]:
        log, self._log = self._log, []
        return log

    def _apply(self) -> None:
        self._due = False
        if self.held:
            return
        time_ms = next(iter(self.nodes.values())).group.wall_ms()
        for submitter, commands, waiters in self._take():
            self.batches += 1
            for node_id, node in self.nodes.items():
                results = node.store.apply(commands, time_ms)
                self._guard(node.door.applied, results, waiters if node_id == submitter else None)
        barriers, self._barriers = self._barriers, []
        for done in barriers:
            self._guard(done, self.leader is not None)

    def _tick(self) -> None:
        for node in self.nodes.values():
            self._guard(node.door.tick, node.group.now_ms())
        self._ticker = self.loop.call_later(TICK_S, self._tick)

    def _guard(self, call: Callable[..., None], *values: Any) -> None:
        try:
            call(*values)
        except Exception as error:
            self._note_error(self.loop, {"exception": error, "message": str(error)})

    def _note_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        LOG.error("%s", context, exc_info=context.get("exception"))
        self.errors.append(context.get("exception") or RuntimeError(context["message"]))


class ClusterThread:
    """A cluster on a loop in a thread of its own, for clients that block (kazoo)."""

    def __init__(self, size: int = 1, **limits: Any) -> None:
        self._size = size
        self._limits = limits
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.cluster: Cluster

    def __enter__(self) -> ClusterThread:
        self._thread.start()
        self.cluster = self.run(self._open())
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(self.cluster.__aexit__(*exc))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def hosts(self) -> str:
        return ",".join(self.cluster.endpoints)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def call(self, function: Callable[..., T], *values: Any) -> T:
        """Pull a lever on the cluster's own thread."""

        async def work() -> T:
            return function(*values)

        return self.run(work())

    async def _open(self) -> Cluster:
        return await Cluster(self._size, **self._limits).__aenter__()


def on_simulated_loop(work: Callable[[], Coroutine[Any, Any, T]], seed: int = 1) -> T:
    """Run to the end in simulated time, on one machine."""
    simulation = Simulation(seed)
    machine = simulation.boot("127.0.0.1")

    async def begin() -> T:
        return await work()

    return simulation.run(machine, begin())
