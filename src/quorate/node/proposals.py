"""From submitted commands to entries, and back to the waiters: the leader's and the followers' half.

A batch is proposed or forwarded once, never again: whether a write that was under way when
its leader was lost has happened cannot be known here.  Its waiters are told so (`lost`),
and with them every command still pending on this node is refused, so that a client's
later write never overtakes an earlier one that is in doubt.

Forwarded batches keep their order because they travel on one connection, which the end of
the connection or of the leadership ends for all of them: a leader takes a batch only in
the very generation that the follower meant.

A leader that hands over asks everybody, itself included, to *hold*: new commands wait, and
what is under way is answered first.  So nothing is in doubt when the leadership changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quorate.consensus.replica import Leadership, NodeId, Propose, Refusal, Role
from quorate.net.connection import Direction
from quorate.node.ports import GroupHost
from quorate.node.wire import Batch, Forward, ForwardRefused, Held, Hold, HoldEnded, Payload, PayloadCodec
from quorate.services.interface import Refused, Waiter

MAX_ENTRY_BYTES = 1 << 20
"""Commands of one entry, unless a single command is larger.  Bounds what one append or one apply stops."""
MAX_ENTRY_COMMANDS = 1024
"""More commands than this become several entries of one block, so that applying one stops the loop only for
milliseconds.  Smaller entries were slower: a client's replies then leave in several writes (docs/performance.md)."""
MAX_WAITING_BYTES = 8 << 20
"""Commands waiting on one node, pending and under way, before its doors stop reading."""
COMMAND_OVERHEAD_BYTES = 32
"""Charged for each command beside its bytes, so that tiny commands are bounded as well."""
MAX_HOLD_MS = 2_000
"""A follower that was told to hold, and hears no more of it, goes on after this long."""


@dataclass(slots=True)
class _Outstanding:
    """A batch under way: who waits for it and what it weighs."""

    waiters: Sequence[Waiter]
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class WaiterEvents:
    """The door's callbacks for waiters that get no result."""

    refused: Callable[[Sequence[Waiter], Refused], None]
    lost: Callable[[Sequence[Waiter]], None]
    relieved: Callable[[], None]


