"""Snapshot files: one per group and position, written beside other work, verified whenever they are read.

A file is a header, a frame for each slice in the order and with the bounds in which the
store gave them, and an end frame that counts them; byte layouts in docs/storage.md.  A
snapshot appears under its name only when all of it is durable, so a crash leaves at most
a `.partial` file, which the next start removes.

Large writes are handed to the device every few MiB: one sync of some hundred MB at the
end would hold up the log's own syncs on the same disk.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from google_crc32c import extend, value

from quorate.storage.disk import Disk, DiskFull, File

FORMAT_VERSION: Final = 1
_MAGIC: Final = b"QUORSNAP"
_HEADER: Final = struct.Struct("<8sIIQQ32s")
_CRC: Final = struct.Struct("<I")
_FRAME: Final = struct.Struct("<II")
_SLICE, _END = 1, 2
_END_BODY: Final = struct.Struct("<QQ")
_MAX_SLICE_BYTES: Final = 1 << 30
_NAME: Final = re.compile(r"(\d+)-(\d{20})-(\d{20})-([a-z0-9_]{1,32})\.snapshot")
_PARTIAL: Final = ".partial"

WRITE_BACK_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 20


class CorruptSnapshot(Exception):
    """A snapshot file is damaged or not what its name says.  `file` is relative to the data folder."""

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(f"{file} at offset {offset}: {reason}")
        self.file = file
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A finished snapshot: of which group and service, and the position and generation of its last entry."""

    group: int
    position: int
    generation: int
    service: str
    size_bytes: int
    path: str


class Snapshots:
    """The snapshot folder of a node.  Opening it removes what a crash left unfinished."""

    def __init__(self, disk: Disk, folder: str = "snapshots") -> None:
        self._disk = disk
        self.folder = folder
        self._partial_count = 0
        disk.make_folder(folder)
        for name in disk.list(folder):
            if name.endswith(_PARTIAL):
                disk.remove(f"{folder}/{name}")

    def all(self, group: int) -> list[SnapshotInfo]:
        """The group's snapshots, newest first."""
        found = []
        for name in self._disk.list(self.folder):
            match = _NAME.fullmatch(name)
            if match is not None and int(match[1]) == group:
                path = f"{self.folder}/{name}"
                file = self._disk.open(path)
                size_bytes = file.size()
                file.close()
                found.append(SnapshotInfo(group, int(match[2]), int(match[3]), match[4], size_bytes, path))
        return sorted(found, key=lambda info: info.position, reverse=True)

    def newest(self, group: int) -> SnapshotInfo | None:
        return next(iter(self.all(group)), None)

    def create(self, group: int, position: int, generation: int, service: str) -> SnapshotWriter:
        """Begin a snapshot of this node's own.  Raises DiskFull, OSError."""
        path = snapshot_path(self.folder, group, position, generation, service)
        info = SnapshotInfo(group, position, generation, service, 0, path)
        return SnapshotWriter(self._disk, self.folder, info, self._partial_path(info))

    def receive(self, group: int, position: int, generation: int, size_bytes: int, service: str) -> Receiver:
        """Begin to take a snapshot file from a peer.  Raises DiskFull where it does not fit, OSError."""
        path = snapshot_path(self.folder, group, position, generation, service)
        info = SnapshotInfo(group, position, generation, service, size_bytes, path)
        return Receiver(self._disk, self.folder, info, self._partial_path(info))

    def open(self, info: SnapshotInfo) -> Generator[bytes]:
        """The slices, as they were written.  Raises CorruptSnapshot as soon as something is wrong, OSError."""
        file = self._disk.open(info.path)
        try:
            yield from read_slices(file, info, info.path)
        finally:
            file.close()

    def open_file(self, info: SnapshotInfo) -> File:
        """The file as it is, to send its bytes to a peer; close it.  Raises FileNotFoundError, OSError.

        What was opened stays readable when `remove_older` takes the name away meanwhile.
        """
        return self._disk.open(info.path)

    def remove_older(self, group: int, keep_position: int) -> None:
        """Remove the group's snapshots of positions before `keep_position`."""
        for info in self.all(group):
            if info.position < keep_position:
                self._disk.remove(info.path)

    def _partial_path(self, info: SnapshotInfo) -> str:
        """A name that no other unfinished file has: a node may come to write, or get, one snapshot twice at a time."""
        self._partial_count += 1
        return f"{info.path}.{self._partial_count}{_PARTIAL}"


