"""A new cluster out of what is left of an old one, offline: a survivor's data folder, or a backup.

    found = examine(disk)                   # what a survivor's folder holds; changes nothing
    recover(disk, found, new)               # the folder becomes that of a cluster of one node
    await restore_backup(disk, path, new)   # the same out of a backup, in an empty folder

Everything in the survivor's log is kept, committed or not: whether an entry was committed
only a quorum could tell, and there is none any more.  To each group's log an entry is added
with the configuration in which this node alone votes, and to the cluster group's the
command that makes it the only member, under a new cluster id.  The node takes both for
committed as soon as it leads, as it does the rest.  What is added is written as a leader
would that comes after all that the node has heard of: under a generation of its own.

A log of Paxos may have holes, where only the lost members hold something.  They are filled
as such a leader fills them, with entries of nothing; so what the former leader wrote after
one becomes void, because what it wrote before is gone.

The node gets a new incarnation as well, so that neither it nor any other former member can
be taken for a member of the old cluster, or of the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quorate.consensus.membership import (
    NO_CONFIGURATION,
    Configuration,
    InvalidConfiguration,
    decode_configuration,
    is_configuration,
)
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.records import CompactedThrough, Entry, InvalidState, Recovered
from quorate.consensus.replica import ConsensusProtocol, NodeId
from quorate.node.config import SERVICE_GROUPS
from quorate.node.protocols import CLUSTER_SERVICE, protocols_in, without_sizes
from quorate.node.snapshot_header import read_header
from quorate.node.wire import Batch, Payload, PayloadCodec
from quorate.services.cluster.commands import Member, Recover, encode
from quorate.services.cluster.store import ClusterStore
from quorate.storage.backup import BackupHeader, inspect, unpack
from quorate.storage.disk import Disk
from quorate.storage.identity import Identity
from quorate.storage.log_recovery import read_log
from quorate.storage.rebuild import STAGED_SNAPSHOTS, NewIdentity, discard_staged, start_over
from quorate.storage.snapshots import SnapshotInfo, Snapshots

CLUSTER_GROUP = 0


class CannotRecover(Exception):
    """What is there does not make a cluster; nothing was changed.  The message says why."""


@dataclass(frozen=True, slots=True)
class NewNode:
    """What the new cluster's only node is to be; None stands for what the old one was."""

    cluster_id: str
    """Drawn at random, as is the incarnation: 128 bits as 32 hexadecimal digits each."""
    incarnation: str
    node: NodeId | None = None
    peer: str | None = None
    """host:port where other nodes will reach it."""
    cluster: str | None = None
    """The name."""


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """How far one group's log goes."""

    protocol: ConsensusProtocol
    snapshot_position: int
    last_position: int
    generation: int
    """The highest of an entry."""
    state_generation: int
    """That the node had promised to follow: where it is higher, somebody may have led after the last entry."""
    holes: tuple[int, ...]
    """Positions before the last one of which the node has nothing."""
    configuration: Configuration
    """The newest in the log; `NO_CONFIGURATION` where there is none."""

    def next_generation(self) -> int:
        """Above all that the node has heard of."""
        return max(self.generation, self.state_generation) + 1


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder or a backup holds."""

    cluster: str
    cluster_id: str
    protocol: str
    """Which one each group runs on (`protocols.protocol_text`)."""
    node: NodeId | None
    """None in a backup."""
    groups: Mapping[int, FoundGroup]
    members: ClusterStore
    """The members as they come out of all that is there, committed or not."""
    torn: bool
    """The log ends in a write that a crash cut off; that was never acknowledged."""
    addresses: Mapping[NodeId, str]
    recovered: Mapping[int, Recovered]

    def version(self) -> int:
        """The latest that is known of anywhere."""
        return max([self.members.version, *(group.configuration.version for group in self.groups.values())])

    def others(self) -> list[NodeId]:
        """Who voted beside this node, in any group, as far as is known: what only they had is lost."""
        voters = set(self.members.voters)
        for group in self.groups.values():
            voters |= {*group.configuration.voters, *group.configuration.old_voters}
        return sorted(voters - {self.node})

    def doubts(self) -> list[str]:
        """Why this may not be the best that is left, for people."""
        doubts = []
        for group_id, group in self.groups.items():
            if self.node is not None and not group.configuration.votes(self.node):
                doubts.append(f"group {group_id}: node {self.node} did not vote, so it may lack what was written")
            if group.state_generation > group.generation:
                describe = group.protocol.describe_generation
                doubts.append(
                    f"group {group_id}: the last entry is of {describe(group.generation)}, but the node had heard of "
                    f"{describe(group.state_generation)}: another node may have written after it"
                )
            if group.holes:
                doubts.append(
                    f"group {group_id}: {len(group.holes)} of the entries before the last never came to this node, "
                    f"the first at {group.holes[0]}: they are lost, and what the same leader wrote after them is void"
                )
        return doubts


@dataclass(frozen=True, slots=True)
class Recovery:
    """A new cluster, and where what was there before is kept."""

    cluster: str
    cluster_id: str
    node: NodeId
    peer: str
    protocol: str
    services: tuple[str, ...]
    kept: str
    """Name of the folder, inside the data folder."""


def examine(disk: Disk) -> Found:
    """What a survivor's data folder holds.  Nothing in it is changed.

    Raises CannotRecover, CorruptLog, CorruptSnapshot, UnknownLogFormat, InvalidState,
    UnfinishedRecovery, DamagedIdentity, IdentityMismatch, OSError.
    """
    identity = Identity.load(disk)
    if identity is None:
        raise CannotRecover("the folder has no identity.json: it is not the data folder of a node")
    if not identity.cluster_id:
        raise CannotRecover("its node did not belong to any cluster yet: there is nothing to recover")
    contents = read_log(disk, "log")
    if contents.active is None:
        raise CannotRecover("the log is gone")
    snapshots = Snapshots(disk)
    initial = Configuration.make(1, identity.formation) if identity.formation else NO_CONFIGURATION
    groups = {}
    for group, recovered in contents.groups.items():
        _snapshot_of(snapshots, group, recovered)
        groups[group] = _found(group, recovered, initial, _protocol(identity.protocol, group))
    cluster = contents.groups.get(CLUSTER_GROUP, Recovered())
    members = _members(cluster, _snapshot_of(snapshots, CLUSTER_GROUP, cluster), snapshots)
    return Found(
        identity.cluster,
        identity.cluster_id,
        identity.protocol,
        identity.node,
        groups,
        members,
        bool(contents.torn),
        identity.addresses,
        contents.groups,
    )


def recover(disk: Disk, found: Found, new: NewNode, why: str) -> Recovery:
    """Make the folder that was examined the one of a new cluster's only node.

    Raises CannotRecover, and what `rebuild.start_over` raises.
    """
    assert found.node is not None, "a backup is restored"
    if new.node not in (None, found.node):
        raise CannotRecover(f"the folder is that of node {found.node}, not of node {new.node}")
    return _start_over(disk, found, new, why, ())


async def restore_backup(disk: Disk, path: Path, new: NewNode) -> Recovery:
    """Make an empty folder the one of a new cluster's only node, with the data of a backup.

    Raises CannotRecover, and what `backup.unpack` and `rebuild.start_over` raise.
    """
    assert new.node is not None, "a backup is nobody's"
    header = inspect(path).header
    unpacked = await unpack(path, disk)
    try:
        found = _found_in_backup(disk, header, unpacked)
        return _start_over(disk, found, new, f"restored from {path.name}", unpacked)
    except CannotRecover:
        discard_staged(disk)
        raise


def apply_entries(store: ClusterStore, entries: Iterable[Entry]) -> None:
    """Apply what the cluster group's log holds, committed or not.  Raises msgspec.DecodeError."""
    codec = PayloadCodec()
    for entry in entries:
        if entry.payload and not is_configuration(entry.payload):
            payload = codec.decode(entry.payload)
            for batch in payload.batches:
                store.apply(batch.commands, payload.time_ms)


