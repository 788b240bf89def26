"""The space-time diagram as a page: one file, inline SVG, no script, nothing fetched from elsewhere.

The page is XML as well as HTML, so that it can be taken apart by any XML reader; everything that
comes from a trace is escaped.  Rows are ranks (see `quorate.simulation.diagram`): each event has a
row of its own, and its label stands on that row, so that labels never meet.  A label stands where
the arrows of its own event do not run: above the line for a sending, because arrows go downward,
and on the far side from its sender for a receipt.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from quorate.clocks import Order
from quorate.simulation.diagram import Arrow, Layout, cut, describe, lay_out, printable
from quorate.simulation.diagram_style import HEAD, LEGEND
from quorate.simulation.trace import FAULTS, LANDMARKS, TraceEvent

ROW_PX: Final = 24
TOP_PX: Final = 52
WIDE_PITCH_PX: Final = 210
"""From one column to the next, where there are few."""
PITCH_PX: Final = 170
LEFT_PX: Final = 210
"""The first column; left of it are time, Lamport time and the labels of receipts."""
FIRST_LABEL_PX: Final = 140
"""Where the annotations of faults begin."""
TIME_PX: Final = 78
LAMPORT_PX: Final = 132
"""Where the stamps end."""
LAST_LABEL_PX: Final = 330
"""Room right of the last column."""
LETTER_PX: Final = 6.2
"""Average width of a letter of a label."""
MARK_PX: Final = 5
"""Radius of an event's mark."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the head of the page says of the run."""

    seed: int
    check: str
    """Name of the check that failed; "" where none did."""
    text: str
    command: str
    """What to type to see the same again."""


def render_html(events: Iterable[TraceEvent], report: Report, violation: TraceEvent | None) -> str:
    """The page.  With a violation, what is not in its causal past is pale."""
    page = _Page(lay_out(events), violation)
    title = f"Violation: {report.check}" if report.check else f"Run of seed {report.seed}"
    facts = [("seed", str(report.seed)), ("check", report.check), ("what was seen", report.text)]
    rows = "".join(f"<dt>{name}</dt><dd>{_safe(value)}</dd>" for name, value in facts if value)
    return "\n".join(
        [
            HEAD.replace("TITLE", _safe(title)),
            f"<h1>{_safe(title)}</h1>",
            f"<dl>{rows}<dt>to repeat it</dt><dd><code>{_safe(report.command)}</code></dd></dl>",
            LEGEND,
            '<div class="wide">',
            *page.svg(),
            "</div>",
            "<h2>Events</h2>",
            '<div class="wide"><table>',
            *page.table(),
            "</table></div>",
            "</body></html>",
            "",
        ]
    )


