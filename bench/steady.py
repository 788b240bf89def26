"""Whether a cluster keeps its leaders under full load and without a fault: `python bench/steady.py --help`.

Three nodes on loopback with default settings; `write_load.py` writes through all of them, as `failover.py`'s *full*
load does: 64 sessions with 8 writes under way each and no pause, which is more than two cores can do.  Once a second
every node is asked for its status, its metrics and its longest stop of the loop since the last time; so the figures
are exact to a second.  The first sample is taken before the load begins: that it begins is part of the run.

An election is a generation that a group has entered, or a candidacy that was won or lost, on any node, since the
first sample; a leadership that was handed over is one too, and is named as such.  Those within 3 s of one another are
told as one.  What stalled from 5 s before until 2 s after it is told with it.  A follower that lost sight of its
leader and found the same one again, without a vote (pre-vote), is told where a sample catches it, but is no election.

Ctrl-C ends the run early, with the figures so far.  Exit code: 0 no election in the whole time; 1 elections, or the
run broke; 130 ended early, without an election until then.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from cluster import ADMIN_DISTANCE, START_SECONDS, BenchmarkError, QuorateNodes, reported_errors, wait_caught_up
from failover import load
from quorate.cli.progress import ProgressLine
from quorate.cli.tables import render_table

SERVICES = ("zookeeper", "cluster")
"""The groups, by their service."""
INTERVAL_S = 1.0
ANSWER_TIMEOUT_S = 5.0
TOGETHER_S = 3.0
"""Changes of one group that are no further apart than this are one event."""
BEFORE_S, AFTER_S = 5.0, 2.0
"""Around an event: whose stalls are told with it."""
STALL_BOUNDS_MS = (100, 200, 400)
"""Some of the bounds of quorate_loop_stall_seconds."""
LOG_LINES = 20
EXIT_FAILURE, EXIT_INTERRUPTED = 1, 130


class GroupSample(msgspec.Struct, frozen=True):
    """One group, as one node sees it."""

    generation: int
    leader: int | None
    won: int
    lost: int
    election_timeout_ms: int
    """In effect: it grows with measured round trips."""


class NodeSample(msgspec.Struct, frozen=True):
    """What one node said.  Counts are since it started."""

    groups: dict[str, GroupSample]
    requests: int
    stalls: int
    stalls_within: dict[int, int]
    """Bound in ms -> how many of them were no longer."""
    longest_stop_ms: float
    """Since the sample before."""
    slow_syncs: int
    handovers: dict[str, int]
    """Reason -> how many."""


class Round(msgspec.Struct, frozen=True):
    """One look at all nodes."""

    at_s: float
    """Since the first one."""
    clock: str
    nodes: tuple[NodeSample | None, ...]
    """None for one that did not answer in time."""
    busy_s: float
    total_s: float
    """CPU time of the whole machine, all cores, since it started."""


# --- looking ---------------------------------------------------------------------------------------


def ask(endpoint: str, method: str, path: str) -> bytes:
    """A request to the admin listener of the node with that client port.  Raises OSError."""
    host, _, port = endpoint.rpartition(":")
    url = f"http://{host}:{int(port) + ADMIN_DISTANCE}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=ANSWER_TIMEOUT_S) as answer:
        body: bytes = answer.read()
    return body


def look_at(endpoint: str) -> NodeSample | None:
    try:
        # The stop first: what follows may be delayed by the next one.
        stop = json.loads(ask(endpoint, "POST", "/reset-longest-stop"))["loop_longest_stop_ms"]
        return sample_of(json.loads(ask(endpoint, "GET", "/status")), ask(endpoint, "GET", "/metrics").decode(), stop)
    except (OSError, http.client.HTTPException):
        return None


def sample_of(status: Mapping[str, Any], page: str, longest_stop_ms: float) -> NodeSample:
    """From a node's status document and its page of metrics."""
    counts = {
        (sample.name, *(label for _, label in sorted(sample.labels.items()))): int(sample.value)
        for family in text_string_to_metric_families(page)
        if family.type in ("counter", "histogram")
        for sample in family.samples
    }
    by_service = {group["service"]: group for group in status["groups"]}
    return NodeSample(
        groups={
            service: GroupSample(
                generation=by_service[service]["generation"],
                leader=by_service[service]["leader"],
                won=counts["quorate_elections_total", "won", service],
                lost=counts["quorate_elections_total", "lost", service],
                election_timeout_ms=by_service[service]["words"]["election_timeout_ms"],
            )
            for service in SERVICES
            if service in by_service
        },
        requests=sum(group["door"].get("requests", 0) for group in status["groups"]),
        stalls=counts[("quorate_loop_stalls_total",)],
        stalls_within={ms: counts["quorate_loop_stall_seconds_bucket", str(ms / 1000)] for ms in STALL_BOUNDS_MS},
        longest_stop_ms=longest_stop_ms,
        slow_syncs=counts[("quorate_slow_syncs_total",)],
        handovers={key[1]: count for key, count in counts.items() if key[0] == "quorate_handovers_total"},
    )


