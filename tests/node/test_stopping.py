"""Nodes that stop in order, one or many at a time: who leads then, and who waits for whom.  All times are simulated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from quorate.consensus import paxos, raft, zab
from quorate.consensus.paxos.ballots import round_of
from quorate.consensus.replica import Leadership, Role
from quorate.node.protocols import protocols_of
from quorate.node.room import CLUSTER_GROUP
from quorate.simulation.cluster import SERVICE_GROUP
from tests.node.whole_nodes import PROTOCOL, WholeNodes

ELECTION_TIMEOUT_S = 0.3
"""The default: without a hand-over nobody leads before."""


HAND_OVER = {"raft": raft.messages.TimeoutNow, "paxos": paxos.messages.TimeoutNow, "zab": zab.messages.HandOver}


def led(cluster: WholeNodes) -> tuple[int, int]:
    """Who leads the service, and in which term, epoch or round of ballots."""
    leader = cluster.wait_for_leader()
    group = cluster.group(leader)
    assert group is not None
    generation = group.leadership.generation
    return leader, round_of(generation) if group.protocol.name == "paxos" else generation


def stop(cluster: WholeNodes, nodes: Sequence[int]) -> list[int]:
    """Ask them to stop; returns a list to which each is added when it has."""
    stopped: list[int] = []
    for node in nodes:
        cluster.stop(node, lambda node=node: stopped.append(node))  # type: ignore[misc]
    return stopped


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_whole_cluster_that_stops_waits_for_nobody(count: int) -> None:
    for seed in range(5):
        cluster = WholeNodes(count, seed)
        cluster.start_all()
        cluster.pass_time(1)
        stopped = stop(cluster, [*cluster.nodes])
        cluster.pass_time(ELECTION_TIMEOUT_S / 2)
        assert sorted(stopped) == [*range(count)], f"seed {seed}"


@pytest.mark.parametrize("later_ms", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("seed", range(4))
def test_a_leader_that_stops_with_another_is_followed_by_one_that_stays(seed: int, later_ms: int) -> None:
    cluster = WholeNodes(5, seed)
    cluster.start_all()
    cluster.pass_time(1)
    leader, generation = led(cluster)
    # By the seeds this is now the one that would have led next, now another.
    other = (leader + 1 + seed) % 5
    began_s = cluster.simulation.now_s
    stopped = stop(cluster, [leader])
    cluster.pass_time(later_ms / 1000)
    also_stopped = stop(cluster, [other])
    cluster.wait_for(lambda: (stopped and also_stopped) or None)
    successor, its_generation = led(cluster)
    assert cluster.simulation.now_s - began_s < ELECTION_TIMEOUT_S
    assert successor not in (leader, other)
    # One more where the other had come to lead before it was asked to stop; of ZAB's, a discovery that the other
    # began and did not end takes one, too.
    runs_on_zab = protocols_of(PROTOCOL, ["zookeeper"])["zookeeper"] == "zab"
    assert its_generation - generation <= (2 if later_ms else 1) + runs_on_zab
    cluster.close()


def test_a_leader_that_stops_tells_a_peer_that_has_come_back_from_one_that_leaves() -> None:
    """A node that stopped once is a successor again after its return."""
    cluster = WholeNodes(3)
    cluster.start_all()
    cluster.pass_time(1)
    for _ in range(3):
        leader, generation = led(cluster)
        others = [node for node in cluster.nodes if node != leader]
        for node in others:
            stopped = stop(cluster, [node])
            cluster.wait_for(lambda stopped=stopped: stopped or None)  # type: ignore[misc]
            cluster.start_and_wait(node)
            cluster.pass_time(2)
        assert led(cluster) == (leader, generation), "followers came and went"
        began_s = cluster.simulation.now_s
        stopped = stop(cluster, [leader])
        cluster.wait_for(lambda stopped=stopped: stopped or None)  # type: ignore[misc]
        assert led(cluster)[1] == generation + 1
        assert cluster.simulation.now_s - began_s < ELECTION_TIMEOUT_S
        cluster.start_and_wait(leader)
        cluster.pass_time(2)
    for group_id in (SERVICE_GROUP, CLUSTER_GROUP):
        assert cluster.leader(group_id) is not None
    cluster.close()


def test_a_node_that_stops_takes_no_leadership() -> None:
    """Asked a moment before its leader hears that it stops, it would lead and be gone; so the leader asks another."""
    cluster = WholeNodes(3, seed=next(seed for seed in range(20) if leads_one_group_only(seed)))
    cluster.start_all()
    leader = cluster.wait_for_leader()
    # While it hands the cluster's group over, it is still there.
    asked = cluster.wait_for(lambda: cluster.leader(CLUSTER_GROUP))
    assert asked != leader
    node, group = cluster.nodes[asked], cluster.group(asked)
    assert group is not None
    generation = group.leadership.generation

    async def stop_and_be_asked() -> None:
        stopping = asyncio.get_running_loop().create_task(node.stop())
        await asyncio.sleep(0)
        node.received(leader, [(SERVICE_GROUP, HAND_OVER[group.protocol.name](generation))])
        assert not stopping.done()
        assert group.leadership == Leadership(Role.FOLLOWER, leader, generation)
        await stopping

    asking = cluster.simulation.start(cluster.machine(asked), stop_and_be_asked())
    cluster.wait_for(lambda: asking.done() or None)
    asking.result()
    cluster.kill(asked)
    cluster.close()


def leads_one_group_only(seed: int) -> bool:
    cluster = WholeNodes(3, seed)
    leader = cluster.start_all()
    return cluster.wait_for(lambda: cluster.leader(CLUSTER_GROUP)) != leader
