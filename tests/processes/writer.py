"""Clients that write all the time and keep a ledger, and what a node holds in the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from kazoo.exceptions import ConnectionLoss, OperationTimeoutError, SessionExpiredError

from tests.processes.cluster import READY_S, Cluster, Node, eventually, running
from tests.processes.ledger import Attempt, CreateHistory, Found, SetHistory

WINDOW = 16
KEYS = 5
UNKNOWN_OUTCOME = (ConnectionLoss, OperationTimeoutError, SessionExpiredError)


class Writer:
    """A pipelining client that keeps a ledger of its own znodes; no other writes them."""

    def __init__(self, cluster: Cluster, name: str, window: int = WINDOW, pause_s: float = 0.0) -> None:
        """`pause_s` is left between two writes, where a node must not grow much in a long test."""
        self.client = cluster.client()
        self.root = f"/written/{name}"
        self.client.ensure_path(self.root)
        self.sets = [SetHistory(f"{self.root}/key-{key}") for key in range(KEYS)]
        self.pair = SetHistory(f"{self.root}/pair-a")
        self.creates = CreateHistory(f"{self.root}/created-0")
        for path in [*(history.path for history in self.sets), self.pair.path, f"{self.root}/pair-b"]:
            self.client.retry(self._create_once, path)
        self.client.ensure_path(self.creates.parent)
        self.counts = [0, 0]
        """Acknowledged and unknown, of former phases' creates."""
        self._pause_s = pause_s
        self._window_size = window
        self._window = threading.Semaphore(window)
        self._failure: BaseException | None = None

    def _create_once(self, path: str) -> None:
        if self.client.exists(path) is None:
            self.client.create(path, b"0:")

    def write(self, stopping: threading.Event) -> None:
        """Keep a window of writes under way until told to stop; then wait for all."""
        issued = 0
        while not stopping.is_set() and self._failure is None:
            if not self._window.acquire(timeout=0.1):
                continue
            if self._pause_s:
                stopping.wait(self._pause_s)
            issued += 1
            if issued % 8 == 0:
                self._issue_create()
            elif issued % 8 == 1:
                self._issue_pair()
            else:
                self._issue_set(self.sets[issued % KEYS])
        for _ in range(self._window_size):
            assert self._window.acquire(timeout=READY_S), "a write was neither answered nor given up"
        self._window.release(self._window_size)
        if self._failure is not None:
            raise self._failure

    def _issue_set(self, history: SetHistory) -> None:
        attempt = history.begin()
        data = b"%d:%s" % (attempt.number, b"x" * 100)
        self.client.set_async(history.path, data).rawlink(partial(self._set_done, attempt))

    def _issue_pair(self) -> None:
        attempt = self.pair.begin()
        transaction = self.client.transaction()
        for path in (self.pair.path, f"{self.root}/pair-b"):
            transaction.set_data(path, b"%d:" % attempt.number)
        transaction.commit_async().rawlink(partial(self._pair_done, attempt))

    def _issue_create(self) -> None:
        self.creates.attempts += 1
        number = self.creates.attempts
        path = f"{self.creates.parent}/n-"
        self.client.create_async(path, b"%d:" % number, sequence=True).rawlink(partial(self._create_done, number))

    def _set_done(self, attempt: Attempt, result: Any) -> None:
        stat = self._outcome(result)
        if stat is not None:
            attempt.mzxid, attempt.version = stat.mzxid, stat.version

    def _pair_done(self, attempt: Attempt, result: Any) -> None:
        stats = self._outcome(result)
        if stats is not None:
            attempt.mzxid, attempt.version = stats[0].mzxid, stats[0].version

    def _create_done(self, number: int, result: Any) -> None:
        path = self._outcome(result)
        if path is not None:
            if path in self.creates.acknowledged:
                self._failure = AssertionError(f"{path} was acknowledged twice")
            self.creates.acknowledged[path] = number

    def _outcome(self, result: Any) -> Any:
        """The value of an acknowledged write; None where the outcome is unknown."""
        self._window.release()
        error = result.exception
        if error is None:
            return result.value
        if not isinstance(error, UNKNOWN_OUTCOME):
            self._failure = error
        return None

    def problems(self, tree: dict[str, tuple[bytes, Any]]) -> Iterator[str]:
        for history in [*self.sets, self.pair]:
            data, stat = tree[history.path]
            yield from history.problems(Found(number_in(data), stat.version, stat.mzxid))
        one, other = (tree[f"{self.root}/pair-{half}"] for half in "ab")
        if (one[0], one[1].version, one[1].mzxid) != (other[0], other[1].version, other[1].mzxid):
            yield f"{self.root}: a transaction was done by half: {one} and {other}"
        children = {
            path: number_in(data) for path, (data, _) in tree.items() if path.rpartition("/")[0] == self.creates.parent
        }
        yield from self.creates.problems(children)

    def begin_phase(self, number: int) -> None:
        """Go on under a new parent of creates, and clear the former one away, so that reading all stays quick."""
        former = self.creates
        self.counts[0] += len(former.acknowledged)
        self.counts[1] += former.unknown()
        names = self.client.retry(self.client.get_children, former.parent)
        for result in [self.client.delete_async(f"{former.parent}/{name}") for name in names]:
            result.get(READY_S)
        self.creates = CreateHistory(f"{self.root}/created-{number}")
        self.client.ensure_path(self.creates.parent)

    def acknowledged(self) -> int:
        sets = sum(history.acknowledged() for history in [*self.sets, self.pair])
        return sets + len(self.creates.acknowledged) + self.counts[0]

    def unknown(self) -> int:
        return sum(history.unknown() for history in [*self.sets, self.pair]) + self.creates.unknown() + self.counts[1]


