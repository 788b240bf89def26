"""Keys in their order, in chunks: so no insertion moves more than a chunk, and a range is counted by whole chunks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final

_MAX_CHUNK: Final = 1024
_SMALL_CHUNK: Final = _MAX_CHUNK // 4
"""One that gets smaller than this goes together with a neighbour, if the two are not full then."""


class SortedKeys:
    """A sorted set.  A range is [start, end); `end` None is no end."""

    __slots__ = ("_bounds", "_chunks", "_count")

    def __init__(self) -> None:
        self._chunks: list[list[bytes]] = [[]]
        self._bounds = [b""]
        """Of each chunk: what its keys are not less than, and all keys of the chunks before it are."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            yield from chunk

    def add(self, key: bytes) -> None:
        """Of a key that is not there."""
        place = bisect_right(self._bounds, key) - 1
        chunk = self._chunks[place]
        insort(chunk, key)
        self._count += 1
        if len(chunk) > _MAX_CHUNK:
            upper = chunk[_MAX_CHUNK // 2 :]
            self._chunks[place] = chunk[: _MAX_CHUNK // 2]
            self._chunks.insert(place + 1, upper)
            self._bounds.insert(place + 1, upper[0])

    def remove(self, key: bytes) -> None:
        """Of a key that is there."""
        place = bisect_right(self._bounds, key) - 1
        chunk = self._chunks[place]
        index = bisect_left(chunk, key)
        assert chunk[index] == key
        del chunk[index]
        self._count -= 1
        if len(chunk) < _SMALL_CHUNK and len(self._chunks) > 1:
            self._join(max(place - 1, 0))

    def _join(self, place: int) -> None:
        """Put a chunk and the next one together, if there is room to spare."""
        first, second = self._chunks[place : place + 2]
        if len(first) + len(second) <= _MAX_CHUNK // 2:
            self._chunks[place : place + 2] = [first + second]
            del self._bounds[place + 1]

    def count(self, start: bytes, end: bytes | None) -> int:
        chunks = self._chunks
        first, offset = self._place(start)
        last, stop = self._end_place(end)
        if (last, stop) <= (first, offset):
            return 0
        return sum(map(len, chunks[first:last])) + stop - offset

    def take(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The first so many of a range."""
        first, offset = self._place(start)
        last, stop = self._end_place(end)
        if (last, stop) <= (first, offset):
            return []
        if first == last:
            return self._chunks[first][offset : min(stop, offset + limit)]
        taken = self._chunks[first][offset : offset + limit]
        for place in range(first + 1, last + 1):
            if len(taken) >= limit:
                break
            chunk = self._chunks[place]
            room = limit - len(taken)
            taken += chunk[: min(stop, room)] if place == last else chunk[:room]
        return taken

    def take_last(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The last so many of a range, from the last to the first."""
        first, offset = self._place(start)
        last, stop = self._end_place(end)
        taken: list[bytes] = []
        while (first, offset) < (last, stop) and len(taken) < limit:
            bottom = offset if last == first else 0
            chunk = self._chunks[last][max(bottom, stop - (limit - len(taken))) : stop]
            chunk.reverse()
            taken += chunk
            last -= 1
            stop = len(self._chunks[last])
        return taken

    def _place(self, key: bytes) -> tuple[int, int]:
        """(chunk, index in it) of the first key that is not less."""
        place = bisect_right(self._bounds, key) - 1
        return place, bisect_left(self._chunks[place], key)

    def _end_place(self, end: bytes | None) -> tuple[int, int]:
        if end is None:
            return len(self._chunks) - 1, len(self._chunks[-1])
        return self._place(end)
