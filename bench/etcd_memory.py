"""What a million keys of the etcd service cost a node: `python bench/memory.py --service etcd`.

(a) The keys are loaded; the resident memory of each node before and after, for each key and beyond key and value.
(b) Every key is written once more, which leaves two versions of each, and then the history is compacted: what that
gives back, and what it takes to write every key once more.  (c) Throughput beside that of a second cluster with 10,000
keys: puts and linearizable ranges by h2load, 8x32, eight keys.  The two take turns, in rounds, because a machine's
speed changes within minutes; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h2load
from cluster import BenchmarkError, QuorateCluster
from etcd_cluster import COMPACT, PUT, RANGE, Calls, refused_is_an_error, status
from figures import MIB, Figure, Report, memory_mib
from quorate.services.etcd import etcd_pb2 as pb
from raw import Connection

VALUE_BYTES = 100
FEW_KEYS = 10_000
IN_FLIGHT = 512
"""Puts of the loader that are not answered yet."""
AT_ONCE = 64
LOAD_SECONDS, WARMUP_SECONDS = 3, 1
ROUNDS = 5
SETTLE_SECONDS = 2.0
PATIENCE_SECONDS = 120.0
SHAPE = h2load.Shape(8, 32)

KEY_TARGET_BYTES = 600.0
LEAST_RATIO = 0.8
"""Of the throughput with all keys to that with FEW_KEYS."""


def key(number: int) -> bytes:
    return b"/bench/%09d" % number


def put_keys(endpoint: str, keys: int, value: bytes) -> None:
    """Put so many keys, once each, and wait for all answers."""
    header = status(endpoint).header
    # Every answer opens with these bytes, and so the answers are counted without being decoded.
    mark = pb.ResponseHeader(cluster_id=header.cluster_id, member_id=header.member_id).SerializeToString()
    connection = Connection(endpoint, PUT)
    answered = 0
    for start in range(0, keys, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, keys))
        connection.request(*(pb.PutRequest(key=key(i), value=value).SerializeToString() for i in numbers))
        while numbers.stop - answered > IN_FLIGHT:
            answered += connection.read(mark)
    while answered < keys:
        answered += connection.read(mark)
    connection.socket.close()


class Loaded:
    """A cluster with so many keys."""

    def __init__(self, cluster: QuorateCluster, report: Report, keys: int, folder: Path) -> None:
        self._cluster = cluster
        self._report = report
        self._keys = keys
        self._folder = folder
        self._nodes = range(len(cluster.endpoints))
        self._idle_mib: list[float] = []

    def leader(self) -> str:
        return next(endpoint for endpoint, mode in self._cluster.modes().items() if mode == "leader")

    def put(self, fill: bytes) -> None:
        """Put every key once."""
        started = time.monotonic()
        put_keys(self.leader(), self._keys, fill * VALUE_BYTES)
        seconds = time.monotonic() - started
        print(f"        {self._keys:,} puts by one connection in {seconds:.1f} s, {self._keys / seconds:,.0f}/s")
        self.settle()

    def group(self, node: int) -> dict[str, Any]:
        """The service's group, in the status of a node."""
        found: dict[str, Any] = self._cluster.status(node)["groups"][0]
        return found

    def settle(self) -> None:
        """Until all nodes have applied what the leader has, and no snapshot was finished for a while."""
        wanted = status(self.leader()).header.revision
        self.wait_until(
            lambda: all(status(endpoint).header.revision >= wanted for endpoint in self._cluster.endpoints),
            "every node has applied all",
        )
        snapshots: list[int] = []

        def quiet() -> bool:
            before = snapshots.copy()
            snapshots[:] = [int(self.group(node)["snapshot_position"]) for node in self._nodes]
            return snapshots == before

        self.wait_until(quiet, "snapshots end", SETTLE_SECONDS)

    def wait_until(self, so: Callable[[], bool], what: str, every_seconds: float = 0.1) -> None:
        """Raises BenchmarkError where it does not come to that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not so():
            if time.monotonic() > deadline:
                raise BenchmarkError(f"after {PATIENCE_SECONDS:g} s still not so: {what}")
            time.sleep(every_seconds)

    def resident(self) -> list[float]:
        return [memory_mib(self._cluster.process_id(node)) for node in self._nodes]

    def throughput(self) -> dict[str, float]:
        """Requests/s by operation."""
        chosen = [key(i * (self._keys // SHAPE.connections)) for i in range(SHAPE.connections)]
        bodies = {
            PUT: [pb.PutRequest(key=name, value=b"x" * VALUE_BYTES).SerializeToString() for name in chosen],
            RANGE: [pb.RangeRequest(key=name).SerializeToString() for name in chosen],
        }
        found = {}
        for path, messages in bodies.items():
            load = h2load.run(self.leader(), path, messages, SHAPE, LOAD_SECONDS, WARMUP_SECONDS, self._folder)
            found[path] = load.per_second
            print(f"        {path} with {self._keys:,} keys: {load.per_second:,.0f}/s", flush=True)
        return found

    def figures(self, what: str, versions: int) -> None:
        """Of the memory of all nodes, now."""
        for node, resident in enumerate(self.resident()):
            each = (resident - self._idle_mib[node]) * MIB / self._keys - versions * (len(key(0)) + VALUE_BYTES)
            target = KEY_TARGET_BYTES if versions == 1 else None
            self._report.add(Figure(node, f"{what}, resident", resident, "MiB"))
            self._report.add(Figure(node, f"{what}: a key beyond keys and values", each, "bytes", target))

    def compact(self) -> None:
        with refused_is_an_error(), Calls(self.leader()) as calls:
            revision = status(self.leader()).header.revision
            calls.call(COMPACT, pb.CompactionRequest(revision=revision, physical=True), pb.CompactionResponse)

        def swept() -> bool:
            stores = [self.group(node)["store"] for node in self._nodes]
            return all(store["versions"] == store["keys"] for store in stores)

        self.wait_until(swept, "the sweep has forgotten all but one version of each key")
        self.settle()

    def load(self) -> None:
        time.sleep(SETTLE_SECONDS)
        self._idle_mib = self.resident()
        self.put(b"a")


def compare_throughput(many: Loaded, few: Loaded) -> None:
    ratios: dict[str, list[float]] = {PUT: [], RANGE: []}
    for number in range(ROUNDS):
        # Who goes first changes too.
        if number % 2:
            measured, beside = many.throughput(), few.throughput()
        else:
            beside, measured = few.throughput(), many.throughput()
        for path, of_path in ratios.items():
            of_path.append(measured[path] / beside[path])
    for path, of_path in ratios.items():
        ratio = statistics.median(of_path)
        verdict = "met" if ratio >= LEAST_RATIO else "MISSED"
        print(
            f"        {path}: {ratio:.2f}x of that with few keys ({min(of_path):.2f} to {max(of_path):.2f})"
            f"  target >= {LEAST_RATIO:g}: {verdict}"
        )


def measure(many_keys: QuorateCluster, few_keys: QuorateCluster, report: Report, keys: int, folder: Path) -> None:
    with refused_is_an_error():
        many = Loaded(many_keys, report, keys, folder)
        many.load()
        many.figures(f"{keys:,} keys of one version", 1)
        many.compact()
        many.put(b"b")
        many.figures("two versions of each", 2)
        many.compact()
        many.figures("compacted", 1)
        many.put(b"c")
        many.figures("two versions of each again", 2)
        many.compact()
        few = Loaded(few_keys, report, min(FEW_KEYS, keys), folder)
        few.load()
        compare_throughput(many, few)
