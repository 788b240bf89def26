"""A follower: finds into its leader's epoch, takes over its history, and acknowledges what it proposes.

It is in one of these phases, told by what is known:

    no `leader`           waits, for a short time at first, then looks for one
    not `established`     has chosen a leader and repeats its CEPOCH; that one may still fail in discovery
    not synchronised      the leader leads the epoch that was accepted; its history comes (DIFF, TRUNC, SNAP)
    synchronised          the whole log here is a prefix of the leader's history

Learners (ZooKeeper's observers), and servers that are no members, are followers that do not
look for a leader: it finds them.
"""

from __future__ import annotations

from quorate.consensus.base_follower import BaseFollower
from quorate.consensus.membership import Configuration
from quorate.consensus.records import Entry
from quorate.consensus.replica import NodeId, SnapshotArrived
from quorate.consensus.zab.core import Core
from quorate.consensus.zab.messages import (
    Ack,
    AckLeader,
    BarrierRequest,
    Diff,
    FromLeader,
    NewLeader,
    OutOfSync,
    Ping,
    Propose,
    Truncate,
    Vote,
)


class Follower(BaseFollower[Core]):
    """Follows `leader`, or waits to hear of one where it is None."""

    def __init__(
        self,
        core: Core,
        asker: int,
        leader: NodeId | None = None,
        vote: Vote | None = None,
        transfer: bool = False,
    ) -> None:
        """`vote` made this choice, if an election did; with `transfer` its former leader did."""
        super().__init__(core, asker, leader)
        self.vote = vote
        self.transfer = transfer
        self.established = False
        """The leader was heard to lead the accepted epoch."""
        self.resend_ms = 0
        """When CEPOCH is said again."""

    def known_leader(self) -> NodeId | None:
        return self.leader if self.established else None

    def seek(self) -> None:
        """CEPOCH: what a server begins to follow with."""
        assert self.leader is not None and not self.established
        self.resend_ms = self.core.now_ms + self.core.config.heartbeat_interval_ms
        self.core.send_follower_info(self.leader)

    def hear_from_leader(self) -> None:
        """The leader of the accepted epoch lives."""
        self.established = True
        self.postpone_election()

    def deadline_ms(self) -> int:
        deadline_ms = super().deadline_ms()
        if self.leader is not None and not self.established:
            deadline_ms = min(deadline_ms, self.resend_ms)
        return deadline_ms

    def tick(self) -> bool:
        """Whether it is time to look for a leader."""
        if super().tick():
            return True
        if self.leader is not None and not self.established and self.core.now_ms >= self.resend_ms:
            self.seek()
        return False

    # --- synchronisation and broadcast ---------------------------------------------------

    def receive(self, message: FromLeader) -> None:
        """What the leader of the accepted epoch says of its history; the caller has seen to epoch and sender."""
        core = self.core
        if isinstance(message, Ping) and core.timing.told(message.round_trip_ms):
            self.redraw_election_timeout()
        position = message.previous_position
        if position < core.commit_position:
            # Whatever is committed here is in the leader's history as well.
            position = core.commit_position
        elif core.log.generation_at(position) != message.previous_generation:
            self._reject(message)
            return
        saved = False
        if isinstance(message, Truncate):
            self._truncate(position)
        elif not isinstance(message, Ping):
            assert isinstance(message, Diff | NewLeader | Propose), message
            saved = self._save(message.entries[position - message.previous_position :])
            position = max(position, message.previous_position + len(message.entries))
        ended = not core.is_synchronised() and core.log.generation_at(position) == core.accepted_epoch
        if ended:
            core.accept_history()
        if core.is_synchronised() and isinstance(message, Ping | Propose):
            core.commit(min(message.commit_position, position))
        self._acknowledge(message.round, position, ended, saved)

    def _acknowledge(self, round: int, position: int, ended: bool, saved: bool) -> None:
        core = self.core
        assert self.leader is not None
        if ended:
            core.send(self.leader, AckLeader(core.accepted_epoch, round, position))
            return
        if not saved:
            # Nothing to wait for: a heartbeat is answered at once, with what is durable
            # by now, so that a slow disk does not make its leader give up.
            position = min(position, core.durable_position)
        core.send(self.leader, Ack(core.accepted_epoch, round, position))

    def _truncate(self, position: int) -> None:
        """TRUNC.  One that comes late, when the history was accepted, has nothing to say any more."""
        core = self.core
        if not core.is_synchronised() and core.log.last_position > position:
            core.truncate_from(position + 1)

    def _save(self, entries: tuple[Entry, ...]) -> bool:
        """Take over entries behind one that agrees; whether any was new.

        Only a real conflict may cut the log: an old message that arrives late is a prefix
        of what is here, and what follows it may be acknowledged.
        """
        core, known = self.core, 0
        while known < len(entries) and core.log.generation_at(entries[known].position) == entries[known].generation:
            known += 1
        new = entries[known:]
        if not new or new[0].generation < (core.log.generation_at(new[0].position - 1) or 0):
            return False  # nothing new; or what no leader of ours would send
        if new[0].position <= core.log.last_position:
            core.truncate_from(new[0].position)
        core.append_all(new)
        return True

    def _reject(self, message: FromLeader) -> None:
        """Say where the histories may agree: skip every entry here that is newer than the leader's at that place."""
        core = self.core
        hint_position = core.log.last_position_at_or_before(message.previous_position, message.previous_generation)
        hint_generation = core.log.generation_at(hint_position)
        assert hint_generation is not None and self.leader is not None
        core.send(
            self.leader,
            OutOfSync(core.accepted_epoch, message.round, message.previous_position, hint_position, hint_generation),
        )

    def receive_commit(self, commit_position: int) -> None:
        """COMMIT and UPTODATE."""
        if self.core.is_synchronised():
            self.core.commit(min(commit_position, self.core.log.last_position))

    def take_snapshot(self, event: SnapshotArrived, configuration: Configuration) -> None:
        """SNAP: go on from the leader's snapshot, and tell the leader once that is durable."""
        core = self.core
        position = core.commit_position
        ended = False
        if event.position > position:
            core.install(event.position, event.position_generation, configuration)
            position = event.position
            ended = not core.is_synchronised() and event.position_generation == core.accepted_epoch
            if ended:
                core.accept_history()
        self._acknowledge(0, position, ended, True)

    def _request_barrier(self, leader: NodeId, barrier_id: int) -> None:
        self.core.send(leader, BarrierRequest(self.core.accepted_epoch, self.asker, barrier_id))
