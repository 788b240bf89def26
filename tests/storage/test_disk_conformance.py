"""The real disk and the simulated one do the same, as far as a process sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quorate.simulation.disk import SimulatedDisk
from quorate.storage.disk import Disk
from quorate.storage.real_disk import LOCK_NAME, RealDisk


@pytest.fixture(params=["real", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "simulated":
        yield SimulatedDisk()
    else:
        real = RealDisk(tmp_path / "data")
        yield real
        real.close()


def names(disk: Disk, folder: str = "") -> list[str]:
    return [name for name in disk.list(folder) if name != LOCK_NAME]


def test_bytes_are_where_they_were_written_and_zeros_between(disk: Disk) -> None:
    file = disk.open("file", create=True)
    assert (file.size(), file.read_at(0, 10)) == (0, b"")
    file.write_at(3, b"abc")
    file.write_at(1, b"x")
    file.write_at(4, b"BCD")
    assert file.read_at(0, 100) == disk.read("file") == b"\0x\0aBCD"
    assert (file.read_at(2, 3), file.read_at(6, 5), file.read_at(7, 5), file.read_at(900, 5)) == (
        b"\0aB",
        b"D",
        b"",
        b"",
    )
    file.write_at(50, b"")
    assert file.size() == 7
    file.close()


def test_sizes(disk: Disk) -> None:
    file = disk.open("file", create=True)
    file.write_at(0, b"abcdef")
    file.truncate(2)
    file.truncate(4)
    assert disk.read("file") == b"ab\0\0"
    file.allocate(6)
    assert disk.read("file") == b"ab\0\0\0\0"
    file.allocate(3)
    file.allocate(0)
    assert file.size() == 6
    file.close()


def test_two_who_opened_a_file_see_what_the_other_writes(disk: Disk) -> None:
    one, other = disk.open("file", create=True), disk.open("file", create=True)
    one.write_at(0, b"seen")
    assert other.read_at(0, 10) == b"seen"
    one.close()
    other.write_at(4, b" by both")
    assert disk.read("file") == b"seen by both"
    other.close()


def test_syncs_change_nothing_that_is_seen(disk: Disk) -> None:
    file = disk.open("file", create=True)
    file.write_at(0, b"abc")
    file.sync()
    file.write_at(3, b"def")
    asyncio.run(file.sync_aside())
    disk.sync_folder("")
    assert disk.read("file") == b"abcdef"
    file.close()


def test_a_file_may_be_closed_and_written_while_it_is_synced_aside(disk: Disk) -> None:
    async def work() -> None:
        file = disk.open("file", create=True)
        file.write_at(0, b"abc")
        syncing = asyncio.ensure_future(file.sync_aside())
        await asyncio.sleep(0)
        file.write_at(0, b"A")
        file.close()
        await syncing
        assert disk.read("file") == b"Abc"

    asyncio.run(work())


def test_a_closed_file_takes_nothing(disk: Disk) -> None:
    file = disk.open("file", create=True)
    file.write_at(0, b"abc")
    file.close()
    file.close()
    uses: list[Callable[[], object]] = [
        lambda: file.read_at(0, 1),
        lambda: file.write_at(0, b"x"),
        lambda: file.allocate(10),
        lambda: file.truncate(1),
        file.size,
        file.sync,
        lambda: asyncio.run(file.sync_aside()),
    ]
    for use in uses:
        # Python itself refuses some calls on a descriptor that is none, before the system can.
        with pytest.raises((OSError, ValueError)):
            use()
    assert disk.read("file") == b"abc"


def test_what_is_not_there_is_not_found(disk: Disk) -> None:
    disk.open("file", create=True).close()
    uses: list[Callable[[], object]] = [
        lambda: disk.open("missing"),
        lambda: disk.open("missing/file", create=True),
        lambda: disk.read("missing"),
        lambda: disk.remove("missing"),
        lambda: disk.rename("missing", "target"),
        lambda: disk.rename("file", "missing/file"),
        lambda: disk.sync_folder("missing"),
    ]
    for use in uses:
        with pytest.raises(FileNotFoundError):
            use()
    assert disk.list("missing") == []
    assert not disk.exists("missing") and not disk.exists("target")
    assert names(disk) == ["file"]


def test_folders_are_made_with_their_parents_and_may_be_there(disk: Disk) -> None:
    disk.make_folder("a/b/c")
    disk.make_folder("a/b")
    assert all(map(disk.exists, ("", "a", "a/b", "a/b/c")))
    disk.open("a/b/file", create=True).close()
    disk.open("a/b.txt", create=True).close()
    assert (names(disk), names(disk, "a"), names(disk, "a/b")) == (["a"], ["b", "b.txt"], ["c", "file"])
    disk.sync_folder("a/b")


def test_a_renamed_file_replaces_another_and_stays_open(disk: Disk) -> None:
    disk.make_folder("folder")
    file, old = disk.open("new", create=True), disk.open("folder/name", create=True)
    file.write_at(0, b"new")
    old.write_at(0, b"old")
    disk.rename("new", "folder/name")
    assert (names(disk), names(disk, "folder"), disk.read("folder/name")) == (["folder"], ["name"], b"new")
    file.write_at(3, b"er")
    assert disk.read("folder/name") == b"newer"
    assert old.read_at(0, 10) == b"old"
    for handle in (file, old):
        handle.close()


def test_a_removed_file_stays_readable_where_it_is_open(disk: Disk) -> None:
    file = disk.open("file", create=True)
    file.write_at(0, b"abc")
    disk.remove("file")
    assert names(disk) == [] and not disk.exists("file")
    file.write_at(3, b"def")
    file.sync()
    assert file.read_at(0, 10) == b"abcdef"
    again = disk.open("file", create=True)
    assert again.size() == 0
    again.close()
    file.close()


def test_there_is_room(disk: Disk) -> None:
    assert disk.free_bytes() > 0
