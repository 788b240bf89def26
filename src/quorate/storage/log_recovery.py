"""Reading a log back: what its groups come to, and whether anything acknowledged is missing.

A write is acknowledged only after its sync.  Every block says how far its segment was
durable when it was written, and every segment's header says that all of the one before
was, and where that ended.  So bytes that are not a block are

- *damage* where a later intact block or segment vouches for them: they had been durable;
- a *torn tail* otherwise: a write that a crash cut off before its sync returned.  It was
  never acknowledged, and is cut.

The newest block is vouched for by nothing: if exactly it is damaged after its sync, that
looks like a torn tail.  An orderly stop closes this gap with a closing block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from quorate.consensus.records import CompactedThrough, Entry, Record, Recovered, SaveEntry, TruncateFrom
from quorate.storage.disk import Disk
from quorate.storage.log_blocks import (
    CLOSING_BLOCK,
    OPENING_BLOCK,
    RECORDS_BLOCK,
    SEGMENT_HEADER_BYTES,
    BadBytes,
    Block,
    LogRecord,
    OldestNeeded,
    SegmentHeader,
    decode_records,
)
from quorate.storage.log_errors import CorruptLog
from quorate.storage.log_groups import GroupMarks
from quorate.storage.log_segments import (
    nonzero_bytes_after,
    read_segment_header,
    read_whole,
    segment_path,
    segment_sequences,
    vouched_for,
    walk,
)


@dataclass(frozen=True, slots=True)
class TornTail:
    """The end of a write that never became durable: `bytes_cut` from `offset` on hold nothing acknowledged."""

    file: str
    offset: int
    bytes_cut: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """What `Log.open` found."""

    groups: dict[int, Recovered]
    """Groups of which nothing is recorded are not in it."""
    torn: TornTail | None
    fresh: bool
    """No segment had been begun.  Beside an existing identity that means a lost log, or a crash in the first start."""


@dataclass(slots=True)
class LogContents:
    """All that a log's segments come to.  Nothing on disk has been changed yet."""

    groups: dict[int, Recovered] = field(default_factory=dict)
    marks: dict[int, GroupMarks] = field(default_factory=dict)
    segments: dict[int, int] = field(default_factory=dict)
    """Sequence number to file size in bytes, of all segments that were begun and are needed."""
    leftovers: list[int] = field(default_factory=list)
    """Segments that were released before the crash and still lie there."""
    active: int | None = None
    """The newest segment that was begun."""
    end: int = 0
    """Where the next block goes in the active segment."""
    vouched_end: int = 0
    """The active segment was durable up to here when its newest block was written; nothing vouches for what follows."""
    not_begun: int | None = None
    """A file after the active one: the spare, or one whose first write was torn."""
    oldest_needed: int = 1
    torn: list[TornTail] = field(default_factory=list)
    """A crash leaves one at most; a file after the active one may hold stray bytes besides."""


def read_log(disk: Disk, folder: str) -> LogContents:
    """Read a whole log, one segment at a time.  Raises CorruptLog, UnknownLogFormat, OSError."""
    contents = LogContents()
    sequences = segment_sequences(disk, folder)
    if not sequences:
        return contents
    newest = _read_if_begun(disk, folder, sequences[-1], contents)
    if newest is None:
        contents.not_begun = sequences.pop()
        if not sequences:
            if contents.not_begun != 1:
                raise CorruptLog(segment_path(folder, contents.not_begun - 1), 0, "the segment is missing")
            return contents
        if sequences[-1] != contents.not_begun - 1:
            raise CorruptLog(segment_path(folder, contents.not_begun - 1), 0, "the segment is missing")
        newest = _read_if_begun(disk, folder, sequences[-1], contents)
        if newest is None:
            # The next file was created only after a sync of this one, so this one had been begun.
            raise CorruptLog(segment_path(folder, sequences[-1]), 0, "the segment's beginning is damaged")
    contents.active = sequences[-1]
    _replay_all(disk, folder, sequences, newest, contents)
    return contents


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest segment, read ahead for what it says about older ones."""

    header: SegmentHeader
    blocks: list[Block]
    size_bytes: int


def _read_if_begun(disk: Disk, folder: str, sequence: int, contents: LogContents) -> _Newest | None:
    """The last segment's blocks; None where it was not begun: blank, or its first write was torn."""
    path = segment_path(folder, sequence)
    data = read_whole(disk, path)
    header = read_segment_header(path, data, sequence)
    if isinstance(header, BadBytes):
        stopped_at = header
        blocks: list[Block] = []
    else:
        if header.size_bytes > len(data):
            raise CorruptLog(path, len(data), f"the file is cut off; it had {header.size_bytes} bytes")
        *found, last = walk(data, sequence)
        assert isinstance(last, BadBytes)
        stopped_at = last
        blocks = [block for block in found if isinstance(block, Block)]
    if vouched_for(data, sequence, stopped_at.offset):
        raise CorruptLog(path, stopped_at.offset, stopped_at.reason)
    cut_offset = stopped_at.offset if blocks else 0
    bytes_cut = nonzero_bytes_after(data, cut_offset)
    if bytes_cut:
        contents.torn.append(TornTail(path, cut_offset, bytes_cut))
    if isinstance(header, BadBytes) or not blocks:
        return None
    contents.end = stopped_at.offset
    contents.vouched_end = blocks[-1].durable_offset
    return _Newest(header, blocks, len(data))


