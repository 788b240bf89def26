"""Jute, ZooKeeper's wire encoding: big-endian fixed-width integers and length-prefixed bytes.

Source: zookeeper-jute (BinaryInputArchive, BinaryOutputArchive) of ZooKeeper 3.8.

- int is 4 bytes, long 8, boolean 1 (anything but 0 is true);
- buffer and ustring are an int length and so many bytes; length -1 is null;
- vector is an int count and so many items; count -1 is null.

Strings stay `bytes` (UTF-8) everywhere in this package: a path is compared, split and
stored far more often than it is shown, and whoever shows it decodes it.

Trailing bytes after a record are ignored, as in ZooKeeper: newer clients append fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

_INT: Final = Struct(">i")
_LONG: Final = Struct(">q")

NULL: Final = b"\xff\xff\xff\xff"
"""A null buffer, string or vector."""


class JuteError(ValueError):
    """Bytes from outside that are not the jute record that was expected."""


class Reader:
    """Takes fields off the front of `data`, from offset `at`.  Every method raises JuteError where bytes are short."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def int32(self, what: str) -> int:
        at = self.at
        if at + 4 > len(self.data):
            raise self._short(what, 4)
        self.at = at + 4
        value: int = _INT.unpack_from(self.data, at)[0]
        return value

    def int64(self, what: str) -> int:
        at = self.at
        if at + 8 > len(self.data):
            raise self._short(what, 8)
        self.at = at + 8
        value: int = _LONG.unpack_from(self.data, at)[0]
        return value

    def boolean(self, what: str) -> bool:
        at = self.at
        if at >= len(self.data):
            raise self._short(what, 1)
        self.at = at + 1
        return self.data[at] != 0

    def buffer(self, what: str) -> bytes | None:
        """A buffer or a ustring that may be null."""
        size = self.int32(f"length of {what}")
        if size == -1:
            return None
        if size < 0:
            raise JuteError(f"length of {what}: expected -1 or more, found {size}")
        at = self.at
        if at + size > len(self.data):
            raise self._short(what, size)
        self.at = at + size
        return self.data[at : at + size]

    def string(self, what: str) -> bytes:
        """A ustring that must not be null, undecoded."""
        value = self.buffer(what)
        if value is None:
            raise JuteError(f"{what}: expected a string, found null")
        return value

    def count(self, what: str, item_bytes_least: int) -> int:
        """The count of a vector; null counts as empty.

        `item_bytes_least` (the fewest bytes an item can take) bounds the count by what
        is there, so that a count from outside never sizes an allocation.
        """
        count = self.int32(f"count of {what}")
        if count < -1 or count * item_bytes_least > len(self.data) - self.at:
            left = len(self.data) - self.at
            raise JuteError(f"count of {what}: expected what {left} bytes can hold, found {count}")
        return max(count, 0)

    def strings(self, what: str) -> list[bytes]:
        """A vector of strings; null is read as empty."""
        return [self.string(what) for _ in range(self.count(what, 4))]

    def left(self) -> int:
        """Bytes not yet taken."""
        return len(self.data) - self.at

    def _short(self, what: str, size: int) -> JuteError:
        left = len(self.data) - self.at
        return JuteError(f"{what}: expected {size} bytes at offset {self.at}, found {left}")


def pack_buffer(value: bytes | None) -> bytes:
    """A buffer or ustring: length and bytes, or null."""
    return NULL if value is None else _INT.pack(len(value)) + value


def pack_strings(values: Iterable[bytes]) -> bytes:
    """A vector of ustrings."""
    parts = [b""]
    pack = _INT.pack
    for value in values:
        parts.append(pack(len(value)))
        parts.append(value)
    parts[0] = pack(len(parts) // 2)
    return b"".join(parts)
