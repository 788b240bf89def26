"""The cluster group's rules: what is decided, what is refused, and in which words."""

from __future__ import annotations

import pytest

from quorate.consensus.membership import NO_CONFIGURATION, Configuration
from quorate.services.cluster.addresses import normalise
from quorate.services.cluster.commands import (
    Add,
    Bind,
    Form,
    Member,
    Moved,
    Promote,
    Reached,
    Recover,
    Refill,
    Remove,
    Swap,
    decode,
    encode,
)
from quorate.services.cluster.store import MAX_MEMBERS, ClusterStore
from quorate.services.interface import Store
from tests.services.cluster.stories import GROUPS, Story, address, folder, voter


def configuration(version: int, voters: list[int], learners: list[int] | None = None) -> Configuration:
    return Configuration.make(version, {n: folder(n) for n in voters}, {n: folder(n) for n in learners or []})


def test_it_is_a_store() -> None:
    store: Store = ClusterStore()
    assert store.summary() == {"version": 0, "voters": 0, "learners": 0, "leaving": 0, "groups_behind": 0}


# --- forming ---------------------------------------------------------------------------------


def test_forming() -> None:
    story = Story(3)
    assert story.store.goal() == configuration(1, [1, 2, 3])
    assert story.store.under_way() == {} and story.store.groups == GROUPS
    assert story.tell(Form("c" * 32, [voter(9)], [7])).problem is None, "told twice, it is not made twice"
    assert story.store.goal() == configuration(1, [1, 2, 3])
    assert story.refused(Form("d" * 32, [voter(1)], [0])) == f"this is cluster {'c' * 32}, not {'d' * 32}"


def test_nothing_is_decided_before_it_is_formed() -> None:
    story = Story(0)
    assert story.store.goal() == NO_CONFIGURATION and story.store.next_step() is None
    for command in (Add(0, 4, address(4)), Remove(0, 1), Reached(0, 1), Bind(1, "x", address(1), "")):
        assert story.refused(command) == "the cluster is not formed yet: its first members have not all met"


@pytest.mark.parametrize(
    ("members", "groups", "problem"),
    [
        ([], [0], "one of them must vote"),
        ([voter(n) for n in range(1, MAX_MEMBERS + 2)], [0], "from 1 to 9 members"),
        ([voter(1)], [], "at least one group"),
        ([voter(1), voter(1)], [0], "two members have the same id"),
        ([voter(1), Member(2, "10.0.0.1:03181", "", "b", True)], [0], "two members have the same address"),
        ([voter(1), Member(2, address(2), "", folder(1), True)], [0], "two members have the same incarnation"),
        ([voter(1), Member(2, address(2), "", "", True)], [0], "nodes 2 have no incarnation"),
        ([voter(1), Member(2, "nowhere", "", "b", True)], [0], "'nowhere' is not \"host:port\""),
        ([Member(-1, address(2), "", "b", True)], [0], "not -1"),
        ([Member(1, address(1), "", "a", False)], [0], "one of them must vote"),
    ],
)
def test_what_cannot_be_formed(members: list[Member], groups: list[int], problem: str) -> None:
    assert problem in Story(0).refused(Form("c" * 32, members, groups))


# --- one change ------------------------------------------------------------------------------


def test_add_come_and_promote() -> None:
    story = Story(3)
    assert story.do(Add(1, 4, address(4))) == 2
    assert story.store.goal() == configuration(2, [1, 2, 3]), "nobody knows its incarnation yet"
    assert story.come(4) == 3, "a learner may come while the groups are behind"
    assert story.store.goal() == configuration(3, [1, 2, 3], [4])
    assert story.store.under_way() == {0: 1, 1: 1}
    story.settle()
    assert story.store.next_step() is None, "whoever is only added is promoted by people"
    assert story.do(Promote(3, 4)) == 4
    assert story.store.goal() == configuration(4, [1, 2, 3, 4])


def test_remove() -> None:
    story = Story(3)
    story.do(Remove(1, 3))
    assert story.store.goal() == configuration(2, [1, 2])
    assert list(story.store.leaving) == [3] and story.store.why_removed(folder(3)) is None, "it is still needed"
    story.do(Reached(0, 2))
    assert story.store.under_way() == {1: 1} and list(story.store.leaving) == [3]
    story.do(Reached(1, 2))
    assert not story.store.leaving
    assert "node 3 was removed from the cluster" in str(story.store.why_removed(folder(3)))
    story.do(Add(0, 3, address(3)))
    assert "was removed" in story.refused(Bind(3, folder(3), address(3), ""))
    story.come(3, number=2)


