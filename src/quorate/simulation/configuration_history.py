"""The configurations that a group commits form a chain, each of them one safe step from the one before.

version order   a version never falls
joint           voters change through a joint configuration only, whose old voters are those before it;
                what follows it is the same configuration without the old ones
learners first  who comes to vote was a learner under that very incarnation before
"""

from __future__ import annotations

from dataclasses import dataclass

from quorate.consensus.membership import NO_CONFIGURATION, Configuration
from quorate.consensus.replica import NodeId
from quorate.simulation.violation import Violation

CHECK = "configuration chain"


@dataclass(slots=True)
class ChangeCounts:
    """What changed, over all that was committed."""

    configuration_changes: int = 0
    joint_configurations: int = 0
    learners_promoted: int = 0
    members_removed: int = 0
    leaders_removed: int = 0
    """By a configuration that the removed node itself committed."""
    refills: int = 0
    """Voters that became learners under another incarnation."""


class ConfigurationHistory:
    """Of one group: `begin` with the first configuration, `commit` every later one."""

    def __init__(self) -> None:
        self.counts = ChangeCounts()
        self.latest = NO_CONFIGURATION
        self.position = 0
        """Of the latest."""
        self.voters_of: dict[int, dict[int, str]] = {}
        """By version, the voters of what was committed with it."""

    def begin(self, first: Configuration) -> None:
        if not self.latest.voters:
            self.latest = first

    def commit(self, position: int, configuration: Configuration, leader: NodeId | None) -> None:
        """Raises Violation.  `leader` committed it, None where that is not known."""
        former, counts = self.latest, self.counts
        _check_step(former, configuration)
        self.latest, self.position = configuration, position
        self.voters_of[configuration.version] = configuration.voters
        counts.configuration_changes += 1
        if not configuration.is_joint:
            return
        counts.joint_configurations += 1
        for node in configuration.voters:
            counts.learners_promoted += node not in configuration.old_voters
        for node in configuration.old_voters:
            if node in configuration.learners:
                counts.refills += 1
            elif node not in configuration.voters:
                counts.members_removed += 1
                counts.leaders_removed += node == leader


def _check_step(former: Configuration, latter: Configuration) -> None:
    def wrong(what: str) -> Violation:
        return Violation(CHECK, f"{latter} is committed after {former}: {what}")

    if latter.version < former.version:
        raise wrong("the version falls")
    if former.is_joint:
        if latter != Configuration.make(former.version, former.voters, former.learners):
            raise wrong("what follows a joint configuration is its final one")
        return
    if (latter.old_voters or latter.voters) != former.voters:
        raise wrong("voters change by a joint configuration only, out of those before it")
    if latter.is_joint and latter.version == former.version:
        raise wrong("a joint configuration leads to another version")
    for node, incarnation in latter.voters.items():
        if node not in former.voters and former.learners.get(node) != incarnation:
            raise wrong(f"node {node} was no learner under the incarnation with which it is to vote")
