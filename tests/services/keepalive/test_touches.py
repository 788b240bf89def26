"""Notes between doors: what they say of whom a node heard from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quorate.services.keepalive.touches import Confirmed, Touched, Touches, decode, encode_confirmed, encode_touched

IDS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)


@given(st.integers(0, 2**64 - 1), IDS)
def test_notes_survive_the_wire(number: int, ids: list[int]) -> None:
    touched = decode(encode_touched(number, ids))
    assert isinstance(touched, Touched)
    assert tuple(touched) == (number, tuple(ids))
    confirmed = decode(encode_confirmed(number, ids))
    assert isinstance(confirmed, Confirmed)
    assert tuple(confirmed) == (number, tuple(ids))


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


class CountedId(int):
    """Counts how often one is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        CountedId.compared += 1
        return int.__eq__(self, other) is True

    __hash__ = int.__hash__


def test_a_confirmation_that_refuses_many_costs_a_step_for_each() -> None:
    """10,000 pings that a new leader's clock did not take stopped a node for 0.4 s."""
    touches = Touches()
    ids = [7919 * number for number in range(2_000)]
    for id_ in ids:
        touches.ping(id_)
    note = touches.note()
    assert note is not None
    CountedId.compared = 0
    assert touches.confirm(Confirmed((note[0], tuple(map(CountedId, ids[:-1]))))) == ids[-1:]
    assert CountedId.compared < 10 * len(ids)


def test_nothing_heard_is_no_note() -> None:
    touches = Touches()
    assert touches.note() is None
    touches.heard[7] = None
    assert touches.has_any()
    assert touches.note() is not None
    assert touches.note() is None
