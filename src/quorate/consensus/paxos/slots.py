"""The tail of the slots that a server keeps in memory.  Unlike `log`, it has holes: slots are accepted out of order."""

from __future__ import annotations

from collections.abc import Iterable

from quorate.consensus.records import Entry


class Slots:
    """Slots base_position + 1 ... last_position; each holds the value accepted last in it, or nothing.

    `base_generation` is the generation with which the entry at `base_position`, itself no
    longer held, was handed out.
    """

    __slots__ = ("_entries", "_void", "base_generation", "base_position", "last_position")

    def __init__(self, base_position: int, base_generation: int, entries: Iterable[Entry] = ()) -> None:
        self.base_position = base_position
        self.base_generation = base_generation
        self.last_position = base_position
        """No entry lies after it."""
        self._entries: list[Entry | None] = []
        self._void: set[int] = set()
        for entry in entries:
            self.put(entry)

    def get(self, position: int) -> Entry | None:
        """None where nothing was accepted, or it is not held any more."""
        index = position - self.base_position - 1
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def put(self, entry: Entry) -> None:
        """The last one holds."""
        index = entry.position - self.base_position - 1
        assert index >= 0, f"{entry.position} is not held after {self.base_position}"
        if index >= len(self._entries):
            self._entries.extend([None] * (index - len(self._entries)))
            self._entries.append(entry)
            self.last_position = entry.position
        else:
            self._entries[index] = entry

    def between(self, first: int, last: int) -> list[Entry]:
        """What is held in slots first ... last, in order."""
        assert first > self.base_position, (first, self.base_position)
        start = first - self.base_position - 1
        return [entry for entry in self._entries[start : last - self.base_position] if entry is not None]

    def read(self, first: int, last: int, max_bytes: int) -> tuple[tuple[Entry, ...], int]:
        """Entries first ... last, cut at `max_bytes` of payload (but at least one) and at a hole, and their bytes."""
        entries: list[Entry] = []
        size = 0
        for position in range(first, min(last, self.last_position) + 1):
            entry = self._entries[position - self.base_position - 1]
            if entry is None or (entries and size + len(entry.payload) > max_bytes):
                break
            entries.append(entry)
            size += len(entry.payload)
        return tuple(entries), size

    def make_void(self, position: int) -> None:
        """The entry there was handed out as an empty one."""
        self._void.add(position)

    def generation_at(self, position: int) -> int | None:
        """With which generation the entry there was handed out: 0 for a void one.  None where it is not held."""
        if position == self.base_position:
            return self.base_generation
        entry = self.get(position)
        if entry is None:
            return None
        return 0 if position in self._void else entry.generation

    def compact(self, position: int, keep_bytes: int) -> None:
        """Drop entries at or before `position`, except for the last `keep_bytes` of payload among them."""
        index = position - self.base_position - 1
        kept = 0
        while index >= 0:
            entry = self._entries[index]
            assert entry is not None, "what was handed out has no holes"
            kept += len(entry.payload)
            if kept > keep_bytes:
                break
            index -= 1
        if index >= 0:
            base_position = self.base_position + index + 1
            generation = self.generation_at(base_position)
            assert generation is not None
            self._rebase(base_position, generation)

    def replace_through(self, position: int, generation: int) -> None:
        """A snapshot stands for everything through `position`.  What was accepted after it stays: it was promised."""
        assert position > self.base_position, (position, self.base_position)
        self._rebase(position, generation)

    def _rebase(self, position: int, generation: int) -> None:
        del self._entries[: position - self.base_position]
        self.base_position = position
        self.base_generation = generation
        self.last_position = max(self.last_position, position)
        if self._void:
            self._void = {void for void in self._void if void > position}
