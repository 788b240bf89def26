"""The space-time diagram for a terminal.

     time s  lamport  node-0    node-1    node-2
    0.100000       1  *->       |         |       #1 to node-1: vote, term 2
    0.103200       2  |-------->*         |       #1 from node-0: vote, term 2

An arrow is drawn where the message arrives, from its sender's column; the row of its sending has
only the arrow's beginning.  So messages may cross, overtake and arrive twice, and each row still
has one event and one arrow; sending and arrival share their # number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from quorate.simulation.diagram import Arrow, Layout, cells, cut, describe, lay_out, printable, violation_line
from quorate.simulation.trace import FAULTS, TraceEvent

TEXT_CELLS: Final = 36
"""Columns draw closer together until the texts have as much room as this."""
LEAST_TEXT_CELLS: Final = 12
"""A terminal narrower than this allows gets longer lines instead."""
LEAST_COLUMN_CELLS: Final = 3
MOST_TEXT_LINES: Final = 8
"""Of a verdict, which is not cut at the end of its line as other texts are."""
LEFT_CELLS: Final = 3
"""Left of the first column, for arrows from or to places that have none."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a diagram is drawn with; every member but `ellipsis` is one cell wide."""

    line: str
    down: str
    event: str
    message: str
    dash: str
    early_dash: str
    """For a message that was sent before the window."""
    crossing: str
    right: str
    left: str
    fault: str
    ellipsis: str
    crash: str = "X"
    lost: str = "x"
    violation: str = "!"

    def mark(self, kind: str) -> str:
        """What stands for an event of this kind on its place's line."""
        if kind in ("send", "receive"):
            return self.message
        return {"crash": self.crash, "violation": self.violation}.get(kind, self.event)


