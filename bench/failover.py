"""How long writes stop when a leader is lost, and when nodes are restarted: `python bench/failover.py --help`.

Three nodes on loopback with default settings; Quorate, and ZooKeeper 3.8 in the same run beside it (one after the
other: they would take each other's CPUs).  `write_load.py` writes all the time through all nodes, from a process of
its own: *moderate* is 32 sessions that each pause 20 ms after an answer, *full* is 64 sessions with 8 writes under
way each and no pause, which is more than two cores can do.

SIGKILL and SIGSTOP: for each fault, two new kazoo clients on each follower (they know the followers' addresses only)
write one after another, each a znode of its own.  The signal goes to the leader; what is measured, for each client,
is the time from just before the signal to the answer of the first successful write that was *begun* after it; a write
under way at that moment counts for nothing.  A failed attempt is repeated after 2 ms, a lost connection is opened
again after 2 ms, so that the gap is the service's and not a back-off of the client.  "first" is the client that wrote
first, "last" the one that waited longest; the targets are for the last.  Then the node is started again (or gets
SIGCONT), and the next fault waits until all nodes have caught up and the load has run for a while.  "quiet" is the
longest time between two successful writes of one client in the last second before the fault: what the machine and
the load make of a cluster without one.

Rolling restart: SIGTERM to one node after another; each is started again when it has ended, and has caught up before
the next one's turn.  Four kazoo clients that know all nodes write all the time.  A write fails if retries have not
brought it about within 10 s; the gap is the longest time between two successful writes of one client.

Targets: SIGKILL median < 300 ms and worst < 800 ms; SIGSTOP median < 600 ms; rolling restart: no failed write, longest
gap < 150 ms.  A verdict is "unknown" where a figure is missing or rests on fewer than ten faults or restarts of a node.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, NodeExistsError, OperationTimeoutError, SessionExpiredError
from kazoo.retry import KazooRetry

from cluster import BenchmarkError, MissingPeer, QuorateNodes, ZooKeeperCluster, reported_errors, wait_caught_up

NODES = 3
LOADS = {"moderate": (32, 1, 0.02), "full": (64, 8, 0.0)}
"""Name -> (sessions, window, pause in seconds)."""
FAULTS = {"SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}
MEDIAN_TARGET_MS = {"SIGKILL": 300.0, "SIGSTOP": 600.0}
WORST_TARGET_MS = {"SIGKILL": 800.0}
ROLLING_TARGET_MS = 150.0
LEAST_FAULTS = 10
"""Fewer than this support no verdict."""
CLIENTS_PER_FOLLOWER = 2
ROLLING_CLIENTS = 4
RETRY_S = 0.002
SETTLE_S = 1.5
"""How long clients write before a fault; up to half a second is added, by chance."""
GIVE_UP_S = 60.0
FAILED_AFTER_S = 10.0
REPEATED = (ConnectionLoss, OperationTimeoutError, SessionExpiredError)

Ensemble = QuorateNodes | ZooKeeperCluster


class Sample(msgspec.Struct, frozen=True):
    """One fault.  Milliseconds; infinite where no write succeeded within GIVE_UP_S."""

    first_ms: float
    last_ms: float
    quiet_ms: float


class Rolling(msgspec.Struct, frozen=True):
    """One restart of all nodes."""

    longest_gap_ms: float
    quiet_ms: float
    writes: int
    repeated: int
    """Attempts that failed and were repeated."""
    failed: int
    slowest_node: str
    """Which node was away, and what it was, when the longest gap ended."""


@dataclass(slots=True)
class Write:
    begun_s: float
    done_s: float


class Writer:
    """A kazoo client that writes one znode again and again in a thread of its own.  Times: time.monotonic()."""

    def __init__(self, hosts: Sequence[str], path: str) -> None:
        retry = {"max_tries": -1, "delay": RETRY_S, "backoff": 1, "max_jitter": 0.0, "max_delay": RETRY_S}
        self._client = KazooClient(hosts=",".join(hosts), connection_retry=KazooRetry(**retry))
        self._path = path
        self.writes: list[Write] = []
        self.repeated = self.failed = 0
        self.failure: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._client.start(timeout=GIVE_UP_S)
        self._thread.start()

    def _run(self) -> None:
        try:
            with contextlib.suppress(NodeExistsError):
                KazooRetry(max_tries=-1, delay=RETRY_S)(self._client.create, self._path, b"")
            wanted_s = time.monotonic()
            while not self._stopping.is_set():
                begun_s = time.monotonic()
                try:
                    self._client.set(self._path, b"x" * 100)
                except REPEATED:
                    self.repeated += 1
                    if time.monotonic() - wanted_s > FAILED_AFTER_S:
                        self.failed += 1
                        wanted_s = time.monotonic()
                    time.sleep(RETRY_S)
                    continue
                wanted_s = time.monotonic()
                self.writes.append(Write(begun_s, wanted_s))
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        """End it.  A client that hangs is left to its daemon threads."""
        self._stopping.set()
        self._thread.join(GIVE_UP_S)
        self._client.stop()
        self._client.close()
        if self.failure is not None:
            raise BenchmarkError(f"a client failed: {self.failure!r}")

    def first_begun_after(self, time_s: float) -> float | None:
        """When the first successful write that was begun after `time_s` was answered."""
        found = None
        for write in reversed(self.writes[:]):
            if write.begun_s <= time_s:
                break
            found = write.done_s
        return found

    def longest_gap(self, from_s: float, until_s: float) -> tuple[float, float]:
        """(length, end) of the longest time without a success, of those that touch this stretch."""
        times = [write.done_s for write in self.writes[:]]
        gaps = [(b - a, b) for a, b in itertools.pairwise(times) if b >= from_s and a <= until_s]
        return max(gaps, default=(math.inf, until_s))


@contextlib.contextmanager
def load(endpoints: Sequence[str], name: str) -> Iterator[None]:
    sessions, window, pause_s = LOADS[name]
    options = {"--connections": sessions, "--window": window, "--pause": pause_s}
    arguments = [text for option, value in options.items() for text in (option, str(value))]
    command = [sys.executable, str(Path(__file__).with_name("write_load.py")), *arguments, *endpoints]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    begun_s = time.monotonic()
    try:
        yield
    finally:
        ended_early = process.poll() is not None
        process.terminate()
        output, _ = process.communicate()
    if ended_early or not output.strip() or int(output) == 0:
        raise BenchmarkError("the load generator did not do its work, so these figures are not to be used")
    print(f"  ({int(output) / (time.monotonic() - begun_s):,.0f} writes/s of {name} load, faults included)", flush=True)


@contextlib.contextmanager
def writing(hosts: Sequence[Sequence[str]]) -> Iterator[list[Writer]]:
    """One writer for each list of hosts, started."""
    writers = [Writer(names, f"/failover-{i}") for i, names in enumerate(hosts)]
    started: list[Writer] = []
    try:
        for writer in writers:
            writer.start()
            started.append(writer)
        yield writers
    finally:
        for writer in started:
            writer.stop()


def quiet_gap_ms(writers: Sequence[Writer]) -> float:
    now_s = time.monotonic()
    return max(writer.longest_gap(now_s - 1.0, now_s)[0] for writer in writers) * 1000


def fault_once(ensemble: Ensemble, name: str) -> Sample:
    """Hit the leader, wait until all clients have written, and mend what was done."""
    modes = wait_caught_up(ensemble)
    leader = next(i for i, endpoint in enumerate(ensemble.endpoints) if modes[endpoint] == "leader")
    followers = [endpoint for endpoint in ensemble.endpoints if modes[endpoint] == "follower"]
    # The own follower first: kazoo goes through its hosts in the order of the list when it connects again.
    hosts = [followers[i:] + followers[:i] for i in range(len(followers)) for _ in range(CLIENTS_PER_FOLLOWER)]
    with writing(hosts) as writers:
        time.sleep(SETTLE_S + random.random() / 2)
        quiet_ms = quiet_gap_ms(writers)
        hit_s = time.monotonic()
        os.kill(ensemble.processes[leader].pid, FAULTS[name])
        try:
            times = [wait_for_write(writer, hit_s) for writer in writers]
        finally:
            if name == "SIGSTOP":
                os.kill(ensemble.processes[leader].pid, signal.SIGCONT)
            else:
                ensemble.start_node(leader)
    return Sample((min(times) - hit_s) * 1000, (max(times) - hit_s) * 1000, quiet_ms)


def wait_for_write(writer: Writer, since_s: float) -> float:
    while time.monotonic() < since_s + GIVE_UP_S:
        found = writer.first_begun_after(since_s)
        if found is not None:
            return found
        if writer.failure is not None:
            break
        time.sleep(0.005)
    return math.inf


def restart_all(ensemble: Ensemble) -> Rolling:
    """One rolling restart under the eyes of clients that know all nodes."""
    wait_caught_up(ensemble)
    with writing([ensemble.endpoints] * ROLLING_CLIENTS) as writers:
        time.sleep(SETTLE_S)
        quiet_ms = quiet_gap_ms(writers)
        begun_s = time.monotonic()
        turns: list[tuple[float, str]] = []
        for i, endpoint in enumerate(ensemble.endpoints):
            modes = ensemble.modes()
            turns.append((time.monotonic(), f"node {i}, a {modes[endpoint]}"))
            ensemble.processes[i].terminate()
            ensemble.start_node(i)
            wait_caught_up(ensemble)
            time.sleep(SETTLE_S)
        done_s = time.monotonic()
    gap_s, ended_s = max(writer.longest_gap(begun_s, done_s) for writer in writers)
    return Rolling(
        longest_gap_ms=gap_s * 1000,
        quiet_ms=quiet_ms,
        writes=sum(len(writer.writes) for writer in writers),
        repeated=sum(writer.repeated for writer in writers),
        failed=sum(writer.failed for writer in writers),
        slowest_node=max((turn for turn in turns if turn[0] <= ended_s), default=(0.0, "none"))[1],
    )


# --- what is printed -------------------------------------------------------------------------------


class Figures(msgspec.Struct):
    """All that one run found, by system, load and fault."""

    faults: dict[str, list[Sample]] = {}
    rolling: dict[str, list[Rolling]] = {}


def verdict(value: float, target: float, faults: int) -> str:
    """`faults` is how many measurements the value rests on."""
    if faults < LEAST_FAULTS:
        return "unknown"
    return "met" if value < target else "MISSED"


def fault_table(faults: dict[str, list[Sample]]) -> Iterator[str]:
    yield "ms from the signal to the next successful write; targets are for the client that waited longest"
    yield ""
    yield f"{'':<30}{'first client':>15}{'last client':>18}{'quiet':>15}"
    yield f"{'':<24}faults  median  worst    median  worst    median  worst   targets"
    for name, samples in faults.items():
        system, _, fault = name.split()
        last = [sample.last_ms for sample in samples]
        measured = ([sample.first_ms for sample in samples], last, [sample.quiet_ms for sample in samples])
        columns = [f"{statistics.median(values):>8,.0f} {max(values):>6,.0f}  " for values in measured]
        line = f"{name:<26}{len(samples):>4}{' '.join(columns)}"
        if system == "Quorate":
            target = MEDIAN_TARGET_MS[fault]
            line += f" median < {target:g} {verdict(statistics.median(last), target, len(last))}"
            if fault in WORST_TARGET_MS:
                line += f", worst < {WORST_TARGET_MS[fault]:g} {verdict(max(last), WORST_TARGET_MS[fault], len(last))}"
        yield line.rstrip()


def rolling_table(rolling: dict[str, list[Rolling]]) -> Iterator[str]:
    yield "rolling restart: longest gap between two successful writes of one client, ms"
    yield ""
    yield f"{'':<20}rounds  median  worst   quiet    writes  repeated  failed   targets"
    for name, rounds in rolling.items():
        gaps = [one.longest_gap_ms for one in rounds]
        failed = sum(one.failed for one in rounds)
        line = (
            f"{name:<20}{len(rounds):>6}{statistics.median(gaps):>8,.0f}{max(gaps):>7,.0f}"
            f"{max(one.quiet_ms for one in rounds):>8,.0f}{sum(one.writes for one in rounds):>10,}"
            f"{sum(one.repeated for one in rounds):>10,}{failed:>8}"
        )
        if name.startswith("Quorate"):
            restarts = NODES * len(rounds)
            line += f"   gap < {ROLLING_TARGET_MS:g} {verdict(max(gaps), ROLLING_TARGET_MS, restarts)}"
            line += f", failed < 1 {verdict(failed, 1, restarts)}"
        yield line.rstrip()


# --- the run ---------------------------------------------------------------------------------------


def measure(ensemble: Ensemble, loads: Sequence[str], counts: dict[str, int], rounds: int, figures: Figures) -> None:
    """Fill `figures` with what one system does."""
    for load_name in loads:
        with load(ensemble.endpoints, load_name):
            time.sleep(2 * SETTLE_S)
            for fault, count in counts.items():
                name = f"{ensemble.name} {load_name} {fault}"
                for number in range(count):
                    sample = fault_once(ensemble, fault)
                    figures.faults.setdefault(name, []).append(sample)
                    print(
                        f"{name} {number + 1:>2}: first {sample.first_ms:,.0f} ms, last {sample.last_ms:,.0f} ms, "
                        f"quiet {sample.quiet_ms:,.0f} ms",
                        flush=True,
                    )
            for number in range(rounds):
                rolling = restart_all(ensemble)
                figures.rolling.setdefault(f"{ensemble.name} {load_name}", []).append(rolling)
                print(
                    f"{ensemble.name} {load_name} rolling restart {number + 1}: gap {rolling.longest_gap_ms:,.0f} ms "
                    f"({rolling.slowest_node}), {rolling.repeated} attempts repeated, {rolling.failed} writes failed",
                    flush=True,
                )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="SIGKILLs under each load (default 30)")
    parser.add_argument("--stops", type=int, help="SIGSTOPs under each load (default: as --kills)")
    parser.add_argument("--rolling", type=int, default=4, metavar="N", help="rolling restarts (default 4)")
    parser.add_argument(
        "--zookeeper-stops", type=int, default=3, metavar="N", help="ZooKeeper takes 10 s to notice one (default 3)"
    )
    parser.add_argument("--loads", default="moderate,full", help="which, comma-separated (default moderate,full)")
    parser.add_argument("--data", type=Path, help="parent of the data folders, to choose the disk (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--skip-zookeeper", action="store_true", help="only Quorate")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.loads.split(",") if name not in LOADS]:
        parser.error(f"--loads {unknown[0]}: expected some of {', '.join(LOADS)}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    stops = arguments.kills if arguments.stops is None else arguments.stops
    systems: list[tuple[Callable[[Path], Ensemble], int]] = [(QuorateNodes, stops)]
    if not arguments.skip_zookeeper:
        systems.append((ZooKeeperCluster, min(stops, arguments.zookeeper_stops)))
    figures = Figures()
    missing = ""
    with tempfile.TemporaryDirectory(prefix="bench-failover-", dir=arguments.data) as folder:
        for build, stops in systems:
            try:
                ensemble = build(Path(folder))
            except MissingPeer as error:
                missing = f"not measured beside it: {error}"
                continue
            with ensemble:
                counts = {"SIGKILL": arguments.kills, "SIGSTOP": stops}
                measure(ensemble, arguments.loads.split(","), counts, arguments.rolling, figures)
    print("", *fault_table(figures.faults), "", *rolling_table(figures.rolling), missing, sep="\n")
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))


if __name__ == "__main__":
    with reported_errors():
        main()
