"""A folder starts over as another cluster's, wholly or not at all."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from quorate.consensus.records import CompactedThrough, Entry, Recovered, SaveState
from quorate.simulation.disk import SimulatedDisk
from quorate.storage.backup import BackupEncoder, BackupHeader, unpack
from quorate.storage.disk import Disk, DiskFull
from quorate.storage.identity import DamagedIdentity, Identity, UnfinishedRecovery
from quorate.storage.log import Log
from quorate.storage.moves import UNFINISHED, Moves, Purpose, begin
from quorate.storage.real_disk import RealDisk
from quorate.storage.rebuild import STAGING, MissingSnapshot, NewIdentity, finish_interrupted, start_over
from quorate.storage.snapshots import CorruptSnapshot, SnapshotInfo, Snapshots
from tests.storage.crashes import WatchedDisk, crashed, killed
from tests.storage.log_model import entry

OLD, NEW, OLD_CLUSTER, NEW_CLUSTER = "0" * 32, "1" * 32, "a" * 32, "b" * 32
IDENTITY = NewIdentity("paris", NEW_CLUSTER, 3, NEW, "raft", {3: NEW}, OLD_CLUSTER)
WHY = "quorate recover"
EXTRA = {
    0: [Entry(13, 9, b"only this node votes"), Entry(14, 9, b"command")],
    1: [Entry(1, 9, b"only this node votes")],
}
SEGMENT_BYTES = 600
COMPACTED = CompactedThrough(3, 1, b"three voters")


async def snapshot(disk: Disk, group: int, position: int) -> SnapshotInfo:
    writer = Snapshots(disk).create(group, position, 1, "zookeeper")
    await writer.write(b"x" * 300)
    return await writer.finish()


def in_use(disk: Disk) -> dict[int, Recovered]:
    """Give the disk the folder of a member; returns its groups as a command finds them that opens its log offline."""
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    Identity.create(disk, "paris", 3, OLD, "raft", cluster_id=OLD_CLUSTER)
    for position in range(1, 13):
        log.append(0, [SaveState(b"voted"), entry(position, bytes(60))])
        log.commit()
    asyncio.run(snapshot(disk, 0, 3))
    log.append(0, [COMPACTED])
    log.append(2, [SaveState(b"another group")])
    log.close()
    log, recovery = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    log.close()
    return recovery.groups


def new_groups(old: dict[int, Recovered]) -> dict[int, Recovered]:
    found = old[0]
    return {
        0: Recovered(found.state, found.compacted, (*found.entries, *EXTRA[0])),
        1: Recovered(None, CompactedThrough(0, 0), tuple(EXTRA[1])),
        2: old[2],
    }


def files(disk: Disk, folder: str = "") -> dict[str, bytes]:
    prefix = f"{folder}/" if folder else ""
    paths = [f"{part}/{name}" for part in ("log", "snapshots") for name in disk.list(f"{prefix}{part}")]
    paths += [name for name in disk.list(folder) if name == "identity.json"]
    return {path: disk.read(f"{prefix}{path}") for path in paths}


def recovered(disk: SimulatedDisk) -> dict[int, Recovered]:
    return Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)[1].groups


def staged(disk: Disk) -> list[str]:
    return [
        *(f"{part}/{name}" for part in ("log", "snapshots") for name in disk.list(f"{STAGING}/{part}")),
        *(name for name in disk.list(STAGING) if name not in ("log", "snapshots")),
    ]


def rebuild(disk: Disk, groups: dict[int, Recovered]) -> str:
    return start_over(disk, groups, EXTRA, IDENTITY, WHY, segment_bytes=SEGMENT_BYTES)


@pytest.mark.parametrize("kind", ["real", "simulated"])
def test_a_member_becomes_the_first_of_a_new_cluster(kind: str, tmp_path: Path) -> None:
    real = RealDisk(tmp_path / "data") if kind == "real" else None
    disk: Disk = real or SimulatedDisk()
    groups = in_use(disk)
    assert groups[0].compacted == COMPACTED and len(groups[0].entries) == 9
    before = files(disk)
    assert rebuild(disk, groups) == "before-recovery-1"
    identity = Identity.load(disk)
    assert identity is not None
    assert (identity.cluster, identity.cluster_id, identity.node, identity.incarnation) == (
        "paris",
        NEW_CLUSTER,
        3,
        NEW,
    )
    assert (identity.formation, identity.recovered_from, identity.met) == ({3: NEW}, OLD_CLUSTER, {})
    log, recovery = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    assert recovery.groups == new_groups(groups) and recovery.torn is None
    log.close()
    snapshots = {path: data for path, data in before.items() if path.startswith("snapshots/")}
    assert files(disk, "before-recovery-1") == {path: data for path, data in before.items() if path not in snapshots}
    assert disk.read("before-recovery-1/WHY.txt") == b"quorate recover\n"
    assert {path: disk.read(path) for path in snapshots} == snapshots
    assert not staged(disk) and not disk.exists(UNFINISHED)
    assert finish_interrupted(disk) is None
    # And once more, out of what it became.
    again = NewIdentity("paris", "d" * 32, 3, "2" * 32, "raft")
    assert start_over(disk, recovery.groups, {}, again, WHY, segment_bytes=SEGMENT_BYTES) == "before-recovery-2"
    log, recovery = Log.open(disk)
    assert recovery.groups == new_groups(groups)
    log.close()
    if real is not None:
        real.close()


def test_a_backup_becomes_the_first_of_a_new_cluster(tmp_path: Path) -> None:
    source = SimulatedDisk()
    info = asyncio.run(snapshot(source, 0, 12))
    encoder = BackupEncoder()
    data = encoder.begin(BackupHeader(1, "0.4.0", "paris", OLD_CLUSTER, "raft", b""))
    data += b"".join(encoder.snapshot(info, Snapshots(source).open_file(info))) + encoder.finish()
    path = tmp_path / "paris.backup"
    path.write_bytes(data)
    disk = WatchedDisk()
    unpacked = asyncio.run(unpack(path, disk))
    disk.watch()
    groups = {info.group: Recovered(compacted=CompactedThrough(info.position, info.generation)) for info in unpacked}
    start_over(disk, groups, EXTRA, IDENTITY, WHY, unpacked=unpacked, segment_bytes=SEGMENT_BYTES)
    for survivor in [*disk.survivors[-20:], crashed(disk, Random(1))]:
        finish_interrupted(survivor)
        assert Identity.load(survivor) is not None
        assert recovered(survivor)[0] == Recovered(None, CompactedThrough(12, 1), tuple(EXTRA[0]))
        newest = Snapshots(survivor).newest(0)
        assert newest is not None and list(Snapshots(survivor).open(newest)) == [b"x" * 300]
        assert not staged(survivor)


def test_what_was_unpacked_takes_the_place_of_old_snapshots() -> None:
    disk = SimulatedDisk()
    in_use(disk)
    old = files(disk)
    info = asyncio.run(snapshot(disk, 0, 12))
    disk.make_folder(f"{STAGING}/snapshots")
    disk.rename(info.path, f"{STAGING}/{info.path}")
    moved = SnapshotInfo(0, 12, 1, "zookeeper", info.size_bytes, f"{STAGING}/{info.path}")
    groups = {0: Recovered(compacted=CompactedThrough(12, 1))}
    start_over(disk, groups, EXTRA, IDENTITY, WHY, unpacked=[moved], segment_bytes=SEGMENT_BYTES)
    assert [f"snapshots/{name}" for name in disk.list("snapshots")] == [info.path]
    assert files(disk, "before-recovery-1") == old


# --- what is refused -----------------------------------------------------------------------------


def test_an_entry_is_never_replaced() -> None:
    disk = SimulatedDisk()
    groups = in_use(disk)
    before = files(disk)
    for extra in ({0: [Entry(12, 9, b"")]}, {0: [Entry(13, 9, b""), Entry(13, 9, b"")]}, {1: [Entry(0, 9, b"")]}):
        with pytest.raises(ValueError, match="none may be added at"):
            start_over(disk, groups, extra, IDENTITY, WHY)
    assert (files(disk), staged(disk)) == (before, [])


def test_a_missing_or_damaged_snapshot_is_found_before_anything_changes() -> None:
    disk = SimulatedDisk()
    groups = in_use(disk)
    (name,) = disk.list("snapshots")
    damaged, missing = killed(disk), killed(disk)
    damaged.flip_bit(f"snapshots/{name}", 8 * 200)
    missing.remove(f"snapshots/{name}")
    for broken, error in ((damaged, CorruptSnapshot), (missing, MissingSnapshot)):
        before = files(broken)
        with pytest.raises(error):
            rebuild(broken, groups)
        assert (files(broken), staged(broken)) == (before, [])


def test_an_interrupted_move_is_finished_first() -> None:
    disk = SimulatedDisk()
    groups = in_use(disk)
    begin(disk, Moves(Purpose.SET_ASIDE, "damaged-1", WHY, ()))
    assert finish_interrupted(disk) is None
    with pytest.raises(DamagedIdentity):
        rebuild(disk, groups)
    begin(disk, Moves(Purpose.START_OVER, "before-recovery-1", WHY, ()))
    with pytest.raises(UnfinishedRecovery):
        rebuild(disk, groups)


# --- crashes and full disks ----------------------------------------------------------------------


def verdict(disk: SimulatedDisk, before: dict[str, bytes], groups: dict[int, Recovered]) -> str:
    """What a start finds, having seen that it is one of the three."""
    try:
        identity = Identity.load(disk)
    except UnfinishedRecovery:
        return "unfinished"
    assert identity is not None
    if identity.incarnation == OLD:
        assert identity.cluster_id == OLD_CLUSTER
        assert files(disk) == before
        return "old"
    assert (identity.incarnation, identity.cluster_id) == (NEW, NEW_CLUSTER)
    assert recovered(disk) == new_groups(groups)
    moved = files(disk, "before-recovery-1")
    assert {**before, **moved} == before and len(moved) == len(before) - 1
    assert disk.read("before-recovery-1/WHY.txt") == b"quorate recover\n"
    assert not staged(disk)
    return "new"


def test_a_crash_at_any_operation_leaves_the_old_folder_or_an_unfinished_or_the_new_one() -> None:
    disk = WatchedDisk(losses=1)
    groups = in_use(disk)
    disk.lose_power(Random(1))
    before = files(disk)
    disk.watch()
    rebuild(disk, groups)
    disk.keep()
    verdicts = []
    for number, survivor in enumerate(disk.survivors):
        verdicts.append(verdict(survivor, before, groups))
        if verdicts[-1] == "old" and number % 16 == 0:
            rebuild(survivor, groups)
            assert verdict(crashed(survivor, Random(number)), before, groups) == "new"
        if verdicts[-1] == "unfinished" and number % 4 == 0:
            # And the power may go again, at any operation of the second try.
            again = WatchedDisk(losses=1)
            vars(again).update(vars(survivor))
            if number % 32 == 0:
                again.watch()
            assert finish_interrupted(again) == "before-recovery-1"
            assert verdict(crashed(again, Random(number)), before, groups) == "new"
            for second in again.survivors:
                if verdict(second, before, groups) == "unfinished":
                    assert finish_interrupted(second) == "before-recovery-1"
                    assert verdict(second, before, groups) == "new"
    assert (verdicts[0], verdicts[-1]) == ("old", "new")
    assert min(verdicts.count("old"), verdicts.count("unfinished")) > 50


def test_a_segment_whose_removal_was_not_durable_does_not_come_back_into_the_new_log() -> None:
    disk = WatchedDisk()
    groups = in_use(disk)
    stale = "log/0000000000000050.segment"
    disk.open(stale, create=True).close()
    disk.lose_power(Random(1))
    disk.open(stale, create=True).close()
    disk.sync_folder("log")
    disk.remove(stale)
    disk.watch()
    rebuild(disk, groups)
    finished = [survivor for survivor in disk.survivors if finish_interrupted(survivor) is not None]
    assert finished
    for survivor in finished:
        assert not survivor.exists(stale)
        assert recovered(survivor) == new_groups(groups)


def test_a_full_disk_at_any_size_leaves_the_old_folder_or_the_new_one() -> None:
    disk = SimulatedDisk()
    groups = in_use(disk)
    before = files(disk)
    found = []
    for more_bytes in range(0, 12_000, 150):
        full = killed(disk)
        full.capacity_bytes = full.used_bytes() + more_bytes
        with suppress(DiskFull):
            rebuild(full, groups)
        found.append(verdict(full, before, groups))
        if found[-1] == "old":
            assert staged(full) in ([], ["identity.json.partial"])
        full.capacity_bytes = None
        if found[-1] == "unfinished":
            finish_interrupted(full)
        elif found[-1] == "old":
            rebuild(full, groups)
        assert verdict(full, before, groups) == "new"
    assert found[0] == "old" and found[-1] == "new"
