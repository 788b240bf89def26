"""Each step from one committed configuration to the next that must not be, and those that may."""

from __future__ import annotations

import pytest

from quorate.consensus.membership import Configuration
from quorate.simulation.configuration_history import ChangeCounts, ConfigurationHistory
from quorate.simulation.violation import Violation

FIRST = Configuration.make(1, {0: "a", 1: "b", 2: "c"})
WITH_LEARNER = Configuration.make(1, FIRST.voters, {3: "d"})
JOINT = Configuration.make(2, {0: "a", 1: "b", 3: "d"}, {}, FIRST.voters)
FINAL = Configuration.make(2, JOINT.voters)


def history(*committed: Configuration) -> ConfigurationHistory:
    found = ConfigurationHistory()
    found.begin(FIRST)
    for place, configuration in enumerate(committed):
        found.commit(10 + place, configuration, leader=2)
    return found


def test_a_replacement_by_joint_consensus() -> None:
    found = history(WITH_LEARNER, JOINT, FINAL)
    assert found.latest == FINAL and found.position == 12
    assert found.counts == ChangeCounts(
        configuration_changes=3, joint_configurations=1, learners_promoted=1, members_removed=1, leaders_removed=1
    )


def test_a_refill() -> None:
    without = Configuration.make(2, {0: "a", 1: "b"}, {2: "new"}, FIRST.voters)
    settled = Configuration.make(2, without.voters, without.learners)
    back = Configuration.make(3, {0: "a", 1: "b", 2: "new"}, {}, without.voters)
    found = history(without, settled, back, Configuration.make(3, back.voters))
    assert (found.counts.refills, found.counts.members_removed, found.counts.learners_promoted) == (1, 0, 1)


@pytest.mark.parametrize(
    "committed",
    [
        (WITH_LEARNER, JOINT, FINAL, WITH_LEARNER),
        (WITH_LEARNER, JOINT, WITH_LEARNER),
        (WITH_LEARNER, JOINT, JOINT),
        (WITH_LEARNER, FINAL),
        (Configuration.make(2, {0: "a", 1: "b"}),),
        (JOINT,),
        (Configuration.make(1, FIRST.voters, {3: "other"}), JOINT),
        (WITH_LEARNER, Configuration.make(1, JOINT.voters, {}, FIRST.voters)),
        (WITH_LEARNER, Configuration.make(2, JOINT.voters, {}, {0: "a", 1: "b"})),
        (Configuration.make(2, {0: "a", 1: "b", 2: "new"}),),
    ],
    ids=[
        *("version falls", "joint given up", "joint twice", "not jointly", "removed at once", "no learner before"),
        *("learner of another folder", "joint without a version", "joint with others", "another folder at once"),
    ],
)
def test_what_must_not_follow(committed: tuple[Configuration, ...]) -> None:
    history(*committed[:-1])
    with pytest.raises(Violation, match="configuration chain"):
        history(*committed)