# --- inside ----------------------------------------------------------------------------------


def _start_over(
    disk: Disk,
    found: Found,
    new: NewNode,
    why: str,
    unpacked: Iterable[SnapshotInfo],
) -> Recovery:
    node = new.node if new.node is not None else found.node
    assert node is not None
    peer = new.peer or _address_of(found, node)
    if CLUSTER_GROUP not in found.groups:
        raise CannotRecover("the list of members is missing: there is nothing of the cluster's own group")
    recovered = {group: _taken_over(was, found.groups[group]) for group, was in found.recovered.items()}
    cluster = new.cluster or found.cluster
    identity = NewIdentity(
        cluster,
        new.cluster_id,
        node,
        new.incarnation,
        without_sizes(found.protocol),
        recovered_from=found.cluster_id,
    )
    extra = _extra_entries(found, new, node, peer)
    kept = start_over(disk, recovered, extra, identity, why, unpacked=tuple(unpacked))
    services = tuple(service for service, group in SERVICE_GROUPS.items() if group in extra)
    return Recovery(cluster, new.cluster_id, node, peer, identity.protocol, services, kept)


def _protocol(text: str, group: int) -> ConsensusProtocol:
    names = {CLUSTER_GROUP: CLUSTER_SERVICE, **{number: service for service, number in SERVICE_GROUPS.items()}}
    try:
        [protocol] = protocols_in(without_sizes(text), [names.get(group, "")]).values()
        return PROTOCOLS[protocol]
    except ValueError as error:
        raise CannotRecover(f"nothing says which protocol group {group} ran on ({text})") from error


