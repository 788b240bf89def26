"""ZooKeeper 3.8 and Quorate under the same load, in turn, on this machine: `python bench/zookeeper.py --help`.

Three nodes each on loopback, both syncing before they acknowledge; 100-byte values; the load generator is
`zkload.c`, whose own share of one core is printed, since on a small machine it competes with the servers.
Each operation is run under the heaviest load before anything is measured, for ZooKeeper's JIT.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster import BenchmarkError, Cluster, Load, LoadGenerator, QuorateCluster, ZooKeeperCluster, reported_errors

VALUE_BYTES = 100
OPERATIONS = ("setData", "getData", "create")
LOADS = ((1, 1), (16, 1), (64, 1), (64, 8))
"""(connections, window)"""
HEAVIEST_LOAD = LOADS[-1]
CASE_WARMUP_SECONDS = 1.0
TARGETS = {("setData", 64, 8): 3.0, ("getData", 64, 8): 2.0, ("setData", 1, 1): 1.0, ("getData", 1, 1): 1.0}
"""Least ratio of Quorate's throughput to ZooKeeper's, against the leader."""


@dataclass(frozen=True)
class Case:
    operation: str
    connections: int
    window: int

    def __str__(self) -> str:
        return f"{self.operation}-{self.connections}x{self.window}"


def chosen_cases(only: str | None, quick: bool) -> list[Case]:
    """All, or those whose name contains a word of `only` (comma-separated), or the four that have targets."""
    cases = [Case(operation, *load) for operation in OPERATIONS for load in LOADS]
    if only is not None:
        cases = [case for case in cases if any(word in str(case) for word in only.split(","))]
    elif quick:
        cases = [case for case in cases if (case.operation, case.connections, case.window) in TARGETS]
    if not cases:
        raise BenchmarkError(f"--only {only}: no such case; cases are named like setData-64x8")
    return cases


def endpoint_of(cluster: Cluster, target: str) -> str:
    """A node in the wanted role, found anew before each case, since leaders may change."""
    wanted = {"leader", "standalone"} if target == "leader" else {"follower"}
    for endpoint, mode in cluster.modes().items():
        if mode in wanted:
            return endpoint
    raise BenchmarkError(f"{cluster.name} has no {target}")


def run_case(cluster: Cluster, generator: LoadGenerator, case: Case, target: str, **times: float) -> Load:
    return generator.run(
        [endpoint_of(cluster, target)],
        op=case.operation,
        connections=case.connections,
        window=case.window,
        size=VALUE_BYTES,
        prefix=f"/zkload-{case}{'-warm-up' if 'warmup' not in times else ''}",
        **times,
    )


def measure(
    cluster: Cluster,
    generator: LoadGenerator,
    cases: Sequence[Case],
    target: str,
    seconds: float,
    warmup_seconds: float,
) -> dict[Case, Load]:
    """Each operation is first run under the heaviest load for the warm-up, then its cases, with a second of their own.

    What earlier cases left for the disk to write is written before each: it is not this case's.
    """
    results = {}
    for operation in dict.fromkeys(case.operation for case in cases):
        run_case(cluster, generator, Case(operation, *HEAVIEST_LOAD), target, seconds=warmup_seconds)
        for case in [case for case in cases if case.operation == operation]:
            os.sync()
            load = run_case(cluster, generator, case, target, seconds=seconds, warmup=CASE_WARMUP_SECONDS)
            print(f"{cluster.name:>9}  {case!s:<14} {describe(load)}", flush=True)
            results[case] = load
    return results


def describe(load: Load) -> str:
    text = f"{load.ops_per_second:>9,.0f}/s  p50 {load.p50_us:>7,.0f} µs  p99 {load.p99_us:>8,.0f} µs"
    text += f"  generator {load.cpu_share:>4.0%}"
    return f"{text}  FAILURES: {load.failures()}" if load.failures() else text


def verdict_of(ratio: float, wanted: float) -> str:
    if math.isnan(ratio):
        return "unknown"
    return "met" if ratio >= wanted else "MISSED"


def table(zookeeper: dict[Case, Load], quorate: dict[Case, Load], target: str) -> str:
    """The comparison, with a verdict where there is a target."""
    lines = [
        f"against the {target}; {VALUE_BYTES}-byte values; latencies in µs; generator: its share of one core",
        "",
        "                       ZooKeeper 3.8              Quorate                             generator",
        "operation  load      ops/s    p50      p99     ops/s    p50      p99   ratio  target    zk    quorate",
    ]
    for case, ours in quorate.items():
        theirs = zookeeper[case]
        # A peer that answered nothing is a failed measurement, and no target is met by that.
        ratio = ours.ops_per_second / theirs.ops_per_second if theirs.ops_per_second else float("nan")
        wanted = TARGETS.get((case.operation, case.connections, case.window)) if target == "leader" else None
        verdict = "" if wanted is None else f"{wanted:g} {verdict_of(ratio, wanted)}"
        lines.append(
            f"{case.operation:<9} {case.connections:>3}x{case.window}"
            f" {theirs.ops_per_second:>9,.0f} {theirs.p50_us:>6,.0f} {theirs.p99_us:>8,.0f}"
            f" {ours.ops_per_second:>9,.0f} {ours.p50_us:>6,.0f} {ours.p99_us:>8,.0f}"
            f" {ratio:>6.2f}x {verdict:<9} {theirs.cpu_share:>4.0%} {ours.cpu_share:>6.0%}"
        )
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement (default 5)")
    parser.add_argument("--warmup", type=float, default=5.0, help="warm-up with each operation (default 5)")
    parser.add_argument("--only", metavar="WORDS", help="cases whose name contains a word: setData,getData-64x8")
    parser.add_argument("--quick", action="store_true", help="only the cases that have a target")
    parser.add_argument("--target", choices=("leader", "follower"), default="leader", help="node to load")
    parser.add_argument("--nodes", type=int, default=3, help="nodes of each cluster (default 3)")
    parser.add_argument("--data", type=Path, help="parent of the data folders, to choose the disk (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--skip-zookeeper", action="store_true", help="only Quorate")
    one.add_argument("--skip-quorate", action="store_true", help="only ZooKeeper")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cases = chosen_cases(arguments.only, arguments.quick)
    builders: list[Callable[[Path, int], Cluster]] = []
    if not arguments.skip_zookeeper:
        builders.append(ZooKeeperCluster)
    if not arguments.skip_quorate:
        builders.append(QuorateCluster)
    results: dict[str, dict[Case, Load]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-zookeeper-", dir=arguments.data)))
        generator = LoadGenerator(folder)
        for build in builders:
            with build(folder, arguments.nodes) as cluster:
                results[cluster.name] = measure(
                    cluster, generator, cases, arguments.target, arguments.seconds, arguments.warmup
                )
    if len(results) == 2:
        print(f"\n{table(results['ZooKeeper'], results['Quorate'], arguments.target)}")
    if arguments.json is not None:
        figures = {name: {str(case): load for case, load in loads.items()} for name, loads in results.items()}
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    failures = [load.failures() for loads in results.values() for load in loads.values() if load.failures()]
    if failures:
        raise BenchmarkError("requests failed, so these figures are not to be used: " + "; ".join(failures))


if __name__ == "__main__":
    with reported_errors():
        main()
