"""Dry runs: what a change would do to the quorum, and what is refused for what it would cost."""

from __future__ import annotations

import pytest

from quorate.services.cluster.commands import Add, Promote, Remove, Swap
from quorate.services.cluster.plan import MAX_LAG, Change, Side, Transfer, Verdict, judge
from tests.services.cluster.stories import Story, address


def judged(
    story: Story, change: Change, *, down: tuple[int, ...] = (), lag: dict[int, int | None] | None = None
) -> Verdict:
    """Everybody is reachable who is not down, and caught up who is not in `lag`."""
    before = story.store.content()
    alive = {*story.store.members} - {*down}
    verdict = judge(story.store, change, alive, dict.fromkeys(alive, 0) | (lag or {}))
    assert story.store.content() == before, "a dry run changes nothing"
    assert verdict.refusal(forced=True) == verdict.problem
    assert verdict.refusal(forced=False) == (verdict.problem or verdict.danger)
    return verdict


def with_learner(voters: int) -> Story:
    story = Story(voters)
    story.do(Add(0, 9, address(9)))
    story.come(9)
    story.settle()
    return story


def test_adding_changes_no_quorum() -> None:
    verdict = judged(Story(3), Add(0, 4, address(4)))
    assert verdict.before == Side([1, 2, 3], [], 2, 1, [], 1)
    assert verdict.after == Side([1, 2, 3], [4], 2, 1, [], 1)
    assert verdict.problem is verdict.danger is None
    assert verdict.lines == [
        "node 4 at 10.0.0.4:3181 would get everything as a learner, and not vote until it is promoted",
        "before: voters 1, 2, 3; quorum 2 of 3; tolerates 1 failure",
        "after: voters 1, 2, 3; learners 4; quorum 2 of 3; tolerates 1 failure",
    ]


def test_what_the_store_refuses_is_a_problem_that_no_force_overcomes() -> None:
    verdict = judged(Story(3), Add(0, 3, address(3)))
    assert verdict.problem == "node 3 is a member already, at 10.0.0.3:3181"
    assert verdict.lines == [f"refused: {verdict.problem}"] and verdict.after == verdict.before


@pytest.mark.parametrize(("voters", "spare"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_promoting_who_has_caught_up(voters: int, spare: int) -> None:
    verdict = judged(with_learner(voters), Promote(0, 9))
    assert verdict.problem is verdict.danger is None
    assert verdict.after.voters == [*range(1, voters + 1), 9] and verdict.after.spare == spare
    noted = any("tolerate no more failures" in line for line in verdict.lines)
    assert noted is (voters in (1, 3))


def test_promoting_who_is_away_or_behind() -> None:
    story = with_learner(2)
    assert "node 9 cannot be reached: its promotion would wait" in str(judged(story, Promote(0, 9), down=(9,)).danger)
    for behind, words in ((MAX_LAG + 1, "1001 entries behind"), (None, "not known")):
        danger = judged(story, Promote(0, 9), lag={9: behind}).danger
        assert "has not caught up" in str(danger) and words in str(danger)
    assert judged(story, Promote(0, 9), lag={9: MAX_LAG}).danger is None


def test_promoting_who_is_away_can_take_the_quorum() -> None:
    verdict = judged(with_learner(3), Promote(0, 9), down=(3, 9))
    assert verdict.after == Side([1, 2, 3, 9], [], 3, 1, [3, 9], -1)
    assert "the quorum would be lost: of the voters 1, 2, 3, 9 only 1, 2 can be reached" in str(verdict.danger)


def test_removing_the_dead_costs_nothing() -> None:
    verdict = judged(Story(3), Remove(0, 3), down=(3,))
    assert verdict.problem is verdict.danger is None
    assert verdict.after == Side([1, 2], [], 2, 0, [], 0)


def test_removing_the_living_while_others_are_down() -> None:
    verdict = judged(Story(3), Remove(0, 2), down=(3,))
    assert verdict.after.spare == -1 and verdict.problem is None
    assert verdict.danger == (
        "the quorum would be lost: of the voters 1, 3 only 1 can be reached, and 2 are needed.  Nothing could be "
        "written, no session kept and no member changed until node 3 came back; this change itself could not be "
        "completed"
    )
    assert verdict.lines[-1] == f"DANGER: {verdict.danger}"
    assert "not reachable: 3" in verdict.lines[1]


def test_removing_the_last_that_may_fail() -> None:
    assert "no failure would be tolerated any more" in str(judged(Story(3), Remove(0, 3)).danger)
    for voters in (5, 4, 2):
        assert judged(Story(voters), Remove(0, 2)).danger is None
    assert "no failure would be tolerated any more" in str(judged(Story(5), Remove(0, 2), down=(5,)).danger)
    assert judged(Story(5), Remove(0, 2), down=(4, 5)).after.spare == -1


def test_nothing_is_decided_without_a_quorum() -> None:
    for change in (Remove(0, 3), Add(0, 4, address(4)), Transfer(1)):
        verdict = judged(Story(3), change, down=(2, 3))
        assert "nodes 2, 3 cannot be reached, and without 2 of 3 voters nothing can be decided" in str(verdict.problem)
        assert "quorate recover" in str(verdict.problem)


@pytest.mark.parametrize(("voters", "down"), [(1, ()), (3, ()), (3, (3,)), (3, (2,))])
def test_replacing_is_judged_to_its_end(voters: int, down: tuple[int, ...]) -> None:
    old = 3 if voters == 3 else 1
    verdict = judged(Story(voters), Add(0, 9, address(9), replaces=old), down=down)
    assert verdict.problem is verdict.danger is None
    assert verdict.after.voters == [node for node in range(1, voters + 1) if node != old] + [9]
    assert verdict.after.learners == [] and verdict.after.quorum == verdict.before.quorum
    assert verdict.lines[1] == f"once it has, it would vote, and node {old} would leave, in one change"


def test_taking_back() -> None:
    story = Story(1)
    story.do(Add(0, 9, address(9), replaces=1))
    story.come(9)
    story.settle()
    assert "a learner, would leave" in judged(story, Remove(0, 9), down=(9,)).lines[0]
    story.do(Swap(0, 9))
    verdict = judge(story.store, Remove(0, 9), {1, 9}, {})
    assert verdict.problem is verdict.danger is None and verdict.after.voters == [1]
    assert verdict.lines[:2] == [
        "node 9 would leave: its promotion, which is under way, is taken back",
        "node 1, which it was to replace, would stay a voter",
    ]


def test_transfer() -> None:
    story = with_learner(3)
    verdict = judged(story, Transfer(2))
    assert verdict.refusal(forced=False) is None and verdict.before == verdict.after
    assert verdict.lines[0] == "node 2 would lead; the members stay as they are"
    assert judged(story, Transfer(7)).problem == "there is no node 7; the members are 1, 2, 3, 9"
    assert judged(story, Transfer(9)).problem == "node 9 is a learner: only a voter can lead"
    assert judged(story, Transfer(3), down=(3,)).problem == "node 3 cannot be reached"
    assert "1001 entries behind" in str(judged(story, Transfer(3), lag={3: MAX_LAG + 1}).problem)
    assert "not known" in str(judged(story, Transfer(3), lag={3: None}).problem)
