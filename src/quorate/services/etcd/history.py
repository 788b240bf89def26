"""All versions in the order in which they came: by revision, and by their order within it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import Final

from quorate.services.etcd.versions import Version

_MAX_CHUNK: Final = 1024
_mod_revision: Final = attrgetter("mod_revision")


def _last_revision(chunk: list[Version]) -> int:
    return chunk[-1].mod_revision


class History:
    """Versions in chunks.  Where nothing is removed, only the last chunk ever changes, and only at its end."""

    __slots__ = ("_last", "chunks", "count")

    def __init__(self) -> None:
        self._last: list[Version] = []
        self.chunks = [self._last]
        """None is empty, but for the last."""
        self.count = 0

    def append(self, version: Version) -> None:
        last = self._last
        if len(last) >= _MAX_CHUNK:
            last = self._last = []
            self.chunks.append(last)
        last.append(version)
        self.count += 1

    def extend(self, versions: list[Version]) -> None:
        start = 0
        while start < len(versions):
            room = _MAX_CHUNK - len(self._last)
            if room <= 0:
                self._last = []
                self.chunks.append(self._last)
                continue
            self._last += versions[start : start + room]
            start += room
        self.count += len(versions)

    def place(self, revision: int) -> tuple[int, int]:
        """(chunk, index in it) of the first version of this revision or a later one."""
        chunks = self.chunks
        place = bisect_left(chunks, revision, 0, len(chunks) - 1, key=_last_revision)
        return place, bisect_left(chunks[place], revision, key=_mod_revision)

    def count_since(self, revision: int) -> int:
        """Versions of this revision and later ones."""
        place, offset = self.place(revision)
        return sum(map(len, islice(self.chunks, place, None))) - offset

    def since(self, revision: int) -> Iterator[Version]:
        """From the first version of this revision on.  The history is not changed meanwhile."""
        place, offset = self.place(revision)
        yield from islice(self.chunks[place], offset, None)
        for chunk in islice(self.chunks, place + 1, None):
            yield from chunk

    def remove(self, version: Version) -> None:
        """Forget one that is there."""
        place, offset = self.place(version.mod_revision)
        while True:
            chunk = self.chunks[place]
            for index in range(offset, len(chunk)):
                if chunk[index] is version:
                    self.replace(place, index, index + 1, [])
                    return
            place, offset = place + 1, 0

    def replace(self, place: int, start: int, stop: int, kept: list[Version]) -> None:
        """Put what is kept of a part of a chunk in its place."""
        chunk = self.chunks[place]
        self.count -= stop - start - len(kept)
        chunk[start:stop] = kept
        if chunk is self._last:
            return
        before = self.chunks[place - 1] if place > 0 else []
        if not chunk or (before and len(before) + len(chunk) <= _MAX_CHUNK // 2):
            before += chunk
            del self.chunks[place]
