"""The plot of `quorate availability`: the probability that no decision is reached, over that of a node's failure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import click

from quorate.cli.plots import drawing, page, require_matplotlib, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png", ".html")
STYLES: Mapping[str, Literal[":", "-", "--"]] = MappingProxyType({"textbook": ":", "direct": "-", "relayed": "--"})
LOWEST_SHOWN = 1e-12
"""Below it curves are not drawn: what remains there is rounding."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One decision in one model over the failure of nodes."""

    decision: str
    coordinator: str
    """Whose panel it belongs to: `node 0`, `any`; empty for all panels."""
    model: str
    """A key of STYLES."""
    node_failures: tuple[float, ...]
    undecided: tuple[float, ...]


def check_plot(file: Path) -> None:
    """Before much is computed in vain.  Raises click.UsageError and CommandError."""
    if file.suffix.lower() not in FORMATS:
        raise click.UsageError(f"a plot is written as {', '.join(FORMATS)}, not as {file.suffix or 'a file without'!r}")
    require_matplotlib()


def write_plot(file: Path, curves: Sequence[Curve], title: str, table: str) -> None:
    """Raises OSError.  `table` goes into an HTML page only."""
    form = file.suffix.lower()
    figure = _figure(curves, title)
    if form == ".png":
        content = saved(figure, "png")
    elif form == ".svg":
        content = saved(figure, "svg")
    else:
        body = f"<h1>{html.escape(title)}</h1>\n{drawing(saved(figure, 'svg'))}\n<pre>{html.escape(table)}</pre>"
        content = page("quorate availability", body).encode()
    file.write_bytes(content)


def _figure(curves: Sequence[Curve], title: str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels = list(dict.fromkeys(curve.coordinator for curve in curves if curve.coordinator))
    decisions = list(dict.fromkeys(curve.decision for curve in curves))
    swept = curves[0].node_failures
    values = [value for curve in curves for value in curve.undecided if value >= LOWEST_SHOWN]
    lowest = min(values, default=LOWEST_SHOWN)  # a logarithmic axis without a curve would have no limits
    figure = Figure(figsize=(6 * len(panels), 6.2), layout="constrained")
    figure.suptitle(title, fontsize="medium", wrap=True)
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for curve in curves:
            if curve.coordinator in ("", panel):
                points = zip(curve.node_failures, curve.undecided, strict=True)
                shown = [(x, y) for x, y in points if y >= LOWEST_SHOWN]
                color = f"C{decisions.index(curve.decision)}"
                axes.plot([x for x, _ in shown], [y for _, y in shown], STYLES[curve.model], color=color)
        axes.set(
            xscale="log",
            yscale="log",
            ylim=(lowest / 2, 2),
            xlim=(swept[0], swept[-1]),
            title=f"coordinator: {panel}",
            xlabel="probability that a node has failed",
        )
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("probability that no decision is reached")
    legend = [Line2D([], [], color=f"C{number}", label=decision) for number, decision in enumerate(decisions)]
    legend += [Line2D([], [], color="gray", linestyle=style, label=model) for model, style in STYLES.items()]
    figure.legend(handles=legend, loc="outside lower center", ncols=4)
    return figure
