"""The bytes of a log segment: header, blocks, records.  Pure; byte layouts in docs/storage.md.

A *block* is what one write appended: records under one checksum, so that a write is
recovered whole or not at all.  A block names its own segment and offset, so that bytes
copied from elsewhere (a client may well store a piece of a log) are never taken for a
block.  It also says how far the segment was known to be durable when it was written: that
is what tells a torn tail from damage (see `log_recovery`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from google_crc32c import extend, value

from quorate.consensus.records import CompactedThrough, Entry, Record, SaveEntry, SaveState, TruncateFrom

FORMAT_VERSION: Final = 2

SEGMENT_MAGIC: Final = b"QUORLOG\n"
_SEGMENT_HEADER: Final = struct.Struct("<8sIIQQQQ12s")
_CRC: Final = struct.Struct("<I")
SEGMENT_HEADER_BYTES: Final = _SEGMENT_HEADER.size + _CRC.size

BLOCK_MAGIC: Final = b"QBLK"
BLOCK_ALIGNMENT: Final = 8
_BLOCK_HEADER: Final = struct.Struct("<4sHHQQQIII")
BLOCK_HEADER_BYTES: Final = _BLOCK_HEADER.size + _CRC.size
_MAX_BODY_BYTES: Final = (1 << 32) - 1

OPENING_BLOCK: Final = 1
"""First block of a segment: every group's state when the segment was begun."""
RECORDS_BLOCK: Final = 2
CLOSING_BLOCK: Final = 3
"""Empty; written by an orderly stop.  It vouches for everything before it."""

_RECORD: Final = struct.Struct("<BIQQI")
RECORD_HEADER_BYTES: Final = _RECORD.size
_STATE, _ENTRY, _TRUNCATE, _COMPACTED, _OLDEST = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class OldestNeeded:
    """Segments before this sequence number are no longer needed and may be missing.  Written by the log itself."""

    sequence: int


LogRecord = Record | OldestNeeded


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself and of those before it."""

    sequence: int
    size_bytes: int
    """Of the whole preallocated file: a shorter one was cut off."""
    previous_end: int
    """Where the segment before ended, all of it durable; 0 in the first segment."""
    oldest_needed: int
    """The oldest segment whose entries were still needed when this one was begun."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block whose checksums are right."""

    offset: int
    kind: int
    durable_offset: int
    record_count: int
    body: bytes
    end: int
    """Offset of the next block."""


@dataclass(frozen=True, slots=True)
class BadBytes:
    """Why there is no block at an offset."""

    offset: int
    reason: str


def encode_segment_header(header: SegmentHeader) -> bytes:
    fields = _SEGMENT_HEADER.pack(
        SEGMENT_MAGIC,
        FORMAT_VERSION,
        0,
        header.sequence,
        header.size_bytes,
        header.previous_end,
        header.oldest_needed,
        b"",
    )
    return fields + _CRC.pack(value(fields))


def decode_segment_header(data: bytes) -> tuple[int, SegmentHeader] | None:
    """(format version, header) where the checksum is right, else None."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    fields = data[: _SEGMENT_HEADER.size]
    if _CRC.unpack_from(data, _SEGMENT_HEADER.size)[0] != value(fields):
        return None
    magic, version, _, sequence, size_bytes, previous_end, oldest_needed, _ = _SEGMENT_HEADER.unpack(fields)
    if magic != SEGMENT_MAGIC:
        return None
    return version, SegmentHeader(sequence, size_bytes, previous_end, oldest_needed)


class BlockBuilder:
    """Encodes records as they come; copies no payload until `finish`."""

    __slots__ = ("_body_bytes", "_crc", "_parts", "_record_count")

    def __init__(self) -> None:
        self._parts: list[bytes] = [b""]
        self._crc = 0
        self._body_bytes = 0
        self._record_count = 0

    def add(self, group: int, records: Sequence[LogRecord]) -> None:
        """Append records of one group."""
        for record in records:
            data = b""
            if isinstance(record, SaveEntry):
                entry = record.entry
                data = entry.payload
                head = _RECORD.pack(_ENTRY, group, entry.position, entry.generation, len(data))
            elif isinstance(record, SaveState):
                data = record.data
                head = _RECORD.pack(_STATE, group, 0, 0, len(data))
            elif isinstance(record, TruncateFrom):
                head = _RECORD.pack(_TRUNCATE, group, record.position, 0, 0)
            elif isinstance(record, CompactedThrough):
                data = record.configuration
                head = _RECORD.pack(_COMPACTED, group, record.position, record.generation, len(data))
            else:
                head = _RECORD.pack(_OLDEST, group, record.sequence, 0, 0)
            self._parts.append(head)
            self._crc = extend(self._crc, head)
            if data:
                self._parts.append(data)
                self._crc = extend(self._crc, data)
            self._body_bytes += len(head) + len(data)
            self._record_count += 1

    def size_bytes(self) -> int:
        """Of the whole block, with header and padding."""
        return _aligned(BLOCK_HEADER_BYTES + self._body_bytes)

    def finish(self, kind: int, sequence: int, offset: int, durable_offset: int) -> bytes:
        """The block's bytes.  Raises ValueError where its records exceed 4 GiB."""
        if self._body_bytes > _MAX_BODY_BYTES:
            raise ValueError(f"{self._body_bytes} bytes in one write to the log; at most {_MAX_BODY_BYTES} are allowed")
        fields = _BLOCK_HEADER.pack(
            BLOCK_MAGIC, kind, 0, sequence, offset, durable_offset, self._record_count, self._body_bytes, self._crc
        )
        self._parts[0] = fields + _CRC.pack(value(fields))
        self._parts.append(bytes(-(BLOCK_HEADER_BYTES + self._body_bytes) % BLOCK_ALIGNMENT))
        return b"".join(self._parts)


