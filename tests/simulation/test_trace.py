"""The trace: stamps, questions, windows, files; and the session that docs/clocks.md shows."""

from __future__ import annotations

import doctest
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.clocks import Order
from quorate.simulation.trace import Trace, TraceError, TraceEvent, is_noise, relevant
from tests.simulation.random_traces import play, runs, steps

PAGE = Path(__file__).parents[2] / "docs" / "clocks.md"


def happens_before(events: list[TraceEvent]) -> set[tuple[int, int]]:
    """Pairs of numbers, by the definition: same place, or sent and received, or through a third."""
    pairs = set()
    for b in events:
        for a in events:
            if a.number < b.number and (
                a.place == b.place or (a.kind == "send" and b.kind == "receive" and a.message == b.message)
            ):
                pairs.add((a.number, b.number))
    for middle in events:
        into = [a for a, b in pairs if b == middle.number]
        out = [b for a, b in pairs if a == middle.number]
        pairs |= {(a, b) for a in into for b in out}
    return pairs


@given(runs())
def test_the_answers_are_happens_before(trace: Trace) -> None:
    events = trace.events
    pairs = happens_before(events)
    for event in events:
        assert [other.number for other in trace.before(event)] == sorted(a for a, b in pairs if b == event.number)
        assert [other.number for other in trace.after(event)] == sorted(b for a, b in pairs if a == event.number)
        related = {a for a, b in pairs if b == event.number} | {b for a, b in pairs if a == event.number}
        apart = [other.number for other in events if other is not event and other.number not in related]
        assert [other.number for other in trace.concurrent(event)] == apart
        assert trace.order(event, event) is Order.EQUAL
        assert trace.before(event, last=2) == trace.before(event)[-2:]
        assert trace.before(event, last=0) == []
    for a, b in pairs:
        assert trace.event(a).lamport < trace.event(b).lamport


@given(steps, st.integers(1, 12))
def test_a_bounded_trace_keeps_the_last_events_with_the_same_stamps(
    script: list[tuple[str, str, str, int]], keep: int
) -> None:
    bounded, whole = play(Trace(keep), script), play(Trace(), script)
    kept = whole.events[-keep:]
    assert [stamps(event) for event in bounded.events] == [stamps(event) for event in kept]


def stamps(event: TraceEvent) -> tuple[int, str, str, int, int | None, str]:
    return event.number, event.place, event.kind, event.lamport, event.message, str(event.vector)


def test_a_bounded_trace_lets_go_of_messages_that_have_arrived() -> None:
    trace = Trace(keep=4)
    lost = trace.send("node-0", 0.0, "node-1", "lost")
    for moment in range(100):
        trace.receive("node-1", moment, trace.send("node-0", moment, "node-1", "soon there"))
    late = trace.send("node-0", 100, "node-1", "late")
    for moment in range(100, 110):
        trace.note("node-1", moment, "note", "meanwhile")
    assert sorted(trace._sent) == [lost, late]
    trace.receive("node-1", 110, late)
    event = trace.events[-1]
    assert (event.text, event.peer, event.vector["node-0"]) == ("late", "node-0", 102)
    assert sorted(trace._sent) == [lost]
    trace.receive("node-1", 111, late)
    assert trace.events[-1].text == "once more"
    with pytest.raises(KeyError, match="no event 3: the trace holds"):
        trace.event(3)


def test_a_message_carries_its_stamp() -> None:
    trace = Trace()
    trace.note("node-0", 0.1, "role", "leader of term 1")
    message = trace.send("node-0", 0.2, "node-1", "append 7")
    trace.receive("node-1", 0.3, message)
    sent, received = trace.events[1:]
    assert message == 1
    assert (sent.kind, sent.message, sent.peer, sent.lamport, str(sent.vector)) == ("send", 1, "node-1", 2, "node-0:2")
    assert received == TraceEvent(3, 0.3, "node-1", "receive", "append 7", 3, received.vector, 1, "node-0")
    assert str(received.vector) == "node-0:2 node-1:1"


def test_an_unknown_message_and_a_message_as_a_note_are_bugs() -> None:
    trace = Trace()
    with pytest.raises(AssertionError, match="message 1 was never sent"):
        trace.receive("node-0", 0.0, 1)
    with pytest.raises(AssertionError, match="recorded by the method of that name"):
        trace.note("node-0", 0.0, "send", "x")
    with pytest.raises(AssertionError, match="faults neither send"):
        trace.send("faults", 0.0, "node-0", "x")


# --- files -----------------------------------------------------------------------------------


@given(runs(st.none() | st.integers(1, 10)))
def test_a_trace_survives_a_file(trace: Trace) -> None:
    written = b"".join(trace.lines())
    again = Trace.read(io.BytesIO(written))
    assert again.events == trace.events
    assert b"".join(again.lines()) == written


