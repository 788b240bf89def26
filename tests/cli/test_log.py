"""`quorate log inspect` on real logs: sound, damaged, torn, held and missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quorate.cli.main import main
from quorate.consensus.records import CompactedThrough, Entry, Record, SaveEntry, SaveState
from quorate.storage.identity import Identity
from quorate.storage.log import Log
from quorate.storage.real_disk import RealDisk

PAYLOADS = (b"first command", b"second command", b"third command")


def inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["log", "inspect", *map(str, arguments)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder of a node that wrote a state and three entries, and stopped in an orderly way."""
    folder = tmp_path / "node-0" / "data"
    disk = RealDisk(folder)
    log, _ = Log.open(disk, segment_bytes=1 << 16)
    log.append(1, [SaveState(b"state")])
    log.commit()
    for position, payload in enumerate(PAYLOADS, 1):
        log.append(1, [SaveEntry(Entry(position, 7, payload))])
        log.commit()
    log.close()
    disk.close()
    return folder


def damage(data: Path, payload: bytes) -> Path:
    """Flip a bit of a payload; returns the segment's file."""
    for segment in sorted((data / "log").iterdir()):
        content = bytearray(segment.read_bytes())
        at = content.find(payload)
        if at >= 0:
            content[at] ^= 1
            segment.write_bytes(content)
            return segment
    raise AssertionError("no such payload in the log")


def test_records_are_printed_and_found_sound(data: Path) -> None:
    result = inspect(data)
    assert result.exit_code == 0, result.output
    entries = [line.split()[1:] for line in result.output.splitlines() if " entry " in line]
    assert entries == [["1", "entry", str(at), "7", str(len(word))] for at, word in enumerate(PAYLOADS, 1)]
    assert result.output.splitlines()[-1].endswith("all checksums are right")


@pytest.mark.parametrize(
    ("protocol", "generation", "shown"),
    [("raft", 7, "7"), ("cluster=paxos,zookeeper=zab", 7, "7"), ("cluster=raft,zookeeper=paxos", 7_000_000_002, "7.2")],
)
def test_generations_are_written_as_the_groups_protocol_writes_them(
    data: Path, protocol: str, generation: int, shown: str
) -> None:
    disk = RealDisk(data)
    Identity.create(disk, "lab", 0, "0" * 32, protocol)
    log, _ = Log.open(disk, segment_bytes=1 << 16)
    # Out of order, as Paxos may accept them; and a snapshot behind a void entry.
    records: list[Record] = [
        SaveEntry(Entry(5, generation, b"")),
        SaveEntry(Entry(4, generation, b"")),
        CompactedThrough(3, 0),
    ]
    log.append(1, records)
    log.close()
    disk.close()
    lines = [line.split()[1:5] for line in inspect(data).output.splitlines()]
    at = lines.index(["1", "entry", "5", shown])
    assert lines[at + 1 : at + 3] == [["1", "entry", "4", shown], ["1", "compacted", "3", "-"]]


def test_the_folders_of_up_and_of_the_log_will_do(data: Path) -> None:
    whole = inspect(data)
    assert inspect(data.parent).output == whole.output
    assert inspect(data / "log").output == whole.output


def test_verify_only_prints_a_summary(data: Path) -> None:
    result = inspect(data, "--verify-only")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 1


def test_damage_is_named_with_file_and_offset(data: Path) -> None:
    segment = damage(data, PAYLOADS[0])
    result = inspect(data, "--verify-only")
    assert result.exit_code == 1
    assert f"DAMAGED: {segment} at offset " in result.stderr
    assert "1 damaged place" in result.stdout
    assert " entry " in inspect(data).stdout, "what lies behind the damage is shown too"


def test_a_running_node_is_left_alone(data: Path) -> None:
    disk = RealDisk(data)
    try:
        result = inspect(data)
    finally:
        disk.close()
    assert result.exit_code == 1
    assert result.output == (f"Error: a running node holds {data}. Stop it first: its log changes while it is read.\n")


def test_a_whole_clusters_folder_is_answered_with_advice(data: Path) -> None:
    result = inspect(data.parent.parent)
    assert result.exit_code == 1
    assert "Name one node's" in result.output


def test_a_folder_without_a_log(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        result = inspect(folder)
        assert result.exit_code == 1
        assert "holds no log" in result.output
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_a_log_of_a_later_format(data: Path) -> None:
    from google_crc32c import value

    segment = sorted((data / "log").iterdir())[0]
    content = bytearray(segment.read_bytes())
    content[8] = 9
    content[60:64] = value(bytes(content[:60])).to_bytes(4, "little")
    segment.write_bytes(content)
    result = inspect(data)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
