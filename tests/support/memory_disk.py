"""A disk in memory that crashes honestly: what was not synced may be lost, torn, or kept.

    disk = MemoryDisk()
    ...
    survivor = disk.crash(random)        # what a machine finds after a power loss
    survivor = disk.killed()             # what a process finds after SIGKILL: the page cache is intact

Every unsynced write survives whole, not at all, or some of its 512-byte sectors.  Every
unsynced change of a name survives or not.  The old disk stays as it was, for its old owner.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass, field
from random import Random

from quorate.storage.disk import DiskFull

SECTOR_BYTES = 512


@dataclass(slots=True)
class _Change:
    """An unsynced write; without data a change of size."""

    offset: int
    data: bytes | None


@dataclass(slots=True)
class _Content:
    """A file's bytes as its process sees them, and as the device holds them."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[_Change] = field(default_factory=list)


@dataclass(slots=True)
class _NameChange:
    """An unsynced change of a folder: names to their new contents, None for gone; atomic."""

    names: dict[str, _Content | None]


class MemoryFile:
    """An open file of a MemoryDisk."""

    def __init__(self, disk: MemoryDisk, path: str, content: _Content) -> None:
        self._disk = disk
        self._path = path
        self._content = content
        self._closed = False

    def read_at(self, offset: int, size: int) -> bytes:
        self._check_open()
        return bytes(self._content.seen[offset : offset + size])

    def write_at(self, offset: int, data: bytes) -> None:
        self._check_open()
        self._disk.check_room(offset + len(data) - len(self._content.seen))
        _write(self._content.seen, offset, data)
        self._content.unsynced.append(_Change(offset, bytes(data)))
        self._disk.written_bytes += len(data)

    def allocate(self, size: int) -> None:
        self._check_open()
        if size > len(self._content.seen):
            self._disk.check_room(size - len(self._content.seen))
            self._resize(size)

    def truncate(self, size: int) -> None:
        self._check_open()
        self._disk.check_room(size - len(self._content.seen))
        self._resize(size)

    def sync(self) -> None:
        self._check_open()
        self._disk.count_sync()
        self._apply(len(self._content.unsynced))

    async def sync_aside(self) -> None:
        """Covers what was written before the call, as late as `disk.sync_delay_s` says."""
        self._check_open()
        count = len(self._content.unsynced)
        await asyncio.sleep(self._disk.sync_delay_s)
        self._disk.count_sync()
        self._apply(count)

    def size(self) -> int:
        return len(self._content.seen)

    def close(self) -> None:
        self._closed = True

    def _resize(self, size: int) -> None:
        _resize(self._content.seen, size)
        self._content.unsynced.append(_Change(size, None))

    def _apply(self, count: int) -> None:
        changes = self._content.unsynced
        for change in changes[:count]:
            _apply(self._content.durable, change)
        del changes[:count]

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the file is closed", self._path)


