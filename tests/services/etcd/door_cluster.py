"""etcd doors of several nodes around one log in one process: a group without consensus, network or disk.

Clients are real: they connect over TCP, from another thread.  `DoorCluster` gives tests the levers that a real group
has no handle for: hold the log, lose or refuse what waits, fail barriers, move the leadership.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from quorate.consensus.replica import Leadership, RandomSource, Role
from quorate.services.etcd.door import EtcdDoor
from quorate.services.etcd.options import EtcdOptions
from quorate.services.etcd.service import make_service
from quorate.services.etcd.store import Store
from quorate.services.interface import DoorConfig, Refused
from tests.processes.cluster import eventually

T = TypeVar("T")
M = TypeVar("M", bound=Message)

TICK_S = 0.02
CLUSTER_ID = "0123456789abcdef"


class FakeGroup:
    """One node's `quorate.services.interface.Group`."""

    def __init__(self, cluster: DoorCluster, node_id: int) -> None:
        self._cluster = cluster
        self.node_id = node_id
        self.random: RandomSource = random.Random(node_id)
        self.leadership = cluster.leadership_of(node_id)
        self.is_congested = False
        self.submissions: list[int] = []
        """The number of commands in each."""
        self.barriers = 0

    def submit(self, commands: Sequence[bytes], waiters: Sequence[Any]) -> None:
        self.submissions.append(len(commands))
        self._cluster.log.append((self.node_id, commands, waiters))
        self._cluster.schedule()

    def barrier(self, done: Callable[[bool], None]) -> None:
        self.barriers += 1
        self._cluster.asked.append(done)
        self._cluster.schedule()

    def congested(self) -> bool:
        return self.is_congested

    def tell(self, node: int, note: bytes) -> None:
        self._cluster.tell(self.node_id, node, note)

    def quorum_contact_ms(self) -> int | None:
        return self.now_ms() if self.leadership.ready else None

    def now_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.now_ms()

    def describe(self) -> dict[str, Any]:
        position = self._cluster.position
        return {
            "voters": self._cluster.voters,
            "old_voters": [],
            "learners": self._cluster.learners,
            "commit_position": position,
            "applied_position": position,
        }


class DoorNode:
    def __init__(self, cluster: DoorCluster, node_id: int, config: DoorConfig, options: EtcdOptions) -> None:
        service = make_service(options)
        self.store: Store = service.create_store()
        self.group = FakeGroup(cluster, node_id)
        door = service.create_door(self.store, self.group, config)
        assert isinstance(door, EtcdDoor)
        self.door = door


