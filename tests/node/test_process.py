"""How a node's process ends: with one clear line and the right exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from quorate.consensus.records import SaveState
from quorate.node import process
from quorate.node.config import SERVICE_GROUPS, Address, ListenConfig, NodeConfig, StorageConfig, TlsConfig
from quorate.node.process import EXIT_DAMAGED_DATA, EXIT_FAILED, EXIT_OK, EXIT_WRONG_CONFIGURATION
from quorate.node.roster import ALONE_MS
from quorate.simulation.disk import SimulatedDisk
from quorate.simulation.scheduler import Simulation
from quorate.storage.disk import DiskFull
from quorate.storage.identity import Identity
from quorate.storage.log import Log

HOST = "10.0.0.1"
SEGMENT_BYTES = 1 << 16
SEGMENT = "log/0000000000000001.segment"


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


BOTH = ("zookeeper", "etcd")


def run(
    disk: SimulatedDisk,
    meanwhile: Callable[[], None] = lambda: None,
    services: tuple[str, ...] = ("zookeeper",),
    protocol: str | None = None,
) -> int:
    """Run a cluster of one on a simulated machine; `meanwhile` after it serves, and two seconds later SIGTERM."""
    address = Address(HOST, 3181)
    listen = ListenConfig(address, Address(HOST, 4181), Address(HOST, 2181), Address(HOST, 2379))
    storage = StorageConfig(segment_bytes=SEGMENT_BYTES)
    config = NodeConfig(
        "paris", 0, Path("unused"), {0: address}, listen, storage=storage, services=services, protocol=protocol
    )

    async def scenario() -> int:
        stopping = asyncio.Event()
        running = asyncio.get_running_loop().create_task(process.run_on(config, disk, stopping))
        # A lone first member forms its cluster a moment after it has started; then it elects itself, which it writes.
        await asyncio.sleep(ALONE_MS / 1000 + 0.1)
        meanwhile()
        await asyncio.wait([running], timeout=2)
        stopping.set()
        return await running

    simulation = Simulation()
    machine = simulation.boot(HOST)
    disk.attach(machine)
    try:
        return simulation.run(machine, scenario())
    finally:
        disk.detach()


def used(disk: SimulatedDisk) -> SimulatedDisk:
    """The disk, with the identity and log of a node that ran."""
    Identity.open(disk, "paris", 0, "0" * 32, "raft")
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    log.close()
    return disk


def unreadable_hard_state() -> SimulatedDisk:
    disk = used(SimulatedDisk())
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    log.append(SERVICE_GROUPS["zookeeper"], [SaveState(b"?")])
    log.close()
    return disk


def damaged_log() -> SimulatedDisk:
    disk = used(SimulatedDisk())
    disk.flip_bit("log/0000000000000001.segment", 8 * 70)
    return disk


def missing_log() -> SimulatedDisk:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 0, "0" * 32, "raft")
    return disk


def another_node() -> SimulatedDisk:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 1, "0" * 32, "raft")
    Log.open(disk, segment_bytes=SEGMENT_BYTES)[0].close()
    return disk


def failing_disk() -> SimulatedDisk:
    disk = used(SimulatedDisk())
    disk.failing_syncs = True
    return disk


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (unreadable_hard_state, EXIT_DAMAGED_DATA, "ZAB hard state has 1 bytes, expected 25"),
        (damaged_log, EXIT_DAMAGED_DATA, "log/0000000000000001.segment"),
        (missing_log, EXIT_DAMAGED_DATA, "its log is gone"),
        (another_node, EXIT_WRONG_CONFIGURATION, "belongs to node 1, not node 0"),
        (failing_disk, EXIT_FAILED, "the log could not be made ready"),
        (lambda: SimulatedDisk(capacity_bytes=SEGMENT_BYTES - 1), EXIT_FAILED, "no space left"),
    ],
)
def test_a_node_that_cannot_start_says_why(
    make: Callable[[], SimulatedDisk], code: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert run(make()) == code
    (record,) = caplog.records
    assert said in record.getMessage()
    assert record.exc_info is None


def test_a_stopped_node_ends_well(caplog: pytest.LogCaptureFixture) -> None:
    disk = SimulatedDisk()
    with caplog.at_level(logging.ERROR):
        assert run(disk) == EXIT_OK
    assert caplog.records == []
    disk.lose_power(Random(1))
    assert run(disk) == EXIT_OK


def test_a_node_whose_disk_fails_stops_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    disk = SimulatedDisk()

    def fail() -> None:
        disk.failing_syncs = True

    with caplog.at_level(logging.ERROR):
        assert run(disk, fail) == EXIT_FAILED
    (record,) = caplog.records
    assert "the log could not be written to disk: [Errno 5] input/output error" in record.getMessage()
    assert not record.exc_info


def test_a_disk_that_is_full_or_fails_at_the_very_end_is_said_in_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_: Log) -> None:
        raise DiskFull("no room for segment 9 of the log")

    monkeypatch.setattr(Log, "close", no_room)
    with caplog.at_level(logging.ERROR):
        assert run(SimulatedDisk()) == EXIT_FAILED
    (record,) = caplog.records
    assert "no room for segment 9 of the log" in record.getMessage()
    assert not record.exc_info


def test_a_bug_of_ours_is_shown_with_its_trace(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(_: Log) -> None:
        monkeypatch.undo()
        raise AssertionError("a bug of ours")

    with caplog.at_level(logging.ERROR):
        assert run(SimulatedDisk(), lambda: monkeypatch.setattr(Log, "sync", bug)) == EXIT_FAILED
    (record,) = caplog.records
    assert "a bug of ours" in record.getMessage()
    assert record.exc_info


@pytest.mark.parametrize(
    ("formed_with", "started_with", "said"),
    [
        (("zookeeper",), BOTH, 'serve zookeeper, these settings say zookeeper and etcd: set services = ["zookeeper"]'),
        (BOTH, ("etcd",), 'zookeeper and etcd, these settings say etcd: set services = ["zookeeper", "etcd"]'),
        (("etcd",), ("zookeeper",), 'serve etcd, these settings say zookeeper: set services = ["etcd"]'),
    ],
)
def test_the_services_of_a_cluster_are_those_with_which_it_was_formed(
    formed_with: tuple[str, ...], started_with: tuple[str, ...], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    disk = SimulatedDisk()
    assert run(disk, services=formed_with) == EXIT_OK
    disk.lose_power(Random(1))
    with caplog.at_level(logging.ERROR):
        assert run(disk, services=started_with) == EXIT_WRONG_CONFIGURATION
    (record,) = caplog.records
    assert said in record.getMessage()
    disk.lose_power(Random(1))
    assert run(disk, services=formed_with) == EXIT_OK, "nothing was changed"


@pytest.mark.parametrize(
    ("made_with", "started_with", "said"),
    [
        (
            None,
            "raft",
            "cluster=raft,zookeeper=zab, these settings say raft, and a cluster keeps its protocol for good",
        ),
        ("paxos", "zookeeper=zab", "say cluster=raft,zookeeper=zab, and a cluster keeps its protocol for good: set "),
        ("zookeeper=paxos", "zab", 'for good: set protocol = "cluster=raft,zookeeper=paxos"'),
    ],
)
def test_the_protocol_of_a_cluster_is_the_one_with_which_it_was_made(
    made_with: str | None, started_with: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    disk = SimulatedDisk()
    assert run(disk, protocol=made_with) == EXIT_OK
    disk.lose_power(Random(1))
    # A torn tail: what a start that is not refused would cut.
    torn = disk.open(SEGMENT)
    torn.write_at(len(disk.read(SEGMENT).rstrip(b"\0")) + 8, b"torn")
    torn.sync()
    before = disk.written_bytes
    with caplog.at_level(logging.ERROR):
        assert run(disk, protocol=started_with) == EXIT_WRONG_CONFIGURATION
    (record,) = caplog.records
    assert said in record.getMessage()
    assert disk.written_bytes == before, "it is refused before anything is written"


@pytest.mark.parametrize("made_with", [None, "raft", "paxos", "cluster=zab,zookeeper=paxos"])
def test_settings_that_leave_the_protocol_out_mean_the_one_of_the_folder(made_with: str | None) -> None:
    disk = SimulatedDisk()
    assert run(disk, protocol=made_with) == EXIT_OK
    disk.lose_power(Random(1))
    assert run(disk) == EXIT_OK
    disk.lose_power(Random(2))
    assert run(disk, protocol=made_with) == EXIT_OK, "it is as it was"


def test_a_folder_that_is_set_aside_leaves_its_protocol_behind() -> None:
    disk = SimulatedDisk()
    identity = Identity.open(disk, "paris", 0, "0" * 32, "paxos")
    identity.form("c" * 32, {0: "0" * 32, 1: "1" * 32})
    identity.remember_members({0: f"{HOST}:3181", 1: "10.0.0.2:3181"}, [0, 1])
    assert run(disk) == EXIT_OK, "its log is gone, and another member can refill it"
    assert "damaged-1" in disk.list("")
    again = Identity.load(disk)
    assert again is not None
    assert (again.protocol, again.cluster_id) == ("paxos", "")


def test_a_folder_of_no_cluster_yet_may_be_given_another_protocol() -> None:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 0, "0" * 32, "paxos")
    Log.open(disk, segment_bytes=SEGMENT_BYTES)[0].close()
    assert run(disk, protocol="zab") == EXIT_OK
    identity = Identity.load(disk)
    assert identity is not None
    assert identity.protocol == "zab"


def test_a_group_in_the_log_tells_of_its_service_before_the_members_do(caplog: pytest.LogCaptureFixture) -> None:
    """The node was stopped between its group's first vote and the first word about the members."""
    disk = SimulatedDisk()
    identity = Identity.open(disk, "paris", 0, "0" * 32, "raft")
    identity.form("c" * 32, {0: "0" * 32})
    log, _ = Log.open(disk, segment_bytes=SEGMENT_BYTES)
    log.append(SERVICE_GROUPS["etcd"], [SaveState(b"?")])
    log.close()
    with caplog.at_level(logging.ERROR):
        assert run(disk, services=("zookeeper",)) == EXIT_WRONG_CONFIGURATION
    assert 'set services = ["zookeeper", "etcd"]' in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("cert", "key", "client_ca", "said"),
    [
        ("absent", "key", None, "tls.cert: ABSENT cannot be read: No such file or directory"),
        ("cert", "absent", None, "tls.key: ABSENT cannot be read"),
        ("cert", "key", "absent", "tls.client_ca: ABSENT cannot be read"),
        ("nonsense", "key", None, "[tls]: "),
    ],
)
def test_tls_files_that_cannot_be_used_are_named(
    tmp_path: Path, cert: str, key: str, client_ca: str | None, said: str
) -> None:
    for name in ("cert", "key", "nonsense"):
        (tmp_path / name).write_text("no PEM at all")
    tls = TlsConfig(tmp_path / cert, tmp_path / key, tmp_path / client_ca if client_ca else None)
    config = NodeConfig("paris", 0, Path("unused"), {}, ListenConfig(Address(HOST, 1)), services=("etcd",), tls=tls)
    with pytest.raises(OSError, match=re.escape(said.replace("ABSENT", str(tmp_path / "absent")))):
        process.host_services(config)


def test_a_tls_key_that_is_encrypted_is_named_and_nobody_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("ENCRYPTED KEY NOT TRIED: install openssl to run this test")
    options = ("-newkey", "rsa:2048", "-passout", "pass:secret", "-keyout", "key", "-out", "cert", "-subj", "/CN=a")
    subprocess.run(["openssl", "req", "-x509", *options], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    tls = TlsConfig(tmp_path / "cert", tmp_path / "key")
    config = NodeConfig("paris", 0, Path("unused"), {}, ListenConfig(Address(HOST, 1)), services=("etcd",), tls=tls)
    code = asyncio.run(process.run_on(config, SimulatedDisk(), asyncio.Event()))
    assert code == EXIT_WRONG_CONFIGURATION
    (record,) = caplog.records
    assert f"cannot start: tls.key: {tmp_path / 'key'} is encrypted" in record.getMessage()
    assert "openssl pkey" in record.getMessage()
