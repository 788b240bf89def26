"""Notes between doors, the log limiter and the counters: small pure parts of the door."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.services.zookeeper.counters import Counters
from quorate.services.zookeeper.log_limit import LogLimiter
from quorate.services.zookeeper.touches import Confirmed, Touched, Touches, decode, encode_confirmed, encode_touched

SESSIONS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)


@given(st.integers(0, 2**64 - 1), SESSIONS)
def test_notes_survive_the_wire(number: int, sessions: list[int]) -> None:
    touched = decode(encode_touched(number, sessions))
    assert isinstance(touched, Touched)
    assert tuple(touched) == (number, tuple(sessions))
    confirmed = decode(encode_confirmed(number, sessions))
    assert isinstance(confirmed, Confirmed)
    assert tuple(confirmed) == (number, tuple(sessions))


@given(st.binary(max_size=40))
def test_other_bytes_are_decoded_or_refused_by_value_error(note: bytes) -> None:
    try:
        read = decode(note)
    except ValueError:
        return
    assert note in (encode_touched(*read), encode_confirmed(*read))


def test_a_ping_waits_for_the_confirmation_of_a_note_sent_after_it() -> None:
    touches = Touches()
    touches.heard[7] = None
    first = touches.note()
    assert first is not None
    touches.ping(7)
    assert touches.urgent
    assert touches.confirm(Confirmed((first[0], ()))) == []
    second = touches.note()
    assert second is not None
    assert not touches.urgent
    assert touches.confirm(Confirmed((first[0], ()))) == []
    assert touches.confirm(Confirmed((second[0], ()))) == [7]
    assert touches.confirm(Confirmed((second[0], ()))) == []


def test_a_ping_that_is_not_confirmed_goes_into_the_next_note_too() -> None:
    touches = Touches()
    touches.ping(7)
    first = touches.note()
    assert first is not None
    assert touches.confirm(Confirmed((first[0], (7,)))) == []
    second = touches.note()
    assert second is not None
    assert decode(second[1]) == (second[0], (7,))
    assert touches.confirm(Confirmed((second[0], ()))) == [7]


def test_nothing_heard_is_no_note() -> None:
    touches = Touches()
    assert touches.note() is None
    touches.heard[7] = None
    assert touches.has_any()
    assert touches.note() is not None
    assert touches.note() is None


def test_the_first_lines_of_an_interval_are_written_and_the_rest_counted() -> None:
    limiter = LogLimiter(interval_ms=1_000, lines=2)
    assert [limiter.allow("a", 0) for _ in range(5)] == [0, 0, None, None, None]
    assert limiter.allow("b", 10) == 0
    assert limiter.allow("a", 999) is None
    assert limiter.allow("a", 1_000) == 4
    assert limiter.allow("a", 1_001) == 0


def test_latency_is_that_of_the_command_that_was_noted() -> None:
    counters = Counters()
    counters.submitted(3, now_ms=100)
    counters.submitted(2, now_ms=150)
    counters.answered(2, now_ms=160)
    assert counters.latency_samples == 0
    counters.answered(1, now_ms=170)
    assert (counters.latency_samples, counters.latency_max_ms) == (1, 70)
    counters.answered(2, now_ms=180)
    counters.submitted(1, now_ms=200)
    counters.answered(1, now_ms=210)
    assert (counters.latency_min_ms, counters.latency_max_ms, counters.latency_average_ms()) == (10, 70, 40)


@pytest.mark.parametrize("count", [0, 1])
def test_no_sample_is_no_latency(count: int) -> None:
    counters = Counters()
    counters.submitted(count, now_ms=0)
    assert counters.latency_average_ms() == 0
