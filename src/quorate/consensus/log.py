"""The tail of a log without holes that a server keeps in memory: Raft's and ZAB's.

Generations never fall along a log, which is what makes the conflict hints a binary search.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from quorate.consensus.records import Entry


def _generation(entry: Entry) -> int:
    return entry.generation


class Log:
    """Entries base_position + 1 ... last_position, without gaps.

    `base_generation` is the generation of the entry at `base_position`, which is itself no longer held.
    """

    __slots__ = ("_entries", "base_generation", "base_position", "last_generation", "last_position")

    def __init__(self, base_position: int, base_generation: int, entries: Iterable[Entry] = ()) -> None:
        self.base_position = base_position
        self.base_generation = base_generation
        self.last_position = base_position
        self.last_generation = base_generation
        self._entries: list[Entry] = []
        for entry in entries:
            self.append(entry)

    def append(self, entry: Entry) -> None:
        assert entry.position == self.last_position + 1, f"gap: {entry.position} after {self.last_position}"
        assert entry.generation >= self.last_generation, (
            f"generation fell: {entry.generation} after {self.last_generation}"
        )
        self._entries.append(entry)
        self.last_position = entry.position
        self.last_generation = entry.generation

    def generation_at(self, position: int) -> int | None:
        """Generation of the entry at `position`, None where it is not held any more or not yet."""
        index = position - self.base_position - 1
        if 0 <= index < len(self._entries):
            return self._entries[index].generation
        return self.base_generation if index == -1 else None

    def between(self, first: int, last: int) -> list[Entry]:
        """Entries first ... last, all of which must be held."""
        assert self.base_position < first and last <= self.last_position, (first, last, self.base_position)
        return self._entries[first - self.base_position - 1 : last - self.base_position]

    def read(self, first: int, max_bytes: int) -> tuple[tuple[Entry, ...], int]:
        """Entries from `first` on, at most `max_bytes` of payload but at least one if there is one, and their bytes."""
        entries = self._entries
        start = end = first - self.base_position - 1
        assert start >= 0, f"{first} is not held after {self.base_position}"
        size = 0
        while end < len(entries):
            larger = size + len(entries[end].payload)
            if larger > max_bytes and end > start:
                break
            size = larger
            end += 1
        return tuple(entries[start:end]), size

    def last_position_at_or_before(self, position: int, generation: int) -> int:
        """The last place at or before `position` whose entry has `generation` or a lower one.

        Not lower than `base_position`, since nothing is known before it.
        """
        held = max(0, min(position, self.last_position) - self.base_position)
        return self.base_position + bisect_right(self._entries, generation, 0, held, key=_generation)

    def truncate_from(self, position: int) -> None:
        """Forget the entry at `position` and all after it."""
        assert self.base_position < position <= self.last_position, (position, self.base_position, self.last_position)
        del self._entries[position - self.base_position - 1 :]
        self.last_position = position - 1
        self.last_generation = self._entries[-1].generation if self._entries else self.base_generation

    def compact(self, position: int, keep_bytes: int) -> None:
        """Drop entries at or before `position`, except for the last `keep_bytes` of payload among them."""
        index = position - self.base_position - 1
        kept = 0
        while index >= 0:
            kept += len(self._entries[index].payload)
            if kept > keep_bytes:
                break
            index -= 1
        if index >= 0:
            self.base_position = self._entries[index].position
            self.base_generation = self._entries[index].generation
            del self._entries[: index + 1]
