"""An established leader: brings its history to its followers, appends entries, and commits what a quorum holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from quorate.consensus.barriers import Barrier, Rounds
from quorate.consensus.configurations import after_joint, incarnation_of, is_possible, towards, with_learners
from quorate.consensus.membership import Configuration
from quorate.consensus.raft.progress import Flow, Progress
from quorate.consensus.records import Entry
from quorate.consensus.replica import BarrierPassed, NodeId, Refusal, SendSnapshot
from quorate.consensus.zab.core import Core
from quorate.consensus.zab.messages import (
    MAX_NUMBER,
    Ack,
    AckEpoch,
    BarrierAnswer,
    BarrierRequest,
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

_NEVER: Final = MAX_NUMBER + 1
"""After every position."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """The leadership is being handed to `target`, until `deadline_ms`."""

    target: NodeId
    deadline_ms: int


class Leader:
    """Leads the accepted epoch from the moment that it is built: the opening entry goes out at once."""

    def __init__(self, core: Core, acks: Mapping[NodeId, AckEpoch]) -> None:
        """`acks` are the ACK-E of its discovery: with them its followers' synchronisation begins."""
        assert core.promise_is_durable() and core.promised_to == core.node_id
        self.core = core
        self.opening_position = core.log.last_position + 1
        self.uncommitted_bytes = 0
        self.rounds = Rounds()
        self.heartbeat_ms = self._next_heartbeat_ms()
        """When the next heartbeat is due."""
        self.transfer: Transfer | None = None
        self._change_position = self.opening_position if core.is_changing() else _NEVER
        """Once this is committed, the latest configuration is, and may have to be followed by another one."""
        self._heartbeat_commit = core.commit_position
        """The commit position at the last heartbeat."""
        # What quorums are asked about, this server among the others.
        self._match_positions: dict[NodeId, int] = {core.node_id: core.durable_position}
        self._answered_rounds: dict[NodeId, int] = {core.node_id: 0}
        self._heard_ms: dict[NodeId, int] = {core.node_id: core.now_ms}
        self._progress_by_id: dict[NodeId, Progress] = {}
        """Of those that have accepted the epoch (ACK-E)."""
        for peer in core.peers:
            self._add_peer(peer)
        # The entry that stands for NEWLEADER: it belongs to this epoch, so that with it all
        # of the initial history is committed.
        core.append(Entry(self.opening_position, core.accepted_epoch, b""))
        core.accept_history()
        self._begin_round()
        for peer in core.peers:
            if peer in acks:
                self.receive_ack_epoch(peer, acks[peer])
            else:
                self._send_heartbeat(peer)

    def is_ready(self) -> bool:
        """Everything that earlier leaderships committed has been handed out to be applied."""
        return self.core.handed_position >= self.opening_position

    def peer_positions(self) -> dict[NodeId, int]:
        return {peer: self._match_positions[peer] for peer in self.core.peers}

    def resign(self) -> None:
        """The leadership ends: what still waits for it fails."""
        core = self.core
        for barrier in self.rounds.fail_all():
            if barrier.asker is None:
                core.effects.barriers_failed.append(barrier.barrier_id)
            else:
                core.send(barrier.node, BarrierAnswer(core.accepted_epoch, barrier.asker, barrier.barrier_id, -1))

    # --- time and rounds -----------------------------------------------------------------

    def _next_heartbeat_ms(self) -> int:
        """The next multiple of the interval: heartbeats of all groups of a node go out in one frame to each peer."""
        interval_ms = self.core.config.heartbeat_interval_ms
        return (self.core.now_ms // interval_ms + 1) * interval_ms

    def tick(self) -> bool:
        """Send heartbeats when due.  False where no quorum was heard from for an election timeout.

        Likewise where a leader that is no voter any more could not hand over for so long.
        """
        core = self.core
        if core.now_ms < self.heartbeat_ms:
            return True
        self._heard_ms[core.node_id] = core.now_ms
        if core.now_ms - core.quorum.greatest_held(self._heard_ms) >= core.timing.election_timeout_ms:
            return False
        if self.transfer is not None and core.now_ms >= self.transfer.deadline_ms:
            self.transfer = None
            if not core.is_voter and not core.is_changing():
                return False
        self.heartbeat_ms = self._next_heartbeat_ms()
        self._heartbeat_commit = core.commit_position
        core.timing.heartbeat()
        for progress in self._progress_by_id.values():
            progress.probe_due = True
        self._begin_round()
        self._send_heartbeats()
        if self.transfer is not None:
            self._hand_over()
        return True

    def barrier(self, barrier: Barrier) -> None:
        self.rounds.wait(barrier)
        self._begin_wanted_round()

    def receive_barrier_request(self, sender: NodeId, message: BarrierRequest) -> None:
        if sender in self.core.peers:
            self.barrier(Barrier(message.barrier_id, sender, message.asker))

    def _is_opened(self) -> bool:
        return self.core.commit_position >= self.opening_position

    def _begin_wanted_round(self) -> None:
        """Begin a round if barriers wait for one: with the opening entry committed and none of them out already."""
        if self._is_opened() and self.rounds.wants_round():
            self._begin_round()
            self._send_heartbeats()

    def _begin_round(self) -> None:
        """What is sent from here on carries a new round; the own answer to it is known."""
        core = self.core
        position = core.commit_position if self._is_opened() else None
        self._answered_rounds[core.node_id] = self.rounds.begin(core.now_ms, position)
        self._confirm_rounds()

    def _confirm_rounds(self) -> None:
        core, rounds = self.core, self.rounds
        former_ms = rounds.contact_ms
        passed = rounds.confirm(core.quorum.greatest_held(self._answered_rounds))
        if rounds.contact_ms is not None and rounds.contact_ms != former_ms:
            core.timing.measured(core.now_ms - rounds.contact_ms)
        for barrier, position in passed:
            if barrier.asker is None:
                core.effects.barriers_passed.append(BarrierPassed(barrier.barrier_id, position))
            else:
                core.send(barrier.node, BarrierAnswer(core.accepted_epoch, barrier.asker, barrier.barrier_id, position))

    def _hear(self, sender: NodeId, answered_round: int) -> None:
        """Whoever answers in this epoch has accepted it, and no later one."""
        self._heard_ms[sender] = self.core.now_ms
        if answered_round > self._answered_rounds[sender]:
            self._answered_rounds[sender] = answered_round
            self._confirm_rounds()
            self._begin_wanted_round()

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
            progress = self._progress_by_id[sender] = Progress(sender, 1, self.core.config.max_bytes_in_flight)
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

    def _synchronise(self, progress: Progress, position: int, generation: int) -> None:
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

    def propose(self, payload: bytes) -> Refusal | None:
        """Append one batch and send it where nothing is in the way; or say why not."""
        core = self.core
        if not self.is_ready():
            return Refusal.NOT_LEADER
        if self.transfer is not None:
            return Refusal.TRANSFERRING
        size = len(payload)
        if self.uncommitted_bytes and self.uncommitted_bytes + size > core.config.max_uncommitted_bytes:
            return Refusal.OVERLOADED
        self.uncommitted_bytes += size
        core.append(Entry(core.log.last_position + 1, core.accepted_epoch, payload))
        self._send_all()
        return None

    def _send_all(self) -> None:
        for progress in self._progress_by_id.values():
            self._send_entries(progress)

    def _send_entries(self, progress: Progress) -> None:
        """Send what the peer lacks, as far as its window lets it."""
        last_position = self.core.log.last_position
        while progress.flow is Flow.REPLICATE and progress.next_position <= last_position and progress.has_room():
            self._send_next(progress)

    def _send_next(self, progress: Progress) -> None:
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
            progress.sent(entries[-1].position, size)
            core.send(progress.peer, message)
        elif first_position == self.opening_position:
            progress.sent(first_position, 0)
            core.send(progress.peer, NewLeader(epoch, round, first_position - 1, generation, entries[:1]))
        else:
            initial = entries[: self.opening_position - first_position]
            progress.sent(initial[-1].position, sum([len(entry.payload) for entry in initial]))
            core.send(progress.peer, Diff(epoch, round, first_position - 1, generation, initial))

    def _ask_snapshot(self, progress: Progress) -> None:
        progress.await_snapshot()
        self.core.effects.snapshots.append(SendSnapshot(progress.peer, self.core.accepted_epoch))

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

    def _tell_commit(self, progress: Progress) -> None:
        """Let the peer commit without waiting for the next entry or heartbeat: clients wait for it there."""
        core = self.core
        reach = min(core.commit_position, progress.match_position)
        if reach > progress.commit_told and reach >= self.opening_position:
            is_first = progress.commit_told < self.opening_position
            progress.commit_told = reach
            message = UpToDate(core.accepted_epoch, reach) if is_first else Commit(core.accepted_epoch, reach)
            core.send(progress.peer, message)

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
        if progress.flow is Flow.SNAPSHOT:
            if core.log.generation_at(progress.match_position) is not None:
                progress.resume()
            elif progress.retry_ms is not None and progress.retry_ms <= core.now_ms:
                self._ask_snapshot(progress)
        if news:
            self._match_positions[sender] = progress.match_position
            self._advance_commit()
            if self._progress_by_id.get(sender) is not progress:
                return  # what it acknowledged was that it is no member any more
        agrees = message.position == progress.next_position - 1
        if progress.flow is Flow.PROBE and progress.probe_due and agrees:
            progress.agreed()
            self._send_next(progress)
        self._send_entries(progress)
        self._tell_commit(progress)
        if self.transfer is not None and self.transfer.target == sender and news:
            self._hand_over()

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

    def persisted(self) -> None:
        """The own log counts as far as it is durable."""
        core = self.core
        self._match_positions[core.node_id] = core.durable_position
        self._advance_commit()

    def snapshot_sent(self, peer: NodeId, position: int | None) -> None:
        progress = self._progress_by_id.get(peer)
        if progress is None or progress.flow is not Flow.SNAPSHOT:
            return
        if position is None:
            # The peer may be down: try again when it answers a heartbeat, but not in a hurry.
            progress.retry_ms = self.core.now_ms + self.core.config.election_timeout_ms
        else:
            assert position <= self.core.log.last_position, (position, self.core.log.last_position)
            progress.probe(max(progress.match_position, position) + 1)
            self._send_next(progress)

    def peer_lost(self, peer: NodeId) -> None:
        """Whatever was in flight to the peer is gone: let the next heartbeat find out where it stands."""
        progress = self._progress_by_id.get(peer)
        if progress is not None and progress.flow is Flow.REPLICATE:
            progress.probe(progress.match_position + 1)

    def _advance_commit(self) -> None:
        """Commit what a quorum holds, from the opening entry on: it ends the synchronisation of whoever holds it."""
        core = self.core
        held_position = core.quorum.greatest_held(self._match_positions)
        former_position = core.commit_position
        if held_position <= former_position or held_position < self.opening_position:
            return
        core.commit(held_position)
        for entry in core.log.between(max(former_position, self.opening_position) + 1, held_position):
            self.uncommitted_bytes -= len(entry.payload)
        self._begin_wanted_round()
        for progress in self._progress_by_id.values():
            self._tell_commit(progress)
        if held_position >= self._change_position:
            self._configuration_committed()

    # --- members -------------------------------------------------------------------------

    def change(self, goal: Configuration) -> Refusal | None:
        """One step towards `goal` (`ChangeMembers`), or why not; neither where the goal is the latest already.

        A goal without voters, one that is joint, and one in which somebody who votes has
        another incarnation are unsupported: the last must stop voting in between.
        """
        core = self.core
        latest = core.configuration
        if not self.is_ready():
            return Refusal.NOT_LEADER
        if not is_possible(latest, goal):
            return Refusal.UNSUPPORTED
        if goal.version < latest.version or (goal.version == latest.version and not core.is_changing()):
            return None if goal == latest else Refusal.OUTDATED
        if core.is_changing():
            return Refusal.CHANGE_UNDER_WAY
        if self.transfer is not None:
            return Refusal.TRANSFERRING
        interim = with_learners(latest, goal)
        if interim is None:
            if not all(self._has_caught_up(node) for node in goal.voters if node not in latest.voters):
                return Refusal.NOT_CAUGHT_UP
            interim = towards(latest, goal)
        self._append_configuration(interim)
        return None

    def _has_caught_up(self, node: NodeId) -> bool:
        """It was heard from, and holds durably all that was committed at the last heartbeat.

        So what it still lacks is what a heartbeat interval or two have brought, under
        whatever load: it takes not much longer than that until it holds everything.
        """
        core = self.core
        if node == core.node_id:
            # Out of the voters, it leads until somebody takes over.  Its log is not that of another incarnation.
            return core.configuration.learners.get(node) == core.config.incarnation
        heard = core.now_ms - self._heard_ms[node] < core.timing.election_timeout_ms
        return heard and self._match_positions[node] >= max(self._heartbeat_commit, 1)

    def _append_configuration(self, configuration: Configuration) -> None:
        """It counts from here on, for this server too."""
        core = self.core
        former, members = core.configuration, {core.node_id, *configuration.members}
        position = core.log.last_position + 1
        entry = Entry(position, core.accepted_epoch, configuration.encode())
        self.uncommitted_bytes += len(entry.payload)
        core.append(entry)
        self._change_position = position
        for peer in [peer for peer in self._match_positions if peer != core.node_id]:
            # With another incarnation it is another peer, that holds nothing yet.
            if peer not in members or incarnation_of(former, peer) != incarnation_of(configuration, peer):
                self._progress_by_id.pop(peer, None)
                for by_node in (self._match_positions, self._answered_rounds, self._heard_ms):
                    del by_node[peer]
        added = [peer for peer in core.peers if peer not in self._match_positions]
        for peer in added:
            self._add_peer(peer)
        self._send_all()
        for peer in added:
            self._send_heartbeat(peer)

    def _add_peer(self, peer: NodeId) -> None:
        """Nothing is known of it.  It has an election timeout's time to be heard from."""
        self._match_positions[peer] = 0
        self._answered_rounds[peer] = 0
        self._heard_ms[peer] = self.core.now_ms

    def _configuration_committed(self) -> None:
        """The latest configuration is: the final one follows a joint one; a leader outside of it has done its work."""
        core = self.core
        self._change_position = _NEVER
        if core.configuration.is_joint:
            self._append_configuration(after_joint(core.configuration))
        elif not core.is_voter:
            target = self._furthest_voter()
            assert target is not None
            self._begin_transfer(target)

    # --- handing over --------------------------------------------------------------------

    def transfer_to(self, target: NodeId | None, avoid: Collection[NodeId] = ()) -> Refusal | None:
        """Hand the leadership over, or say why not.  None stands for whoever is furthest.

        Where an earlier target is among those to `avoid`, and takes over nevertheless, two discoveries
        run at once: at most one finds a quorum.
        """
        core = self.core
        if not self.is_ready():
            return Refusal.NOT_LEADER
        if self.transfer is not None:
            if self.transfer.target not in avoid:
                return Refusal.TRANSFERRING
            self.transfer = None
        if target is None:
            target = self._furthest_voter(avoid)
        if target is None or target == core.node_id or target not in core.configuration.voters:
            return Refusal.NOT_A_VOTER
        if not self._has_caught_up(target):
            return Refusal.NOT_CAUGHT_UP
        self._begin_transfer(target)
        return None

    def successor(self) -> NodeId | None:
        """To whom the leadership is being handed."""
        return self.transfer.target if self.transfer is not None else None

    def _furthest_voter(self, avoid: Collection[NodeId] = ()) -> NodeId | None:
        """Of the others, as far as they were heard from; of several, the one that was heard from last."""
        core = self.core

        def rank(node: NodeId) -> tuple[bool, int, int]:
            heard_ms = self._heard_ms[node]
            return core.now_ms - heard_ms < core.timing.election_timeout_ms, self._match_positions[node], heard_ms

        others = [node for node in core.configuration.voters if node != core.node_id and node not in avoid]
        return max(others, key=rank, default=None)

    def _begin_transfer(self, target: NodeId) -> None:
        self.transfer = Transfer(target, self.core.now_ms + self.core.timing.election_timeout_ms)
        self._hand_over()

    def _hand_over(self) -> None:
        """Let the target take over once it holds the whole history: the followers' would be better otherwise.

        Said once more at each heartbeat, should it get lost.
        """
        assert self.transfer is not None
        target = self.transfer.target
        if self._match_positions.get(target) == self.core.log.last_position:
            self.core.send(target, HandOver(self.core.accepted_epoch))