def test_a_folder_of_an_earlier_membership_is_told_the_truth() -> None:
    story = Story(3)
    story.do(Remove(0, 3))
    story.settle()
    assert str(story.store.why_removed(folder(3))) == (
        "node 3 was removed from the cluster; to come back it needs an empty folder and to be added again"
    )
    story.do(Add(0, 3, address(3)))
    assert str(story.store.why_removed(folder(3))) == (
        "this data folder is of an earlier membership of node 3, which was removed from the cluster and added again: "
        "it needs an empty folder"
    )
    story.come(3, number=2)
    assert "the node has come with another one since" in str(story.store.why_removed(folder(3)))
    assert story.store.why_removed(folder(3, 2)) is None


def test_the_former_folder_of_a_learner_is_refused_for_ever() -> None:
    story = Story(3)
    story.do(Add(0, 4, address(4)))
    story.come(4)
    assert not story.store.removed, "it came for the first time"
    assert not story.tell(Bind(4, folder(4), address(4), voter(4).admin)).changed
    story.come(4, number=2)
    assert story.store.removed == {folder(4): 4}
    assert story.store.why_removed(folder(4)) == (
        "this data folder of node 4 was given up: the node has come with another one since"
    )
    assert "it needs an empty one" in story.refused(Bind(4, folder(4), address(4), ""))
    assert story.store.why_removed(folder(4, 2)) is None
    story.settle()
    story.do(Promote(0, 4))
    assert story.store.goal().voters[4] == folder(4, 2)


def test_a_replacement_goes_on_by_itself() -> None:
    story = Story(3)
    story.do(Add(0, 4, address(4), replaces=3))
    story.settle()
    assert story.store.next_step() is None
    story.come(4)
    assert story.store.next_step() is None, "one change after another"
    story.settle()
    assert story.step() == Swap(3, 4)
    assert story.store.goal() == configuration(4, [1, 2, 4]) and story.store.next_step() is None
    assert story.store.members[4].replaces == -1 and not story.store.leaving


def test_the_only_voter_can_be_replaced() -> None:
    story = Story(1)
    story.do(Add(0, 2, address(2), replaces=1))
    story.come(2)
    story.settle()
    story.step()
    assert story.store.goal() == configuration(4, [2])


def test_a_wiped_voter_is_refilled_and_votes_again() -> None:
    story = Story(3)
    story.do(Refill(2, folder(2, 2), address(2), ""))
    assert story.store.goal() == Configuration.make(2, {1: folder(1), 3: folder(3)}, {2: folder(2, 2)})
    assert "given up" in str(story.store.why_removed(folder(2)))
    assert not story.tell(Moved(2, folder(2, 2), address(2), "")).changed
    assert story.store.next_step() is None
    story.settle()
    assert story.step() == Promote(2, 2)
    assert story.store.goal() == Configuration.make(3, {1: folder(1), 2: folder(2, 2), 3: folder(3)})


def test_wiped_once_more_while_it_is_refilled() -> None:
    story = Story(3)
    story.do(Refill(2, folder(2, 2), address(2), ""))
    story.come(2, number=3)
    story.settle()
    story.do(Promote(0, 2))
    # The groups wait for a folder that is lost: nothing would ever end that.
    story.do(Refill(2, folder(2, 4), address(2), ""))
    assert story.store.goal() == Configuration.make(5, {1: folder(1), 3: folder(3)}, {2: folder(2, 4)})
    story.settle()
    assert story.step() == Promote(5, 2)


def test_lowest_id_first() -> None:
    story = Story(5)
    story.do(Add(0, 6, address(6), replaces=1))
    story.come(6)
    story.settle()
    story.do(Refill(2, folder(2, 2), address(2), ""))
    story.settle()
    assert [story.step(), story.step()] == [Promote(4, 2), Swap(5, 6)]


def test_moved_keeps_the_version() -> None:
    story = Story(3)
    assert story.do(Moved(2, folder(2), "node-2:3181", "node-2:4181")) == 1
    member = story.store.member(2)
    assert member is not None and (member.address, member.admin) == ("node-2:3181", "node-2:4181")
    assert story.store.under_way() == {}
    assert not story.tell(Moved(2, folder(2), "node-2:3181", "node-2:4181")).changed
    assert "another data folder" in story.refused(Moved(2, folder(2, 2), address(2), ""))
    assert "is the address of node 1 already" in story.refused(Moved(2, folder(2), address(1), ""))


# --- taken back ------------------------------------------------------------------------------


def test_a_promotion_is_taken_back() -> None:
    story = Story(3)
    story.do(Add(0, 4, address(4)))
    story.come(4)
    story.settle()
    story.do(Promote(0, 4))
    story.do(Reached(0, story.store.version))
    assert story.store.promotion_is_under_way(4) and not story.store.promotion_is_under_way(3)
    assert "another change is under way" in story.refused(Remove(0, 3))
    story.do(Remove(0, 4))
    assert story.store.goal() == configuration(5, [1, 2, 3])


