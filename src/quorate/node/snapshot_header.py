"""What a group keeps beside its store: the first slice of each snapshot."""

from __future__ import annotations

from contextlib import closing

import msgspec

from quorate.storage.snapshots import SnapshotInfo, Snapshots


class GroupSlice(msgspec.Struct, frozen=True, array_like=True):
    """`configuration` says who decided as of the snapshot's position (`membership.Configuration.encode`)."""

    time_ms: int
    configuration: bytes


def read_header(snapshots: Snapshots, info: SnapshotInfo) -> GroupSlice:
    """Raises CorruptSnapshot, and ValueError where the first slice is not a group's."""
    with closing(snapshots.open(info)) as slices:
        return msgspec.msgpack.decode(next(slices, b""), type=GroupSlice)
