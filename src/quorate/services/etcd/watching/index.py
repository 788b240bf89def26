"""Finds all ranges that contain a key.

Almost every watch is of one key or of all keys with a prefix, so these are found by dictionaries: a key itself, and
each of its prefixes of a length that some watch has.  That costs one look-up for each such length (a handful, whatever
the number of watches), where an interval tree would cost its depth, and this one needs no balancing.  Lengths are
clients' to choose, so those that are looked at are at most MAX_LENGTHS, and none is above MAX_PREFIX_BYTES; prefixes of
other lengths are ranges as any other.

Other ranges are kept in order of their starts, in blocks that know their latest end: a block is looked into only where
it starts at or before the key and ends behind it.  For n ranges that are about n / 64 steps and what is found, and
to add or remove one moves no more than a block.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")

SINGLE: Final = b""
"""As the end of a range: the key itself and no other."""
NO_END: Final = b"\0"
"""As the end of a range: the key and all behind it."""
MAX_LENGTHS: Final = 64
MAX_PREFIX_BYTES: Final = 1024
"""Every look-up copies and hashes as much of the key."""
_MAX_BLOCK: Final = 128

_Bounds: TypeAlias = tuple[bytes, bytes]
"""First key, and the key behind the last one: empty where there is none."""


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all that start with `prefix`; NO_END where there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else NO_END


def _prefix_of(key: bytes, end: bytes) -> bytes | None:
    """The prefix whose keys the range is; None where it is none's."""
    if key == b"\0" and end == NO_END:
        return b""  # The empty key is none, so these are all.
    return key if end == prefix_end(key) else None


class RangeIndex(Generic[T]):
    """Things by the range of keys that they are about; several may be about the same one."""

    __slots__ = ("_by_key", "_by_prefix", "_lengths", "_others", "has_ranges")

    def __init__(self) -> None:
        self._by_key: dict[bytes, list[T]] = {}
        self._by_prefix: dict[bytes, list[T]] = {}
        """A prefix that is here is not in `_others`, nor the other way round."""
        self._lengths: dict[int, int] = {}
        """Length of a prefix -> how many of that length there are."""
        self._others: _OtherRanges[T] = _OtherRanges()
        self.has_ranges = False

    def add(self, key: bytes, end: bytes, thing: T) -> None:
        if end == SINGLE:
            self._by_key.setdefault(key, []).append(thing)
            return
        self.has_ranges = True
        prefix = _prefix_of(key, end)
        if prefix is None or not self._is_looked_up(prefix):
            self._others.add((key, _bound(end)), thing)
            return
        if prefix not in self._by_prefix:
            self._by_prefix[prefix] = []
            self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1
        self._by_prefix[prefix].append(thing)

    def remove(self, key: bytes, end: bytes, thing: T) -> None:
        """One that is there."""
        if end == SINGLE:
            if _take(self._by_key, key, thing):
                del self._by_key[key]
            return
        prefix = _prefix_of(key, end)
        if prefix is None or prefix not in self._by_prefix:
            self._others.remove((key, _bound(end)), thing)
        elif _take(self._by_prefix, prefix, thing):
            del self._by_prefix[prefix]
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]
        self.has_ranges = bool(self._by_prefix) or not self._others.is_empty()

    def _is_looked_up(self, prefix: bytes) -> bool:
        """Whether it belongs to `_by_prefix`."""
        if not prefix:
            return True  # Always, because its bounds do not begin with it.
        if len(prefix) > MAX_PREFIX_BYTES or (prefix, _bound(prefix_end(prefix))) in self._others:
            return False
        return len(prefix) in self._lengths or len(self._lengths) < MAX_LENGTHS

    def find(self, key: bytes) -> Iterable[T]:
        """All whose range contains the key."""
        found = self._by_key.get(key, ())
        if not self.has_ranges:
            return found
        many = [*found]
        for length in self._lengths:
            if length <= len(key):
                many += self._by_prefix.get(key[:length], ())
        self._others.find(key, many)
        return many


def _bound(end: bytes) -> bytes:
    return b"" if end == NO_END else end


def _take(table: dict[bytes, list[T]], place: bytes, thing: T) -> bool:
    """Whether nothing is left at the place."""
    things = table[place]
    things.remove(thing)
    return not things


class _Block:
    __slots__ = ("bounds", "latest_end")

    def __init__(self, bounds: list[_Bounds]) -> None:
        self.bounds = bounds
        """In their order, never empty."""
        self.latest_end = b""
        self.look_for_latest_end()

    def look_for_latest_end(self) -> None:
        ends = [end for _, end in self.bounds]
        self.latest_end = b"" if b"" in ends else max(ends)


def _first(block: _Block) -> _Bounds:
    return block.bounds[0]


class _OtherRanges(Generic[T]):
    """Ranges that are neither one key nor a prefix of a length that is looked at."""

    __slots__ = ("_blocks", "_things")

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        """In the order of their first bounds."""
        self._things: dict[_Bounds, list[T]] = {}

    def is_empty(self) -> bool:
        return not self._things

    def __contains__(self, bounds: _Bounds) -> bool:
        return bounds in self._things

    def add(self, bounds: _Bounds, thing: T) -> None:
        things = self._things.get(bounds)
        if things is not None:
            things.append(thing)
            return
        self._things[bounds] = [thing]
        if not self._blocks:
            self._blocks.append(_Block([bounds]))
            return
        place = self._place(bounds)
        block = self._blocks[place]
        block.bounds.insert(bisect_left(block.bounds, bounds), bounds)
        if len(block.bounds) > _MAX_BLOCK:
            half = len(block.bounds) // 2
            self._blocks.insert(place + 1, _Block(block.bounds[half:]))
            del block.bounds[half:]
        block.look_for_latest_end()

    def remove(self, bounds: _Bounds, thing: T) -> None:
        self._things[bounds].remove(thing)
        if self._things[bounds]:
            return
        del self._things[bounds]
        place = self._place(bounds)
        block = self._blocks[place]
        del block.bounds[bisect_left(block.bounds, bounds)]
        if block.bounds:
            block.look_for_latest_end()
        else:
            del self._blocks[place]

    def _place(self, bounds: _Bounds) -> int:
        """The block where these bounds are, or should be."""
        return max(0, bisect_right(self._blocks, bounds, key=_first) - 1)

    def find(self, key: bytes, found: list[T]) -> None:
        for block in self._blocks:
            if block.bounds[0][0] > key:
                return
            if block.latest_end and block.latest_end <= key:
                continue
            for start, end in block.bounds:
                if start > key:
                    return
                if not end or key < end:
                    found += self._things[start, end]