def _replay_all(disk: Disk, folder: str, sequences: list[int], newest: _Newest, contents: LogContents) -> None:
    active = sequences[-1]
    active_path = segment_path(folder, active)
    oldest = newest.header.oldest_needed
    compacted: dict[int, int] = {}
    for block in newest.blocks:
        for _, group, record in _records(active_path, block):
            if isinstance(record, OldestNeeded):
                oldest = max(oldest, record.sequence)
            elif isinstance(record, CompactedThrough):
                compacted[group] = max(compacted.get(group, 0), record.position)
    contents.oldest_needed = oldest
    contents.leftovers = [sequence for sequence in sequences if sequence < oldest]
    present = set(sequences)
    for sequence in range(oldest, active):
        if sequence not in present:
            raise CorruptLog(segment_path(folder, sequence), 0, "the segment is missing")
    replay = _Replay(contents.marks, compacted)
    for sequence in range(oldest, active):
        end = _end_by_next(disk, folder, sequence, newest.header if sequence + 1 == active else None)
        contents.segments[sequence] = _replay_older(disk, folder, sequence, end, replay)
    for block in newest.blocks:
        _replay_block(active_path, block, active, replay)
    contents.segments[active] = newest.size_bytes
    contents.groups = replay.recovered()


def _end_by_next(disk: Disk, folder: str, sequence: int, next_header: SegmentHeader | None) -> int:
    """Where segment `sequence` ended, according to the header of the next one."""
    if next_header is None:
        path = segment_path(folder, sequence + 1)
        file = disk.open(path)
        try:
            header = read_segment_header(path, file.read_at(0, SEGMENT_HEADER_BYTES), sequence + 1)
        finally:
            file.close()
        if isinstance(header, BadBytes):
            raise CorruptLog(path, header.offset, header.reason)
        next_header = header
    return next_header.previous_end


def _replay_older(disk: Disk, folder: str, sequence: int, end: int, replay: _Replay) -> int:
    """Replay a segment that another one follows: every byte up to its end had been durable.  Returns its size."""
    path = segment_path(folder, sequence)
    data = read_whole(disk, path)
    header = read_segment_header(path, data, sequence)
    if isinstance(header, BadBytes):
        raise CorruptLog(path, header.offset, header.reason)
    for block in walk(data, sequence):
        if block.offset == end:
            return len(data)
        if isinstance(block, BadBytes):
            raise CorruptLog(path, block.offset, block.reason)
        _replay_block(path, block, sequence, replay)
    raise AssertionError("a walk ends with bad bytes")


def _replay_block(path: str, block: Block, sequence: int, replay: _Replay) -> None:
    for _, group, record in _records(path, block):
        if not isinstance(record, OldestNeeded):
            replay.add(group, record, sequence)


def _records(path: str, block: Block) -> Iterator[tuple[int, int, LogRecord]]:
    try:
        if block.kind not in (OPENING_BLOCK, RECORDS_BLOCK, CLOSING_BLOCK):
            raise ValueError(f"block of unknown kind {block.kind}")
        yield from decode_records(block)
    except ValueError as error:
        raise CorruptLog(path, block.offset, str(error)) from error


class _Replay:
    """Applies records in log order, holding only entries that the newest segment does not call compacted."""

    def __init__(self, marks: dict[int, GroupMarks], compacted: dict[int, int]) -> None:
        self._marks = marks
        self._compacted = compacted
        self._entries: dict[int, dict[int, Entry]] = {}

    def add(self, group: int, record: Record, sequence: int) -> None:
        marks = self._marks.get(group)
        if marks is None:
            marks = self._marks[group] = GroupMarks()
            self._entries[group] = {}
        marks.note(record, sequence)
        entries = self._entries[group]
        if isinstance(record, SaveEntry):
            if record.entry.position > self._compacted.get(group, 0):
                entries[record.entry.position] = record.entry
        elif isinstance(record, TruncateFrom):
            for position in [position for position in entries if position >= record.position]:
                del entries[position]

    def recovered(self) -> dict[int, Recovered]:
        """Groups that have anything: one whose entries were all truncated may be forgotten at any rotation."""
        groups = {}
        for group, marks in self._marks.items():
            found = sorted(self._entries[group].items())
            entries = tuple(entry for position, entry in found if position > marks.compacted.position)
            if entries or marks.state is not None or marks.compacted != CompactedThrough(0, 0):
                groups[group] = Recovered(marks.state, marks.compacted, entries)
        return groups
