"""Clusters for tests, with the nodes' logs in the report of a test that failed."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.processes.cluster import Cluster

LOG_TAIL_CHARACTERS = 6000


class MakeCluster(Protocol):
    """Makes clusters that are closed when the test ends; arguments are those of `Cluster` after the folder."""

    def __call__(self, *args: Any, **options: Any) -> Cluster: ...


@pytest.fixture
def make_cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeCluster]:
    made: list[Cluster] = []

    def make(*args: Any, **options: Any) -> Cluster:
        cluster = Cluster(tmp_path / f"cluster-{len(made)}", *args, **options)
        made.append(cluster)
        request.node.stash.setdefault(CLUSTERS, []).append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    """Three nodes, started and led."""
    return make_cluster().start()


CLUSTERS = pytest.StashKey[list[Cluster]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for cluster in item.stash.get(CLUSTERS, []):
            for node in cluster.nodes:
                report.sections.append((f"log of node {node.node}", node.log_text()[-LOG_TAIL_CHARACTERS:]))
    return report
