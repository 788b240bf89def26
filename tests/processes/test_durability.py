"""No vote, acknowledgement or reply leaves a node before the fdatasync of its record has returned.

SIGKILL cannot show this, because the kernel keeps what a killed process wrote.  So the
system calls of real nodes are traced with strace and judged (see `durability`), once on the
disk as it is, where nodes sync inline, and once with syncs made slow, where they sync aside.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from quorate.consensus.paxos import hard_state as paxos_state
from quorate.consensus.paxos import messages as paxos
from quorate.consensus.raft.hard_state import encode_hard_state
from quorate.consensus.raft.messages import Appended, RequestVote, Vote
from quorate.consensus.records import Entry, Record, SaveEntry, SaveState
from quorate.consensus.replica import Message
from quorate.consensus.zab import hard_state as zab_state
from quorate.consensus.zab import messages as zab
from quorate.net.frames import FrameEncoder
from quorate.storage.log_blocks import RECORDS_BLOCK, SEGMENT_HEADER_BYTES, BlockBuilder
from tests.processes.cluster import SMALL_STORAGE, Cluster
from tests.processes.conftest import MakeCluster
from tests.processes.durability import Verdict, Writes, judge
from tests.processes.revealed import KINDS
from tests.processes.syscalls import strace

MARKER = re.compile(rb"marker-\d{6}")
WRITES_A_CLIENT = 60
AS_THEY_ARE, SLOW = (0, 0, 0), (30_000, 8_000, 8_000)
"""Microseconds more that a sync takes, on each node."""


def can_trace() -> str:
    """Why strace cannot be used here; empty where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return f"strace cannot trace: {tried.stderr.strip()}" if tried.returncode else ""


# --- real nodes -------------------------------------------------------------------------------


def write_on_all(cluster: Cluster, zxids: dict[bytes, int]) -> None:
    """Pipelined writes and reads through every node that runs; `zxids` learns the zxid of each marker."""
    clients = [cluster.client([node]) for node in cluster.nodes if node.runs()]
    clients[0].ensure_path("/traced")
    for client in clients:
        client.sync("/")
    sets: list[tuple[bytes, Any]] = []
    for _ in range(WRITES_A_CLIENT):
        for client in clients:
            marker = b"marker-%06d" % (len(zxids) + len(sets))
            sets.append((marker, client.set_async("/traced", marker + b"x" * 500)))
            client.get_async("/traced")
        if len(sets) % 7 < 3:
            # Also one at a time, so that not every sync has many writes behind it.
            sets[-1][1].get(60)
    for marker, result in sets:
        zxids[marker] = result.get(60).mzxid
    for client in clients:
        client.stop()


@pytest.mark.processes
@pytest.mark.skipif(bool(can_trace()), reason=can_trace())
@pytest.mark.parametrize(
    ("protocol", "slow_syncs_us"),
    [("raft", AS_THEY_ARE), ("zab", SLOW), ("paxos", SLOW)],
    ids=["raft-disks-as-they-are", "zab-slow-disks", "paxos-slow-disks"],
)
def test_nothing_leaves_a_node_before_its_disk_holds_it(
    make_cluster: MakeCluster, tmp_path: Path, protocol: str, slow_syncs_us: tuple[int, int, int]
) -> None:
    """One of the slow disks is slower than the rest, so that a quorum holds entries that this node does not."""
    traces = [tmp_path / f"trace-{node}" for node in range(3)]
    cluster = make_cluster(
        settings=SMALL_STORAGE,
        wrapper=lambda node: strace(str(traces[node]), slow_syncs_us=slow_syncs_us[node]),
        protocol=protocol,
    ).start()
    zxids: dict[bytes, int] = {}
    write_on_all(cluster, zxids)
    cluster.leader().kill()
    cluster.leader()
    write_on_all(cluster, zxids)
    cluster.close()

    checked: Counter[str] = Counter()
    aside = 0
    for node, trace in zip(cluster.nodes, traces, strict=True):
        lines = trace.read_text().splitlines()
        aside += sum("fdatasync" in line and ("resumed" in line or "unfinished" in line) for line in lines)
        verdict = look_at(cluster, node.node, lines, zxids)
        assert verdict.violations == [], f"node {node.node}, see {trace}"
        checked += verdict.checked
        # The same trace without its syncs: had they not been made, this would have been found out.
        unsynced = [line for line in lines if "fdatasync" not in line]
        assert len(look_at(cluster, node.node, unsynced, zxids).violations) > len(zxids) // 4
        late = look_at(cluster, node.node, with_late_syncs(lines, node.config.listen.zookeeper.port), zxids)
        assert late.violations, "syncs that return a moment later must be found out, too"
    print(f"{dict(checked)}, {aside} lines of syncs made aside")
    assert bool(aside) >= any(slow_syncs_us), "syncs are made aside on slow disks"
    for kind in (*KINDS[protocol], "replies", "blocks"):
        assert checked[kind] > 0, f"the trace shows no {kind}"
    assert checked["replies"] >= len(zxids) and checked["acknowledgements"] > 50


