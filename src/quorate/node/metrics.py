"""What a node counts, and its page for Prometheus (`GET /metrics`).

`Metrics` holds the counts that the status does not tell, and costs next to nothing where it
is fed.  `MetricsPage` makes metric families of them and of the status at each scrape, in a
registry of its own.  Only the page needs prometheus-client, which takes as long to import
as all that `quorate status` does; so it is imported when a page is made.

Names and units follow Prometheus' conventions.  Every metric is explained in
docs/operations.md; a test compares the two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from quorate.consensus.replica import Leadership, NodeId, Role

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

SYNC_BOUNDS_S: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
STALL_BOUNDS_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
HANDOVER_REASONS: Final = ("disk", "loop", "removal", "request", "stop")
"""The first two are the values of `stalls.Stall`."""


class Histogram:
    """Counts of observations, in seconds, by upper bounds."""

    __slots__ = ("_bounds_s", "_counts", "_sum_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(self._bounds_s) + 1)
        self._sum_s = 0.0

    def observe(self, value_s: float) -> None:
        self._counts[bisect_left(self._bounds_s, value_s)] += 1
        self._sum_s += value_s

    @property
    def count(self) -> int:
        return sum(self._counts)

    @property
    def sum_s(self) -> float:
        return self._sum_s

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound as text, how many are at most that), as Prometheus wants them."""
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip([*map(str, self._bounds_s), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


class Metrics:
    """Counts since the node started.  Its owners feed it; nothing here does I/O."""

    def __init__(self, services: Sequence[str]) -> None:
        """`services` are the names of all groups, the cluster's own too: what never happened counts 0."""
        self.log_sync = Histogram(SYNC_BOUNDS_S)
        """Every sync of the log."""
        self.loop_stall = Histogram(STALL_BOUNDS_S)
        """Every stop of the loop of at least `loop_watch.STALL_MS`."""
        self.slow_syncs = 0
        self.snapshots_sent = 0
        self.refills = 0
        """How often this node decided, as leader of the cluster group, to refill a member."""
        self.elections = {(service, outcome): 0 for service in services for outcome in ("won", "lost")}
        self.leader_changes = dict.fromkeys(services, 0)
        self.handovers = dict.fromkeys(HANDOVER_REASONS, 0)
        self._last_leader: dict[str, NodeId] = {}
        self._standing: dict[str, int] = {}
        """In which generation this node stands.  Who only asks whether it could win (pre-vote) enters none."""

    def leadership_changed(self, service: str, before: Leadership, after: Leadership) -> None:
        """The leadership of a group, as this node sees it, went from one to the other."""
        if after.leader is not None and after.leader != self._last_leader.get(service):
            self._last_leader[service] = after.leader
            self.leader_changes[service] += 1
        stood = self._standing.pop(service, None)
        if after.role is Role.LEADER:
            if before.role is not Role.LEADER or before.generation != after.generation:
                self.elections[service, "won"] += 1
            return
        if stood is not None and (after.role is not Role.CANDIDATE or after.generation != stood):
            self.elections[service, "lost"] += 1
            stood = None
        if after.role is Role.CANDIDATE and after.generation > before.generation:
            stood = after.generation
        if stood is not None:
            self._standing[service] = stood

    def handed_over(self, reason: str) -> None:
        """One group's leadership went to another node, for one of HANDOVER_REASONS."""
        self.handovers[reason] += 1


# Key of the status -> (name, help) of a gauge.  Booleans are 0 and 1.
_NODE_GAUGES: Final = MappingProxyType(
    {
        "uptime_s": ("uptime_seconds", "Time since the node started."),
        "log_bytes": ("log_size_bytes", "Size of the log's files."),
        "log_segments": ("log_segments", "Files of the log."),
        "log_full": ("disk_full", "1 while the disk has no room for the log, so that writes are refused."),
        "log_sync_aside": ("log_sync_aside", "1 while the log is synced in a thread because the disk is slow."),
    }
)
_GROUP_GAUGES: Final = MappingProxyType(
    {
        "generation": ("generation", "Raft's term, ZAB's epoch, Paxos' ballot (round * 1000000000 + node)."),
        "ready": ("leader_ready", "1 on a leader that takes writes."),
        "last_position": ("last_position", "Position of the last entry in this node's log, committed or not."),
        "commit_position": ("commit_position", "Position up to which the node knows the log to be committed."),
        "applied_position": ("applied_position", "Position up to which the node's own data is."),
        "snapshot_position": ("snapshot_position", "Position of the node's newest snapshot."),
        "snapshot_bytes": ("snapshot_size_bytes", "Size of the node's newest snapshot."),
        "settled_version": (
            "settled_version",
            "Version of the members that the group has settled at, -1 while it changes.",
        ),
    }
)
# What the summaries of stores and doors have in common; the rest of them is `service_value`.
_SUMMARY_GAUGES: Final = MappingProxyType(
    {
        "connections": ("connections", "Clients that are connected to this node."),
        "outstanding": ("requests_outstanding", "Requests of this node's clients that are not answered yet."),
        "sessions": ("sessions", "Sessions in the replicated data, those of other nodes' clients too."),
        "watches": ("watches", "Watches that this node's clients have set."),
    }
)
_SUMMARY_COUNTERS: Final = MappingProxyType(
    {
        "requests": ("requests", "Requests of clients that this node took."),
        "events": ("watch_events", "Events that this node sent to its clients' watches."),
    }
)


class MetricsPage:
    """Renders a node's metrics.  `status` is the node's status document (`GET /status`)."""

    def __init__(self, status: Callable[[], Mapping[str, Any]], metrics: Metrics, of_process: bool) -> None:
        """`of_process`: with those of the process, read from /proc; a simulated node has none."""
        from prometheus_client import CollectorRegistry, ProcessCollector

        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_collector(status, metrics))
        if of_process:
            ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """The page, in Prometheus' text format (CONTENT_TYPE)."""
        from prometheus_client.exposition import generate_latest

        return generate_latest(self._registry)


def _collector(status: Callable[[], Mapping[str, Any]], metrics: Metrics) -> Collector:
    from prometheus_client.registry import Collector

    class NodeCollector(Collector):
        def collect(self) -> Iterator[Metric]:
            now = status()
            yield from _of_node(now)
            yield from _of_groups(now["groups"])
            yield from _of_summaries(now["groups"])
            yield from _of_counts(metrics)

    return NodeCollector()


def _of_node(status: Mapping[str, Any]) -> Iterator[Metric]:
    from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily

    info = {"version": status["version"], "protocol": status["protocol"]}
    yield InfoMetricFamily("quorate_build", "Version of Quorate, and the consensus protocols that it runs.", info)
    for key, (name, text) in _NODE_GAUGES.items():
        yield GaugeMetricFamily(f"quorate_{name}", text, float(status[key]))
    longest_s = status["loop_longest_stop_ms"] / 1000
    yield GaugeMetricFamily("quorate_loop_longest_stall_seconds", "Longest stop of the event loop.", longest_s)
    states = GaugeMetricFamily(
        "quorate_state", "1 for the state that the node is in, 0 for the others.", None, ["state"]
    )
    for state in ("forming", "joining", "member"):
        states.add_metric([state], float(status["state"] == state))
    yield states

    roles = dict.fromkeys(("voter", "learner", "refilling", "leaving"), 0)
    for member in status["members"]:
        roles[_role_of(member)] += 1
    members = GaugeMetricFamily("quorate_members", "Members of the cluster, each in one role.", None, ["role"])
    for role, count in roles.items():
        members.add_metric([role], float(count))
    yield members
    connected = sum(member["connected"] for member in status["members"])
    yield GaugeMetricFamily("quorate_members_connected", "Members connected to this node, itself included.", connected)
    membership = status["membership"]
    yield GaugeMetricFamily("quorate_membership_version", "Decisions about the members so far.", membership["version"])
    yield GaugeMetricFamily(
        "quorate_membership_groups_behind",
        "Groups that have not followed the last decision about the members yet.",
        len(membership["under_way"]),
    )


def _role_of(member: Mapping[str, Any]) -> str:
    for role in ("leaving", "refilling", "voter"):
        if member[role]:
            return role
    return "learner"


def _of_groups(groups: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    def family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"quorate_{name}", text, labels=["service", *labels])

    leader = family("has_leader", "1 where the node knows a leader of the group.")
    leads = family("is_leader", "1 where the node itself leads the group.")
    lag = family("apply_lag_entries", "Entries that the node knows to be committed and has not applied.")
    peer_lag = family(
        "peer_lag_entries", "On a leader: entries of its log that the peer does not hold durably.", "peer"
    )
    deciding = family("group_members", "Members of the group by what they do in it.", "role")
    plain = {key: family(name, text) for key, (name, text) in _GROUP_GAUGES.items()}
    for group in groups:
        service = group["service"]
        leader.add_metric([service], float(group["leader"] is not None))
        leads.add_metric([service], float(group["role"] == "leader"))
        lag.add_metric([service], max(0, group["commit_position"] - group["applied_position"]))
        if group["role"] == "leader":
            for peer, position in group["peer_positions"].items():
                peer_lag.add_metric([service, str(peer)], max(0, group["last_position"] - position))
        for role, key in (("voter", "voters"), ("learner", "learners"), ("old_voter", "old_voters")):
            deciding.add_metric([service, role], len(group[key]))
        for key, gauge in plain.items():
            gauge.add_metric([service], float(group[key]))
    yield from (leader, leads, lag, peer_lag, deciding, *plain.values())


def _of_summaries(groups: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    labels = ["service"]
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
        key: GaugeMetricFamily(f"quorate_{name}", text, labels=labels) for key, (name, text) in _SUMMARY_GAUGES.items()
    }
    for key, (name, text) in _SUMMARY_COUNTERS.items():
        families[key] = CounterMetricFamily(f"quorate_{name}", text, labels=labels)
    other = GaugeMetricFamily(
        "quorate_service_value",
        "What a service tells of its replicated data (store) and of its clients here (door).",
        labels=["service", "part", "name"],
    )
    for group in groups:
        for part in ("store", "door"):
            for key, value in group[part].items():
                if key in families:
                    families[key].add_metric([group["service"]], float(value))
                else:
                    other.add_metric([group["service"], part, key], float(value))
    yield from (*families.values(), other)


def _of_counts(metrics: Metrics) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

    elections = CounterMetricFamily(
        "quorate_elections",
        "Elections in which this node stood, by outcome (won, lost).",
        labels=["service", "outcome"],
    )
    for (service, outcome), count in metrics.elections.items():
        elections.add_metric([service, outcome], count)
    yield elections
    changes = CounterMetricFamily("quorate_leader_changes", "How often this node saw a new leader.", labels=["service"])
    for service, count in metrics.leader_changes.items():
        changes.add_metric([service], count)
    yield changes
    handovers = CounterMetricFamily(
        "quorate_handovers", "Leaderships that this node handed over, by reason.", labels=["reason"]
    )
    for reason, count in metrics.handovers.items():
        handovers.add_metric([reason], count)
    yield handovers
    stall, sync = metrics.loop_stall, metrics.log_sync
    for name, text, count in (
        ("loop_stalls", "Stops of the event loop of at least 50 ms.", stall.count),
        ("slow_syncs", "Syncs of the log that took at least a quarter of the election timeout.", metrics.slow_syncs),
        ("snapshots_sent", "Snapshots that reached a peer which needed one.", metrics.snapshots_sent),
        (
            "refills",
            "Members that this node, leading the cluster, had refilled after they lost their data.",
            metrics.refills,
        ),
    ):
        yield CounterMetricFamily(f"quorate_{name}", text, count)
    for name, text, histogram in (
        ("loop_stall_seconds", "How long the event loop stood still, where it was at least 50 ms.", stall),
        ("log_sync_seconds", "Duration of the syncs of the log.", sync),
    ):
        yield HistogramMetricFamily(f"quorate_{name}", text, histogram.buckets(), histogram.sum_s)
