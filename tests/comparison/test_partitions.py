"""Who can write, and who can read what: what the CAP theorem allows, and which side of it each protocol takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from quorate.comparison.partitions import (
    PARTITIONS,
    PartitionFigures,
    SideFigures,
    StaleRead,
    measure_partition,
    partitions_of,
)
from quorate.comparison.profiles import PROFILES, VARIANTS, Variant
from quorate.comparison.stage import Setting
from quorate.consensus.membership import Configuration
from quorate.consensus.records import Recovered
from quorate.consensus.replica import (
    BarrierPassed,
    ConsensusProtocol,
    Effects,
    Event,
    RandomSource,
    ReadBarrier,
    Replica,
    ReplicaConfig,
    Status,
)

BY_NAME = {partition.name: partition for partition in PARTITIONS}


def parted(variant: Variant, name: str, nodes: int = 5) -> PartitionFigures:
    partition = BY_NAME[name]
    return measure_partition(Setting(variant, partition.nodes or nodes, PROFILES["rack"], "0"), partition)


def does_all(side: SideFigures) -> bool:
    done = (side.writes, side.linearizable_reads, side.serializable_reads)
    return done == (side.nodes,) * 3 and not side.stale_reads


def reads_what_it_has(side: SideFigures, *, stale: bool) -> bool:
    return (side.writes, side.linearizable_reads, side.serializable_reads, side.stale_reads) == (
        *(0, 0, side.nodes),
        side.nodes if stale else 0,
    )


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        *(("raft", "leader in a minority"), ("paxos", "leader cut off"), ("zab", "leader cut off")),
        *(("paxos", "leader not heard"), ("zab", "leader hears nobody")),
    ],
)
def test_the_majority_goes_on_without_its_leader_and_the_leader_stops(variant: str, name: str) -> None:
    leader, others = parted(VARIANTS[variant], name, nodes=BY_NAME[name].least_nodes).sides
    assert does_all(others)
    assert reads_what_it_has(leader, stale=True)


@pytest.mark.parametrize(
    ("variant", "name"),
    [("raft", "two halves"), ("paxos", "two halves"), ("zab", "two halves"), ("raft", "every node alone")],
)
def test_without_a_majority_anywhere_nobody_writes(variant: str, name: str) -> None:
    sides = parted(VARIANTS[variant], name, nodes=3).sides
    assert all(reads_what_it_has(side, stale=False) for side in sides)


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        *(("raft", "only the leader sees all"), ("raft", "only a follower sees all")),
        *(("paxos", "only a follower sees all"), ("zab", "only a follower sees all")),
    ],
)
def test_one_node_that_sees_all_is_enough(variant: str, name: str) -> None:
    """It leads, or comes to lead, and the others reach it."""
    assert all(map(does_all, parted(VARIANTS[variant], name, nodes=5).sides))


def test_of_three_nodes_two_are_a_majority_and_who_sees_the_follower_only_is_left_out() -> None:
    hub, others = parted(VARIANTS["raft"], "only a follower sees all", nodes=3).sides
    assert does_all(hub)
    assert (others.writes, others.linearizable_reads, others.stale_reads) == (1, 1, 1)


def test_small_quorums_write_on_the_leaders_side_whatever_its_size() -> None:
    """And a majority on the other side cannot elect: it takes the consent of somebody whom every write met."""
    leader, others = parted(VARIANTS["flexible"], "leader in a minority").sides
    assert does_all(leader)
    assert reads_what_it_has(others, stale=True)


def test_three_nodes_have_no_leader_in_a_minority_of_several() -> None:
    names = [partition.name for partition in partitions_of(3)]
    assert "leader in a minority" not in names
    assert {"leader cut off", "minority cut off", "two halves"} <= set(names)


# --- the check can fail ------------------------------------------------------------------------------


class Credulous:
    """A replica that takes itself for up to date."""

    def __init__(self, replica: Replica) -> None:
        self.deadline_ms: Callable[[], int] = replica.deadline_ms
        self.status: Callable[[], Status] = replica.status
        self.configuration: Callable[[], Configuration] = replica.configuration
        self.settled_version: Callable[[], int] = replica.settled_version
        self.quorum_contact_ms: Callable[[], int | None] = replica.quorum_contact_ms
        self.uncommitted_bytes: Callable[[], int] = replica.uncommitted_bytes
        self._replica = replica

    def step(self, event: Event, now_ms: int) -> Effects:
        if isinstance(event, ReadBarrier):
            return Effects(barriers_passed=[BarrierPassed(event.barrier_id, 0)])
        return self._replica.step(event, now_ms)


@dataclass(frozen=True)
class CredulousRaft(Variant):
    def build(self, nodes: int) -> ConsensusProtocol:
        protocol = VARIANTS["raft"].build(nodes)

        def build(config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> Replica:
            return Credulous(protocol.build(config, recovered, random, now_ms))

        return replace(protocol, build=build)


def test_a_linearizable_read_that_misses_a_write_is_no_figure() -> None:
    with pytest.raises(StaleRead, match="leader cut off: node 0 read"):
        parted(CredulousRaft("credulous", "raft"), "leader cut off", nodes=3)
