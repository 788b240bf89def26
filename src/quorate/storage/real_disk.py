"""`Disk` on a real file system: one data folder, locked for one process.

Reads and writes go to the page cache and return; only `sync`, `sync_aside` and
`sync_folder` wait for the device.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quorate.storage.disk import DiskFull

LOCK_NAME = "lock"
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class DataFolderInUse(OSError):
    """Another process works in this data folder."""


@contextmanager
def _disk_full_told_apart() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(error.errno, error.strerror, error.filename) from error
        raise


class RealFile:
    """An open file; see `quorate.storage.disk.File`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read_at(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size or not data:
            return data
        # A signal or a limit of the kernel (2 GiB a call) may cut a read short before the end of the file.
        parts = [data]
        missing = size - len(data)
        while missing:
            data = os.pread(self._descriptor, missing, offset + size - missing)
            if not data:
                break
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def write_at(self, offset: int, data: bytes) -> None:
        try:
            written = os.pwrite(self._descriptor, data, offset)
            if written != len(data):
                rest = memoryview(data)[written:]
                while rest:
                    written = os.pwrite(self._descriptor, rest, offset + len(data) - len(rest))
                    rest = rest[written:]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(error.errno, error.strerror, str(self._path)) from error
            raise

    def allocate(self, size: int) -> None:
        if size > 0:
            with _disk_full_told_apart():
                os.posix_fallocate(self._descriptor, 0, size)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    async def sync_aside(self) -> None:
        # The thread owns a descriptor of its own: should the waiting task be cancelled and the file
        # be closed meanwhile, the number of ours may already belong to another file.  Both share one
        # open file description, so write-back errors are reported here as they would be there.
        try:
            descriptor = os.dup(self._descriptor)
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
            # A loop that stands still for one sync is better than a node that stops for want of a descriptor.
            os.fdatasync(self._descriptor)
            return
        await asyncio.get_running_loop().run_in_executor(None, _sync_and_close, descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def truncate(self, size: int) -> None:
        with _disk_full_told_apart():
            os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


class RealDisk:
    """A data folder; see `quorate.storage.disk.Disk`.

    Creates the folder where it is missing.  Raises DataFolderInUse where another process
    (or another RealDisk of this one) holds it, OSError where it cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_folder(root)

    def close(self) -> None:
        """Let another process have the folder.  Files that are still open stay usable: close them first."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def open(self, path: str, *, create: bool = False) -> RealFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        with _disk_full_told_apart():
            return RealFile(self._root / path, os.open(self._root / path, flags, 0o600))

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def exists(self, path: str) -> bool:
        return (self._root / path).exists()

    def list(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self._root / folder))
        except FileNotFoundError:
            return []

    def make_folder(self, path: str) -> None:
        folder = self._root
        for part in Path(path).parts:
            parent, folder = folder, folder / part
            with _disk_full_told_apart():
                folder.mkdir(exist_ok=True)
            _sync_folder(parent)

    def rename(self, source: str, target: str) -> None:
        with _disk_full_told_apart():
            os.replace(self._root / source, self._root / target)

    def remove(self, path: str) -> None:
        # Giving back the blocks of 300 MiB takes 50 ms.  While a descriptor is open only the name
        # goes; the blocks follow when a thread closes it.
        try:
            descriptor = os.open(self._root / path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
            os.unlink(self._root / path)
            return
        try:
            os.unlink(self._root / path)
        finally:
            try:
                asyncio.get_running_loop().run_in_executor(None, os.close, descriptor)
            except RuntimeError:
                # No loop runs, or its threads have ended already: nobody is kept waiting.
                os.close(descriptor)

    def sync_folder(self, path: str) -> None:
        _sync_folder(self._root / path)

    def free_bytes(self) -> int:
        status = os.statvfs(self._root)
        return status.f_bavail * status.f_frsize


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock_folder(root: Path) -> int:
    """Take the folder's lock: the kernel lets it go when the process ends, however it ends."""
    descriptor = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise DataFolderInUse(error.errno, "the data folder is in use by another process", str(root)) from error
        raise
    return descriptor