class Proposals:
    """Commands of one group on one node that are not applied yet."""

    def __init__(
        self, group_id: int, node_id: NodeId, boot: int, host: GroupHost, hold_ms: int, max_uncommitted_bytes: int
    ) -> None:
        self._group_id = group_id
        self._node_id = node_id
        self._boot = boot
        self._host = host
        self._hold_ms = hold_ms
        self._max_uncommitted_bytes = max_uncommitted_bytes
        self._room_below_bytes = max_uncommitted_bytes
        """Propose only while fewer bytes than this are uncommitted; after a refusal less, until some are committed."""
        self._codec = PayloadCodec()
        self._sequence = 0
        self._pending: deque[tuple[Sequence[bytes], Sequence[Waiter], int]] = deque()
        self._forwarded: deque[tuple[NodeId, Batch]] = deque()
        self._outstanding: dict[int, _Outstanding] = {}
        self._waiting_bytes = 0
        self._stuck_since_ms: int | None = None
        """Since when there has been something pending that no leader could be given."""
        self._congested = False
        self._hold_until_ms: int | None = None
        """Until when new commands wait because the leadership is about to be handed over."""
        self._holding_for: tuple[NodeId, int] | None = None
        """The leader, and its generation, that waits to hear that nothing is under way here."""
        self._events: WaiterEvents | None = None

    def attach(self, events: WaiterEvents) -> None:
        """Name the door; it does not exist yet when the group is built."""
        self._events = events

    @property
    def events(self) -> WaiterEvents:
        assert self._events is not None, "a group takes commands only when its door is attached"
        return self._events

    # --- from the door -----------------------------------------------------------------------

    def submit(self, commands: Sequence[bytes], waiters: Sequence[Waiter]) -> None:
        assert len(commands) == len(waiters) > 0
        for start in range(0, len(commands), MAX_ENTRY_COMMANDS):
            end = start + MAX_ENTRY_COMMANDS
            self._add(commands[start:end], waiters[start:end])
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._congested = True
        self._host.schedule()

    def _add(self, commands: Sequence[bytes], waiters: Sequence[Waiter]) -> None:
        weight_bytes = sum(map(len, commands)) + COMMAND_OVERHEAD_BYTES * len(commands)
        self._pending.append((commands, waiters, weight_bytes))
        self._waiting_bytes += weight_bytes

    def congested(self) -> bool:
        return self._congested

    # --- towards the log ---------------------------------------------------------------------

    def flush(self, leadership: Leadership, uncommitted_bytes: Callable[[], int]) -> None:
        """Propose or forward what is pending, as far as the leader, the disk and backpressure allow."""
        if self._pending and self._host.own_disk_full():
            # Also on a follower: a write whose entry it cannot take would never be answered here.
            self.refuse_pending(Refused.DISK_FULL)
        held = self._hold_until_ms is not None
        if leadership.role is Role.LEADER:
            # A leader takes nothing before its opening entry is committed; being ready brings the next flush.
            while (
                leadership.ready
                and (self._forwarded or (self._pending and not held))
                and uncommitted_bytes() < self._room_below_bytes
            ):
                if self._host.refuses_writes():
                    self._refuse_for_full_disk()
                    return
                if not self._propose_one():
                    # Trying again before anything is committed would only turn in circles.
                    self._room_below_bytes = min(uncommitted_bytes(), self._max_uncommitted_bytes)
                    return
                self._room_below_bytes = self._max_uncommitted_bytes
        elif leadership.leader is not None and self._pending and not held:
            self._forward_all(leadership.leader, leadership.generation)
        stuck = bool(self._pending) and leadership.role is not Role.LEADER
        if not stuck:
            self._stuck_since_ms = None
        elif self._stuck_since_ms is None:
            self._stuck_since_ms = self._host.now_ms()

    def _propose_one(self) -> bool:
        """Propose one entry of about MAX_ENTRY_COMMANDS and MAX_ENTRY_BYTES.  False where the replica refused."""
        forwarded: list[tuple[NodeId, Batch]] = []
        room_bytes, room_commands = MAX_ENTRY_BYTES, MAX_ENTRY_COMMANDS
        while self._forwarded and room_bytes > 0 and room_commands > 0:
            sender, batch = self._forwarded.popleft()
            forwarded.append((sender, batch))
            room_bytes -= sum(map(len, batch.commands))
            room_commands -= len(batch.commands)
        batches = [batch for _, batch in forwarded]
        own = None
        if self._pending and self._hold_until_ms is None and room_bytes > 0 and room_commands > 0:
            own = self._next_own_batch(room_bytes, room_commands)
        if own is not None:
            batches.append(own)
        payload = self._codec.encode(Payload(self._host.wall_ms(), batches))
        refused = self._host.step(self._group_id, Propose(payload)).refused
        if refused is None:
            return True
        assert refused in (Refusal.NOT_LEADER, Refusal.OVERLOADED, Refusal.TRANSFERRING)
        # All of it waits, in its order: refusing some of a stream and taking what follows would leave a gap.
        self._forwarded.extendleft(reversed(forwarded))
        if own is not None:
            outstanding = self._outstanding.pop(own.sequence)
            self._pending.appendleft((own.commands, outstanding.waiters, outstanding.weight_bytes))
        return False

    def _next_own_batch(self, room_bytes: int, room_commands: int) -> Batch:
        """Move pending commands, at least one submission's, into a batch that is outstanding from now on."""
        pending = self._pending
        first_commands, first_waiters, weight_bytes = pending.popleft()
        commands, waiters = list(first_commands), list(first_waiters)
        while pending and weight_bytes < room_bytes and len(commands) + len(pending[0][0]) <= room_commands:
            more_commands, more_waiters, more_bytes = pending.popleft()
            commands.extend(more_commands)
            waiters.extend(more_waiters)
            weight_bytes += more_bytes
        self._sequence += 1
        self._outstanding[self._sequence] = _Outstanding(waiters, weight_bytes)
        return Batch(self._node_id, self._boot, self._sequence, commands)

    def _forward_all(self, leader: NodeId, generation: int) -> None:
        while self._pending:
            batch = self._next_own_batch(MAX_ENTRY_BYTES, MAX_ENTRY_COMMANDS)
            if not self._host.send(self._group_id, leader, Forward(generation, batch)):
                outstanding = self._outstanding.pop(batch.sequence)
                self._pending.appendleft((batch.commands, outstanding.waiters, outstanding.weight_bytes))
                return

    def _refuse_for_full_disk(self) -> None:
        forwarded, self._forwarded = self._forwarded, deque()
        for sender, batch in forwarded:
            self._host.send(self._group_id, sender, ForwardRefused(batch.boot, batch.sequence, True))
        self.refuse_pending(Refused.DISK_FULL)

    # --- from peers --------------------------------------------------------------------------

    def take_forward(self, sender: NodeId, forward: Forward, leadership: Leadership) -> None:
        """On the leader: append with the next flush what a follower forwarded, or say that we do not."""
        batch = forward.batch
        if leadership.role is Role.LEADER and leadership.generation == forward.generation:
            self._forwarded.append((sender, batch))
        else:
            self._host.send(self._group_id, sender, ForwardRefused(batch.boot, batch.sequence, False))
        self._host.schedule()

    # --- holding -----------------------------------------------------------------------------

    def hold(self) -> None:
        """New commands of this node wait, until `go_on` or another leadership."""
        self._hold_until_ms = self._host.now_ms() + MAX_HOLD_MS

    def take_hold(self, sender: NodeId, hold: Hold, leadership: Leadership) -> None:
        """The leader is about to hand over: hold, and tell it when nothing of ours is under way."""
        if (leadership.leader, leadership.generation) == (sender, hold.generation):
            self.hold()
            self._holding_for = (sender, hold.generation)
            self._answer_hold()

    def take_hold_ended(self, sender: NodeId, ended: HoldEnded) -> None:
        if self._holding_for == (sender, ended.generation):
            self.go_on()

    def go_on(self) -> None:
        """What was held goes its way."""
        self._hold_until_ms = self._holding_for = None
        # Refused as being handed over, a batch waits for the next flush and not for the next commit.
        self._room_below_bytes = self._max_uncommitted_bytes
        self._host.schedule()

    def is_idle(self) -> bool:
        """Nothing of this node, or forwarded to it, is under way."""
        return not self._outstanding and not self._forwarded

    def _answer_hold(self) -> None:
        if self._holding_for is not None and not self._outstanding:
            leader, generation = self._holding_for
            if self._host.send(self._group_id, leader, Held(generation)):
                self._host.schedule()

    def forward_refused(self, refusal: ForwardRefused) -> None:
        outstanding = self._outstanding.pop(refusal.sequence, None) if refusal.boot == self._boot else None
        if outstanding is None:
            return
        self._release(outstanding.weight_bytes)
        if refusal.disk_full:
            self.events.refused(outstanding.waiters, Refused.DISK_FULL)
        else:
            # Its clients are sent away, so what they asked for later must not be done.
            self.events.refused(outstanding.waiters, Refused.NO_LEADER)
            self.refuse_pending(Refused.NO_LEADER)

    # --- ends --------------------------------------------------------------------------------

    def take_waiters(self, batch: Batch) -> Sequence[Waiter] | None:
        """A batch was applied: who waits for it here, if anybody."""
        if batch.boot != self._boot or batch.origin != self._node_id:
            return None
        outstanding = self._outstanding.pop(batch.sequence, None)
        if outstanding is None:
            return None
        self._release(outstanding.weight_bytes)
        if self._holding_for is not None:
            self._answer_hold()
        return outstanding.waiters

    def leadership_changed(self, leadership: Leadership) -> None:
        """Another leader, another generation or none: what was under way is in doubt."""
        self.go_on()
        self.lose_outstanding()
        if leadership.role is not Role.LEADER:
            self._forwarded.clear()
        self._host.schedule()

    def peer_lost(self, peer: NodeId, direction: Direction, leadership: Leadership) -> None:
        """A connection with `peer` ended, and with it the order of what was forwarded on it."""
        if direction is Direction.INCOMING:
            self._forwarded = deque(item for item in self._forwarded if item[0] != peer)
        elif leadership.role is not Role.LEADER and leadership.leader == peer:
            self.lose_outstanding()

    def lose_outstanding(self) -> None:
        if not self._outstanding:
            return
        outstanding, self._outstanding = self._outstanding, {}
        self._release(sum(item.weight_bytes for item in outstanding.values()))
        for item in outstanding.values():
            self.events.lost(item.waiters)
        self.refuse_pending(Refused.NO_LEADER)

    def refuse_pending(self, why: Refused) -> None:
        pending, self._pending = self._pending, deque()
        self._release(sum(weight_bytes for _, _, weight_bytes in pending))
        for _, waiters, _ in pending:
            self.events.refused(waiters, why)

    def tick(self, now_ms: int) -> None:
        """Refuse what has waited too long for a leader that can be reached."""
        if self._hold_until_ms is not None and now_ms > self._hold_until_ms:
            self.go_on()
        elif self._forwarded or self._pending:
            # Nothing else tells of a hand-over that the replica gave up.
            self._room_below_bytes = self._max_uncommitted_bytes
            self._host.schedule()
        since_ms = self._stuck_since_ms
        if since_ms is not None and now_ms - since_ms > self._hold_ms:
            self._stuck_since_ms = None
            self.refuse_pending(Refused.NO_LEADER)

    def _release(self, weight_bytes: int) -> None:
        self._waiting_bytes -= weight_bytes
        if self._congested and self._waiting_bytes < MAX_WAITING_BYTES // 2:
            self._congested = False
            self.events.relieved()
