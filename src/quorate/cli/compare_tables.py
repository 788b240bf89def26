"""What `quorate compare` prints: its figures as sections of a report, each a table with what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from quorate.cli.compare_real import RealFigures
from quorate.cli.tables import render_table
from quorate.comparison.commits import CommitFigures, Times
from quorate.comparison.crashes import LIMIT_S, Crash, CrashFigures, mean
from quorate.comparison.jobs import Choice, Found
from quorate.comparison.partitions import PartitionFigures, SideFigures
from quorate.comparison.profiles import PROFILES, STEPS, variant_of

WIDTH = 118
STEP_ROUND_TRIP_MS = 2000 * STEPS.same_place_s[0]


@dataclass(frozen=True, slots=True)
class Section:
    """One table with its words."""

    title: str
    about: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: frozenset[str] = field(default_factory=lambda: frozenset({"protocol", "network"}))
    """Heads of columns of words; the others are numbers."""

    def render(self) -> str:
        table = render_table(self.heads, self.rows, right=frozenset(self.heads) - self.left)
        about = "\n".join(textwrap.fill(line, WIDTH) for line in self.about.splitlines())
        return f"{self.title}\n{about}\n\n{table}"


def sections_of(choice: Choice, found: Found, real: Sequence[RealFigures]) -> list[Section]:
    """All that was measured, in the order in which it is shown."""
    title = titles(choice)
    sections = [_steps(found.steps, title), *_commits(found.commits, title)]
    sections += [_crashes(found.crashes, title, choice.crashes), _duels(found.crashes, title)]
    sections.append(_partitions(found.partitions, title))
    if real:
        sections += [_load(real), _kills(real)]
    return sections


def titles(choice: Choice) -> Callable[[str], str]:
    """Variant to what it is called in tables."""
    return lambda variant: variant_of(variant).title(choice.nodes)


def introduction(choice: Choice) -> str:
    lines = [f"{choice.nodes} nodes, seed {choice.seed}; node 0 leads where nothing else is said."]
    for variant in choice.variants:
        sizes = variant_of(variant).sizes(choice.nodes)
        if sizes is not None:
            name = variant_of(variant).title(choice.nodes)
            lines.append(
                f"{name}: Paxos that elects with {sizes[0]} nodes and writes with {sizes[1]}; others, majorities."
            )
    return "\n".join(lines)


def _steps(steps: Mapping[str, CommitFigures], title: Callable[[str], str]) -> Section:
    rows = [
        (
            title(variant),
            *(
                f"{times.p50_ms / STEP_ROUND_TRIP_MS:.2f}"
                for times in (
                    figures.write_at_leader,
                    figures.write_at_follower,
                    figures.read_at_leader,
                    figures.read_at_follower,
                    figures.stale_read,
                )
            ),
            f"{figures.messages:.1f}",
            f"{figures.message_bytes:.0f}",
            f"{figures.loaded_messages:.1f}",
            f"{figures.idle_messages_per_s:.0f}",
        )
        for variant, figures in steps.items()
    ]
    return Section(
        "Steps: what a request takes in round trips, and what nodes say for it",
        "Every message takes 50 ms one way and disks take no time, so what is left is the protocol. Messages and bytes "
        "are those between nodes for one write of 100 bytes, alone and among 64 writers at a time; heartbeats stand "
        "apart. Elsewhere is a client beside another node.",
        (
            *("protocol", "write at leader", "elsewhere", "read at leader", "elsewhere", "stale read"),
            *("messages", "bytes", "among 64", "idle msg/s"),
        ),
        rows,
    )


def _ms(milliseconds: float) -> str:
    if milliseconds < 10:
        return f"{milliseconds:.2f}"
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _pair(times: Times) -> str:
    return f"{_ms(times.p50_ms)} {_ms(times.p99_ms):>5}"


def _trips(figures: CommitFigures) -> str:
    """Of the quorum; a leader that needs nobody else waits for none."""
    if not figures.quorum_round_trip_ms:
        return "-"
    return f"{figures.write_at_leader.p50_ms / figures.quorum_round_trip_ms:.1f}"


def _commits(commits: Mapping[str, Mapping[str, CommitFigures]], title: Callable[[str], str]) -> Iterator[Section]:
    rows = [
        (
            PROFILES[profile].title,
            title(variant),
            _ms(figures.quorum_round_trip_ms),
            _pair(figures.write_at_leader),
            _trips(figures),
            _pair(figures.write_at_follower),
            _pair(figures.read_at_leader),
            _pair(figures.read_at_follower),
            _ms(figures.stale_read.p50_ms),
            f"{figures.writes_per_s:,.0f}",
        )
        for profile, by_variant in commits.items()
        for variant, figures in by_variant.items()
    ]
    yield Section(
        "Latency: milliseconds for one request now and then, p50 and p99",
        "\n".join(
            [
                *(f"{PROFILES[profile].title}: {PROFILES[profile].about}." for profile in commits),
                "quorum: there and back to the node that completes the leader's quorum, in which trips are counted. "
                "write/s: 64 writers beside the leader.",
            ]
        ),
        (
            *("network", "protocol", "quorum", "write at leader", "trips", "write far away"),
            *("read at leader", "read far away", "stale read", "write/s"),
        ),
        rows,
    )


CrashTable = Mapping[str, Mapping[str, Mapping[str, CrashFigures]]]


def _seconds(seconds: float) -> str:
    if seconds >= LIMIT_S:
        return f"> {LIMIT_S:.0f}"
    return f"{seconds:.3f}" if seconds < 10 else f"{seconds:.1f}"


def _crashes(crashes: CrashTable, title: Callable[[str], str], trials: int) -> Section:
    kinds = (Crash.PROCESS.value, Crash.MACHINE.value)
    rows = [
        (
            PROFILES[profile].title,
            title(variant),
            *(
                cell
                for kind in kinds
                for cell in (
                    _seconds(by_kind[kind][variant].median_s),
                    _seconds(by_kind[kind][variant].worst_s),
                    _spent(by_kind[kind][variant]),
                )
            ),
        )
        for profile, by_kind in crashes.items()
        for variant in by_kind[kinds[0]]
    ]
    return Section(
        "Without a leader: seconds from the loss of a leader to when the next one takes writes",
        f"Median and worst of {trials} losses. A process that is killed has its connections closed by the kernel, and "
        "the others know at once; a machine that loses its power is silent, and they wait for an election timeout "
        "(0.3 s to 0.6 s, more where round trips are long). Messages are what was said to find the next leader.",
        (
            *("network", "protocol", "killed: median", "worst", "messages"),
            *("power lost: median", "worst", "messages"),
        ),
        rows,
    )


def _spent(figures: CrashFigures) -> str:
    return f"{mean(figures.election_messages):.0f}"


def _duels(crashes: CrashTable, title: Callable[[str], str]) -> Section:
    kind = Crash.ALIKE.value
    rows = []
    for profile, by_kind in crashes.items():
        for variant, figures in by_kind[kind].items():
            usual = by_kind[Crash.MACHINE.value][variant]
            rows.append(
                (
                    PROFILES[profile].title,
                    title(variant),
                    f"{mean(usual.lost_candidacies):.1f}",
                    str(max(usual.lost_candidacies)),
                    f"{mean(figures.lost_candidacies):.1f}",
                    str(max(figures.lost_candidacies)),
                    _seconds(figures.median_s),
                    _seconds(figures.worst_s),
                    _spent(figures),
                )
            )
    return Section(
        "Duels: candidacies that led nowhere, for one loss of power",
        "Terms (Raft), ballots (Paxos) or epochs (ZAB) that a node stood in and nobody came to lead: on average, and "
        "most at once. First with election timeouts as they are; then with timeouts that differ by 1 % at most, so "
        "that all nodes stand together, and with seconds without a leader and messages for that.",
        (
            *("network", "protocol", "lost", "most", "alike: lost", "most"),
            *("seconds: median", "worst", "messages"),
        ),
        rows,
    )


# --- partitions ------------------------------------------------------------------------------------


def answers(side: SideFigures) -> tuple[str, str, str]:
    """(write, linearizable read, serializable read) in a word each."""
    serializable = _how_many(side.serializable_reads, side.nodes)
    if side.stale_reads:
        serializable = "stale" if side.stale_reads == side.serializable_reads else "some stale"
    return _how_many(side.writes, side.nodes), _how_many(side.linearizable_reads, side.nodes), serializable


def _how_many(count: int, nodes: int) -> str:
    return "yes" if count == nodes else "no" if count == 0 else f"{count} of {nodes}"


def alike(partitions: Mapping[str, Mapping[str, PartitionFigures]]) -> list[tuple[str, ...]]:
    """Variants whose clients fare the same in every partition, together."""
    groups: dict[tuple[PartitionFigures, ...], list[str]] = {}
    for variant in next(iter(partitions.values())):
        groups.setdefault(tuple(by_variant[variant] for by_variant in partitions.values()), []).append(variant)
    return [tuple(group) for group in groups.values()]


def _partitions(partitions: Mapping[str, Mapping[str, PartitionFigures]], title: Callable[[str], str]) -> Section:
    groups = alike(partitions)
    rows = []
    for partition, by_variant in partitions.items():
        for number, side in enumerate(by_variant[groups[0][0]].sides):
            cells = [word for group in groups for word in answers(by_variant[group[0]].sides[number])]
            nodes = "1 node" if side.nodes == 1 else f"{side.nodes} nodes"
            rows.append((partition if number == 0 else "", f"{side.side} ({nodes})", *cells))
    heads = ["partition", "at"]
    for group in groups:
        heads += [f"{', '.join(map(title, group))}: write", "linearizable", "serializable"]
    return Section(
        "Partitions: who can write, and who can read what",
        "Asked 15 s after links were cut, at every node by a client beside it. Linearizable reads see every answered "
        "write or do not come about; serializable ones show what the node has: stale where that misses an answered "
        "write.",
        tuple(heads),
        rows,
        left=frozenset(heads),
    )


# --- real processes --------------------------------------------------------------------------------


def _load(real: Sequence[RealFigures]) -> Section:
    rows = [
        (
            figures.protocol,
            f"{figures.writes_per_s:,.0f}",
            figures.spread(figures.writes_ratios),
            _ms(figures.lone_write.p50_ms),
            _ms(figures.lone_write.p99_ms),
            figures.spread(figures.lone_ratios),
            _ms(figures.lone_read.p50_ms),
        )
        for figures in real
    ]
    return Section(
        "This machine: three real nodes of each protocol, loaded in turn",
        "Writes of 100 bytes through etcd's door at the leader, by a client in Python that takes its share of the "
        f"processors: look at the ratios to {real[0].reference} (median of the rounds, least and greatest), not at "
        "rates.",
        ("protocol", "write/s, 64 writers", "ratio", "one write ms: p50", "p99", "ratio", "one read ms: p50"),
        rows,
    )


def _kills(real: Sequence[RealFigures]) -> Section:
    rows = [
        (
            figures.protocol,
            str(len(figures.without_leader_s)),
            _seconds(figures.median_without_leader_s),
            _seconds(figures.without_leader_s[-1]),
        )
        for figures in real
        if figures.without_leader_s
    ]
    return Section(
        "This machine: seconds without writes after kill -9 of the leader",
        "From the signal to the answer of the first write that was begun after it, at a follower.",
        ("protocol", "kills", "median", "worst"),
        rows,
    )
