"""The one place that persists, then sends, then applies, for all groups of a node.

What happens in one turn of the event loop becomes one *block*: the records of all groups go
into the log in one write with one sync, and each peer gets one frame.  While a block is
under way arriving commands gather for the next one: group commit falls out by itself.

    step      replica.step(event)     effects are gathered, nothing leaves
    flush     group.flush             what the doors submitted is proposed
              links.flush             messages that need not wait: the leader's peers write while it does
              log.write               one block
              log.sync                inline on a fast disk, aside on a slow one (storage.sync_policy)
              Persisted, links.flush  what waited for the disk leaves: acknowledgements and votes
              group.apply             committed entries, results to the doors
    send      links.flush             news of the commit: after the doors have answered their clients, unless something
                                      was waiting to be sent before

A turn that brought no records applies first: replies do not wait for the next block's sync.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quorate.consensus.replica import Effects, Event, Message, NodeId, Persisted, Send, SendSnapshot, Tick
from quorate.net.links import Links
from quorate.node.group import ReplicatedGroup
from quorate.node.stalls import StallDetector
from quorate.storage.disk import DiskFull
from quorate.storage.log import Log
from quorate.storage.sync_policy import SyncPolicy

_log = logging.getLogger(__name__)

FULL_RETRY_S = 1.0
LATE_TICK_MS = 50
"""A tick that comes this late lets the sockets speak first: the leader's messages may be in them."""


@dataclass(frozen=True, slots=True)
class _Block:
    """What becomes true together when one sync has returned."""

    tickets: dict[int, int]
    """Per group, the newest ticket in the block."""
    messages: list[tuple[int, Send]]
    """(group, message) that must not leave earlier."""
    when_durable: list[Callable[[], None]]


