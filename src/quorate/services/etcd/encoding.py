"""Protobuf's wire format by hand, for the few messages that the store writes.

Only what these messages need: fields numbered 1 to 15 (tags of one byte), varints, and bytes with their length before
them.  A field with its default value is left out, as proto3 has it.  Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from typing import Final

_SIXTY_FOUR_BITS: Final = (1 << 64) - 1
_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(256))


def varint(number: int) -> bytes:
    """An int64 or uint64: seven bits to a byte, lowest first; a negative one takes ten bytes."""
    if 0 <= number < 0x80:
        return _ONE_BYTE[number]
    number &= _SIXTY_FOUR_BITS
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def integer_field(number: int, value: int) -> bytes:
    """A field of an integer type or a bool; nothing for 0."""
    return _ONE_BYTE[number << 3] + varint(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """A field of bytes or of an encoded message, also an empty one: of a message that means that it is there."""
    return _ONE_BYTE[number << 3 | 2] + varint(len(value)) + value
