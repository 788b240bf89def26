"""Who can write, and who can read what, while the nodes are parted: the choice that the CAP theorem names, as a table.

Clients stand beside their nodes and reach no other.  A trial waits until the elections that the partition sets off are
over, then asks every node for everything:

- write: put a key
- linearizable read: sees every write that was answered before it began, or does not come about
- serializable read: what the node itself has; *stale* where it misses a write that somebody got answered
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from quorate.comparison.stage import NoLeader, Setting, Stage, connect, get, in_peace, put, stage
from quorate.consensus.replica import NodeId
from quorate.net.grpc.status import GrpcError
from quorate.services.etcd.etcd_pb2 import RangeResponse
from quorate.simulation.cluster import host_of

LEADER: NodeId = 0
UNTIL_SETTLED_S = 15.0
ANSWER_LIMIT_S = 10.0
"""Longer than the door lets a request wait."""
UNTIL_HEARD_S = 1.0
"""After a write: by then all nodes that can hear of it have."""
PREFIX = b"key/"
OLD, NEW = b"old", b"new"

Link: TypeAlias = tuple[NodeId, NodeId]
"""From the first to the second nothing goes."""


@dataclass(frozen=True, slots=True)
class Side:
    """Nodes that fare alike."""

    name: str
    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """Some links of a cluster whose leader is node 0."""

    name: str
    sides: Callable[[int], list[Side]]
    """Of so many nodes."""
    cuts: Callable[[list[Side]], Iterable[Link]]
    nodes: int | None = None
    """Only in a cluster of so many."""
    least_nodes: int = 3


def _between(sides: list[Side]) -> Iterable[Link]:
    """Whole sides do not hear each other."""
    return [
        (one, other)
        for side in sides
        for rest in sides
        if side is not rest
        for one in side.nodes
        for other in rest.nodes
    ]


def _among_others(sides: list[Side]) -> Iterable[Link]:
    others = sides[1].nodes
    return [(one, other) for one in others for other in others if one != other]


def _everywhere(sides: list[Side]) -> Iterable[Link]:
    nodes = [node for side in sides for node in side.nodes]
    return [(one, other) for one in nodes for other in nodes if one != other]


def _from_first(sides: list[Side]) -> Iterable[Link]:
    return [(one, other) for one in sides[0].nodes for other in sides[1].nodes]


def _to_first(sides: list[Side]) -> Iterable[Link]:
    return [(other, one) for one, other in _from_first(sides)]


def _leader_and(companions: Callable[[int], int], name: str, rest: str) -> Callable[[int], list[Side]]:
    """The leader with so many followers, and the rest."""

    def sides(nodes: int) -> list[Side]:
        cut = 1 + companions(nodes)
        return [Side(name, tuple(range(cut))), Side(rest, tuple(range(cut, nodes)))]

    return sides


def _follower_alone(nodes: int) -> list[Side]:
    return [Side("that follower", (1,)), Side("others, the old leader too", (0, *range(2, nodes)))]


_ALONE = _leader_and(lambda _: 0, "leader", "others")

PARTITIONS = (
    Partition("leader cut off", _leader_and(lambda _: 0, "leader", "majority"), _between),
    Partition(
        "leader in a minority",
        _leader_and(lambda nodes: (nodes - 1) // 2 - 1, "leader's side", "majority"),
        _between,
        least_nodes=5,
    ),
    Partition("minority cut off", _leader_and(lambda nodes: nodes // 2, "leader's majority", "minority"), _between),
    Partition("only the leader sees all", _ALONE, _among_others),
    Partition("only a follower sees all", _follower_alone, _among_others),
    Partition("leader not heard", _ALONE, _from_first),
    Partition("leader hears nobody", _ALONE, _to_first),
    Partition("every node alone", _ALONE, _everywhere),
    Partition("two halves", _leader_and(lambda _: 1, "leader's half", "other half"), _between, nodes=4),
)


@dataclass(frozen=True, slots=True)
class SideFigures:
    """What the clients beside the nodes of one side could do.  Numbers of nodes at which it worked."""

    side: str
    nodes: int
    writes: int
    linearizable_reads: int
    serializable_reads: int
    stale_reads: int
    """Of the serializable ones."""


@dataclass(frozen=True, slots=True)
class PartitionFigures:
    """Of one variant in one partition."""

    partition: str
    nodes: int
    sides: tuple[SideFigures, ...]


def partitions_of(nodes: int) -> list[Partition]:
    """Those that a comparison of clusters of so many nodes shows; halves are of four in any case."""
    return [partition for partition in PARTITIONS if partition.nodes is not None or nodes >= partition.least_nodes]


class StaleRead(Exception):
    """A linearizable read missed a write that was answered before it: a bug, and no figure."""


@in_peace
def measure_partition(setting: Setting, partition: Partition) -> PartitionFigures:
    """`setting.nodes` is as the partition wants it."""
    with stage(setting) as on:
        sides = partition.sides(setting.nodes)
        asked = _Asked(on)
        if len(asked.write(OLD)) < setting.nodes:
            raise NoLeader(f"{setting}: not every node can write while nothing is wrong")
        on.pass_time(UNTIL_HEARD_S)
        for one, other in partition.cuts(sides):
            on.simulation.network.cut(host_of(one), host_of(other))
        on.pass_time(UNTIL_SETTLED_S)
        written = asked.write(NEW)
        on.pass_time(UNTIL_HEARD_S)
        linearizable = asked.read(serializable=False)
        serializable = asked.read(serializable=True)
    for node, values in linearizable.items():
        if not _is_fresh(values, written):
            raise StaleRead(f"{setting}, {partition.name}: node {node} read {values} after nodes {written} had written")

    def figures(side: Side) -> SideFigures:
        read = [node for node in side.nodes if node in serializable]
        return SideFigures(
            side=side.name,
            nodes=len(side.nodes),
            writes=len([node for node in side.nodes if node in written]),
            linearizable_reads=len([node for node in side.nodes if node in linearizable]),
            serializable_reads=len(read),
            stale_reads=len([node for node in read if not _is_fresh(serializable[node], written)]),
        )

    return PartitionFigures(partition.name, setting.nodes, tuple(map(figures, sides)))


def _is_fresh(values: Mapping[bytes, bytes], written: Iterable[NodeId]) -> bool:
    return all(values.get(_key_of(node)) == NEW for node in written)


def _key_of(node: NodeId) -> bytes:
    """Each node's client has its own: whether one can write does not depend on the others."""
    return PREFIX + b"%d" % node


