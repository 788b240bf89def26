"""Reading a log for people: every record, and everything that is wrong, changing nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

from quorate.consensus.records import CompactedThrough, SaveEntry, SaveState, TruncateFrom
from quorate.storage.disk import Disk
from quorate.storage.log_blocks import (
    CLOSING_BLOCK,
    SEGMENT_HEADER_BYTES,
    BadBytes,
    Block,
    LogRecord,
    decode_block,
    decode_records,
    durable_claims_after,
)
from quorate.storage.log_recovery import TornTail
from quorate.storage.log_segments import (
    nonzero_bytes_after,
    read_segment_header,
    read_whole,
    segment_path,
    segment_sequences,
    vouched_for,
)


@dataclass(frozen=True, slots=True)
class InspectedSegment:
    """A segment file begins.  `begun` is false for the spare."""

    file: str
    sequence: int
    size_bytes: int
    begun: bool


@dataclass(frozen=True, slots=True)
class InspectedRecord:
    """A record whose block's checksum is right.

    `kind` is "state", "entry", "truncate", "compacted", or one of the log's own: "oldest"
    (segments before `position` may be missing) and "closed" (an orderly stop).  What a
    kind does not have is 0.  `length` is that of the state, payload or configuration in bytes.
    """

    file: str
    offset: int
    group: int
    kind: str
    position: int
    generation: int
    length: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that may have been acknowledged are missing or damaged from `offset` on."""

    file: str
    offset: int
    reason: str


Inspected: TypeAlias = InspectedSegment | InspectedRecord | Damage | TornTail


def inspect(disk: Disk, folder: str = "log") -> Iterator[Inspected]:
    """Everything in a log, in order; goes on behind damage.  Raises UnknownLogFormat, OSError."""
    sequences = segment_sequences(disk, folder)
    for sequence, next_sequence in zip_longest(sequences, sequences[1:]):
        path = segment_path(folder, sequence)
        data = read_whole(disk, path)
        yield from _inspect_segment(path, data, sequence, _stated_end(disk, folder, next_sequence))
        if next_sequence is not None:
            for missing in range(sequence + 1, next_sequence):
                yield Damage(segment_path(folder, missing), 0, "the segment is missing")


def _stated_end(disk: Disk, folder: str, next_sequence: int | None) -> int | None:
    """Where a segment ended according to the next one, if that was begun."""
    if next_sequence is None:
        return None
    path = segment_path(folder, next_sequence)
    file = disk.open(path)
    try:
        header = read_segment_header(path, file.read_at(0, SEGMENT_HEADER_BYTES), next_sequence)
    finally:
        file.close()
    return None if isinstance(header, BadBytes) else header.previous_end


def _inspect_segment(path: str, data: bytes, sequence: int, end: int | None) -> Iterator[Inspected]:
    header = read_segment_header(path, data, sequence)
    yield InspectedSegment(path, sequence, len(data), not isinstance(header, BadBytes))
    offset: int | None = SEGMENT_HEADER_BYTES
    if isinstance(header, BadBytes):
        if not nonzero_bytes_after(data, 0):
            return
        if end is None and not vouched_for(data, sequence, 0):
            yield TornTail(path, 0, nonzero_bytes_after(data, 0))
            return
        yield Damage(path, 0, header.reason)
    elif len(data) < header.size_bytes:
        yield Damage(path, len(data), f"the file is cut off; it had {header.size_bytes} bytes")
    while offset is not None and (end is None or offset < end):
        block = decode_block(data, sequence, offset)
        if isinstance(block, Block):
            yield from _inspect_block(path, block)
            offset = block.end
            continue
        if end is None and not vouched_for(data, sequence, offset):
            remaining_bytes = nonzero_bytes_after(data, offset)
            if remaining_bytes:
                yield TornTail(path, offset, remaining_bytes)
            return
        yield Damage(path, offset, block.reason)
        offset = next((start for start, _ in durable_claims_after(data, sequence, offset + 1)), None)


def _inspect_block(path: str, block: Block) -> Iterator[Inspected]:
    if block.kind == CLOSING_BLOCK:
        yield InspectedRecord(path, block.offset, 0, "closed", 0, 0, 0)
    try:
        for offset, group, record in decode_records(block):
            yield InspectedRecord(path, offset, group, *_describe(record))
    except ValueError as error:
        yield Damage(path, block.offset, str(error))


def _describe(record: LogRecord) -> tuple[str, int, int, int]:
    """(kind, position, generation, length)."""
    if isinstance(record, SaveEntry):
        return "entry", record.entry.position, record.entry.generation, len(record.entry.payload)
    if isinstance(record, SaveState):
        return "state", 0, 0, len(record.data)
    if isinstance(record, TruncateFrom):
        return "truncate", record.position, 0, 0
    if isinstance(record, CompactedThrough):
        return "compacted", record.position, record.generation, len(record.configuration)
    return "oldest", record.sequence, 0, 0
