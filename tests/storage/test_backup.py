"""A backup comes back as it was saved, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest

from quorate.simulation.disk import SimulatedDisk
from quorate.storage.backup import (
    CHUNK_BYTES,
    BackupEncoder,
    BackupGroup,
    BackupHeader,
    BackupReceiver,
    CorruptBackup,
    FolderNotEmpty,
    inspect,
    unpack,
)
from quorate.storage.disk import DiskFull
from quorate.storage.identity import Identity
from quorate.storage.log import Log
from quorate.storage.rebuild import STAGING
from quorate.storage.snapshots import SnapshotInfo, Snapshots
from tests.storage.crashes import WatchedDisk

HEADER = BackupHeader(1_700_000_000_123, "0.4.0", "paris", "c" * 32, "raft", b"\x93 the members")
SMALL = {0: [b"members"], 1: [b"first", b"", b"x" * 130]}
LARGE = {0: [], 1: [bytes([number]) * 200_000 for number in range(9)], 7: [b"z" * (CHUNK_BYTES - 92)]}


async def save_snapshots(disk: SimulatedDisk, groups: dict[int, list[bytes]]) -> list[SnapshotInfo]:
    infos = []
    for group, slices in groups.items():
        writer = Snapshots(disk).create(group, 40 + group, 3, "zookeeper" if group else "cluster")
        for slice_ in slices:
            await writer.write(slice_)
        infos.append(await writer.finish())
    return infos


def encode(groups: dict[int, list[bytes]], damage: Callable[[SimulatedDisk], None] | None = None) -> bytes:
    disk = SimulatedDisk()
    infos = asyncio.run(save_snapshots(disk, groups))
    if damage is not None:
        damage(disk)
    encoder = BackupEncoder()
    parts = [encoder.begin(HEADER)]
    for info in infos:
        frames = list(encoder.snapshot(info, Snapshots(disk).open_file(info)))
        assert all(len(frame) <= CHUNK_BYTES + 12 for frame in frames)
        parts += frames
    parts.append(encoder.finish())
    return b"".join(parts)


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "paris.backup"
    path.write_bytes(data)
    return path


def state_of(disk: SimulatedDisk) -> list[str]:
    """All files of a folder."""
    return [name for name in disk.list("") if name != STAGING] + [
        f"{folder}/{name}" for folder in (f"{STAGING}/snapshots", "log", "snapshots") for name in disk.list(folder)
    ]


@pytest.mark.parametrize("groups", [{}, SMALL, LARGE], ids=["empty", "small", "large"])
def test_what_was_saved_comes_back(groups: dict[int, list[bytes]], tmp_path: Path) -> None:
    path = saved(tmp_path, encode(groups))
    info = inspect(path)
    assert info.header == HEADER
    assert info.size_bytes == path.stat().st_size
    assert [(group.group, group.service, group.position, group.generation) for group in info.groups] == [
        (group, "zookeeper" if group else "cluster", 40 + group, 3) for group in groups
    ]
    disk = SimulatedDisk()
    infos = asyncio.run(unpack(path, disk))
    disk.lose_power(Random(1))
    assert {info.group: list(Snapshots(disk, f"{STAGING}/snapshots").open(info)) for info in infos} == groups
    assert Identity.load(disk) is None


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.storage.backup.CHUNK_BYTES", 100)
    data = encode(SMALL)
    random = Random(1)
    path = saved(tmp_path, data)
    assert inspect(path).size_bytes == len(data)
    for offset in range(len(data)):
        flipped = bytearray(data)
        flipped[offset] ^= 1 << random.randrange(8)
        for wrong in (bytes(flipped), data[:offset]):
            path.write_bytes(wrong)
            disk = SimulatedDisk()
            with pytest.raises(CorruptBackup) as caught:
                inspect(path)
            assert caught.value.file == str(path)
            assert 0 <= caught.value.offset <= len(data)
            with pytest.raises(CorruptBackup):
                asyncio.run(unpack(path, disk))
            assert disk.sync_count == disk.written_bytes == 0 and disk.list("") == []
    for wrong in (data + b"\0", data + data, data[: len(data) // 2] + data):
        path.write_bytes(wrong)
        with pytest.raises(CorruptBackup):
            inspect(path)


def test_damage_in_a_large_one_is_found_near_where_it_is(tmp_path: Path) -> None:
    data = encode(LARGE)
    random = Random(2)
    path = saved(tmp_path, data)
    for _ in range(10):
        offset = random.randrange(200, len(data) - 100)
        flipped = bytearray(data)
        flipped[offset] ^= 0x10
        path.write_bytes(flipped)
        with pytest.raises(CorruptBackup, match="checksum is wrong") as caught:
            inspect(path)
        assert offset - CHUNK_BYTES - 12 < caught.value.offset <= offset


def test_a_snapshot_that_was_damaged_before_it_was_saved_is_found(tmp_path: Path) -> None:
    def damage(disk: SimulatedDisk) -> None:
        path = next(path for path in disk.list("snapshots") if path.startswith("1-"))
        disk.flip_bit(f"snapshots/{path}", 8 * 1_000_000)

    path = saved(tmp_path, encode(LARGE, damage))
    with pytest.raises(CorruptBackup, match=r"group 1 was damaged already when it was saved.*checksum") as caught:
        inspect(path)
    data = path.read_bytes()
    assert data[caught.value.offset : caught.value.offset + 4] == (200_000).to_bytes(4, "little")
    disk = SimulatedDisk()
    with pytest.raises(CorruptBackup):
        asyncio.run(unpack(path, disk))
    assert disk.list("") == []


class Forger(BackupEncoder):
    """Puts any frames together, with right checksums."""

    def of(self, *frames: tuple[int, object]) -> bytes:
        parts = [self.begin(HEADER)]
        for kind, body in frames:
            parts.append(self._frame(kind, body if isinstance(body, bytes) else msgspec.msgpack.encode(body)))
        return b"".join(parts)


GROUP = BackupGroup(1, "zookeeper", 41, 3, 5)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([(4, [1, 0, 60])], "the end counts other contents"),
        ([(4, [])], "not what should stand here"),
        ([(1, HEADER)], "neither a snapshot nor the end"),
        ([(9, b"")], "neither a snapshot nor the end"),
        ([(3, b"12345")], "neither a snapshot nor the end"),
        ([(2, GROUP), (4, [1, 5, 99])], "group 1 is not whole"),
        ([(2, GROUP), (3, b"1234")], "group 1 is not whole"),
        ([(2, GROUP), (3, b"12345"), (2, GROUP)], "a second snapshot of group 1"),
        ([(2, ["1", "zookeeper", 41, 3, 5])], "not what should stand here"),
    ],
)
def test_frames_that_make_no_backup_are_refused(frames: list[tuple[int, object]], reason: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptBackup, match=reason):
        inspect(saved(tmp_path, Forger().of(*frames)))


def test_a_service_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    group = BackupGroup(1, "../../x", 41, 3, 0)
    end = [1, 0, len(Forger().of((2, group)))]
    data = Forger().of((2, group), (4, end))
    with pytest.raises(CorruptBackup, match="not a snapshot's name"):
        inspect(saved(tmp_path, data))


def test_another_file_and_another_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptBackup, match="not a backup"):
        inspect(saved(tmp_path, b"#!/bin/sh\nexit 0\n"))
    data = bytearray(encode(SMALL))
    data[8] = 2
    with pytest.raises(CorruptBackup, match="format 2; this version of Quorate reads 1"):
        inspect(saved(tmp_path, bytes(data)))
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "missing")


def test_a_snapshot_that_is_shorter_than_announced_ends_the_backup() -> None:
    disk = SimulatedDisk()
    (info,) = asyncio.run(save_snapshots(disk, {1: [b"x" * 100]}))
    disk.open(info.path).truncate(50)
    encoder = BackupEncoder()
    encoder.begin(HEADER)
    with pytest.raises(ValueError, match="ends at 50"):
        list(encoder.snapshot(info, Snapshots(disk).open_file(info)))


# --- receiving -----------------------------------------------------------------------------------


def test_a_received_backup_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    data = encode(LARGE)
    path = tmp_path / "paris.backup"
    receiver = BackupReceiver(path)
    for offset in range(0, len(data), 65_000):
        receiver.write(data[offset : offset + 65_000])
        assert not path.exists()
    assert receiver.finish() == inspect(path)
    receiver.abandon()
    assert [file.name for file in tmp_path.iterdir()] == ["paris.backup"]
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(FileExistsError):
        BackupReceiver(path)


def test_a_cut_or_abandoned_one_leaves_nothing(tmp_path: Path) -> None:
    data = encode(SMALL)
    receiver = BackupReceiver(tmp_path / "paris.backup")
    receiver.write(data[:-1])
    with pytest.raises(CorruptBackup, match="cut off"):
        receiver.finish()
    receiver = BackupReceiver(tmp_path / "paris.backup")
    receiver.write(data)
    receiver.abandon()
    assert list(tmp_path.iterdir()) == []


# --- unpacking -----------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, encode(SMALL))
    disks = [SimulatedDisk(), SimulatedDisk(), SimulatedDisk()]
    Identity.create(disks[0], "paris", 3, "0" * 32, "raft")
    Log.open(disks[1])[0].close()
    asyncio.run(save_snapshots(disks[2], SMALL))
    for disk in disks:
        before = state_of(disk)
        with pytest.raises(FolderNotEmpty):
            asyncio.run(unpack(path, disk))
        assert state_of(disk) == before


def test_what_an_earlier_attempt_left_goes(tmp_path: Path) -> None:
    disk = SimulatedDisk()
    asyncio.run(unpack(saved(tmp_path, encode({**SMALL, 9: [b"of another backup"]})), disk))
    infos = asyncio.run(unpack(saved(tmp_path, encode(SMALL)), disk))
    assert [f"{STAGING}/snapshots/{name}" for name in disk.list(f"{STAGING}/snapshots")] == [
        info.path for info in infos
    ]


def test_a_full_disk_keeps_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, encode(LARGE))
    disk = SimulatedDisk(capacity_bytes=1_900_000)
    with pytest.raises(DiskFull):
        asyncio.run(unpack(path, disk))
    assert state_of(disk) == []


def test_a_crash_at_any_operation_leaves_a_folder_into_which_it_can_be_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path, encode(SMALL))
    disk = WatchedDisk()
    disk.watch()
    asyncio.run(unpack(path, disk))
    assert len(disk.survivors) > 20
    for survivor in disk.survivors:
        assert Identity.load(survivor) is None
        infos = asyncio.run(unpack(path, survivor))
        snapshots = Snapshots(survivor, f"{STAGING}/snapshots")
        assert {info.group: list(snapshots.open(info)) for info in infos} == SMALL
        assert len(survivor.list(f"{STAGING}/snapshots")) == len(SMALL)
