from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.quorums import Majority

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