class _Asked:
    """Clients beside all nodes, asked all at once."""

    def __init__(self, on: Stage) -> None:
        self._on = on
        self._machines = {node: on.client(node) for node in range(on.setting.nodes)}

    def write(self, value: bytes) -> list[NodeId]:
        """The nodes at which it was answered."""
        return list(self._ask(lambda node: put(_key_of(node), value)))

    def read(self, *, serializable: bool) -> dict[NodeId, dict[bytes, bytes]]:
        """Everything, as the nodes that answered have it."""
        end = PREFIX[:-1] + bytes([PREFIX[-1] + 1])
        answers = self._ask(lambda _: get(PREFIX, serializable=serializable, end=end))
        return {
            node: {found.key: found.value for found in RangeResponse.FromString(answer).kvs}
            for node, answer in answers.items()
        }

    def _ask(self, request_of: Callable[[NodeId], tuple[str, bytes]]) -> dict[NodeId, bytes]:
        """The answers of those that gave one in time."""
        answers: dict[NodeId, bytes] = {}

        async def ask(node: NodeId) -> None:
            try:
                channel = await connect(node)
                try:
                    answers[node] = await channel.unary(*request_of(node), ANSWER_LIMIT_S)
                finally:
                    await channel.close()
            except GrpcError:
                return

        tasks = [self._on.simulation.start(machine, ask(node)) for node, machine in self._machines.items()]
        self._on.wait_for(lambda: all(task.done() for task in tasks))
        for task in tasks:
            task.result()
        return dict(sorted(answers.items()))
