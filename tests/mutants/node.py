"""Bugs in how a node carries effects out: the driver's order, proposals and their waiters, snapshots."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_DRIVER: Final = "quorate.node.driver"
_GROUP: Final = "quorate.node.group"
_PROPOSALS: Final = "quorate.node.proposals"
_SNAPSHOTTING: Final = "quorate.node.snapshotting"

MUTANTS: Final = (
    Mutant(
        "driver_sends_before_sync",
        "durable before spoken: what waits for the sync of its block leaves before it",
        (
            Change(
                _DRIVER,
                """            self._waiting.append((group_id, send))
        links = self._links.by_peer
""",
                """            self._links.by_peer[send.to].queue((group_id, send.message))
        links = self._links.by_peer
""",
            ),
        ),
    ),
    Mutant(
        "aside_sync_not_awaited",
        "durable before spoken: a sync that is made aside counts when it begins, not when it has returned",
        (
            Change(
                _DRIVER,
                """        await self._log.sync_aside()
        self._synced((self._clock() - began_s) * 1000)
        if not self._failed:
            self._persisted(block)
""",
                """        self._persisted(block)
        await self._log.sync_aside()
        self._synced((self._clock() - began_s) * 1000)
""",
            ),
        ),
    ),
    Mutant(
        "newer_tickets_reported_durable",
        "durable before spoken: what gathered while a sync was under way is taken for covered by it",
        (
            Change(
                _DRIVER,
                "for group_id, ticket in block.tickets.items():",
                "for group_id, ticket in {**block.tickets, **self._tickets}.items():",
            ),
        ),
    ),
    Mutant(
        "apply_with_local_clock",
        "State Machine Safety: each node stamps what it applies with its own clock, and the stores differ",
        (
            Change(
                _GROUP,
                "self.store.apply(commands[start:end], time_ms)",
                "self.store.apply(commands[start:end], self._host.wall_ms())",
            ),
        ),
    ),
    Mutant(
        "time_goes_back",
        "sessions and stats live by one time that only grows: it goes back where a leader's clock is behind the last",
        (
            Change(
                _GROUP,
                "self.time_ms = time_ms = max(self.time_ms, payload.time_ms)",
                "self.time_ms = time_ms = payload.time_ms",
            ),
        ),
    ),
    Mutant(
        "reapply_after_restart",
        "each entry is applied once: a snapshot says one position less than it holds, so that one comes again",
        (
            Change(
                _SNAPSHOTTING,
                """        position = group.applied_position
        generation""",
                """        position = group.applied_position - 1
        generation""",
            ),
        ),
    ),
    Mutant(
        "old_snapshot_removed_too_early",
        "a crash before the new snapshot counts leaves a log that begins behind a snapshot that is gone",
        (
            Change(
                _SNAPSHOTTING,
                "            info = await writer.finish()\n",
                """            self._snapshots.remove_older(group.group_id, position)
            info = await writer.finish()
""",
            ),
        ),
    ),
    Mutant(
        "results_matched_by_sequence_alone",
        "a client is given the result of another node's write, whose batch has the same number",
        (Change(_PROPOSALS, "if batch.boot != self._boot or batch.origin != self._node_id:", "if False:"),),
    ),
    Mutant(
        "forwarded_batches_reversed",
        "FIFO client order: what one follower forwards in one go is appended last first",
        (Change(_PROPOSALS, "self._forwarded.append((sender, batch))", "self._forwarded.appendleft((sender, batch))"),),
    ),
    Mutant(
        "retry_lost_proposals",
        "at most once: what was under way when a leader was lost is proposed anew, and may be applied twice",
        (
            Change(
                _PROPOSALS,
                """    waiters: Sequence[Waiter]
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class WaiterEvents:
""",
                """    waiters: Sequence[Waiter]
    weight_bytes: int
    commands: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class WaiterEvents:
""",
            ),
            Change(_PROPOSALS, "_Outstanding(waiters, weight_bytes)", "_Outstanding(waiters, weight_bytes, commands)"),
            Change(
                _PROPOSALS,
                """        self._release(sum(item.weight_bytes for item in outstanding.values()))
        for item in outstanding.values():
            self.events.lost(item.waiters)
        self.refuse_pending(Refused.NO_LEADER)
""",
                """        for item in reversed(outstanding.values()):
            self._pending.appendleft((item.commands, item.waiters, item.weight_bytes))
""",
            ),
        ),
    ),
    Mutant(
        "waiters_of_lost_batches_forgotten",
        "every request is answered, or its connection closed: after a change of leaders some wait for ever",
        (
            Change(
                _PROPOSALS,
                """        self.lose_outstanding()
        if leadership.role is not Role.LEADER:
            self._forwarded.clear()
""",
                """        if leadership.role is not Role.LEADER:
            self._forwarded.clear()
""",
            ),
        ),
    ),
)