class SnapshotWriter:
    """Writes one snapshot; nothing is seen of it before `finish`.  End it with `finish` or `abandon`."""

    def __init__(self, disk: Disk, folder: str, info: SnapshotInfo, partial_path: str) -> None:
        """Use `Snapshots.create`."""
        self._disk = disk
        self._folder = folder
        self._info = info
        self._partial_path = partial_path
        self._file = disk.open(partial_path, create=True)
        self._offset = 0
        self._unsynced_bytes = 0
        self._slice_count = 0
        self._slice_bytes = 0
        header = _encode_header(info)
        self._crc = value(header)
        """Of the header and all frames so far: each frame's checksum goes on from the one before, so order counts."""
        try:
            self._put(header + _CRC.pack(self._crc))
        except OSError:
            self.abandon()
            raise

    async def write(self, slice_: bytes) -> None:
        """Append a slice; now and then wait for the device.  Raises DiskFull, OSError: abandon it then."""
        if len(slice_) > _MAX_SLICE_BYTES:
            raise ValueError(f"a slice of {len(slice_)} bytes; at most {_MAX_SLICE_BYTES} are allowed")
        self._put_frame(_SLICE, slice_)
        self._slice_count += 1
        self._slice_bytes += len(slice_)
        if self._unsynced_bytes >= WRITE_BACK_BYTES:
            self._unsynced_bytes = 0
            await self._file.sync_aside()

    async def finish(self) -> SnapshotInfo:
        """Make the snapshot durable and give it its name.  Raises DiskFull, OSError: abandon it then."""
        self._put_frame(_END, _END_BODY.pack(self._slice_count, self._slice_bytes))
        await self._file.sync_aside()
        self._file.close()
        self._disk.rename(self._partial_path, self._info.path)
        self._disk.sync_folder(self._folder)
        info = self._info
        return SnapshotInfo(info.group, info.position, info.generation, info.service, self._offset, info.path)

    def abandon(self) -> None:
        """Remove what was written; after `finish` nothing happens."""
        self._file.close()
        if self._disk.exists(self._partial_path):
            self._disk.remove(self._partial_path)

    def _put_frame(self, kind: int, body: bytes) -> None:
        head = _FRAME.pack(len(body), kind)
        self._crc = extend(extend(self._crc, head), body)
        self._put(b"".join((head, _CRC.pack(self._crc), body)))

    def _put(self, data: bytes) -> None:
        self._file.write_at(self._offset, data)
        self._offset += len(data)
        self._unsynced_bytes += len(data)


class Receiver:
    """Takes a snapshot file from a peer, chunk by chunk, and believes none of it before `finish`."""

    def __init__(self, disk: Disk, folder: str, info: SnapshotInfo, partial_path: str) -> None:
        """Use `Snapshots.receive`."""
        if info.size_bytes > disk.free_bytes():
            raise DiskFull(f"no room for a snapshot of {info.size_bytes} bytes")
        self._disk = disk
        self._folder = folder
        self._info = info
        self._partial_path = partial_path
        self._file = disk.open(partial_path, create=True)
        self._unsynced_bytes = 0
        self._write_back: asyncio.Task[None] | None = None
        try:
            self._file.allocate(info.size_bytes)
        except OSError:
            self.abandon()
            raise

    def write(self, offset: int, data: bytes) -> None:
        """Store a chunk.  Raises OSError.  Chunks that are missing or wrong are found by `finish`."""
        self._file.write_at(offset, data)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= WRITE_BACK_BYTES and (self._write_back is None or self._write_back.done()):
            if self._write_back is not None:
                self._write_back.result()
            self._unsynced_bytes = 0
            self._write_back = asyncio.get_running_loop().create_task(self._file.sync_aside())

    async def finish(self) -> SnapshotInfo:
        """Verify every checksum, make the file durable and give it its name.

        Raises CorruptSnapshot where it is not the announced snapshot, OSError; the file is gone then.
        """
        try:
            if self._write_back is not None:
                await self._write_back
            if self._file.size() != self._info.size_bytes:
                reason = f"{self._file.size()} bytes came, {self._info.size_bytes} were announced"
                raise CorruptSnapshot(self._partial_path, self._info.size_bytes, reason)
            seen_bytes = 0
            for slice_ in read_slices(self._file, self._info, self._partial_path):
                seen_bytes += len(slice_)
                if seen_bytes >= _READ_BYTES:
                    seen_bytes = 0
                    await asyncio.sleep(0)
            await self._file.sync_aside()
            self._file.close()
            self._disk.rename(self._partial_path, self._info.path)
            self._disk.sync_folder(self._folder)
        except BaseException:
            self.abandon()
            raise
        return self._info

    def abandon(self) -> None:
        """Remove what came; after `finish` nothing happens."""
        if self._write_back is not None:
            self._write_back.cancel()
        self._file.close()
        if self._disk.exists(self._partial_path):
            self._disk.remove(self._partial_path)


