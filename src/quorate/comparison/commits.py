"""What a write costs: messages, bytes and time, one at a time and under load; and what a read costs beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from quorate.comparison.stage import (
    NoLeader,
    Setting,
    Stage,
    ask_at_once,
    ask_in_turn,
    connect,
    get,
    in_peace,
    put,
    stage,
)
from quorate.consensus.replica import NodeId
from quorate.net.grpc.client import Channel
from quorate.net.grpc.status import Code, GrpcError
from quorate.simulation.machine import Machine

LEADER: NodeId = 0
IDLE_S = 8.0
KEY = b"key"
WRITERS = 64
MAX_DRAWS = 10


@dataclass(frozen=True, slots=True)
class Times:
    """Of requests one after the other, in milliseconds."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class CommitFigures:
    """Of one variant on one profile.  Requests come from a client beside the node that is named."""

    quorum_round_trip_ms: float
    """To the node whose answer completes the leader's quorum, were all answers sent at once; 0 where it needs none."""
    messages: float
    """Between nodes, for one write at a time at the leader; without heartbeats."""
    message_bytes: float
    """Between nodes, for one such write of a 100-byte value: with frames; without heartbeats and keep-alives."""
    idle_messages_per_s: float
    """What an idle service says: heartbeats and their answers."""
    idle_bytes_per_s: float
    """All that idle nodes say, the cluster's own group with it."""
    write_at_leader: Times
    write_at_follower: Times
    """At the farthest node but for the slow one: its client's writes go to the leader and come back."""
    read_at_leader: Times
    """Linearizable."""
    read_at_follower: Times
    stale_read: Times
    """Serializable, at any node."""
    writes_per_s: float
    """With 64 writers at the leader, each with one write under way.  Processors are simulated roughly."""
    loaded_messages: float
    """For a write in that load: a batch of many writes is one entry."""
    loaded_bytes: float


@dataclass(frozen=True, slots=True)
class CommitSize:
    """How much is asked of a trial."""

    requests: int = 120
    """Of each kind, one after the other."""
    loaded_writes: int = 2000


def quantile(sorted_values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed."""
    return sorted_values[max(0, math.ceil(share * len(sorted_values)) - 1)]


def times_of(took_s: Sequence[float]) -> Times:
    ordered = sorted(took_s)
    return Times(quantile(ordered, 0.5) * 1000, quantile(ordered, 0.99) * 1000)


@in_peace
def measure_commits(setting: Setting, size: CommitSize) -> CommitFigures:
    """Of one leadership: lossy links may end it, and what a trial says then is no commit's price.  So another is drawn.

    Raises NoLeader where no leadership lasts for as long as a trial.
    """
    for draw in range(MAX_DRAWS):
        drawn = replace(setting, seed=f"{setting.seed}/{draw}") if draw else setting
        with stage(drawn) as on:
            figures = _figures(on, size)
        if figures is not None:
            return figures
    raise NoLeader(f"{setting}: the leadership changed in each of {MAX_DRAWS} trials")


def _figures(on: Stage, size: CommitSize) -> CommitFigures | None:
    """None where the leadership did not last."""
    generation = on.generation(LEADER)
    try:
        figures = _Trial(on, size).figures()
    except GrpcError as error:
        if error.code is not Code.UNAVAILABLE:
            raise
        return None
    return figures if generation is not None and on.generation(LEADER) == generation else None


class _Trial:
    def __init__(self, on: Stage, size: CommitSize) -> None:
        self._on = on
        self._size = size
        self._random = Random(f"{on.setting.seed}/commits")
        self._idle_messages_per_s, self._idle_bytes_per_s = self._idle()

    def _idle(self) -> tuple[float, float]:
        messages, size_bytes = self._said()
        self._on.pass_time(IDLE_S)
        after, after_bytes = self._said()
        return (after - messages) / IDLE_S, (after_bytes - size_bytes) / IDLE_S

    def _said(self) -> tuple[int, int]:
        return self._on.ledger.messages.total(), self._on.bytes_between_nodes

    def figures(self) -> CommitFigures:
        on, count = self._on, self._size.requests
        follower = on.farthest_from(LEADER)
        at_leader, at_follower = self._client(LEADER), self._client(follower)
        # The first write of a connection sends what later ones refer to.
        self._times(at_leader, [put(KEY)] * 3)
        self._times(at_follower, [put(KEY)] * 3)
        messages, size_bytes, writes = self._costs(at_leader, count)
        writes_at_follower = self._times(at_follower, [put(KEY)] * count)
        loaded_messages, loaded_bytes, writes_per_s = self._load(at_leader)
        return CommitFigures(
            quorum_round_trip_ms=self._quorum_round_trip_s() * 1000,
            messages=messages,
            message_bytes=size_bytes,
            idle_messages_per_s=self._idle_messages_per_s,
            idle_bytes_per_s=self._idle_bytes_per_s,
            write_at_leader=writes,
            write_at_follower=writes_at_follower,
            read_at_leader=self._times(at_leader, [get(KEY)] * count),
            read_at_follower=self._times(at_follower, [get(KEY)] * count),
            stale_read=self._times(at_follower, [get(KEY, serializable=True)] * count),
            writes_per_s=writes_per_s,
            loaded_messages=loaded_messages,
            loaded_bytes=loaded_bytes,
        )

    def _quorum_round_trip_s(self) -> float:
        nodes, sizes = self._on.cluster.members, self._on.setting.variant.sizes(self._on.setting.nodes)
        needed = sizes[1] if sizes is not None else len(nodes) // 2 + 1
        # The leader is the first to have it itself.
        return sorted(self._on.round_trip_s(LEADER, node) for node in nodes)[needed - 1]

    def _client(self, node: NodeId) -> tuple[Machine, Channel]:
        machine = self._on.client(node)
        return machine, self._on.run(machine, connect(node))

    def _times(self, client: tuple[Machine, Channel], requests: Sequence[tuple[str, bytes]]) -> Times:
        machine, channel = client
        return times_of(self._on.run(machine, ask_in_turn(machine, channel, requests, self._random)))

    def _costs(self, client: tuple[Machine, Channel], count: int) -> tuple[float, float, Times]:
        """Messages and bytes for one write, and how long it takes."""
        messages, size_bytes = self._said()
        began_s = self._on.simulation.now_s
        times = self._times(client, [put(KEY)] * count)
        return *self._for_each(messages, size_bytes, began_s, count), times

    def _for_each(self, messages: int, size_bytes: int, began_s: float, count: int) -> tuple[float, float]:
        """What was said since then for each of `count` writes, without what would have been said anyway."""
        after, after_bytes = self._said()
        lasted_s = self._on.simulation.now_s - began_s
        return (
            (after - messages - self._idle_messages_per_s * lasted_s) / count,
            (after_bytes - size_bytes - self._idle_bytes_per_s * lasted_s) / count,
        )

    def _load(self, client: tuple[Machine, Channel]) -> tuple[float, float, float]:
        """Messages and bytes for one write among many, and how many there are in a second."""
        machine, channel = client
        count = self._size.loaded_writes
        messages, size_bytes = self._said()
        began_s = self._on.simulation.now_s
        self._on.run(machine, ask_at_once([channel], [put(KEY)] * count, WRITERS))
        lasted_s = self._on.simulation.now_s - began_s
        return *self._for_each(messages, size_bytes, began_s, count), count / lasted_s
