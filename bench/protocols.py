"""Raft, Multi-Paxos and ZAB under the same load, on this machine: `python bench/protocols.py --help`.

Three nodes on loopback for each protocol, all clusters of a service up at once and loaded one after another, in several
rounds: a machine whose speed changes then changes it for all of them.  Beside each rate stands the median over the
rounds of its ratio to Raft's in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

import etcd
import zookeeper
from cluster import BenchmarkError, LoadGenerator, QuorateCluster, mode, reported_errors
from etcd_cluster import etcd_mode

PROTOCOLS = ("raft", "paxos", "zab")
LEAST_RATIO = 0.85
"""Of the others' throughput to Raft's."""
WARMUP_SECONDS = 1
ETCD_CASES = ("put-100-1x1", "put-100-8x32", "range-100-8x32")
ZOOKEEPER_CASES = ("setData-1x1", "setData-64x8", "getData-64x8", "create-64x8")

Measure = Callable[[QuorateCluster], float]
"""Requests per second of one run against a cluster."""


class Figure(msgspec.Struct, frozen=True):
    """One protocol under one load, in requests per second; `ratio` is the median of its ratios to Raft, by round."""

    case: str
    protocol: str
    per_second: float
    ratio: float
    rounds: list[float]


def etcd_measures(names: Sequence[str], seconds: int, folder: Path) -> Mapping[str, Measure]:
    options = argparse.Namespace(keys=1, target="leader", seconds=seconds, warmup=WARMUP_SECONDS)
    measures: dict[str, Measure] = {}
    for case in etcd.chosen_cases(",".join(names), False):

        def measure(cluster: QuorateCluster, case: etcd.Case = case) -> float:
            # Latencies are not wanted, but h2load's wrapper takes them in the same go.
            return etcd.run_case(cluster, case, options, folder).per_second

        measures[f"etcd {case}"] = measure
    return measures


def zookeeper_measures(names: Sequence[str], seconds: int, folder: Path) -> Mapping[str, Measure]:
    generator = LoadGenerator(folder)
    rounds = iter(range(1 << 30))
    measures: dict[str, Measure] = {}
    for case in zookeeper.chosen_cases(",".join(names), False):

        def measure(cluster: QuorateCluster, case: zookeeper.Case = case) -> float:
            load = generator.run(
                [zookeeper.endpoint_of(cluster, "leader")],
                op=case.operation,
                connections=case.connections,
                window=case.window,
                size=zookeeper.VALUE_BYTES,
                prefix=f"/zkload-{next(rounds)}",
                seconds=seconds,
                warmup=WARMUP_SECONDS,
            )
            if load.failures():
                raise BenchmarkError(f"{cluster.name}, {case}: {load.failures()}")
            return load.ops_per_second

        measures[f"zookeeper {case}"] = measure
    return measures


def compare(clusters: Mapping[str, QuorateCluster], measures: Mapping[str, Measure], rounds: int) -> list[Figure]:
    figures = []
    for case, measure in measures.items():
        by_protocol: dict[str, list[float]] = {protocol: [] for protocol in clusters}
        for number in range(rounds):
            # Whoever comes first in a round does not always come first.
            shift = number % len(clusters)
            order = [*clusters][shift:] + [*clusters][:shift]
            for protocol in order:
                by_protocol[protocol].append(measure(clusters[protocol]))
        base = by_protocol[PROTOCOLS[0]]
        for protocol, found in by_protocol.items():
            ratio = statistics.median(one / other for one, other in zip(found, base, strict=True))
            figure = Figure(case, protocol, statistics.median(found), ratio, found)
            figures.append(figure)
            verdict = "" if protocol == PROTOCOLS[0] else f"  target >= {LEAST_RATIO:g}: "
            verdict += "" if not verdict else "met" if ratio >= LEAST_RATIO else "MISSED"
            print(f"{case:<24} {protocol:<6} {figure.per_second:>9,.0f}/s  {ratio:>5.2f}x of Raft{verdict}", flush=True)
    return figures


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="length of each measurement (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="of all protocols, for each load (default 5)")
    parser.add_argument("--nodes", type=int, default=3, help="of each cluster (default 3)")
    parser.add_argument("--service", choices=("etcd", "zookeeper"), help="one of them (default: both)")
    parser.add_argument("--only", metavar="WORDS", help="cases whose name contains a word: put-100-8x32,getData")
    parser.add_argument("--data", type=Path, help="parent of the data folders, to choose the disk (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    services = (
        ("etcd", ETCD_CASES, etcd_measures, etcd_mode),
        ("zookeeper", ZOOKEEPER_CASES, zookeeper_measures, mode),
    )
    figures = []
    for service, cases, build, ask in services:
        words = [""] if arguments.only is None else arguments.only.split(",")
        names = [name for name in cases if any(word in name for word in words)]
        if not names or arguments.service not in (None, service):
            continue
        with contextlib.ExitStack() as stack:
            prefix = "bench-protocols-"
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=arguments.data)))
            clusters = {}
            for protocol in PROTOCOLS:
                own = folder / protocol
                own.mkdir()
                cluster = QuorateCluster(own, arguments.nodes, ("--protocol", protocol), service, ask)
                clusters[protocol] = stack.enter_context(cluster)
            figures += compare(clusters, build(names, arguments.seconds, folder), arguments.rounds)
    if not figures:
        raise BenchmarkError(
            f"--only {arguments.only}: no such case; they are {', '.join(ETCD_CASES + ZOOKEEPER_CASES)}"
        )
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))


if __name__ == "__main__":
    with reported_errors():
        main()
