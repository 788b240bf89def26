"""What is damaged is put away whole: no crash leaves a part of it that passes for sound."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from quorate.consensus.records import SaveState
from quorate.simulation.disk import SimulatedDisk
from quorate.storage.disk import Disk, DiskFull
from quorate.storage.identity import FILE_NAME, DamagedIdentity, Identity, UnfinishedRecovery
from quorate.storage.log import Log
from quorate.storage.moves import UNFINISHED, Moves, Purpose, begin
from quorate.storage.real_disk import LOCK_NAME, RealDisk
from quorate.storage.set_aside import set_aside, was_set_aside
from quorate.storage.snapshots import Snapshots
from tests.storage.crashes import WatchedDisk
from tests.storage.log_model import entry

AnyDisk = TypeVar("AnyDisk", bound=Disk)
OLD, NEW = "0" * 32, "1" * 32
WHY = "log/0000000000000002.segment at offset 64: no block begins here"


@pytest.fixture(params=["real", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "simulated":
        yield SimulatedDisk()
    else:
        real = RealDisk(tmp_path / "data")
        yield real
        real.close()


def in_use(disk: AnyDisk) -> AnyDisk:
    """A folder with several segments, a snapshot and an identity."""

    async def write() -> None:
        log, _ = Log.open(disk, segment_bytes=600)
        Identity.open(disk, "paris", 3, OLD, "raft").join("c" * 32)
        for position in range(1, 12):
            log.append(0, [SaveState(b"voted"), entry(position, bytes(60))])
            log.commit()
        writer = Snapshots(disk).create(0, 3, 1, "zookeeper")
        await writer.write(b"x" * 300)
        await writer.finish()
        log.close()

    asyncio.run(write())
    return disk


def files(disk: Disk, folder: str) -> dict[str, bytes]:
    """Of a data folder or of a folder into which its state was moved."""
    prefix = f"{folder}/" if folder else ""
    paths = [f"{part}/{name}" for part in ("log", "snapshots") for name in disk.list(f"{prefix}{part}")]
    paths += [name for name in disk.list(folder) if name == "identity.json"]
    return {path: disk.read(f"{prefix}{path}") for path in paths}


def test_everything_moves_and_the_folder_is_as_new(disk: Disk) -> None:
    before = files(in_use(disk), "")
    assert not was_set_aside(disk)
    assert len([path for path in before if path.startswith("log/")]) > 3
    assert set_aside(disk, WHY) == "damaged-1"
    assert files(disk, "") == {}
    assert files(disk, "damaged-1") == before
    assert disk.read("damaged-1/WHY.txt").decode() == f"{WHY}\n"
    assert not disk.exists(UNFINISHED)
    assert Identity.load(disk) is None
    log, recovery = Log.open(disk)
    assert recovery.fresh and not recovery.groups
    log.close()


def test_earlier_ones_stay(disk: Disk) -> None:
    disk.make_folder("before-recovery-3")
    for number in (1, 2, 3):
        in_use(disk)
        assert set_aside(disk, f"the disk, time {number}") == f"damaged-{number}"
    kept = [name for name in disk.list("") if name not in (LOCK_NAME, "log", "snapshots")]
    assert kept == ["before-recovery-3", "damaged-1", "damaged-2", "damaged-3"]
    assert [disk.read(f"damaged-{number}/WHY.txt") for number in (1, 2, 3)] == [
        f"the disk, time {number}\n".encode() for number in (1, 2, 3)
    ]


def test_an_empty_folder_is_set_aside_too(disk: Disk) -> None:
    assert set_aside(disk, WHY) == "damaged-1"
    assert disk.list("damaged-1") == ["WHY.txt"]


def verdict(disk: Disk, before: dict[str, bytes]) -> str:
    """What a start finds, having seen that it is one of the three."""
    try:
        identity = Identity.load(disk)
    except DamagedIdentity:
        return "damaged"
    if identity is not None:
        assert files(disk, "") == before
        return "old"
    assert (files(disk, ""), files(disk, "damaged-1")) == ({}, before)
    assert disk.read("damaged-1/WHY.txt").decode() == f"{WHY}\n"
    assert was_set_aside(disk)
    return "empty"


def test_a_crash_at_any_operation_leaves_the_old_state_or_damage_or_nothing() -> None:
    disk = in_use(WatchedDisk())
    before = files(disk, "")
    disk.watch()
    set_aside(disk, WHY)
    disk.keep()
    verdicts = []
    for number, survivor in enumerate(disk.survivors):
        verdicts.append(verdict(survivor, before))
        if verdicts[-1] == "damaged" and number % 16 == 0:
            # And the power may go again, at any operation of the next start.
            again = WatchedDisk(losses=1)
            vars(again).update(vars(survivor))
            again.watch()
            assert set_aside(again, "found again") == "damaged-1"
            again.keep()
            for second in again.survivors:
                if verdict(second, before) == "damaged":
                    set_aside(second, "and again")
                    assert verdict(second, before) == "empty"
    # Each in its time: a power loss may fall either way only around the first and the last step.
    assert verdicts[0] == "old" and verdicts[-1] == "empty" and verdicts.count("damaged") > len(verdicts) / 2


def test_a_removal_that_was_not_durable_does_not_come_back_beside_the_new() -> None:
    disk = in_use(WatchedDisk())
    disk.lose_power(Random(1))
    disk.remove("log/0000000000000001.segment")
    disk.watch()
    set_aside(disk, WHY)
    for survivor in disk.survivors:
        set_aside(survivor, WHY)
        assert files(survivor, "") == {}


def test_a_full_disk_changes_nothing() -> None:
    disk = in_use(SimulatedDisk())
    before = files(disk, "")
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(DiskFull):
        set_aside(disk, WHY)
    assert files(disk, "") == before
    assert Identity.load(disk) is not None
    disk.capacity_bytes = None
    assert set_aside(disk, WHY) == "damaged-1"


def test_a_damaged_note_of_what_was_to_be_done_is_damage_that_can_be_set_aside() -> None:
    disk = in_use(SimulatedDisk())
    before = files(disk, "")
    begin(disk, Moves(Purpose.SET_ASIDE, "damaged-7", WHY, ()))
    file = disk.open(UNFINISHED)
    file.write_at(disk.read(UNFINISHED).index(b"damaged-7"), b"damaged-8")
    with pytest.raises(DamagedIdentity, match="checksum"):
        Identity.load(disk)
    set_aside(disk, "the note is damaged")
    assert (files(disk, ""), files(disk, "damaged-1")) == ({}, before)


def test_a_recovery_that_was_interrupted_is_not_set_aside() -> None:
    disk = in_use(SimulatedDisk())
    begin(disk, Moves(Purpose.START_OVER, "before-recovery-1", "quorate recover", ()))
    for refused in (
        lambda: Identity.load(disk),
        lambda: Identity.open(disk, "paris", 3, NEW, "raft"),
        lambda: set_aside(disk, WHY),
    ):
        with pytest.raises(UnfinishedRecovery, match=r"run the same `quorate recover`.* again.*before-recovery-1/"):
            refused()


def test_a_folder_that_belonged_to_no_cluster_has_lost_nothing() -> None:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 3, OLD, "raft")
    set_aside(disk, WHY)
    assert not was_set_aside(disk)
    file = disk.open(f"damaged-1/{FILE_NAME}")
    file.truncate(10)
    file.close()
    assert was_set_aside(disk)
