"""What a space-time diagram shows, before it is drawn as text or as a page.

One column per place, one row per event in the order of recording.  Rows are ranks, not times:
a run is bursts with long gaps between them, and on a true scale the bursts could not be read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quorate.simulation.trace import FAULTS, TraceEvent


@dataclass(frozen=True, slots=True)
class Arrow:
    """One way of a message: to one receipt, or to none."""

    message: int
    source: str
    """The sender's place; "" where it is not known (a late copy in a bounded trace)."""
    target: str
    sent_row: int | None
    """None: sent before the window."""
    arrival_row: int | None
    """None: never received."""


@dataclass(frozen=True, slots=True)
class Layout:
    events: tuple[TraceEvent, ...]
    """One per row."""
    places: tuple[str, ...]
    """The columns: the places of the events, without `faults`."""
    arrows: tuple[Arrow, ...]
    """In the order of their last rows."""
    gaps: tuple[tuple[str, int, int], ...]
    """(place, first, last): the place is down between these rows.  -1 and len(events) are beyond the edges."""

    def is_down(self, place: str, row: int) -> bool:
        return any(place == other and first < row < last for other, first, last in self.gaps)


def lay_out(events: Iterable[TraceEvent]) -> Layout:
    rows = tuple(sorted(events, key=lambda event: event.number))
    places = sorted({event.place for event in rows} - {FAULTS}, key=_column_key)
    return Layout(rows, tuple(places), tuple(_arrows(rows)), tuple(_gaps(rows, places)))


def _column_key(place: str) -> tuple[int, str, int, str]:
    """Nodes, then clients, then the rest; numbers by value."""
    match = re.fullmatch(r"(.*?)([0-9]{0,9})", place, re.DOTALL)
    assert match is not None, "both parts may be empty"
    name, digits = match.groups()
    rank = next((rank for rank, prefix in enumerate(("node-", "client-")) if name == prefix), 2)
    return rank, name, int(digits or 0), place


def _arrows(rows: Sequence[TraceEvent]) -> list[Arrow]:
    sent_rows = {event.message: row for row, event in enumerate(rows) if event.kind == "send"}
    arrived = {event.message for event in rows if event.kind == "receive"}
    arrows = []
    for row, event in enumerate(rows):
        if event.message is None:
            continue
        if event.kind == "receive":
            sent_row = sent_rows.get(event.message)
            source = event.peer if sent_row is None else rows[sent_row].place
            arrows.append(Arrow(event.message, source, event.place, sent_row, row))
        elif event.message not in arrived:
            arrows.append(Arrow(event.message, event.place, event.peer, row, None))
    return arrows


def _gaps(rows: Sequence[TraceEvent], places: Iterable[str]) -> list[tuple[str, int, int]]:
    """A place is down from a crash to its next start; one whose first event is a start was down before it."""
    gaps = []
    for place in places:
        own = [(row, event.kind) for row, event in enumerate(rows) if event.place == place]
        down_from = -1 if own[0][1] == "start" else None
        for row, kind in own:
            if kind == "crash" and down_from is None:
                down_from = row
            elif kind == "start" and down_from is not None:
                gaps.append((place, down_from, row))
                down_from = None
        if down_from is not None:
            gaps.append((place, down_from, len(rows)))
    return gaps


def describe(event: TraceEvent, is_received: bool = True) -> str:
    """An event in one line, for the reader of a diagram."""
    text = f": {event.text}" if event.text else ""
    if event.kind == "send":
        return f"#{event.message} to {event.peer}{'' if is_received else ', never received'}{text}"
    if event.kind == "receive":
        return f"#{event.message}{f' from {event.peer}' if event.peer else ''}{text}"
    if event.kind == "note":
        return event.text
    return violation_line(event.text) if event.kind == "violation" else f"{event.kind}{text}"


def violation_line(text: str) -> str:
    """The text of a violation may have several lines, of which the first alone says little."""
    return "VIOLATION" + (f": {' '.join(text.splitlines())}" if text else "")


def printable(text: str) -> str:
    """The text without line breaks, control characters and anything else that would act instead of being seen.

    These show as escapes: texts hold what clients and peers sent.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def cut(text: str, room: int, ellipsis: str = "…") -> str:
    """The text in at most `room` cells, with an ellipsis where it had to be cut."""
    if cells(text) <= room:
        return text
    kept, used = [], len(ellipsis)
    for character in text:
        used += cells(character)
        if used > room:
            break
        kept.append(character)
    return "".join(kept) + ellipsis[: max(room, 0)]
