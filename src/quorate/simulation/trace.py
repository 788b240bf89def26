"""The trace of a run: what happened where, in the order of the simulation, with logical clocks on every event.

Places are the machines ("node-0", "client-3") and "faults"; each is one process in the sense of
`quorate.clocks`.  A place keeps its clocks over a crash and a restart: what it does afterwards
rests on what its disk kept.  A message arrives at a place when its bytes do, which may be shortly
before the process reads them; so the clocks may see an influence a moment too early, and never too
late.

Events are numbered from 1 in the order of recording.  That order never contradicts happens-before.
It may contradict `time_s` by the length of one turn of a loop, because a machine that is busy for a
while is recorded at once.

A trace as a file is JSON lines, one event per line, all nine members present:

    {"number":7,"time_s":0.25,"place":"node-1","kind":"receive","text":"vote, term 2",
     "lamport":5,"vector":{"node-0":4,"node-1":2},"message":3,"peer":"node-0"}

(without the line break).  `time_s` is simulated time in seconds from the start of the run, `vector`
the vector clock (places with 0 are left out), `message` the number that a sending and its receipts
share, or null, `peer` the other end of that message, or "".  Numbers of events are consecutive; a
file may begin with any, because a trace may have been bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeAlias

import msgspec

from quorate.clocks import LamportClock, LamportStamp, Order, VectorClock

FAULTS: Final = "faults"
"""The place at which injected faults are noted."""

LANDMARKS: Final = frozenset({"fault", "crash", "start", "role", "violation"})
"""Kinds of events that explain a run also where they are no cause of what is asked about."""

NOISE: Final = ("heartbeat", "ping")
"""First words of what is left out of a window."""


class TraceError(ValueError):
    """A file is no trace; the text names the line and says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One event of a run."""

    number: int
    time_s: float
    """Simulated true time, in seconds from the start of the run."""
    place: str
    kind: str
    """send, receive, note, fault, crash, start, role, commit, sync, invoke, return or violation."""
    text: str
    lamport: int
    vector: VectorClock
    message: int | None = None
    """The number that a sending and its receipts share."""
    peer: str = ""
    """The other end of the message."""


@dataclass(slots=True)
class _Clocks:
    """A place's clocks, as of its last event."""

    lamport: LamportClock
    vector: VectorClock = field(default_factory=VectorClock)


