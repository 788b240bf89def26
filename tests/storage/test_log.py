"""The write-ahead log while nothing goes wrong: round trips, rotation, clean-up."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.consensus.records import (
    CompactedThrough,
    Entry,
    Record,
    Recovered,
    SaveState,
    TruncateFrom,
)
from quorate.simulation.disk import SimulatedDisk
from quorate.storage.log import Log
from quorate.storage.log_errors import LogSyncFailed
from tests.storage.crashes import crashed, killed
from tests.storage.log_model import LogModel, entry, random_records


def reopened(disk: SimulatedDisk, *, segment_bytes: int) -> dict[int, Recovered]:
    log, recovery = Log.open(disk, segment_bytes=segment_bytes)
    assert recovery.torn is None
    log.close()
    return recovery.groups


def positions(recovered: Recovered) -> list[int]:
    return [entry.position for entry in recovered.entries]


def test_a_new_log_is_empty_and_has_a_spare_segment() -> None:
    disk = SimulatedDisk()
    log, recovery = Log.open(disk, segment_bytes=4096)
    assert (recovery.groups, recovery.torn, recovery.fresh) == ({}, None, True)
    assert [(segment.sequence, segment.spare, segment.size_bytes) for segment in log.segments()] == [
        (1, False, 4096),
        (2, True, 4096),
    ]
    assert not log.full
    log.close()
    assert reopened(disk, segment_bytes=512) == {}


def test_all_kinds_of_records_come_back() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=4096)
    records: list[Record] = [SaveState(b"term 7"), entry(4, b"four"), entry(5, b"five", generation=1 << 50)]
    log.append(3, records)
    log.append(9, [SaveState(b"")])
    log.append(3, [CompactedThrough(3, 6, b"three voters")])
    log.commit()
    log.close()
    assert reopened(disk, segment_bytes=512) == {
        3: Recovered(
            b"term 7", CompactedThrough(3, 6, b"three voters"), (Entry(4, 1, b"four"), Entry(5, 1 << 50, b"five"))
        ),
        9: Recovered(b""),
    }


def test_of_two_entries_for_a_position_the_last_holds_and_order_does_not_matter() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=4096)
    log.append(0, [entry(3, b"three"), entry(1, b"old"), entry(1, b"new", generation=2)])
    log.commit()
    assert reopened(killed(disk), segment_bytes=512)[0].entries == (Entry(1, 2, b"new"), Entry(3, 1, b"three"))


def test_truncation_forgets_and_later_entries_hold() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=4096)
    log.append(0, [entry(1), entry(2), entry(3), TruncateFrom(2), entry(2, b"again")])
    log.commit()
    assert reopened(killed(disk), segment_bytes=512)[0].entries == (Entry(1, 1, b""), Entry(2, 1, b"again"))


def test_what_was_not_written_is_not_there_and_close_writes_it() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=4096)
    log.append(0, [entry(1)])
    assert reopened(killed(disk), segment_bytes=512) == {}
    log.close()
    assert positions(reopened(disk, segment_bytes=512)[0]) == [1]


def test_one_write_is_one_write_and_one_sync() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=4096)
    log.append(0, [entry(1)])
    log.commit()
    before = disk.sync_count
    log.append(0, [entry(2), entry(3)])
    log.append(1, [entry(1)])
    log.commit()
    assert disk.sync_count == before + 1
    log.commit()
    assert disk.sync_count == before + 1, "nothing was written, so there is nothing to sync"


def test_segments_rotate_and_the_log_goes_on_after_a_restart() -> None:
    disk = SimulatedDisk()
    for first in range(1, 100, 10):
        log, _ = Log.open(disk, segment_bytes=512)
        for position in range(first, first + 10):
            log.append(0, [entry(position, bytes(60))])
            log.commit()
        log.close()
    log, recovery = Log.open(disk, segment_bytes=512)
    assert positions(recovery.groups[0]) == list(range(1, 101))
    assert len(log.segments()) > 10


def test_a_block_larger_than_a_segment_gets_a_segment_of_its_size() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=1024)
    log.append(0, [entry(1, bytes(10_000))])
    log.commit()
    log.append(0, [entry(2, bytes(100))])
    log.commit()
    assert [segment.size_bytes > 1024 for segment in log.segments()] == [False, True, False, False]
    assert positions(reopened(killed(disk), segment_bytes=1024)[0]) == [1, 2]


def test_released_segments_go_and_what_is_needed_stays() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=512)
    log.append(1, [SaveState(b"state of group 1"), entry(1, b"pinned")])
    for position in range(1, 41):
        log.append(0, [entry(position, bytes(60))])
        log.commit()
    log.append(0, [CompactedThrough(35, 1)])
    log.commit()
    assert log.pinned_by() == 1
    assert log.release() == 0
    log.append(1, [CompactedThrough(1, 1, b"three voters")])
    log.commit()
    assert log.pinned_by() == 0
    before = len(log.segments())
    released = log.release()
    assert released > 3
    assert len(log.segments()) == before, "they go only when it is durable that they may be missing"
    log.commit()
    assert len(log.segments()) == before - released
    assert len(disk.list("log")) == before - released
    assert log.release() == 0
    assert reopened(killed(disk), segment_bytes=512) == {
        0: Recovered(None, CompactedThrough(35, 1), tuple(Entry(p, 1, bytes(60)) for p in range(36, 41))),
        1: Recovered(b"state of group 1", CompactedThrough(1, 1, b"three voters")),
    }


def test_released_segments_that_come_back_after_a_crash_are_removed() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=512)
    for position in range(1, 40):
        log.append(0, [entry(position, bytes(60))])
        log.commit()
    log.append(0, [CompactedThrough(39, 1)])
    log.commit()
    assert log.release() > 0
    log.commit()
    came_back = 0
    for seed in range(10):
        survivor = crashed(disk, Random(seed))
        came_back += len(survivor.list("log")) - len(disk.list("log"))
        again, recovery = Log.open(survivor, segment_bytes=512)
        assert recovery.groups[0] == Recovered(None, CompactedThrough(39, 1))
        assert [segment.sequence for segment in again.segments()] == [segment.sequence for segment in log.segments()]
        assert len(survivor.list("log")) == len(log.segments())
    assert came_back > 10


def test_released_segments_wait_for_the_sync_that_covers_their_release() -> None:
    async def scenario() -> None:
        disk = SimulatedDisk()
        log, _ = Log.open(disk, segment_bytes=512)
        for position in range(1, 40):
            log.append(0, [entry(position, bytes(60))])
            log.commit()
        log.append(0, [CompactedThrough(39, 1)])
        log.write()
        syncing = asyncio.ensure_future(log.sync_aside())
        await asyncio.sleep(0)
        assert log.release() > 0
        log.write()
        before = disk.list("log")
        await syncing
        assert disk.list("log") == before
        await log.sync_aside()
        assert len(disk.list("log")) < len(before)

    asyncio.run(scenario())


def test_entries_that_come_after_their_compaction_pin_nothing() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=512)
    log.append(0, [CompactedThrough(100, 1)])
    for position in range(1, 25):
        log.append(0, [entry(position, bytes(60))])
        log.commit()
    assert log.pinned_by() is None


def test_truncated_entries_pin_nothing() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=512)
    log.append(0, [CompactedThrough(4, 1)])
    for position in range(5, 25):
        log.append(0, [entry(position, bytes(60))])
        log.commit()
    assert log.pinned_by() == 0
    log.append(0, [TruncateFrom(5)])
    log.commit()
    assert log.pinned_by() is None
    assert log.release() > 0
    log.commit()
    assert reopened(killed(disk), segment_bytes=512) == {0: Recovered(None, CompactedThrough(4, 1))}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([300, 700, 5000]))
def test_any_records_come_back_as_the_model_says(seed: int, segment_bytes: int) -> None:
    random = Random(seed)
    disk = SimulatedDisk()
    model = LogModel()
    log, _ = Log.open(disk, segment_bytes=segment_bytes)
    for _ in range(60):
        group = random.randrange(3)
        records = random_records(random, model.groups.get(group, Recovered()))
        model.apply(group, records)
        log.append(group, records)
        if random.random() < 0.7:
            log.commit()
        if random.random() < 0.2:
            log.release()
        if random.random() < 0.1:
            log.close()
            log, recovery = Log.open(disk, segment_bytes=segment_bytes)
            assert recovery.groups == model.groups
    log.close()
    assert reopened(disk, segment_bytes=512) == model.groups


def test_a_sync_aside_covers_what_was_written_before_it_and_lets_more_be_written() -> None:
    async def scenario() -> None:
        disk = SimulatedDisk()
        log, _ = Log.open(disk, segment_bytes=512)
        log.append(0, [entry(1)])
        log.write()
        syncing = asyncio.ensure_future(log.sync_aside())
        await asyncio.sleep(0)
        for position in range(2, 12):
            log.append(0, [entry(position, bytes(60))])
            log.write()
        await syncing
        recovered = Log.open(crashed(disk, Random(3)), segment_bytes=512)[1].groups[0]
        assert 1 in positions(recovered)
        await log.sync_aside()
        for seed in range(10):
            assert positions(Log.open(crashed(disk, Random(seed)), segment_bytes=512)[1].groups[0]) == list(
                range(1, 12)
            )

    asyncio.run(scenario())


def test_what_is_written_during_a_sync_aside_still_needs_a_sync() -> None:
    async def scenario() -> None:
        disk = SimulatedDisk()
        log, _ = Log.open(disk, segment_bytes=4096)
        log.append(0, [entry(1)])
        log.write()
        syncing = asyncio.ensure_future(log.sync_aside())
        await asyncio.sleep(0)
        log.append(0, [entry(2)])
        log.write()
        await syncing
        log.sync()
        for seed in range(10):
            _, recovery = Log.open(crashed(disk, Random(seed)), segment_bytes=4096)
            assert positions(recovery.groups[0]) == [1, 2]

    asyncio.run(scenario())


def test_a_failed_sync_is_final() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=4096)
    log.append(0, [entry(1)])
    log.write()
    disk.failing_syncs = True
    with pytest.raises(LogSyncFailed, match="input/output error"):
        log.sync()
    disk.failing_syncs = False
    with pytest.raises(LogSyncFailed, match="failed before"):
        log.sync()
    with pytest.raises(LogSyncFailed, match="failed before"):
        asyncio.run(log.sync_aside())
    log.append(0, [entry(2)])
    with pytest.raises(LogSyncFailed, match="failed before"):
        log.write()
    log.close()


def test_a_failed_sync_aside_is_final() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=4096)
    log.append(0, [entry(1)])
    log.write()
    disk.failing_syncs = True
    with pytest.raises(LogSyncFailed, match="input/output error"):
        asyncio.run(log.sync_aside())
    disk.failing_syncs = False
    with pytest.raises(LogSyncFailed, match="failed before"):
        log.commit()
