"""One cluster of whole nodes on one network, with clients beside its nodes.  Times are true times in seconds."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import count
from random import Random
from typing import Any, Final, ParamSpec, TypeVar

from quorate.comparison.ledger import Ledger
from quorate.comparison.profiles import Profile, Variant
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.replica import ConsensusProtocol, NodeId
from quorate.net.grpc.client import Channel
from quorate.node.config import LimitsConfig, StorageConfig
from quorate.services.etcd.etcd_pb2 import PutRequest, RangeRequest
from quorate.services.etcd.options import EtcdOptions
from quorate.services.etcd.service import make_service
from quorate.simulation.cluster import CLIENT_PORT, PEER_PORT, ClusterSettings, SimulatedCluster, client_host, host_of
from quorate.simulation.machine import Machine
from quorate.simulation.scheduler import Simulation
from quorate.simulation.undisturbed import undisturbed

T = TypeVar("T")
P = ParamSpec("P")
Address = tuple[str, int]

LOOK_S: Final = 0.01
LEADER_LIMIT_S: Final = 120.0
"""Far longer than any election takes: who waits longer waits for ever."""
SETTLING_S: Final = 3.0
"""After which the leader's measures of round trips have reached the others, and links are up."""
LONGEST_PAUSE_S: Final = 0.1
VALUE: Final = b"v" * 100
PUT: Final = "/etcdserverpb.KV/Put"
RANGE: Final = "/etcdserverpb.KV/Range"


class NoLeader(Exception):
    """The cluster has none, or none that lasts, though little is in its way: a bug, of the cluster or of the trial."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a stage is made of."""

    variant: Variant
    nodes: int
    profile: Profile
    seed: str


