"""The part of `quorate compare` with real processes: three nodes of each protocol on this machine, loaded in turn.

All clusters are up at once, and rounds go from one to the next: a machine whose speed changes then changes it for all
of them, and ratios within a round say more than rates.  Nodes run as `quorate up` runs them, under its supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quorate.cli.admin import NoAnswer, NodeStatus, fetch_status
from quorate.cli.cluster_folder import write_node_config
from quorate.cli.supervisor import NodeCommand, Supervisor
from quorate.comparison.commits import WRITERS, Times, times_of
from quorate.comparison.jobs import Choice
from quorate.comparison.profiles import variant_of
from quorate.comparison.stage import get, put
from quorate.net.grpc.client import Channel, NotSentError
from quorate.net.grpc.status import GrpcError
from quorate.node.config import Address, make_config

NODES: Final = 3
HOST: Final = "127.0.0.1"
KEY: Final = b"key"
CONNECTIONS: Final = 4
LOADED_S: Final = 1.2
LONE_S: Final = 0.5
READS_S: Final = 0.2
WARM_UP_S: Final = 0.3
READY_LIMIT_S: Final = 60.0
KILL_LIMIT_S: Final = 30.0
LOOK_S: Final = 0.05
RETRY_S: Final = 0.002
CALM_S: Final = 0.5
"""Between a cluster's being whole again and the next kill."""


class RealFailed(Exception):
    """The nodes did not come to serve; the text says where to look."""


@dataclass(frozen=True, slots=True)
class RealSize:
    """How much is asked."""

    rounds: int = 5
    kills: int = 5


@dataclass(frozen=True, slots=True)
class RealFigures:
    """Of one protocol.  Ratios are to the first protocol measured, round by round; more is more of the figure."""

    protocol: str
    reference: str
    writes_per_s: float
    """The median of the rounds."""
    writes_ratios: tuple[float, ...]
    lone_write: Times
    lone_ratios: tuple[float, ...]
    """Of the p50."""
    lone_read: Times
    without_leader_s: tuple[float, ...]
    """Ascending."""

    @property
    def median_without_leader_s(self) -> float:
        return statistics.median(self.without_leader_s)

    @staticmethod
    def spread(ratios: Sequence[float]) -> str:
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


@dataclass(slots=True)
class _Round:
    writes_per_s: float
    lone_write_s: list[float]
    lone_read_s: list[float]


def real_protocols(choice: Choice) -> list[str]:
    """What real nodes can be compared with: sizes of quorums that were given are meant for `choice.nodes`."""
    variants = map(variant_of, choice.variants)
    return [of.title(NODES) for of in variants if of.given_sizes is None or choice.nodes == NODES]


def measure_real(
    protocols: Sequence[str], size: RealSize, folder: Path, progress: Callable[[str], None]
) -> list[RealFigures]:
    """Blocks.  Data is in a new folder below `folder`, gone at the end.  Raises RealFailed, KeyboardInterrupt."""
    with tempfile.TemporaryDirectory(prefix="quorate-compare-", dir=folder) as data, asyncio.Runner() as runner:
        return runner.run(_measure(protocols, size, Path(data), progress))


async def _measure(
    protocols: Sequence[str], size: RealSize, data: Path, progress: Callable[[str], None]
) -> list[RealFigures]:
    async with contextlib.AsyncExitStack() as stack:
        clusters = [
            await stack.enter_async_context(running(protocol, _new(data / str(number))))
            for number, protocol in enumerate(protocols)
        ]
        rounds: dict[str, list[_Round]] = {protocol: [] for protocol in protocols}
        kills: dict[str, list[float]] = {protocol: [] for protocol in protocols}
        for number in range(size.rounds):
            progress(f"real nodes: round {number + 1} of {size.rounds} under load")
            for cluster in _in_turn(clusters, number):
                rounds[cluster.protocol].append(await _load(cluster))
        for number in range(size.kills):
            progress(f"real nodes: kill {number + 1} of {size.kills}")
            for cluster in _in_turn(clusters, number):
                kills[cluster.protocol].append(await _kill(cluster))
    first = rounds[protocols[0]]
    return [_figures(protocol, protocols[0], rounds[protocol], first, kills[protocol]) for protocol in protocols]


def _in_turn(clusters: Sequence[_Cluster], number: int) -> list[_Cluster]:
    """None of them always comes behind the same one."""
    shift = number % len(clusters)
    return [*clusters[shift:], *clusters[:shift]]


def _figures(
    protocol: str, reference: str, rounds: Sequence[_Round], first: Sequence[_Round], kills: Sequence[float]
) -> RealFigures:
    pairs = list(zip(rounds, first, strict=True))
    return RealFigures(
        protocol=protocol,
        reference=reference,
        writes_per_s=statistics.median(one.writes_per_s for one in rounds),
        writes_ratios=tuple(one.writes_per_s / other.writes_per_s for one, other in pairs),
        lone_write=times_of([took_s for one in rounds for took_s in one.lone_write_s]),
        lone_ratios=tuple(
            statistics.median(one.lone_write_s) / statistics.median(other.lone_write_s) for one, other in pairs
        ),
        lone_read=times_of([took_s for one in rounds for took_s in one.lone_read_s]),
        without_leader_s=tuple(sorted(kills)),
    )


# --- load ------------------------------------------------------------------------------------------


