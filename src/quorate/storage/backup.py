"""A backup: a cluster's snapshots in one file that is believed only when all of it is right.

    encoder = BackupEncoder()                       # on a node; every call returns bytes to send on
    encoder.begin(header)
    for frame in encoder.snapshot(info, file): ...
    encoder.finish()

    receiver = BackupReceiver(path)                 # where it is kept
    receiver.write(data)
    receiver.finish()                               # verified, durable, and only now under its name

    inspect(path)                                   # verifies everything again
    await unpack(path, disk)                        # for `rebuild.start_over`

The file is a row of frames.  Each one's checksum goes on from those before it, so the last
frame's covers the whole file, and a cut, a swap or a flipped bit anywhere is found.  What
the snapshots themselves say of their own bytes is verified as well: a snapshot that was
damaged on the node's disk must not be found out on the day when it is needed.  Layout in
docs/storage.md.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from google_crc32c import extend, value

from quorate.storage.disk import Disk
from quorate.storage.identity import Identity
from quorate.storage.rebuild import STAGED_SNAPSHOTS, discard_staged
from quorate.storage.snapshots import CorruptSnapshot, Readable, SnapshotInfo, Snapshots, read_slices, snapshot_path

FORMAT_VERSION: Final = 1
CHUNK_BYTES: Final = 256 << 10
"""Of a snapshot in one frame; only a snapshot's last chunk is shorter."""

_MAGIC: Final = b"QUORBKUP"
_START: Final = struct.Struct("<8sI")
_FRAME: Final = struct.Struct("<II")
_CRC: Final = struct.Struct("<I")
_FRAME_HEAD_BYTES: Final = _FRAME.size + _CRC.size
_HEADER, _GROUP, _CHUNK, _END = 1, 2, 3, 4
_MAX_BODY_BYTES: Final = 16 << 20
_PARTIAL: Final = ".partial"

T = TypeVar("T")


class CorruptBackup(Exception):
    """The file is not a whole and intact backup.  `offset` is in bytes from the file's start."""

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(f"{file} at offset {offset}: {reason}")
        self.file = file
        self.offset = offset
        self.reason = reason


class FolderNotEmpty(Exception):
    """The data folder is not empty: a backup is unpacked into a folder without any state."""


class BackupHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of which cluster, and when."""

    created_ms: int
    """Unix time."""
    quorate_version: str
    cluster: str
    cluster_id: str
    protocol: str
    members: bytes
    """The cluster group's list of members, opaque here."""