def number_in(data: bytes) -> int:
    return int(data.partition(b":")[0])


def read_tree(cluster: Cluster, node: Node) -> dict[str, tuple[bytes, Any]]:
    """All that one node holds, once it is up to date: path -> (data, stat)."""
    client = cluster.client([node], timeout_s=30)
    client.sync("/")
    tree: dict[str, tuple[bytes, Any]] = {}
    level = ["/"]
    while level:
        children = [(path, client.get_children_async(path)) for path in level]
        contents = [(path, client.get_async(path)) for path in level]
        tree.update((path, result.get(READY_S)) for path, result in contents)
        level = [f"{path.rstrip('/')}/{name}" for path, result in children for name in result.get(READY_S)]
    client.stop()
    return tree


@contextlib.contextmanager
def written(writers: Sequence[Writer]) -> Iterator[None]:
    """All writers write meanwhile, each in a thread of its own."""
    waiting = list(writers)
    with running(lambda stopping: waiting.pop().write(stopping), count=len(writers)):
        yield


def check_nothing_is_lost(cluster: Cluster, writers: Sequence[Writer]) -> None:
    """What was acknowledged is there, and every node holds the same."""
    trees = [read_tree(cluster, node) for node in cluster.nodes]
    assert [problem for writer in writers for problem in writer.problems(trees[0])] == []
    for node, tree in zip(cluster.nodes[1:], trees[1:], strict=True):
        different = [path for path in trees[0].keys() | tree.keys() if trees[0].get(path) != tree.get(path)]
        assert different == [], f"nodes {cluster.nodes[0].node} and {node.node} disagree"


def wait_for_writes(writers: Sequence[Writer], more: int = 50) -> None:
    """Wait until each writer has had so many more writes acknowledged: the cluster serves."""
    wanted = [writer.acknowledged() + more for writer in writers]
    eventually(
        lambda: all(writer.acknowledged() >= count for writer, count in zip(writers, wanted, strict=True)),
        f"each client has had {more} more writes acknowledged",
    )
