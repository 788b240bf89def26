"""A follower: takes a leader's entries, and stands for election when it hears from none.

Learners, and servers that are no members, are followers that do not stand (but see `Core.may_stand`).  Asked for their
vote they give it: a server that does not know yet that it was promoted may be needed to
elect whoever knows, and the votes of others are counted by nobody.
"""

from __future__ import annotations

from quorate.consensus.barriers import ForwardedBarriers
from quorate.consensus.membership import Configuration
from quorate.consensus.raft.core import Core
from quorate.consensus.raft.messages import Append, Appended, AppendRejected, BarrierAnswer, BarrierRequest, Commit
from quorate.consensus.replica import BarrierPassed, NodeId, SnapshotArrived


class Follower:
    """Follows `leader` in the current term, or waits to hear of one where it is None."""

    def __init__(self, core: Core, leader: NodeId | None, asker: int) -> None:
        self.core = core
        self.leader: NodeId | None = None
        self.asker = asker
        self.barriers = ForwardedBarriers()
        self.heard_ms = core.now_ms
        """When the leader was last heard from; without meaning while there is none."""
        self.election_timeout_ms = core.draw_election_timeout_ms()
        self.election_ms = core.now_ms + self.election_timeout_ms
        """When this server stands for election."""
        if leader is not None:
            self.hear_from(leader)

    def hear_from(self, leader: NodeId) -> None:
        """The leader of the current term lives."""
        assert self.leader is None or self.leader == leader, f"two leaders in {self.core.term}: {self.leader}, {leader}"
        self.leader = leader
        self.heard_ms = self.core.now_ms
        self.election_ms = self.core.now_ms + self.election_timeout_ms

    def postpone_election(self) -> None:
        """A vote was given: let its candidate have its time."""
        self.election_ms = self.core.now_ms + self.election_timeout_ms

    def leader_is_alive(self) -> bool:
        """Whether votes are to be withheld, so that a server that lost touch cannot depose a working leader.

        By the timeout in effect: nobody who was told the same by the leader stands sooner, so
        this keeps no election from its time.  One who was told less is kept waiting, but for
        `max_election_timeout_ms` at most, since silence counts from when the leader was heard.
        """
        return self.leader is not None and self.core.now_ms - self.heard_ms < self.core.timing.election_timeout_ms

    def deadline_ms(self) -> int:
        expiry_ms = self.barriers.next_expiry_ms
        return self.election_ms if expiry_ms is None else min(self.election_ms, expiry_ms)

    def tick(self) -> bool:
        """Whether it is time to stand for election."""
        core = self.core
        expiry_ms = self.barriers.next_expiry_ms
        if expiry_ms is not None and expiry_ms <= core.now_ms:
            core.effects.barriers_failed.extend(self.barriers.take_expired(core.now_ms))
        if core.now_ms < self.election_ms:
            return False
        if not core.may_stand():
            self.postpone_election()
            return False
        return True

    def leader_lost(self) -> None:
        """The connection to the leader closed: stand soon unless it is heard from again.

        Not at once, so that the others may notice too and grant their pre-votes.
        """
        core = self.core
        self.leader = None
        timeout_ms = core.timing.election_timeout_ms
        delay_ms = core.random.randrange(timeout_ms // 16, timeout_ms // 4 + 1)
        self.election_ms = min(self.election_ms, core.now_ms + delay_ms)
        self.fail_barriers()

    # --- entries -------------------------------------------------------------------------

    def receive_append(self, message: Append) -> None:
        """Thesis figure 3.1, AppendEntries; the caller has seen to the term and the leader."""
        core = self.core
        if core.timing.told(message.round_trip_ms):
            self.election_timeout_ms = core.draw_election_timeout_ms()
            self.election_ms = core.now_ms + self.election_timeout_ms
        previous_position, entries = message.previous_position, message.entries
        if previous_position < core.commit_position:
            # Whatever is committed here is in the leader's log as well.
            entries = entries[core.commit_position - previous_position :]
            previous_position = core.commit_position
        elif core.log.generation_at(previous_position) != message.previous_term:
            self._reject(message)
            return
        last_new_position = previous_position + len(entries)
        saved = bool(entries) and self._save(previous_position, message, len(entries))
        core.commit(min(message.commit_position, last_new_position))
        if not saved:
            # Nothing to wait for: a heartbeat is answered at once, with what is durable
            # by now, so that a slow disk does not make its leader give up.
            last_new_position = min(last_new_position, core.durable_position)
        assert self.leader is not None
        core.send(self.leader, Appended(core.term, message.round, last_new_position))

    def _save(self, previous_position: int, message: Append, count: int) -> bool:
        """Take over the last `count` entries of a message, after `previous_position`; False if all were there."""
        core = self.core
        entries = message.entries[len(message.entries) - count :]
        known = 0
        if previous_position < core.log.last_position:
            # Only a real conflict may cut the log: an old message that arrives late is a
            # prefix of what is here, and what follows it may be acknowledged.
            while known < count and core.log.generation_at(entries[known].position) == entries[known].generation:
                known += 1
            if known < count and entries[known].position <= core.log.last_position:
                core.truncate_from(entries[known].position)
        core.append_all(entries[known:])
        return known < count

    def _reject(self, message: Append) -> None:
        """Say where the logs may agree: skip every entry here that is newer than the leader's at that place."""
        core = self.core
        hint_position = core.log.last_position_at_or_before(message.previous_position, message.previous_term)
        hint_term = core.log.generation_at(hint_position)
        assert hint_term is not None and self.leader is not None
        core.send(
            self.leader,
            AppendRejected(core.term, message.round, message.previous_position, hint_position, hint_term),
        )

    def receive_commit(self, message: Commit) -> None:
        self.core.commit(min(message.commit_position, self.core.log.last_position))

    def take_snapshot(self, event: SnapshotArrived, configuration: Configuration) -> None:
        """The leader's snapshot is here: go on from it, and tell the leader once that is durable."""
        core = self.core
        position = core.commit_position
        if event.position > position:
            core.install(event.position, event.position_generation, configuration)
            position = event.position
        assert self.leader is not None
        core.send(self.leader, Appended(core.term, 0, position))

    # --- barriers ------------------------------------------------------------------------

    def forward_barrier(self, barrier_id: int) -> None:
        core = self.core
        if self.leader is None:
            core.effects.barriers_failed.append(barrier_id)
            return
        self.barriers.add(barrier_id, core.now_ms + core.timing.election_timeout_ms)
        core.send(self.leader, BarrierRequest(core.term, self.asker, barrier_id))

    def receive_barrier_answer(self, message: BarrierAnswer) -> None:
        if message.asker != self.asker or not self.barriers.take(message.barrier_id):
            return
        if message.position < 0:
            self.core.effects.barriers_failed.append(message.barrier_id)
        else:
            self.core.effects.barriers_passed.append(BarrierPassed(message.barrier_id, message.position))

    def fail_barriers(self) -> None:
        self.core.effects.barriers_failed.extend(self.barriers.take_all())