def test_a_learner_is_taken_back_while_groups_are_behind() -> None:
    story = Story(3)
    story.do(Add(0, 4, address(4)))
    story.do(Remove(2, 4))
    assert story.store.goal() == configuration(3, [1, 2, 3]) and not story.store.leaving


@pytest.mark.parametrize("voters", [1, 3])
def test_a_swap_is_taken_back_and_the_old_one_stays(voters: int) -> None:
    story = Story(voters)
    story.do(Add(0, 4, address(4), replaces=1))
    story.come(4)
    story.settle()
    story.do(Swap(0, 4))
    story.do(Reached(0, story.store.version))
    assert 1 not in story.store.goal().voters
    story.do(Remove(0, 4))
    assert story.store.goal() == configuration(5, list(range(1, voters + 1)))
    assert list(story.store.leaving) == [4] and folder(1) not in story.store.removed
    story.settle()
    assert not story.store.leaving and story.store.why_removed(folder(1)) is None


@pytest.mark.parametrize("voters", [1, 3])
def test_a_swap_begins_anew_where_the_new_node_loses_its_folder_in_the_middle(voters: int) -> None:
    story = Story(voters)
    story.do(Add(0, 4, address(4), replaces=1))
    story.come(4)
    story.settle()
    story.do(Swap(0, 4))
    story.do(Refill(4, folder(4, 2), address(4), "10.0.0.4:4181"))
    # The old one may be needed to decide anything.
    assert set(story.store.goal().voters) == set(range(1, voters + 1)) and not story.store.leaving
    assert story.store.goal().learners == {4: folder(4, 2)} and story.store.why_removed(folder(1)) is None
    story.settle()
    step = story.store.next_step()
    assert step == Swap(story.store.version, 4)
    story.do(step)
    story.settle()
    assert set(story.store.goal().voters) == {*range(2, voters + 1), 4}


# --- refused ---------------------------------------------------------------------------------


def test_what_cannot_be_added() -> None:
    story = Story(3)
    assert story.refused(Add(0, 3, address(7))) == "node 3 is a member already, at 10.0.0.3:3181"
    assert story.refused(Add(0, 4, "10.0.0.3:03181")) == "10.0.0.3:03181 is the address of node 3 already"
    assert "can connect to" in story.refused(Add(0, 4, "0.0.0.0:3181"))
    assert 'is not "host:port"' in story.refused(Add(0, 4, "here"))
    assert "from 0 to 999999999, not -4" in story.refused(Add(0, -4, address(4)))
    assert story.refused(Add(0, 4, address(4), replaces=8)) == "there is no node 8; the members are 1, 2, 3"
    assert "changed meanwhile" in story.refused(Add(7, 4, address(4)))
    story.do(Remove(0, 3))
    assert "node 3 is still leaving: group 0 is at version 1" in story.refused(Add(0, 3, address(3)))
    assert "is the address of node 3" in story.refused(Add(0, 4, address(3)))
    assert story.refused(Add(0, 4, address(4))) == (
        "another change is under way: group 0 is at version 1, group 1 is at version 1, "
        "and the members are at version 2"
    )


def test_there_are_not_too_many_members() -> None:
    story = Story(MAX_MEMBERS)
    assert "there may be at most 9" in story.refused(Add(0, 10, address(10)))
    story.do(Add(0, 10, address(10), replaces=9))
    story.settle()
    assert "there may be at most 9" in story.refused(Add(0, 11, address(11)))
    assert "node 9 is being replaced already" in story.refused(Add(0, 11, address(11), replaces=9))
    assert "does not vote" in story.refused(Add(0, 11, address(11), replaces=10))


def test_what_cannot_be_promoted_or_swapped() -> None:
    story = Story(3)
    story.do(Add(0, 4, address(4)))
    story.settle()
    assert story.refused(Promote(0, 7)) == "there is no node 7; the members are 1, 2, 3, 4"
    assert story.refused(Promote(0, 1)) == "node 1 votes already"
    assert story.refused(Promote(0, 4)) == "node 4 has not come yet: start it at 10.0.0.4:3181 first"
    story.come(4)
    assert "another change is under way" in story.refused(Promote(0, 4))
    story.settle()
    assert "changed meanwhile: they are at version 3, not 2" in story.refused(Promote(2, 4))
    assert story.refused(Swap(0, 4)) == "node 4 replaces nobody: promote it"
    story.do(Add(0, 5, address(5), replaces=1))
    story.come(5)
    assert "another change is under way" in story.refused(Swap(0, 5)), "and node 1 is still there"
    assert story.store.goal() == configuration(5, [1, 2, 3], [4, 5])


