"""The page for Prometheus: a real parser reads it, and docs/operations.md explains all of it and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import REGISTRY

from quorate.consensus.replica import Leadership, Role
from quorate.node.metrics import HANDOVER_REASONS, Histogram, Metrics, MetricsPage
from quorate.node.stalls import Stall
from quorate.services.cluster.store import ClusterStore
from quorate.services.zookeeper.store import Store
from tests.node.status_documents import FORMING, group, member, status

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def counted() -> Metrics:
    return Metrics(["zookeeper", "cluster"])


class Page:
    """A rendered page, read back."""

    def __init__(self, status_: dict[str, Any] | None = None, metrics: Metrics | None = None, process: bool = False):
        page = MetricsPage(lambda: status() if status_ is None else status_, metrics or counted(), process)
        self.text = page.render().decode()
        self.families = list(text_string_to_metric_families(self.text))

    def __call__(self, name: str, /, **labels: str) -> float | None:
        """The value of a sample; None where there is none."""
        found = [s.value for family in self.families for s in family.samples if (s.name, s.labels) == (name, labels)]
        assert len(found) <= 1, (name, labels, found)
        return found[0] if found else None


def test_numbers_of_the_status() -> None:
    page = Page()
    assert page("quorate_build_info", version="0.1.0", protocol="raft") == 1
    assert page("quorate_log_size_bytes") == 99
    assert page("quorate_disk_full") == 0
    assert page("quorate_loop_longest_stall_seconds") == 0.03125
    assert page("quorate_commit_position", service="zookeeper") == 12345678901
    assert page("quorate_apply_lag_entries", service="zookeeper") == 1
    assert page("quorate_peer_lag_entries", service="zookeeper", peer="2") == 10
    assert page("quorate_peer_lag_entries", service="cluster", peer="1") == 0
    assert page("quorate_is_leader", service="cluster") == 1
    assert page("quorate_group_members", service="zookeeper", role="learner") == 1
    assert page("quorate_sessions", service="zookeeper") == 3
    assert page("quorate_connections", service="zookeeper") == 2
    assert page("quorate_requests_total", service="zookeeper") == 900
    assert page("quorate_service_value", service="zookeeper", part="store", name="znodes") == 7
    assert page("quorate_membership_groups_behind") == 1
    assert page("quorate_members_connected") == 3


def test_each_member_has_one_role() -> None:
    members = [member(0), member(1, voter=False), member(2, voter=False, refilling=True), member(3, leaving=True)]
    page = Page(status(members=members))
    for role in ("voter", "learner", "refilling", "leaving"):
        assert page("quorate_members", role=role) == 1


def test_peers_are_the_leaders_to_judge() -> None:
    page = Page(status(groups=[group(role="follower")]))
    assert page("quorate_is_leader", service="zookeeper") == 0
    assert page("quorate_peer_lag_entries", service="zookeeper", peer="2") is None


def test_a_node_without_a_cluster_has_a_page() -> None:
    page = Page(status(**FORMING))
    assert (page("quorate_state", state="forming"), page("quorate_state", state="member")) == (1, 0)
    assert page("quorate_commit_position", service="zookeeper") is None
    assert page("quorate_elections_total", service="zookeeper", outcome="won") == 0


def test_histograms() -> None:
    metrics = counted()
    for value_s in (0.0001, 0.00011, 0.3, 99.0):
        metrics.log_sync.observe(value_s)
    page = Page(metrics=metrics)
    assert page("quorate_log_sync_seconds_bucket", le="0.0001") == 1
    assert page("quorate_log_sync_seconds_bucket", le="0.00025") == 2
    assert page("quorate_log_sync_seconds_bucket", le="0.5") == 3
    assert page("quorate_log_sync_seconds_bucket", le="+Inf") == 4
    assert page("quorate_log_sync_seconds_count") == 4
    assert page("quorate_log_sync_seconds_sum") == pytest.approx(99.30021)
    assert page("quorate_loop_stalls_total") == 0


def test_a_histogram_counts_what_equals_a_bound_below_it() -> None:
    histogram = Histogram([1.0, 2.0])
    histogram.observe(1.0)
    histogram.observe(2.5)
    assert histogram.buckets() == [("1.0", 1.0), ("2.0", 1.0), ("+Inf", 2.0)]
    assert (histogram.count, histogram.sum_s) == (2, 3.5)


FOLLOWER = Leadership(Role.FOLLOWER, None, 1)
PRE_CANDIDATE = Leadership(Role.CANDIDATE, None, 1)
CANDIDATE = Leadership(Role.CANDIDATE, None, 2)
NEW_LEADER = Leadership(Role.LEADER, 0, 2)
LEADER = Leadership(Role.LEADER, 0, 2, ready=True)
BEHIND_1 = Leadership(Role.FOLLOWER, 1, 3)


@pytest.mark.parametrize(
    ("story", "won", "lost", "changes"),
    [
        pytest.param([FOLLOWER, PRE_CANDIDATE, CANDIDATE, NEW_LEADER, LEADER], 1, 0, 1, id="elected"),
        pytest.param([FOLLOWER, NEW_LEADER, LEADER], 1, 0, 1, id="alone"),
        pytest.param([FOLLOWER, PRE_CANDIDATE, FOLLOWER], 0, 0, 0, id="only asked"),
        pytest.param([FOLLOWER, PRE_CANDIDATE, CANDIDATE, BEHIND_1], 0, 1, 1, id="beaten"),
        pytest.param(
            [FOLLOWER, CANDIDATE, Leadership(Role.CANDIDATE, None, 3), BEHIND_1], 0, 2, 1, id="nobody won, then beaten"
        ),
        pytest.param([LEADER, FOLLOWER, LEADER], 1, 0, 1, id="the same leader again"),
        pytest.param([LEADER, BEHIND_1, Leadership(Role.FOLLOWER, None, 4), BEHIND_1], 0, 0, 1, id="lost sight of it"),
    ],
)
def test_elections(story: list[Leadership], won: int, lost: int, changes: int) -> None:
    metrics = counted()
    for before, after in pairwise(story):
        metrics.leadership_changed("zookeeper", before, after)
    page = Page(metrics=metrics)
    assert page("quorate_elections_total", service="zookeeper", outcome="won") == won
    assert page("quorate_elections_total", service="zookeeper", outcome="lost") == lost
    assert page("quorate_leader_changes_total", service="zookeeper") == changes


def test_hand_overs_have_a_reason() -> None:
    assert {stall.value for stall in Stall} <= set(HANDOVER_REASONS)
    metrics = counted()
    metrics.handed_over("disk")
    page = Page(metrics=metrics)
    assert (page("quorate_handovers_total", reason="disk"), page("quorate_handovers_total", reason="stop")) == (1, 0)


def test_the_process_is_measured_where_it_is_one() -> None:
    own = Page(process=True)("process_resident_memory_bytes")
    assert own is not None and own > 1 << 20
    assert Page()("process_resident_memory_bytes") is None


def test_stores_say_nothing_that_breaks_the_page() -> None:
    """Two samples of one name and labels would have Prometheus refuse all of it."""
    groups = [group(store=Store().summary()), group("cluster", store=ClusterStore().summary())]
    seen = set()
    for family in Page(status(groups=groups), process=True).families:
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in seen
            seen.add(key)


def test_nothing_is_kept_where_all_nodes_of_a_process_share_it() -> None:
    before = {family.name for family in REGISTRY.collect()}
    Page()
    Page()
    assert {family.name for family in REGISTRY.collect()} == before


# --- the documents ----------------------------------------------------------------------------


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name -> (type, labels), from the table of metrics in docs/operations.md."""
    rows = re.findall(
        r"^\| `((?:quorate|process)_\w+)(?:\{([\w,]+)\})?` \| (gauge|counter|histogram) \| [^|]{10,}\|",
        OPERATIONS.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    table = {name: (kind, tuple(sorted(filter(None, labels.split(","))))) for name, labels, kind in rows}
    assert len(table) == len(rows), "a metric is documented twice"
    return table


def exposed() -> dict[str, tuple[str, tuple[str, ...]]]:
    shown = {}
    outstanding = group(door={"connections": 2, "requests": 900, "watches": 5, "events": 11, "outstanding": 1})
    for family in Page(status(groups=[outstanding]), process=True).families:
        assert family.samples, f"{family.name} has no sample here, so its labels cannot be compared"
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert family.documentation.endswith("."), family
        shown[name] = (family.type, tuple(sorted(labels)))
    return shown


def test_every_metric_is_documented_and_none_is_stale() -> None:
    assert documented() == exposed()


def test_names_follow_the_conventions() -> None:
    for name, (kind, _) in exposed().items():
        assert (kind == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(ms|millis\w*|kb|s)(_|$)", name), name


# --- costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["quorate", "quorate.cli.main", "quorate.cli.status", "quorate.node.metrics"])
def test_importing_does_not_import_the_library(module: str) -> None:
    check = f"import sys, {module}; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, env=dict(os.environ))
