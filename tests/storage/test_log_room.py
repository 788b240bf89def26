"""A disk without room: entries are refused early, votes still fit, and nothing is lost."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorate.consensus.records import CompactedThrough, Recovered, SaveState
from quorate.simulation.disk import SimulatedDisk, SimulatedFile
from quorate.storage.disk import DiskFull
from quorate.storage.log import Log
from quorate.storage.log_blocks import BLOCK_HEADER_BYTES, CLOSING_BLOCK
from quorate.storage.log_errors import LogSyncFailed
from quorate.storage.log_recovery import read_log
from quorate.storage.log_segments import segment_path
from quorate.storage.real_disk import RealDisk
from tests.storage.crashes import killed
from tests.storage.log_model import entry

SEGMENT_BYTES = 1024


def test_a_log_closed_without_room_for_its_last_records_vouches_for_all_before() -> None:
    disk = SimulatedDisk(capacity_bytes=2 * SEGMENT_BYTES)
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    last = fill_until_full(log)
    log.append(0, [entry(last + 1, bytes(2 * SEGMENT_BYTES))])
    with pytest.raises(DiskFull):
        log.close()
    contents = read_log(killed(disk), "log")
    assert contents.active is not None
    assert len(contents.groups[0].entries) == last
    closing = disk.read(segment_path("log", contents.active))[contents.end - BLOCK_HEADER_BYTES :]
    assert closing[:6] == b"QBLK" + CLOSING_BLOCK.to_bytes(2, "little")


class FewDescriptors(SimulatedDisk):
    """Opens no file while `exhausted`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exhausted = False
        self._number = number

    def open(self, path: str, *, create: bool = False) -> SimulatedFile:
        if self.exhausted:
            raise OSError(self._number, "too many open files", path)
        return super().open(path, create=create)


def fill_until_full(log: Log) -> int:
    """Write entries until the log says that it is full; returns the last position."""
    position = 0
    while not log.full:
        position += 1
        log.append(0, [entry(position, bytes(60))])
        log.commit()
    return position


def test_without_a_spare_the_log_is_full_but_takes_small_records() -> None:
    disk = SimulatedDisk(capacity_bytes=3 * SEGMENT_BYTES)
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    last = fill_until_full(log)
    assert not log.try_allocate()
    log.append(0, [SaveState(b"voted")])
    log.commit()
    recovered = Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)[1].groups[0]
    assert (recovered.state, len(recovered.entries)) == (b"voted", last)
    disk.capacity_bytes = 4 * SEGMENT_BYTES
    assert log.try_allocate()
    assert not log.full


def test_a_write_without_room_writes_nothing_and_keeps_its_records() -> None:
    disk = SimulatedDisk(capacity_bytes=2 * SEGMENT_BYTES)
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    position = fill_until_full(log)
    before = disk.written_bytes
    with pytest.raises(DiskFull):
        for _ in range(20):
            position += 1
            before = disk.written_bytes
            log.append(0, [entry(position, bytes(60))])
            log.commit()
    assert disk.written_bytes == before
    with pytest.raises(DiskFull):
        log.write()
    disk.capacity_bytes = None
    log.commit()
    recovered = Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)[1].groups[0]
    assert [entry.position for entry in recovered.entries] == list(range(1, position + 1))


def test_released_segments_make_room() -> None:
    disk = SimulatedDisk(capacity_bytes=4 * SEGMENT_BYTES)
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    last = fill_until_full(log)
    log.append(0, [CompactedThrough(last, 1)])
    log.commit()
    assert log.release() == 3
    log.commit()
    assert log.try_allocate()
    assert Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)[1].groups[0] == Recovered(
        None, CompactedThrough(last, 1)
    )


def test_a_block_larger_than_the_room_left_is_refused_whole() -> None:
    disk = SimulatedDisk(capacity_bytes=3 * SEGMENT_BYTES)
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    log.append(0, [entry(1, bytes(5 * SEGMENT_BYTES))])
    with pytest.raises(DiskFull):
        log.write()
    disk.capacity_bytes = None
    log.commit()
    assert len(Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)[1].groups[0].entries) == 1


def test_a_log_that_does_not_fit_at_all_leaves_no_file_behind() -> None:
    disk = SimulatedDisk(capacity_bytes=SEGMENT_BYTES - 1)
    with pytest.raises(DiskFull):
        Log.open(disk, segment_bytes=SEGMENT_BYTES)
    assert disk.list("log") == []
    disk.capacity_bytes = SEGMENT_BYTES
    log, recovery = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    assert recovery.fresh
    assert log.full


def test_a_full_log_opens_again_and_keeps_its_spare() -> None:
    disk = SimulatedDisk(capacity_bytes=2 * SEGMENT_BYTES)
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    log.append(0, [entry(1)])
    log.commit()
    again, _ = Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)
    assert not again.full
    fill_until_full(again)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_a_free_descriptor_the_log_is_full_until_there_is_one(number: int) -> None:
    disk = FewDescriptors(number)
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    disk.exhausted = True
    last = fill_until_full(log)
    assert not log.try_allocate()
    log.append(0, [SaveState(b"voted")])
    log.commit()
    position = last
    with pytest.raises(DiskFull, match=r"no room for segment 3 of the log: .*too many open files"):
        for _ in range(20):
            position += 1
            log.append(0, [entry(position, bytes(60))])
            log.commit()
    disk.exhausted = False
    assert log.try_allocate()
    assert not log.full
    log.commit()
    recovered = Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)[1].groups[0]
    assert (recovered.state, len(recovered.entries)) == (b"voted", position)


def test_another_error_of_an_allocation_is_not_taken_for_lack_of_room() -> None:
    disk = FewDescriptors(errno.EIO)
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    disk.exhausted = True
    with pytest.raises(LogSyncFailed):
        fill_until_full(log)


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    mount_point = tmp_path / "small"
    mount_point.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount_point)], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("NOT TESTED on a real full file system: there is no mount command")
    if mounted.returncode:
        pytest.skip(f"NOT TESTED on a real full file system: no tmpfs may be mounted here: {mounted.stderr.strip()}")
    yield mount_point
    # Lazily: where the test failed, its files are still open.
    subprocess.run(["umount", "--lazy", str(mount_point)], check=True)


def test_on_a_real_full_file_system(small_file_system: Path) -> None:
    disk = RealDisk(small_file_system)
    segment_bytes = 32 << 10
    log, _ = Log.open(disk, segment_bytes=segment_bytes)
    position = 0
    while not log.full:
        position += 1
        log.append(0, [entry(position, bytes(1000))])
        log.commit()
    assert disk.free_bytes() < segment_bytes
    log.append(0, [SaveState(b"voted")])
    log.commit()
    log.append(0, [CompactedThrough(position, 1)])
    log.commit()
    assert log.release() > 0
    log.commit()
    assert log.try_allocate()
    log.close()
    log, recovery = Log.open(disk, segment_bytes=segment_bytes)
    assert recovery.groups == {0: Recovered(b"voted", CompactedThrough(position, 1))}
    log.close()
    disk.close()
