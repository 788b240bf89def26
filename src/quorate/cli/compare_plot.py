"""The plots of `quorate compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quorate.cli.compare_tables import titles
from quorate.comparison.commits import CommitFigures
from quorate.comparison.crashes import Crash
from quorate.comparison.jobs import Choice, Found
from quorate.comparison.profiles import PROFILES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 11.0, 4.6


def figures_of(choice: Choice, found: Found) -> dict[str, Figure]:
    """By the name of their files."""
    return {
        "latency": _latency(choice, found.commits),
        "messages": _messages(choice, found),
        "without-leader": _without_leader(choice, found),
        "duels": _duels(choice, found),
    }


def _new_figure(title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    return figure


def _legend(figure: Figure, choice: Choice) -> None:
    from matplotlib.lines import Line2D

    title = titles(choice)
    handles = [
        Line2D([], [], color=f"C{number}", marker="s", linestyle="", label=title(variant))
        for number, variant in enumerate(choice.variants)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _bars(axes: Any, groups: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    """`values` are by variant and then by group."""
    width = 0.8 / len(values)
    for number, row in enumerate(values):
        places = [place + (number - (len(values) - 1) / 2) * width for place in range(len(groups))]
        axes.bar(places, row, width * 0.9, color=f"C{number}")
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(axis="y", alpha=0.3)


def _latency(choice: Choice, commits: Mapping[str, Mapping[str, CommitFigures]]) -> Figure:
    figure = _new_figure("One write at a time: milliseconds, bars the median, whiskers up to p99")
    groups = [PROFILES[profile].title for profile in commits]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, where in zip(panels, ("write_at_leader", "write_at_follower"), strict=True):
        rows = [[getattr(by_variant[v], where) for by_variant in commits.values()] for v in choice.variants]
        _bars(axes, groups, [[times.p50_ms for times in row] for row in rows])
        width = 0.8 / len(rows)
        for number, row in enumerate(rows):
            for place, times in enumerate(row):
                x = place + (number - (len(rows) - 1) / 2) * width
                axes.plot([x, x], [times.p50_ms, times.p99_ms], color="black", linewidth=1)
        where_text = "at the leader" if where == "write_at_leader" else "at the farthest node"
        axes.set(yscale="log", title=f"client {where_text}")
        axes.tick_params(axis="x", labelsize="small")
    panels[0].set_ylabel("ms")
    _legend(figure, choice)
    return figure


def _messages(choice: Choice, found: Found) -> Figure:
    figure = _new_figure("What nodes say to each other")
    panels = figure.subplots(1, 3)
    steps = [found.steps[variant] for variant in choice.variants]
    for axes, title, values in (
        (panels[0], "messages for a write", [[one.messages, one.loaded_messages] for one in steps]),
        (panels[1], "bytes for a write of 100", [[one.message_bytes, one.loaded_bytes] for one in steps]),
    ):
        _bars(axes, ["alone", "64 writers"], values)
        axes.set_title(title, fontsize="medium")
    _bars(panels[2], ["idle service"], [[one.idle_messages_per_s] for one in steps])
    panels[2].set_title("messages a second", fontsize="medium")
    _legend(figure, choice)
    return figure


def _without_leader(choice: Choice, found: Found) -> Figure:
    kinds = (Crash.PROCESS, Crash.MACHINE)
    figure = _new_figure("Without a leader: every loss a dot, medians as bars")
    for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True), kinds, strict=True):
        for place, by_kind in enumerate(found.crashes.values()):
            for number, variant in enumerate(choice.variants):
                crash = by_kind[kind.value][variant]
                x = place + (number - (len(choice.variants) - 1) / 2) * 0.8 / len(choice.variants)
                axes.plot([x] * len(crash.without_leader_s), crash.without_leader_s, ".", color=f"C{number}", alpha=0.5)
                axes.plot([x - 0.07, x + 0.07], [crash.median_s] * 2, color="black", linewidth=1.5)
        axes.set_xticks(range(len(found.crashes)), [PROFILES[profile].title for profile in found.crashes])
        axes.tick_params(axis="x", labelsize="small")
        axes.set(yscale="log", title=kind.value)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("seconds")
    _legend(figure, choice)
    return figure


def _duels(choice: Choice, found: Found) -> Figure:
    figure = _new_figure("Duels: every loss of power by the candidacies that led nowhere; crosses with timeouts alike")
    panels = figure.subplots(1, len(found.crashes), sharey=True, squeeze=False)[0]
    for axes, (profile, by_kind) in zip(panels, found.crashes.items(), strict=True):
        for number, variant in enumerate(choice.variants):
            shift = (
                number - (len(choice.variants) - 1) / 2
            ) * 0.15  # beside each other, where they would hide each other
            for kind, marker in ((Crash.MACHINE, "."), (Crash.ALIKE, "x")):
                crash = by_kind[kind.value][variant]
                lost = [count + shift for count in crash.lost_candidacies]
                axes.plot(lost, crash.without_leader_s, marker, color=f"C{number}", alpha=0.6)
        axes.set_title(PROFILES[profile].title, fontsize="medium")
        axes.set(yscale="log", xlabel="lost candidacies")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("seconds without a leader")
    _legend(figure, choice)
    return figure