def _safe(text: str) -> str:
    return html.escape(printable(text))


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class _Page:
    def __init__(self, layout: Layout, violation: TraceEvent | None) -> None:
        self._layout = layout
        self._violation = violation
        self._pitch_px = WIDE_PITCH_PX if len(layout.places) <= 6 else PITCH_PX
        self._x = {place: LEFT_PX + number * self._pitch_px for number, place in enumerate(layout.places)}
        self._width_px = LEFT_PX + max(len(layout.places) - 1, 0) * self._pitch_px + LAST_LABEL_PX
        self._bottom_px = TOP_PX + len(layout.events) * ROW_PX
        self._arrivals = {arrow.arrival_row: arrow for arrow in layout.arrows if arrow.arrival_row is not None}
        self._lost = {arrow.sent_row for arrow in layout.arrows if arrow.arrival_row is None}
        orders = {} if violation is None else {e.number: e.vector.compare(violation.vector) for e in layout.events}
        # A verdict that was reached apart from the run has no past: nothing can be told apart by it.
        is_apart = Order.BEFORE not in orders.values() or (violation is not None and violation.place == FAULTS)
        self._orders = {} if is_apart else orders

    def _relation(self, event: TraceEvent) -> str:
        """A class of the style sheet: `here` is the violation, `past` may have influenced it, `apart` cannot have."""
        if self._violation is not None and event.number == self._violation.number:
            return "here"
        return "past" if self._orders.get(event.number, Order.BEFORE) is Order.BEFORE else "apart"

    def _y(self, row: int) -> int:
        return TOP_PX + row * ROW_PX

    # --- the picture -------------------------------------------------------------------------

    def svg(self) -> Iterator[str]:
        height_px = self._bottom_px + 28
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self._width_px}" height="{height_px}" '
            f'viewBox="0 0 {self._width_px} {height_px}" role="img" aria-label="space-time diagram">'
        )
        yield "<defs>"
        for name in ("past", "apart"):
            yield (
                f'<marker id="head-{name}" class="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
                f'markerHeight="7" orient="auto"><path class="head" d="M0,1 L10,5 L0,9 z"/></marker>'
            )
        yield "</defs>"
        yield f'<text class="stamp" x="{TIME_PX}" y="{TOP_PX - 30}">time s</text>'
        yield f'<text class="stamp" x="{LAMPORT_PX}" y="{TOP_PX - 30}">lamport</text>'
        # What matters more lies on top.
        yield from self._bands()
        yield from self._columns()
        for arrow in self._layout.arrows:
            yield from self._arrow(arrow)
        for row, event in enumerate(self._layout.events):
            yield from self._event(row, event)
        yield "</svg>"

    def _bands(self) -> Iterator[str]:
        width_px = self._width_px - FIRST_LABEL_PX - 8
        for row, event in enumerate(self._layout.events):
            if event.place == FAULTS:
                place = f'x="{FIRST_LABEL_PX}" y="{self._y(row) - 9}" width="{width_px}"'
                yield f'<rect class="band" {place} height="18" rx="3"/>'

    def _columns(self) -> Iterator[str]:
        for place, x in self._x.items():
            top = TOP_PX - 22
            for other, first, last in self._layout.gaps:
                if other == place:
                    start = max(self._y(first), TOP_PX - 22)
                    end = min(self._y(last), self._bottom_px)
                    yield f'<line class="life" x1="{x}" y1="{top}" x2="{x}" y2="{start}"/>'
                    yield f'<line class="life down" x1="{x}" y1="{start}" x2="{x}" y2="{end}"/>'
                    top = end
            yield f'<line class="life" x1="{x}" y1="{top}" x2="{x}" y2="{self._bottom_px}"/>'
            for y in (TOP_PX - 30, self._bottom_px + 16):
                yield f'<text class="place" x="{x}" y="{y}">{_safe(place)}</text>'

    def _arrow(self, arrow: Arrow) -> Iterator[str]:
        start_row, end_row = arrow.sent_row, arrow.arrival_row
        shown = self._layout.events[end_row if end_row is not None else start_row or 0]
        relation = "apart" if self._relation(shown) == "apart" else "past"
        yield f'<g class="message {relation}"><title>{_safe(self._story(arrow))}</title>'
        if start_row is not None and end_row is not None:
            yield self._flight(arrow, start_row, end_row, relation)
        elif end_row is not None:
            # Sent before the window: it comes from its sender's side, from above.
            x, y = self._x[arrow.target], self._y(end_row)
            side = 1 if self._x.get(arrow.source, 0) > x else -1
            yield self._line(x + side * 34, y - 18, x, y, f'class="early" marker-end="url(#head-{relation})"')
        elif start_row is not None:
            yield from self._loss(arrow, start_row)
        yield "</g>"

    def _flight(self, arrow: Arrow, start_row: int, end_row: int, relation: str) -> str:
        x1, y1, x2, y2 = self._x[arrow.source], self._y(start_row), self._x[arrow.target], self._y(end_row)
        head = f'marker-end="url(#head-{relation})"'
        if x1 == x2:  # to itself: around the other events of its line
            bend = f"C{x1 + 40},{y1 + 8} {x1 + 40},{y2 - 8}"
            return f'<path class="flight" d="M{x1},{y1} {bend} {x2 + MARK_PX},{y2}" {head}/>'
        return self._line(x1, y1, x2, y2, f'class="flight" {head}')

    def _line(self, x1: float, y1: float, x2: float, y2: float, attributes: str) -> str:
        """A line from (x1, y1) to just before the mark at (x2, y2)."""
        length = math.hypot(x2 - x1, y2 - y1)
        share = 1 - MARK_PX / length
        x2, y2 = x1 + (x2 - x1) * share, y1 + (y2 - y1) * share
        ends = (_number(value) for value in (x1, y1, x2, y2))
        return '<line x1="{}" y1="{}" x2="{}" y2="{}" {}/>'.format(*ends, attributes)

    def _loss(self, arrow: Arrow, row: int) -> Iterator[str]:
        """Half of the way to its target's column, and a cross: above the next row's label."""
        x, y = self._x[arrow.source], self._y(row)
        target = self._x.get(arrow.target, x)
        side = 1 if target >= x else -1
        end_x, end_y = x + side * self._pitch_px // 2, y + 7
        yield f'<line class="flight lost" x1="{x}" y1="{y}" x2="{end_x}" y2="{end_y}"/>'
        yield (
            f'<path class="cross" d="M{end_x - 4},{end_y - 4} L{end_x + 4},{end_y + 4} '
            f'M{end_x - 4},{end_y + 4} L{end_x + 4},{end_y - 4}"/>'
        )

    def _story(self, arrow: Arrow) -> str:
        sent = None if arrow.sent_row is None else self._layout.events[arrow.sent_row]
        arrived = None if arrow.arrival_row is None else self._layout.events[arrow.arrival_row]
        known = sent or arrived
        assert known is not None, "an arrow has at least one end"
        departure = "before this window" if sent is None else f"at {sent.time_s:.6f} s"
        arrival = "never received" if arrived is None else f"received at {arrived.time_s:.6f} s"
        return f"#{arrow.message} {arrow.source} to {arrow.target}: {known.text} (sent {departure}, {arrival})"

    def _event(self, row: int, event: TraceEvent) -> Iterator[str]:
        y = self._y(row)
        label = describe(event, is_received=row not in self._lost)
        stamps = f"event {event.number} at {event.place}, {event.time_s:.6f} s"
        title = f"{label}\n{stamps}\nlamport {event.lamport}, vector {event.vector}"
        # Line by line: a line break of the text itself is made visible, those between the lines stay.
        shown = "\n".join(_safe(line) for line in (label, stamps, title.rsplit("\n", 1)[1]))
        kind = event.kind if event.kind.isidentifier() else "note"
        yield f'<g id="event-{event.number}" class="event kind-{kind} {self._relation(event)}"><title>{shown}</title>'
        yield f'<text class="stamp" x="{TIME_PX}" y="{y + 4}">{event.time_s:.6f}</text>'
        yield f'<text class="stamp" x="{LAMPORT_PX}" y="{y + 4}">{event.lamport}</text>'
        if event.place != FAULTS:
            yield from self._mark(event, self._x[event.place], y)
        yield self._label(row, event)
        yield "</g>"

    def _mark(self, event: TraceEvent, x: int, y: int) -> Iterator[str]:
        if event.kind == "crash":
            yield f'<path class="mark" d="M{x - 6},{y - 6} L{x + 6},{y + 6} M{x - 6},{y + 6} L{x + 6},{y - 6}"/>'
        elif event.kind in ("send", "receive"):
            yield f'<circle class="mark" cx="{x}" cy="{y}" r="{MARK_PX - 1}"/>'
        else:
            yield f'<rect class="mark" x="{x - 4}" y="{y - 4}" width="8" height="8"/>'
        if self._relation(event) == "here":
            yield f'<circle class="ring" cx="{x}" cy="{y}" r="10"/>'

    def _label(self, row: int, event: TraceEvent) -> str:
        label, y, anchor = describe(event), self._y(row), "start"
        if event.place == FAULTS:
            return self._text(label, FIRST_LABEL_PX + 8, y + 4, anchor, self._width_px)
        x, arrow = self._x[event.place], self._arrivals.get(row)
        left, baseline = x + (13 if self._relation(event) == "here" else 9), y + 4
        # Long landmarks may run over other columns: nothing else has its label on this row.
        is_wide = event.kind in LANDMARKS or event.place == self._layout.places[-1]
        end = self._width_px if is_wide else x + self._pitch_px
        if event.kind == "send":
            baseline = y - 4
            if event.peer in self._x:  # the arrow says to whom
                label = f"#{event.message} {event.text}"
        elif arrow is not None and arrow.sent_row is not None:
            label = f"#{arrow.message}"  # its text stands at the sending
            if self._x[arrow.source] >= x:
                left, anchor = x - 9, "end"
        elif arrow is not None and self._x.get(arrow.source, 0) > x:
            baseline = y + 12
        return self._text(label, left, baseline, anchor, end)

    def _text(self, label: str, x: int, y: int, anchor: str, end: int) -> str:
        shown = _safe(cut(printable(label), int((end - x - 8) / LETTER_PX)))
        return f'<text class="label" text-anchor="{anchor}" x="{x}" y="{y}">{shown}</text>'

    # --- the table ---------------------------------------------------------------------------

    def table(self) -> Iterator[str]:
        heads = ("event", "time s", "place", "kind", "text", "message", "lamport", "vector", "to the violation")
        yield f"<thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead><tbody>"
        for row, event in enumerate(self._layout.events):
            message = ""
            if event.message is not None:
                direction = "to" if event.kind == "send" else "from"
                message = f"#{event.message} {direction} {event.peer}{', never received' if row in self._lost else ''}"
            cells = (
                *(f"{event.time_s:.6f}", event.place, event.kind, event.text, message, str(event.lamport)),
                *(str(event.vector), self._standing(event)),
            )
            yield (
                f'<tr id="row-{event.number}" class="{self._relation(event)}">'
                f'<td><a href="#event-{event.number}">{event.number}</a></td>'
                f"{''.join(f'<td>{_safe(cell)}</td>' for cell in cells)}</tr>"
            )
        yield "</tbody>"

    def _standing(self, event: TraceEvent) -> str:
        order = self._orders.get(event.number)
        return "" if order is None else "the violation" if order is Order.EQUAL else order.value
