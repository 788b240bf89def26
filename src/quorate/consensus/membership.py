"""Who decides in a group: voters, learners, and both sets of voters while one takes over from the other.

A *configuration* is a value that a protocol keeps in its log, because two leaders that
disagree about who votes can both be elected.  Which configuration is wanted is none of its
business: the cluster's own group decides that (`services.cluster`), numbers its decisions,
and every group's leader leads its group there.

A voter is a node id *and an incarnation*, the random number of a data folder.  A node that
comes back under its old id with an empty folder has forgotten what it voted, so nothing
that it says may count until a configuration names its new incarnation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

import msgspec

from quorate.quorums import Joint, Majority, Nobody, Quorum

PREFIX: Final = b"\xc1"
"""First byte of an entry's payload that is a configuration: MessagePack never uses it, so no batch begins so."""


class InvalidConfiguration(ValueError):
    """The bytes are not a configuration."""


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """Node ids mapped to incarnations.  `old_voters` is empty but while two configurations decide jointly.

    Build it with `make`, which puts the ids in order: equal configurations have equal bytes.
    """

    version: int
    """Of the cluster's decision that this leads to; a joint configuration has that of its goal."""
    voters: dict[int, str]
    learners: dict[int, str] = {}
    old_voters: dict[int, str] = {}

    @classmethod
    def make(
        cls,
        version: int,
        voters: Mapping[int, str],
        learners: Mapping[int, str] | None = None,
        old_voters: Mapping[int, str] | None = None,
    ) -> Self:
        """Raises ValueError where a node would be voter and learner, or a voter under two incarnations."""
        learners, old_voters = learners or {}, old_voters or {}
        if both := voters.keys() & learners.keys():
            raise ValueError(f"nodes {sorted(both)} cannot be voters and learners at once")
        if changed := [node for node in voters if old_voters.get(node, voters[node]) != voters[node]]:
            raise ValueError(f"nodes {changed} must stop voting before they vote under another incarnation")
        return cls(
            version, dict(sorted(voters.items())), dict(sorted(learners.items())), dict(sorted(old_voters.items()))
        )

    @property
    def is_joint(self) -> bool:
        return bool(self.old_voters)

    @property
    def members(self) -> tuple[int, ...]:
        """Everybody who gets entries, in order."""
        return tuple(sorted({*self.voters, *self.old_voters, *self.learners}))

    def quorum(self) -> Quorum:
        """Who decides: more than half of the voters, and while joint of the old voters too."""
        if not self.voters:
            return Nobody()
        majority = Majority(tuple(self.voters))
        return Joint(Majority(tuple(self.old_voters)), majority) if self.old_voters else majority

    def votes(self, node: int) -> bool:
        return node in self.voters or node in self.old_voters

    def incarnation(self, node: int) -> str | None:
        """Under which incarnation the node votes; None where it does not."""
        return self.voters.get(node, self.old_voters.get(node))

    def encode(self) -> bytes:
        """As an entry's payload."""
        return PREFIX + msgspec.msgpack.encode(self)


def is_configuration(payload: bytes) -> bool:
    return payload[:1] == PREFIX


def decode_configuration(payload: bytes) -> Configuration:
    """Raises InvalidConfiguration."""
    if not is_configuration(payload):
        raise InvalidConfiguration("a configuration begins with the byte 0xc1")
    try:
        content = msgspec.msgpack.decode(memoryview(payload)[1:], type=Configuration)
        return Configuration.make(content.version, content.voters, content.learners, content.old_voters)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidConfiguration(f"not a configuration: {error}") from error


NO_CONFIGURATION: Final = Configuration(0, {})
"""Of a node that has not been told of any: it gets entries, and neither stands nor counts."""