class DoorCluster:
    """Nodes 0, 1, ...; node 0 leads.  Used on its own loop only."""

    def __init__(self, size: int, options: EtcdOptions, **config: Any) -> None:
        self.leader: int | None = 0
        self.generation = 1
        self.position = 0
        self.voters = list(range(size))
        self.learners: list[int] = []
        self.held = False
        self.log: list[tuple[int, Sequence[bytes], Sequence[Any]]] = []
        self.asked: list[Callable[[bool], None]] = []
        self.errors: list[BaseException] = []
        """What doors raised: always a bug."""
        self.cut: set[int] = set()
        """Nodes whose notes get lost."""
        self._due = False
        self._ticker: asyncio.TimerHandle | None = None
        self.nodes = [
            DoorNode(self, node, DoorConfig(**{**self._config_of(node), **config}), options) for node in range(size)
        ]

    def _config_of(self, node: int) -> dict[str, Any]:
        host = "127.0.0.1"
        return {
            "host": host,
            "port": 0,
            "reachable_host": host,
            "cluster_id": CLUSTER_ID,
            "peer": f"{host}:{7000 + node}",
        }

    async def start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._note_error)
        for node in self.nodes:
            await node.door.start()
        self.lead(self.leader)
        self._tick()

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        for node in self.nodes:
            await node.door.stop()

    # --- levers ------------------------------------------------------------------------------

    def lead(self, leader: int | None) -> None:
        """Make this node the leader, in a new generation; what waits is lost, as with a real group."""
        self.leader = leader
        self.generation += 1
        for node in self.nodes:
            node.group.leadership = self.leadership_of(node.group.node_id)
        self.lose()
        for node in self.nodes:
            node.door.leadership_changed(node.group.leadership)

    def hold(self) -> None:
        """Apply nothing, and answer no barrier, until `release`."""
        self.held = True

    def release(self) -> None:
        self.held = False
        self.schedule()

    def lose(self) -> None:
        """Everything that waits gets no answer, though it may have been applied: here, it is not."""
        for node, _, waiters in self._take():
            self.nodes[node].door.lost(waiters)

    def refuse(self, why: Refused) -> None:
        for node, _, waiters in self._take():
            self.nodes[node].door.refused(waiters, why)

    def fail_barriers(self) -> None:
        asked, self.asked = self.asked, []
        for done in asked:
            done(False)

    def congest(self, node: int, congested: bool) -> None:
        self.nodes[node].group.is_congested = congested
        if not congested:
            self.nodes[node].door.relieved()

    # --- the group's side ----------------------------------------------------------------------

    def leadership_of(self, node: int) -> Leadership:
        leads = node == self.leader
        return Leadership(Role.LEADER if leads else Role.FOLLOWER, self.leader, self.generation, leads)

    def tell(self, sender: int, receiver: int, note: bytes) -> None:
        if sender not in self.cut and receiver not in self.cut and receiver < len(self.nodes):
            asyncio.get_running_loop().call_soon(self.nodes[receiver].door.told, sender, note)

    def schedule(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._apply)

    def _take(self) -> list[tuple[int, Sequence[bytes], Sequence[Any]]]:
        log, self.log = self.log, []
        return log

    def _apply(self) -> None:
        self._due = False
        if self.held:
            return
        for submitter, commands, waiters in self._take():
            self.position += 1
            time_ms = self.nodes[0].group.wall_ms()  # the entry's: a real leader writes it there
            for node in self.nodes:
                results = node.store.apply(commands, time_ms)
                node.door.applied(results, waiters if node.group.node_id == submitter else None)
        asked, self.asked = self.asked, []
        for done in asked:
            done(self.leader is not None)

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        for node in self.nodes:
            node.door.tick(node.group.now_ms())

    def _note_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(context.get("exception") or RuntimeError(context["message"]))


class Doors:
    """A cluster on a loop in a thread of its own, and clients of it."""

    def __init__(self, cluster: DoorCluster, loop: asyncio.AbstractEventLoop) -> None:
        self.cluster = cluster
        self._loop = loop
        self._channels: dict[int, grpc.Channel] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def pull(self, lever: Callable[..., T], *values: Any) -> T:
        """Call it on the cluster's own thread."""

        async def work() -> T:
            return lever(*values)

        return self.run(work())

    def wait_for(self, what: Callable[[DoorCluster], bool], meaning: str) -> None:
        eventually(lambda: self.pull(what, self.cluster), meaning)

    def channel(self, node: int = 0) -> grpc.Channel:
        if node not in self._channels:
            self._channels[node] = grpc.insecure_channel(f"127.0.0.1:{self.cluster.nodes[node].door.port}")
        return self._channels[node]

    def begin(
        self, method: str, request: Message | bytes, kind: type[M], node: int = 0, **metadata: str
    ) -> grpc.Future[M]:
        """Begin a unary call."""
        message = request if isinstance(request, bytes) else request.SerializeToString()
        ask: grpc.UnaryUnaryMultiCallable[bytes, M] = self.channel(node).unary_unary(
            method, response_deserializer=kind.FromString
        )
        return ask.future(message, timeout=20, metadata=tuple(metadata.items()))

    def ask(self, method: str, request: Message | bytes, kind: type[M], node: int = 0, **metadata: str) -> M:
        """Make a unary call.  Raises grpc.RpcError."""
        return self.begin(method, request, kind, node, **metadata).result()

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


@contextmanager
def serving(size: int = 1, options: EtcdOptions | None = None, **config: Any) -> Iterator[Doors]:
    """Start doors, stop them in the end, and check that none of them raised anything."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> DoorCluster:
        cluster = DoorCluster(size, options or EtcdOptions(), **config)
        await cluster.start()
        return cluster

    doors = Doors(asyncio.run_coroutine_threadsafe(start(), loop).result(30), loop)
    try:
        yield doors
    finally:
        doors.close()
        doors.run(doors.cluster.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert not doors.cluster.errors, doors.cluster.errors
