"""Nodes that replicate a user's class, over loopback, with durable folders, on each protocol."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

import quorate
from quorate.statemachine.door import CallerDoor
from tests.statemachine.conftest import Peers
from tests.statemachine.shop import SoldOut, Stock

pytestmark = pytest.mark.processes  # for the sake of time, which is real here: nothing else should run beside them

PROTOCOLS = ("raft", "paxos", "zab")
LIMIT_S = 60.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, LIMIT_S))


async def follower_of(cluster: list[quorate.Replicated[Stock]]) -> quorate.Replicated[Stock]:
    await leader_of(cluster)
    return next(node for node in cluster if not node.leads)


async def leader_of(cluster: list[quorate.Replicated[Stock]]) -> quorate.Replicated[Stock]:
    while True:
        for node in cluster:
            if node.leads:
                return node
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_node_takes_commands_and_reads(protocol: str) -> None:
    async def shop() -> None:
        async with quorate.embedded_cluster(Stock, protocol=protocol) as cluster:
            assert {node.status()["protocol"] for node in cluster} == {protocol}
            for number, node in enumerate(cluster, 1):
                assert await node.submit(Stock.add, "apples") == number
                for other in cluster:
                    assert await other.query(Stock.count, "apples") == number
            for node in cluster:
                with pytest.raises(SoldOut, match=r"'apples', 4"):
                    await node.submit(Stock.take, "apples", 4)
            results = await asyncio.gather(*(node.submit(Stock.add, "pears") for node in cluster for _ in range(50)))
            assert sorted(results) == list(range(1, 151)), "each command is carried out once"
            assert {node.query_local(lambda stock: stock.changed_ms > 0) for node in cluster} == {True}

    run(shop())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_node_that_leads_is_stopped_and_comes_back(protocol: str) -> None:
    async def shop() -> None:
        async with quorate.embedded_cluster(Stock, protocol=protocol) as cluster:
            first = await leader_of(cluster)
            assert await first.submit(Stock.add, "apples", 2) == 2
            await first.stop()
            with pytest.raises(quorate.NodeStopped, match="does not run"):
                await first.submit(Stock.add, "apples", 1)
            other = next(node for node in cluster if node is not first)
            assert await other.submit(Stock.take, "apples", 1) == 1
            await first.start()
            assert await first.query(Stock.count, "apples") == 1

    run(shop())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_whole_cluster_goes_on_where_it_was_from_snapshot_and_log(protocol: str) -> None:
    async def shop() -> None:
        async with quorate.embedded_cluster(Stock, protocol=protocol, snapshot_log_bytes=1 << 18) as cluster:
            filling = "x" * 40_000
            for number in range(12):
                await cluster[number % 3].submit(Stock.add, f"{number} {filling}")
            for node in cluster:
                group = next(group for group in node.status()["groups"] if group["service"] == "statemachine")
                while not group["snapshot_position"]:
                    await asyncio.sleep(0.01)
                    group = next(group for group in node.status()["groups"] if group["service"] == "statemachine")
            before = await cluster[0].query(lambda stock: (list(stock.items), stock.changed_ms))
            await asyncio.gather(*(node.stop() for node in cluster))
            await asyncio.gather(*(node.start() for node in cluster))
            for node in cluster:
                await node.wait_ready()
                assert await node.query(lambda stock: (list(stock.items), stock.changed_ms)) == before
            assert await cluster[2].submit(Stock.add, "apples") == 1

    run(shop())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_command_that_raises_ends_who_leads_and_is_carried_out_once_the_class_is_mended(
    tmp_path: Path, peers: Peers, protocol: str
) -> None:
    class Mended(Stock):
        @quorate.command
        def share(self, item: str, among: int) -> int:
            return self.items[item] // among if among else 0

    members = dict(enumerate(peers(2)))

    def cluster_of(machine: type[Stock]) -> list[quorate.Replicated[Stock]]:
        return [
            quorate.Replicated(machine, node=n, members=members, data=tmp_path / f"{n}", protocol=protocol, name="shop")
            for n in members
        ]

    why = r"Stock\.share\('apples', 0\) raised ZeroDivisionError"

    async def broken() -> None:
        cluster = cluster_of(Stock)
        await asyncio.gather(*(node.start() for node in cluster))
        leader = await leader_of(cluster)
        await leader.submit(Stock.add, "apples", 6)
        with pytest.raises(quorate.OutcomeUnknown, match=why):
            await leader.submit(Stock.share, "apples", 0)
        with pytest.raises(quorate.StateMachineFailed, match=why):
            await leader.wait_stopped()
        with pytest.raises(quorate.NodeStopped, match=why):
            await leader.submit(Stock.add, "apples")
        with pytest.raises(quorate.NodeStopped, match=why):
            await leader.query(Stock.count, "apples")
        with pytest.raises(quorate.NodeStopped, match=why):
            _ = [leadership async for leadership in leader.leaderships()]
        await asyncio.gather(*(node.stop() for node in cluster))

    async def broken_still() -> None:
        """Whoever leads comes to the same command."""
        cluster = cluster_of(Stock)
        await asyncio.gather(*(node.start() for node in cluster))
        waiting = [asyncio.create_task(node.wait_stopped()) for node in cluster]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*(node.stop() for node in cluster))
        ended = [task.exception() for task in waiting if task.done()]
        assert any(isinstance(each, quorate.StateMachineFailed) for each in ended), ended
        await asyncio.gather(*waiting, return_exceptions=True)

    async def mended() -> None:
        cluster = cluster_of(Mended)
        await asyncio.gather(*(node.start() for node in cluster))
        assert await cluster[0].query(Stock.count, "apples") == 6
        assert await cluster[1].submit(Stock.share, "apples", 2) == 3
        await asyncio.gather(*(node.stop() for node in cluster))

    run(broken())
    run(broken_still())
    run(mended())


def test_an_only_node_tells_its_callers_of_its_limit_and_of_its_end() -> None:
    async def shop() -> None:
        async with quorate.embedded_cluster(Stock, nodes=1, max_command_bytes=100) as (node,):
            await node.submit(Stock.add, "apples")
            with pytest.raises(quorate.InvalidCommand, match=r"a command of 1\d\d bytes: max_command_bytes is 100"):
                await node.submit(Stock.add, "x" * 100)
            with pytest.raises(quorate.OutcomeUnknown, match="ZeroDivisionError"):
                await node.submit(Stock.share, "apples", 0)

    run(shop())


async def quorate_command(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quorate", *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


def test_members_come_and_go_with_the_commands_of_every_cluster(tmp_path: Path, peers: Peers) -> None:
    *addresses, first_admin, last_admin = peers(6)
    admins = {0: first_admin, 3: last_admin}

    def node_of(node: int, members: list[str], *, join: bool = False) -> quorate.Replicated[Stock]:
        return quorate.Replicated(
            Stock,
            node=node,
            members=dict(enumerate(members)),
            data=tmp_path / f"{node}",
            protocol="paxos",
            join=join,
            admin=admins.get(node),
        )

    async def shop() -> None:
        cluster = [node_of(node, addresses[:3]) for node in range(3)]
        await asyncio.gather(*(node.start() for node in cluster))
        await cluster[1].submit(Stock.add, "apples", 7)
        async with node_of(3, addresses, join=True) as new:
            await quorate_command("member", "add", "3", addresses[3], "--endpoint", first_admin)
            await new.wait_ready()
            assert await new.query(Stock.count, "apples") == 7
            await quorate_command("member", "promote", "3", "--endpoint", first_admin)
            await quorate_command("member", "remove", "0", "--endpoint", last_admin)
            with pytest.raises(Exception, match="removed"):
                await cluster[0].wait_stopped()
            with pytest.raises(quorate.NodeStopped, match="removed"):
                await cluster[0].submit(Stock.add, "apples")
            assert await new.submit(Stock.add, "apples") == 8
            await asyncio.gather(*(node.stop() for node in cluster))

    run(shop())


def test_events_tell_of_leaders_and_of_changes() -> None:
    async def shop() -> None:
        async with quorate.embedded_cluster(Stock) as cluster:
            follower = await follower_of(cluster)
            changed = asyncio.Event()

            async def watch_changes() -> None:
                async for _ in follower.changes():
                    if follower.query_local(Stock.count, "apples") == 1:
                        changed.set()

            watching = asyncio.create_task(watch_changes())
            leader = await leader_of(cluster)
            await leader.submit(Stock.add, "apples")
            await changed.wait()
            stopped = None
            async for leadership in follower.leaderships():
                if stopped is None and leadership.leader is not None:
                    stopped = leadership.leader
                    await cluster[stopped].stop()
                elif leadership.leader not in (None, stopped):
                    break
            await follower.stop()
            await watching

    run(shop())


def test_without_a_quorum_nothing_is_done_and_nothing_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.statemachine.replicated.PATIENCE_S", 0.5)

    async def shop() -> None:
        async with quorate.embedded_cluster(Stock) as cluster:
            await cluster[0].submit(Stock.add, "apples")
            await cluster[1].stop()
            await cluster[2].stop()
            with pytest.raises((quorate.Refused, quorate.OutcomeUnknown)):
                await cluster[0].submit(Stock.add, "apples")
            with pytest.raises(quorate.Refused, match="not carried out: no leader is known"):
                await cluster[0].submit(Stock.add, "apples")
            with pytest.raises(quorate.Refused, match="not read: no leader could vouch"):
                await cluster[0].query(Stock.count, "apples")
            assert cluster[0].query_local(Stock.count, "apples") == 1

    run(shop())


def test_who_waits_when_the_node_is_stopped_is_told() -> None:
    async def shop() -> None:
        async with quorate.embedded_cluster(Stock, election_timeout_ms=2_000) as cluster:
            leader = await leader_of(cluster)
            await leader.submit(Stock.add, "apples")
            await asyncio.gather(*(node.stop() for node in cluster if node is not leader))
            # It has not noticed yet, so both wait for a quorum.
            waiting = [
                asyncio.create_task(leader.submit(Stock.add, "apples")),
                asyncio.create_task(leader.query(Stock.count, "apples")),
            ]
            await asyncio.wait(waiting, timeout=0.05)
            await leader.stop()
            command, read = await asyncio.gather(*waiting, return_exceptions=True)
            # Refused: on a very busy machine it has noticed.
            assert isinstance(command, quorate.OutcomeUnknown | quorate.Refused)
            assert isinstance(read, quorate.NodeStopped | quorate.Refused)

    run(shop())


def test_before_its_cluster_is_formed_a_node_says_whom_it_waits_for(
    tmp_path: Path, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.statemachine.replicated.PATIENCE_S", 0.3)
    members = dict(enumerate(peers(2)))

    async def alone() -> None:
        async with quorate.Replicated(Stock, node=0, members=members, data=tmp_path) as node:
            seen = r"a new cluster is formed once all its first members have met: node 1 \(127\.0\.0\.1:\d+\) missing"
            with pytest.raises(quorate.Refused, match=seen):
                await node.submit(Stock.add, "apples")
            with pytest.raises(quorate.Refused, match=seen):
                await node.query(Stock.count, "apples")
            with pytest.raises(quorate.Refused, match=seen):
                node.query_local(Stock.count, "apples")

    run(alone())


def test_nodes_with_different_protocols_say_so(tmp_path: Path, peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.statemachine.replicated.PATIENCE_S", 0.5)
    members = dict(enumerate(peers(2)))

    async def apart() -> None:
        one = quorate.Replicated(Stock, node=0, members=members, data=tmp_path / "0", protocol="paxos")
        other = quorate.Replicated(Stock, node=1, members=members, data=tmp_path / "1", protocol="zab")
        async with one, other:
            with pytest.raises(quorate.Refused, match="node 0 runs the protocol paxos, node 1 zab"):
                await one.submit(Stock.add, "apples")

    run(apart())


def test_a_program_without_an_event_loop(tmp_path: Path, peers: Peers) -> None:
    members = dict(enumerate(peers(1)))
    stock = quorate.BlockingReplicated(Stock, node=0, members=members, data=tmp_path, protocol="zab")
    with pytest.raises(quorate.NodeStopped, match="does not run"):
        stock.submit(Stock.add, "apples")
    for count in (20, 40):
        with stock:
            stock.wait_ready(30)
            with ThreadPoolExecutor(4) as threads:
                assert len({*threads.map(lambda _: stock.submit(Stock.add, "apples"), range(20))}) == 20
            assert (stock.query(Stock.count, "apples"), stock.leader) == (count, 0)
            with pytest.raises(SoldOut):
                stock.submit(Stock.take, "apples", 100)
            with pytest.raises(RuntimeError, match="runs already"):
                stock.start()
            with pytest.raises(quorate.CannotStart, match="another process"):
                quorate.BlockingReplicated(Stock, node=0, members=members, data=tmp_path).start()


def test_threads_whose_calls_are_under_way_when_the_node_is_stopped_are_told(tmp_path: Path, peers: Peers) -> None:
    members = dict(enumerate(peers(1)))
    stock = quorate.BlockingReplicated(Stock, node=0, members=members, data=tmp_path)

    def until_it_stops(calls: threading.Semaphore) -> None:
        with pytest.raises((quorate.NodeStopped, quorate.Refused, quorate.OutcomeUnknown)):
            while True:
                stock.query(Stock.count, "apples")
                calls.release()

    for _ in range(3):
        calls = threading.Semaphore(0)
        threads = [threading.Thread(target=until_it_stops, args=(calls,), daemon=True) for _ in range(12)]
        with stock:
            stock.wait_ready(30)
            for thread in threads:
                thread.start()
            for _ in range(50):
                calls.acquire()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()


def test_a_read_that_is_answered_while_the_node_stops() -> None:
    class Group:
        """Its barriers pass at once."""

        def barrier(self, done: Callable[[bool], None]) -> None:
            done(True)

    async def stopped() -> None:
        door = CallerDoor(cast("Any", Group()), lambda: None, lambda leadership: None)
        reading = asyncio.create_task(door.barrier())
        await asyncio.sleep(0)
        await door.stop()
        assert await reading

    run(stopped())


def test_what_cannot_start_says_why(tmp_path: Path, peers: Peers) -> None:
    good: dict[str, Any] = {"node": 0, "members": dict(enumerate(peers(1))), "data": tmp_path / "data"}
    for changed, seen in (
        ({"protocol": "chubby"}, "protocol 'chubby': there are "),
        ({"members": {}}, "members has 0 nodes: there can be 1 to 9"),
        ({"node": 7}, "node 7 is not in members, which lists 0"),
        ({"members": {0: "0.0.0.0:7000"}}, "cannot connect to that"),
        ({"members": {0: "a:1", 1: "a:1"}}, "two of the members have the same address"),
        ({"admin": "here"}, 'admin = "here": must be "host:port"'),
        ({"election_timeout_ms": 1}, "election_timeout_ms = 1: must be at least 50"),
        ({"name": "two words"}, "name 'two words': must be 1 to 64 letters"),
    ):
        with pytest.raises(quorate.CannotStart, match=seen):
            quorate.Replicated(Stock, **{**good, **changed})

    async def twice() -> None:
        async with quorate.Replicated(Stock, **good) as node:
            with pytest.raises(RuntimeError, match="runs already"):
                await node.start()
            with pytest.raises(quorate.CannotStart, match=r"cannot be used: .*another process"):
                await quorate.Replicated(Stock, **good).start()
            with pytest.raises(quorate.CannotStart, match=r"cannot start: .*address already in use"):
                await quorate.Replicated(Stock, **{**good, "data": tmp_path / "other"}).start()
            await node.wait_ready()
        with pytest.raises(quorate.CannotStart, match="made with the protocol raft, these settings say zab"):
            await quorate.Replicated(Stock, **good, protocol="zab").start()
        with pytest.raises(quorate.CannotStart, match="belongs to cluster 'Stock', not 'Shop'"):
            await quorate.Replicated(Stock, **good, name="Shop").start()
        (tmp_path / "file").write_text("")
        with pytest.raises(quorate.CannotStart, match="cannot be used"):
            await quorate.Replicated(Stock, **{**good, "data": tmp_path / "file"}).start()

    run(twice())


def test_a_snapshot_that_does_not_fit_the_class_is_no_damage(tmp_path: Path, peers: Peers) -> None:
    class Texts(Stock):
        items: dict[str, str]  # type: ignore[assignment]

    members = dict(enumerate(peers(1)))

    def node_with(machine: type[Stock]) -> quorate.Replicated[Stock]:
        return quorate.Replicated(
            machine, node=0, members=members, data=tmp_path, name="shop", snapshot_log_bytes=1 << 18
        )

    async def shop() -> None:
        async with node_with(Stock) as node:
            while not node.status()["groups"] or not node.status()["groups"][0]["snapshot_position"]:
                await node.submit(Stock.add, "x" * 50_000)
        with pytest.raises(
            quorate.StateMachineFailed, match="a snapshot does not fit Texts: Expected `str`, got `int`"
        ):
            await node_with(Texts).start()
        async with node_with(Stock) as node:
            assert await node.query(lambda stock: sum(stock.items.values())) > 0

    run(shop())


def test_a_state_that_cannot_be_written_is_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Careless(Stock):
        @quorate.command
        def spoil(self) -> None:
            self.items["spoilt"] = object()  # type: ignore[assignment]

    async def shop() -> None:
        with caplog.at_level(logging.ERROR, "quorate"):
            async with quorate.embedded_cluster(Careless, nodes=1, snapshot_log_bytes=1 << 18) as (node,):
                await node.submit(Careless.spoil)
                while "the state of Careless cannot be written" not in caplog.text:
                    await node.submit(Careless.add, "x" * 50_000)
                assert await node.submit(Careless.add, "apples") == 1

    run(shop())
