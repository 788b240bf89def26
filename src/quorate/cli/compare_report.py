"""The files that `quorate compare --output` writes: plots, all figures as JSON, and one page that holds everything."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from quorate.cli.compare_plot import figures_of
from quorate.cli.compare_real import RealFigures
from quorate.cli.compare_tables import Section, introduction, sections_of
from quorate.cli.errors import CommandError
from quorate.cli.plots import drawing, page, saved
from quorate.comparison.jobs import Choice, Found

REPORT, FIGURES = "report.html", "figures.json"
PLOTS_OF = (("Steps", "messages"), ("Latency", "latency"), ("Without", "without-leader"), ("Duels", "duels"))
"""Beginning of a section's title, and the plot that stands below its table."""
COLOURS = ("yes", "no", "stale", "some stale")
STYLE = """
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: 0.25em 0.7em; border-bottom: 1px solid #ddd }
th { text-align: left } td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: pre }
td.yes { background: #cfe8cf } td.no { background: #f3c9c9 } td.stale, td.some-stale { background: #f5e3b5 }
p { max-width: 60em }
"""


def as_json(choice: Choice, found: Found, real: Sequence[RealFigures]) -> bytes:
    document: dict[str, Any] = {"choice": choice, "simulated": found, "real": list(real)}
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def write_report(folder: Path, choice: Choice, found: Found, real: Sequence[RealFigures]) -> None:
    """Raises CommandError."""
    figures = figures_of(choice, found)
    sections = sections_of(choice, found, real)
    plots = {name: saved(figure, "svg") for name, figure in figures.items()}
    body = [f"<h1>Raft, Paxos and ZAB compared</h1>\n<p>{_lines(introduction(choice))}</p>"]
    for section in sections:
        body.append(_section(section))
        body += [drawing(plots[name]) for start, name in PLOTS_OF if section.title.startswith(start)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            (folder / f"{name}.svg").write_bytes(plots[name])
            (folder / f"{name}.png").write_bytes(saved(figure, "png"))
        (folder / FIGURES).write_bytes(as_json(choice, found, real))
        (folder / REPORT).write_text(page("quorate compare", "\n".join(body), STYLE), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write to {folder}: {error.strerror}") from error


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def _section(section: Section) -> str:
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in section.heads)
    rows = "\n".join(
        "<tr>"
        + "".join(_cell(cell, head not in section.left) for head, cell in zip(section.heads, row, strict=True))
        + "</tr>"
        for row in section.rows
    )
    return (
        f"<h2>{html.escape(section.title)}</h2>\n<p>{_lines(section.about)}</p>\n"
        f"<table>\n<tr>{heads}</tr>\n{rows}\n</table>"
    )


def _cell(text: str, is_number: bool) -> str:
    kind = "number" if is_number else text.replace(" ", "-") if text in COLOURS else ""
    return f'<td class="{kind}">{html.escape(text)}</td>' if kind else f"<td>{html.escape(text)}</td>"
