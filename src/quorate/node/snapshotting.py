"""When snapshots are taken, and how they go to disk and come back, in slices between other work.

A snapshot file's first slice is the group's own (what it must know beside the store), the
rest are the store's.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from quorate.consensus.replica import Compacted
from quorate.node.group import ReplicatedGroup
from quorate.node.ports import GroupHost
from quorate.storage.disk import DiskFull
from quorate.storage.log import Log
from quorate.storage.snapshots import SnapshotInfo, Snapshots

_log = logging.getLogger(__name__)

LOAD_TURN_S = 0.02
"""While a snapshot is loaded into a node that runs, the loop turns at least this often."""


class _GroupSlice(msgspec.Struct, frozen=True, array_like=True):
    """What a group keeps beside its store."""

    time_ms: int


class Snapshotter:
    """Takes and loads the snapshots of a node's groups; one is taken at a time."""

    def __init__(self, snapshots: Snapshots, log: Log, host: GroupHost, snapshot_log_bytes: int) -> None:
        self._snapshots = snapshots
        self._log = log
        self._host = host
        self._snapshot_log_bytes = snapshot_log_bytes
        self._taking: asyncio.Task[None] | None = None
        self._retry_ms = 0

    def tick(self, groups: dict[int, ReplicatedGroup], now_ms: int) -> None:
        """Start a snapshot where one is due.

        Due is a group whose log has grown by `snapshot_log_bytes`, or by half of its last
        snapshot where that is more: so the work of snapshots stays in proportion to the
        work of writes, and the log that a restart must replay to that of the snapshot.
        """
        if self._taking is not None or now_ms < self._retry_ms:
            return
        for group in groups.values():
            due_bytes = max(self._snapshot_log_bytes, group.snapshot_bytes // 2)
            if group.bytes_since_snapshot >= due_bytes:
                self.start(group)
                return
        if self._log.size_bytes() > 2 * self._snapshot_log_bytes:
            pinning = self._log.pinned_by()
            if pinning is not None and groups[pinning].applied_position > groups[pinning].snapshot_position:
                self.start(groups[pinning])

    def start(self, group: ReplicatedGroup) -> bool:
        """Start a snapshot of the group now.  False where one is under way already or would say nothing new."""
        if self._taking is not None or group.applied_position == group.snapshot_position:
            return False
        self._taking = asyncio.get_running_loop().create_task(self._take(group), name="snapshot")
        self._taking.add_done_callback(self._ended)
        return True

    async def stop(self) -> None:
        """Abandon a snapshot that is being taken."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait([self._taking])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._taking = None
        if not task.cancelled() and task.exception() is not None:
            # A snapshot that fails costs log space, not data: say so and try again later.
            self._retry_ms = self._host.now_ms() + 30_000
            error = task.exception()
            level = logging.WARNING if isinstance(error, DiskFull) else logging.ERROR
            trace = None if isinstance(error, OSError) else error
            _log.log(level, "a snapshot could not be taken, next try in 30 s: %s", error, exc_info=trace)

    async def _take(self, group: ReplicatedGroup) -> None:
        position = group.applied_position
        generation = group.applied_generation
        began_ms = self._host.now_ms()
        group.bytes_since_snapshot = 0
        slices = group.store.snapshot()
        writer = self._snapshots.create(group.group_id, position, generation, group.service_name)
        try:
            await writer.write(msgspec.msgpack.encode(_GroupSlice(group.time_ms)))
            for slice_ in slices:
                await writer.write(slice_)
                await asyncio.sleep(0)
            info = await writer.finish()
        except BaseException:
            writer.abandon()
            raise
        finally:
            close = getattr(slices, "close", None)
            if close is not None:
                close()
        group.snapshot_taken(info.position, info.size_bytes)
        self._host.step(group.group_id, Compacted(position))
        # Until the log says so durably, a restart would still look for the snapshot before this one.
        self._host.when_durable(lambda: self._clean_up(group.group_id, position))
        _log.info(
            "group %d: snapshot of position %d, %d bytes, in %.1f s",
            group.group_id,
            position,
            info.size_bytes,
            (self._host.now_ms() - began_ms) / 1000,
        )

    def _clean_up(self, group_id: int, position: int) -> None:
        self._snapshots.remove_older(group_id, position)
        self._log.release()

    async def load(self, group: ReplicatedGroup, info: SnapshotInfo, *, in_turns: bool) -> None:
        """Replace the group's store by the snapshot.  Raises CorruptSnapshot or ValueError.

        With `in_turns` the loop goes on turning meanwhile; a node that starts has nothing else to do.
        """
        slices = self._snapshots.open(info)
        header = msgspec.msgpack.decode(next(slices, b""), type=_GroupSlice)
        loader = group.store.restore()
        turn_began_s = self._host.clock()
        for slice_ in slices:
            loader.feed(slice_)
            if in_turns and self._host.clock() - turn_began_s > LOAD_TURN_S:
                await asyncio.sleep(0)
                turn_began_s = self._host.clock()
        loader.finish()
        group.restored(info.position, info.generation, header.time_ms, info.size_bytes)
