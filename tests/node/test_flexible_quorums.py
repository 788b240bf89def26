"""Paxos with quorums of given sizes, in whole nodes: fewer decide, more elect, and the members stay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable

import pytest

from quorate.client.zookeeper import ZooKeeperClient
from quorate.client.zookeeper_errors import ServerError, ZooKeeperError
from quorate.node.admin import Answer, Stream
from quorate.node.operations import Operations
from quorate.node.repair import can_be_refilled
from tests.node.whole_nodes import WholeNodes, endpoint_of, retry


def write(cluster: WholeNodes, path: str, limit_s: float = 10.0) -> None:
    """Raises TimeoutError."""

    async def work() -> None:
        client = ZooKeeperClient(cluster.client_addresses(), cluster.random, 4_000)
        try:
            async with asyncio.timeout(limit_s):
                await retry(client.start, ZooKeeperError)
                await retry(lambda: client.create(path, b""), ZooKeeperError)
        finally:
            client.abandon()

    cluster.run(work())


def test_two_of_five_decide_and_four_elect() -> None:
    cluster = WholeNodes(5, protocol="paxos:4+2")
    leader = cluster.start_all()
    write(cluster, "/all")
    followers = [node for node in cluster.members if node != leader]
    for node in followers[1:]:
        cluster.kill(node)
    write(cluster, "/two")
    cluster.kill(leader)
    cluster.start(followers[1])
    cluster.start(followers[2])
    with pytest.raises(TimeoutError):
        write(cluster, "/three")
    cluster.start(followers[3])
    assert cluster.wait_for_leader() in followers
    write(cluster, "/four")
    cluster.start(leader)
    cluster.wait_for(lambda: len({cluster.applied(node) for node in cluster.members}) == 1 or None)
    assert all(cluster.stores[node].tree.get(b"/two") is not None for node in cluster.members)
    assert len(cluster.store_digests()) == 1
    assert {group["protocol"] for node in cluster.nodes.values() for group in node.status()["groups"]} == {"paxos:4+2"}
    cluster.close()


def test_writes_are_refused_where_fewer_disks_have_room_than_decide() -> None:
    cluster = WholeNodes(5, protocol="paxos:2+4")
    leader = cluster.start_all()
    full = [node for node in cluster.members if node != leader][:2]
    for node in full:
        cluster.disks[node].capacity_bytes = cluster.disks[node].used_bytes()
    outcomes: list[str] = []

    async def fill() -> None:
        client = ZooKeeperClient([endpoint_of(leader)], cluster.random, 20_000)
        await client.start()
        for number in range(400):
            try:
                async with asyncio.timeout(10):
                    await client.create(f"/{number}", bytes(500))
            except ServerError:
                outcomes.append("refused")
                break
        client.abandon()

    cluster.run(fill())
    assert outcomes == ["refused"], "three of five have room, and four decide"
    for node in full:
        cluster.disks[node].capacity_bytes = None
    cluster.pass_time(5.0)
    write(cluster, "/on")
    cluster.close()


def test_the_members_stay_as_they_are() -> None:
    cluster = WholeNodes(3, protocol="zookeeper=paxos:3+1", spares=1)
    leader = cluster.start_all()
    answers: list[Answer | Stream] = []

    async def ask() -> None:
        change = Operations(cluster.nodes[leader]).pages()["POST", "/members"]
        asked = change({"change": "add", "node": 3, "address": cluster.peer_address(3)})
        assert isinstance(asked, Awaitable)
        answers.append(await asked)

    cluster.simulation.start(cluster.machine(leader), ask())
    cluster.pass_time(0.1)
    assert isinstance(answers[0], Answer)
    problem = json.loads(answers[0].body)["problem"]
    assert "fixed sizes (3 nodes elect, 1 decide)" in problem
    assert "its members cannot be changed" in problem

    # Nor is a node let in again that comes without its folder: it would be another voter.
    follower = next(node for node in cluster.members if node != leader)
    cluster.kill(follower)
    assert not can_be_refilled(cluster.config(follower), cluster.disks[follower])
    cluster.wipe(follower)
    cluster.start_and_wait(follower)
    cluster.pass_time(5.0)
    status = cluster.nodes[follower].status()
    assert status["state"] == "joining"
    assert "came with another data folder: the quorums of this cluster are of fixed sizes" in status["waiting_for"]
    write(cluster, "/on")
    assert not cluster.nodes[leader].members.under_way()
    cluster.close()
