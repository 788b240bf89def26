"""What a log should come to: a plain model of its groups, and records drawn at random."""

from __future__ import annotations

from random import Random

from quorate.consensus.records import (
    CompactedThrough,
    Entry,
    Record,
    Recovered,
    SaveEntry,
    SaveState,
    TruncateFrom,
)


class LogModel:
    """Applies records the obvious way."""

    def __init__(self) -> None:
        self.groups: dict[int, Recovered] = {}

    def apply(self, group: int, records: list[Record]) -> None:
        for record in records:
            before = self.groups.get(group, Recovered())
            state, compacted = before.state, before.compacted
            entries = {entry.position: entry for entry in before.entries}
            if isinstance(record, SaveState):
                state = record.data
            elif isinstance(record, SaveEntry):
                entries[record.entry.position] = record.entry
            elif isinstance(record, TruncateFrom):
                entries = {position: entry for position, entry in entries.items() if position < record.position}
            else:
                compacted = record
            kept = tuple(entry for position, entry in sorted(entries.items()) if position > compacted.position)
            self.groups[group] = Recovered(state, compacted, kept)
        if self.groups[group] == Recovered():
            del self.groups[group]

    def copy(self) -> LogModel:
        copy = LogModel()
        copy.groups = dict(self.groups)
        return copy


def random_records(random: Random, group: Recovered) -> list[Record]:
    """A few records such as a protocol may ask for: out of order, with holes, overwriting, truncating."""
    records: list[Record] = []
    base = max([group.compacted.position, *(entry.position for entry in group.entries)])
    for _ in range(random.randrange(1, 4)):
        kind = random.randrange(10)
        if kind == 0:
            records.append(SaveState(random.randbytes(random.randrange(20))))
        elif kind == 1 and base > group.compacted.position:
            records.append(TruncateFrom(random.randrange(group.compacted.position + 1, base + 1)))
        elif kind == 2 and group.entries:
            chosen = random.choice(group.entries)
            configuration = random.randbytes(random.choice([0, 30]))
            records.append(CompactedThrough(chosen.position, chosen.generation, configuration))
            return records
        else:
            position = max(group.compacted.position, base - 2) + random.randrange(1, 5)
            payload = random.randbytes(random.randrange(200))
            records.append(SaveEntry(Entry(position, random.randrange(1, 1 << 40), payload)))
    return records


def entry(position: int, payload: bytes = b"", generation: int = 1) -> SaveEntry:
    return SaveEntry(Entry(position, generation, payload))
