"""Space-time diagrams: a few runs as a reader sees them (`golden/`), and what holds for every run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.clocks import Order
from quorate.simulation.diagram import cells, cut, lay_out, printable
from quorate.simulation.diagram_html import MARK_PX, Report, render_html
from quorate.simulation.diagram_text import ASCII, render_text
from quorate.simulation.trace import Trace, TraceEvent, relevant
from tests.simulation.random_traces import runs

FOLDER = Path(__file__).parent / "golden"
HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
REPORT = Report(7, "election safety", "two leaders in term 2", "quorate simulate --seed 7 --faults all")


# --- runs made by hand -----------------------------------------------------------------------


def crossing_late_and_doubled() -> list[TraceEvent]:
    """Two messages cross; one is overtaken; one arrives twice; a client stands aside."""
    trace = Trace()
    there = trace.send("node-0", 0.1, "node-1", "there")
    back = trace.send("node-1", 0.1004, "node-0", "back")
    trace.receive("node-0", 0.1012, back)
    trace.receive("node-1", 0.1013, there)
    slow = trace.send("node-0", 0.2, "node-2", "slow")
    fast = trace.send("node-0", 0.2001, "node-2", "fast")
    trace.receive("node-2", 0.21, fast)
    trace.note("client-0", 0.25, "invoke", "get /a")
    trace.receive("node-2", 0.9, slow)
    trace.receive("node-2", 0.95, fast)
    trace.receive("node-2", 0.96, trace.send("node-2", 0.955, "node-2", "to myself"))
    return trace.events


def lost_and_crashed() -> list[TraceEvent]:
    """Messages to a machine that is down, to one without a column, and from before the window."""
    trace = Trace()
    early = trace.send("node-2", 0.05, "node-0", "sent early")
    unseen = trace.send("client-7", 0.05, "node-0", "sent early by another")
    first = trace.note("node-2", 0.1, "start", "").number
    trace.note("node-1", 0.2, "crash", "power loss")
    trace.send("node-0", 0.3, "node-1", "append 1..3")
    trace.send("node-0", 0.3, "client-3", "a watch fired")
    trace.send("node-2", 0.31, "node-0", "a vote")
    trace.receive("node-0", 0.4, early)
    trace.receive("node-0", 0.41, unseen)
    trace.note("node-1", 5.0, "start", "recovered 3 entries")
    trace.note("node-2", 5.5, "crash", "")
    return trace.events[first - 1 :]


def two_votes_under_a_partition() -> list[TraceEvent]:
    """Ends in a violation; a fault, a concurrent event and a long text."""
    trace = Trace()
    trace.note("faults", 0.2, "fault", "partition: node-0 and node-2 cannot hear each other")
    one = trace.send(
        "node-0", 0.25, "node-1", "request vote, term 2, last entry 7 of term 1, and more that will be cut off"
    )
    other = trace.send("node-2", 0.2501, "node-1", "request vote, term 2")
    trace.note("node-0", 0.2502, "sync", "state")
    trace.receive("node-1", 0.26, one)
    trace.receive("node-0", 0.27, trace.send("node-1", 0.2601, "node-0", "granted"))
    trace.note("node-0", 0.27, "role", "leader of term 2")
    trace.receive("node-1", 0.28, other)
    trace.note("node-1", 0.28, "violation", "two votes in term 2")
    return trace.events


def many_places() -> list[TraceEvent]:
    trace = Trace()
    for number in range(12):
        trace.receive(f"client-{number}", number, trace.send(f"node-{number % 3}", number, f"client-{number}", "done"))
    trace.receive("node-0", 20, trace.send("client-11", 20, "node-0", "one more"))
    return trace.events


RUNS = (crossing_late_and_doubled, lost_and_crashed, two_votes_under_a_partition, many_places)


def is_golden(path: Path, actual: str, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-diagrams", default=False):
        path.parent.mkdir(exist_ok=True)
        path.write_text(actual, encoding="utf-8")
    else:
        golden = path.read_text(encoding="utf-8")
        assert actual == golden, f"{path.name} differs: run `pytest tests/simulation --update-diagrams`, then git diff"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_the_text_is_as_it_was(run: Callable[[], list[TraceEvent]], request: pytest.FixtureRequest) -> None:
    events = run()
    drawings = (render_text(events, 100), render_text(events, 72, ascii_only=True))
    is_golden(FOLDER / f"{run.__name__}.txt", "\n\n".join(drawings) + "\n", request)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_the_page_is_as_it_was(run: Callable[[], list[TraceEvent]], request: pytest.FixtureRequest) -> None:
    events = run()
    violation = events[-1] if events[-1].kind == "violation" else None
    is_golden(FOLDER / f"{run.__name__}.html", render_html(events, REPORT, violation), request)


# --- every run, as text ----------------------------------------------------------------------


@given(runs(), st.integers(60, 160), st.booleans())
def test_every_event_is_one_row_with_its_mark_in_its_column(trace: Trace, width: int, ascii_only: bool) -> None:
    events = trace.events
    lines = render_text(events, width, ascii_only=ascii_only).splitlines()
    rows = lines[len(lines) - len(events) :]
    heads = lines[: len(lines) - len(events)]
    assert all(cells(line) <= width for line in lines)
    assert all(re.match(r"\s*[0-9]+\.[0-9]{6} ", row) for row in rows)
    assert not any(re.match(r"\s*[0-9]", head) for head in heads)
    for event, row in zip(events, rows, strict=True):
        assert row.split()[:2] == [f"{event.time_s:.6f}", str(event.lamport)]
        if event.place != "faults":
            start = next(head.index(event.place) for head in heads if event.place in head)
            assert row[start] in "X!●○*o"
    if ascii_only:
        assert "\n".join(lines).isascii()


@given(runs())
def test_arrows_in_text_lead_from_sender_to_receiver(trace: Trace) -> None:
    """In ASCII: from the sender's column to the receiver's there is nothing but the arrow."""
    lines = render_text(trace.events, 120, ascii_only=True).splitlines()
    rows = lines[len(lines) - len(trace.events) :]
    column = {
        place: head.index(place) for head in lines[:1] for place in ("node-0", "node-1", "client-0") if place in head
    }
    arrived = {event.message for event in trace.events if event.kind == "receive"}
    for event, row in zip(trace.events, rows, strict=True):
        own, other = column.get(event.place, -1), column.get(event.peer, -1)
        between = row[min(own, other) + 1 : max(own, other)]
        if event.kind == "receive" and other not in (own, -1):
            assert re.fullmatch(r"[-+]+>" if other < own else r"<[-+]+", between)
        elif event.kind == "send" and other not in (own, -1) and event.message not in arrived:
            assert re.fullmatch(r"[-+]+x" if own < other else r"x[-+]+", between)
            assert "never received" in row
        elif event.kind == "send":
            assert "*->" in row or "<-*" in row or "*-x" in row


def test_a_narrow_terminal_gets_all_events_in_longer_lines() -> None:
    lines = render_text(many_places(), 20).splitlines()
    assert sum("#" in line for line in lines) == 26
    assert all("#" in line.split("  ")[-1] for line in lines if re.match(r"\s*[0-9]", line))


def test_nothing_to_show_is_a_head_without_rows() -> None:
    assert render_text([], 80) == "time s  lamport"
    ElementTree.fromstring(render_html([], REPORT, None))


def test_a_column_is_dotted_while_its_machine_is_down() -> None:
    layout = lay_out(lost_and_crashed())
    assert layout.gaps == (("node-1", 1, 7), ("node-2", -1, 0), ("node-2", 8, 9))
    rows = render_text(lost_and_crashed(), 100, ascii_only=True).splitlines()
    column = rows[0].index("node-1")
    assert [row[column] for row in rows[1:]] == ["|", "X", ":", ":", "+", "+", ":", "o", "|"]


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b[31m", "two\nlines", "\u202eright to left", "\x00\x7f\u2028", "\r", "\u0085"]
)
def test_a_terminal_is_not_commanded_by_texts(text: str) -> None:
    trace = Trace()
    trace.note(f"node{text}", 0.0, "note", text)
    drawing = render_text(trace.events, 200)
    assert len(drawing.splitlines()) == 2
    assert drawing.replace("\n", "").isprintable()
    assert printable(text) in drawing


def test_wide_letters_take_two_cells() -> None:
    assert (cells("日本"), cut("日本語", 5), cut("日本語", 6), cut("abc", 2, "..."), cut("abcd", 3)) == (
        4,
        "日本…",
        "日本語",
        "..",
        "ab…",
    )
    trace = Trace()
    trace.note("node-0", 0.0, "note", "日本語" * 40)
    assert all(cells(line) <= 60 for line in render_text(trace.events, 60).splitlines())


def test_columns_are_nodes_then_clients_by_number() -> None:
    trace = Trace()
    for place in ("client-10", "checks", "node-10", "client-2", "faults", "node-2"):
        trace.note(place, 0.0, "note", "")
    assert lay_out(trace.events).places == ("node-2", "node-10", "client-2", "client-10", "checks")


# --- every run, as a page --------------------------------------------------------------------


@given(runs(), st.data())
def test_every_event_is_once_in_the_picture_and_once_in_the_table(trace: Trace, data: st.DataObject) -> None:
    violation = data.draw(st.sampled_from(trace.events)) if trace.events else None
    page = ElementTree.fromstring(render_html(trace.events, REPORT, violation))
    groups = [group for group in page.iter(f"{SVG}g") if "event" in group.get("class", "").split()]
    rows = [row for row in page.iter(f"{HTML}tr") if row.get("id")]
    assert [group.get("id") for group in groups] == [f"event-{event.number}" for event in trace.events]
    assert [row.get("id") for row in rows] == [f"row-{event.number}" for event in trace.events]
    past = trace.before(violation) if violation is not None and violation.place != "faults" else []
    for event, group, row in zip(trace.events, groups, rows, strict=True):
        title = group.findtext(f"{SVG}title") or ""
        assert f"lamport {event.lamport}, vector {event.vector}" in title
        assert event.text in title
        shown = [cell.text or "" for cell in row if cell.tag == f"{HTML}td"][1:]
        assert shown[:4] == [f"{event.time_s:.6f}", event.place, event.kind, event.text]
        assert shown[5:7] == [str(event.lamport), str(event.vector)]
        relation = "here" if event is violation else "past" if event in past or not past else "apart"
        assert relation in group.get("class", "").split()
        assert row.get("class") == relation
        if past and violation is not None and event is not violation:
            assert shown[7] == trace.order(event, violation).value


@given(runs())
def test_arrows_run_from_mark_to_mark(trace: Trace) -> None:
    page = ElementTree.fromstring(render_html(trace.events, REPORT, None))
    marks: dict[str, tuple[float, float]] = {}
    for group in page.iter(f"{SVG}g"):
        circle = group.find(f"{SVG}circle")
        if circle is not None:
            marks[group.get("id", "")] = float(circle.get("cx", "")), float(circle.get("cy", ""))
    arrows = [group for group in page.iter(f"{SVG}g") if "message" in group.get("class", "").split()]
    layout = lay_out(trace.events)
    assert len(arrows) == len(layout.arrows)
    for arrow, group in zip(layout.arrows, arrows, strict=True):
        assert arrow.sent_row is not None
        sender = marks[f"event-{trace.events[arrow.sent_row].number}"]
        line = group.find(f"{SVG}line")
        if arrow.arrival_row is None:
            assert group.find(f"{SVG}path[@class='cross']") is not None
        if line is None:
            assert arrow.source == arrow.target
            continue
        assert (float(line.get("x1", "")), float(line.get("y1", ""))) == sender
        assert (line.get("marker-end") is None) == (arrow.arrival_row is None)
        if arrow.arrival_row is not None:
            x, y = marks[f"event-{trace.events[arrow.arrival_row].number}"]
            distance = ((float(line.get("x2", "")) - x) ** 2 + (float(line.get("y2", "")) - y) ** 2) ** 0.5
            assert distance == pytest.approx(MARK_PX, abs=0.2)


HOSTILE = '</title><script>alert(1)</script>\'" onload="x" & ]]> <!-- \x00\x0b\ud800 \u202e {} TITLE'


def test_hostile_texts_are_only_text() -> None:
    trace = Trace()
    number = trace.send(HOSTILE, 0.0, f"{HOSTILE}2", HOSTILE)
    trace.receive(f"{HOSTILE}2", 0.1, number)
    trace.send(HOSTILE, 0.0, HOSTILE, HOSTILE)
    trace.note("faults", 0.2, HOSTILE, HOSTILE)
    violation = trace.note(HOSTILE, 0.3, 'violation" onclick="x', HOSTILE)
    text = render_html(trace.events, Report(7, HOSTILE, HOSTILE, HOSTILE), violation)
    text.encode("utf-8")
    assert text.replace("\n", "").isprintable()
    page = ElementTree.fromstring(text)
    expected = "html head meta title style body h1 h2 dl dt dd code p div table thead tbody tr th td a"
    expected += " svg defs marker path text line g circle rect"
    assert {element.tag.split("}")[1] for element in page.iter()} <= set(expected.split())
    attributes = {name for element in page.iter() for name in element.attrib}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "style")}
    assert all((element.get("href") or "#").startswith("#") for element in page.iter())
    assert f": {printable(HOSTILE)}" in (page.findtext(f"{HTML}head/{HTML}title") or "")
    assert page.findtext(f"{HTML}body/{HTML}dl/{HTML}dd/{HTML}code") == printable(HOSTILE)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = render_html(two_votes_under_a_partition(), REPORT, None)
    links = re.findall(r"https?://[^\"]*", text)
    assert set(links) <= {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|<script|<link|<img|url\((?!#)", text)


@pytest.mark.parametrize("place", ["history", "faults"])
def test_a_verdict_without_a_past_leaves_everything_strong(place: str) -> None:
    trace = Trace()
    trace.note("node-0", 0.0, "commit", "1")
    trace.note("faults", 0.5, "fault", "delay")
    verdict = trace.note(place, 1.0, "violation", "not linearizable")
    assert trace.order(trace.event(1), verdict) is Order.CONCURRENT
    page = ElementTree.fromstring(render_html(trace.events, REPORT, verdict))
    assert [row.get("class") for row in page.iter(f"{HTML}tr")] == [None, "past", "past", "here"]


def test_a_window_of_a_large_run_can_be_drawn() -> None:
    trace = Trace()
    for moment in range(2000):
        sender, receiver = f"node-{moment % 5}", f"node-{(moment * 3 + 1) % 5}"
        number = trace.send(sender, moment / 100, receiver, f"append {moment}")
        if moment % 7:
            trace.receive(receiver, moment / 100 + 0.001, number)
    violation = trace.note("node-0", 20.0, "violation", "x")
    window = relevant(trace, violation, 300)
    assert len(window) in (299, 300)
    page = ElementTree.fromstring(render_html(window, REPORT, violation))
    assert sum(row.get("id") is not None for row in page.iter(f"{HTML}tr")) == len(window)
    assert len(render_text(window, 80).splitlines()) == len(window) + 2


def test_only_ascii_is_only_ascii() -> None:
    assert all(getattr(ASCII, name).isascii() for name in ASCII.__slots__ if isinstance(getattr(ASCII, name), str))
    trace = Trace()
    trace.send("küche", 0.0, "日本", "é…")
    assert "*-x" in (drawing := render_text(trace.events, 120, ascii_only=True))
    assert "#1 to \\u65e5\\u672c, never received: \\xe9\\u2026" in drawing
    assert drawing.isascii()


def test_a_violation_of_several_lines_is_one_line_of_words() -> None:
    trace = Trace()
    trace.note("node-0", 1.0, "violation", "invalid as a lock:\nclient-3 acquire")
    trace.note("node-0", 1.0, "note", "two\nlines")
    violation, note = render_text(trace.events, 120, ascii_only=True).splitlines()[-2:]
    assert violation.endswith("VIOLATION: invalid as a lock: client-3 acquire")
    assert note.endswith(r"two\nlines")
