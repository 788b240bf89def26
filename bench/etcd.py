"""etcd 3.4 and Quorate under the same load, in turn, on this machine: `python bench/etcd.py --help`.

Three nodes each on loopback, with their defaults, so that both sync before they acknowledge.  Case follows case, one
cluster up for it and then the other, so that a machine whose speed changes within minutes does both alike.  The load
generator is nghttp's `h2load`, which competes with the servers for a small machine's cores.  One h2load writes one
key: so there is one key by default, and `--keys 8` starts eight h2load of an eighth of the connections each (the loads
of one connection have one key all the same).  All requests go to the leader's node unless `--target follower` says
otherwise.

h2load sees no gRPC status.  That the requests did what they should is seen by the revision before and after, and by
the size of the answers.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from google.protobuf.message import Message

import fanout
import h2load
from cluster import BenchmarkError, Cluster, QuorateNodes, reported_errors, wait_idle
from etcd_cluster import PUT, RANGE, TXN, Calls, EtcdCluster, etcd_mode, refused_is_an_error, status
from h2load import Load, Shape
from quorate.services.etcd import etcd_pb2 as pb

SMALL, LARGE = 100, 4096
"""Bytes of a value."""
SHAPES = (Shape(1, 1), Shape(8, 8), Shape(8, 32))
LEAST_RATIOS = {("put", SMALL, "8x32"): 4.0, ("range", SMALL, "8x32"): 4.0}
"""Of Quorate's throughput to etcd's."""
MOST_LATENCY_RATIOS = {("put", SMALL, "1x1"): 0.5, ("range", SMALL, "1x1"): 0.5}
"""Of Quorate's median latency to etcd's."""


Builder = Callable[[Path], Cluster]


@dataclass(frozen=True)
class Operation:
    name: str
    path: str
    response: type[Message]
    writes: bool
    request: Callable[[bytes, bytes], Message]
    """Of a key and a value."""


def compare_and_put(key: bytes, value: bytes) -> pb.TxnRequest:
    """What a client does that writes only over what it has seen."""
    put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))
    seen = pb.Compare(key=key, target=pb.Compare.CREATE, result=pb.Compare.GREATER, create_revision=0)
    return pb.TxnRequest(compare=[seen], success=[put])


OPERATIONS = (
    Operation("put", PUT, pb.PutResponse, True, lambda key, value: pb.PutRequest(key=key, value=value)),
    Operation("range", RANGE, pb.RangeResponse, False, lambda key, value: pb.RangeRequest(key=key)),
    Operation(
        "serializable", RANGE, pb.RangeResponse, False, lambda key, value: pb.RangeRequest(key=key, serializable=True)
    ),
    Operation("txn", TXN, pb.TxnResponse, True, compare_and_put),
)


@dataclass(frozen=True)
class Case:
    operation: Operation
    value_bytes: int
    shape: Shape

    def __str__(self) -> str:
        return f"{self.operation.name}-{self.value_bytes}-{self.shape}"


def chosen_cases(only: str | None, quick: bool) -> list[Case]:
    """All, or those whose name contains a word of `only` (comma-separated), or the four that have targets."""
    cases = [Case(operation, size, shape) for operation in OPERATIONS for size in (SMALL, LARGE) for shape in SHAPES]
    if only is not None:
        cases = [case for case in cases if any(word in str(case) for word in only.split(","))]
    elif quick:
        cases = [
            case
            for case in cases
            if (case.operation.name, case.value_bytes, str(case.shape)) in LEAST_RATIOS | MOST_LATENCY_RATIOS
        ]
    return cases


def endpoint_of(cluster: Cluster, target: str) -> str:
    """A node in the wanted role, found anew before each case, since leaders may change."""
    return next(endpoint for endpoint, mode in cluster.modes().items() if mode == target)


def run_case(cluster: Cluster, case: Case, arguments: argparse.Namespace, folder: Path) -> Load:
    """Raises BenchmarkError where the requests did not do what they should."""
    operation = case.operation
    keys = arguments.keys if case.shape.connections % arguments.keys == 0 else 1
    names = [b"key-%d" % i for i in range(keys)]
    value = os.urandom(case.value_bytes)
    requests = [operation.request(name, value) for name in names]
    with refused_is_an_error(), Calls(endpoint_of(cluster, "leader")) as calls:
        for name in names:
            calls.call(PUT, pb.PutRequest(key=name, value=value), pb.PutResponse)
        size = len(calls.call(operation.path, requests[0], operation.response).SerializeToString())
    endpoint = endpoint_of(cluster, arguments.target)
    before = status(endpoint).header.revision
    load = h2load.run(
        endpoint,
        operation.path,
        [request.SerializeToString() for request in requests],
        case.shape,
        arguments.seconds,
        arguments.warmup,
        folder,
    )
    written = status(endpoint).header.revision - before
    if load.failed:
        raise BenchmarkError(f"{cluster.name}, {case}: {load.failed} requests failed")
    if written < load.requests * operation.writes or (written and not operation.writes):
        raise BenchmarkError(f"{cluster.name}, {case}: {load.requests} requests made {written} revisions")
    if load.response_bytes < 0.8 * size:
        raise BenchmarkError(f"{cluster.name}, {case}: answers of {load.response_bytes:.0f} bytes instead of {size}")
    return load


@contextlib.contextmanager
def fresh(build: Builder, folder: Path) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(dir=folder) as own, build(Path(own)) as cluster:
        yield cluster


def measure(
    builders: Sequence[Builder], cases: Sequence[Case], arguments: argparse.Namespace, folder: Path
) -> dict[str, dict[Case, Load]]:
    loads: dict[str, dict[Case, list[Load]]] = {}
    for _ in range(arguments.rounds):
        for case in cases:
            for build in builders:
                with fresh(build, folder) as cluster:
                    wait_idle()
                    load = run_case(cluster, case, arguments, folder)
                print(
                    f"{cluster.name:>8}  {case!s:<22} {load.per_second:>9,.0f}/s  p50 {load.p50_us:>7,.0f} µs"
                    f"  p99 {load.p99_us:>8,.0f} µs",
                    flush=True,
                )
                loads.setdefault(cluster.name, {}).setdefault(case, []).append(load)
    return {name: {case: median(rounds) for case, rounds in found.items()} for name, found in loads.items()}


def median(loads: Sequence[Load]) -> Load:
    """Of each figure."""
    rows = [msgspec.structs.astuple(load) for load in loads]
    return Load(*map(statistics.median, zip(*rows, strict=True)))


def measure_fan_out(cluster: Cluster, watchers: int, seconds: float) -> fanout.FanOut:
    found = fanout.measure(endpoint_of(cluster, "leader"), watchers, seconds)
    print(
        f"{cluster.name:>8}  {watchers:,} watchers: {found.events_per_second:,.0f} events/s;"
        f" all told p50 {found.all_told_p50_us:,.0f} µs  p99 {found.all_told_p99_us:,.0f} µs",
        flush=True,
    )
    return found


def verdict(met: bool, ratio: float, wanted: str) -> str:
    return f"{wanted} {'unknown' if math.isnan(ratio) else 'met' if met else 'MISSED'}"


def table(etcd: dict[Case, Load], quorate: dict[Case, Load], with_targets: bool) -> str:
    """The comparison, with a verdict where there is a target."""
    lines = [
        "                            etcd 3.4                      Quorate",
        "operation     value  load      req/s  p50 µs   p99 µs      req/s  p50 µs   p99 µs    req/s      p50  target",
    ]
    for case, ours in quorate.items():
        theirs = etcd[case]
        ratio, slower = ours.per_second / theirs.per_second, ours.p50_us / theirs.p50_us
        key = (case.operation.name, case.value_bytes, str(case.shape))
        notes = []
        if with_targets and key in LEAST_RATIOS:
            notes.append(verdict(ratio >= LEAST_RATIOS[key], ratio, f">= {LEAST_RATIOS[key]:g}x"))
        if with_targets and key in MOST_LATENCY_RATIOS:
            most = MOST_LATENCY_RATIOS[key]
            notes.append(verdict(slower <= most, slower, f"p50 <= {most:g}x"))
        lines.append(
            f"{case.operation.name:<13} {case.value_bytes:>5}  {case.shape!s:<5}"
            f" {theirs.per_second:>9,.0f} {theirs.p50_us:>7,.0f} {theirs.p99_us:>8,.0f}"
            f"  {ours.per_second:>9,.0f} {ours.p50_us:>7,.0f} {ours.p99_us:>8,.0f}"
            f" {ratio:>7.2f}x {slower:>7.2f}x  {'; '.join(notes)}".rstrip()
        )
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="length of each measurement (default 5)")
    parser.add_argument("--warmup", type=int, default=2, help="load before each, not measured (default 2)")
    parser.add_argument("--rounds", type=int, default=1, help="of all cases; medians of them are compared (default 1)")
    parser.add_argument("--only", metavar="WORDS", help="cases whose name contains a word: put,range-100-8x32,watch")
    parser.add_argument("--quick", action="store_true", help="only the cases that have a target")
    parser.add_argument("--keys", type=int, default=1, help="different keys, each of an h2load of its own (default 1)")
    parser.add_argument("--watchers", type=int, default=1000, help="of one key (default 1000)")
    parser.add_argument("--target", choices=("leader", "follower"), default="leader", help="node to load")
    parser.add_argument("--nodes", type=int, default=3, help="nodes of each cluster (default 3)")
    parser.add_argument("--data", type=Path, help="parent of the data folders, to choose the disk (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--skip-etcd", action="store_true", help="only Quorate")
    one.add_argument("--skip-quorate", action="store_true", help="only etcd")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cases = chosen_cases(arguments.only, arguments.quick)
    fans_out = not arguments.quick if arguments.only is None else "watch" in arguments.only.split(",")
    if fans_out and arguments.watchers % fanout.CONNECTIONS:
        raise BenchmarkError(f"--watchers {arguments.watchers}: they share {fanout.CONNECTIONS} connections evenly")
    if not cases and not fans_out:
        raise BenchmarkError(f"--only {arguments.only}: no such case; cases are named like put-100-8x32, and watch")
    fans: dict[str, fanout.FanOut] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-etcd-", dir=arguments.data)))
        builders: list[Builder] = []
        if not arguments.skip_etcd:
            builders.append(lambda own: EtcdCluster(own, arguments.nodes))
        if not arguments.skip_quorate:
            builders.append(lambda own: QuorateNodes(own, arguments.nodes, "etcd", etcd_mode))
        results = measure(builders, cases, arguments, folder)
        if fans_out:
            for build in builders:
                with fresh(build, folder) as cluster:
                    fans[cluster.name] = measure_fan_out(cluster, arguments.watchers, arguments.seconds)
    if len(builders) == 2:
        print(f"\nagainst the {arguments.target}; {arguments.keys} key(s); the last ratios are Quorate's to etcd's\n")
        if cases:
            print(table(results["etcd"], results["Quorate"], arguments.target == "leader"))
        if fans_out:
            theirs, ours = fans["etcd"], fans["Quorate"]
            print(
                f"{theirs.watchers:,} watchers: {ours.events_per_second / theirs.events_per_second:.2f}x the events/s,"
                f" all told in {ours.all_told_p50_us / theirs.all_told_p50_us:.2f}x the time"
            )
    if arguments.json is not None:
        figures = {name: {str(case): load for case, load in loads.items()} for name, loads in results.items()}
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode({"loads": figures, "watch": fans})))


if __name__ == "__main__":
    with reported_errors():
        main()
