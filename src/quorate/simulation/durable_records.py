"""What a group's log comes to, kept in memory: records in, `Recovered` out, as `quorate.storage.log` would have it."""

from __future__ import annotations

from quorate.consensus.records import Entry, Record, Recovered, SaveEntry, SaveState, TruncateFrom


class DurableRecords:
    """One group's records on one node, folded as they come.

    Every record costs in proportion to the entries that it adds or takes away, however long the log is.
    """

    __slots__ = ("compacted", "end_position", "entries", "state")

    def __init__(self, recovered: Recovered) -> None:
        self.state = recovered.state
        self.compacted = recovered.compacted
        self.entries: dict[int, Entry] = {entry.position: entry for entry in recovered.entries}
        self.end_position = recovered.entries[-1].position if recovered.entries else recovered.compacted.position
        """No entry lies after it; in a log with holes it may lie after the last entry."""

    def write(self, record: Record) -> None:
        if isinstance(record, SaveEntry):
            position = record.entry.position
            if position > self.compacted.position:
                self.entries[position] = record.entry
                self.end_position = max(self.end_position, position)
        elif isinstance(record, SaveState):
            self.state = record.data
        elif isinstance(record, TruncateFrom):
            for position in range(record.position, self.end_position + 1):
                self.entries.pop(position, None)
            self.end_position = max(self.compacted.position, min(self.end_position, record.position - 1))
        elif record.position >= self.compacted.position:
            for position in range(self.compacted.position + 1, min(record.position, self.end_position) + 1):
                self.entries.pop(position, None)
            self.compacted = record
            self.end_position = max(self.end_position, record.position)

    def recover(self) -> Recovered:
        entries = tuple(self.entries[position] for position in sorted(self.entries))
        return Recovered(self.state, self.compacted, entries)

    def generation_at(self, position: int) -> int | None:
        if position == self.compacted.position:
            return self.compacted.generation
        entry = self.entries.get(position)
        return None if entry is None else entry.generation

    def holds(self, entry: Entry) -> bool:
        """The entry, or a snapshot that stands for it."""
        return entry.position <= self.compacted.position or self.entries.get(entry.position) == entry

    def same_as(self, other: DurableRecords) -> bool:
        return self.state == other.state and self.compacted == other.compacted and self.entries == other.entries