def decode_block(data: bytes, sequence: int, offset: int) -> Block | BadBytes:
    """The block at an offset of a whole segment's bytes."""
    header = _decode_block_header(data, sequence, offset)
    if isinstance(header, BadBytes):
        return header
    kind, durable_offset, record_count, body_bytes, body_crc = header
    start = offset + BLOCK_HEADER_BYTES
    if start + body_bytes > len(data):
        return BadBytes(offset, f"a block of {body_bytes} bytes goes beyond the end of the file")
    body = data[start : start + body_bytes]
    if value(body) != body_crc:
        return BadBytes(offset, "the block's checksum is wrong")
    return Block(offset, kind, durable_offset, record_count, body, _aligned(start + body_bytes))


def durable_claims_after(data: bytes, sequence: int, offset: int) -> Iterator[tuple[int, int]]:
    """(offset, durable_offset) of every intact block header behind `offset`: what later writes vouch for."""
    found = data.find(BLOCK_MAGIC, offset)
    while found >= 0:
        if found % BLOCK_ALIGNMENT == 0:
            header = _decode_block_header(data, sequence, found)
            if not isinstance(header, BadBytes):
                yield found, header[1]
        found = data.find(BLOCK_MAGIC, found + 1)


def decode_records(block: Block) -> Iterator[tuple[int, int, LogRecord]]:
    """(offset in the file, group, record) of each record.

    Raises ValueError where the body, although its checksum is right, is not made of records.
    """
    body = block.body
    at = 0
    count = 0
    while at < len(body):
        if at + RECORD_HEADER_BYTES > len(body):
            raise ValueError(f"a record header is cut off {len(body) - at} bytes before the block's end")
        kind, group, position, generation, size = _RECORD.unpack_from(body, at)
        start = at + RECORD_HEADER_BYTES
        if start + size > len(body):
            raise ValueError(f"a record of {size} bytes goes beyond its block")
        record: LogRecord
        if kind == _ENTRY:
            record = SaveEntry(Entry(position, generation, body[start : start + size]))
        elif kind == _STATE:
            record = SaveState(body[start : start + size])
        elif kind == _TRUNCATE:
            record = TruncateFrom(position)
        elif kind == _COMPACTED:
            record = CompactedThrough(position, generation, body[start : start + size])
        elif kind == _OLDEST:
            record = OldestNeeded(position)
        else:
            raise ValueError(f"record of unknown kind {kind}")
        yield block.offset + BLOCK_HEADER_BYTES + at, group, record
        at = start + size
        count += 1
    if count != block.record_count:
        raise ValueError(f"the block holds {count} records and claims {block.record_count}")


def _decode_block_header(data: bytes, sequence: int, offset: int) -> tuple[int, int, int, int, int] | BadBytes:
    """(kind, durable offset, record count, body bytes, body CRC)."""
    if offset + BLOCK_HEADER_BYTES > len(data):
        return BadBytes(offset, "a block header goes beyond the end of the file")
    fields = data[offset : offset + _BLOCK_HEADER.size]
    magic, kind, _, own_sequence, own_offset, durable_offset, record_count, body_bytes, body_crc = _BLOCK_HEADER.unpack(
        fields
    )
    if magic != BLOCK_MAGIC:
        return BadBytes(offset, "no block begins here")
    if _CRC.unpack_from(data, offset + _BLOCK_HEADER.size)[0] != value(fields):
        return BadBytes(offset, "the block header's checksum is wrong")
    if (own_sequence, own_offset) != (sequence, offset):
        return BadBytes(offset, f"a block of segment {own_sequence}, offset {own_offset}, stands here")
    return kind, durable_offset, record_count, body_bytes, body_crc


def _aligned(size: int) -> int:
    return -(-size // BLOCK_ALIGNMENT) * BLOCK_ALIGNMENT