class Trace:
    """Records a run, and answers what happened before, after and concurrently with an event.

    With `keep`, only the last so many events are kept.  Clocks and answers stay exact: they are
    stamped when an event is recorded.  Beyond those events memory then grows only by the messages
    that never arrive, whose stamps wait for them.
    """

    def __init__(self, keep: int | None = None) -> None:
        assert keep is None or keep > 0, f"a trace that keeps {keep} events"
        self._events: deque[TraceEvent] = deque(maxlen=keep)
        self._clocks: dict[str, _Clocks] = {}
        self._last_number = 0
        self._last_message = 0
        self._sent: dict[int, TraceEvent] = {}
        """By message: the sending, until it is no longer kept and has arrived.  It may arrive twice."""
        self._arrived: set[int] = set()
        """The messages of `_sent` that have arrived at least once.  Never iterated."""

    # --- recording ---------------------------------------------------------------------------

    def note(self, place: str, time_s: float, kind: str, text: str) -> TraceEvent:
        """Record an event that is no message's."""
        assert kind not in ("send", "receive"), f"{kind} is recorded by the method of that name"
        return self._record(place, time_s, kind, text)

    def send(self, place: str, time_s: float, to: str, text: str) -> int:
        """Record the sending of a message; its number, from 1, is to be given to `receive`."""
        assert FAULTS not in (place, to), "faults neither send nor receive"
        self._last_message += 1
        self._record(place, time_s, "send", text, self._last_message, to)
        return self._last_message

    def receive(self, place: str, time_s: float, number: int) -> None:
        """Record the arrival of message `number`.  A message may arrive more than once, or never."""
        assert 0 < number <= self._last_message, f"message {number} was never sent"
        sent = self._sent.get(number)
        if sent is None:
            # A copy, long after the first.  The place's clocks passed the sender's stamp when the
            # first one came, so they miss nothing.
            self._record(place, time_s, "receive", "once more", number)
            return
        clocks = self._clocks_of(place)
        clocks.lamport.receive(LamportStamp(sent.lamport, sent.place))
        clocks.vector = clocks.vector.merge(sent.vector)
        self._arrived.add(number)
        self._append(
            TraceEvent(
                self._last_number + 1, time_s, place, "receive", sent.text, clocks.lamport.time,
                clocks.vector.increment(place), number, sent.place,
            )
        )  # fmt: skip
        self._forget(sent)

    def _record(
        self, place: str, time_s: float, kind: str, text: str, message: int | None = None, peer: str = ""
    ) -> TraceEvent:
        clocks = self._clocks_of(place)
        lamport, vector = clocks.lamport.tick().time, clocks.vector.increment(place)
        event = TraceEvent(self._last_number + 1, time_s, place, kind, text, lamport, vector, message, peer)
        self._append(event)
        return event

    def _clocks_of(self, place: str) -> _Clocks:
        clocks = self._clocks.get(place)
        if clocks is None:
            clocks = self._clocks[place] = _Clocks(LamportClock(place))
        return clocks

    def _append(self, event: TraceEvent) -> None:
        oldest = self._events[0] if len(self._events) == self._events.maxlen else None
        self._events.append(event)
        self._last_number = event.number
        clocks = self._clocks_of(event.place)
        clocks.lamport.time, clocks.vector = event.lamport, event.vector
        if event.kind == "send" and event.message is not None:
            self._sent[event.message] = event
        if oldest is not None and oldest.kind == "send":
            self._forget(oldest)

    def _forget(self, sent: TraceEvent) -> None:
        """Let go of a message that has arrived and whose sending is no longer kept."""
        if sent.message in self._arrived and sent.number < self._events[0].number:
            self._arrived.discard(sent.message)
            del self._sent[sent.message]

    # --- asking ------------------------------------------------------------------------------

    @property
    def events(self) -> list[TraceEvent]:
        """The events that are kept, in the order of recording; a new list each time."""
        return list(self._events)

    def event(self, number: int) -> TraceEvent:
        """Raises KeyError where there is no such event, or it is no longer kept."""
        first = self._last_number - len(self._events) + 1
        if not first <= number <= self._last_number:
            raise KeyError(f"there is no event {number}: the trace holds {first} to {self._last_number}")
        return self._events[number - first]

    def order(self, first: TraceEvent, second: TraceEvent) -> Order:
        """BEFORE where the first event happened before the second: a chain of messages leads from it."""
        return first.vector.compare(second.vector)

    def before(self, event: TraceEvent, last: int | None = None) -> list[TraceEvent]:
        """The causal past: all events that may have influenced this one, or only the `last` so many of them."""
        past = self._that_are(Order.BEFORE, event)
        return past if last is None else past[max(0, len(past) - last) :]

    def after(self, event: TraceEvent) -> list[TraceEvent]:
        """All events that this one may have influenced."""
        return self._that_are(Order.AFTER, event)

    def concurrent(self, event: TraceEvent) -> list[TraceEvent]:
        """All events that neither influenced this one nor were influenced by it."""
        return self._that_are(Order.CONCURRENT, event)

    def _that_are(self, order: Order, event: TraceEvent) -> list[TraceEvent]:
        return [other for other in self._events if self.order(other, event) is order]

    # --- files -------------------------------------------------------------------------------

    def lines(self) -> Iterator[bytes]:
        """The kept events as JSON lines (see the head of this module), each with its line feed."""
        encode = msgspec.json.Encoder().encode
        for event in self._events:
            line = _Line(
                event.number, event.time_s, event.place, event.kind, event.text, event.lamport,
                event.vector.counts(), event.message, event.peer,
            )  # fmt: skip
            yield encode(line) + b"\n"

    @classmethod
    def read(cls, lines: Iterable[bytes]) -> Trace:
        """The trace that such lines show; an open binary file is an iterable of lines.  Raises TraceError."""
        trace, decoder = cls(), msgspec.json.Decoder(_Line)
        for number, text in enumerate(lines, 1):
            try:
                trace._restore(decoder.decode(text))
            except (msgspec.DecodeError, ValueError) as error:
                raise TraceError(f"line {number}: {error}") from error
        return trace

    def _restore(self, line: _Line) -> None:
        """Append an event that was recorded before.  Raises ValueError where its numbers or clocks cannot be right."""
        event = TraceEvent(
            line.number, line.time_s, line.place, line.kind, line.text, line.lamport,
            VectorClock(line.vector), line.message, line.peer,
        )  # fmt: skip
        if self._events and event.number != self._last_number + 1:
            raise ValueError(f"event {event.number} follows event {self._last_number}")
        if (event.kind in ("send", "receive")) != (event.message is not None):
            raise ValueError(f'kind "{event.kind}" and message {event.message} do not go together')
        if event.message is not None and FAULTS in (event.place, event.peer):
            raise ValueError(f"{FAULTS} neither send nor receive")
        self._check_clocks(event)
        self._last_message = max(self._last_message, event.message or 0)
        self._append(event)

    def _check_clocks(self, event: TraceEvent) -> None:
        known = self._clocks.get(event.place)
        if known is not None:
            if event.vector[event.place] != known.vector[event.place] + 1 or not known.vector <= event.vector:
                raise ValueError(f"vector [{event.vector}] cannot follow [{known.vector}] at {event.place}")
            if event.lamport <= known.lamport.time:
                raise ValueError(f"lamport {event.lamport} cannot follow {known.lamport.time} at {event.place}")
        if event.vector[event.place] < 1:
            raise ValueError(f"vector [{event.vector}] does not count the event itself, at {event.place}")
        if event.message is None:
            return
        sent = self._sent.get(event.message)
        if event.kind == "send" and event.message <= self._last_message:
            raise ValueError(f"message {event.message} is sent after message {self._last_message}")
        if (
            event.kind == "receive"
            and sent is not None
            and not (sent.vector <= event.vector and sent.lamport < event.lamport)
        ):
            raise ValueError(f"the clocks do not count the sending of message {event.message}")


_Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a file."""

    number: _Positive
    time_s: float
    place: str
    kind: str
    text: str
    lamport: _Positive
    vector: dict[str, _Positive]
    message: _Positive | None
    peer: str


def is_noise(event: TraceEvent) -> bool:
    """Whether the event is a heartbeat or the like, or a frame of nothing but such: parts are joined by ", "."""
    return event.text != "" and all(part.startswith(NOISE) for part in event.text.lower().split(", "))


def repetitions(events: Iterable[TraceEvent]) -> set[int]:
    """Messages whose neighbours on the same way, before and after, say exactly the same.

    Such are the answers to heartbeats.  The first and the last of a series are no repetitions.
    """
    ways: dict[tuple[str, str], list[TraceEvent]] = {}
    for event in events:
        if event.kind == "send":
            ways.setdefault((event.place, event.peer), []).append(event)
    return {
        middle.message
        for way in ways.values()
        for first, middle, last in zip(way, way[1:], way[2:], strict=False)
        if middle.message is not None and first.text == middle.text == last.text
    }


def relevant(trace: Trace, around: TraceEvent, limit: int) -> list[TraceEvent]:
    """At most `limit` events that explain `around`, in the order of recording, `around` among them.

    First the last events of its causal past, each sending together with its receipts, so that
    a message without a receipt in the window had none in the run.  Up to a quarter of the window
    is for landmarks of the same stretch that are concurrent with it: faults, crashes, starts,
    changes of role.  Noise and repetitions are left out, `around` never.

    An event without a past of its own, such as the verdict of a check that runs at the end or
    one that was noted among the faults, stands for its moment: the window is then the last
    events recorded before it.
    """
    assert limit > 0, f"a window of {limit} events"
    events = [event for event in trace.events if not is_noise(event)]
    past = [event for event in events if trace.order(event, around) is Order.BEFORE]
    if not past or around.place == FAULTS:
        past = [event for event in events if event.number < around.number]
    repeated = repetitions(past) - {around.message}
    past = [event for event in past if event.message not in repeated]
    receipts: dict[int, list[TraceEvent]] = {}
    for event in events:
        if event.kind == "receive" and event.message is not None:
            receipts.setdefault(event.message, []).append(event)
    chosen = {around.number: around}

    def fill(room: int) -> None:
        for event in reversed([*past, around]):
            of_message = receipts.get(event.message or 0, []) if event.kind == "send" else []
            fresh = {one.number: one for one in [event, *of_message] if one.number not in chosen}
            if len(chosen) + len(fresh) > room:
                return
            chosen.update(fresh)

    fill(limit - limit // 4)
    first = min(chosen)
    for event in reversed(events):
        if first < event.number < around.number and event.kind in LANDMARKS:
            if len(chosen) >= limit:
                break
            chosen.setdefault(event.number, event)
    fill(limit)  # where there are few landmarks, more of the past
    return [chosen[number] for number in sorted(chosen)]
