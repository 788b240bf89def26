"""Which configuration holds at which position of a log, and the steps from one to the next.

A server uses the latest configuration in its log from the moment that it is there, whether
it is committed or not (thesis section 4.1): waiting for the commit would let two leaders
count by different rules.  So where the log gives way, its configurations do.
"""

from __future__ import annotations

from quorate.consensus.membership import Configuration, InvalidConfiguration, decode_configuration, is_configuration
from quorate.consensus.records import InvalidState, Recovered


class Configurations:
    """The configuration as of `base_position`, and every later one of the log, with its position."""

    __slots__ = ("_base", "_base_position", "_later", "latest", "latest_position")

    def __init__(self, base: Configuration, base_position: int) -> None:
        self._base = base
        self._base_position = base_position
        self._later: list[tuple[int, Configuration]] = []
        self.latest = base
        self.latest_position = base_position
        """Of the latest's entry, or that of the base where there is none behind it: what is committed settles it."""

    @property
    def former(self) -> Configuration:
        """The one before the latest; the base where there is none."""
        return self._later[-2][1] if len(self._later) > 1 else self._base

    def append(self, position: int, payload: bytes) -> None:
        """An entry that is a configuration.  Raises InvalidConfiguration."""
        assert position > self.latest_position, (position, self.latest_position)
        self._later.append((position, decode_configuration(payload)))
        self._find_latest()

    def truncate_from(self, position: int) -> bool:
        """Forget those at `position` and after it; whether the latest is another one now."""
        assert position > self._base_position, (position, self._base_position)
        former = self.latest
        while self._later and self._later[-1][0] >= position:
            self._later.pop()
        self._find_latest()
        return self.latest is not former

    def compact(self, position: int, known: Configuration | None = None) -> Configuration:
        """The base is at `position` from now on; returns the configuration there.

        `known` is that of a peer whose log is the same through `position`: of those that decided before the log's
        first entry, a later member hears in this way.
        """
        assert position >= self._base_position, (position, self._base_position)
        while self._later and self._later[0][0] <= position:
            self._base = self._later.pop(0)[1]
        if known is not None:
            self._base = known
        self._base_position = position
        self._find_latest()
        return self._base

    def _find_latest(self) -> None:
        self.latest_position, self.latest = self._later[-1] if self._later else (self._base_position, self._base)


def recover_configurations(initial: Configuration, recovered: Recovered) -> Configurations:
    """Of a log as it was read back.  Raises InvalidState."""
    compacted = recovered.compacted
    try:
        base = decode_configuration(compacted.configuration) if compacted.configuration else initial
        configurations = Configurations(base, compacted.position)
        for entry in recovered.entries:
            if is_configuration(entry.payload):
                configurations.append(entry.position, entry.payload)
    except InvalidConfiguration as error:
        raise InvalidState(f"a recovered configuration makes no sense: {error}") from error
    return configurations


# --- steps from one configuration to another -------------------------------------------------


def is_possible(present: Configuration, goal: Configuration) -> bool:
    """Whether steps lead to `goal`: somebody votes there, and nobody's incarnation changes while it votes."""
    changed = [
        node for node, incarnation in goal.voters.items() if present.voters.get(node, incarnation) != incarnation
    ]
    return bool(goal.voters) and not goal.is_joint and not changed and not goal.voters.keys() & goal.learners.keys()


def with_learners(present: Configuration, goal: Configuration) -> Configuration | None:
    """The goal's new members as learners beside the present voters; None where new voters are learners already.

    It keeps the present version, since no decision of the cluster is reached with it.
    """
    new_voters = {node: mark for node, mark in goal.voters.items() if node not in present.voters}
    if all(present.learners.get(node) == mark for node, mark in new_voters.items()):
        return None
    learners = {node: mark for node, mark in goal.learners.items() if node not in present.voters}
    return Configuration.make(present.version, present.voters, learners | new_voters)


def towards(present: Configuration, goal: Configuration) -> Configuration:
    """The goal itself where the same nodes vote, else the joint configuration on the way to it."""
    old_voters = present.voters if present.voters != goal.voters else {}
    return Configuration.make(goal.version, goal.voters, goal.learners, old_voters)


def after_joint(joint: Configuration) -> Configuration:
    assert joint.is_joint
    return Configuration.make(joint.version, joint.voters, joint.learners)


def incarnation_of(configuration: Configuration, node: int) -> str | None:
    """Under which a member gets entries: that under which it votes, if it does."""
    voting = configuration.incarnation(node)
    return configuration.learners.get(node) if voting is None else voting