def _address_of(found: Found, node: NodeId) -> str:
    member = found.members.members.get(node) or found.members.leaving.get(node)
    address = member.address if member is not None else found.addresses.get(node)
    if address is None:
        raise CannotRecover(f"nothing here says where other nodes reach node {node}: say it with --peer HOST:PORT")
    return address


def _extra_entries(found: Found, new: NewNode, node: NodeId, peer: str) -> dict[int, list[Entry]]:
    """What goes to the end of each group's log."""
    version = found.version() + 1
    configuration = Configuration.make(version, {node: new.incarnation}).encode()
    groups = sorted({*found.groups, *found.members.groups})
    extra: dict[int, list[Entry]] = {}
    for group_id in groups:
        group = found.groups.get(group_id)
        position, generation = (group.last_position, group.next_generation()) if group is not None else (0, 1)
        extra[group_id] = [Entry(position + 1, generation, configuration)]
    member = Member(node, peer, "", new.incarnation, voter=True)
    command = encode(Recover(new.cluster_id, member, groups, version))
    payload = PayloadCodec().encode(Payload(0, [Batch(node, 0, 0, [command])]))
    last = extra[CLUSTER_GROUP][-1]
    extra[CLUSTER_GROUP].append(Entry(last.position + 1, last.generation, payload))
    return extra


def _taken_over(recovered: Recovered, group: FoundGroup) -> Recovered:
    """The group's records, the node having promised to follow nobody but the leader that adds to them."""
    generation = group.next_generation()
    entries = [*recovered.entries, *(Entry(position, generation, b"") for position in group.holes)]
    entries.sort(key=lambda entry: entry.position)
    return Recovered(group.protocol.state_at(generation), recovered.compacted, tuple(entries))


def _found(group: int, recovered: Recovered, initial: Configuration, protocol: ConsensusProtocol) -> FoundGroup:
    compacted = recovered.compacted
    configuration = _decode_configuration(group, compacted.configuration, initial)
    position, generation = compacted.position, compacted.generation
    holes: list[int] = []
    for entry in recovered.entries:
        holes += range(position + 1, entry.position)
        position, generation = entry.position, max(generation, entry.generation)
        if is_configuration(entry.payload):
            configuration = _decode_configuration(group, entry.payload, initial)
    try:
        state_generation = protocol.generation_of(recovered.state)
    except InvalidState as error:
        raise CannotRecover(f"group {group}: {error}") from error
    if holes and not protocol.leaves_holes:
        raise CannotRecover(f"the log of group {group} has no entry at position {holes[0]}")
    return FoundGroup(protocol, compacted.position, position, generation, state_generation, tuple(holes), configuration)


def _decode_configuration(group: int, data: bytes, initial: Configuration) -> Configuration:
    try:
        return decode_configuration(data) if data else initial
    except InvalidConfiguration as error:
        raise CannotRecover(f"group {group}: {error}") from error


def _snapshot_of(snapshots: Snapshots, group: int, recovered: Recovered) -> SnapshotInfo | None:
    """The snapshot on which the group's log rests.  None where it rests on none."""
    position = recovered.compacted.position
    if not position:
        return None
    for info in snapshots.all(group):
        if info.position == position:
            return info
    raise CannotRecover(f"the log of group {group} begins after position {position}, whose snapshot is missing")


def _members(recovered: Recovered, snapshot: SnapshotInfo | None, snapshots: Snapshots) -> ClusterStore:
    """The cluster group's store, with every entry that is there applied.  Raises CorruptSnapshot."""
    store = ClusterStore()
    try:
        if snapshot is not None:
            loader = store.restore()
            with closing(snapshots.open(snapshot)) as slices:
                next(slices, b"")  # the group's own
                for slice_ in slices:
                    loader.feed(slice_)
            loader.finish()
        apply_entries(store, recovered.entries)
    except (msgspec.DecodeError, ValueError) as error:
        raise CannotRecover(f"the list of members cannot be read: {error}") from error
    return store


def _found_in_backup(disk: Disk, header: BackupHeader, unpacked: list[SnapshotInfo]) -> Found:
    snapshots = Snapshots(disk, STAGED_SNAPSHOTS)
    recovered: dict[int, Recovered] = {}
    groups: dict[int, FoundGroup] = {}
    members = ClusterStore()
    for info in unpacked:
        try:
            configuration = read_header(snapshots, info).configuration
        except (msgspec.DecodeError, ValueError) as error:
            raise CannotRecover(f"the snapshot of group {info.group} cannot be read: {error}") from error
        recovered[info.group] = Recovered(None, CompactedThrough(info.position, info.generation, configuration))
        protocol = _protocol(header.protocol, info.group)
        groups[info.group] = _found(info.group, recovered[info.group], NO_CONFIGURATION, protocol)
        if info.group == CLUSTER_GROUP:
            members = _members(Recovered(), info, snapshots)
    return Found(header.cluster, header.cluster_id, header.protocol, None, groups, members, False, {}, recovered)
