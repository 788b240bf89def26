"""What a store holds, in bytes, as its quota counts it: known at once when a compaction is decided, before any sweep.

Which change makes which version forgettable is known when it comes: a put or a deletion its predecessor, a deletion
also itself.  So a running sum for each revision says what a compaction at it takes away.
"""

from __future__ import annotations

from array import array


class Sizes:
    __slots__ = ("_base", "_forgotten", "_sums", "forgettable", "total")

    def __init__(self, revision: int) -> None:
        self.total = 0
        """Bytes of all that is not forgotten."""
        self.forgettable = 0
        """Bytes that were ever replaced or deleted."""
        self._forgotten = 0
        """Those that a compaction has taken off."""
        self._base = revision + 1
        """The revision of the first sum."""
        self._sums = array("q")
        """Of each revision since the last compaction: `forgettable` at its end."""

    def add(self, size: int, forgettable: int) -> None:
        """A change came: what it takes, and what compactions at its revision and later ones may forget for it."""
        self.total += size
        self.forgettable += forgettable

    def end_revision(self) -> None:
        """No more changes belong to this revision."""
        self._sums.append(self.forgettable)

    def end_revisions(self, forgettable: list[int]) -> None:
        """As many at once, with what `forgettable` was at the end of each."""
        self._sums.extend(forgettable)

    def compact(self, revision: int) -> None:
        passed = revision - self._base + 1
        if passed <= 0:
            return
        forgotten = self._sums[passed - 1]
        self.total -= forgotten - self._forgotten
        self._forgotten = forgotten
        self._base += passed
        del self._sums[:passed]
