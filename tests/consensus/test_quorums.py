from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.quorums import Joint, Majority, Nobody

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