def snapshot_path(folder: str, group: int, position: int, generation: int, service: str) -> str:
    name = f"{group}-{position:020d}-{generation:020d}-{service}.snapshot"
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"not a snapshot's name: {name!r}")
    return f"{folder}/{name}"


def _encode_header(info: SnapshotInfo) -> bytes:
    return _HEADER.pack(
        _MAGIC, FORMAT_VERSION, info.group, info.position, info.generation, info.service.encode("ascii")
    )


class Readable(Protocol):
    """What verifying a snapshot needs of a file."""

    def read_at(self, offset: int, size: int) -> bytes: ...


class _Reader:
    """Reads a file forward in large pieces."""

    def __init__(self, file: Readable, path: str) -> None:
        self._file = file
        self._path = path
        self._buffer = b""
        self._at = 0
        self.offset = 0
        """Of the next byte that `take` returns."""

    def take(self, size: int) -> bytes:
        if len(self._buffer) - self._at < size:
            rest = self._buffer[self._at :]
            more = self._file.read_at(self.offset + len(rest), max(size, _READ_BYTES) - len(rest))
            self._buffer = rest + more
            self._at = 0
            if len(self._buffer) < size:
                raise CorruptSnapshot(self._path, self.offset + len(self._buffer), "the file is cut off")
        data = self._buffer[self._at : self._at + size]
        self._at += size
        self.offset += size
        return data


def read_slices(file: Readable, info: SnapshotInfo, path: str) -> Iterator[bytes]:
    """The slices of a snapshot file; `path` is for errors.  Raises CorruptSnapshot as soon as something is wrong."""
    reader = _Reader(file, path)
    header = reader.take(_HEADER.size)
    magic, version, group, position, generation, service = _HEADER.unpack(header)
    crc = value(header)
    if magic != _MAGIC or reader.take(_CRC.size) != _CRC.pack(crc):
        raise CorruptSnapshot(path, 0, "the header is damaged")
    if version != FORMAT_VERSION:
        raise CorruptSnapshot(path, 0, f"snapshot format {version}; this version of Quorate reads {FORMAT_VERSION}")
    found = (group, position, generation, service.rstrip(b"\0").decode("ascii", "replace"))
    if found != (info.group, info.position, info.generation, info.service):
        raise CorruptSnapshot(path, 0, f"the header says group, position, generation, service {found}")
    slice_count = slice_bytes = 0
    while True:
        start = reader.offset
        head = reader.take(_FRAME.size)
        length, kind = _FRAME.unpack(head)
        stated_crc = reader.take(_CRC.size)
        if kind not in (_SLICE, _END) or length > _MAX_SLICE_BYTES:
            raise CorruptSnapshot(path, start, "no frame begins here")
        if reader.offset + length > info.size_bytes:
            raise CorruptSnapshot(path, start, f"a frame of {length} bytes goes beyond the end of the file")
        body = reader.take(length)
        crc = extend(extend(crc, head), body)
        if stated_crc != _CRC.pack(crc):
            raise CorruptSnapshot(path, start, "the frame's checksum is wrong")
        if kind == _END:
            break
        slice_count += 1
        slice_bytes += length
        yield body
    if body != _END_BODY.pack(slice_count, slice_bytes):
        raise CorruptSnapshot(
            path, start, f"{slice_count} slices of {slice_bytes} bytes precede an end frame of others"
        )
    if reader.offset != info.size_bytes:
        raise CorruptSnapshot(path, reader.offset, "the file goes on after its end frame")
