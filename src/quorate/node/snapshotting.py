"""When snapshots are taken, and how they go to disk and come back, in slices between other work.

A snapshot file's first slice is the group's own (what it must know beside the store), the
rest are the store's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import closing

import msgspec

from quorate.consensus.replica import Compacted
from quorate.node.group import ReplicatedGroup
from quorate.node.ports import GroupHost
from quorate.node.snapshot_header import GroupSlice
from quorate.services.interface import StoreLoader
from quorate.storage.disk import DiskFull, File
from quorate.storage.log import Log
from quorate.storage.snapshots import CorruptSnapshot, SnapshotInfo, Snapshots

_log = logging.getLogger(__name__)

LOAD_TURN_S = 0.02
"""While a snapshot is loaded or verified by a node that runs, the loop turns at least this often."""


class DamagedData(Exception):
    """The data folder misses something that was acknowledged; the message names it."""


class Snapshotter:
    """Takes and loads the snapshots of a node's groups; one is taken at a time."""

    def __init__(
        self,
        snapshots: Snapshots,
        log: Log,
        host: GroupHost,
        snapshot_log_bytes: int,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._snapshots = snapshots
        self._log = log
        self._host = host
        self._snapshot_log_bytes = snapshot_log_bytes
        self._on_failure = on_failure
        self._taking: asyncio.Task[None] | None = None
        self._wanted: dict[int, int] = {}
        """Per group that is installing, the position of the newest snapshot that it was told to install."""
        self._installing: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[int, int] = {}
        """Per group of which a snapshot was asked for, in that order, the position that it must have reached."""
        self._rotten: dict[int, int] = {}
        """Per group, the position of the snapshot whose file is damaged or gone, until another takes its place."""
        self._retry_ms = 0

    def tick(self, groups: Mapping[int, ReplicatedGroup], now_ms: int) -> None:
        """Start a snapshot where one was asked for or is due.

        Due is a group whose snapshot is damaged, and one whose log has grown by
        `snapshot_log_bytes`, or by half of its last snapshot where that is more: so the work
        of snapshots stays in proportion to the work of writes, and the log that a restart
        must replay to that of the snapshot.
        """
        if self._taking is not None or now_ms < self._retry_ms or self._start_asked(groups):
            return
        for group_id in self._rotten:
            if self.start(groups[group_id]):
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

    def ask(self, groups: Mapping[int, ReplicatedGroup]) -> list[int]:
        """Have a snapshot of each group as it is now, one after another; ids of those where it says anything new."""
        wanted = {group_id: group.applied_position for group_id, group in groups.items() if self._is_worth_it(group)}
        self._asked |= wanted
        if self._taking is None:
            self._start_asked(groups)
        return [*wanted]

    def _start_asked(self, groups: Mapping[int, ReplicatedGroup]) -> bool:
        for group_id, position in [*self._asked.items()]:
            if groups[group_id].snapshot_position >= position and group_id not in self._rotten:
                del self._asked[group_id]
            elif self.start(groups[group_id]):
                return True
        return False

    def _is_worth_it(self, group: ReplicatedGroup) -> bool:
        if group.is_installing():
            return False
        rotten = self._rotten.get(group.group_id)
        if rotten is not None:
            # Also of the same position: the file takes the name of the rotten one.
            return group.applied_position >= rotten
        return group.applied_position > group.snapshot_position

    def start(self, group: ReplicatedGroup) -> bool:
        """Start a snapshot of the group now.  False where one is under way already or would say nothing new."""
        if self._taking is not None or not self._is_worth_it(group):
            return False
        self._taking = asyncio.get_running_loop().create_task(self._take(group), name="snapshot")
        self._taking.add_done_callback(self._ended)
        return True

    def newest(self, group_id: int) -> SnapshotInfo | None:
        """None also where that is known to be damaged: the log has gone on from there, so an older one is of no use."""
        info = self._snapshots.newest(group_id)
        rotten = self._rotten.get(group_id)
        return None if info is not None and rotten is not None and info.position <= rotten else info

    async def verify(self, group: ReplicatedGroup, info: SnapshotInfo | None) -> None:
        """Read the group's `newest` again, in turns; where it is damaged, it is not offered any more but replaced.

        What the node serves is the store in its memory, so nothing is lost yet; but a
        restart would find the damage too, and could do no more than be refilled.
        """
        if info is None:
            if group.snapshot_position and group.group_id not in self._rotten and not group.is_installing():
                self._replace(group, group.snapshot_position, "its snapshot is gone")
            return
        try:
            turn_began_s = self._host.clock()
            for _ in self._snapshots.open(info):
                if self._host.clock() - turn_began_s > LOAD_TURN_S:
                    await asyncio.sleep(0)
                    turn_began_s = self._host.clock()
        except (CorruptSnapshot, OSError) as error:
            newest = self._snapshots.newest(group.group_id)
            if newest is not None and newest.position > info.position:
                return  # a newer one has taken its place meanwhile
            self._replace(group, info.position, error)

    def _replace(self, group: ReplicatedGroup, position: int, why: CorruptSnapshot | OSError | str) -> None:
        _log.error("group %d: damaged data: %s; a new snapshot is taken in its place", group.group_id, why)
        self._rotten[group.group_id] = position
        # Where one is under way, the next tick finds this one due.
        self.start(group)

    def open(self, info: SnapshotInfo) -> File:
        """Its file, as it is; close it.  Raises OSError."""
        return self._snapshots.open_file(info)

    async def stop(self) -> None:
        """Abandon what is being taken or loaded."""
        for task in self._installing.values():
            task.cancel()
        if self._installing:
            await asyncio.wait(self._installing.values())
        await self._abandon()

    async def _abandon(self) -> None:
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
        group.pauses = True
        try:
            while group.is_amid_entry():  # noqa: ASYNC110 - some turns of the loop at most, and rarely
                await asyncio.sleep(0)
        finally:
            group.pauses = False
            self._host.schedule()
        position = group.applied_position
        generation = group.applied_generation
        began_ms = self._host.now_ms()
        writer = self._snapshots.create(group.group_id, position, generation, group.service_name)
        group.bytes_since_snapshot = 0
        try:
            with closing(group.store.snapshot()) as slices:
                await writer.write(msgspec.msgpack.encode(GroupSlice(group.time_ms, group.configuration)))
                for slice_ in slices:
                    await writer.write(slice_)
                    await asyncio.sleep(0)
            info = await writer.finish()
        except BaseException:
            writer.abandon()
            raise
        group.snapshot_taken(info.position, info.size_bytes)
        self._replaced(info)
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

    def _replaced(self, info: SnapshotInfo) -> None:
        """A snapshot was written: is it in the place of a rotten one?"""
        rotten = self._rotten.get(info.group)
        if rotten is not None and info.position >= rotten:
            del self._rotten[info.group]

    def _clean_up(self, group_id: int, position: int) -> None:
        try:
            self._snapshots.remove_older(group_id, position)
        except OSError as error:
            # An old file costs room and nothing else; the next snapshot's clean-up finds it again.
            _log.warning("older snapshots of group %d cannot be removed: %s", group_id, error)
        self._log.release()

    # --- loading -----------------------------------------------------------------------------

    async def restore(self, group: ReplicatedGroup, position: int) -> None:
        """At start: load the snapshot that the log rests on.  Raises DamagedData, CorruptSnapshot.

        Newer ones, which the log does not know yet, are as if never taken.
        """
        info = self._find(group.group_id, position)
        try:
            header, loader = await self._feed(group, info)
            loader.finish()
        except ValueError as error:
            raise DamagedData(f"{info.path} cannot be loaded, though its checksums are right: {error}") from error
        group.restored(info.position, info.generation, header, info.size_bytes)

    def install(self, group: ReplicatedGroup, position: int) -> None:
        """Replace a running group's store by the snapshot of `position`, while the loop goes on turning.

        A newer one that is wanted meanwhile takes the older one's place: the group goes on
        only from the newest.
        """
        self._wanted[group.group_id] = max(position, self._wanted.get(group.group_id, 0))
        if group.group_id not in self._installing:
            task = asyncio.get_running_loop().create_task(self._install(group), name="snapshot-install")
            self._installing[group.group_id] = task
            task.add_done_callback(lambda done: self._install_ended(group.group_id, done))

    async def _install(self, group: ReplicatedGroup) -> None:
        # An own snapshot of the state that is about to go would have nothing to stand on.
        await self._abandon()
        while True:
            info = self._find(group.group_id, self._wanted[group.group_id])
            header, loader = await self._feed(group, info)
            if self._wanted[group.group_id] == info.position:
                break
        loader.finish()
        group.restored(info.position, info.generation, header, info.size_bytes)
        self._replaced(info)
        self._clean_up(group.group_id, info.position)
        _log.info("group %d: installed the snapshot of position %d", group.group_id, info.position)

    def _install_ended(self, group_id: int, task: asyncio.Task[None]) -> None:
        del self._installing[group_id], self._wanted[group_id]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_failure(error)

    def _find(self, group_id: int, position: int) -> SnapshotInfo:
        for info in self._snapshots.all(group_id):
            if info.position == position:
                return info
        raise DamagedData(
            f"the log of group {group_id} begins after position {position}, "
            f"but the snapshot of that position is missing from {self._snapshots.folder}/"
        )

    async def _feed(self, group: ReplicatedGroup, info: SnapshotInfo) -> tuple[GroupSlice, StoreLoader]:
        """Load all slices, in turns; the store does not change before the loader's `finish`."""
        slices = self._snapshots.open(info)
        header = msgspec.msgpack.decode(next(slices, b""), type=GroupSlice)
        loader = group.store.restore()
        turn_began_s = self._host.clock()
        for slice_ in slices:
            loader.feed(slice_)
            if self._host.clock() - turn_began_s > LOAD_TURN_S:
                await asyncio.sleep(0)
                turn_began_s = self._host.clock()
        return header, loader
