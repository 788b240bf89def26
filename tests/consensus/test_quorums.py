from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.quorums import Flexible, Joint, Majority, Nobody

MEMBERS = st.lists(st.integers(0, 20), min_size=1, max_size=7, unique=True).map(tuple)


@given(MEMBERS, st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_any_two_quorums_share_a_member(members: tuple[int, ...], one: set[int], other: set[int]) -> None:
    majority = Majority(members)
    if majority.is_quorum(one) and majority.is_quorum(other):
        assert one & other & set(members)


@given(MEMBERS, st.data())
def test_the_greatest_held_value_is_held_by_a_quorum_and_no_greater_one_is(
    members: tuple[int, ...], data: st.DataObject
) -> None:
    values = {member: data.draw(st.integers(0, 9)) for member in members}
    majority = Majority(members)
    greatest = majority.greatest_held(values)
    assert majority.is_quorum([member for member in members if values[member] >= greatest])
    assert not majority.is_quorum([member for member in members if values[member] > greatest])


def test_strangers_and_repeated_votes_do_not_count() -> None:
    majority = Majority((1, 2, 3))
    assert not majority.is_quorum([1, 1, 7, 8])
    assert majority.is_quorum([1, 3])
    assert Majority((1, 2, 3, 4)).is_quorum([1, 2, 3]) and not Majority((1, 2, 3, 4)).is_quorum([1, 2])


@pytest.mark.parametrize("members", [(), (1, 1)])
def test_nonsense_members_are_refused(members: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="distinct"):
        Majority(members)


@given(MEMBERS, MEMBERS, st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_a_joint_quorum_meets_every_quorum_of_either_set(
    old: tuple[int, ...], new: tuple[int, ...], one: set[int], other: set[int]
) -> None:
    joint = Joint(Majority(old), Majority(new))
    if joint.is_quorum(one):
        assert not Majority(old).is_quorum(other) or one & other & set(old)
        assert not Majority(new).is_quorum(other) or one & other & set(new)


@given(MEMBERS, MEMBERS, st.data())
def test_what_a_joint_quorum_holds_is_held_by_both_sets(
    old: tuple[int, ...], new: tuple[int, ...], data: st.DataObject
) -> None:
    joint = Joint(Majority(old), Majority(new))
    values = {member: data.draw(st.integers(0, 9)) for member in joint.members}
    greatest = joint.greatest_held(values)
    assert joint.is_quorum([member for member in joint.members if values[member] >= greatest])
    assert not joint.is_quorum([member for member in joint.members if values[member] > greatest])


def test_nobody_decides_nothing() -> None:
    assert not Nobody().is_quorum([]) and not Nobody().is_quorum([1, 2, 3])
    with pytest.raises(ValueError, match="nobody"):
        Nobody().greatest_held({1: 1})


@given(st.integers(1, 7), st.data())
def test_flexible_quorums_of_different_phases_share_a_member(total: int, data: st.DataObject) -> None:
    phase_1_size = data.draw(st.integers(1, total))
    flexible = Flexible(tuple(range(total)), phase_1_size, data.draw(st.integers(total + 1 - phase_1_size, total)))
    one, other = (data.draw(st.sets(st.integers(0, 9))) for _ in range(2))
    if flexible.phase_1.is_quorum(one) and flexible.phase_2.is_quorum(other):
        assert one & other & set(flexible.members)


@given(st.integers(1, 7), st.data())
def test_what_a_flexible_quorum_holds_is_held_by_as_many_as_it_asks_for(total: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, total))
    phase_2 = Flexible(tuple(range(total)), total, size).phase_2
    values = {member: data.draw(st.integers(0, 9)) for member in range(total)}
    greatest = phase_2.greatest_held(values)
    assert phase_2.is_quorum([member for member in values if values[member] >= greatest])
    assert not phase_2.is_quorum([member for member in values if values[member] > greatest])


@pytest.mark.parametrize(
    ("members", "phase_1_size", "phase_2_size", "reason"),
    [
        ((1, 2, 3, 4), 2, 2, "need not meet among 4 voters.*more than 4"),
        ((1, 2, 3), 1, 2, "need not meet"),
        ((1, 2, 3), 4, 1, "phase 1 of 4 nodes is impossible with 3 voters"),
        ((1, 2, 3), 3, 0, "phase 2 of 0 nodes is impossible"),
        ((1, 1), 2, 1, "distinct"),
        ((), 1, 1, "distinct"),
    ],
)
def test_impossible_flexible_quorums_are_refused_with_the_reason(
    members: tuple[int, ...], phase_1_size: int, phase_2_size: int, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Flexible(members, phase_1_size, phase_2_size)


def test_other_quorums_are_the_same_in_both_phases() -> None:
    for quorum in (Majority((1, 2, 3)), Joint(Majority((1,)), Majority((2,))), Nobody()):
        assert quorum.phase_1 is quorum.phase_2 is quorum