def test_what_cannot_be_removed() -> None:
    story = Story(2)
    assert story.refused(Remove(0, 7)) == "there is no node 7; the members are 1, 2"
    story.do(Remove(0, 2))
    assert "node 2 is leaving already" in story.refused(Remove(0, 2))
    story.settle()
    assert "node 1 is the last voter" in story.refused(Remove(0, 1))


def test_what_cannot_be_refilled_or_bound() -> None:
    story = Story(3)
    assert "there is no node 7" in story.refused(Refill(7, "x", address(7), ""))
    assert not story.tell(Refill(2, folder(2), address(2), "")).changed
    assert story.refused(Bind(2, folder(2, 2), address(2), "")) == (
        "node 2 votes: with another folder it must be refilled first"
    )
    assert story.refused(Refill(2, folder(1), address(2), "")) == "node 2 came with the data folder of node 1"
    assert "without an incarnation" in story.refused(Refill(2, "", address(2), ""))
    story.do(Refill(2, folder(2, 2), address(2), ""))
    assert "another change is under way" in story.refused(Refill(3, folder(3, 2), address(3), ""))
    assert "was removed" in story.refused(Bind(2, folder(2), address(2), ""))
    assert "does not vote" in story.refused(Refill(2, folder(2, 3), address(2), ""))
    only = Story(1)
    assert "node 1 is the last voter" in only.refused(Refill(1, folder(1, 2), address(1), ""))


def test_what_no_group_can_have_reached() -> None:
    story = Story(3)
    assert story.refused(Reached(7, 1)) == "there is no group 7; there are 0, 1"
    assert story.refused(Reached(0, 2)) == "group 0 cannot have reached version 2 of 1"
    story.do(Remove(0, 3))
    story.do(Reached(0, 2))
    assert not story.tell(Reached(0, 1)).changed, "a group does not go back"


def test_who_replaces_a_node_that_was_removed_by_hand_stays_a_learner() -> None:
    """Otherwise it would take the place of whoever gets that id next."""
    story = Story(3)
    story.do(Add(0, 4, address(4), replaces=3))
    story.settle()
    story.do(Remove(0, 3))
    story.settle()
    story.come(4)
    story.settle()
    assert story.store.next_step() is None
    story.do(Add(0, 3, address(3)))
    story.settle()
    assert story.store.next_step() is None


# --- recovery --------------------------------------------------------------------------------


def test_recovery() -> None:
    story = Story(3)
    story.do(Remove(0, 3))
    survivor = Member(1, address(1), "", folder(1, 2), voter=False)
    assert "needs a new id" in story.refused(Recover("c" * 32, survivor, GROUPS))
    stale = Member(1, address(1), "", folder(3), voter=True)
    assert "was removed" in story.refused(Recover("d" * 32, stale, GROUPS))
    assert story.do(Recover("d" * 32, survivor, [0, 1, 2])) == 3
    store = story.store
    assert store.goal() == Configuration.make(3, {1: folder(1, 2)}) and store.cluster_id == "d" * 32
    assert store.under_way() == {} and store.groups == [0, 1, 2] and not store.leaving
    assert store.removed == {folder(1): 1, folder(2): 2, folder(3): 3}
    story.do(Add(0, 2, address(2)))
    assert "was removed" in story.refused(Bind(2, folder(2), address(2), ""))
    story.come(2, number=2)


# --- bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\xa3Foo", encode(Remove(0, 1))[:-1], encode(Remove(0, 1)) + b"x"])
def test_bytes_that_are_no_command(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a command to the cluster group"):
        decode(data)
    story = Story(3)
    before = story.store.content()
    first, second = story.store.apply([data, encode(Remove(0, 3))], 0)
    assert first.version == 1 and "not a command" in str(first.problem) and not first.changed
    assert second.version == 2 and story.store.content() != before


def test_slices_that_are_no_snapshot() -> None:
    story = Story(3)
    before = story.store.content()
    with pytest.raises(ValueError, match="none came"):
        story.store.restore().finish()
    loader = story.store.restore()
    loader.feed(before[:-1])
    with pytest.raises(ValueError, match="a second came"):
        loader.feed(before)
    with pytest.raises(ValueError, match="not the content"):
        loader.finish()
    other = story.store.restore()
    other.feed(before.replace(b"\x01", b"\x09", 1))
    with pytest.raises(ValueError, match="format 9"):
        other.finish()
    assert story.store.content() == before


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Node-1:03181", "node-1:3181"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0:0:0:0:0:0:1]:080", "[::1]:80"),
    ],
)
def test_addresses(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":1", "a:0", "a:65536", "a b:1", "1.2.3:1", "[::]:1", "0.0.0.0:1", "::1:80", "a:١"]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        normalise(text)
