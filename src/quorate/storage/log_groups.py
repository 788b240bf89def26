"""What a log must remember of each group to begin a new segment and to delete old ones."""

from __future__ import annotations

from quorate.consensus.records import CompactedThrough, Record, SaveEntry, SaveState, TruncateFrom


class GroupMarks:
    """One group's newest state, and which segments hold entries that it still needs.

    `_highest` maps a segment to the highest position that the group wrote into it; those
    at or before the compacted position are dropped.  An entry that was overwritten later
    keeps its segment until it is compacted: deleting late is safe, and nothing has to be
    remembered of single entries.
    """

    __slots__ = ("_highest", "compacted", "state")

    def __init__(self) -> None:
        self.state: bytes | None = None
        self.compacted = CompactedThrough(0, 0)
        self._highest: dict[int, int] = {}

    def note(self, record: Record, sequence: int) -> None:
        """The record was written to segment `sequence`."""
        if isinstance(record, SaveEntry):
            position = record.entry.position
            if position > self.compacted.position and position > self._highest.get(sequence, 0):
                self._highest[sequence] = position
        elif isinstance(record, SaveState):
            self.state = record.data
        elif isinstance(record, TruncateFrom):
            self._keep({segment: min(highest, record.position - 1) for segment, highest in self._highest.items()})
        elif record.position >= self.compacted.position:
            self.compacted = record
            self._keep(self._highest)

    def oldest_needed(self) -> int | None:
        """The oldest segment with an entry that is not compacted."""
        return min(self._highest, default=None)

    def opening_records(self) -> list[Record]:
        """What a new segment must repeat, so that older ones can be deleted."""
        records: list[Record] = []
        if self.state is not None:
            records.append(SaveState(self.state))
        if self.compacted != CompactedThrough(0, 0):
            records.append(self.compacted)
        return records

    def _keep(self, highest: dict[int, int]) -> None:
        self._highest = {
            segment: position for segment, position in highest.items() if position > self.compacted.position
        }
