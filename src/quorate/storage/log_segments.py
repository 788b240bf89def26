"""Segment files of a log: their names, and reading one from its start to where its blocks end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from quorate.storage.disk import Disk
from quorate.storage.log_blocks import (
    FORMAT_VERSION,
    SEGMENT_HEADER_BYTES,
    BadBytes,
    Block,
    SegmentHeader,
    decode_block,
    decode_segment_header,
    durable_claims_after,
)
from quorate.storage.log_errors import UnknownLogFormat

_NAME = re.compile(r"(\d{16})\.segment")


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One file of the log.  `spare` is the preallocated one after the segment that is being written."""

    sequence: int
    path: str
    size_bytes: int
    spare: bool = False


def segment_path(folder: str, sequence: int) -> str:
    return f"{folder}/{sequence:016d}.segment"


def segment_sequences(disk: Disk, folder: str) -> list[int]:
    """Sequence numbers of the segment files in a folder, ascending."""
    return sorted(int(match[1]) for name in disk.list(folder) if (match := _NAME.fullmatch(name)))


def read_whole(disk: Disk, path: str) -> bytes:
    file = disk.open(path)
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def read_segment_header(path: str, data: bytes, sequence: int) -> SegmentHeader | BadBytes:
    """The header at the start of a segment's bytes.  Raises UnknownLogFormat."""
    decoded = decode_segment_header(data)
    if decoded is None:
        return BadBytes(0, "the segment's header is damaged")
    version, header = decoded
    if version != FORMAT_VERSION:
        raise UnknownLogFormat(path, version, FORMAT_VERSION)
    if header.sequence != sequence:
        return BadBytes(0, f"the header says segment {header.sequence}, the file name says {sequence}")
    return header


def walk(data: bytes, sequence: int) -> Iterator[Block | BadBytes]:
    """All blocks up to the first bytes that are none, which come last."""
    offset = SEGMENT_HEADER_BYTES
    while isinstance(block := decode_block(data, sequence, offset), Block):
        yield block
        offset = block.end
    yield block


def nonzero_bytes_after(data: bytes, offset: int) -> int:
    """Bytes from `offset` through the last one that is not zero."""
    return len(data[offset:].rstrip(b"\0"))


def vouched_for(data: bytes, sequence: int, offset: int) -> bool:
    """True where an intact block behind `offset` says that bytes beyond `offset` were durable before it was written."""
    return any(durable > offset for _, durable in durable_claims_after(data, sequence, offset))