class BackupGroup(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One group's snapshot."""

    group: int
    service: str
    position: int
    generation: int
    size_bytes: int


class BackupInfo(msgspec.Struct, frozen=True):
    """What a verified backup holds."""

    header: BackupHeader
    groups: tuple[BackupGroup, ...]
    size_bytes: int
    """Of the whole file."""


class _End(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    groups: int
    snapshot_bytes: int
    file_bytes: int
    """Before this frame."""


class BackupEncoder:
    """Turns snapshots into the bytes of a backup, in order: `begin`, then `snapshot` of each group, then `finish`."""

    def __init__(self) -> None:
        self._crc = 0
        self._file_bytes = 0
        self._snapshot_bytes = 0
        self._groups: dict[int, BackupGroup] = {}

    def begin(self, header: BackupHeader) -> bytes:
        assert not self._file_bytes, "a backup has one header"
        start = _START.pack(_MAGIC, FORMAT_VERSION)
        self._crc = value(start)
        self._file_bytes = len(start)
        return start + self._frame(_HEADER, msgspec.msgpack.encode(header))

    def snapshot(self, info: SnapshotInfo, file: Readable) -> Iterator[bytes]:
        """A snapshot file as it is, in pieces of about `CHUNK_BYTES`; consume all of them.  Raises OSError.

        Raises ValueError where the file is shorter than `info` says: end the backup there.
        """
        assert info.group not in self._groups, f"two snapshots of group {info.group}"
        group = BackupGroup(info.group, info.service, info.position, info.generation, info.size_bytes)
        self._groups[info.group] = group
        yield self._frame(_GROUP, msgspec.msgpack.encode(group))
        for offset in range(0, info.size_bytes, CHUNK_BYTES):
            expected_bytes = min(CHUNK_BYTES, info.size_bytes - offset)
            chunk = file.read_at(offset, expected_bytes)
            if len(chunk) != expected_bytes:
                raise ValueError(f"{info.path} ends at {offset + len(chunk)}, not at {info.size_bytes} bytes")
            self._snapshot_bytes += len(chunk)
            yield self._frame(_CHUNK, chunk)

    def finish(self) -> bytes:
        end = _End(len(self._groups), self._snapshot_bytes, self._file_bytes)
        return self._frame(_END, msgspec.msgpack.encode(end))

    def _frame(self, kind: int, body: bytes) -> bytes:
        assert self._file_bytes, "a backup begins with its header"
        head = _FRAME.pack(len(body), kind)
        self._crc = extend(extend(self._crc, head), body)
        self._file_bytes += _FRAME_HEAD_BYTES + len(body)
        return b"".join((head, _CRC.pack(self._crc), body))


class BackupReceiver:
    """Writes a backup beside the path that it is to have.  End it with `finish` or `abandon`."""

    def __init__(self, path: Path) -> None:
        """Raises OSError; FileExistsError where the path is taken: no backup is ever overwritten."""
        _check_free(path)
        self._path = path
        self._partial = path.with_name(path.name + _PARTIAL)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._partial, flags, 0o600), "wb")

    def write(self, data: bytes) -> None:
        """Raises OSError: abandon it then."""
        self._file.write(data)

    def finish(self) -> BackupInfo:
        """Verify all of it, make it durable and give it its name.

        Raises CorruptBackup, FileExistsError, OSError; nothing is left of it then.
        """
        try:
            self._file.flush()
            info = inspect(self._partial)
            os.fsync(self._file.fileno())
            self._file.close()
            _check_free(self._path)
            self._partial.rename(self._path)
            _sync_folder(self._path.parent)
        except BaseException:
            self.abandon()
            raise
        return info

    def abandon(self) -> None:
        """Remove what came; after `finish` nothing happens."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def inspect(path: Path) -> BackupInfo:
    """What a backup holds, every byte of it verified.  Raises CorruptBackup, OSError."""
    with _BackupFile(path) as backup:
        return backup.verify()


async def unpack(path: Path, disk: Disk) -> list[SnapshotInfo]:
    """Put each group's snapshot, durably, to where `rebuild.start_over` takes it from.

    The data folder has no state before and none afterwards: a crash costs nothing.
    Raises CorruptBackup, FolderNotEmpty, UnfinishedRecovery, DamagedIdentity, IdentityMismatch,
    DiskFull, OSError; nothing is left in the folder then.
    """
    with _BackupFile(path) as backup:
        info = backup.verify()
        if Identity.load(disk) is not None:
            raise FolderNotEmpty("the data folder has an identity: it belongs to a node")
        for folder in ("log", "snapshots"):
            if names := disk.list(folder):
                raise FolderNotEmpty(f"the data folder is not empty: there is {folder}/{names[0]}")
        discard_staged(disk)
        try:
            return [await backup.copy(group, disk) for group in info.groups]
        except BaseException:
            discard_staged(disk)
            raise


class _BackupFile:
    """An open backup.  `verify` it before anything else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._crc = 0
        self._offset = 0
        self._frame_offset = 0
        self._first_chunks: dict[int, int] = {}
        """Group -> offset of its first chunk's frame."""

    def __enter__(self) -> _BackupFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def verify(self) -> BackupInfo:
        start = self._file.read(_START.size)
        if len(start) < _START.size or start[: len(_MAGIC)] != _MAGIC:
            raise self._corrupt(0, "this is not a backup: it does not begin as one")
        _, version = _START.unpack(start)
        if version != FORMAT_VERSION:
            raise self._corrupt(len(_MAGIC), f"backup format {version}; this version of Quorate reads {FORMAT_VERSION}")
        self._crc = value(start)
        self._offset = len(start)
        kind, body = self._next_frame()
        if kind != _HEADER:
            raise self._corrupt(self._frame_offset, "the header is missing")
        header = self._decode(body, BackupHeader)
        groups: dict[int, BackupGroup] = {}
        kind, body = self._next_frame()
        while kind == _GROUP:
            group = self._decode(body, BackupGroup)
            if group.group in groups:
                raise self._corrupt(self._frame_offset, f"a second snapshot of group {group.group}")
            groups[group.group] = group
            self._first_chunks[group.group] = self._offset
            self._verify_chunks(group)
            kind, body = self._next_frame()
        if kind != _END:
            raise self._corrupt(self._frame_offset, "neither a snapshot nor the end follows here")
        expected = _End(len(groups), sum(group.size_bytes for group in groups.values()), self._frame_offset)
        if self._decode(body, _End) != expected:
            raise self._corrupt(self._frame_offset, "the end counts other contents")
        if self._file.read(1):
            raise self._corrupt(self._offset, "the file goes on after its end")
        for group in groups.values():
            self._verify_snapshot(group)
        return BackupInfo(header, tuple(groups.values()), self._offset)

    async def copy(self, group: BackupGroup, disk: Disk) -> SnapshotInfo:
        snapshots = Snapshots(disk, STAGED_SNAPSHOTS)
        receiver = snapshots.receive(group.group, group.position, group.generation, group.size_bytes, group.service)
        try:
            view = _SnapshotView(self, group)
            for offset in range(0, group.size_bytes, CHUNK_BYTES):
                receiver.write(offset, view.read_at(offset, CHUNK_BYTES))
            return await receiver.finish()
        except CorruptSnapshot as error:
            # It was right a moment ago.
            raise self._corrupt(
                self._first_chunks[group.group], f"the file changes while it is read: {error}"
            ) from error
        finally:
            receiver.abandon()

    def _verify_chunks(self, group: BackupGroup) -> None:
        for offset in range(0, group.size_bytes, CHUNK_BYTES):
            kind, body = self._next_frame()
            if kind != _CHUNK or len(body) != min(CHUNK_BYTES, group.size_bytes - offset):
                raise self._corrupt(self._frame_offset, f"the snapshot of group {group.group} is not whole")

    def _verify_snapshot(self, group: BackupGroup) -> None:
        try:
            path = snapshot_path("snapshots", group.group, group.position, group.generation, group.service)
        except ValueError as error:
            raise self._corrupt(self._first_chunks[group.group], str(error)) from error
        info = SnapshotInfo(group.group, group.position, group.generation, group.service, group.size_bytes, path)
        try:
            for _ in read_slices(_SnapshotView(self, group), info, path):
                pass
        except CorruptSnapshot as error:
            offset = self._offset_of(group, error.offset)
            reason = f"the snapshot of group {group.group} was damaged already when it was saved: {error.reason}"
            raise self._corrupt(offset, reason) from error

    def read_snapshot(self, group: BackupGroup, offset: int, size: int) -> bytes:
        parts = []
        end = min(offset + size, group.size_bytes)
        while offset < end:
            part_bytes = min(end - offset, CHUNK_BYTES - offset % CHUNK_BYTES)
            self._file.seek(self._offset_of(group, offset))
            parts.append(self._file.read(part_bytes))
            offset += part_bytes
        return b"".join(parts)

    def _offset_of(self, group: BackupGroup, offset: int) -> int:
        """Where a snapshot's byte stands in the backup."""
        return self._first_chunks[group.group] + offset + (offset // CHUNK_BYTES + 1) * _FRAME_HEAD_BYTES

    def _next_frame(self) -> tuple[int, bytes]:
        """(kind, body).  Raises CorruptBackup."""
        self._frame_offset = start = self._offset
        head = self._read(_FRAME.size)
        length, kind = _FRAME.unpack(head)
        stated_crc = self._read(_CRC.size)
        if length > _MAX_BODY_BYTES:
            raise self._corrupt(start, f"a frame of {length} bytes cannot be")
        body = self._read(length)
        self._crc = extend(extend(self._crc, head), body)
        if stated_crc != _CRC.pack(self._crc):
            raise self._corrupt(start, "the checksum is wrong")
        return kind, body

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._offset += len(data)
        if len(data) < size:
            raise self._corrupt(self._offset, "the file is cut off")
        return data

    def _decode(self, body: bytes, of: type[T]) -> T:
        try:
            return msgspec.msgpack.decode(body, type=of)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._corrupt(self._frame_offset, f"not what should stand here: {error}") from error

    def _corrupt(self, offset: int, reason: str) -> CorruptBackup:
        return CorruptBackup(str(self._path), offset, reason)


class _SnapshotView:
    """One snapshot inside a backup, as the file that it was."""

    def __init__(self, backup: _BackupFile, group: BackupGroup) -> None:
        self._backup = backup
        self._group = group

    def read_at(self, offset: int, size: int) -> bytes:
        return self._backup.read_snapshot(self._group, offset, size)


def _check_free(path: Path) -> None:
    if path.exists():
        raise FileExistsError(errno.EEXIST, "there is a file already", str(path))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
