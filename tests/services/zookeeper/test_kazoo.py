"""kazoo, unmodified, against the door over real sockets: its recipes and its way of resuming sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import LockTimeout, NodeExistsError, NoNodeError, RolledBackError, RuntimeInconsistency
from kazoo.protocol.states import KazooState
from kazoo.security import make_digest_acl

from tests.services.zookeeper.harness import ClusterThread

Connect = Callable[..., Any]


@pytest.fixture
def three() -> Iterator[ClusterThread]:
    with ClusterThread(3) as thread:
        yield thread


@pytest.fixture
def connect(three: ClusterThread) -> Iterator[Connect]:
    """(node or None, timeout in seconds) -> a started KazooClient."""
    with ExitStack() as stack:

        def start(node: int | None = None, timeout: float = 4.0) -> Any:
            hosts = three.hosts if node is None else three.cluster.endpoints[node]
            client = KazooClient(hosts=hosts, timeout=timeout)
            client.start(timeout=10)
            stack.callback(client.close)
            stack.callback(client.stop)
            return client

        yield start


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for what another thread does; fails after `seconds`."""
    done = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        done.wait(0.01)


def test_the_basic_calls(connect: Connect) -> None:
    client = connect()
    assert client.server_version() == (3, 8, 0)
    assert client.create("/a/b/c", b"data", makepath=True) == "/a/b/c"
    path, stat = client.create("/a/d", b"data", include_data=True)
    assert (path, stat.dataLength) == ("/a/d", 4)
    assert client.get("/a/b/c")[0] == b"data"
    assert client.set("/a/b/c", b"more").version == 1
    assert sorted(client.get_children("/a")) == ["b", "d"]
    assert client.get_children("/a", include_data=True)[1].numChildren == 2
    assert client.exists("/none") is None
    assert client.sync("/a") == "/a"
    acl = make_digest_acl("ann", "secret", all=True)
    client.set_acls("/a/d", [acl])
    assert client.get_acls("/a/d")[0] == [acl]
    client.add_auth("digest", "ann:secret")
    with pytest.raises(NoNodeError):
        client.delete("/none")
    with pytest.raises(NodeExistsError):
        client.create("/a")
    client.delete("/a", recursive=True)


def test_transactions(connect: Connect) -> None:
    client = connect()
    client.create("/a")
    done = client.transaction()
    done.check("/a", 0)
    done.create("/b", b"x")
    done.set_data("/a", b"y")
    done.delete("/b")
    assert [type(result) for result in done.commit()] == [bool, str, type(client.exists("/a")), bool]
    failed = client.transaction()
    failed.create("/c")
    failed.delete("/none")
    failed.create("/d")
    results = failed.commit()
    assert [type(result) for result in results] == [RolledBackError, NoNodeError, RuntimeInconsistency]
    assert client.exists("/c") is None


def test_lock_excludes_and_passes_on_in_order(connect: Connect) -> None:
    clients = [connect(node % 3) for node in range(4)]
    inside = 0
    most_inside = 0
    entered: list[int] = []
    guard = threading.Lock()

    def contend(number: int) -> None:
        nonlocal inside, most_inside
        for _ in range(5):
            with clients[number].Lock("/lock", str(number)):
                with guard:
                    inside += 1
                    most_inside = max(most_inside, inside)
                    entered.append(number)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most_inside == 1
    assert sorted(entered) == sorted(list(range(4)) * 5)


def test_a_lock_is_free_when_its_holder_has_gone(connect: Connect) -> None:
    holder, waiter = connect(0), connect(1)
    assert holder.Lock("/lock").acquire(timeout=5)
    lock = waiter.Lock("/lock")
    with pytest.raises(LockTimeout):
        lock.acquire(timeout=0.2)
    holder.stop()
    assert lock.acquire(timeout=5)


def test_election(connect: Connect) -> None:
    clients = [connect(node) for node in range(3)]
    led: list[int] = []

    def lead(number: int) -> None:
        led.append(number)

    threads = [
        threading.Thread(target=clients[number].Election("/election", str(number)).run, args=(lead, number))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(led) == [0, 1, 2]


def test_counter(connect: Connect) -> None:
    clients = [connect(node) for node in range(3)]

    def count(client: Any) -> None:
        counter = client.Counter("/counter")
        for _ in range(20):
            counter += 1

    threads = [threading.Thread(target=count, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    clients[0].sync("/counter")
    assert clients[0].Counter("/counter").value == 60


def test_data_and_children_watchers_see_every_state_to_the_last(connect: Connect) -> None:
    writer, watcher = connect(0), connect(1)
    writer.create("/a", b"0")
    data: list[bytes] = []
    children: list[list[str]] = []
    watcher.DataWatch("/a", lambda value, stat: data.append(value))
    watcher.ChildrenWatch("/a", lambda names: children.append(sorted(names)))
    for number in range(1, 20):
        writer.set("/a", b"%d" % number)
        writer.create(f"/a/{number:02}")
    eventually(lambda: data[-1] == b"19" and len(children[-1]) == 19)
    assert [int(value) for value in data] == sorted({int(value) for value in data})


@pytest.mark.parametrize("how", ["same", "other"])
def test_a_dropped_connection_resumes_its_session(three: ClusterThread, connect: Connect, how: str) -> None:
    client = connect(0 if how == "same" else None, timeout=10.0)
    states: list[str] = []
    client.add_listener(states.append)
    client.create("/e", ephemeral=True)
    session = client.client_id[0]
    seen: list[Any] = []
    client.exists("/later", watch=seen.append)

    three.call(three.cluster.cut_connections)
    eventually(lambda: KazooState.SUSPENDED in states and client.connected)
    assert client.client_id[0] == session
    assert client.exists("/e").ephemeralOwner == session
    assert KazooState.LOST not in states
    # kazoo itself sets no watches again; the recipes that need them ask anew.
    client.create("/later")


def test_an_expired_session_is_reported_as_lost(three: ClusterThread, connect: Connect) -> None:
    client = connect(timeout=1.0)
    states: list[str] = []
    client.add_listener(states.append)
    client.create("/e", ephemeral=True)
    session = client.client_id[0]

    three.call(three.cluster.expire, session)
    eventually(lambda: KazooState.LOST in states and client.connected)
    assert client.client_id[0] != session
    assert client.exists("/e") is None


def test_queue_and_barrier_recipes(connect: Connect) -> None:
    client = connect()
    queue = client.Queue("/queue")
    for number in range(5):
        queue.put(b"%d" % number)
    assert [queue.get() for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    barrier = client.Barrier("/barrier")
    barrier.create()
    assert not barrier.wait(0.1)
    barrier.remove()
    assert barrier.wait(5)
