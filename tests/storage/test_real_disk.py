"""The real disk does what the interface says."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quorate.storage.disk import DiskFull
from quorate.storage.log import Log
from quorate.storage.real_disk import DataFolderInUse, RealDisk
from tests.storage.log_model import entry


def test_files_and_folders(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path / "data")
    disk.make_folder("a/b")
    disk.make_folder("a/b")
    with pytest.raises(FileNotFoundError):
        disk.open("a/b/file")
    assert disk.list("nowhere") == []
    file = disk.open("a/b/file", create=True)
    file.write_at(3, b"abc")
    file.sync()
    assert (file.read_at(0, 100), file.read_at(4, 1), file.size()) == (b"\0\0\0abc", b"b", 6)
    file.allocate(5000)
    assert file.size() == 5000
    file.truncate(4)
    assert disk.read("a/b/file") == b"\0\0\0a"
    asyncio.run(file.sync_aside())
    file.close()
    file.close()
    disk.open("a/b/other", create=True).close()
    assert disk.list("a/b") == ["file", "other"]
    disk.rename("a/b/file", "a/b/other")
    disk.sync_folder("a/b")
    disk.sync_folder("")
    assert (disk.list("a/b"), disk.read("a/b/other")) == (["other"], b"\0\0\0a")
    disk.remove("a/b/other")
    assert not disk.exists("a/b/other")
    assert disk.free_bytes() > 0
    disk.close()


def test_a_folder_in_use_is_refused_to_another_process_until_it_is_let_go(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    script = "from pathlib import Path; from quorate.storage.real_disk import RealDisk; RealDisk(Path({!r})).close()"
    command = [sys.executable, "-c", script.format(str(tmp_path))]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode
    assert "DataFolderInUse" in refused.stderr
    assert str(tmp_path) in refused.stderr
    with pytest.raises(DataFolderInUse, match="in use by another process"):
        RealDisk(tmp_path)
    disk.close()
    assert subprocess.run(command).returncode == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_and_no_quota_are_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    disk = RealDisk(tmp_path)
    file = disk.open("file", create=True)
    monkeypatch.setattr(os, "pwrite", refuse)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(DiskFull):
        file.write_at(0, b"x")
    with pytest.raises(DiskFull):
        file.allocate(10)
    monkeypatch.undo()
    file.close()
    disk.close()


def test_a_write_that_the_kernel_cuts_short_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: whole(descriptor, data[:3], offset))
    disk = RealDisk(tmp_path)
    file = disk.open("file", create=True)
    file.write_at(2, b"0123456789")
    monkeypatch.undo()
    assert disk.read("file") == b"\0\x000123456789"
    file.close()
    disk.close()


def test_closing_a_file_while_it_is_synced_aside_touches_no_other_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = RealDisk(tmp_path)
        for number in range(50):
            file = disk.open(f"file{number}", create=True)
            file.write_at(0, bytes(100_000))
            syncing = asyncio.ensure_future(file.sync_aside())
            await asyncio.sleep(0)
            file.close()
            await syncing
        disk.close()

    asyncio.run(scenario())


def test_removing_a_large_file_does_not_wait_for_its_blocks_to_be_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_by = []
    close = os.close

    def watched_close(descriptor: int) -> None:
        closed_by.append(threading.get_ident())
        close(descriptor)

    async def scenario() -> None:
        disk = RealDisk(tmp_path)
        file = disk.open("large", create=True)
        file.write_at(0, bytes(1 << 20))
        file.close()
        monkeypatch.setattr(os, "close", watched_close)
        disk.remove("large")
        assert not disk.exists("large")
        await asyncio.get_running_loop().shutdown_default_executor()
        monkeypatch.undo()
        assert len(closed_by) == 1
        assert closed_by != [threading.get_ident()]
        disk.close()

    asyncio.run(scenario())


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_free_descriptor_files_are_still_synced_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    sync = os.fdatasync

    def watched_sync(descriptor: int) -> None:
        synced.append(descriptor)
        sync(descriptor)

    async def scenario() -> None:
        disk = RealDisk(tmp_path)
        file = disk.open("file", create=True)
        file.write_at(0, b"abc")
        monkeypatch.setattr(os, "fdatasync", watched_sync)
        with no_free_descriptor():
            await file.sync_aside()
            disk.remove("file")
        assert len(synced) == 1
        assert disk.list("") == ["lock"]
        file.close()
        disk.close()

    asyncio.run(scenario())


def test_a_log_without_a_free_descriptor_goes_on_when_there_is_one(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    log, _ = Log.open(disk, segment_bytes=1 << 16)
    position = 0
    with no_free_descriptor():
        while not log.full:
            position += 1
            log.append(0, [entry(position, bytes(2000))])
            log.commit()
        assert not log.try_allocate()
    assert log.try_allocate()
    log.close()
    log, recovery = Log.open(disk, segment_bytes=1 << 16)
    assert len(recovery.groups[0].entries) == position
    log.close()
    disk.close()


def test_a_log_on_the_real_disk(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    log, _ = Log.open(disk, segment_bytes=1 << 16)
    for position in range(1, 101):
        log.append(0, [entry(position, os.urandom(2000))])
        log.commit()
    asyncio.run(log.sync_aside())
    log.close()
    log, recovery = Log.open(disk)
    assert len(recovery.groups[0].entries) == 100
    assert log.size_bytes() == sum(path.stat().st_size for path in (tmp_path / "log").iterdir())
    log.close()
    disk.close()
