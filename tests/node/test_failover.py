"""Whole simulated nodes: leaders lose their power, and nothing that was acknowledged is lost.

This is the proof that a node takes nothing from the machine but the loop, the disk and what
its environment hands in.  The full simulator stands on the same seams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from quorate.client.zookeeper import ZooKeeperClient
from quorate.client.zookeeper_errors import ConnectionLoss, NoNode
from tests.node.whole_nodes import WholeNodes, endpoint_of, retry

ALL_HOSTS = [endpoint_of(node) for node in range(3)]


@pytest.fixture(params=[1, 2, 3])
def cluster(request: pytest.FixtureRequest) -> Iterator[WholeNodes]:
    built = WholeNodes(3, seed=request.param)
    built.start_all()
    yield built
    built.close()


def client_of(cluster: WholeNodes, *nodes: int) -> ZooKeeperClient:
    hosts = [ALL_HOSTS[node] for node in nodes] or ALL_HOSTS
    return ZooKeeperClient(hosts, Random(cluster.random.getrandbits(32)), timeout_ms=4_000)


def test_a_write_through_any_node_is_read_through_every_node(cluster: WholeNodes) -> None:
    async def work() -> None:
        for node in range(3):
            async with client_of(cluster, node) as writer:
                await writer.create(f"/from-{node}", b"hello")
        for node in range(3):
            async with client_of(cluster, node) as reader:
                await reader.sync()
                assert (await reader.get(f"/from-{(node + 1) % 3}"))[0] == b"hello"

    cluster.run(work())


def test_leaders_lose_power_under_load_and_nothing_acknowledged_is_lost(cluster: WholeNodes) -> None:
    acknowledged: list[int] = []
    in_doubt: list[int] = []

    async def write_on(client: ZooKeeperClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            try:
                await client.create(f"/n-{number}", str(number).encode())
                acknowledged.append(number)
            except ConnectionLoss:
                in_doubt.append(number)

    async def begin() -> tuple[ZooKeeperClient, asyncio.Task[None]]:
        client = client_of(cluster)
        await client.start()
        return client, asyncio.get_running_loop().create_task(write_on(client, iter(range(100_000))))

    client, writing = cluster.run(begin())
    for _ in range(3):
        cluster.pass_time(1)
        before = len(acknowledged)
        leader = cluster.wait_for_leader()
        cluster.lose_power(leader)
        cluster.wait_for_leader()
        cluster.wait_for(lambda before=before: len(acknowledged) > before + 50 or None)  # type: ignore[misc]
        cluster.start_and_wait(leader)

    async def end() -> set[int]:
        writing.cancel()
        await client.sync()
        found = {int(name.removeprefix("n-")) for name in await client.get_children("/") if name.startswith("n-")}
        await client.close()
        return found

    found = cluster.run(end())
    assert len(acknowledged) > 150
    assert set(acknowledged) <= found
    assert found <= {*acknowledged, *in_doubt, max(acknowledged) + 1}
    cluster.wait_for(lambda: len({cluster.applied(node) for node in cluster.nodes}) == 1 or None)
    assert len(cluster.store_digests()) == 1


def test_a_session_survives_its_node_and_its_ephemerals_with_it(cluster: WholeNodes) -> None:
    async def begin() -> ZooKeeperClient:
        client = client_of(cluster)
        await client.start()
        await client.create("/mine", b"", ephemeral=True)
        return client

    client = cluster.run(begin())
    leader = cluster.wait_for_leader()
    cluster.lose_power(leader)
    cluster.wait_for_leader()
    cluster.pass_time(6)

    async def look() -> None:
        await retry(client.sync, ConnectionLoss)
        stat = await client.exists("/mine")
        assert stat is not None and stat.ephemeral_owner == client.session_id
        client.abandon()

    cluster.run(look())
    cluster.pass_time(10)

    async def look_again() -> None:
        async with client_of(cluster, *(node for node in cluster.nodes)) as other:
            await other.sync()
            with pytest.raises(NoNode):
                await other.get("/mine")

    cluster.run(look_again())


def test_a_node_that_missed_much_is_caught_up_by_snapshot(cluster: WholeNodes) -> None:
    away = next(node for node in cluster.nodes if node != cluster.leader())
    cluster.lose_power(away)

    async def write_much() -> None:
        client = client_of(cluster, *cluster.nodes)
        await client.start()
        await client.create("/big", b"")
        for number in range(3_000):
            await client.set("/big", bytes(1_000) + str(number).encode())
        await client.close()

    cluster.run(write_much())
    leader = cluster.wait_for_leader()
    assert cluster.nodes[leader].status()["groups"][0]["snapshot_position"] > 1
    tail = cluster.nodes[leader].status()["groups"][0]
    cluster.start_and_wait(away)
    cluster.wait_for(lambda: cluster.applied(away) >= tail["applied_position"] or None, limit_s=60)
    assert len(cluster.store_digests()) == 1


def test_all_nodes_lose_power_at_once(cluster: WholeNodes) -> None:
    async def write() -> None:
        async with client_of(cluster) as client:
            for number in range(50):
                await client.create(f"/n-{number}", b"")

    cluster.run(write())
    for node in list(cluster.nodes):
        cluster.lose_power(node)
    cluster.start_all()

    async def read() -> None:
        async with client_of(cluster) as client:
            await client.sync()
            assert len([name for name in await client.get_children("/") if name.startswith("n-")]) == 50

    cluster.run(read())


def test_a_partitioned_leader_neither_acknowledges_nor_keeps_sessions(cluster: WholeNodes) -> None:
    old = cluster.wait_for_leader()
    others = [node for node in cluster.nodes if node != old]
    for other in others:
        cluster.part(old, other)

    async def write_to_the_old() -> str:
        client = client_of(cluster, old)
        try:
            async with asyncio.timeout(5):
                await client.start()
                await client.create("/lost", b"")
                return "acknowledged"
        except (TimeoutError, ConnectionLoss):
            return "not acknowledged"
        finally:
            client.abandon()

    assert cluster.run(write_to_the_old()) == "not acknowledged"
    new = cluster.wait_for_leader()
    assert new != old

    async def write_to_the_new() -> None:
        async with client_of(cluster, *others) as client:
            await client.create("/kept", b"")

    cluster.run(write_to_the_new())
    for other in others:
        cluster.mend(old, other)
    cluster.wait_for(lambda: cluster.applied(old) >= cluster.applied(new) or None)

    async def look() -> None:
        async with client_of(cluster, old) as client:
            await client.sync()
            assert await client.exists("/kept") is not None
            assert await client.exists("/lost") is None

    cluster.run(look())


def test_the_same_seed_gives_the_same_run() -> None:
    def trace(seed: int) -> list[object]:
        cluster = WholeNodes(3, seed)
        seen: list[object] = [cluster.start_all(), cluster.simulation.now_s]

        async def write() -> None:
            async with client_of(cluster) as client:
                for number in range(20):
                    await client.create(f"/n-{number}", b"")
                seen.append((await client.get_children2("/"), client.session_id))

        cluster.run(write())
        cluster.lose_power(cluster.wait_for_leader())
        seen += [cluster.wait_for_leader(), cluster.simulation.now_s, cluster.describe()]
        cluster.close()
        return seen

    assert trace(7) == trace(7)
    assert trace(7) != trace(8)
