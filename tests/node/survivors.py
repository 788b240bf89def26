"""Data folders as nodes of a cluster of three leave them behind, made with the real log, snapshots and store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing

import msgspec

from quorate.consensus.membership import Configuration
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.records import CompactedThrough, Entry, Record, SaveEntry, SaveState
from quorate.node.protocols import protocols_in, without_sizes
from quorate.node.snapshot_header import GroupSlice
from quorate.node.wire import Batch, Payload, PayloadCodec
from quorate.services.cluster.commands import Add, AnyCommand, Form, Member, Reached, encode
from quorate.services.cluster.store import ClusterStore
from quorate.storage.backup import BackupEncoder, BackupHeader
from quorate.storage.disk import Disk
from quorate.storage.identity import Identity
from quorate.storage.log import Log
from quorate.storage.snapshots import SnapshotInfo, Snapshots

CLUSTER_ID = "c" * 32
INCARNATIONS = {node: f"{node}" * 32 for node in range(3)}
MEMBERS = [
    Member(node, f"10.0.0.{node + 1}:3181", f"10.0.0.{node + 1}:4181", INCARNATIONS[node], voter=True)
    for node in range(3)
]
FORM = Form(CLUSTER_ID, MEMBERS, [0, 1])
ADD = Add(0, 3, "10.0.0.4:3181")


def payload(*commands: bytes) -> bytes:
    return PayloadCodec().encode(Payload(1_000, [Batch(0, 7, 1, list(commands))]))


def cluster_entry(position: int, generation: int, command: AnyCommand) -> Entry:
    return Entry(position, generation, payload(encode(command)))


CLUSTER_LOG = (Entry(1, 1, b""), cluster_entry(2, 1, FORM), cluster_entry(3, 2, ADD))
"""Group 0: formed, and a learner added; the members are at version 2."""


def configuration(version: int) -> Configuration:
    return Configuration.make(version, INCARNATIONS)


SERVICE_LOG = (
    Entry(1, 1, b""),
    Entry(2, 1, payload(b"one")),
    Entry(3, 2, configuration(4).encode()),
    Entry(4, 2, payload(b"two")),
)
"""Group 1 knows of version 4, which group 0 on this node has not heard of yet."""


def write_log(
    disk: Disk,
    group: int,
    entries: Sequence[Entry],
    generation: int,
    compacted: CompactedThrough | None = None,
    protocol: str = "raft",
) -> None:
    log, _ = Log.open(disk, segment_bytes=1 << 16)
    records: list[Record] = [SaveState(PROTOCOLS[protocol].state_at(generation))]
    records += [SaveEntry(entry) for entry in entries]
    if compacted is not None:
        records.append(compacted)
    log.append(group, records)
    log.close()


def leave(
    disk: Disk,
    node: int = 1,
    *,
    snapshot_at: int = 0,
    protocol: str = "raft",
    service_log: Sequence[Entry] = SERVICE_LOG,
) -> None:
    """The folder of a node that ran and stopped; with `snapshot_at`, group 0 was compacted through that position."""
    Identity.create(disk, "lab", node, INCARNATIONS[node], protocol, cluster_id=CLUSTER_ID, formation=INCARNATIONS)
    compacted = None
    if snapshot_at:
        store = ClusterStore()
        for entry in CLUSTER_LOG[:snapshot_at]:
            if entry.payload:
                for batch in PayloadCodec().decode(entry.payload).batches:
                    store.apply(batch.commands, 0)
        at = CLUSTER_LOG[snapshot_at - 1]
        asyncio.run(take_snapshot(disk, 0, at.position, at.generation, "cluster", store.content()))
        compacted = CompactedThrough(at.position, at.generation)
    runs_on = protocols_in(without_sizes(protocol), ["cluster", "zookeeper"])
    write_log(disk, 0, CLUSTER_LOG, 2, compacted, runs_on["cluster"])
    write_log(disk, 1, service_log, 3, protocol=runs_on["zookeeper"])


async def take_snapshot(
    disk: Disk, group: int, position: int, generation: int, service: str, content: bytes
) -> SnapshotInfo:
    writer = Snapshots(disk).create(group, position, generation, service)
    await writer.write(msgspec.msgpack.encode(GroupSlice(1_000, configuration(1).encode())))
    if service == "cluster":
        store = ClusterStore.of(content)
        with closing(store.snapshot()) as slices:
            for slice_ in slices:
                await writer.write(slice_)
    else:
        await writer.write(content)
    return await writer.finish()


def backup(disk: Disk, *, protocol: str = "raft", groups: Sequence[int] = (1, 0), generation: int = 6) -> bytes:
    """A backup of a cluster whose members are at version 3, made with snapshots on `disk`."""
    store = ClusterStore()
    for command in (FORM, ADD, Reached(0, 2), Reached(1, 2)):
        assert store.execute(command).problem is None
    infos = {
        0: asyncio.run(take_snapshot(disk, 0, 30, 5, "cluster", store.content())),
        1: asyncio.run(take_snapshot(disk, 1, 400, generation, "zookeeper", b"all the data")),
    }
    encoder = BackupEncoder()
    pieces = [encoder.begin(BackupHeader(1_700_000_000_000, "0.1.0", "lab", CLUSTER_ID, protocol, store.content()))]
    for group in groups:
        file = Snapshots(disk).open_file(infos[group])
        with closing(file):
            pieces += encoder.snapshot(infos[group], file)
    return b"".join([*pieces, encoder.finish()])