def test_a_line_is_as_documented() -> None:
    trace = Trace()
    trace.receive("node-1", 0.25, trace.send("node-0", 0.1, "node-1", 'a "vote"\n'))
    assert list(trace.lines()) == [
        b'{"number":1,"time_s":0.1,"place":"node-0","kind":"send","text":"a \\"vote\\"\\n",'
        b'"lamport":1,"vector":{"node-0":1},"message":1,"peer":"node-1"}\n',
        b'{"number":2,"time_s":0.25,"place":"node-1","kind":"receive","text":"a \\"vote\\"\\n",'
        b'"lamport":2,"vector":{"node-0":1,"node-1":1},"message":1,"peer":"node-0"}\n',
    ]


def sample() -> list[bytes]:
    trace = Trace()
    trace.note("node-0", 0.0, "start", "")
    trace.receive("node-1", 0.2, trace.send("node-0", 0.1, "node-1", "one"))
    trace.note("node-1", 0.3, "sync", "")
    trace.send("node-1", 0.4, "node-0", "two")
    return list(trace.lines())


@pytest.mark.parametrize(
    ("line", "old", "new", "said"),
    [
        (2, b'"number":2', b'"number":3', "line 2: event 3 follows event 1"),
        (2, b'"number":2', b'"number":"2"', r"line 2: Expected `int`, got `str` - at `\$.number`"),
        (1, b'"number":1', b'"number":0', r"line 1: Expected `int` >= 1 - at `\$.number`"),
        (3, b'"peer":"node-0"}', b'"peer":"node-0"', "line 3: Input data was truncated"),
        (3, b'"peer"', b'"pear"', "line 3: Object contains unknown field `pear`"),
        (5, b',"peer":"node-0"', b"", "line 5: Object missing required field `peer`"),
        (1, b'"start"', b'"\xff"', "line 1: .*(utf-8|UTF-8|invalid)"),
        (4, b'"time_s":0.3', b'"time_s":null', r"line 4: Expected `float`, got `null` - at `\$.time_s`"),
        (3, b'"node-1":1}', b'"node-1":-1}', "line 3: Expected `int` >= 1"),
        (3, b'"message":1', b'"message":null', 'line 3: kind "receive" and message None do not go together'),
        (4, b'"message":null', b'"message":7', 'line 4: kind "sync" and message 7 do not go together'),
        (3, b'"vector":{"node-0":2,', b'"vector":{"node-0":1,', "line 3: the clocks do not count the sending"),
        (3, b'"lamport":3', b'"lamport":2', "line 3: the clocks do not count the sending of message 1"),
        (4, b'"node-1":2', b'"node-1":3', r"line 4: vector \[node-0:2 node-1:3\] cannot follow"),
        (4, b'"node-0":2,', b"", r"line 4: vector \[node-1:2\] cannot follow \[node-0:2 node-1:1\] at node-1"),
        (4, b'"lamport":4', b'"lamport":3', "line 4: lamport 3 cannot follow 3 at node-1"),
        (1, b'{"node-0":1}', b"{}", "line 1: vector .* does not count the event itself, at node-0"),
        (5, b'"peer":"node-0"', b'"peer":"faults"', "line 5: faults neither send nor receive"),
        (5, b'"message":2', b'"message":1', "line 5: message 1 is sent after message 1"),
    ],
)
def test_a_malformed_file_is_refused_by_line(line: int, old: bytes, new: bytes, said: str) -> None:
    lines = sample()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    with pytest.raises(TraceError, match=said):
        Trace.read(lines)


def test_lines_that_are_no_trace_are_refused() -> None:
    for lines in ([b"\n"], [b"[]\n"], [b"hello\n"], [b"\x00\xff"], [b"[" * 100_000]):
        with pytest.raises(TraceError, match=r"^line 1: "):
            Trace.read(lines)
    assert Trace.read([]).events == []


# --- windows ---------------------------------------------------------------------------------


@given(runs(), st.integers(1, 70), st.data())
def test_a_window_is_the_last_of_the_past_with_whole_messages(trace: Trace, limit: int, data: st.DataObject) -> None:
    if not trace.events:
        return
    around = data.draw(st.sampled_from(trace.events))
    window = relevant(trace, around, limit)
    numbers = [event.number for event in window]
    assert around in window
    assert len(window) <= limit
    assert numbers == sorted(set(numbers))
    past = trace.before(around) or [event for event in trace.events if event.number < around.number]
    shown = [event for event in past if event in window]
    assert shown == past[len(past) - len(shown) :]
    if limit > 2 * len(trace.events):
        assert shown == past
    for event in window:
        if event.kind == "send" and event is not around:
            receipts = [other for other in trace.events if other.kind == "receive" and other.message == event.message]
            assert all(receipt in window for receipt in receipts)


