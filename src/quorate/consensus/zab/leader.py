"""An established leader: brings its history to its followers, appends entries, and commits what a quorum holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from quorate.consensus.progress import Flow, LogProgress
from quorate.consensus.records import Entry
from quorate.consensus.replica import NodeId
from quorate.consensus.stable_leader import StableLeader
from quorate.consensus.zab.core import Core
from quorate.consensus.zab.messages import (
    Ack,
    AckEpoch,
    BarrierAnswer,
    Commit,
    Diff,
    HandOver,
    NewEpoch,
    NewLeader,
    OutOfSync,
    Ping,
    Propose,
    Truncate,
    UpToDate,
)


class Leader(StableLeader[Core, LogProgress]):
    """Leads the accepted epoch from the moment that it is built: the opening entry goes out at once.

    It sends entries to those that have accepted the epoch (ACK-E).
    """

    def __init__(self, core: Core, acks: Mapping[NodeId, AckEpoch]) -> None:
        """`acks` are the ACK-E of its discovery: with them its followers' synchronisation begins."""
        assert core.promise_is_durable() and core.promised_to == core.node_id
        super().__init__(core)
        # The entry that stands for NEWLEADER: it belongs to this epoch, so that with it all
        # of the initial history is committed.
        self._append(b"")
        core.accept_history()
        self._begin_round()
        for peer in core.peers:
            if peer in acks:
                self.receive_ack_epoch(peer, acks[peer])
            else:
                self._send_heartbeat(peer)

    def _new_progress(self, peer: NodeId, next_position: int) -> LogProgress:
        return LogProgress(peer, next_position, self.core.config.max_bytes_in_flight)

    # --- synchronisation -----------------------------------------------------------------

    def receive_follower_info(self, sender: NodeId) -> None:
        """CEPOCH from somebody who found this leader, or came back to it."""
        if sender in self.core.peers:
            self.core.send(sender, NewEpoch(self.core.accepted_epoch, True))

    def receive_ack_epoch(self, sender: NodeId, message: AckEpoch) -> None:
        """ACK-E: DIFF, TRUNC or SNAP, by where the follower's history ends; also for one that came back."""
        if sender not in self.core.peers:
            return
        self._heard_ms[sender] = self.core.now_ms
        progress = self._progress_by_id.get(sender)
        if progress is None:
            progress = self._progress_by_id[sender] = self._new_progress(sender, 1)
        elif progress.flow is Flow.SNAPSHOT:
            return  # it comes, or will be tried again
        agreed_position = self._last_agreeing(message.position, message.generation)
        progress.probe(max(progress.match_position, agreed_position) + 1)
        self._synchronise(progress, message.position, message.generation)

    def _last_agreeing(self, position: int, generation: int) -> int:
        """The last position where a history that has this zxid can agree with the own one.

        Nothing is known before the base of the own log: a zxid there stands, and means a snapshot.
        """
        return min(self.core.log.last_position_at_or_before(position, generation), position)

    def _synchronise(self, progress: LogProgress, position: int, generation: int) -> None:
        """Go on behind the last entry that can agree; if the peer has more there, that is cut off first."""
        core = self.core
        previous_position = progress.next_position - 1
        previous_generation = core.log.generation_at(previous_position)
        if previous_generation is None or (previous_position, previous_generation) >= (position, generation):
            self._send_next(progress)
        else:
            epoch, round = core.accepted_epoch, self.rounds.current
            core.send(progress.peer, Truncate(epoch, round, previous_position, previous_generation))
            progress.probe_due = True  # its answer lets DIFF or NEWLEADER follow

    # --- entries and heartbeats out ------------------------------------------------------

    def _append(self, payload: bytes) -> None:
        core = self.core
        core.append(Entry(core.log.last_position + 1, core.accepted_epoch, payload))

    def _send_to_members(self, added: Collection[NodeId]) -> None:
        """New ones have to accept the epoch first."""
        for progress in self._progress_by_id.values():
            self._send_entries(progress)
        for peer in added:
            self._send_heartbeat(peer)

    def _send_next(self, progress: LogProgress) -> None:
        """DIFF, NEWLEADER or PROPOSE, by which entries come next; where the one before is gone, ask for a snapshot."""
        core = self.core
        first_position = progress.next_position
        generation = core.log.generation_at(first_position - 1)
        if generation is None:
            self._ask_snapshot(progress)
            return
        max_bytes = min(core.config.max_message_bytes, progress.window_bytes)
        entries, size = core.log.read(first_position, max_bytes)
        if not entries:
            self._send_heartbeat(progress.peer)
            return
        epoch, round = core.accepted_epoch, self.rounds.current
        if first_position > self.opening_position:
            progress.commit_told = min(core.commit_position, entries[-1].position)
            message = Propose(epoch, round, first_position - 1, generation, core.commit_position, entries)
            progress.sent(first_position, entries[-1].position, size)
            core.send(progress.peer, message)
        elif first_position == self.opening_position:
            progress.sent(first_position, first_position, 0)
            core.send(progress.peer, NewLeader(epoch, round, first_position - 1, generation, entries[:1]))
        else:
            initial = entries[: self.opening_position - first_position]
            size = sum([len(entry.payload) for entry in initial])
            progress.sent(first_position, initial[-1].position, size)
            core.send(progress.peer, Diff(epoch, round, first_position - 1, generation, initial))

    def _send_heartbeats(self) -> None:
        for peer in self.core.peers:
            self._send_heartbeat(peer)

    def _send_heartbeat(self, peer: NodeId) -> None:
        """A ping behind the last entry sent: it finds out whether anything was lost on the way.

        Who has not accepted the epoch, or waits for a snapshot, is pinged at position 0,
        where all histories agree: it answers with CEPOCH, or with what it has committed,
        which shows when the snapshot is in place.
        """
        core = self.core
        progress = self._progress_by_id.get(peer)
        position, generation, commit_position = 0, 0, 0
        if progress is not None and progress.flow is not Flow.SNAPSHOT:
            known = core.log.generation_at(progress.next_position - 1)
            if known is None:
                self._ask_snapshot(progress)
            else:
                position, generation, commit_position = progress.next_position - 1, known, core.commit_position
                progress.commit_told = min(commit_position, position)
        epoch, round, round_trip_ms = core.accepted_epoch, self.rounds.current, core.timing.round_trip_ms
        core.send(peer, Ping(epoch, round, position, generation, commit_position, round_trip_ms))

    def _tell_commit(self, progress: LogProgress) -> None:
        """Let the peer commit without waiting for the next entry or heartbeat: clients wait for it there."""
        core = self.core
        reach = min(core.commit_position, progress.match_position)
        if reach > progress.commit_told and reach >= self.opening_position:
            is_first = progress.commit_told < self.opening_position
            progress.commit_told = reach
            message = UpToDate(core.accepted_epoch, reach) if is_first else Commit(core.accepted_epoch, reach)
            core.send(progress.peer, message)

    def _answer_barrier(self, node: NodeId, asker: int, barrier_id: int, position: int) -> None:
        self.core.send(node, BarrierAnswer(self.core.accepted_epoch, asker, barrier_id, position))

    def _tell_to_stand(self, target: NodeId) -> None:
        self.core.send(target, HandOver(self.core.accepted_epoch))

    # --- answers in ----------------------------------------------------------------------

    def receive_ack(self, sender: NodeId, message: Ack) -> None:
        """ACK and ACK-LD: what counts is how far the peer's history is the leader's."""
        core = self.core
        if sender not in core.peers or message.position > core.log.last_position or message.round > self.rounds.current:
            return
        self._hear(sender, message.round)
        progress = self._progress_by_id.get(sender)
        if progress is None:
            # It accepted the epoch, and where its history ends was lost on the way.
            core.send(sender, NewEpoch(core.accepted_epoch, True))
            return
        news = progress.acknowledged(message.position, self.rounds.current, core.log.last_position)
        self._acknowledged(progress, message.position, news)

    def receive_out_of_sync(self, sender: NodeId, message: OutOfSync) -> None:
        """Step back to where the histories may agree."""
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
            # after its sync and passed for a torn tail, or a TRUNC came twice.  What is
            # committed stays so; the peer is not counted until it has those entries again.
            progress.match_position = self._match_positions[sender] = 0
        elif progress.flow is Flow.PROBE and rejected_position != progress.next_position - 1:
            return  # an answer to an earlier probe
        progress.rejected(
            min(self._last_agreeing(message.hint_position, message.hint_generation), rejected_position - 1)
        )
        self._synchronise(progress, message.hint_position, message.hint_generation)

    def _advance_commit(self) -> None:
        """Commit what a quorum holds, from the opening entry on: it ends the synchronisation of whoever holds it."""
        core = self.core
        held_position = core.quorum.greatest_held(self._match_positions)
        if held_position <= core.commit_position or held_position < self.opening_position:
            return
        self._commit(held_position)
