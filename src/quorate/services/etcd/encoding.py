"""Protobuf's wire format by hand, for the few messages that the store writes, and the one that it reads most.

Only what these messages need: fields numbered 1 to 15 (tags of one byte), varints, and bytes with their length before
them.  A field with its default value is left out, as proto3 has it.  Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from typing import Final

_SIXTY_FOUR_BITS: Final = (1 << 64) - 1
_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(256))
_LOW_BYTES: Final = tuple(bytes((low & 0x7F | 0x80, low >> 7 | 0x80)) for low in range(1 << 14))
"""The first two bytes of numbers that take more: every answer has several revisions in it."""


def varint(number: int) -> bytes:
    """An int64 or uint64: seven bits to a byte, lowest first; a negative one takes ten bytes."""
    if 0 <= number < 0x4000:
        if number < 0x80:
            return _ONE_BYTE[number]
        return bytes((number & 0x7F | 0x80, number >> 7))
    if 0 < number < 0x200000:
        return _LOW_BYTES[number & 0x3FFF] + _ONE_BYTE[number >> 14]
    if 0 < number < 0x10000000:
        return _LOW_BYTES[number & 0x3FFF] + bytes((number >> 14 & 0x7F | 0x80, number >> 21))
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
    return bytes_head(number, len(value)) + value


def bytes_head(number: int, size_bytes: int) -> bytes:
    """What stands before the bytes of a `bytes_field`."""
    return _ONE_BYTE[number << 3 | 2] + varint(size_bytes)


def read_two_fields(message: bytes, start: int) -> tuple[bytes, bytes] | None:
    """Fields 1 and 2 of a message that begins at `start`, both of bytes, in this order, with nothing else in it.

    None where it is made otherwise or is damaged, or where the first takes 128 bytes or more or the second 16 KiB:
    then decode it properly.
    """
    try:
        if message[start] != 0x0A or message[start + 1] >= 0x80:
            return None
        first = start + 2
        end = first + message[start + 1]
        if message[end] != 0x12:
            return None
        size = message[end + 1]
        second = end + 2
        if size >= 0x80:
            high = message[second]
            if high >= 0x80:
                return None
            size += (high << 7) - 0x80
            second += 1
    except IndexError:
        return None
    return (message[first:end], message[second:]) if second + size == len(message) else None
