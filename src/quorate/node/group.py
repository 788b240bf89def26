"""A group on one node: a replica's committed entries meet a service's store and door."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from quorate.consensus.membership import PREFIX
from quorate.consensus.records import Entry
from quorate.consensus.replica import (
    ConsensusProtocol,
    Effects,
    Leadership,
    Message,
    NodeId,
    RandomSource,
    ReadBarrier,
    Replica,
    Role,
)
from quorate.net.connection import Direction
from quorate.node.environment import ApplyPace
from quorate.node.ports import GroupHost
from quorate.node.proposals import Proposals, WaiterEvents
from quorate.node.snapshot_header import GroupSlice
from quorate.node.wire import Forward, ForwardRefused, Held, Hold, HoldEnded, Note, PayloadCodec
from quorate.services.interface import Door, Refused, Store, Waiter

_log = logging.getLogger(__name__)

APPLY_BUDGET_S = 0.0005
"""Entries are applied for this long, then the loop turns: replies leave, requests come in, peers are heard."""


class ReplicatedGroup:
    """One group's replica, store and door.  To the door it is `services.interface.Group`."""

    def __init__(
        self,
        group_id: int,
        service_name: str,
        protocol: ConsensusProtocol,
        node_id: NodeId,
        boot: int,
        host: GroupHost,
        replica: Replica,
        store: Store,
        random: RandomSource,
        hold_ms: int,
        max_uncommitted_bytes: int,
        pace: ApplyPace,
    ) -> None:
        self.group_id = group_id
        self.service_name = service_name
        self.protocol = protocol
        self.node_id = node_id
        self.random = random
        self.replica = replica
        self.store = store
        self.leadership = Leadership(Role.FOLLOWER, None, 0)
        self.applied_position = 0
        self.applied_generation = 0
        self.configuration = replica.configuration().encode()
        """Who decided as of `applied_position`."""
        self.handing_over = False
        """`node.handover` is at work."""
        self.held: set[NodeId] = set()
        """Peers that hold, while this node hands its leadership over (`node.handover`)."""
        self.bytes_since_snapshot = 0
        """Bytes of entries applied since the last snapshot began."""
        self.snapshot_position = 0
        self.snapshot_bytes = 0
        self.time_ms = 0
        """The highest time stamp applied: what stores see never goes back."""
        self._host = host
        self._codec = PayloadCodec()
        self.proposals = Proposals(group_id, node_id, boot, host, hold_ms, max_uncommitted_bytes)
        self._pace = pace
        self._to_apply: deque[Entry] = deque()
        self._amid: Iterator[None] | None = None
        """The entry behind `applied_position`, some of whose commands are applied: each step applies some more."""
        self.pauses = False
        """No entry is begun: a snapshot waits until the one at hand is applied."""
        self._unanswered: Sequence[Waiter] = ()
        """Those of its present batch whose commands are still to be applied."""
        self._installing = False
        self._door: Door | None = None
        self._next_barrier_id = 1
        self._new_barriers: list[Callable[[bool], None]] = []
        self._asked_barriers: dict[int, list[Callable[[bool], None]]] = {}
        self._passed_barriers: list[tuple[int, list[Callable[[bool], None]]]] = []

    @property
    def door(self) -> Door:
        assert self._door is not None, "the door is attached before the node starts"
        return self._door

    def attach(self, door: Door) -> None:
        self._door = door
        self.proposals.attach(WaiterEvents(door.refused, door.lost, door.relieved))

    # --- services.interface.Group ------------------------------------------------------------

    def submit(self, commands: Sequence[bytes], waiters: Sequence[Waiter]) -> None:
        self.proposals.submit(commands, waiters)

    def barrier(self, done: Callable[[bool], None]) -> None:
        self._new_barriers.append(done)
        self._host.schedule()

    def congested(self) -> bool:
        return self.proposals.congested()

    def tell(self, node: NodeId, note: bytes) -> None:
        if self._host.send(self.group_id, node, Note(note)):
            self._host.schedule()

    def quorum_contact_ms(self) -> int | None:
        return self.replica.quorum_contact_ms()

    def now_ms(self) -> int:
        return self._host.now_ms()

    def wall_ms(self) -> int:
        return self._host.wall_ms()

    def describe(self) -> dict[str, Any]:
        """This group's part of the node's status."""
        status = self.replica.status()
        return {
            "group": self.group_id,
            "service": self.service_name,
            "protocol": self.protocol.name,
            "role": status.role.value,
            "leader": status.leader,
            "generation": status.generation,
            "leadership": self.protocol.describe_generation(status.generation),
            "ready": status.ready,
            "words": status.words,
            "voters": list(status.voters),
            "learners": list(status.learners),
            "old_voters": list(self.replica.configuration().old_voters),
            "settled_version": self.replica.settled_version(),
            "commit_position": status.commit_position,
            "applied_position": self.applied_position,
            "last_position": status.last_position,
            "peer_positions": {str(peer): position for peer, position in status.peer_positions.items()},
            "snapshot_position": self.snapshot_position,
            "snapshot_bytes": self.snapshot_bytes,
            "store": self.store.summary(),
            "door": self.door.summary(),
        }

    def leads(self) -> bool:
        """This node is the group's leader, and ready."""
        return self.leadership.role is Role.LEADER and self.leadership.ready

    def others_are_ahead(self) -> bool:
        """On the leader: another voter holds durably what this node has not made durable yet."""
        status = self.replica.status()
        voters = self.replica.configuration().voters
        return any(
            position > status.durable_position for peer, position in status.peer_positions.items() if peer in voters
        )

    # --- from the driver ---------------------------------------------------------------------

    def receive(self, sender: NodeId, message: Message) -> None:
        """A message of the node's own kind; the replica's go to the replica."""
        if isinstance(message, Forward):
            self.proposals.take_forward(sender, message, self.leadership)
        elif isinstance(message, ForwardRefused):
            self.proposals.forward_refused(message)
        elif isinstance(message, Hold):
            self.proposals.take_hold(sender, message, self.leadership)
        elif isinstance(message, HoldEnded):
            self.proposals.take_hold_ended(sender, message)
        elif isinstance(message, Held):
            if message.generation == self.leadership.generation:
                self.held.add(sender)
        elif isinstance(message, Note):
            try:
                self.door.told(sender, message.content)
            except ValueError as error:
                _log.error("group %d: a note from node %d cannot be read: %s", self.group_id, sender, error)
        else:
            raise AssertionError(f"not a message for a group: {message!r}")

    def flush(self) -> None:
        """Hand what the door asked for since the last flush to the replica or the leader."""
        self.proposals.flush(self.leadership, self.replica.uncommitted_bytes)
        if self._new_barriers:
            callbacks, self._new_barriers = self._new_barriers, []
            barrier_id = self._next_barrier_id
            self._next_barrier_id += 1
            self._asked_barriers[barrier_id] = callbacks
            self._host.step(self.group_id, ReadBarrier(barrier_id))

    def take(self, effects: Effects) -> None:
        """The part of a step's effects that is this group's: what to install and apply, and who leads."""
        if effects.install is not None:
            self._installing = True
            self._to_apply.clear()
            self._abandon_entry()
            self._host.install_snapshot(self.group_id, effects.install.position)
        if effects.committed:
            self._to_apply.extend(effects.committed)
        for passed in effects.barriers_passed:
            callbacks = self._asked_barriers.pop(passed.barrier_id)
            self._passed_barriers.append((passed.position, callbacks))
        for barrier_id in effects.barriers_failed:
            for done in self._asked_barriers.pop(barrier_id):
                done(False)
        if effects.configuration is not None:
            self._host.configured()
        if effects.leadership is not None:
            self._lead(effects.leadership)

    def apply(self) -> bool:
        """Apply committed entries for at most APPLY_BUDGET_S.  True where some are left."""
        if self._installing:
            return False
        clock = self._host.clock
        if self._to_apply or self._amid is not None:
            began_s = clock()
            while self._finish_entry(began_s + self._pace.entry_s) and self._to_apply and not self.pauses:
                if clock() - began_s > APPLY_BUDGET_S:
                    break
                self._amid = self._applying(self._to_apply.popleft())
        if self._passed_barriers:
            self._release_barriers()
        return bool(self._to_apply) or self._amid is not None

    def restored(self, position: int, generation: int, header: GroupSlice, snapshot_bytes: int) -> None:
        """The store holds the snapshot of `position`: at start, or after `GroupHost.install_snapshot`."""
        self.applied_position = position
        self.applied_generation = generation
        self.bytes_since_snapshot = 0
        self.snapshot_position = position
        self.snapshot_bytes = snapshot_bytes
        self.time_ms = header.time_ms
        self.configuration = header.configuration
        if self._installing:
            self._installing = False
            # Entries that the snapshot stands for may have held our batches: their results are gone.
            self.proposals.lose_outstanding()
            self.door.restored()
            self._host.schedule()

    def disk_filled(self) -> None:
        """This node cannot take entries: what it forwarded would not come back to be answered."""
        if self.leadership.role is not Role.LEADER:
            self.proposals.lose_outstanding()

    def snapshot_taken(self, position: int, size_bytes: int) -> None:
        assert position >= self.snapshot_position, (position, self.snapshot_position)
        self.snapshot_position = position
        self.snapshot_bytes = size_bytes

    def peer_lost(self, peer: NodeId, direction: Direction) -> None:
        self.proposals.peer_lost(peer, direction, self.leadership)

    def tick(self, now_ms: int) -> None:
        self.proposals.tick(now_ms)
        self.door.tick(now_ms)

    def is_installing(self) -> bool:
        """A snapshot from a peer is about to replace the store."""
        return self._installing

    def is_amid_entry(self) -> bool:
        """The store is between two positions, and no snapshot of it can be taken."""
        return self._amid is not None

    def stop(self) -> None:
        """The node is stopping: nothing new is taken, nothing under way will be answered."""
        self._abandon_entry()
        self.proposals.refuse_pending(Refused.STOPPING)
        self.proposals.lose_outstanding()

    # --- inside ------------------------------------------------------------------------------

    def _lead(self, leadership: Leadership) -> None:
        before, self.leadership = self.leadership, leadership
        if (before.leader, before.generation) != (leadership.leader, leadership.generation):
            _log.info(
                "group %d (%s): %s, leader %s, this node is %s",
                self.group_id,
                self.service_name,
                self.protocol.describe_generation(leadership.generation),
                "none" if leadership.leader is None else leadership.leader,
                leadership.role.value,
            )
            self.proposals.leadership_changed(leadership)
        self._host.led(self.service_name, before, leadership)
        self.door.leadership_changed(leadership)

    def _finish_entry(self, deadline_s: float) -> bool:
        """Go on with the entry at hand.  False where some of it is left for the next turn."""
        if self._amid is not None:
            clock = self._host.clock
            for _ in self._amid:
                if clock() >= deadline_s:
                    return False
            self._amid = None
        return True

    def _applying(self, entry: Entry) -> Iterator[None]:
        """Apply an entry: some commands with each step, but for the last ones, with which it ends."""
        assert entry.position == self.applied_position + 1, (entry.position, self.applied_position)
        if entry.payload[:1] == PREFIX:
            self.configuration = entry.payload
        elif entry.payload:
            payload = self._codec.decode(entry.payload)
            self.time_ms = time_ms = max(self.time_ms, payload.time_ms)
            size = self._pace.commands
            for batch in payload.batches:
                commands, waiters = batch.commands, self.proposals.take_waiters(batch)
                for start in range(0, len(commands), size):
                    if start:
                        yield
                    end = start + size
                    # A store that fails leaves those whose commands it had in hand in doubt, too.
                    self._unanswered = waiters[start:] if waiters is not None else ()
                    results = self.store.apply(commands[start:end], time_ms)
                    answered = None
                    if waiters is not None:
                        answered, self._unanswered = waiters[start:end], waiters[end:]
                    self.door.applied(results, answered)
            self.bytes_since_snapshot += len(entry.payload)
        self.applied_position = entry.position
        self.applied_generation = entry.generation

    def _abandon_entry(self) -> None:
        """The rest of the entry at hand will not be applied here: what came of it is in doubt."""
        self._amid = None
        unanswered, self._unanswered = self._unanswered, ()
        if unanswered:
            self.door.lost(unanswered)

    def _release_barriers(self) -> None:
        ready = [item for item in self._passed_barriers if item[0] <= self.applied_position]
        if not ready:
            return
        self._passed_barriers = [item for item in self._passed_barriers if item[0] > self.applied_position]
        for _, callbacks in ready:
            for done in callbacks:
                done(True)
