"""A simulated disk: what a file system promises and no more, and every way in which it disappoints.

    disk = SimulatedDisk(seed)
    disk.attach(machine)                 # its operations take that machine's time and die with it
    ...
    disk.lose_power(random)              # what a machine finds after a power loss
    disk.detach()                        # what a process finds after SIGKILL: the page cache is intact

Every unsynced write survives a loss of power whole, not at all, or some of its 512-byte sectors, each whatever
becomes of the others.  Every unsynced change of a name survives or not.  `ops_until_death` cuts the power in the
middle of whatever the machine does: before the operation on the disk that it counts down to.  It counts at once, or
from a change of a name on (`names_until_countdown`): what recovery has to cope with lies around those.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass, field
from random import Random

from quorate.simulation.machine import Machine, MachineLost
from quorate.storage.disk import DiskFull

SECTOR_BYTES = 512
WRITE_S = 1e-5
GROW_S = 1e-3
"""What a write takes longer where it makes its file longer: room has to be found for it."""
SYNC_S = (5e-5, 3e-4)


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
    synced_count: int = 0
    """Changes that are no longer unsynced, ever."""


@dataclass(slots=True)
class _NameChange:
    """An unsynced change of a folder: names to their new contents, None for gone; atomic."""

    names: dict[str, _Content | None]


class SimulatedFile:
    """An open file.  A machine that died in the meantime cannot use it any more."""

    def __init__(self, disk: SimulatedDisk, path: str, content: _Content) -> None:
        self._disk = disk
        self._path = path
        self._content = content
        self._life = disk.life
        self._closed = False

    def read_at(self, offset: int, size: int) -> bytes:
        self._begin()
        return bytes(self._content.seen[offset : offset + size])

    def write_at(self, offset: int, data: bytes) -> None:
        more_bytes = offset + len(data) - len(self._content.seen)
        self._begin(self._disk.write_s + (GROW_S if more_bytes > 0 else 0.0))
        self._disk.check_room(more_bytes)
        _write(self._content.seen, offset, data)
        self._content.unsynced.append(_Change(offset, bytes(data)))
        self._disk.written_bytes += len(data)

    def allocate(self, size: int) -> None:
        self._begin(self._disk.write_s)
        if size > len(self._content.seen):
            self._disk.check_room(size - len(self._content.seen))
            self._resize(size)

    def truncate(self, size: int) -> None:
        self._begin(self._disk.write_s)
        self._disk.check_room(size - len(self._content.seen))
        self._resize(size)

    def sync(self) -> None:
        self._begin(self._disk.draw_sync_s())
        self._disk.count_sync(self._content)
        self._make_durable(self._content.synced_count + len(self._content.unsynced))

    async def sync_aside(self) -> None:
        """Covers what was written before the call, also where the file is closed meanwhile."""
        self._begin()
        through = self._content.synced_count + len(self._content.unsynced)
        await asyncio.sleep(self._disk.draw_sync_s())
        self._disk.begin(self._life)
        self._disk.count_sync(self._content)
        self._make_durable(through)

    def size(self) -> int:
        self._begin()
        return len(self._content.seen)

    def close(self) -> None:
        self._closed = True

    def _resize(self, size: int) -> None:
        _resize(self._content.seen, size)
        self._content.unsynced.append(_Change(size, None))

    def _make_durable(self, through: int) -> None:
        """All changes up to the one of this number; another sync may have been faster."""
        content = self._content
        count = max(0, through - content.synced_count)
        for change in content.unsynced[:count]:
            _apply(content.durable, change)
        del content.unsynced[:count]
        content.synced_count += count

    def _begin(self, duration_s: float = 0.0) -> None:
        self._disk.begin(self._life, duration_s)
        if self._closed:
            raise OSError(errno.EBADF, "the file is closed", self._path)


class SimulatedDisk:
    """See the module's head.  The public attributes are the faults; set them at any time."""

    def __init__(self, seed: int | str = 0, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        """Sum of all file sizes beyond which DiskFull is raised."""
        self.sync_s = SYNC_S
        """Bounds of how long a sync takes."""
        self.write_s = WRITE_S
        """How long a write takes, and a change of a name."""
        self.failing_syncs = False
        """Syncs raise EIO."""
        self.ops_until_death: int | None = None
        """Operations until the machine loses its power in the middle of one."""
        self.names_until_countdown = 0
        """Changes of names before those operations are counted."""
        self.life = 0
        """Counts the lives of machines on this disk: files of an earlier one are dead."""
        self.sync_count = 0
        self.written_bytes = 0
        self._random = Random(f"{seed}/disk")
        self._machine: Machine | None = None
        self._files: dict[str, _Content] = {}
        self._durable_files: dict[str, _Content] = {}
        self._folders: dict[str, None] = {"": None}
        self._name_changes: dict[str, list[_NameChange]] = {}

    # --- Disk --------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False) -> SimulatedFile:
        self.begin(self.life)
        content = self._files.get(path)
        if content is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            self._check_folder(_folder_of(path))
            content = self._files[path] = _Content()
            self._note(_folder_of(path), {path: content})
        return SimulatedFile(self, path, content)

    def read(self, path: str) -> bytes:
        self.begin(self.life)
        return bytes(self._existing(path).seen)

    def exists(self, path: str) -> bool:
        return path in self._files or path in self._folders

    def list(self, folder: str) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        names = [*self._files, *(name for name in self._folders if name)]
        return sorted({name[len(prefix) :].split("/")[0] for name in names if name.startswith(prefix)})

    def make_folder(self, path: str) -> None:
        self.begin(self.life)
        parts = path.split("/")
        self._folders.update(dict.fromkeys("/".join(parts[: count + 1]) for count in range(len(parts))))

    def rename(self, source: str, target: str) -> None:
        self.begin(self.life, self.write_s)
        content = self._existing(source)
        self._check_folder(_folder_of(target))
        del self._files[source]
        self._files[target] = content
        self._note(_folder_of(target), {source: None, target: content})

    def remove(self, path: str) -> None:
        self.begin(self.life, self.write_s)
        self._existing(path)
        del self._files[path]
        self._note(_folder_of(path), {path: None})

    def sync_folder(self, path: str) -> None:
        self._check_folder(path)
        self.begin(self.life, self.draw_sync_s())
        self.count_sync()
        for change in self._name_changes.pop(path, []):
            _apply_names(self._durable_files, change)

    def free_bytes(self) -> int:
        if self.capacity_bytes is None:
            return 1 << 50
        return max(0, self.capacity_bytes - self.used_bytes())

    # --- lives -------------------------------------------------------------------------------

    def attach(self, machine: Machine) -> None:
        """From now on this machine uses the disk."""
        self._machine = machine

    def detach(self) -> None:
        """The process is gone (SIGKILL).  Unsynced writes stay in the page cache."""
        self.life += 1
        self._machine = None
        self.ops_until_death = None
        self.names_until_countdown = 0

    def lose_power(self, random: Random) -> int:
        """Afterwards everything on the disk is durable, and what was not synced is as `random` decides.

        Returns the number of unsynced changes that there were.
        """
        self.detach()
        pending = 0
        for changes in self._name_changes.values():
            for change in changes:
                pending += 1
                if random.random() < 0.5:
                    _apply_names(self._durable_files, change)
        self._name_changes.clear()
        self._files = dict(self._durable_files)
        for path in sorted(self._files):
            content = self._files[path]
            # A content may have two names where a rename of a folder survived in part.
            pending += len(content.unsynced)
            _settle(content, random)
        return pending

    def unsynced_changes(self) -> int:
        """How much a loss of power could take now."""
        names = sum(map(len, self._name_changes.values()))
        return names + sum(len(content.unsynced) for content in self._files.values())

    def wipe(self) -> None:
        """Somebody deletes everything, or puts in an empty disk, while nothing runs on it."""
        assert self._machine is None, "a machine uses the disk"
        self.life += 1
        self._files.clear()
        self._durable_files.clear()
        self._folders = {"": None}
        self._name_changes.clear()

    def flip_bit(self, path: str, bit: int) -> None:
        """Damage a file on the device, and in the cache."""
        content = self._existing(path)
        for image in (content.seen, content.durable):
            if bit // 8 < len(image):
                image[bit // 8] ^= 1 << bit % 8

    # --- for SimulatedFile -------------------------------------------------------------------

    def begin(self, life: int, duration_s: float = 0.0) -> None:
        """An operation of the machine's, which takes its time.  Raises MachineLost where it is dead, or dies now."""
        machine = self._machine
        if life != self.life:
            raise MachineLost("a file of a machine that is gone")
        if machine is None:
            return
        if not machine.alive:
            raise MachineLost(machine.host)
        if self.ops_until_death is not None and not self.names_until_countdown:
            self.ops_until_death -= 1
            if self.ops_until_death < 0:
                self.ops_until_death = None
                machine.die()
        machine.spend(duration_s)

    def _forget(self, content: _Content) -> None:
        """A sync fails: what it should have written is taken for clean, some of it is on the device and some never is.

        As Linux does it (Rebello and others, "Can Applications Recover from fsync Failures?", USENIX ATC 2020):
        reads still find it in the cache, later syncs say nothing of it, and a loss of power takes it.
        """
        for change in content.unsynced:
            if self._random.random() < 0.5:
                _apply(content.durable, change)
        content.synced_count += len(content.unsynced)
        content.unsynced.clear()

    def draw_sync_s(self) -> float:
        return self._random.uniform(*self.sync_s)

    def check_room(self, more_bytes: int) -> None:
        if self.capacity_bytes is not None and more_bytes > 0 and self.used_bytes() + more_bytes > self.capacity_bytes:
            raise DiskFull(errno.ENOSPC, "no space left on the simulated disk")

    def count_sync(self, content: _Content | None = None) -> None:
        """Of a file, or of a folder's names.  Raises EIO."""
        if self.failing_syncs:
            if content is not None:
                self._forget(content)
            raise OSError(errno.EIO, "input/output error")
        self.sync_count += 1

    def used_bytes(self) -> int:
        return sum(len(content.seen) for content in self._files.values())

    # --- inside ------------------------------------------------------------------------------

    def _existing(self, path: str) -> _Content:
        content = self._files.get(path)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return content

    def _check_folder(self, path: str) -> None:
        if path not in self._folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)

    def _note(self, folder: str, names: dict[str, _Content | None]) -> None:
        self._name_changes.setdefault(folder, []).append(_NameChange(names))
        if self.names_until_countdown:
            self.names_until_countdown -= 1


def _settle(content: _Content, random: Random) -> None:
    """Decide what of a file's unsynced changes survives."""
    image = content.durable
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
    content.unsynced.clear()
    content.seen = bytearray(image)


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
    if data and offset > len(image):
        _resize(image, offset)
    image[offset : offset + len(data)] = data


def _resize(image: bytearray, size: int) -> None:
    if size > len(image):
        image.extend(bytes(size - len(image)))
    else:
        del image[size:]


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]
