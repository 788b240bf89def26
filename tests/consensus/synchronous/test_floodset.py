"""FloodSet under every schedule of crashes that a small group can have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product

import pytest

from quorate.consensus.synchronous.floodset import flood
from quorate.consensus.synchronous.late import one_late_message
from quorate.consensus.synchronous.rounds import Crash, Late

GROUPS = [(processes, faults) for processes in range(1, 5) for faults in range(min(processes, 2) + 1)]


def distinct_values(processes: int) -> dict[int, str]:
    """With these the set of values seen says whose words came through; other values can only hide differences."""
    return dict(zip(range(1, processes + 1), "abcd", strict=False))


def subsets(nodes: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(nodes, size) for size in range(most + 1))


def schedules(processes: int, faults: int, rounds: int) -> Iterator[tuple[Crash, ...]]:
    """Every way in which at most `faults` processes stop."""
    nodes = range(1, processes + 1)
    for stopping in subsets(nodes, faults):
        ways = [
            [
                Crash(node, round_, frozenset(reached))
                for round_ in range(1, rounds + 1)
                for reached in subsets([other for other in nodes if other != node], processes - 1)
            ]
            for node in stopping
        ]
        yield from product(*ways)


@pytest.mark.parametrize(("processes", "faults"), GROUPS)
def test_one_round_more_than_crashes_is_enough_for_every_schedule(processes: int, faults: int) -> None:
    values = distinct_values(processes)
    for crashes in schedules(processes, faults, faults + 1):
        outcome = flood(values, faults + 1, crashes)
        assert outcome.decisions.keys() == values.keys() - {crash.process for crash in crashes}
        assert len(set(outcome.seen.values())) <= 1, crashes
        assert outcome.agrees


@pytest.mark.parametrize(("processes", "faults"), GROUPS)
def test_where_all_begin_with_one_value_it_is_decided(processes: int, faults: int) -> None:
    for crashes in schedules(processes, faults, faults + 1):
        outcome = flood(dict.fromkeys(range(1, processes + 1), "v"), faults + 1, crashes)
        assert set(outcome.decisions.values()) <= {"v"}


def test_the_number_of_schedules_is_what_counting_says() -> None:
    # One of four stops in one of three rounds and reaches one of eight subsets: 24 ways each.
    assert len(set(schedules(4, 2, 3))) == 1 + 4 * 24 + 6 * 24 * 24


@pytest.mark.parametrize(("processes", "faults"), [(3, 1), (4, 1), (4, 2)])
def test_as_many_rounds_as_crashes_are_not_enough(processes: int, faults: int) -> None:
    """Each one that stops tells the next alone, so that what the first knew is one process ahead of the rest."""
    crashes = tuple(Crash(node, node, frozenset({node + 1})) for node in range(1, faults + 1))
    assert crashes in set(schedules(processes, faults, faults))
    outcome = flood(distinct_values(processes), faults, crashes)
    alive = range(faults + 1, processes + 1)
    assert outcome.decisions == {node: "a" if node == faults + 1 else "b" for node in alive}


@pytest.mark.parametrize("processes", [2, 3])
def test_as_many_rounds_as_crashes_are_enough_where_all_but_one_may_stop(processes: int) -> None:
    """The bound of f + 1 rounds holds for two processes more than f, and only for them."""
    for crashes in schedules(processes, processes - 1, processes - 1):
        assert flood(distinct_values(processes), processes - 1, crashes).agrees


# --- late messages ---------------------------------------------------------------------------


def test_one_late_message_breaks_agreement() -> None:
    in_time, late = one_late_message()
    assert in_time.decisions == {2: "a", 3: "a"}
    assert late.decisions == {2: "a", 3: "b"}
    # Process 3 hears of it all the same, after it has decided.
    assert late.seen[3] == in_time.seen[3] == {"a", "b", "c"}


def late_messages(processes: int, rounds: int) -> list[Late]:
    nodes = range(1, processes + 1)
    return [
        Late(sender, receiver, round_)
        for sender in nodes
        for receiver in nodes
        if sender != receiver
        for round_ in range(1, rounds + 1)
    ]


@pytest.mark.parametrize(("processes", "faults"), [(3, 1), (4, 1), (3, 2)])
def test_a_late_message_in_place_of_a_crash_does_no_harm(processes: int, faults: int) -> None:
    for late in late_messages(processes, faults + 1):
        for crashes in schedules(processes, faults - 1, faults + 1):
            assert flood(distinct_values(processes), faults + 1, crashes, [late]).agrees


def test_of_three_hundred_runs_with_a_late_message_beside_a_crash_four_go_wrong() -> None:
    """Process 1 stops in the first round with one other reached: the late message is that one, or the next."""
    runs = list(product(late_messages(3, 2), schedules(3, 1, 2)))
    broken = [(late, crashes) for late, crashes in runs if not flood(distinct_values(3), 2, crashes, [late]).agrees]
    only_2, only_3 = (Crash(1, 1, frozenset({2})),), (Crash(1, 1, frozenset({3})),)
    assert len(runs) == 300
    assert broken == [
        (Late(1, 2, 1), only_2),
        (Late(1, 3, 1), only_3),
        (Late(2, 3, 2), only_2),
        (Late(3, 2, 2), only_3),
    ]
