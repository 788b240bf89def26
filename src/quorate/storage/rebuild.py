"""A data folder starts over, offline: what a log or a backup holds becomes the log of a new cluster's first node.

    folder = start_over(disk, groups, extra, identity, why)         # "before-recovery-1"
    folder = finish_interrupted(disk)                               # first, whenever a command begins

The new log and identity are written beside the old ones, in `recovering/`, and take their
places in one step (see `moves`).  Until that step is written down the folder is the old
one, and afterwards it is refused by `Identity.load` until `finish_interrupted` has done the
rest.  The old log and identity go to `before-recovery-N/`; nothing of them is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from quorate.consensus.records import CompactedThrough, Entry, Record, Recovered, SaveEntry, SaveState
from quorate.consensus.replica import NodeId
from quorate.storage.disk import Disk
from quorate.storage.identity import FILE_NAME, DamagedIdentity, Identity, check_finished
from quorate.storage.log import DEFAULT_SEGMENT_BYTES, Log
from quorate.storage.moves import (
    DamagedMoves,
    Moves,
    Purpose,
    begin,
    carry_out,
    next_folder,
    settle_names,
    unfinished_moves,
)
from quorate.storage.set_aside import state_files
from quorate.storage.snapshots import SnapshotInfo, Snapshots

STAGING = "recovering"
STAGED_SNAPSHOTS = f"{STAGING}/snapshots"
_STAGED_LOG = f"{STAGING}/log"
_STAGED_IDENTITY = f"{STAGING}/{FILE_NAME}"
_WRITE_BYTES = 1 << 20
"""Of entries in one write to the new log."""


class MissingSnapshot(Exception):
    """A group's log begins behind a snapshot that is not there: its state cannot be had from this folder."""


class NewIdentity(msgspec.Struct, frozen=True):
    """Of the node that the folder becomes; see `identity.Identity`."""

    cluster: str
    cluster_id: str
    node: NodeId
    incarnation: str
    protocol: str
    formation: dict[NodeId, str] = {}
    recovered_from: str = ""


def start_over(
    disk: Disk,
    groups: Mapping[int, Recovered],
    extra: Mapping[int, Sequence[Entry]],
    identity: NewIdentity,
    why: str,
    *,
    unpacked: Sequence[SnapshotInfo] = (),
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
) -> str:
    """Make the folder that of `identity`, durably; returns the name of the folder with what was there before.

    Each group's log becomes what was recovered of it and then its `extra` entries, whose
    positions go on from there.  Its snapshot stays where it is; or, where `unpacked` (by
    `backup.unpack`) names snapshots, the old ones go and these come.

    Raises ValueError where an extra entry would replace one, MissingSnapshot, CorruptSnapshot,
    UnfinishedRecovery (call `finish_interrupted`), DamagedIdentity (a `set_aside` was
    interrupted), DiskFull, LogSyncFailed, OSError.  The folder is the old one then, without
    what was unpacked, unless `finish_interrupted` finds something to finish.
    """
    check_finished(disk)
    _check_extra(groups, extra)
    _check_snapshots(disk, groups, unpacked)
    discard_staged(disk, [info.path for info in unpacked])
    try:
        _write_log(disk, groups, extra, segment_bytes)
        Identity.create(
            disk,
            identity.cluster,
            identity.node,
            identity.incarnation,
            identity.protocol,
            cluster_id=identity.cluster_id,
            formation=identity.formation,
            recovered_from=identity.recovered_from,
            path=_STAGED_IDENTITY,
        )
        replaced = ("log", "snapshots") if unpacked else ("log",)
        settle_names(disk, ("", *replaced, STAGING, _STAGED_LOG, STAGED_SNAPSHOTS))
        folder = next_folder(disk, "before-recovery")
        into = [(f"{_STAGED_LOG}/{name}", f"log/{name}") for name in disk.list(_STAGED_LOG)]
        into += [(info.path, info.path.removeprefix(f"{STAGING}/")) for info in unpacked]
        into.append((_STAGED_IDENTITY, FILE_NAME))
        moves = Moves(Purpose.START_OVER, folder, why, state_files(disk, replaced, folder), tuple(into))
        begin(disk, moves)
    except BaseException:
        if unfinished_moves(disk) is None:
            discard_staged(disk)
        raise
    carry_out(disk, moves)
    return folder


def finish_interrupted(disk: Disk) -> str | None:
    """Do the rest of a `start_over` that was interrupted; returns the folder with what was there before it.

    None where there is nothing to finish.  Raises DamagedIdentity, OSError: call it again then.
    """
    try:
        moves = unfinished_moves(disk)
    except DamagedMoves as error:
        raise DamagedIdentity(str(error)) from error
    if moves is None or moves.purpose is not Purpose.START_OVER:
        return None
    carry_out(disk, moves)
    return moves.folder


def discard_staged(disk: Disk, keep: Sequence[str] = ()) -> None:
    """Remove what an interrupted attempt left in `recovering/`: copies that nothing rests on."""
    for folder in (_STAGED_LOG, STAGED_SNAPSHOTS):
        for name in disk.list(folder):
            if f"{folder}/{name}" not in keep:
                disk.remove(f"{folder}/{name}")
    if disk.exists(_STAGED_IDENTITY):
        disk.remove(_STAGED_IDENTITY)


def _check_extra(groups: Mapping[int, Recovered], extra: Mapping[int, Sequence[Entry]]) -> None:
    for group, entries in extra.items():
        recovered = groups.get(group, Recovered())
        last = max([recovered.compacted.position, *(entry.position for entry in recovered.entries)])
        for entry in entries:
            if entry.position <= last:
                raise ValueError(
                    f"group {group} has an entry at position {last}: none may be added at {entry.position}"
                )
            last = entry.position


def _check_snapshots(disk: Disk, groups: Mapping[int, Recovered], unpacked: Sequence[SnapshotInfo]) -> None:
    """Each group's snapshot is there, and whole: afterwards nobody else has it any more."""
    snapshots = Snapshots(disk)
    for group, recovered in groups.items():
        position = recovered.compacted.position
        found = [info for info in unpacked if info.group == group] if unpacked else snapshots.all(group)
        info = next((info for info in found if info.position == position), None)
        if info is not None:
            for _ in snapshots.open(info):
                pass
        elif position:
            raise MissingSnapshot(
                f"the log of group {group} begins after position {position}, and there is no snapshot of that position"
            )


def _write_log(
    disk: Disk, groups: Mapping[int, Recovered], extra: Mapping[int, Sequence[Entry]], segment_bytes: int
) -> None:
    log, _ = Log.open(disk, _STAGED_LOG, segment_bytes=segment_bytes)
    try:
        for group in sorted({*groups, *extra}):
            recovered = groups.get(group, Recovered())
            records: list[Record] = []
            if recovered.compacted != CompactedThrough(0, 0):
                records.append(recovered.compacted)
            if recovered.state is not None:
                records.append(SaveState(recovered.state))
            gathered_bytes = 0
            for entry in (*recovered.entries, *extra.get(group, ())):
                records.append(SaveEntry(entry))
                gathered_bytes += len(entry.payload)
                if gathered_bytes >= _WRITE_BYTES:
                    log.append(group, records)
                    log.write()
                    records, gathered_bytes = [], 0
            log.append(group, records)
            log.write()
    finally:
        log.close()
