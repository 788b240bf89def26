"""One write-ahead log a node, shared by its groups.

    log, recovery = Log.open(disk)
    log.append(group, records)      # gathers, in memory
    log.write()                     # one block, one write
    log.sync()                      # or: await log.sync_aside()
    ...                             # only now may a vote, an acknowledgement or a reply leave

The log is a row of preallocated segment files.  Each opens with every group's state, so a
segment is needed only as long as it holds an entry that some group has not compacted.  Room
is taken from the disk only when a segment is allocated, and one allocated segment always
lies in wait: the *spare*.  When no spare can be had, for want of space or of a free file
descriptor, `full` becomes true.  Callers then refuse new entries, while votes and other
small records still fit into the active segment.

Zeros are written ahead of the blocks, a piece at a time, and go to disk with the next sync.
Reserved space that was never written costs fdatasync a commit of the file system's journal
on its first use; zeros pay for that once for many blocks (docs/performance.md, "How to
sync").
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final, Self

from quorate.consensus.records import Record
from quorate.storage.disk import Disk, DiskFull, File
from quorate.storage.log_blocks import (
    BLOCK_HEADER_BYTES,
    CLOSING_BLOCK,
    OPENING_BLOCK,
    RECORDS_BLOCK,
    SEGMENT_HEADER_BYTES,
    BlockBuilder,
    LogRecord,
    OldestNeeded,
    SegmentHeader,
    encode_segment_header,
)
from quorate.storage.log_errors import LogSyncFailed
from quorate.storage.log_groups import GroupMarks
from quorate.storage.log_recovery import LogContents, Recovery, TornTail, read_log
from quorate.storage.log_segments import SegmentInfo, segment_path

DEFAULT_SEGMENT_BYTES: Final = 16 << 20
_ZEROS_AHEAD: Final = bytes(256 << 10)
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
"""Comes and goes with the connections of clients, and says nothing against what is on disk."""


class _Segment:
    """An open segment file."""

    __slots__ = ("durable_end", "end", "file", "sequence", "size_bytes", "zeroed_end")

    def __init__(self, sequence: int, file: File, size_bytes: int) -> None:
        self.sequence = sequence
        self.file = file
        self.size_bytes = size_bytes
        self.end = 0
        """Where the next block goes."""
        self.durable_end = 0
        """Everything before it is known to be durable."""
        self.zeroed_end = 0
        """Zeros were written up to here."""


class Log:
    """See the module head.  Not safe for use by several threads."""

    def __init__(self, disk: Disk, folder: str, segment_bytes: int) -> None:
        """Use `Log.open`."""
        self._disk = disk
        self._folder = folder
        self._segment_bytes = max(segment_bytes, SEGMENT_HEADER_BYTES + 2 * BLOCK_HEADER_BYTES)
        self._active: _Segment
        self._spare: _Segment | None = None
        self._older: dict[int, int] = {}
        self._marks: dict[int, GroupMarks] = {}
        self._oldest_needed = 1
        self._missing_allowed: tuple[int, int, int] | None = None
        """(n, segment, offset): segments before n may be deleted once that segment is durable up to there."""
        self._gathered: list[tuple[int, Sequence[LogRecord]]] = []
        self._no_room: OSError | None = None
        """Why no spare could be had at the last try."""
        self._failure: OSError | None = None

    @classmethod
    def open(
        cls, disk: Disk, folder: str = "log", *, segment_bytes: int = DEFAULT_SEGMENT_BYTES
    ) -> tuple[Self, Recovery]:
        """Read the log back, cut a torn tail, and go on where it ended.

        Raises CorruptLog where acknowledged bytes may be missing or damaged (nothing on
        disk is changed then), UnknownLogFormat, DiskFull where not even the first segment
        of a new log fits, LogSyncFailed, OSError.
        """
        disk.make_folder(folder)
        contents = read_log(disk, folder)
        log = cls(disk, folder, segment_bytes)
        try:
            log._resume(contents)
        except DiskFull:
            raise
        except OSError as error:
            raise LogSyncFailed(f"the log could not be made ready: {error}") from error
        return log, Recovery(contents.groups, next(iter(contents.torn), None), contents.active is None)

    # --- writing -----------------------------------------------------------------------------

    def append(self, group: int, records: Sequence[Record]) -> None:
        """Gather records for the next `write`.  The sequence must not change until then."""
        if records:
            self._gathered.append((group, records))

    def write(self) -> None:
        """Write all gathered records as one block; recovery will see all of them or none.

        Raises DiskFull where a new segment is needed and cannot be had: nothing was
        written then, and the records stay gathered.  Raises LogSyncFailed.
        """
        if not self._gathered:
            return
        self._check_usable()
        builder = BlockBuilder()
        for group, records in self._gathered:
            builder.add(group, records)
        size_bytes = builder.size_bytes()
        prefix = b""
        if self._active.end + size_bytes > self._active.size_bytes:
            prefix = self._rotate(size_bytes)
        active = self._active
        block_offset = active.end + len(prefix)
        block = builder.finish(RECORDS_BLOCK, active.sequence, block_offset, active.durable_end)
        self._write_active(prefix + block if prefix else block)
        for group, records in self._gathered:
            for record in records:
                if isinstance(record, OldestNeeded):
                    self._missing_allowed = (record.sequence, active.sequence, active.end)
                else:
                    self._marks_of(group).note(record, active.sequence)
        self._gathered = []

    def sync(self) -> None:
        """Return once everything written is durable.  Raises LogSyncFailed: stop the node then, never retry."""
        self._check_usable()
        active = self._active
        end = active.end
        try:
            if end != active.durable_end:
                active.file.sync()
                self._became_durable(active, end)
        except OSError as error:
            raise self._failed(error) from error

    async def sync_aside(self) -> None:
        """`sync` without stopping the loop.  Covers what was written before the call; more may be written meanwhile."""
        self._check_usable()
        active = self._active
        end = active.end
        try:
            if end != active.durable_end:
                await active.file.sync_aside()
                self._became_durable(active, end)
        except OSError as error:
            raise self._failed(error) from error

    def commit(self) -> None:
        """`write` and `sync`."""
        self.write()
        self.sync()

    # --- room --------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """True while no spare segment can be allocated: refuse new entries.  `try_allocate` finds out anew."""
        return self._no_room is not None

    @property
    def why_full(self) -> OSError | None:
        """What kept the spare from being allocated: no space, or no file descriptor."""
        return self._no_room

    def room_bytes(self) -> int:
        """What entries may still take while `full`: an eighth of the active segment stays for small records."""
        active = self._active
        gathered = BlockBuilder()
        for group, records in self._gathered:
            gathered.add(group, records)
        return active.size_bytes - active.size_bytes // 8 - active.end - gathered.size_bytes()

    def try_allocate(self) -> bool:
        """Allocate the spare segment if there is none; False where there is no room, or no descriptor, for one.

        Call it now and then while `full`.  Raises LogSyncFailed.
        """
        self._check_usable()
        if self._spare is None:
            sequence = self._active.sequence + 1
            try:
                self._spare = self._create(sequence)
            except OSError as error:
                if not isinstance(error, DiskFull) and error.errno not in _NO_DESCRIPTOR:
                    raise self._failed(error) from error
                self._no_room = error
                return False
        self._no_room = None
        return True

    def size_bytes(self) -> int:
        """Disk space taken by all segments, the spare included."""
        return sum(segment.size_bytes for segment in self.segments())

    def segments(self) -> list[SegmentInfo]:
        """All segment files, oldest first."""
        found = [
            SegmentInfo(sequence, segment_path(self._folder, sequence), size_bytes)
            for sequence, size_bytes in self._older.items()
        ]
        for segment in (self._active, self._spare):
            if segment is not None:
                path = segment_path(self._folder, segment.sequence)
                found.append(SegmentInfo(segment.sequence, path, segment.size_bytes, segment is self._spare))
        return found

    def pinned_by(self) -> int | None:
        """The group that needs the oldest segment, if that is not the active one: snapshot it to free the segment."""
        pins = [(marks.oldest_needed() or self._active.sequence, group) for group, marks in self._marks.items()]
        oldest, group = min(pins, default=(self._active.sequence, 0))
        return group if oldest < self._active.sequence else None

    def release(self) -> int:
        """Give up the segments that no group needs; returns how many.

        They are deleted after the next sync, which makes durable that they may be missing.
        """
        needed = min(
            (marks.oldest_needed() or self._active.sequence for marks in self._marks.values()),
            default=self._active.sequence,
        )
        released = sum(self._oldest_needed <= sequence < needed for sequence in self._older)
        if released:
            self._oldest_needed = needed
            self._gathered.append((0, [OldestNeeded(needed)]))
        return released

    def close(self) -> None:
        """Write and sync what was gathered, vouch for it with a closing block, and close the files.

        Raises DiskFull where what was gathered found no room: it is lost, and nothing rests on it yet.
        Raises LogSyncFailed.  After a failed sync it only closes the files.
        """
        try:
            if self._failure is None:
                try:
                    self.write()
                finally:
                    self._vouch_for_all()
        finally:
            for segment in (self._active, self._spare):
                if segment is not None:
                    segment.file.close()

    # --- inside ------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise LogSyncFailed(f"the log failed before: {self._failure}") from self._failure

    def _failed(self, error: OSError) -> LogSyncFailed:
        self._failure = error
        return LogSyncFailed(f"the log could not be written to disk: {error}")

    def _marks_of(self, group: int) -> GroupMarks:
        marks = self._marks.get(group)
        if marks is None:
            marks = self._marks[group] = GroupMarks()
        return marks

    def _write_active(self, data: bytes) -> None:
        active = self._active
        try:
            active.file.write_at(active.end, data)
            active.end += len(data)
            if active.zeroed_end < active.end < active.size_bytes:
                self._write_zeros_ahead(active)
        except OSError as error:
            # Even DiskFull: the space was reserved, and how much was written is unknown.
            raise self._failed(error) from error

    def _write_zeros_ahead(self, active: _Segment) -> None:
        ahead = _ZEROS_AHEAD[: active.size_bytes - active.end]
        try:
            active.file.write_at(active.end, ahead)
            active.zeroed_end = active.end + len(ahead)
        except DiskFull:
            # A file system that copies on write reserves nothing.  The zeros are only for speed.
            active.zeroed_end = active.size_bytes

    def _rotate(self, block_bytes: int) -> bytes:
        """Make the spare the active segment; returns the bytes to write before its first block."""
        old = self._active
        if old.end != old.durable_end:
            # The new segment's header vouches for all of the old one.
            self.sync()
        opening = BlockBuilder()
        for group, marks in self._marks.items():
            opening.add(group, marks.opening_records())
        needed_bytes = SEGMENT_HEADER_BYTES + opening.size_bytes() + block_bytes
        if not self.try_allocate():
            raise DiskFull(f"no room for segment {old.sequence + 1} of the log: {self._no_room}") from self._no_room
        spare = self._spare
        assert spare is not None
        if spare.size_bytes < needed_bytes:
            spare.file.allocate(needed_bytes)
            try:
                spare.file.sync()
            except OSError as error:
                raise self._failed(error) from error
            spare.size_bytes = needed_bytes
        header = SegmentHeader(spare.sequence, spare.size_bytes, old.end, self._oldest_needed)
        self._older[old.sequence] = old.size_bytes
        self._active = spare
        self._spare = None
        old.file.close()
        return encode_segment_header(header) + opening.finish(OPENING_BLOCK, spare.sequence, SEGMENT_HEADER_BYTES, 0)

    def _became_durable(self, segment: _Segment, end: int) -> None:
        """After a sync of the bytes before `end`.  Raises OSError."""
        segment.durable_end = max(segment.durable_end, end)
        if segment is not self._active:
            return
        if self._missing_allowed is not None:
            needed, sequence, offset = self._missing_allowed
            if (self._active.sequence, self._active.durable_end) >= (sequence, offset):
                self._delete_before(needed)
                self._missing_allowed = None
        if self._spare is None and self._no_room is None:
            self.try_allocate()

    def _delete_before(self, needed: int) -> None:
        """Not followed by a sync of the folder: a name that comes back after a crash is known not to be needed."""
        for sequence in [sequence for sequence in self._older if sequence < needed]:
            self._disk.remove(segment_path(self._folder, sequence))
            del self._older[sequence]

    def _vouch_for_all(self) -> None:
        """Sync, and say so in a closing block."""
        self.sync()
        active = self._active
        if active.end + BLOCK_HEADER_BYTES > active.size_bytes:
            return
        self._write_active(BlockBuilder().finish(CLOSING_BLOCK, active.sequence, active.end, active.durable_end))
        try:
            active.file.sync()
        except OSError as error:
            raise self._failed(error) from error

    def _create(self, sequence: int) -> _Segment:
        """Create and preallocate a segment file, durably; one that is there and blank will do.

        Raises DiskFull, and leaves no file behind then; OSError, after which a later try may find a blank file.
        """
        path = segment_path(self._folder, sequence)
        file = self._disk.open(path, create=True)
        try:
            file.allocate(self._segment_bytes)
            file.sync()
            self._disk.sync_folder(self._folder)
        except OSError as error:
            file.close()
            if isinstance(error, DiskFull):
                self._disk.remove(path)
            raise
        return _Segment(sequence, file, max(self._segment_bytes, file.size()))

    def _resume(self, contents: LogContents) -> None:
        """Make the disk agree with what was read, and open the files.  Raises OSError."""
        for sequence in contents.leftovers:
            self._disk.remove(segment_path(self._folder, sequence))
        for torn in contents.torn:
            self._cut(torn)
        self._disk.sync_folder(self._folder)
        self._marks = contents.marks
        self._oldest_needed = contents.oldest_needed
        if contents.active is None:
            self._active = self._create(1)
            opening = BlockBuilder().finish(OPENING_BLOCK, 1, SEGMENT_HEADER_BYTES, 0)
            header = SegmentHeader(1, self._active.size_bytes, 0, 1)
            self._active.file.write_at(0, encode_segment_header(header) + opening)
            self._active.end = SEGMENT_HEADER_BYTES + len(opening)
        else:
            sizes = dict(contents.segments)
            size_bytes = sizes.pop(contents.active)
            self._older = sizes
            file = self._disk.open(segment_path(self._folder, contents.active))
            self._active = _Segment(contents.active, file, size_bytes)
            self._active.end = contents.end
            # What was read may have come from the page cache.  After a sync that failed, Linux takes the pages for
            # clean: the next sync would say that all is well, and a loss of power would still take them.
            unvouched = file.read_at(contents.vouched_end, contents.end - contents.vouched_end)
            file.write_at(contents.vouched_end, unvouched)
        # And a process that was killed does not sync.
        self._active.file.sync()
        self._active.durable_end = self._active.end
        self.try_allocate()

    def _cut(self, torn: TornTail) -> None:
        """Zero a torn tail, so that no half of it is ever taken for something."""
        file = self._disk.open(torn.file)
        try:
            file.write_at(torn.offset, bytes(torn.bytes_cut))
            file.sync()
        finally:
            file.close()
