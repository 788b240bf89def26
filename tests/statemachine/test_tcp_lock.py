"""The locks of examples/tcp_lock: their rules one by one, and the simulator's faults."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from examples.tcp_lock.client import LockClient
from examples.tcp_lock.locks import AlreadyAsked, Locks, NoSession, NotAsked

import quorate
from quorate.simulation.own import ClientWorld, CommandClient, Simulate

HOUR_MS = 3_600_000


def locks_with(*sessions: str, lease_ms: int = HOUR_MS) -> Locks:
    locks = Locks()
    for session in sessions:
        locks.open(session, lease_ms)
    return locks


def holder(locks: Locks, name: str = "door") -> tuple[str, int]:
    ((queue, token),) = locks.places([name]).values()
    return (queue[0] if queue else "", token)


def test_a_lock_goes_to_whoever_asked_first() -> None:
    locks = locks_with("a", "b", "c")
    assert [locks.lock(session, "door") for session in "bca"] == [0, 1, 2]
    seen = [holder(locks)]
    for session in "bca":
        locks.unlock(session, "door")
        seen.append(holder(locks))
    assert seen == [("b", 1), ("c", 2), ("a", 3), ("", 0)]


def test_who_leaves_the_queue_takes_nothing_from_the_holder() -> None:
    locks = locks_with("a", "b", "c")
    for session in "abc":
        locks.lock(session, "door")
    locks.unlock("b", "door")
    assert (holder(locks), locks.queues["door"]) == (("a", 1), ["a", "c"])


def test_tokens_grow_over_all_locks_and_all_time() -> None:
    locks = locks_with("a", "b")
    tokens = []
    for name in ("door", "gate", "door"):
        locks.lock("a", name)
        tokens.append(holder(locks, name)[1])
        locks.unlock("a", name)
    assert tokens == [1, 2, 3]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (lambda locks: locks.lock("nobody", "door"), NoSession),
        (lambda locks: locks.lock("a", "door"), AlreadyAsked),
        (lambda locks: locks.unlock("b", "door"), NotAsked),
        (lambda locks: locks.unlock("a", "gate"), NotAsked),
    ],
)
def test_what_cannot_be_done_changes_nothing(command: Callable[[Locks], Any], error: type[Exception]) -> None:
    locks = locks_with("a", "b")
    locks.lock("a", "door")
    before = str(vars(locks))
    with pytest.raises(error):
        command(locks)
    assert str(vars(locks)) == before


def test_a_session_that_nobody_renews_ends_by_replicated_time() -> None:
    locks = locks_with("a", "b", lease_ms=1_000)
    locks.lock("a", "door")
    locks.lock("b", "door")
    locks.now_ms = 900
    assert locks.renew(["b", "nobody"], 1_000) == ["nobody"]
    locks.now_ms = 1_000
    assert locks.expire() == []
    locks.now_ms = 1_001
    assert locks.expire() == ["a"]
    assert holder(locks) == ("b", 2)
    locks.close("a")
    with pytest.raises(NoSession):
        locks.lock("a", "door")


# --- simulated -------------------------------------------------------------------------------


async def until_known(work: Callable[[], Any]) -> Any:
    """Of what may be done twice."""
    while True:
        try:
            return await work()
        except (quorate.Refused, quorate.OutcomeUnknown):
            await asyncio.sleep(0.1)


async def use_lock(world: ClientWorld) -> None:
    """As a server and its client: a session for each time, which ends, whatever is known of the rest."""
    async with CommandClient(Locks, world) as locks:
        number = 0
        while not world.stopping:
            number += 1
            session = f"{world.number}-{number}"
            try:
                await locks.submit(Locks.open, session, HOUR_MS)
                with world.history.operation("acquire") as operation:
                    await locks.submit(Locks.lock, session, "door")
                    while (places := await locks.query(Locks.places, ["door"]))["door"][0][0] != session:
                        world.coverage["waited"] += 1
                        await asyncio.sleep(world.random.uniform(0.0, 0.1))
                    operation.ok()
                token = places["door"][1]
                await asyncio.sleep(world.random.uniform(0.0, 0.1))
                with world.history.operation("release") as operation:
                    await locks.submit(Locks.unlock, session, "door")
                    operation.ok()
                assert token > 0
            except (quorate.Refused, quorate.OutcomeUnknown):
                world.coverage["given up"] += 1
            await until_known(lambda: locks.submit(Locks.close, session))  # noqa: B023 - awaited here


def test_the_lock_is_held_by_one_at_a_time_under_all_faults_on_paxos(simulate: Simulate) -> None:
    coverage = simulate(
        client=use_lock, model="lock", state_machine=Locks, protocol="paxos", seeds=[3, 4], duration_s=8, clients=3
    )
    assert coverage["acquire"] and coverage["release"] and coverage["waited"] and coverage["given up"]


def test_a_client_has_tcp_watch_a_server_whose_machine_may_vanish() -> None:
    """A server that says nothing is waited for, since the queue may be long: only TCP can tell that nobody is there."""

    async def ask() -> None:
        asked = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"LOCK door\n"
            asked.set()

        server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        client = LockClient([f"127.0.0.1:{server.sockets[0].getsockname()[1]}"])
        waiting = asyncio.create_task(client.lock("door").__aenter__())
        await asyncio.wait_for(asked.wait(), 10)
        assert client._writer is not None
        connection = client._writer.get_extra_info("socket")
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
        waiting.cancel()
        await asyncio.wait([waiting])
        server.close()

    asyncio.run(ask())