def cpu_s() -> tuple[float, float]:
    """(busy, all) CPU time of the machine since it started; what a hypervisor took counts as busy."""
    with open("/proc/stat") as file:
        ticks = [int(text) for text in file.readline().split()[1:9]]
    per_s = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / per_s, sum(ticks) / per_s


def is_led(nodes: Sequence[NodeSample | None]) -> bool:
    """Every node knows the one leader of every group."""
    for service in SERVICES:
        groups = {None if node is None else node.groups.get(service) for node in nodes}
        found = {None if group is None else (group.generation, group.leader) for group in groups}
        if len(found) != 1 or None in found or any(group is not None and group.leader is None for group in groups):
            return False
    return True


class Watch:
    """Looks at all nodes, and keeps what it saw."""

    def __init__(self, nodes: QuorateNodes) -> None:
        self.rounds: list[Round] = []
        self._nodes = nodes
        self._threads = ThreadPoolExecutor(len(nodes.endpoints))
        self._begun_s = time.monotonic()

    def begin(self) -> None:
        """Wait until all groups are led.  Raises BenchmarkError."""
        deadline_s = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline_s:
            self._begun_s = time.monotonic()
            self.look()
            if is_led(self.rounds[-1].nodes):
                del self.rounds[:-1]
                return
            time.sleep(INTERVAL_S)
        raise BenchmarkError(f"not all groups are led after {START_SECONDS:g} s")

    def look(self) -> None:
        """Raises BenchmarkError where a node's process has ended."""
        for node, process in enumerate(self._nodes.processes):
            if process.poll() is not None:
                raise BenchmarkError(f"node {node} ended with {process.returncode}")
        at_s = time.monotonic() - self._begun_s
        nodes = tuple(self._threads.map(look_at, self._nodes.endpoints))
        self.rounds.append(Round(at_s, time.strftime("%H:%M:%S"), nodes, *cpu_s()))

    def watch(self, for_s: float) -> bool:
        """Look once a second.  False where Ctrl-C ended it; SIGINT must be blocked."""
        progress = ProgressLine(sys.stderr)
        try:
            while (now_s := time.monotonic() - self._begun_s) < for_s:
                next_s = min(for_s, (now_s // INTERVAL_S + 1) * INTERVAL_S)
                if signal.sigtimedwait({signal.SIGINT}, next_s - now_s) is not None:
                    return False
                self.look()
                progress.show(lambda: progress_text(self.rounds, for_s))
        finally:
            progress.clear()
        return True


# --- what it means ---------------------------------------------------------------------------------


class Event(msgspec.Struct):
    """Something happened to the leadership of a group."""

    service: str
    first: int
    last: int
    """Indexes of the rounds that saw it first and last."""
    before: GroupSample
    after: GroupSample
    """By the node that was in the highest generation."""
    stood: dict[int, tuple[int, int]]
    """Node -> elections that it won and lost."""

    def is_election(self) -> bool:
        return self.after.generation != self.before.generation or bool(self.stood)


def find_events(rounds: Sequence[Round]) -> list[Event]:
    """In the order of time."""
    found = [event for service in SERVICES for event in _events_of(rounds, service)]
    return sorted(found, key=lambda event: event.first)


def _events_of(rounds: Sequence[Round], service: str) -> Iterator[Event]:
    known: dict[int, GroupSample] = {}
    event: Event | None = None
    for index, one in enumerate(rounds):
        if event is not None and one.at_s - rounds[event.last].at_s > TOGETHER_S:
            yield event
            event = None
        before = max(known.values(), key=_furthest, default=None)
        for node, sample in enumerate(one.nodes):
            now = sample.groups.get(service) if sample is not None else None
            if now is None:
                continue
            was = known.get(node, now)
            known[node] = now
            won, lost = now.won - was.won, now.lost - was.lost
            if (won, lost, now.generation, now.leader) == (0, 0, was.generation, was.leader) or before is None:
                continue
            if event is None:
                event = Event(service, index, index, before, before, {})
            event.last = index
            if won or lost:
                sum_won, sum_lost = event.stood.get(node, (0, 0))
                event.stood[node] = sum_won + won, sum_lost + lost
        if event is not None:
            event.after = max(known.values(), key=_furthest)
    if event is not None:
        yield event


def _furthest(group: GroupSample) -> tuple[int, bool]:
    return group.generation, group.leader is not None


def grown(counts: Sequence[int]) -> int:
    """By how much it grew over one node's samples."""
    return counts[-1] - counts[0] if counts else 0


def of_node(rounds: Sequence[Round], node: int) -> list[NodeSample]:
    return [sample for one in rounds if (sample := one.nodes[node]) is not None]


def handovers_text(samples: Sequence[NodeSample]) -> str:
    reasons = samples[-1].handovers if samples else {}
    by_reason = {reason: grown([sample.handovers[reason] for sample in samples]) for reason in reasons}
    return ", ".join(f"{count} ({reason})" for reason, count in by_reason.items() if count) or "none"


def rates(rounds: Sequence[Round]) -> list[float]:
    """Requests per second of all clients, by second; without those in which a node did not answer."""
    found = []
    for a, b in itertools.pairwise(rounds):
        taken = [y.requests - x.requests for x, y in zip(a.nodes, b.nodes, strict=True) if x and y]
        if len(taken) == len(a.nodes):
            found.append(sum(taken) / (b.at_s - a.at_s))
    return found


def busy(rounds: Sequence[Round]) -> list[float]:
    """Share of the machine's CPU time that was used, by second."""
    pairs = itertools.pairwise(rounds)
    return [(b.busy_s - a.busy_s) / (b.total_s - a.total_s) for a, b in pairs if b.total_s > a.total_s]


# --- what is printed -------------------------------------------------------------------------------


def minutes_text(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def progress_text(rounds: Sequence[Round], for_s: float) -> str:
    samples = [of_node(rounds, node) for node in range(len(rounds[0].nodes))]
    stood = sum(grown([sum(group.won + group.lost for group in s.groups.values()) for s in own]) for own in samples)
    stalls = sum(grown([s.stalls for s in own]) for own in samples)
    longest_ms = max((s.longest_stop_ms for own in samples for s in own[1:]), default=0.0)
    slow_syncs = sum(grown([s.slow_syncs for s in own]) for own in samples)
    timeouts = [group.election_timeout_ms for own in samples for s in own[-1:] for group in s.groups.values()]
    rate = (rates(rounds[-2:]) or [0.0])[0]
    return (
        f"{minutes_text(rounds[-1].at_s)} of {minutes_text(for_s)}: elections {stood}, {rate:,.0f} requests/s, "
        f"{stalls} stalls (longest stop {longest_ms:,.0f} ms), {slow_syncs} slow syncs, "
        f"election timeout {max(timeouts, default=0)} ms"
    )


def node_table(rounds: Sequence[Round]) -> str:
    heads = ["node", *SERVICES, "stood", "loop stalls", "longest stop", "slow syncs", "handed over"]
    heads += ["election timeout", "unanswered"]
    rows = []
    for node in range(len(rounds[0].nodes)):
        samples = of_node(rounds, node)
        groups = [group for sample in samples for group in sample.groups.values()]
        won = grown([sum(group.won for group in sample.groups.values()) for sample in samples])
        lost = grown([sum(group.lost for group in sample.groups.values()) for sample in samples])
        timeouts = [group.election_timeout_ms for group in groups]
        row = [str(node), *(_standing(samples[-1], service, node) if samples else "-" for service in SERVICES)]
        row += [f"{won} won, {lost} lost" if won or lost else "never", _stalls(samples)]
        row += [f"{max((sample.longest_stop_ms for sample in samples[1:]), default=0.0):,.0f} ms"]
        row += [str(grown([sample.slow_syncs for sample in samples])), handovers_text(samples)]
        row += [f"{min(timeouts)} to {max(timeouts)} ms" if timeouts else "-", str(len(rounds) - len(samples))]
        rows.append(row)
    return render_table(heads, rows, right=frozenset({"longest stop", "slow syncs", "unanswered"}))


def _standing(sample: NodeSample, service: str, node: int) -> str:
    group = sample.groups.get(service)
    if group is None:
        return "-"
    leader = "no leader" if group.leader is None else "leads" if group.leader == node else f"follows {group.leader}"
    return f"{leader}, gen. {group.generation}"


def _stalls(samples: Sequence[NodeSample]) -> str:
    """`17, over 100 ms: 3, over 200 ms: 1`."""
    count = grown([sample.stalls for sample in samples])
    longer = {ms: count - grown([sample.stalls_within[ms] for sample in samples]) for ms in STALL_BOUNDS_MS}
    return ", ".join([str(count), *(f"over {ms} ms: {many}" for ms, many in longer.items() if many)])


def event_lines(rounds: Sequence[Round], event: Event) -> Iterator[str]:
    begun_s, ended_s = rounds[event.first].at_s, rounds[event.last].at_s
    around = [one for one in rounds if begun_s - BEFORE_S <= one.at_s <= ended_s + AFTER_S]
    before, after = event.before, event.after
    what = "election" if event.is_election() else "a follower lost sight of its leader, and nobody voted"
    yield (
        f"{rounds[event.first].clock}, {minutes_text(begun_s)} after the first sample: {event.service}, {what}: "
        f"leader {_leader(before)} in generation {before.generation} -> {_leader(after)} in {after.generation}"
    )
    for node, (won, lost) in sorted(event.stood.items()):
        yield f"  node {node} stood: {won} won, {lost} lost"
    for node in range(len(around[0].nodes)):
        samples = of_node(around, node)
        longest_ms = max((sample.longest_stop_ms for sample in samples), default=0.0)
        silent = len(around) - len(samples)
        yield (
            f"  node {node} around it: loop stalls {_stalls(samples)}, longest stop {longest_ms:,.0f} ms, "
            f"slow syncs {grown([sample.slow_syncs for sample in samples])}, handed over {handovers_text(samples)}"
            f"{f', silent in {silent} of {len(around)} samples' if silent else ''}"
        )


def _leader(group: GroupSample) -> str:
    return "nobody" if group.leader is None else f"node {group.leader}"


def log_lines(log: Path, offset: int) -> list[str]:
    """What a node's log says of leadership and trouble from an offset on; the first lines of that."""
    with log.open("rb") as file:
        file.seek(offset)
        lines = file.read().decode("utf-8", "replace").splitlines()
    telling = [line for line in lines if " WARNING " in line or " ERROR " in line or "leader" in line]
    left_out = [f"({len(telling) - LOG_LINES} more lines)"] if len(telling) > LOG_LINES else []
    return telling[:LOG_LINES] + left_out


def report(rounds: Sequence[Round], events: Sequence[Event]) -> Iterator[str]:
    speeds, shares = rates(rounds), busy(rounds)
    line = f"{minutes_text(rounds[-1].at_s)} minutes of full load, {len(rounds)} samples"
    if speeds and shares:
        line += f": {sum(speeds) / len(speeds):,.0f} requests/s, {min(speeds):,.0f} in the slowest second; "
        line += f"{os.cpu_count()} cores {sum(shares) / len(shares):.0%} busy, {min(shares):.0%} in the idlest second"
    yield from ("", line, "", node_table(rounds), "")
    for event in events:
        yield from event_lines(rounds, event)


# --- the run ---------------------------------------------------------------------------------------


def verdict(rounds: Sequence[Round], events: Sequence[Event], complete: bool, minutes: float) -> tuple[int, str]:
    """(exit code, the last line)."""
    elections = sum(event.is_election() for event in events)
    so_far = f"in {minutes_text(rounds[-1].at_s)} of {minutes_text(60 * minutes)} minutes"
    if elections:
        return EXIT_FAILURE, f"{elections} election{'s' if elections > 1 else ''} {so_far}"
    return (0, f"no election {so_far}") if complete else (EXIT_INTERRUPTED, f"no election {so_far}, then it was ended")


def run(folder: Path, minutes: float) -> int:
    """Returns the exit code.  Raises BenchmarkError, after it has printed what was seen until then."""
    with QuorateNodes(folder) as nodes:
        wait_caught_up(nodes)
        watch = Watch(nodes)
        watch.begin()
        logs = [folder / f"quorate-{node}" / "node.log" for node in range(len(nodes.endpoints))]
        offsets = [log.stat().st_size for log in logs]
        complete = False
        failure: BenchmarkError | None = None
        try:
            with load(nodes.endpoints, "full"):
                complete = watch.watch(60 * minutes)
        except BenchmarkError as error:
            failure = error
        told = [log_lines(log, offset) for log, offset in zip(logs, offsets, strict=True)]
    events = find_events(watch.rounds)
    print(*report(watch.rounds, events), sep="\n")
    if events or failure is not None:
        print("", "from the nodes' logs:", *(line for lines in told for line in lines), "", sep="\n")
    if failure is not None:
        raise failure
    code, line = verdict(watch.rounds, events, complete, minutes)
    print(line)
    return code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--data", type=Path, help="parent of the data folders, to choose the disk (default: temporary)")
    arguments = parser.parse_args()
    if not arguments.minutes > 0:
        parser.error(f"--minutes {arguments.minutes:g}: must be more than 0")
    # Nodes and load are children and inherit that it is blocked: a terminal sends Ctrl-C to all of them, and nodes
    # that end, or hand over, before the run has ended would be the elections that are looked for.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with tempfile.TemporaryDirectory(prefix="bench-steady-", dir=arguments.data) as folder:
        code = run(Path(folder), arguments.minutes)
    sys.exit(code)


if __name__ == "__main__":
    with reported_errors():
        main()
