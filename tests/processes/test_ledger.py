"""The ledger finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.processes.ledger import Attempt, CreateHistory, Found, SetHistory

A, B, C = Attempt(1, 1, 11), Attempt(2, 2, 12), Attempt(3, 3, 13)
LOST = Attempt(2)


def problems(attempts: list[Attempt], found: Found) -> list[str]:
    return list(SetHistory("/x", attempts).problems(found))


@pytest.mark.parametrize(
    ("attempts", "found"),
    [
        ([], Found(0, 0, 5)),
        ([A, B, C], Found(3, 3, 13)),
        ([A, LOST], Found(1, 1, 11)),
        ([A, LOST], Found(2, 2, 12)),
        ([A, LOST, Attempt(3, 2, 12)], Found(3, 2, 12)),
        ([A, LOST, Attempt(3, 3, 13)], Found(3, 3, 13)),
        ([A, LOST, Attempt(3)], Found(3, 2, 12)),
    ],
)
def test_a_true_story_is_believed(attempts: list[Attempt], found: Found) -> None:
    assert problems(attempts, found) == []


@pytest.mark.parametrize(
    ("attempts", "found", "complaint"),
    [
        ([A, B], Found(1, 1, 11), "is lost"),
        ([A, LOST, C], Found(2, 4, 14), "is lost"),  # an unknown set that came about after a later one
        ([A, B], Found(2, 3, 13), "found is version 3"),  # a set that was done twice
        ([A, LOST], Found(2, 3, 12), "found is version 3"),
        ([A], Found(2, 2, 12), "nobody made"),
        ([A, Attempt(2, 3, 12)], Found(2, 3, 12), "acknowledged as version 3"),
        ([A, Attempt(2, 2, 11)], Found(2, 2, 11), "zxid"),
    ],
)
def test_a_contradiction_is_found(attempts: list[Attempt], found: Found, complaint: str) -> None:
    assert complaint in "".join(problems(attempts, found))


def test_creations_that_are_lost_doubled_or_invented_are_found() -> None:
    history = CreateHistory("/p", attempts=3, acknowledged={"/p/0": 1, "/p/1": 2})
    assert list(history.problems({"/p/0": 1, "/p/1": 2})) == []
    assert list(history.problems({"/p/0": 1, "/p/1": 2, "/p/2": 3})) == []
    assert "is lost" in "".join(history.problems({"/p/0": 1}))
    assert "more than one" in "".join(history.problems({"/p/0": 1, "/p/1": 2, "/p/2": 2}))
    assert "nobody wrote" in "".join(history.problems({"/p/0": 1, "/p/1": 2, "/p/2": 9}))
    assert "holds 3" in "".join(history.problems({"/p/0": 1, "/p/1": 3}))