class Driver:
    """Carries out effects.  A failure of the disk, or a bug, ends the node through `on_failure`."""

    def __init__(
        self,
        log: Log,
        links: Links,
        policy: SyncPolicy,
        stalls: StallDetector,
        clock: Callable[[], float],
        send_snapshot: Callable[[int, SendSnapshot], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = log
        self._links = links
        self._policy = policy
        self._stalls = stalls
        self._clock = clock
        """Seconds, for durations within a turn: a loop's own clock may stand still until the turn ends."""
        self._send_snapshot = send_snapshot
        self._on_failure = on_failure
        self._groups: Mapping[int, ReplicatedGroup] = {}
        self._dirty = False
        self._scheduled = False
        self._sending = False
        self._syncing: asyncio.Task[None] | None = None
        """A sync that is made aside."""
        self._failed = False
        self._tickets: dict[int, int] = {}
        """Per group, the newest ticket since the last write of the log."""
        self._waiting: list[tuple[int, Send]] = []
        """(group, message) gathered since the last write that must not leave before the next sync."""
        self._when_durable: list[Callable[[], None]] = []
        self._full_handle: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0

    def start(self, groups: Mapping[int, ReplicatedGroup]) -> None:
        self._groups = groups
        self.schedule()

    def halt(self) -> None:
        """Carry nothing out any more."""
        self._failed = True

    async def stop(self) -> None:
        """Halt, and wait for a sync that is under way."""
        self.halt()
        for handle in (self._timer, self._full_handle):
            if handle is not None:
                handle.cancel()
        if self._syncing is not None:
            await asyncio.wait([self._syncing])

    def when_durable(self, done: Callable[[], None]) -> None:
        """Call `done` once every record that was asked for before this call is durable."""
        self._when_durable.append(done)
        self.schedule()

    # --- GroupHost ---------------------------------------------------------------------------

    def now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def step(self, group_id: int, event: Event) -> Effects:
        """Feed an event; gather what it wants.  Nothing leaves before the flush that this schedules.

        A bug ends the node here, whoever called: no later step may vouch for what this one left undone.
        """
        if self._failed:
            return Effects()
        try:
            return self._step(group_id, event)
        except Exception as error:
            self._fail(error)
            return Effects()

    def _step(self, group_id: int, event: Event) -> Effects:
        group = self._groups[group_id]
        effects = group.replica.step(event, self.now_ms())
        if effects.records:
            self._log.append(group_id, effects.records)
            self._dirty = True
            self._tickets[group_id] = effects.ticket
        for send in effects.messages_after_persist:
            self._waiting.append((group_id, send))
        links = self._links.by_peer
        for send in effects.messages:
            if (link := links.get(send.to)) is not None:
                link.queue((group_id, send.message))
        for wanted in effects.snapshots:
            self._send_snapshot(group_id, wanted)
        group.take(effects)
        if not self._scheduled:
            self.schedule()
        return effects

    def send(self, group_id: int, to: NodeId, message: Message) -> bool:
        link = self._links.by_peer.get(to)
        if link is None or not link.connected:
            return False
        link.queue((group_id, message))
        return True

    def schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush_if_due)

    def flush_now(self) -> None:
        """Flush in this very turn what is scheduled, where nothing more can be expected to join it."""
        if self._scheduled:
            self._flush()

    # --- the cycle ---------------------------------------------------------------------------

    def _flush_if_due(self) -> None:
        if self._scheduled:
            self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        if self._failed:
            return
        try:
            if self._syncing is None:
                self._make_block()
            # While the disk is slow, what a quorum without this node has committed need not wait for it.
            self._apply()
            if not self._sending and self._links.has_queued:
                # The doors answer in the next turn, before this: a client waits, a follower's commit position does not.
                # Only with something to send: what a later flush commits would leave with it, before its answers do.
                self._sending = True
                self._loop.call_soon(self._send)
            self._arm_timer()
        except Exception as error:
            self._fail(error)

    def _make_block(self) -> None:
        if not self._dirty:
            self._apply()
        for group in self._groups.values():
            group.flush()
        if self._dirty:
            # Before our own write, so that the peers write while we do.  Nothing here vouches for it.
            self._links.flush()
            if not self._write():
                return
        block = _Block(self._tickets, self._waiting, self._when_durable)
        self._tickets, self._waiting, self._when_durable = {}, [], []
        if not self._dirty:
            # Everything that these messages rest on is durable already.
            self._persisted(block)
            return
        self._dirty = False
        if self._policy.aside:
            self._syncing = self._loop.create_task(self._sync_aside(block), name="log-sync")
            self._syncing.add_done_callback(self._sync_ended)
        else:
            began_s = self._clock()
            self._log.sync()
            self._synced((self._clock() - began_s) * 1000)
            self._persisted(block)

    async def _sync_aside(self, block: _Block) -> None:
        began_s = self._clock()
        self._stalls.sync_began(self.now_ms())
        await self._log.sync_aside()
        self._synced((self._clock() - began_s) * 1000)
        if not self._failed:
            self._persisted(block)

    def _synced(self, duration_ms: float) -> None:
        self._policy.observe(duration_ms)
        self._stalls.sync_ended(self.now_ms(), duration_ms)

    def _sync_ended(self, task: asyncio.Task[None]) -> None:
        self._syncing = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)
        else:
            self.schedule()

    def _send(self) -> None:
        self._sending = False
        self._links.flush()

    def _persisted(self, block: _Block) -> None:
        """The block is durable: what waited for it may leave, and the replicas count it."""
        if block.messages:
            links = self._links.by_peer
            for group_id, send in block.messages:
                if (link := links.get(send.to)) is not None:
                    link.queue((group_id, send.message))
            # At once: somebody waits for these, and for what comes below nobody does.
            self._links.flush()
        for group_id, ticket in block.tickets.items():
            self.step(group_id, Persisted(ticket))
        for done in block.when_durable:
            done()

    def _apply(self) -> None:
        more = False
        for group in self._groups.values():
            more |= group.apply()
        if more:
            self.schedule()

    def _write(self) -> bool:
        """Write the block.  False where the disk has no room even for it: what rests on it waits and is retried."""
        try:
            self._log.write()
        except DiskFull as error:
            if self._full_handle is None:
                _log.error("the disk is full, nothing can be made durable until there is room: %s", error)
                self._full_handle = self._loop.call_later(FULL_RETRY_S, self._retry_write)
            return False
        return True

    def _retry_write(self) -> None:
        self._full_handle = None
        self.schedule()

    def _fail(self, error: BaseException) -> None:
        if not self._failed:
            self._failed = True
            self._on_failure(error)

    # --- time --------------------------------------------------------------------------------

    def _arm_timer(self) -> None:
        """Have a tick at the earliest deadline.  A deadline that moved away is found out when the old one comes."""
        if not self._groups:
            return
        deadline_ms = min(group.replica.deadline_ms() for group in self._groups.values())
        if self._timer is not None:
            if self._timer_ms <= deadline_ms:
                return
            self._timer.cancel()
        self._timer_ms = deadline_ms
        self._timer = self._loop.call_at(deadline_ms / 1000, self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer = None
        if self.now_ms() - self._timer_ms > LATE_TICK_MS:
            # The loop stood still.  One more turn reads what came in meanwhile.
            self._loop.call_soon(self._loop.call_soon, self._tick)
        else:
            self._tick()

    def _tick(self) -> None:
        if self._failed:
            return
        try:
            now_ms = self.now_ms()
            for group_id, group in self._groups.items():
                if group.replica.deadline_ms() <= now_ms:
                    self.step(group_id, Tick())
            self._arm_timer()
        except Exception as error:
            self._fail(error)
