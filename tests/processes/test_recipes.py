"""kazoo's recipes, unmodified, while leaders are killed: the promise on the first page of the README."""

from __future__ import annotations

import bisect
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, ConnectionLoss, NoNodeError, OperationTimeoutError, SessionExpiredError

from tests.processes.cluster import READY_S, Cluster, eventually, pause, running
from tests.processes.up_command import UpCommand

pytestmark = pytest.mark.processes

KILLS = 3
UNKNOWN_OUTCOME = (ConnectionLoss, OperationTimeoutError, SessionExpiredError)


class CountingClient(KazooClient):  # type: ignore[misc]
    """Counts the sets whose outcome a recipe cannot know; kazoo's recipes repeat them without a word."""

    unknown_sets = 0

    def set(self, path: str, value: bytes, version: int = -1) -> Any:
        try:
            return super().set(path, value, version)
        except UNKNOWN_OUTCOME:
            self.unknown_sets += 1
            raise


class Guarded:
    """What a lock protects.  `use` raises AssertionError where two holders meet, or an older one comes late."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._last_token = 0
        self.uses = 0
        self.users: set[str] = set()

    def use(self, user: str, token: int) -> None:
        """`token` is the zxid of the user's claim: it grows from holder to holder."""
        assert self._busy.acquire(blocking=False), f"{user} holds the lock, and somebody else does too"
        try:
            assert token > self._last_token, f"{user} came with token {token} after {self._last_token}"
            self._last_token = token
            pause(0.002)
            self.uses += 1
            self.users.add(user)
        finally:
            self._busy.release()


