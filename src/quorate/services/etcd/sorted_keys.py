"""Keys in their order, in chunks: so no insertion moves more than a chunk, and a range is counted by whole chunks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final

_MAX_CHUNK: Final = 1024
_SMALL_CHUNK: Final = _MAX_CHUNK // 4
"""One that gets smaller than this goes together with a neighbour, if the two are not full then."""
_FEW: Final = 16
"""So many keys go into a chunk or out of it one by one; where there are more, the whole chunk is made anew."""


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

    def add_all(self, keys: list[bytes]) -> None:
        """Of sorted keys that are not there: as many as belong into a chunk at once."""
        start = 0
        while start < len(keys):
            place, stop = self._run(keys, start)
            chunk = self._chunks[place]
            if stop - start <= _FEW:
                for key in keys[start:stop]:
                    insort(chunk, key)
            else:
                chunk += keys[start:stop]
                chunk.sort()
            if len(chunk) > _MAX_CHUNK:
                size = _MAX_CHUNK // 2
                chunks = [chunk[offset : offset + size] for offset in range(0, len(chunk), size)]
                self._chunks[place : place + 1] = chunks
                self._bounds[place + 1 : place + 1] = [upper[0] for upper in chunks[1:]]
            start = stop
        self._count += len(keys)

    def remove_all(self, keys: list[bytes]) -> None:
        """Of sorted keys that are there: of what follows on one another in a chunk, all at once."""
        start = 0
        while start < len(keys):
            place, stop = self._run(keys, start)
            chunk = self._chunks[place]
            index = bisect_left(chunk, keys[start])
            if chunk[index : index + stop - start] == keys[start:stop]:
                del chunk[index : index + stop - start]
            elif stop - start <= _FEW:
                for key in keys[start:stop]:
                    index = bisect_left(chunk, key)
                    assert chunk[index] == key
                    del chunk[index]
            else:
                gone = set(keys[start:stop])
                kept = [key for key in chunk if key not in gone]
                assert len(chunk) - len(kept) == stop - start
                chunk[:] = kept
            start = stop
            if not chunk and len(self._chunks) > 1:
                del self._chunks[place]
                # The next chunk, or the one before, takes the room.
                del self._bounds[max(place, 1)]
            elif len(chunk) < _SMALL_CHUNK and len(self._chunks) > 1:
                self._join(max(place - 1, 0))
        self._count -= len(keys)

    def _run(self, keys: list[bytes], start: int) -> tuple[int, int]:
        """(the chunk that a key of sorted keys belongs to, the first of them behind it that does not)"""
        place = bisect_right(self._bounds, keys[start]) - 1
        if place + 1 == len(self._bounds):
            return place, len(keys)
        return place, bisect_left(keys, self._bounds[place + 1], start)

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
