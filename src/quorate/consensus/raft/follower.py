"""A follower: takes a leader's entries, and stands for election when it hears from none.

Learners, and servers that are no members, are followers that do not stand (but see `Core.may_stand`).  Asked for their
vote they give it: a server that does not know yet that it was promoted may be needed to
elect whoever knows, and the votes of others are counted by nobody.
"""

from __future__ import annotations

from quorate.consensus.membership import Configuration
from quorate.consensus.pre_vote import WaitingFollower
from quorate.consensus.raft.core import Core
from quorate.consensus.raft.messages import Append, Appended, AppendRejected, BarrierRequest, Commit
from quorate.consensus.replica import NodeId, SnapshotArrived


class Follower(WaitingFollower[Core]):
    """Follows `leader` in the current term, or waits to hear of one where it is None."""

    # --- entries -------------------------------------------------------------------------

    def receive_append(self, message: Append) -> None:
        """Thesis figure 3.1, AppendEntries; the caller has seen to the term and the leader."""
        core = self.core
        if core.timing.told(message.round_trip_ms):
            self.redraw_election_timeout()
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
        core = self.core
        position = core.commit_position
        if event.position > position:
            core.install(event.position, event.position_generation, configuration)
            position = event.position
        assert self.leader is not None
        core.send(self.leader, Appended(core.term, 0, position))

    def _request_barrier(self, leader: NodeId, barrier_id: int) -> None:
        self.core.send(leader, BarrierRequest(self.core.term, self.asker, barrier_id))
