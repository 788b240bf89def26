"""Our own client against our own door: calls, errors, watches, and what survives a lost connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from quorate.client.zookeeper import State, Transaction, ZooKeeperClient
from quorate.client.zookeeper_errors import (
    BadVersion,
    ClientClosed,
    ConnectionLoss,
    InvalidACL,
    MultiFailed,
    NoChildrenForEphemerals,
    NodeExists,
    NoNode,
    NotEmpty,
    ServerError,
    SessionExpired,
)
from quorate.client.zookeeper_watches import WatchEvent
from quorate.services.interface import Refused
from quorate.services.zookeeper.protocol import ANYONE, AccessRule, EventType
from tests.services.zookeeper.harness import Cluster, on_simulated_loop


def client_of(cluster: Cluster, node: int | None = None, timeout_ms: int = 4_000) -> ZooKeeperClient:
    hosts = cluster.endpoints if node is None else [cluster.endpoints[node]]
    return ZooKeeperClient(hosts, random.Random(7), timeout_ms)


def on_asyncio(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def on_uvloop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(work())


@pytest.mark.parametrize("run", [on_asyncio, on_uvloop, on_simulated_loop])
def test_every_call(run: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]) -> None:
    async def work() -> None:
        async with Cluster(3) as cluster, client_of(cluster) as client:
            assert await client.create("/a", b"1") == "/a"
            assert (await client.create("/a/s-", sequential=True)).startswith("/a/s-00000")
            path, stat = await client.create2("/a/e", b"x", ephemeral=True)
            assert (path, stat.ephemeral_owner, stat.data_length) == ("/a/e", client.session_id, 1)
            assert (await client.set("/a", b"22", 0)).version == 1
            data, stat = await client.get("/a")
            assert (data, stat.version, stat.num_children) == (b"22", 1, 2)
            assert await client.exists("/a") == stat
            assert await client.exists("/none") is None
            assert sorted(await client.get_children("/a")) == ["e", "s-0000000000"]
            names, stat = await client.get_children2("/a")
            assert (len(names), stat.cversion) == (2, 2)
            assert (await client.get_acl("/a"))[0] == ANYONE
            rule = AccessRule(1, b"world", b"anyone")
            assert (await client.set_acl("/a", [rule])).aversion == 1
            assert (await client.get_acl("/a"))[0] == (rule,)
            await client.sync("/a")
            results = await client.multi(
                Transaction().check("/a", 1).create("/b", b"").set("/b", b"x").delete("/a/e", 0)
            )
            assert [result.path for result in results] == [None, b"/b", None, None]
            await client.delete("/b")

    run(work)


def test_errors_are_typed() -> None:
    async def work() -> None:
        async with Cluster() as cluster, client_of(cluster) as client:
            await client.create("/a")
            with pytest.raises(NodeExists):
                await client.create("/a")
            with pytest.raises(NoNode, match="get_data /none"):
                await client.get("/none")
            with pytest.raises(BadVersion):
                await client.set("/a", b"", 7)
            await client.create("/a/b", ephemeral=True)
            with pytest.raises(NotEmpty):
                await client.delete("/a")
            with pytest.raises(NoChildrenForEphemerals):
                await client.create("/a/b/c")
            with pytest.raises(InvalidACL):
                await client.create("/x", acl=[])
            with pytest.raises(MultiFailed) as failure:
                await client.multi(Transaction().create("/m").delete("/none").create("/n"))
            assert (failure.value.failed_index, failure.value.code) == (1, -101)
            assert await client.exists("/m") is None

    on_simulated_loop(work)


def test_calls_are_pipelined_in_order() -> None:
    async def work() -> None:
        async with Cluster() as cluster, client_of(cluster) as client:
            made = [client.create("/n-", sequential=True) for _ in range(100)]
            assert await asyncio.gather(*made) == [f"/n-{number:010}" for number in range(100)]

    on_simulated_loop(work)


def test_a_watch_is_called_once_and_before_the_change_can_be_read() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster, client_of(cluster, 0) as writer, client_of(cluster, 1) as reader:
            events: list[WatchEvent] = []
            await writer.create("/a", b"0")
            await reader.get("/a", events.append)
            await reader.exists("/b", events.append)
            await reader.get_children("/", events.append)
            await writer.set("/a", b"1")
            await reader.sync()
            assert events == [WatchEvent(EventType.DATA_CHANGED, "/a")]
            await writer.set("/a", b"2")
            await writer.create("/b")
            await reader.sync()
            assert events[1:] == [WatchEvent(EventType.CREATED, "/b"), WatchEvent(EventType.CHILDREN_CHANGED, "/")]

    on_simulated_loop(work)


def test_each_task_finds_the_zxid_and_the_place_of_its_own_answer() -> None:
    async def work() -> None:
        async with Cluster() as cluster, client_of(cluster) as client:
            events: list[int] = []
            await client.exists("/a", lambda event: events.append(client.arrivals))

            async def create() -> tuple[int, int]:
                await client.create2("/a")
                return client.answer_zxid, client.answer_arrival

            async def fail() -> tuple[int, int]:
                with pytest.raises(NoNode):
                    await client.delete("/none")
                return client.answer_zxid, client.answer_arrival

            (made_zxid, made), (failed_zxid, failed) = await asyncio.gather(create(), fail())
            assert (await client.get("/a"))[1].czxid == made_zxid
            assert failed_zxid == made_zxid + 1
            # The event arrived between the answer of exists and that of the create which fired it.
            assert [*events, made, failed] == [2, 3, 4]
            assert client.unasked_events == 0
            assert client.server == cluster.endpoints[0]

    on_simulated_loop(work)


def test_an_event_that_nobody_waits_for_is_counted() -> None:
    async def work() -> None:
        async with Cluster() as cluster, client_of(cluster) as client:
            await client.create("/a")
            # On a deleted node that is watched both ways, what was missed is told twice.
            await client.get("/a", lambda event: None)
            await client.get_children("/a", lambda event: None)
            client.drop_connection()
            await client.wait_for(State.CONNECTING)
            async with client_of(cluster) as other:
                await other.delete("/a")
            await client.sync()
            assert client.unasked_events == 1

    on_simulated_loop(work)


def test_a_session_survives_a_lost_connection_with_its_watches_and_ephemerals() -> None:
    async def work() -> None:
        async with Cluster(3) as cluster, client_of(cluster) as client, client_of(cluster) as other:
            events: list[WatchEvent] = []
            await client.create("/e", ephemeral=True)
            await client.create("/watched")
            await client.create("/missed")
            await client.get("/watched", events.append)
            await client.get("/missed", events.append)
            session = client.session_id
            client.drop_connection()
            await client.wait_for(State.CONNECTING)
            await other.set("/missed", b"while away")
            await client.wait_for(State.CONNECTED)
            await client.sync()
            assert events == [WatchEvent(EventType.DATA_CHANGED, "/missed")]
            await other.set("/watched", b"now")
            await client.sync()
            assert events[1:] == [WatchEvent(EventType.DATA_CHANGED, "/watched")]
            assert (client.session_id, client.connections) == (session, 2)
            stat = await client.exists("/e")
            assert stat is not None and stat.ephemeral_owner == session

    on_simulated_loop(work)


@pytest.mark.parametrize("connecting", [False, True])
def test_a_suspended_client_comes_back_to_its_session_when_it_is_resumed(connecting: bool) -> None:
    async def work() -> None:
        async with Cluster(2) as cluster, client_of(cluster) as client:
            if connecting:
                client.drop_connection()
                await client.wait_for(State.CONNECTING)
            client.suspend()
            call = asyncio.ensure_future(client.create("/a"))
            await asyncio.sleep(3)
            assert client.state is State.CONNECTING
            assert not call.done()
            client.resume()
            assert await call == "/a"
            assert client.connections == 2

    on_simulated_loop(work)


def test_calls_in_flight_are_lost_and_calls_made_meanwhile_wait() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster, client_of(cluster) as client:
            await client.create("/a")
            cluster.hold()
            lost = asyncio.ensure_future(client.set("/a", b"1"))
            await asyncio.sleep(0.1)
            client.drop_connection()
            with pytest.raises(ConnectionLoss):
                await lost
            assert client.state is not State.CONNECTED
            waiting = [asyncio.ensure_future(client.create("/w-", sequential=True)) for _ in range(5)]
            await asyncio.sleep(0.1)
            assert not any(call.done() for call in waiting)
            cluster.release()
            assert await asyncio.gather(*waiting) == [f"/w-{number:010}" for number in range(1, 6)]
            # It had been sent and was applied: nobody could know.
            assert (await client.get("/a"))[1].version == 1

    on_simulated_loop(work)


def test_an_idle_client_keeps_its_session_by_pings() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster, client_of(cluster, timeout_ms=1_000) as client:
            sessions = dict(cluster.nodes[1].store.sessions)
            await asyncio.sleep(60)
            assert client.state is State.CONNECTED
            # The same generation: it never had to come back.
            assert cluster.nodes[1].store.sessions == sessions
            assert client.vouched_at_s is not None
            assert 0 < asyncio.get_running_loop().time() - client.vouched_at_s < 1

    on_simulated_loop(work)


def test_an_expired_session_is_final() -> None:
    async def work() -> None:
        async with Cluster(1) as cluster:
            client = client_of(cluster, timeout_ms=1_000)
            await client.start()
            ended: list[WatchEvent] = []
            await client.get("/", ended.append)
            cluster.expire(client.session_id)
            call = asyncio.ensure_future(client.get("/none"))
            assert await client.wait_for(State.EXPIRED) is State.EXPIRED
            with pytest.raises((ConnectionLoss, SessionExpired, NoNode)):
                await call
            with pytest.raises(SessionExpired):
                await client.get("/")
            assert ended == [WatchEvent(WatchEvent.SESSION_ENDED, "/")]
            await client.close()

    on_simulated_loop(work)


def test_a_closed_client_has_ended_its_session_and_takes_no_calls() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            client = client_of(cluster)
            await client.start()
            await client.create("/e", ephemeral=True)
            assert await client.close()
            assert not await client.close()
            assert not cluster.nodes[1].store.sessions
            with pytest.raises(ClientClosed):
                await client.get("/")

    on_simulated_loop(work)


def test_a_refused_write_may_be_told_from_a_lost_one() -> None:
    async def work() -> None:
        async with Cluster() as cluster, client_of(cluster) as client:
            cluster.hold()
            call = asyncio.ensure_future(client.create("/a"))
            await asyncio.sleep(0.1)
            cluster.refuse(Refused.DISK_FULL)
            with pytest.raises(ServerError) as failure:
                await call
            assert failure.value.code == -1
            cluster.release()
            assert client.state is State.CONNECTED

    on_simulated_loop(work)


def test_a_watch_that_raises_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def bad(event: WatchEvent) -> None:
        raise RuntimeError("a bug of the caller")

    async def work() -> None:
        async with Cluster() as cluster, client_of(cluster) as client:
            await client.create("/a")
            await client.get("/a", bad)
            await client.set("/a", b"1")
            assert (await client.get("/a"))[0] == b"1"

    on_simulated_loop(work)
    assert "the watch of /a raised" in caplog.text


def test_a_server_that_speaks_something_else_is_left() -> None:
    async def work() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with Cluster() as cluster:
            server = await asyncio.start_server(talk, "127.0.0.1", 9_999)
            client = ZooKeeperClient(["127.0.0.1:9999", cluster.endpoints[0]], random.Random(1), 4_000)
            await client.start()
            assert await client.exists("/") is not None
            assert client.broken_connections == 1
            await client.close()
            server.close()

    on_simulated_loop(work)


def test_hosts_are_checked() -> None:
    for hosts in ([], ["localhost"], ["localhost:port"]):
        with pytest.raises(ValueError, match="hosts: expected"):
            ZooKeeperClient(hosts, random.Random(1))
