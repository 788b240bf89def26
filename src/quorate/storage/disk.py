"""The only way to files: an interface small enough to simulate honestly, and the real one.

Everything that must survive a crash goes through `Disk`, so that the simulator can lose
unsynced writes, tear them, flip bits, run out of space and make a sync slow.  What a
real file system promises, and no more, is promised here: written bytes survive a power
loss only after `File.sync` returned; a created, renamed or removed name survives only
after `Disk.sync_folder` of its folder returned.
"""

from __future__ import annotations

from typing import Protocol


class DiskFull(OSError):
    """No space is left for what was asked; nothing that existed was lost."""


class File(Protocol):
    """An open file.  Offsets and sizes in bytes."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        ...

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data`.  Raises DiskFull, or OSError."""
        ...

    def allocate(self, size: int) -> None:
        """Make the file at least `size` bytes long, its space reserved.  Raises DiskFull."""
        ...

    def sync(self) -> None:
        """Return once everything written is durable (fdatasync).  Raises OSError: the node must stop then."""
        ...

    async def sync_aside(self) -> None:
        """`sync` without stopping the loop, for large files that nobody waits for and for slow disks."""
        ...

    def size(self) -> int: ...

    def truncate(self, size: int) -> None: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """A folder tree.  Paths are relative to the node's data folder, with `/` between parts."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing.  Raises FileNotFoundError unless `create`."""
        ...

    def read(self, path: str) -> bytes:
        """The whole of a small file.  Raises FileNotFoundError."""
        ...

    def exists(self, path: str) -> bool: ...

    def list(self, folder: str) -> list[str]:
        """Names in a folder, sorted; empty where the folder is not there."""
        ...

    def make_folder(self, path: str) -> None:
        """Create it, and its parents, durably; no error where it is there."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomic, replaces `target`; durable only after `sync_folder`."""
        ...

    def remove(self, path: str) -> None: ...

    def sync_folder(self, path: str) -> None: ...

    def free_bytes(self) -> int: ...