BOX: Final = Glyphs("│", "┊", "○", "●", "─", "╌", "┼", "▶", "◀", "≈", "…")
ASCII: Final = Glyphs("|", ":", "o", "*", "-", ".", "+", ">", "<", "~", "...")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A violation that was found out only in the end, from what an event had shown."""

    event: TraceEvent
    text: str


def render_text(
    events: Iterable[TraceEvent], width: int, verdict: Verdict | None = None, *, ascii_only: bool = False
) -> str:
    """The diagram in lines of at most `width` cells, without a line feed at the end.

    A verdict gets lines of its own below its event.
    `width` is exceeded only where it cannot hold three cells per place and a few letters of text.
    """
    layout = lay_out(events)
    return "\n".join(_Drawing(layout, width, ASCII if ascii_only else BOX, ascii_only).lines(verdict))


class _Drawing:
    """Texts are made printable, and ASCII where only that is wanted, before anything is measured."""

    def __init__(self, layout: Layout, width: int, glyphs: Glyphs, ascii_only: bool) -> None:
        self._layout = layout
        self._glyphs = glyphs
        self._ascii_only = ascii_only
        self._names = [self._show(place) for place in layout.places]
        self._stamps = [(f"{event.time_s:.6f}", str(event.lamport)) for event in layout.events]
        self._time_width = max(map(len, ["time s", *(time for time, _ in self._stamps)]))
        self._lamport_width = max(map(len, ["lamport", *(lamport for _, lamport in self._stamps)]))
        rest = width - self._time_width - self._lamport_width - LEFT_CELLS - 4  # two gaps of two
        widest = max(map(cells, self._names), default=0) + 2
        share = (rest - TEXT_CELLS) // max(len(self._names), 1)
        self._pitch = max(LEAST_COLUMN_CELLS, min(widest, share))
        self._graph_width = LEFT_CELLS + self._pitch * len(self._names)
        self._text_width = max(LEAST_TEXT_CELLS, rest - self._graph_width + LEFT_CELLS)
        self._column = {place: LEFT_CELLS + number * self._pitch for number, place in enumerate(layout.places)}
        self._arrivals = {arrow.arrival_row: arrow for arrow in layout.arrows if arrow.arrival_row is not None}
        self._losses = {arrow.sent_row: arrow for arrow in layout.arrows if arrow.arrival_row is None}

    def _show(self, text: str) -> str:
        text = printable(text)
        return text.encode("ascii", "backslashreplace").decode("ascii") if self._ascii_only else text

    def lines(self, verdict: Verdict | None) -> list[str]:
        lines = self._head()
        for row, event in enumerate(self._layout.events):
            lines.append(self._row(row))
            if verdict is not None and event.number == verdict.event.number:
                lines += self._verdict(row, verdict)
        return lines

    def _verdict(self, row: int, verdict: Verdict) -> Iterator[str]:
        graph = self._lines_of_places(row)
        below = "".join(graph)
        if verdict.event.place in self._column:
            graph[self._column[verdict.event.place]] = self._glyphs.violation
        first, *more = self._wrapped(self._show(violation_line(verdict.text)))
        yield self._line("", "", "".join(graph), first)
        yield from (self._line("", "", below, text) for text in more)

    def _wrapped(self, text: str) -> list[str]:
        lines = [""]
        words = text.split(" ")
        for number, word in enumerate(words):
            longer = f"{lines[-1]} {word}".lstrip()
            if cells(longer) <= self._text_width or not lines[-1]:
                lines[-1] = longer
            elif len(lines) < MOST_TEXT_LINES:
                lines.append(word)
            else:
                lines[-1] = f"{lines[-1]} {' '.join(words[number:])}"
                break
        return [cut(line, self._text_width, self._glyphs.ellipsis) for line in lines]

    def _head(self) -> list[str]:
        """The names of the columns, on as many lines as they need so that none runs into another."""
        depth = max(-(-(max(map(cells, self._names), default=0) + 1) // self._pitch), 1)
        lines = []
        for level in range(depth):
            graph = [" "] * self._graph_width
            for number, name in enumerate(self._names):
                if number % depth == level:
                    start = LEFT_CELLS + number * self._pitch
                    # A wide character takes the place of two cells.
                    graph[start : start + cells(name)] = [*name, *[""] * (cells(name) - len(name))]
            stamps = ("time s", "lamport") if level == depth - 1 else ("", "")
            lines.append(self._line(*stamps, "".join(graph), ""))
        return lines

    def _line(self, time: str, lamport: str, graph: str, text: str) -> str:
        line = f"{time:>{self._time_width}}  {lamport:>{self._lamport_width}}{graph}  {text}"
        return line.rstrip()

    def _row(self, row: int) -> str:
        event, glyphs = self._layout.events[row], self._glyphs
        text = self._show(describe(event, is_received=row not in self._losses))
        if event.place == FAULTS:
            graph = [" " * LEFT_CELLS, *[glyphs.fault] * (self._graph_width - LEFT_CELLS)]
        else:
            graph = self._graph(row, event)
        return self._line(*self._stamps[row], "".join(graph), cut(text, self._text_width, glyphs.ellipsis))

    def _graph(self, row: int, event: TraceEvent) -> list[str]:
        glyphs = self._glyphs
        graph = self._lines_of_places(row)
        if row in self._arrivals:
            self._draw_arrival(graph, self._arrivals[row])
        elif row in self._losses:
            self._draw_loss(graph, self._losses[row])
        elif event.kind == "send":
            own = self._column[event.place]
            is_leftward = self._column.get(event.peer, own) < own
            head = glyphs.left if is_leftward else glyphs.right
            self._draw_stub(graph, own, [glyphs.dash, head], -1 if is_leftward else 1)
        graph[self._column[event.place]] = glyphs.mark(event.kind)
        return graph

    def _lines_of_places(self, row: int) -> list[str]:
        graph = [" "] * self._graph_width
        for place, column in self._column.items():
            graph[column] = self._glyphs.down if self._layout.is_down(place, row) else self._glyphs.line
        return graph

    def _draw_arrival(self, graph: list[str], arrow: Arrow) -> None:
        glyphs, end = self._glyphs, self._column[arrow.target]
        start = self._column.get(arrow.source)
        dash = glyphs.dash if arrow.sent_row is not None else glyphs.early_dash
        if start is None or start == end:
            self._draw_stub(graph, end, [glyphs.right, dash], -1)
            return
        self._draw_line(graph, start, end, dash)
        graph[end - 1 if start < end else end + 1] = glyphs.right if start < end else glyphs.left

    def _draw_loss(self, graph: list[str], arrow: Arrow) -> None:
        start = self._column[arrow.source]
        end = self._column.get(arrow.target, start)
        if start == end:
            self._draw_stub(graph, start, [self._glyphs.dash, self._glyphs.lost], 1)
            return
        self._draw_line(graph, start, end, self._glyphs.dash)
        graph[end - 1 if start < end else end + 1] = self._glyphs.lost

    def _draw_stub(self, graph: list[str], own: int, stub: list[str], side: int) -> None:
        """The two cells beside a mark, from it outward; without the dash where that would touch the next column."""
        if self._pitch == LEAST_COLUMN_CELLS:
            stub = [cell for cell in stub if cell not in (self._glyphs.dash, self._glyphs.early_dash)]
        for distance, cell in enumerate(stub, 1):
            graph[own + side * distance] = cell

    def _draw_line(self, graph: list[str], start: int, end: int, dash: str) -> None:
        for cell in range(min(start, end) + 1, max(start, end)):
            graph[cell] = dash if graph[cell] == " " else self._glyphs.crossing
