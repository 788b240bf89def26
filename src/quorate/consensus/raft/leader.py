"""A leader: appends entries, replicates them, and commits what a quorum holds."""

from __future__ import annotations

from quorate.consensus.progress import Flow, LogProgress
from quorate.consensus.raft.core import Core
from quorate.consensus.raft.messages import Append, Appended, AppendRejected, BarrierAnswer, Commit, TimeoutNow
from quorate.consensus.records import Entry
from quorate.consensus.replica import NodeId
from quorate.consensus.stable_leader import StableLeader


class Leader(StableLeader[Core, LogProgress]):
    """Leads the current term from the moment that it is built: the opening entry goes out at once."""

    def __init__(self, core: Core) -> None:
        assert core.promise_is_durable() and core.voted_for == core.node_id
        super().__init__(core)
        for peer in core.peers:
            self._progress_by_id[peer] = self._new_progress(peer, self.opening_position)
        # An entry of the own term, since only such are committed by counting, and with
        # them all before it (thesis section 6.4, step 1).
        self._append(b"")
        self._begin_round()
        for progress in self._progress_by_id.values():
            self._send_next(progress)

    def _new_progress(self, peer: NodeId, next_position: int) -> LogProgress:
        return LogProgress(peer, next_position, self.core.config.max_bytes_in_flight)

    # --- entries and heartbeats out ------------------------------------------------------

    def _append(self, payload: bytes) -> None:
        core = self.core
        core.append(Entry(core.log.last_position + 1, core.term, payload))

    def _send_next(self, progress: LogProgress, heartbeat: bool = False) -> None:
        """Send the entries after `next_position`, or none; where the one before is gone, ask for a snapshot."""
        core = self.core
        previous_position = progress.next_position - 1
        previous_term = core.log.generation_at(previous_position)
        if previous_term is None:
            self._ask_snapshot(progress)
            return
        entries: tuple[Entry, ...] = ()
        if not heartbeat:
            max_bytes = min(core.config.max_message_bytes, progress.window_bytes)
            entries, size = core.log.read(progress.next_position, max_bytes)
            if entries:
                progress.sent(progress.next_position, entries[-1].position, size)
        progress.commit_told = min(core.commit_position, previous_position + len(entries))
        core.send(
            progress.peer,
            Append(
                core.term,
                previous_position,
                previous_term,
                core.commit_position,
                self.rounds.current,
                entries,
                core.timing.round_trip_ms,
            ),
        )

    def _send_heartbeats(self) -> None:
        """Empty appends: they also find out whether anything that was sent got lost on the way.

        To a peer that is probed too: one that loses entries must go on hearing its leader,
        and be heard.
        """
        core = self.core
        for progress in self._progress_by_id.values():
            if progress.flow is not Flow.SNAPSHOT:
                self._send_next(progress, heartbeat=True)
            if progress.flow is Flow.SNAPSHOT:
                # Every log agrees with ours at position 0, so this is answered, and with
                # the peer's commit position: it shows when the snapshot is in place.
                round_trip_ms = core.timing.round_trip_ms
                core.send(progress.peer, Append(core.term, 0, 0, 0, self.rounds.current, (), round_trip_ms))

    def _tell_commit(self, progress: LogProgress) -> None:
        """Let the peer commit without waiting for the next entry or heartbeat: clients wait for it there."""
        reach = min(self.core.commit_position, progress.match_position)
        if reach > progress.commit_told:
            progress.commit_told = reach
            self.core.send(progress.peer, Commit(self.core.term, reach))

    def _answer_barrier(self, node: NodeId, asker: int, barrier_id: int, position: int) -> None:
        self.core.send(node, BarrierAnswer(self.core.term, asker, barrier_id, position))

    def _tell_to_stand(self, target: NodeId) -> None:
        self.core.send(target, TimeoutNow(self.core.term))

    # --- answers in ----------------------------------------------------------------------

    def receive_appended(self, sender: NodeId, message: Appended) -> None:
        core = self.core
        progress = self._progress_by_id.get(sender)
        if progress is None:
            return  # no member any more
        if message.match_position > core.log.last_position or message.round > self.rounds.current:
            return
        self._hear(sender, message.round)
        news = progress.acknowledged(message.match_position, self.rounds.current, core.log.last_position)
        self._acknowledged(progress, message.match_position, news)

    def receive_rejected(self, sender: NodeId, message: AppendRejected) -> None:
        """Step back to where the logs may agree (Raft paper, end of section 5.3)."""
        core = self.core
        progress = self._progress_by_id.get(sender)
        if progress is None or message.round > self.rounds.current:
            return
        self._hear(sender, message.round)
        rejected_position = message.rejected_position
        if progress.flow is Flow.SNAPSHOT:
            return
        if rejected_position <= progress.match_position:
            if message.round <= progress.match_round:
                return  # maybe said before it had acknowledged this
            # It came back with less than it had acknowledged: its newest block was damaged
            # after its sync and passed for a torn tail.  What is committed stays so; the
            # peer needs those entries once more, and is not counted until it has them.
            progress.match_position = self._match_positions[sender] = 0
        elif progress.flow is Flow.PROBE and rejected_position != progress.next_position - 1:
            return  # an answer to an earlier probe
        # Nothing is known before the base of our log: a hint there stands, and means a snapshot.
        agreed_position = min(
            core.log.last_position_at_or_before(message.hint_position, message.hint_term),
            message.hint_position,
            rejected_position - 1,
        )
        progress.rejected(agreed_position)
        self._send_next(progress)

    def _advance_commit(self) -> None:
        """Commit what a quorum holds, if it is of this term (Raft paper, section 5.4.2 and figure 8)."""
        core = self.core
        held_position = core.quorum.greatest_held(self._match_positions)
        if held_position <= core.commit_position or core.log.generation_at(held_position) != core.term:
            return
        self._commit(held_position)
