"""What a million znodes or keys cost a node: memory, stops of the loop, and the time of a restart.

    python bench/memory.py                     one node, 1,000 parents x 1,000 children, 100 bytes each
    python bench/memory.py --service etcd      one node, 1,000,000 keys (see etcd_memory.py)
    python bench/memory.py --nodes 3           the same on every node of a cluster
    python bench/memory.py --parents 100       a smaller tree

(a) The resident memory of an idle node.  (b) The tree is loaded through the client port; resident memory before
and after, per znode and beyond its data, and the peak.  (c) A snapshot is forced while setData goes on; the longest
stop of the event loop and the latencies of the writes, beside those of the same load without a snapshot.
(d) All nodes are killed with SIGKILL and started; the time until they serve, and that every znode is there.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

import etcd_memory
from cluster import BenchmarkError, Load, LoadGenerator, QuorateCluster, reported_errors
from etcd_cluster import etcd_mode
from figures import MIB, Figure, Report, memory_mib

VALUE_BYTES = 100
SNAPSHOT_SECONDS = 300.0
SETTLE_SECONDS = 2.0
QUIET_LOAD_SECONDS = 10.0

IDLE_TARGET_MIB = 70.0
ZNODE_TARGET_BYTES = 600.0
STOP_TARGET_MS = 50.0
RESTART_TARGET_SECONDS = 10.0


class Bench:
    """The four measurements, in the order in which they build on one another."""

    def __init__(
        self, cluster: QuorateCluster, generator: LoadGenerator, report: Report, parents: int, children: int
    ) -> None:
        self.cluster = cluster
        self.generator = generator
        self.parents = parents
        self.children = children
        self.nodes = range(len(cluster.endpoints))
        self.report = report

    def znodes(self, node: int) -> int:
        return int(self.cluster.status(node)["groups"][0]["store"]["znodes"])

    def leader(self) -> str:
        return next(end for end, mode in self.cluster.modes().items() if mode in ("leader", "standalone"))

    def idle(self) -> list[float]:
        """(a); MiB by node."""
        time.sleep(SETTLE_SECONDS)
        resident = [memory_mib(self.cluster.process_id(node)) for node in self.nodes]
        for node in self.nodes:
            self.report.add(Figure(node, "idle, resident", resident[node], "MiB", IDLE_TARGET_MIB))
        return resident

    def load_tree(self, idle_mib: list[float]) -> None:
        """(b)"""
        before = self.znodes(0)
        load = self.generator.run(
            [self.leader()],
            op="tree",
            connections=4,
            window=64,
            size=VALUE_BYTES,
            prefix="/tree",
            parents=self.parents,
            children=self.children,
        )
        self.check(load)
        print(f"        loaded {load.ops:,} children in {load.seconds:.1f} s, {load.ops_per_second:,.0f}/s")
        self.wait_until_applied(before + self.parents * (self.children + 1) + 1)
        time.sleep(SETTLE_SECONDS)
        for node in self.nodes:
            process_id = self.cluster.process_id(node)
            resident = memory_mib(process_id)
            each = (resident - idle_mib[node]) * MIB / self.znodes(node) - VALUE_BYTES
            self.report.add(Figure(node, f"{self.znodes(node):,} znodes, resident", resident, "MiB"))
            self.report.add(Figure(node, "a znode beyond its data", each, "bytes", ZNODE_TARGET_BYTES))
            self.report.add(Figure(node, "peak while loading, resident", memory_mib(process_id, "VmHWM"), "MiB"))
            stop_ms = float(self.cluster.status(node)["loop_longest_stop_ms"])
            self.report.add(Figure(node, "longest stop of the loop while loading", stop_ms, "ms"))

    def wait_until_applied(self, znodes: int) -> None:
        """Followers apply a little later than the leader answers."""
        deadline = time.monotonic() + 10
        while any(self.znodes(node) < znodes for node in self.nodes):
            if time.monotonic() > deadline:
                counts = [self.znodes(node) for node in self.nodes]
                raise BenchmarkError(f"expected {znodes} znodes on every node, found {counts}")
            time.sleep(0.1)

    def check(self, load: Load) -> None:
        if load.failures():
            raise BenchmarkError(f"{load.operation}: {load.failures()}")

    @contextlib.contextmanager
    def writes(self, what: str) -> Iterator[None]:
        """setData by 16 connections for as long as the body takes; then its latencies and the loop's longest stops."""
        for node in self.nodes:
            self.cluster.ask(node, "POST", "/reset-longest-stop")
        process = self.generator.start(
            [self.leader()],
            op="setData",
            connections=16,
            window=4,
            seconds=2 * SNAPSHOT_SECONDS,
            size=VALUE_BYTES,
            prefix="/tree",
        )
        try:
            time.sleep(SETTLE_SECONDS)
            if process.poll() is not None:
                raise BenchmarkError(f"the load ended early: {self.generator.finish(process)}")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
        load = self.generator.finish(process)
        self.check(load)
        print(
            f"        setData {what}: {load.ops_per_second:,.0f}/s, p50 {load.p50_us / 1000:.1f} ms,"
            f" p99 {load.p99_us / 1000:.1f} ms, p99.9 {load.p99_9_us / 1000:.1f} ms, max {load.max_us / 1000:.1f} ms"
        )

    def snapshot(self) -> None:
        """(c)"""
        self.wait_for_snapshots()
        with self.writes("without a snapshot"):
            time.sleep(QUIET_LOAD_SECONDS)
            stops_ms = [float(self.cluster.status(node)["loop_longest_stop_ms"]) for node in self.nodes]
        for node in self.nodes:
            self.report.add(Figure(node, "longest stop of the loop under writes", stops_ms[node], "ms"))
        with self.writes("during a snapshot"):
            started = time.monotonic()
            wanted = []
            for node in self.nodes:
                wanted.append(int(self.cluster.status(node)["groups"][0]["applied_position"]))
                self.cluster.ask(node, "POST", "/snapshot")
            self.wait_for_snapshots(wanted)
            took_seconds = time.monotonic() - started
            stops_ms = [float(self.cluster.status(node)["loop_longest_stop_ms"]) for node in self.nodes]
        for node in self.nodes:
            size_mib = int(self.cluster.status(node)["groups"][0]["snapshot_bytes"]) / MIB
            peak_mib = memory_mib(self.cluster.process_id(node), "VmHWM")
            self.report.add(Figure(node, "a snapshot of all takes", took_seconds, "s"))
            self.report.add(Figure(node, "its size", size_mib, "MiB"))
            self.report.add(
                Figure(
                    node, "longest stop of the loop in a snapshot, under writes", stops_ms[node], "ms", STOP_TARGET_MS
                )
            )
            self.report.add(Figure(node, "peak so far, resident", peak_mib, "MiB"))

    def wait_for_snapshots(self, positions: list[int] | None = None) -> None:
        """Until every node has a snapshot of at least its position; without positions: until none has been moving."""
        deadline = time.monotonic() + SNAPSHOT_SECONDS
        last: list[int] = []
        while time.monotonic() < deadline:
            found = [int(self.cluster.status(node)["groups"][0]["snapshot_position"]) for node in self.nodes]
            if positions is None and found == last:
                return
            if positions is not None and all(have >= want for have, want in zip(found, positions, strict=True)):
                return
            last = found
            time.sleep(5.0 if positions is None else 0.25)
        raise BenchmarkError(f"no snapshot within {SNAPSHOT_SECONDS:g} s")

    def restart(self) -> None:
        """(d)"""
        before = [self.znodes(node) for node in self.nodes]
        group = self.cluster.status(0)["groups"][0]
        behind = int(group["applied_position"]) - int(group["snapshot_position"])
        self.cluster.kill()
        started = time.monotonic()
        self.cluster.start()
        load = self.generator.run([self.leader()], op="getData", count=1, prefix="/tree")
        took_seconds = time.monotonic() - started
        self.check(load)
        print(f"        restarted from a snapshot and {behind:,} entries after it")
        self.wait_until_applied(min(before))
        for node in self.nodes:
            process_id = self.cluster.process_id(node)
            self.report.add(
                Figure(node, "from start to the first answer to a client", took_seconds, "s", RESTART_TARGET_SECONDS)
            )
            self.report.add(Figure(node, "after the restart, resident", memory_mib(process_id), "MiB"))
            self.report.add(Figure(node, "peak of the restart, resident", memory_mib(process_id, "VmHWM"), "MiB"))
            if self.znodes(node) != before[node]:
                raise BenchmarkError(f"node {node} had {before[node]} znodes and has {self.znodes(node)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", choices=("zookeeper", "etcd"), default="zookeeper")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--parents", type=int, default=1000)
    parser.add_argument("--children", type=int, default=1000, help="of each parent")
    parser.add_argument("--keys", type=int, default=1_000_000, help="with --service etcd")
    parser.add_argument("--data", type=Path, help="parent of the data folder, to choose the disk (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    report = Report()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-memory-", dir=arguments.data)))
        if arguments.service == "etcd":
            folders = [folder / name for name in ("many", "few")]
            for place in folders:
                place.mkdir()
            many, few = (
                stack.enter_context(QuorateCluster(place, arguments.nodes, service="etcd", ask=etcd_mode))
                for place in folders
            )
            etcd_memory.measure(many, few, report, arguments.keys, folder)
        else:
            cluster = stack.enter_context(QuorateCluster(folder, arguments.nodes))
            bench = Bench(cluster, LoadGenerator(folder), report, arguments.parents, arguments.children)
            bench.load_tree(bench.idle())
            bench.snapshot()
            bench.restart()
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report.figures)))


if __name__ == "__main__":
    with reported_errors():
        main()