async def _load(cluster: _Cluster) -> _Round:
    leader = await cluster.leader()
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(connected(cluster.clients[leader])) for _ in range(CONNECTIONS)]
        await _ask_for(WARM_UP_S, channels[0], put(KEY))
        lone_write_s = await _ask_for(LONE_S, channels[0], put(KEY))
        lone_read_s = await _ask_for(READS_S, channels[0], get(KEY))
        began_s = time.perf_counter()
        writers = [_ask_for(LOADED_S, channels[number % CONNECTIONS], put(KEY)) for number in range(WRITERS)]
        written = sum(len(took_s) for took_s in await asyncio.gather(*writers))
        return _Round(written / (time.perf_counter() - began_s), lone_write_s, lone_read_s)


async def _ask_for(duration_s: float, channel: Channel, request: tuple[str, bytes]) -> list[float]:
    """One request after the other for so long: how long each took, in seconds."""
    method, message = request
    took_s = []
    now_s = time.perf_counter()
    until_s = now_s + duration_s
    while now_s < until_s:
        await channel.unary(method, message, KILL_LIMIT_S)
        began_s, now_s = now_s, time.perf_counter()
        took_s.append(now_s - began_s)
    return took_s


async def _kill(cluster: _Cluster) -> float:
    """SIGKILL to the leader: seconds from the signal to the answer of the first write that began after it."""
    leader = await cluster.leader()
    follower = (leader + 1) % NODES
    await asyncio.sleep(CALM_S)
    async with connected(cluster.clients[follower]) as channel:
        await channel.unary(*put(KEY), KILL_LIMIT_S)
        process_id = cluster.supervisor.process_id(leader)
        assert process_id is not None
        began_s = time.perf_counter()
        os.kill(process_id, signal.SIGKILL)
        while time.perf_counter() - began_s < KILL_LIMIT_S:
            try:
                await channel.unary(*put(KEY), KILL_LIMIT_S)
            except GrpcError:
                await asyncio.sleep(RETRY_S)
            else:
                return time.perf_counter() - began_s
    raise RealFailed(f"{cluster.protocol}: no write for {KILL_LIMIT_S:g} s after a kill; see {cluster.folder}")


@contextlib.asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Channel]:
    channel = Channel(*address)
    await _within(READY_LIMIT_S, channel.connect, f"nobody answers at {address}")
    try:
        yield channel
    finally:
        await channel.close()


async def _within(limit_s: float, attempt: Callable[[], Awaitable[None]], problem: str) -> None:
    until_s = time.perf_counter() + limit_s
    while True:
        try:
            await attempt()
            return
        except NotSentError as error:
            if time.perf_counter() > until_s:
                raise RealFailed(f"{problem}: {error}") from error
        await asyncio.sleep(LOOK_S)


# --- nodes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cluster:
    protocol: str
    folder: Path
    clients: tuple[Address, ...]
    admins: tuple[Address, ...]
    supervisor: Supervisor

    async def leader(self) -> int:
        """Waits until all nodes serve, follow one ready leader and have what that has.  Raises RealFailed."""
        until_s = time.perf_counter() + READY_LIMIT_S
        while time.perf_counter() < until_s:
            found = await self._agreed_leader()
            if found is not None:
                return found
            await asyncio.sleep(LOOK_S)
        raise RealFailed(f"{self.protocol}: the nodes found no leader in {READY_LIMIT_S:g} s; see {self.folder}")

    async def _agreed_leader(self) -> int | None:
        try:
            statuses = [(await fetch_status(admin, 1.0)).status for admin in self.admins]
        except NoAnswer:
            return None
        leaders = {status.leader for status in statuses}
        leader = leaders.pop()
        if leaders or leader is None or not statuses[leader].ready:
            return None
        reached = _applied(statuses[leader])
        return leader if all(_applied(status) >= reached for status in statuses) else None


def _applied(status: NodeStatus) -> int:
    return max((group.applied_position for group in status.groups[:1]), default=-1)


@contextlib.asynccontextmanager
async def running(protocol: str, folder: Path) -> AsyncIterator[_Cluster]:
    """A cluster in a new folder, once it has a leader.  All of its processes end with the context."""
    ports = free_ports(3 * NODES)
    clients, peers, admins = (
        tuple(Address(HOST, port) for port in ports[start : start + NODES]) for start in range(0, 3 * NODES, NODES)
    )
    commands = []
    for node in range(NODES):
        config = make_config(
            {
                "cluster": "compare",
                "node": node,
                "data": str((folder / f"node-{node}" / "data").absolute()),
                "protocol": protocol,
                "services": ["etcd"],
                "members": {str(member): str(address) for member, address in enumerate(peers)},
                "listen": {"etcd": str(clients[node]), "peer": str(peers[node]), "admin": str(admins[node])},
            }
        )
        file = write_node_config(folder, config)
        arguments = (sys.executable, "-P", "-m", "quorate", "node", "--config", str(file.absolute()))
        commands.append(NodeCommand(node, arguments, file.with_name("node.log")))
    supervisor = Supervisor(commands, restart=True, report=lambda line: None)
    supervising = asyncio.create_task(supervisor.run())
    try:
        cluster = _Cluster(protocol, folder, clients, admins, supervisor)
        await cluster.leader()
        yield cluster
    finally:
        supervisor.stop()
        await supervising


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def free_ports(count: int) -> list[int]:
    """Of 127.0.0.1, which nobody has at this moment."""
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in holders:
            holder.bind((HOST, 0))
        return [int(holder.getsockname()[1]) for holder in holders]
