"""Torn tails and damage: every cut and every flipped bit ends in the right verdict with the right place."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quorate.consensus.records import CompactedThrough, Recovered, SaveState
from quorate.simulation.disk import SimulatedDisk
from quorate.storage.log import Log
from quorate.storage.log_blocks import (
    BLOCK_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Block,
    SegmentHeader,
    encode_segment_header,
)
from quorate.storage.log_errors import CorruptLog, LogSyncFailed, UnknownLogFormat
from quorate.storage.log_inspection import Damage, InspectedRecord, inspect
from quorate.storage.log_recovery import Recovery, TornTail
from quorate.storage.log_segments import read_whole, segment_path, walk
from tests.storage.crashes import crashed, killed
from tests.storage.log_model import LogModel, entry, random_records

SEGMENT_BYTES = 800


def build(count: int, *, close: bool = False) -> SimulatedDisk:
    """A log of `count` entries of 60 bytes, each in a synced block of its own, five in a segment."""
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    for position in range(1, count + 1):
        log.append(0, [entry(position, bytes([position]) * 60)])
        log.commit()
    if close:
        log.close()
    return killed(disk)


def recover(disk: SimulatedDisk) -> Recovery:
    log, recovery = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    # Recovery leaves a log that needs no recovery.
    assert Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)[1].torn is None
    log.append(0, [SaveState(b"goes on")])
    log.commit()
    after = Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)[1].groups
    before = recovery.groups.get(0, Recovered())
    assert after[0] == Recovered(b"goes on", before.compacted, before.entries)
    return recovery


def positions(recovery: Recovery) -> list[int]:
    return [entry.position for entry in recovery.groups.get(0, Recovered()).entries]


def blocks_of(disk: SimulatedDisk, sequence: int) -> list[Block]:
    data = read_whole(disk, segment_path("log", sequence))
    return [block for block in walk(data, sequence) if isinstance(block, Block)]


def overwrite(disk: SimulatedDisk, path: str, offset: int, data: bytes) -> None:
    file = disk.open(path)
    file.write_at(offset, data)
    file.sync()


def active_sequence(disk: SimulatedDisk) -> int:
    return max(sequence for sequence in range(1, 50) if disk.exists(segment_path("log", sequence))) - 1


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("rest", ["zeros", "garbage"])
def test_the_last_block_may_be_torn_at_every_byte(count: int, rest: str) -> None:
    disk = build(count)
    path = segment_path("log", active_sequence(disk))
    last = blocks_of(disk, active_sequence(disk))[-1]
    body_end = last.offset + BLOCK_HEADER_BYTES + len(last.body)
    for cut in range(last.offset, last.end + 1):
        torn = killed(disk)
        lost_bytes = last.end - cut
        overwrite(torn, path, cut, bytes(lost_bytes) if rest == "zeros" else Random(cut).randbytes(lost_bytes))
        recovery = recover(torn)
        if cut >= body_end:
            # Only padding is gone, which says nothing.
            assert (positions(recovery), recovery.torn) == (list(range(1, count + 1)), None)
            continue
        assert positions(recovery) == list(range(1, count))
        if rest == "zeros" and cut == last.offset:
            assert recovery.torn is None
        else:
            assert recovery.torn is not None
            assert (recovery.torn.file, recovery.torn.offset) == (path, last.offset)


def test_a_torn_rotation_is_cut() -> None:
    count = next(n for n in range(1, 20) if active_sequence(build(n)) == 2)
    disk = build(count)
    path = segment_path("log", 2)
    end = blocks_of(disk, 2)[-1].end
    # The next spare is made after the first sync of a segment, so a crash before that leaves none.
    disk.remove(segment_path("log", 3))
    for cut in range(end - 8):
        torn = killed(disk)
        overwrite(torn, path, cut, bytes(end - cut))
        recovery = recover(torn)
        assert positions(recovery) == list(range(1, count))
        # With the opening block whole and nothing after it, the segment simply has no records yet.
        assert (recovery.torn is None) == (cut in (0, SEGMENT_HEADER_BYTES + BLOCK_HEADER_BYTES))
        if recovery.torn is not None:
            assert recovery.torn.file == path


def test_every_flipped_bit_is_judged_rightly() -> None:
    disk = build(7)
    active = active_sequence(disk)
    assert active == 2
    random = Random(1)
    for sequence in (1, 2):
        path = segment_path("log", sequence)
        blocks = blocks_of(disk, sequence)
        for offset in range(SEGMENT_BYTES):
            damaged = killed(disk)
            damaged.flip_bit(path, offset * 8 + random.randrange(8))
            block = next((block for block in blocks if block.offset <= offset < block.end), None)
            if block is not None and offset >= block.offset + BLOCK_HEADER_BYTES + len(block.body):
                assert positions(recover(damaged)) == list(range(1, 8))
            elif block is None and offset >= SEGMENT_HEADER_BYTES:
                recovery = recover(damaged)
                assert positions(recovery) == list(range(1, 8))
                assert (recovery.torn is not None) == (sequence == active)
            elif sequence == active and block == blocks[-1]:
                recovery = recover(damaged)
                assert recovery.torn == TornTail(
                    path, blocks[-1].offset, recovery.torn.bytes_cut if recovery.torn else 0
                )
                assert positions(recovery) == list(range(1, 7))
            else:
                with pytest.raises(CorruptLog) as caught:
                    Log.open(damaged, segment_bytes=SEGMENT_BYTES)
                assert (caught.value.file, caught.value.offset) == (path, block.offset if block else 0)
                assert path in str(caught.value)


def test_corruption_changes_nothing_on_disk() -> None:
    disk = build(7)
    disk.flip_bit(segment_path("log", 1), 8 * 200)
    before = {name: disk.read(f"log/{name}") for name in disk.list("log")}
    with pytest.raises(CorruptLog):
        Log.open(disk, segment_bytes=SEGMENT_BYTES)
    assert {name: disk.read(f"log/{name}") for name in disk.list("log")} == before


def test_after_an_orderly_stop_the_last_record_is_vouched_for_too() -> None:
    disk = build(7, close=True)
    *_, last, closing = blocks_of(disk, 2)
    assert closing.body == b""
    disk.flip_bit(segment_path("log", 2), 8 * (last.offset + BLOCK_HEADER_BYTES + 3))
    with pytest.raises(CorruptLog) as caught:
        Log.open(disk, segment_bytes=SEGMENT_BYTES)
    assert caught.value.offset == last.offset


def test_blocks_after_a_torn_one_that_were_never_synced_are_cut_with_it() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    for position in (1, 2, 3, 4):
        log.append(0, [entry(position, bytes(60))])
        log.write()
        if position == 1:
            log.sync()
    second = blocks_of(disk, 1)[2]
    torn = killed(disk)
    torn.flip_bit(segment_path("log", 1), 8 * (second.offset + 20))
    recovery = recover(torn)
    assert positions(recovery) == [1]
    assert recovery.torn is not None
    assert recovery.torn.offset == second.offset
    assert recovery.torn.bytes_cut > 3 * 60


def test_zeros_in_place_of_acknowledged_blocks_are_damage() -> None:
    disk = build(7)
    first = blocks_of(disk, 2)[1]
    overwrite(disk, segment_path("log", 2), first.offset, bytes(first.end - first.offset))
    with pytest.raises(CorruptLog) as caught:
        Log.open(disk, segment_bytes=SEGMENT_BYTES)
    assert (caught.value.file, caught.value.offset) == (segment_path("log", 2), first.offset)


def test_a_zeroed_end_of_an_older_segment_is_damage() -> None:
    disk = build(7)
    last = blocks_of(disk, 1)[-1]
    overwrite(disk, segment_path("log", 1), last.offset, bytes(SEGMENT_BYTES - last.offset))
    with pytest.raises(CorruptLog) as caught:
        Log.open(disk, segment_bytes=SEGMENT_BYTES)
    assert (caught.value.file, caught.value.offset) == (segment_path("log", 1), last.offset)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_found_after_a_failed_sync_is_made_durable(seed: int) -> None:
    disk = SimulatedDisk(seed)
    log, _ = Log.open(disk, segment_bytes=1 << 16)
    for position in range(1, 6):
        log.append(0, [entry(position, bytes([position]) * 60)])
        log.write()
        disk.failing_syncs = position >= 3
        if disk.failing_syncs:
            with pytest.raises(LogSyncFailed):
                log.sync()
            break
        log.sync()
    disk.failing_syncs = False
    log.close()
    disk.detach()
    # The cache still has it, and nothing tells the next process that the device has not.
    log, recovery = Log.open(disk, segment_bytes=1 << 16)
    assert positions(recovery) == [1, 2, 3]
    log.append(0, [entry(4, b"next")])
    log.commit()
    assert positions(Log.open(crashed(disk, Random(seed)), segment_bytes=1 << 16)[1]) == [1, 2, 3, 4]


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_a_missing_segment_is_damage(missing: int) -> None:
    disk = build(17)
    assert active_sequence(disk) == 4
    disk.remove(segment_path("log", missing))
    with pytest.raises(CorruptLog, match="missing") as caught:
        Log.open(disk, segment_bytes=SEGMENT_BYTES)
    assert caught.value.file == segment_path("log", missing)
    assert Damage(segment_path("log", missing), 0, "the segment is missing") in list(inspect(disk)) or missing == 1


def test_a_segment_that_was_cut_off_is_damage() -> None:
    disk = build(7)
    for sequence in (1, 2):
        cut = killed(disk)
        size_bytes = SEGMENT_BYTES - 300
        cut.open(segment_path("log", sequence)).truncate(size_bytes)
        with pytest.raises(CorruptLog) as caught:
            Log.open(cut, segment_bytes=SEGMENT_BYTES)
        assert caught.value.file == segment_path("log", sequence)


def test_a_block_copied_from_elsewhere_is_not_believed() -> None:
    disk = build(7)
    path = segment_path("log", 2)
    data = disk.read(path)
    _, first, *_, last = blocks_of(disk, 2)
    overwrite(disk, path, last.end, data[first.offset : first.end])
    recovery = recover(disk)
    assert positions(recovery) == list(range(1, 8))
    assert recovery.torn is not None


def test_a_client_that_stores_a_log_in_the_log_confuses_nobody() -> None:
    inner = build(7).read(segment_path("log", 1))
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=8192)
    log.append(0, [entry(1, b"before")])
    log.commit()
    log.append(0, [entry(2, inner)])
    log.commit()
    last = blocks_of(disk, 1)[-1]
    torn = killed(disk)
    torn.flip_bit(segment_path("log", 1), 8 * (last.offset + BLOCK_HEADER_BYTES))
    recovery = recover(torn)
    assert positions(recovery) == [1]
    assert recovery.torn is not None


@pytest.mark.parametrize("version", [1, 3])
def test_another_format_is_refused_and_not_called_damage(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    log.close()
    monkeypatch.setattr("quorate.storage.log_blocks.FORMAT_VERSION", version)
    header = encode_segment_header(SegmentHeader(1, SEGMENT_BYTES, 0, 1))
    monkeypatch.undo()
    overwrite(disk, segment_path("log", 1), 0, header)
    with pytest.raises(UnknownLogFormat, match=rf"format {version}.*reads format 2"):
        Log.open(disk, segment_bytes=SEGMENT_BYTES)


def test_inspection_shows_how_long_a_configuration_is() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    log.append(1, [CompactedThrough(7, 2, b"who decides")])
    log.commit()
    assert [item for item in inspect(killed(disk)) if isinstance(item, InspectedRecord)] == [
        InspectedRecord(
            segment_path("log", 1), blocks_of(disk, 1)[1].offset + BLOCK_HEADER_BYTES, 1, "compacted", 7, 2, 11
        )
    ]


def test_inspection_shows_records_and_goes_on_behind_damage() -> None:
    disk = build(7)
    records = [found for found in inspect(disk) if isinstance(found, InspectedRecord)]
    assert [(record.kind, record.group, record.position) for record in records] == [
        ("entry", 0, position) for position in range(1, 8)
    ]
    assert all(record.length == 60 and record.generation == 1 for record in records)
    damaged_block = blocks_of(disk, 1)[2]
    disk.flip_bit(segment_path("log", 1), 8 * (damaged_block.offset + 60))
    found = list(inspect(disk))
    assert [item.position for item in found if isinstance(item, InspectedRecord)] == [1, 3, 4, 5, 6, 7]
    assert [(item.file, item.offset) for item in found if isinstance(item, Damage)] == [
        (segment_path("log", 1), damaged_block.offset)
    ]


def test_inspection_shows_a_torn_tail() -> None:
    disk = build(7)
    last = blocks_of(disk, 2)[-1]
    disk.flip_bit(segment_path("log", 2), 8 * (last.offset + 60))
    found = list(inspect(disk))
    assert [item.offset for item in found if isinstance(item, TornTail)] == [last.offset]
    assert not [item for item in found if isinstance(item, Damage)]


# --- crashes and nonsense -----------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([200, 500, 3000]))
def test_a_crash_loses_nothing_that_was_synced(seed: int, segment_bytes: int) -> None:
    random = Random(seed)
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=segment_bytes)
    model = LogModel()
    allowed = [model.copy()]
    """What the log may come to after a crash: as of the last sync, or of any write after it."""
    for _ in range(40):
        group = random.randrange(2)
        records = random_records(random, model.groups.get(group, Recovered()))
        model.apply(group, records)
        log.append(group, records)
        if random.random() < 0.8:
            log.write()
            allowed.append(model.copy())
        if random.random() < 0.5:
            log.commit()
            allowed = [model.copy()]
        if random.random() < 0.2:
            log.release()
        if random.random() < 0.15:
            disk = crashed(disk, random) if random.random() < 0.7 else killed(disk)
            log, recovery = Log.open(disk, segment_bytes=segment_bytes)
            assert recovery.groups in [candidate.groups for candidate in allowed]
            model.groups = dict(recovery.groups)
            allowed = [model.copy()]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_crash_in_a_crash_recovery_loses_nothing(seed: int) -> None:
    random = Random(seed)
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=400)
    for position in range(1, random.randrange(2, 12)):
        log.append(0, [entry(position, random.randbytes(60))])
        log.commit()
    log.append(0, [entry(99, bytes(200))])
    log.write()
    for _ in range(4):
        disk = crashed(disk, random)
        _, recovery = Log.open(disk, segment_bytes=400)
        expected = list(range(1, position + 1))
        assert positions(recovery) in (expected, [*expected, 99])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.integers(0, 4), st.binary(max_size=300), max_size=4))
@example({1: b"", 2: b""})
def test_random_files_end_in_a_log_or_a_typed_error(files: dict[int, bytes]) -> None:
    disk = SimulatedDisk()
    disk.make_folder("log")
    for sequence, data in files.items():
        disk.open(segment_path("log", sequence), create=True).write_at(0, data)
    list(inspect(disk))
    try:
        recovery = recover(disk)
    except CorruptLog:
        return
    assert positions(recovery) == []


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32))
def test_random_damage_is_found_or_harmless(seed: int) -> None:
    random = Random(seed)
    disk = build(random.randrange(1, 12), close=random.random() < 0.5)
    whole = positions(Log.open(killed(disk), segment_bytes=SEGMENT_BYTES)[1])
    path = f"log/{random.choice(disk.list('log'))}"
    overwrite(disk, path, random.randrange(SEGMENT_BYTES), random.randbytes(random.randrange(1, 80)))
    list(inspect(disk))
    try:
        recovery = recover(disk)
    except CorruptLog:
        return
    found = positions(recovery)
    # At most the end of the log is gone, where no intact block follows; so few bytes touch at most two blocks.
    assert found in (whole, whole[:-1], whole[:-2])


def test_a_log_of_compacted_groups_only_recovers_their_positions() -> None:
    disk = SimulatedDisk()
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    log.append(0, [CompactedThrough(10, 3)])
    log.commit()
    log.append(0, [CompactedThrough(8, 2), entry(9)])
    log.commit()
    assert recover(killed(disk)).groups == {0: Recovered(None, CompactedThrough(10, 3))}
