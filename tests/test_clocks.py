"""The clocks against happens-before itself, as the transitive closure of a run's own steps."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quorate.clocks import LamportClock, LamportStamp, Order, VectorClock

PROCESSES = ("p", "q", "r", "s")


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a run: at a process, and where it is a receipt, the number of the event that sent the message."""

    process: str
    receives: int | None


@st.composite
def runs(draw: st.DrawFn) -> list[Step]:
    """Events in an order in which they may take place.  Any event sends; messages are lost, late, doubled, crossing."""
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 25))):
        sender = draw(st.none() | st.integers(0, number - 1)) if number else None
        steps.append(Step(draw(st.sampled_from(PROCESSES)), sender))
    return steps


def happens_before(steps: list[Step]) -> list[list[bool]]:
    """The definition: one's own last event and the message's sending, closed transitively (Warshall)."""
    size = len(steps)
    before = [[False] * size for _ in steps]
    for later, step in enumerate(steps):
        for earlier in range(later):
            before[earlier][later] = steps[earlier].process == step.process or step.receives == earlier
    for middle in range(size):
        for first in range(size):
            for last in range(size):
                if before[first][middle] and before[middle][last]:
                    before[first][last] = True
    return before


def lamport_stamps(steps: list[Step]) -> list[LamportStamp]:
    clocks = {process: LamportClock(process) for process in PROCESSES}
    stamps: list[LamportStamp] = []
    for step in steps:
        clock = clocks[step.process]
        stamps.append(clock.tick() if step.receives is None else clock.receive(stamps[step.receives]))
    return stamps


def vector_clocks(steps: list[Step]) -> list[VectorClock]:
    last = dict.fromkeys(PROCESSES, VectorClock())
    vectors: list[VectorClock] = []
    for step in steps:
        clock = last[step.process]
        if step.receives is not None:
            clock = clock.merge(vectors[step.receives])
        last[step.process] = clock.increment(step.process)
        vectors.append(last[step.process])
    return vectors


CROSSING = [Step("p", None), Step("q", None), Step("p", 1), Step("q", 0), Step("r", 2)]


@given(runs())
@example(CROSSING)
def test_a_lamport_clock_never_contradicts_happens_before(steps: list[Step]) -> None:
    before, stamps = happens_before(steps), lamport_stamps(steps)
    for a in range(len(steps)):
        for b in range(len(steps)):
            if before[a][b]:
                assert stamps[a].time < stamps[b].time
                assert stamps[a] < stamps[b]


@given(runs())
@example(CROSSING)
def test_lamport_stamps_order_all_events(steps: list[Step]) -> None:
    stamps = lamport_stamps(steps)
    assert len(set(stamps)) == len(steps)
    # One of the orders that → allows: each event comes after all that happened before it.
    before, order = happens_before(steps), sorted(range(len(steps)), key=lambda number: stamps[number])
    for place, event in enumerate(order):
        assert not any(before[event][earlier] for earlier in order[:place])


@given(runs())
@example(CROSSING)
def test_vector_order_is_exactly_happens_before(steps: list[Step]) -> None:
    before, vectors = happens_before(steps), vector_clocks(steps)
    for a in range(len(steps)):
        for b in range(len(steps)):
            if a == b:
                expected = Order.EQUAL
            elif before[a][b]:
                expected = Order.BEFORE
            else:
                expected = Order.AFTER if before[b][a] else Order.CONCURRENT
            assert vectors[a].compare(vectors[b]) is expected


@given(runs())
@example(CROSSING)
def test_a_vector_counts_the_past_and_one_number_of_it_tells_the_order(steps: list[Step]) -> None:
    before, vectors = happens_before(steps), vector_clocks(steps)
    for b, vector in enumerate(vectors):
        for process in PROCESSES:
            past = [a for a in range(len(steps)) if (a == b or before[a][b]) and steps[a].process == process]
            assert vector[process] == len(past)
        for a in range(len(steps)):
            own = steps[a].process
            assert (a != b and vectors[a][own] <= vector[own]) == before[a][b]


def test_lamport_numbers_alone_cannot_tell_concurrency() -> None:
    """The run of the essay's warning: 1 < 2, and still the events are concurrent."""
    steps = [Step("p", None), Step("q", None), Step("q", None)]
    assert lamport_stamps(steps)[0].time < lamport_stamps(steps)[2].time
    assert vector_clocks(steps)[0].compare(vector_clocks(steps)[2]) is Order.CONCURRENT


def test_a_receipt_goes_past_the_sender_or_just_ahead() -> None:
    clock = LamportClock("q", 10)
    assert clock.receive(LamportStamp(3, "p")) == LamportStamp(11, "q")
    assert clock.receive(LamportStamp(40, "p")) == LamportStamp(41, "q")
    assert clock.tick() == LamportStamp(42, "q")


counts = st.dictionaries(st.sampled_from(PROCESSES), st.integers(0, 3))
MIRROR = {Order.BEFORE: Order.AFTER, Order.AFTER: Order.BEFORE}


@given(counts, counts, counts)
def test_vector_clocks_are_a_lattice(first: dict[str, int], second: dict[str, int], third: dict[str, int]) -> None:
    a, b, c = VectorClock(first), VectorClock(second), VectorClock(third)
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
    assert a.compare(a.merge(b)) in (Order.BEFORE, Order.EQUAL)
    if b.compare(c) in (Order.BEFORE, Order.EQUAL) and a.compare(c) in (Order.BEFORE, Order.EQUAL):
        assert a.merge(b).compare(c) in (Order.BEFORE, Order.EQUAL)
    assert b.compare(a) is MIRROR.get(a.compare(b), a.compare(b))
    assert (a.compare(b) is Order.EQUAL) == (a == b)


@given(counts)
def test_a_vector_clock_is_a_value(numbers: dict[str, int]) -> None:
    clock = VectorClock(numbers)
    given_first = clock.counts()
    clock.increment("p")
    clock.merge(VectorClock({"p": 9}))
    numbers["p"] = 9
    clock.counts()["p"] = 9
    assert clock.counts() == given_first
    assert VectorClock({**given_first, "other": 0}) == clock
    assert len({clock, VectorClock(given_first)}) == 1


def test_a_vector_clock_shows_its_numbers_in_the_order_of_names() -> None:
    clock = VectorClock({"q": 2, "p": 1, "r": 0})
    assert (str(clock), repr(clock)) == ("p:1 q:2", "VectorClock({'p': 1, 'q': 2})")
    assert clock != "p:1 q:2"


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="of p is -1, below 0"):
        VectorClock({"p": -1})