class Stage:
    """Use as a context: `with stage(setting) as on: ...`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.simulation = Simulation(setting.seed)
        self.ledger = Ledger()
        self.bytes_between_nodes = 0
        protocol = setting.variant.build(setting.nodes)
        self._protocols: Mapping[str, ConsensusProtocol] = {**PROTOCOLS, protocol.name: protocol}
        self.cluster = SimulatedCluster(
            self.simulation,
            ClusterSettings(
                setting.nodes,
                make_service(EtcdOptions()),
                setting.variant.protocol,
                limits=LimitsConfig(),
                storage=StorageConfig(segment_bytes=1 << 20),
            ),
            protocols=self._protocols_of,
        )
        self.simulation.network.meter = self._count
        self._clients = count()
        self._lay_out_nodes()

    def _protocols_of(self, node: NodeId) -> Mapping[str, ConsensusProtocol]:
        return self.ledger.protocols(self._protocols, node, self.cluster.machine(node).true_s)

    def _count(self, source: Address, target: Address, size_bytes: int) -> None:
        if PEER_PORT in (source[1], target[1]):
            self.bytes_between_nodes += size_bytes

    # --- the network -------------------------------------------------------------------------

    def _lay_out_nodes(self) -> None:
        profile, nodes = self.setting.profile, range(self.setting.nodes)
        for node in nodes:
            self.cluster.disks[node].sync_s = profile.sync_s
            for other in nodes:
                if other != node:
                    quality = self.simulation.network.quality(host_of(node), host_of(other))
                    quality.delay_s = profile.delay_s(node, other)
                    quality.loss = profile.loss
        slow = nodes[-1]
        if profile.slow_sync_s is not None:
            self.cluster.disks[slow].sync_s = profile.slow_sync_s
        for other in nodes[:-1]:
            for ends in ((slow, other), (other, slow)):
                quality = self.simulation.network.quality(*map(host_of, ends))
                quality.delay_factor = profile.slow_delay_factor

    def client(self, node: NodeId) -> Machine:
        """A new machine beside a node, on the way to which nothing is lost; in `STEPS` it takes no time."""
        host = client_host(next(self._clients))
        profile = self.setting.profile
        near = (0.0, 0.0) if profile.sync_s == (0.0, 0.0) else profile.same_place_s
        for ends in ((host, host_of(node)), (host_of(node), host)):
            self.simulation.network.quality(*ends).delay_s = near
        return self.simulation.boot(host, host)

    def round_trip_s(self, node: NodeId, other: NodeId) -> float:
        """Of a message between two nodes and its answer, on average, where neither is lost."""
        if node == other:
            return 0.0
        ways = [
            self.simulation.network.quality(host_of(source), host_of(target))
            for source, target in ((node, other), (other, node))
        ]
        return sum(sum(way.delay_s) / 2 * way.delay_factor for way in ways)

    def farthest_from(self, node: NodeId) -> NodeId:
        """The node farthest away, but for the slow one."""
        sound = [other for other in self.cluster.members if not self._is_slow(other)]
        return max(sound, key=lambda other: self.round_trip_s(node, other))

    def _is_slow(self, node: NodeId) -> bool:
        return self.setting.profile.slow_sync_s is not None and node == self.setting.nodes - 1

    # --- time --------------------------------------------------------------------------------

    def pass_time(self, duration_s: float) -> None:
        self.simulation.pass_until(self.simulation.now_s + duration_s)

    def wait_for(self, what: Callable[[], bool], limit_s: float = LEADER_LIMIT_S) -> None:
        """Raises NoLeader."""
        until_s = self.simulation.now_s + limit_s
        while not what():
            if self.simulation.now_s >= until_s:
                raise NoLeader(f"{self.setting} after {limit_s:g} s: {self.cluster.describe()}")
            self.pass_time(LOOK_S)

    def run(self, machine: Machine, work: Coroutine[Any, Any, T]) -> T:
        """Let time pass until `work` is done there."""
        return self.simulation.run(machine, work)

    # --- the cluster -------------------------------------------------------------------------

    def start(self) -> None:
        """All nodes, led by node 0."""
        for node in self.cluster.members:
            self.cluster.start(node)
        self.lead_from(0)
        self.pass_time(SETTLING_S)
        self.lead_from(0)

    def is_whole(self) -> bool:
        """All nodes run, follow one ready leader and have applied what that has."""
        leader = self.cluster.leader()
        members = self.cluster.members
        if leader is None or any(self.cluster.group(node) is None for node in members):
            return False
        groups = [self.cluster.group(node) for node in members]
        return all(group is not None and group.leadership.leader == leader for group in groups) and (
            min(map(self.cluster.applied, members)) >= self.cluster.applied(leader)
        )

    def lead_from(self, node: NodeId) -> None:
        """See to it that this node leads, and wait until the others are up to it.  Raises NoLeader."""
        until_s = self.simulation.now_s + LEADER_LIMIT_S
        while self.simulation.now_s < until_s:
            self.wait_for(self.is_whole)
            leader = self.cluster.leader()
            if leader == node:
                return
            assert leader is not None
            group = self.cluster.group(leader)
            assert group is not None
            work = self.cluster.nodes[leader].hand_over(group, "request", "this comparison asks for it", node)
            self.run(self.cluster.machine(leader), work)
            self.pass_time(0.1)
        raise NoLeader(f"node {node} does not come to lead: {self.cluster.describe()}")

    def leader(self) -> NodeId:
        self.wait_for(self.is_whole)
        leader = self.cluster.leader()
        assert leader is not None
        return leader

    def generation(self, node: NodeId) -> int | None:
        """Of the leadership of this node; None where it does not lead."""
        group = self.cluster.group(node)
        return group.leadership.generation if group is not None and group.leads() else None


@contextmanager
def stage(setting: Setting) -> Iterator[Stage]:
    """A cluster that works, led by node 0.  Its machines end with the context."""
    on = Stage(setting)
    try:
        on.start()
        yield on
    finally:
        for host in list(on.simulation.machines):
            on.simulation.kill(host)


def in_peace(measure: Callable[P, T]) -> Callable[P, T]:
    """For a function that has stages: the same arguments give the same figures, whatever else the process does."""

    @wraps(measure)
    def measure_undisturbed(*args: P.args, **kwargs: P.kwargs) -> T:
        with undisturbed():
            figures = measure(*args, **kwargs)
            gc.collect()  # what the stages left behind, before anybody is told of it
        return figures

    return measure_undisturbed


# --- requests -------------------------------------------------------------------------------------


def put(key: bytes, value: bytes = VALUE) -> tuple[str, bytes]:
    return PUT, PutRequest(key=key, value=value).SerializeToString()


def get(key: bytes, *, serializable: bool = False, end: bytes = b"") -> tuple[str, bytes]:
    """One key, or with `end` a range."""
    return RANGE, RangeRequest(key=key, range_end=end, serializable=serializable).SerializeToString()


async def connect(node: NodeId) -> Channel:
    channel = Channel(host_of(node), CLIENT_PORT)
    await channel.connect()
    return channel


async def ask_in_turn(
    machine: Machine, channel: Channel, requests: Sequence[tuple[str, bytes]], random: Random
) -> list[float]:
    """How long each took, one after the other, in seconds.  Raises GrpcError.

    After pauses by chance: what one lost packet holds up is to meet few of them, and no rhythm to fit the heartbeats'.
    """
    took_s = []
    for method, message in requests:
        await asyncio.sleep(random.uniform(0.0, LONGEST_PAUSE_S))
        began_s = machine.loop.time()
        await channel.unary(method, message, 60.0)
        took_s.append(machine.loop.time() - began_s)
    return took_s


async def ask_at_once(channels: Sequence[Channel], requests: Sequence[tuple[str, bytes]], writers: int) -> None:
    """So many at a time, each the next one as soon as its last is answered."""
    left = iter(requests)

    async def write(channel: Channel) -> None:
        for method, message in left:
            await channel.unary(method, message, 60.0)

    await asyncio.gather(*(write(channels[number % len(channels)]) for number in range(writers)))
