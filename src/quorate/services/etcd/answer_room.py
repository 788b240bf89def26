"""How much may be answered at once.

A request of some kilobytes can ask for the whole store a thousand times over, and what is asked for within a
transaction is read on every replica while it applies the command, again at each start.  So the answers to all commands
given to a store in one call share a room.  What is too large is done without an answer, as if it had one: nothing of
this gets into the state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from quorate.services.etcd.versions import Version

ANSWER_ROOM_BYTES: Final = 64 << 20
"""For the answers to all commands of one batch, or to one transaction that only reads."""
KEY_VALUE_OVERHEAD_BYTES: Final = 64
"""Charged for each key-value of an answer beside key and value, and about what it takes while the answer is made."""
LOOKED_AT_BYTES: Final = 32
"""Charged for each version that a range looks at, whether it is in the answer or not: for the time."""


class AnswerTooLarge(Exception):
    """There is no room for it."""


class AnswerRoom:
    """What commands find is charged here before it is built.

    What is as small as its request (numbers of deleted keys, headers) is not charged: it is always answered.
    """

    __slots__ = ("_before_bytes", "_left_bytes")

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes = size_bytes
        self._before_bytes = size_bytes
        """What was left at the last `begin`."""

    def begin(self) -> None:
        """The next command's answer."""
        self._before_bytes = self._left_bytes

    def look_at(self, versions: int) -> None:
        """Raises AnswerTooLarge, also for nothing where something was too large since `begin`."""
        self._take(versions * LOOKED_AT_BYTES)

    def hold(self, versions: Iterable[Version]) -> None:
        """Whole key-values.  Raises AnswerTooLarge."""
        self._take(sum(KEY_VALUE_OVERHEAD_BYTES + len(version.key) + len(version.value) for version in versions))

    def hold_keys(self, versions: Iterable[Version]) -> None:
        """Key-values without their values.  Raises AnswerTooLarge."""
        self._take(sum(KEY_VALUE_OVERHEAD_BYTES + len(version.key) for version in versions))

    def _take(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise AnswerTooLarge

    def give_back(self) -> None:
        """What was too large was thrown away.

        Half of what there was before it is there again: so there is room for others, and however many commands of the
        batch are like it, all of them together are twice the room's work.
        """
        self._left_bytes = self._before_bytes // 2
