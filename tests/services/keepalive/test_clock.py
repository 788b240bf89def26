"""The clock against a plain model, and the promises of its docstring one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.services.keepalive.clock import KeepAliveClock


def test_an_id_is_due_after_its_timeout_and_named_once() -> None:
    clock = KeepAliveClock()
    clock.add(7, 1_000, now_ms=50)
    assert clock.due(1_049) == []
    assert clock.due(1_050) == [7]
    assert clock.due(9_999) == []


def test_a_touch_gives_the_whole_timeout_again() -> None:
    clock = KeepAliveClock()
    clock.add(7, 1_000, now_ms=0)
    assert clock.touch(7, 900)
    assert clock.due(1_899) == []
    assert clock.due(1_900) == [7]


def test_an_id_that_was_named_cannot_be_touched() -> None:
    clock = KeepAliveClock()
    clock.add(7, 1_000, now_ms=0)
    assert clock.due(1_000) == [7]
    assert clock.is_ending(7)
    assert not clock.touch(7, 1_001)


def test_unknown_and_removed_ids_cannot_be_touched() -> None:
    clock = KeepAliveClock()
    clock.add(7, 1_000, now_ms=0)
    clock.remove(7)
    assert not clock.touch(7, 1)
    assert not clock.touch(8, 1)
    assert clock.due(5_000) == []
    assert len(clock) == 0


def test_an_expiry_that_came_to_nothing_is_named_again_later() -> None:
    clock = KeepAliveClock()
    clock.add(7, 1_000, now_ms=0)
    assert clock.due(1_000) == [7]
    clock.propose_again(7, 1_500)
    assert not clock.touch(7, 1_200)
    assert clock.due(1_499) == []
    assert clock.due(1_500) == [7]


def test_an_id_taken_over_before_its_expiry_was_applied_lives_on() -> None:
    clock = KeepAliveClock()
    clock.add(7, 1_000, now_ms=0)
    assert clock.due(1_000) == [7]
    clock.add(7, 1_000, now_ms=1_100)
    assert clock.touch(7, 1_200)
    clock.propose_again(7, 1_300)
    assert clock.due(2_199) == []
    assert clock.due(2_200) == [7]


def test_a_new_leader_gives_every_id_its_timeout_and_the_grace() -> None:
    clock = KeepAliveClock()
    clock.add(1, 100, now_ms=0)
    clock.start([(2, 1_000), (3, 500)], now_ms=10_000, grace_ms=400)
    assert clock.due(10_899) == []
    assert clock.due(10_900) == [3]
    assert clock.due(11_400) == [2]
    assert len(clock) == 2


def test_an_id_touched_in_a_time_that_is_excused_is_not_due_before_its_timeout() -> None:
    clock = KeepAliveClock()
    clock.add(7, 1_000, now_ms=0)
    assert clock.touch(7, 900)
    clock.excuse(900)
    assert clock.touch(7, 950)
    assert clock.due(1_949) == []
    assert clock.due(2_800) == [7]


def test_what_remains_is_until_it_is_due() -> None:
    clock = KeepAliveClock()
    clock.add(7, 1_000, now_ms=0)
    assert clock.remaining_ms(7, 300) == 700
    clock.excuse(200)
    assert clock.remaining_ms(7, 500) == 700
    assert clock.remaining_ms(8, 500) is None
    assert clock.due(1_200) == [7]
    assert clock.remaining_ms(7, 1_200) == 0
    clock.remove(7)
    assert clock.remaining_ms(7, 1_200) is None


IDS = st.integers(1, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), IDS, st.integers(1, 50)),
        st.tuples(st.just("touch"), IDS, st.just(0)),
        st.tuples(st.just("remove"), IDS, st.just(0)),
        st.tuples(st.just("again"), IDS, st.integers(0, 40)),
        st.tuples(st.just("wait"), st.just(0), st.integers(0, 30)),
        st.tuples(st.just("stand still"), st.just(0), st.integers(1, 30)),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=300)
def test_it_names_exactly_what_a_plain_table_of_deadlines_names(steps: list[tuple[str, int, int]]) -> None:
    clock = KeepAliveClock()
    now_ms = 0
    timeout: dict[int, int] = {}
    deadline: dict[int, int] = {}
    again: dict[int, int] = {}
    for step, id_, number in steps:
        if step == "add":
            clock.add(id_, number, now_ms)
            timeout[id_], deadline[id_] = number, now_ms + number
            again.pop(id_, None)
        elif step == "touch":
            assert clock.touch(id_, now_ms) == (id_ in deadline)
            if id_ in deadline:
                deadline[id_] = now_ms + timeout[id_]
        elif step == "remove":
            clock.remove(id_)
            for table in (timeout, deadline, again):
                table.pop(id_, None)
        elif step == "again":
            if id_ in timeout and id_ not in deadline:
                again[id_] = now_ms + number
            clock.propose_again(id_, now_ms + number)
        elif step == "stand still":
            now_ms += number
            clock.excuse(number)
            for table in (deadline, again):
                for key in table:
                    table[key] += number
        else:
            now_ms += number
            due = {key for table in (deadline, again) for key, at_ms in table.items() if at_ms <= now_ms}
            named = clock.due(now_ms)
            assert sorted(named) == sorted(due)
            for key in due:
                deadline.pop(key, None)
                again.pop(key, None)
        assert len(clock) == len(timeout)