class MemoryDisk:
    """See the module head.  The public attributes are the faults; set them at any time."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        """Sum of all file sizes beyond which DiskFull is raised."""
        self.sync_delay_s = 0.0
        """How long `sync_aside` takes on the loop's clock.  `sync` takes no time."""
        self.failing_syncs = False
        """Syncs raise EIO."""
        self.sync_count = 0
        self.written_bytes = 0
        self._files: dict[str, _Content] = {}
        self._durable_files: dict[str, _Content] = {}
        self._folders = {""}
        self._name_changes: dict[str, list[_NameChange]] = {}

    # --- Disk --------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False) -> MemoryFile:
        content = self._files.get(path)
        if content is None:
            if not create or _folder_of(path) not in self._folders:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            content = self._files[path] = _Content()
            self._note(_folder_of(path), {path: content})
        return MemoryFile(self, path, content)

    def read(self, path: str) -> bytes:
        return bytes(self._existing(path).seen)

    def exists(self, path: str) -> bool:
        return path in self._files or path in self._folders

    def list(self, folder: str) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        names = [*self._files, *(self._folders - {""})]
        return sorted({name[len(prefix) :].split("/")[0] for name in names if name.startswith(prefix)})

    def make_folder(self, path: str) -> None:
        parts = path.split("/")
        self._folders.update("/".join(parts[: count + 1]) for count in range(len(parts)))

    def rename(self, source: str, target: str) -> None:
        content = self._existing(source)
        del self._files[source]
        self._files[target] = content
        self._note(_folder_of(target), {source: None, target: content})

    def remove(self, path: str) -> None:
        self._existing(path)
        del self._files[path]
        self._note(_folder_of(path), {path: None})

    def sync_folder(self, path: str) -> None:
        self.count_sync()
        for change in self._name_changes.pop(path, []):
            _apply_names(self._durable_files, change)

    def free_bytes(self) -> int:
        if self.capacity_bytes is None:
            return 1 << 50
        return max(0, self.capacity_bytes - self._used_bytes())

    # --- crashes -----------------------------------------------------------------------------

    def killed(self) -> MemoryDisk:
        """The disk as a new process sees it after the old one was killed.  Unsynced stays unsynced."""
        return self._copy(None)

    def crash(self, random: Random) -> MemoryDisk:
        """The disk after a power loss: everything on it is durable now."""
        return self._copy(random)

    def flip_bit(self, path: str, bit: int) -> None:
        """Damage a file on the device."""
        content = self._existing(path)
        for image in (content.seen, content.durable):
            if bit // 8 < len(image):
                image[bit // 8] ^= 1 << bit % 8

    # --- for MemoryFile ----------------------------------------------------------------------

    def check_room(self, more_bytes: int) -> None:
        if self.capacity_bytes is not None and more_bytes > 0 and self._used_bytes() + more_bytes > self.capacity_bytes:
            raise DiskFull(errno.ENOSPC, "no space left on the memory disk")

    def count_sync(self) -> None:
        if self.failing_syncs:
            raise OSError(errno.EIO, "input/output error")
        self.sync_count += 1

    # --- inside ------------------------------------------------------------------------------

    def _existing(self, path: str) -> _Content:
        content = self._files.get(path)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return content

    def _used_bytes(self) -> int:
        return sum(len(content.seen) for content in self._files.values())

    def _note(self, folder: str, names: dict[str, _Content | None]) -> None:
        self._name_changes.setdefault(folder, []).append(_NameChange(names))

    def _copy(self, random: Random | None) -> MemoryDisk:
        copy = MemoryDisk(self.capacity_bytes)
        copy._folders = set(self._folders)
        copies: dict[int, _Content] = {}

        def copied(content: _Content) -> _Content:
            if id(content) not in copies:
                copies[id(content)] = _copy_content(content, random)
            return copies[id(content)]

        if random is None:
            copy._files = {path: copied(content) for path, content in self._files.items()}
            copy._durable_files = {path: copied(content) for path, content in self._durable_files.items()}
            copy._name_changes = {
                folder: [
                    _NameChange({path: content and copied(content) for path, content in change.names.items()})
                    for change in changes
                ]
                for folder, changes in self._name_changes.items()
            }
            return copy
        names = dict(self._durable_files)
        for changes in self._name_changes.values():
            for change in changes:
                if random.random() < 0.5:
                    _apply_names(names, change)
        copy._files = {path: copied(content) for path, content in names.items()}
        copy._durable_files = dict(copy._files)
        return copy


def _copy_content(content: _Content, random: Random | None) -> _Content:
    if random is None:
        return _Content(bytearray(content.seen), bytearray(content.durable), list(content.unsynced))
    image = bytearray(content.durable)
    for change in content.unsynced:
        fate = random.randrange(3)
        if fate == 0:
            continue
        if fate == 1 or change.data is None:
            _apply(image, change)
            continue
        start = 0
        while start < len(change.data):
            end = min(len(change.data), start + SECTOR_BYTES - (change.offset + start) % SECTOR_BYTES)
            if random.random() < 0.5:
                _write(image, change.offset + start, change.data[start:end])
            start = end
    return _Content(bytearray(image), image)


def _apply(image: bytearray, change: _Change) -> None:
    if change.data is None:
        _resize(image, change.offset)
    else:
        _write(image, change.offset, change.data)


def _apply_names(names: dict[str, _Content], change: _NameChange) -> None:
    for path, content in change.names.items():
        if content is None:
            names.pop(path, None)
        else:
            names[path] = content


def _write(image: bytearray, offset: int, data: bytes) -> None:
    if offset > len(image):
        _resize(image, offset)
    image[offset : offset + len(data)] = data


def _resize(image: bytearray, size: int) -> None:
    if size > len(image):
        image.extend(bytes(size - len(image)))
    else:
        del image[size:]


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]