def look_at(cluster: Cluster, node: int, lines: Sequence[str], zxids: dict[bytes, int]) -> Verdict:
    config = cluster.nodes[node].config
    peer_ports = {address.port: peer for peer, address in config.members.items() if peer != node}
    return judge(lines, node, config.listen.zookeeper.port, peer_ports, Writes(MARKER, zxids))


def with_late_syncs(lines: Sequence[str], zookeeper_port: int) -> list[str]:
    """Every sync returns only after the next reply to a client has left."""
    changed: list[str] = []
    held: list[str] = []
    for line in lines:
        if "fdatasync" in line and "unfinished" not in line:
            held.append(line)
            continue
        changed.append(line)
        if f"<TCP:[127.0.0.1:{zookeeper_port}->" in line and "unfinished" not in line:
            changed += held
            held = []
    return changed + held


# --- made-up traces: what the judge must find ---------------------------------------------------

LOG = "/data/log/0000000000000001.segment"
CLIENT, TO_NODE_2 = "TCP:[127.0.0.1:2181->127.0.0.1:50001]", "TCP:[127.0.0.1:50002->127.0.0.1:3182]"


class Tracer:
    """Writes lines as strace would."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._end = SEGMENT_HEADER_BYTES
        self._frames = FrameEncoder()
        self.send(CLIENT, b"\0\0\0\1c")
        self.send(TO_NODE_2, b"\0\0\0\1h")

    def send(self, target: str, data: bytes) -> None:
        self.lines.append(f'7 write(9<{target}>, "{hexed(data)}", {len(data)}) = {len(data)}')

    def message(self, message: Message) -> None:
        self.send(TO_NODE_2, bytes(self._frames.encode([(1, message)])))

    def reply(self, zxid: int) -> None:
        self.send(CLIENT, struct.pack(">iiqi", 16, 1, zxid, 0))

    def write(self, *records: Record, group: int = 1) -> None:
        builder = BlockBuilder()
        builder.add(group, records)
        block = builder.finish(RECORDS_BLOCK, 1, self._end, 0)
        self.lines.append(
            f'7 pwrite64(5<{hexed(LOG.encode())}>, "{hexed(block)}", {len(block)}, {self._end}) = {len(block)}'
        )
        self._end += len(block)

    def sync(self, result: str = "0", thread: int = 7) -> None:
        self.lines.append(f"{thread} fdatasync(5<{hexed(LOG.encode())}>) = {result}")

    def sync_begins(self, thread: int = 8) -> None:
        self.lines.append(f"{thread} fdatasync(6<{hexed(LOG.encode())}> <unfinished ...>")

    def sync_ends(self, thread: int = 8) -> None:
        self.lines.append(f"{thread} <... fdatasync resumed>) = 0")

    def violations(self) -> list[str]:
        writes = Writes(MARKER, {b"marker-000001": 101, b"marker-000002": 102})
        return judge(self.lines, 1, 2181, {3182: 2}, writes).violations


def hexed(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def entry(position: int) -> SaveEntry:
    return SaveEntry(Entry(position, 1, b"..marker-%06d.." % position))


VOTE_RECORD = SaveState(encode_hard_state(1, 2))


@pytest.fixture
def tracer() -> Tracer:
    return Tracer()


@pytest.mark.parametrize("synced", [True, False])
def test_a_vote_waits_for_its_sync(tracer: Tracer, synced: bool) -> None:
    tracer.write(VOTE_RECORD)
    if synced:
        tracer.sync()
    tracer.message(Vote(1, True, False))
    assert bool(tracer.violations()) is not synced


def test_a_vote_must_be_the_one_that_is_durable(tracer: Tracer) -> None:
    tracer.write(SaveState(encode_hard_state(1, 0)))
    tracer.sync()
    tracer.message(Vote(1, True, False))
    assert "vote for 0" in tracer.violations()[0]


def test_what_one_group_made_durable_says_nothing_of_another(tracer: Tracer) -> None:
    tracer.write(VOTE_RECORD, entry(1))
    tracer.write(SaveState(encode_hard_state(7, 1)), group=0)
    tracer.sync()
    tracer.message(Appended(1, 1, 1))
    assert tracer.violations() == []
    tracer.write(entry(2), group=0)
    tracer.sync()
    tracer.message(Appended(1, 1, 2))
    tracer.message(Vote(7, True, False))
    assert len(tracer.violations()) == 3, "no entry, a term and a vote that are another group's"


def test_a_candidate_votes_for_itself_durably_before_it_asks(tracer: Tracer) -> None:
    tracer.write(SaveState(encode_hard_state(1, None)))
    tracer.sync()
    tracer.message(RequestVote(1, 0, 0, False))
    assert "no own vote" in tracer.violations()[0]


def test_a_pre_vote_needs_no_disk(tracer: Tracer) -> None:
    tracer.message(RequestVote(1, 0, 0, True))
    tracer.message(Vote(1, True, True))
    assert tracer.violations() == []


ACCEPTED_EPOCH = SaveState(zab_state.encode_hard_state(zab_state.HardState(3, 2, 1)))
CURRENT_EPOCH = SaveState(zab_state.encode_hard_state(zab_state.HardState(3, 2, 3)))
PROMISE = SaveState(paxos_state.encode_hard_state(3_000_000_002, 0, {}))
PAPERS = [
    ("ZAB: accepted", (ACCEPTED_EPOCH,), zab.AckEpoch(3, 1, 1, 1)),
    ("ZAB: accepted, told to any other", (ACCEPTED_EPOCH,), zab.Ping(3, 1, 1, 1, 1)),
    ("ZAB: history", (ACCEPTED_EPOCH, entry(1), CURRENT_EPOCH), zab.AckLeader(3, 1, 1)),
    ("ZAB: entry", (CURRENT_EPOCH, entry(1)), zab.Ack(3, 1, 1)),
    ("Paxos: promise", (PROMISE,), paxos.Promise(3_000_000_002, 0, 1, 0, True)),
    ("Paxos: own ballot", (PROMISE,), paxos.Prepare(3_000_000_002, 1)),
    ("Paxos: entry behind a hole", (PROMISE, entry(1), entry(3)), paxos.Accepted(3_000_000_002, 1, 3, 3)),
]


@pytest.mark.parametrize(("records", "message"), [case[1:] for case in PAPERS], ids=[case[0] for case in PAPERS])
def test_what_a_message_reveals_waits_for_its_sync(records: tuple[Record, ...], message: Message) -> None:
    """The last record is the one that it waits for."""
    for synced in (True, False):
        tracer = Tracer()
        tracer.write(*records[:-1])
        tracer.sync()
        tracer.write(records[-1])
        if synced:
            tracer.sync()
        tracer.message(message)
        assert bool(tracer.violations()) is not synced


def test_claims_that_no_record_of_the_node_bears_out(tracer: Tracer) -> None:
    tracer.write(ACCEPTED_EPOCH)
    tracer.write(PROMISE, group=0)
    tracer.sync()
    tracer.message(zab.NewEpoch(3, False))
    assert "promised durably to 2" in tracer.violations()[0], "its sender is node 1"


def test_what_binds_nobody_in_paxos_needs_no_disk(tracer: Tracer) -> None:
    tracer.message(paxos.PreVote(3_000_000_002, 0))
    tracer.message(paxos.PreVoted(3_000_000_002, True))
    assert tracer.violations() == []


@pytest.mark.parametrize("synced", [True, False])
def test_an_acknowledgement_and_a_reply_wait_for_the_entry(tracer: Tracer, synced: bool) -> None:
    tracer.write(VOTE_RECORD, entry(1))
    tracer.sync()
    tracer.write(entry(2))
    if synced:
        tracer.sync()
    tracer.message(Appended(1, 1, 2))
    tracer.reply(102)
    assert len(tracer.violations()) == (0 if synced else 2)


def test_an_earlier_zxid_may_be_shown_before_a_later_write_is_durable(tracer: Tracer) -> None:
    tracer.write(VOTE_RECORD, entry(1))
    tracer.sync()
    tracer.write(entry(2))
    tracer.message(Appended(1, 1, 1))
    tracer.reply(101)
    assert tracer.violations() == []


def test_a_sync_that_failed_makes_nothing_durable(tracer: Tracer) -> None:
    tracer.write(VOTE_RECORD, entry(1))
    tracer.sync("-1 EIO (Input/output error)")
    tracer.message(Appended(1, 1, 1))
    assert tracer.violations()


def test_a_sync_covers_what_was_written_before_it_began(tracer: Tracer) -> None:
    tracer.write(VOTE_RECORD, entry(1))
    tracer.sync_begins()
    tracer.write(entry(2))
    tracer.message(RequestVote(2, 0, 0, True))
    tracer.sync_ends()
    tracer.message(Appended(1, 1, 1))
    assert tracer.violations() == []
    tracer.message(Appended(1, 1, 2))
    assert len(tracer.violations()) == 1


def test_a_sync_under_way_has_not_returned(tracer: Tracer) -> None:
    tracer.write(VOTE_RECORD, entry(1))
    tracer.sync_begins()
    tracer.message(Appended(1, 1, 1))
    tracer.sync_ends()
    assert tracer.violations()