class GapWatch:
    """A client of the nodes that stay, which writes as fast as it can and notes when."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.acknowledged_s: list[float] = []

    def write(self, stopping: threading.Event) -> None:
        client = self._cluster.client()
        client.ensure_path("/gaps")
        while not stopping.is_set():
            try:
                client.set("/gaps", b"x")
            except UNKNOWN_OUTCOME:
                pause(0.005)
            else:
                self.acknowledged_s.append(time.monotonic())

    def longest_gap_since(self, moment_s: float) -> float:
        """The longest time (s) between two acknowledgements, from the last one before a moment on."""
        acknowledged_s = list(self.acknowledged_s)
        first = bisect.bisect(acknowledged_s, moment_s) - 1
        return max(after - before for before, after in itertools.pairwise(acknowledged_s[first:]))


def kill_leaders(cluster: Cluster, watch: GapWatch) -> list[float]:
    """Kill one leader after the other, each time with all nodes there; returns the gaps between writes (s)."""
    gaps = []
    for _ in range(KILLS):
        leader = cluster.wait_ready()
        count = len(watch.acknowledged_s)
        eventually(lambda count=count: len(watch.acknowledged_s) > count + 10, "writes are acknowledged")  # type: ignore[misc]
        killed_s = time.monotonic()
        leader.kill()
        count = len(watch.acknowledged_s)
        eventually(lambda count=count: len(watch.acknowledged_s) > count + 20, "writes go on")  # type: ignore[misc]
        gaps.append(watch.longest_gap_since(killed_s))
        cluster.start_node(leader)
    return gaps


def test_recipes_go_on_when_leaders_are_killed(cluster: Cluster) -> None:
    guarded, elected = Guarded(), Guarded()
    counters: list[CountingClient] = []
    increments: list[int] = []

    def lock_and_use(stopping: threading.Event) -> None:
        client = cluster.client()
        name = f"contender-{client.client_id[0]:x}"
        lock = client.Lock("/printer", name)
        while not stopping.is_set():
            with lock:
                token = client.retry(client.exists, f"/printer/{lock.node}").czxid
                guarded.use(name, token)

    def stand_for_election(stopping: threading.Event) -> None:
        client = cluster.client()
        name = f"candidate-{client.client_id[0]:x}"
        election = client.Election("/president", name)

        def govern() -> None:
            token = client.retry(client.exists, f"/president/{election.lock.node}").czxid
            elected.use(name, token)

        while not stopping.is_set():
            election.run(govern)

    def count(stopping: threading.Event) -> None:
        client = cluster.client(kind=CountingClient)
        counters.append(client)
        counter = client.Counter("/count")
        while not stopping.is_set():
            counter += 1
            increments.append(1)

    watch = GapWatch(cluster)
    with (
        running(lock_and_use, count=4),
        running(stand_for_election, count=2),
        running(count, count=2),
        running(watch.write),
    ):
        eventually(lambda: guarded.uses > 10 and elected.uses > 5 and len(increments) > 10, "all recipes work")
        gaps = kill_leaders(cluster, watch)
        uses = guarded.uses, elected.uses, len(increments)
        eventually(
            lambda: guarded.uses > uses[0] + 8 and elected.uses > uses[1] + 4 and len(increments) > uses[2] + 4,
            "all recipes work after the kills",
        )

    cluster.wait_ready()
    unknown = sum(client.unknown_sets for client in counters)
    values = [int(client.get("/count")[0]) for client in synced_clients(cluster, "/count")]
    print(
        f"gaps {', '.join(f'{gap:.3f}' for gap in gaps)} s; {guarded.uses} uses of the lock by {len(guarded.users)}, "
        f"{elected.uses} terms, {len(increments)} increments, {unknown} sets of unknown outcome, counter {values}"
    )
    assert statistics.median(gaps) < 1.0, f"writes stood still for {gaps} s"
    assert len(guarded.users) == 4 and len(elected.users) == 2, "everybody had a turn"
    assert len(set(values)) == 1, "the nodes disagree"
    assert len(increments) <= values[0] <= len(increments) + unknown


def synced_clients(cluster: Cluster, path: str) -> Iterator[Any]:
    """One client a node, each of them up to date."""
    for node in cluster.nodes:
        client = cluster.client([node])
        client.sync(path)
        yield client


def test_a_queue_of_waiters_is_served_in_the_order_of_its_claims_across_a_kill(cluster: Cluster) -> None:
    first = cluster.client()
    held = first.Lock("/queue", "first")
    held.acquire()
    served: list[str] = []
    threads = []
    for i in range(4):
        name = f"waiter-{i}"
        lock = cluster.client().Lock("/queue", name)

        def wait_and_leave(lock: Any = lock, name: str = name) -> None:
            with lock:
                served.append(name)

        thread = threading.Thread(target=wait_and_leave, daemon=True)
        thread.start()
        threads.append(thread)
        eventually(lambda i=i: len(first.Lock("/queue").contenders()) == i + 2, f"{name} waits")  # type: ignore[misc]
    leader = cluster.leader()
    leader.kill()
    assert served == [], "the lock is held, so nobody may be served"
    held.release()
    for thread in threads:
        thread.join(READY_S)
    assert served == [f"waiter-{i}" for i in range(4)]


def test_a_lock_of_a_client_that_died_goes_to_the_next(cluster: Cluster) -> None:
    program = (
        "import sys, threading; from kazoo.client import KazooClient; c = KazooClient(sys.argv[1], timeout=2); "
        "c.start(); c.Lock('/shared', 'dies').acquire(); print('held', flush=True); threading.Event().wait()"
    )
    hosts = ",".join(node.address for node in cluster.nodes)
    with subprocess.Popen([sys.executable, "-c", program, hosts], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        client = cluster.client()
        assert not client.Lock("/shared", "polite").acquire(blocking=False)
        holder.kill()
    lock = client.Lock("/shared", "heir")
    assert lock.acquire(timeout=READY_S)
    assert lock.contenders() == ["heir"]


def test_a_conditional_write_is_never_done_twice(cluster: Cluster) -> None:
    """A compare-and-set loop as people write it: what it acknowledges adds up, whoever leads."""
    cluster.client().create("/balance", b"0")
    moved: list[int] = []
    unknown: list[int] = []

    def deposit(stopping: threading.Event) -> None:
        client = cluster.client()
        while not stopping.is_set():
            try:
                data, stat = client.get("/balance")
                client.set("/balance", str(int(data) + 1).encode(), stat.version)
                moved.append(1)
            except BadVersionError:
                continue
            except UNKNOWN_OUTCOME:
                unknown.append(1)
                pause(0.01)

    with running(deposit, count=3):
        eventually(lambda: len(moved) > 30, "deposits are made")
        cluster.leader().kill()
        count = len(moved)
        eventually(lambda: len(moved) > count + 30, "deposits go on")
    data, stat = cluster.client().get("/balance")
    assert stat.version == int(data), "each deposit is one version"
    assert len(moved) <= int(data) <= len(moved) + len(unknown)


# --- the README's session, through `quorate up` -----------------------------------------------


@pytest.fixture
def up(tmp_path: Path) -> Iterator[UpCommand]:
    running = UpCommand(tmp_path)
    running.start()
    yield running
    running.stop()


def test_what_up_prints_works_as_it_stands(up: UpCommand, capsys: pytest.CaptureFixture[str]) -> None:
    text = up.what_to_try()
    program = "\n".join(re.findall(r"^  ((?:from kazoo|client|with|    print).*)$", text, re.MULTILINE))
    namespace: dict[str, Any] = {}
    exec(compile(program, "what `quorate up` prints", "exec"), namespace)
    assert "the lock is mine" in capsys.readouterr().out

    client = namespace["client"]
    lock = client.Lock("/printer", "still me")
    lock.acquire()
    victim = re.search(r"kill -9 (\d+)", text)
    assert victim is not None
    os.kill(int(victim[1]), signal.SIGKILL)
    assert client.retry(client.exists, f"/printer/{lock.node}") is not None, "the lock survives"
    lock.release()
    with pytest.raises(NoNodeError):
        client.retry(client.get, f"/printer/{lock.node or 'gone'}")
    eventually(lambda: "runs again" in up.said(), "up starts the node again")
    client.stop()
    client.close()
    assert up.stop(signal.SIGINT) == 0, up.said()
    assert "All nodes are stopped." in up.said()