def busy_run() -> tuple[Trace, TraceEvent]:
    """A violation at node-1 that rests on node-0; meanwhile client-0 talks to itself, and faults are injected."""
    trace = Trace()
    trace.note("node-0", 0.0, "role", "leader of term 1")
    for moment in range(20):
        trace.receive("node-1", moment, trace.send("node-0", moment, "node-1", f"append {moment}"))
        trace.receive("node-1", moment, trace.send("node-0", moment, "node-1", f"Heartbeat {moment}"))
        trace.note("client-0", moment, "invoke", f"read {moment}")
        trace.note("faults", moment, "fault", f"delay {moment}")
    trace.send("node-0", 20, "node-2", "to nobody")
    trace.note("node-2", 20, "crash", "power loss")
    return trace, trace.note("node-1", 21, "violation", "two leaders")


def test_a_window_holds_causes_and_landmarks_without_noise() -> None:
    trace, violation = busy_run()
    window = relevant(trace, violation, 12)
    assert [f"{event.place} {event.text}" for event in window] == [
        *("node-0 append 16", "node-1 append 16"),
        *("node-0 append 17", "node-1 append 17"),
        *("node-0 append 18", "node-1 append 18", "faults delay 18"),
        *("node-0 append 19", "node-1 append 19", "faults delay 19"),
        *("node-2 power loss", "node-1 two leaders"),
    ]
    assert relevant(trace, violation, 1) == [violation]


def test_a_series_of_equal_messages_shows_its_first_and_last() -> None:
    trace = Trace()
    for moment, text in enumerate(["yes 1", "yes 2", "yes 2", "heartbeat", "yes 2", "yes 2", "yes 3", "yes 3"]):
        trace.receive("node-1", moment, trace.send("node-0", moment, "node-1", text))
        trace.send("node-0", moment, "node-2", "yes 2")  # another way: a series of its own
    violation = trace.note("node-1", 9, "violation", "")
    window = relevant(trace, violation, 100)
    to_node_1 = [event.number for event in trace.events if event.peer == "node-1"]
    shown = [to_node_1.index(event.number) for event in window if event.peer == "node-1"]
    assert shown == [0, 1, 5, 6, 7]
    assert [event.time_s for event in window if event.peer == "node-2"] == [0, 6]


def test_what_is_asked_about_is_no_repetition() -> None:
    trace = Trace()
    first, second, third = (trace.send("node-0", 0, "node-1", "yes") for _ in range(3))
    for message in (first, third, second):  # the second is overtaken
        trace.receive("node-1", 1, message)
    assert [event.message for event in relevant(trace, trace.event(6), 100)] == [1, 2, 3, 1, 3, 2]


def test_a_violation_among_the_faults_shows_what_came_last() -> None:
    """All faults are noted at one place; that one comes after another there does not make it a cause."""
    trace, _ = busy_run()
    verdict = trace.note("faults", 60, "violation", "stores differ")
    assert trace.before(verdict)
    assert [event.text for event in relevant(trace, verdict, 8)][-4:-1] == ["to nobody", "power loss", "two leaders"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[
            ("heartbeat term 2 round 7", True),
            ("Ping", True),
            ("heartbeat of the link, heartbeat term 2 round 7", True),
        ],
        *[("heartbeat term 2 round 7, Append 3 term 2", False), ("Append 3, ping", False), ("", False)],
    ],
)
def test_noise_is_what_holds_nothing_else(text: str, expected: bool) -> None:
    assert is_noise(Trace().note("node-0", 0.0, "note", text)) is expected


def test_room_that_landmarks_do_not_need_goes_to_the_past() -> None:
    trace = Trace()
    for moment in range(20):
        trace.note("node-0", moment, "note", f"{moment}")
    violation = trace.note("node-0", 20, "violation", "")
    assert relevant(trace, violation, 12) == trace.events[-12:]
    assert relevant(trace, violation, 100) == trace.events


def test_the_verdict_of_a_check_at_the_end_shows_what_came_last() -> None:
    trace, _ = busy_run()
    trace.note("client-0", 22, "note", "ping")
    verdict = trace.note("history", 60, "violation", "key k is not linearizable")
    assert trace.before(verdict) == []
    window = relevant(trace, verdict, 8)
    assert window[-1] is verdict
    assert [event.text for event in window][-4:-1] == ["to nobody", "power loss", "two leaders"]


# --- the page --------------------------------------------------------------------------------


def test_the_session_of_the_page_runs_as_written() -> None:
    blocks = re.findall(r"```pycon\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    session = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    failed, attempted = doctest.DocTestRunner(verbose=False).run(session, out=said.append)
    assert attempted > 5
    assert not failed, "".join(said)
