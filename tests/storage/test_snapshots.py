"""Snapshot files: whole or not there, and never believed when damaged."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.simulation.disk import SimulatedDisk, SimulatedFile
from quorate.storage import snapshots as snapshots_module
from quorate.storage.disk import DiskFull
from quorate.storage.snapshots import CorruptSnapshot, SnapshotInfo, Snapshots
from tests.storage.crashes import crashed, killed

SLICES = [b"first", b"", b"x" * 1000, bytes(range(256)) * 20]


async def write(snapshots: Snapshots, slices: list[bytes], position: int = 7, group: int = 1) -> SnapshotInfo:
    writer = snapshots.create(group, position, 3, "zookeeper")
    for slice_ in slices:
        await writer.write(slice_)
    return await writer.finish()


async def send(source: Snapshots, info: SnapshotInfo, target: Snapshots, chunk_bytes: int) -> SnapshotInfo:
    receiver = target.receive(info.group, info.position, info.generation, info.size_bytes, info.service)
    file = source.open_file(info)
    for offset in range(0, info.size_bytes, chunk_bytes):
        receiver.write(offset, file.read_at(offset, chunk_bytes))
    file.close()
    return await receiver.finish()


def contents(source: Snapshots, info: SnapshotInfo) -> bytes:
    return source.open_file(info).read_at(0, info.size_bytes)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=10))
def test_slices_come_back_with_their_bounds(slices: list[bytes]) -> None:
    disk = SimulatedDisk()
    snapshots = Snapshots(disk)
    info = asyncio.run(write(snapshots, slices))
    assert list(snapshots.open(info)) == slices
    assert snapshots.newest(1) == info
    assert info.size_bytes == disk.open(info.path).size()


def test_slices_larger_than_the_read_buffer_come_back() -> None:
    snapshots = Snapshots(SimulatedDisk())
    slices = [bytes([number]) * (700_000 * number) for number in range(5)]
    assert list(snapshots.open(asyncio.run(write(snapshots, slices)))) == slices


def test_the_newest_is_found_by_group_and_older_ones_can_go() -> None:
    snapshots = Snapshots(SimulatedDisk())
    for group, position in ((1, 7), (1, 100), (1, 20), (11, 900)):
        asyncio.run(write(snapshots, SLICES, position, group))
    assert [info.position for info in snapshots.all(1)] == [100, 20, 7]
    assert snapshots.newest(2) is None
    snapshots.remove_older(1, 20)
    assert [info.position for info in snapshots.all(1)] == [100, 20]
    assert [info.position for info in snapshots.all(11)] == [900]


def test_a_finished_snapshot_survives_a_crash_and_an_unfinished_one_is_cleaned_up() -> None:
    async def scenario() -> None:
        disk = SimulatedDisk()
        snapshots = Snapshots(disk)
        await write(snapshots, SLICES)
        unfinished = snapshots.create(1, 8, 3, "zookeeper")
        await unfinished.write(b"some")
        for seed in range(20):
            after = Snapshots(survivor := crashed(disk, Random(seed)))
            newest = after.newest(1)
            assert newest is not None
            assert newest.position == 7
            assert list(after.open(newest)) == SLICES
            assert len(survivor.list("snapshots")) == 1

    asyncio.run(scenario())


def test_an_abandoned_snapshot_leaves_nothing() -> None:
    async def scenario() -> None:
        disk = SimulatedDisk()
        snapshots = Snapshots(disk)
        writer = snapshots.create(1, 8, 3, "zookeeper")
        await writer.write(b"some")
        writer.abandon()
        receiver = snapshots.receive(1, 9, 3, 100, "zookeeper")
        receiver.write(0, b"some")
        receiver.abandon()
        assert disk.list("snapshots") == []
        writer = snapshots.create(1, 8, 3, "zookeeper")
        await writer.finish()
        writer.abandon()
        assert snapshots.newest(1) is not None

    asyncio.run(scenario())


def test_every_flipped_bit_is_found() -> None:
    disk = SimulatedDisk()
    snapshots = Snapshots(disk)
    info = asyncio.run(write(snapshots, [b"first", b"", b"x" * 200]))
    random = Random(1)
    for offset in range(info.size_bytes):
        damaged = killed(disk)
        damaged.flip_bit(info.path, offset * 8 + random.randrange(8))
        with pytest.raises(CorruptSnapshot) as caught:
            list(Snapshots(damaged).open(info))
        assert caught.value.file == info.path
        assert caught.value.offset <= offset


def test_swapped_slices_are_found() -> None:
    disk = SimulatedDisk()
    snapshots = Snapshots(disk)
    info = asyncio.run(write(snapshots, [b"first", b"other"]))
    data = disk.read(info.path)
    start, frame_bytes = 68, 12 + 5
    first, second = data[start : start + frame_bytes], data[start + frame_bytes : start + 2 * frame_bytes]
    disk.open(info.path).write_at(start, second + first)
    with pytest.raises(CorruptSnapshot, match="checksum") as caught:
        list(snapshots.open(info))
    assert caught.value.offset == start


def test_every_cut_is_found() -> None:
    disk = SimulatedDisk()
    snapshots = Snapshots(disk)
    info = asyncio.run(write(snapshots, [b"first", b"x" * 200]))
    for size_bytes in range(info.size_bytes):
        cut = killed(disk)
        cut.open(info.path).truncate(size_bytes)
        found = Snapshots(cut).newest(1)
        assert found is not None
        with pytest.raises(CorruptSnapshot):
            list(Snapshots(cut).open(found))
    longer = killed(disk)
    longer.open(info.path).write_at(info.size_bytes, b"\0")
    found = Snapshots(longer).newest(1)
    assert found is not None
    with pytest.raises(CorruptSnapshot, match="goes on after its end"):
        list(Snapshots(longer).open(found))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    disk = SimulatedDisk()
    snapshots = Snapshots(disk)
    info = asyncio.run(write(snapshots, SLICES))
    file = disk.open(info.path)
    file.truncate(68)
    file.write_at(68, data)
    found = snapshots.newest(1)
    assert found is not None
    with pytest.raises(CorruptSnapshot):
        list(snapshots.open(found))


@pytest.mark.parametrize("chunk_bytes", [1, 37, 1000, 1 << 20])
def test_a_snapshot_travels_in_chunks(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "WRITE_BACK_BYTES", 512)
    source = Snapshots(SimulatedDisk())
    target = Snapshots(SimulatedDisk())

    async def scenario() -> None:
        info = await write(source, SLICES)
        assert await send(source, info, target, chunk_bytes) == info
        assert list(target.open(info)) == SLICES

    asyncio.run(scenario())


def test_a_snapshot_that_was_taken_survives_a_crash() -> None:
    disk = SimulatedDisk()
    source, target = Snapshots(SimulatedDisk()), Snapshots(disk)

    async def scenario() -> None:
        info = await write(source, SLICES)
        await send(source, info, target, 1000)
        for seed in range(10):
            assert list(Snapshots(crashed(disk, Random(seed))).open(info)) == SLICES

    asyncio.run(scenario())


def test_a_snapshot_damaged_on_its_way_is_refused_and_gone() -> None:
    source_disk, target_disk = SimulatedDisk(), SimulatedDisk()
    source, target = Snapshots(source_disk), Snapshots(target_disk)

    async def scenario() -> None:
        info = await write(source, SLICES)
        source_disk.flip_bit(info.path, 8 * 200)
        with pytest.raises(CorruptSnapshot):
            await send(source, info, target, 100)
        assert target_disk.list("snapshots") == []

    asyncio.run(scenario())


@pytest.mark.parametrize("missing", ["middle", "end", "too much"])
def test_a_snapshot_that_did_not_come_whole_is_refused(missing: str) -> None:
    source, target = Snapshots(SimulatedDisk()), Snapshots(SimulatedDisk())

    async def scenario() -> None:
        info = await write(source, SLICES)
        receiver = target.receive(info.group, info.position, info.generation, info.size_bytes, info.service)
        data = contents(source, info)
        if missing == "middle":
            receiver.write(0, data[:100])
            receiver.write(200, data[200:])
        elif missing == "end":
            receiver.write(0, data[:-10])
        else:
            receiver.write(0, data + b"more")
        with pytest.raises(CorruptSnapshot):
            await receiver.finish()
        assert target.newest(1) is None

    asyncio.run(scenario())


def test_another_snapshot_than_the_announced_one_is_refused() -> None:
    source, target = Snapshots(SimulatedDisk()), Snapshots(SimulatedDisk())

    async def scenario() -> None:
        info = await write(source, SLICES)
        receiver = target.receive(info.group, info.position + 1, info.generation, info.size_bytes, info.service)
        receiver.write(0, contents(source, info))
        with pytest.raises(CorruptSnapshot, match="header says"):
            await receiver.finish()

    asyncio.run(scenario())


def test_a_snapshot_that_does_not_fit_is_refused_before_it_comes() -> None:
    disk = SimulatedDisk(capacity_bytes=10_000)
    snapshots = Snapshots(disk)
    with pytest.raises(DiskFull):
        snapshots.receive(1, 5, 5, 20_000, "zookeeper")
    assert disk.list("snapshots") == []
    writer = snapshots.create(1, 5, 5, "zookeeper")
    with pytest.raises(DiskFull):
        asyncio.run(writer.write(bytes(20_000)))
    writer.abandon()
    assert disk.list("snapshots") == []


def test_a_snapshot_whose_header_does_not_fit_leaves_nothing_open_and_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimulatedDisk(capacity_bytes=50)
    opened: list[SimulatedFile] = []

    def open_and_note(path: str, *, create: bool = False) -> SimulatedFile:
        opened.append(SimulatedDisk.open(disk, path, create=create))
        return opened[-1]

    monkeypatch.setattr(disk, "open", open_and_note)
    with pytest.raises(DiskFull):
        Snapshots(disk).create(1, 5, 5, "zookeeper")
    assert disk.list("snapshots") == []
    with pytest.raises(OSError, match="the file is closed"):
        opened[0].read_at(0, 1)


def test_two_receptions_of_one_snapshot_do_not_disturb_each_other() -> None:
    source, target_disk = Snapshots(SimulatedDisk()), SimulatedDisk()
    target = Snapshots(target_disk)

    async def scenario() -> None:
        info = await write(source, SLICES)
        data = contents(source, info)
        first = target.receive(info.group, info.position, info.generation, info.size_bytes, info.service)
        first.write(0, data[:500])
        second = target.receive(info.group, info.position, info.generation, info.size_bytes, info.service)
        first.write(500, data[500:])
        assert await first.finish() == info
        assert list(target.open(info)) == SLICES
        second.write(0, data)
        assert await second.finish() == info
        assert list(target.open(info)) == SLICES
        assert len(target_disk.list("snapshots")) == 1

    asyncio.run(scenario())


def test_a_file_that_is_being_sent_stays_readable_when_it_is_removed() -> None:
    source, target = Snapshots(SimulatedDisk()), Snapshots(SimulatedDisk())

    async def scenario() -> None:
        info = await write(source, SLICES)
        file = source.open_file(info)
        source.remove_older(info.group, info.position + 1)
        assert source.newest(info.group) is None
        receiver = target.receive(info.group, info.position, info.generation, info.size_bytes, info.service)
        receiver.write(0, file.read_at(0, info.size_bytes))
        assert list(target.open(await receiver.finish())) == SLICES

    asyncio.run(scenario())
