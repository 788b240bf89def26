"""A leader: the proposer of every slot from its opening on, and the learner that counts who accepted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from quorate.consensus.barriers import Barrier, Rounds
from quorate.consensus.configurations import (
    after_joint,
    incarnation_of,
    is_possible,
    towards,
    with_learners,
)
from quorate.consensus.membership import Configuration
from quorate.consensus.paxos.ballots import MAX_NUMBER
from quorate.consensus.paxos.candidate import Heard
from quorate.consensus.paxos.core import Core
from quorate.consensus.paxos.messages import (
    Accept,
    Accepted,
    BarrierAnswer,
    BarrierRequest,
    Chosen,
    Missing,
    TimeoutNow,
)
from quorate.consensus.paxos.progress import Flow, Progress
from quorate.consensus.records import Entry
from quorate.consensus.replica import BarrierPassed, NodeId, Refusal, SendSnapshot
from quorate.quorums import Flexible

_NEVER: Final = MAX_NUMBER + 1
"""After every position."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """The leadership is being handed to `target`, until `deadline_ms`."""

    target: NodeId
    deadline_ms: int


class Leader:
    """Leads under the promised ballot from the moment that it is built.

    What phase 1 found is proposed again at once, and behind it the opening entry.
    """

    def __init__(self, core: Core, found: Sequence[Entry], commit_position: int, heard: dict[NodeId, Heard]) -> None:
        """`found`: a value for every open slot; `heard`: what each acceptor that promised is known to hold."""
        assert core.promise_is_durable()
        self.core = core
        for entry in found:
            accepted = core.accept(entry)
            assert accepted, entry
        core.commit(commit_position)
        self.opening_position = core.log.last_position + 1
        self.uncommitted_bytes = 0
        self.rounds = Rounds()
        self.heartbeat_ms = self._next_heartbeat_ms()
        """When the next heartbeat is due."""
        self.transfer: Transfer | None = None
        self._draining_for: Configuration | None = None
        """What is to be proposed once all before it is chosen."""
        self._held: list[bytes] = []
        """Proposals that wait until then."""
        unfinished = core.is_changing() or not core.is_voter
        self._change_position = self.opening_position if unfinished else _NEVER
        """Once this is chosen, the latest configuration is, and may have to be followed by another one."""
        self._heartbeat_commit = core.commit_position
        """The commit position at the last heartbeat."""
        # What quorums are asked about, this server among the others.
        self._accepted_positions: dict[NodeId, int] = {core.node_id: core.accepted_position()}
        self._answered_rounds: dict[NodeId, int] = {core.node_id: 0}
        self._heard_ms: dict[NodeId, int] = {core.node_id: core.now_ms}
        self._peer_by_id: dict[NodeId, Progress] = {}
        for peer in core.peers:
            known = heard.get(peer)
            next_position = self.opening_position if known is None else known.commit_position + 1
            self._add_peer(peer, min(next_position, self.opening_position))
        self._peers = list(self._peer_by_id.values())
        # The first of this leadership: what follows it names it, directly or not, as its predecessor.
        core.accept(Entry(self.opening_position, core.promised, b""))
        self._begin_round()
        for progress in self._peers:
            self._send_accept(progress)

    def is_ready(self) -> bool:
        """Everything that earlier leaderships chose has been handed out to be applied."""
        return self.core.handed_position >= self.opening_position

    def peer_positions(self) -> dict[NodeId, int]:
        return {progress.peer: progress.accepted_position for progress in self._peers}

    def resign(self) -> None:
        """The leadership ends: what still waits for it fails."""
        core = self.core
        for barrier in self.rounds.fail_all():
            if barrier.asker is None:
                core.effects.barriers_failed.append(barrier.barrier_id)
            else:
                core.send(barrier.node, BarrierAnswer(core.promised, barrier.asker, barrier.barrier_id, -1))

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
        if core.now_ms - core.quorum.phase_2.greatest_held(self._heard_ms) >= core.timing.election_timeout_ms:
            return False
        if self.transfer is not None and core.now_ms >= self.transfer.deadline_ms:
            self.transfer = None
            if not core.is_voter and not core.is_changing():
                return False
        self.heartbeat_ms = self._next_heartbeat_ms()
        self._heartbeat_commit = core.commit_position
        core.timing.heartbeat()
        for progress in self._peers:
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
        if sender in self._peer_by_id:
            self.barrier(Barrier(message.barrier_id, sender, message.asker))

    def _is_opened(self) -> bool:
        return self.core.commit_position >= self.opening_position

    def _begin_wanted_round(self) -> None:
        """Begin a round if barriers wait for one: with the opening entry chosen and none of them out already."""
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
        """A phase 2 quorum meets every phase 1 quorum: who answered a round had promised nobody else when it began."""
        core, rounds = self.core, self.rounds
        former_ms = rounds.contact_ms
        passed = rounds.confirm(core.quorum.phase_2.greatest_held(self._answered_rounds))
        if rounds.contact_ms is not None and rounds.contact_ms != former_ms:
            core.timing.measured(core.now_ms - rounds.contact_ms)
        for barrier, position in passed:
            if barrier.asker is None:
                core.effects.barriers_passed.append(BarrierPassed(barrier.barrier_id, position))
            else:
                core.send(barrier.node, BarrierAnswer(core.promised, barrier.asker, barrier.barrier_id, position))

    def _hear(self, sender: NodeId, answered_round: int) -> None:
        self._heard_ms[sender] = self.core.now_ms
        if answered_round > self._answered_rounds[sender]:
            self._answered_rounds[sender] = answered_round
            self._confirm_rounds()
            self._begin_wanted_round()

    # --- entries and heartbeats out ------------------------------------------------------

    def propose(self, payload: bytes) -> Refusal | None:
        """Propose one batch in the next slot and send it where nothing is in the way; or say why not."""
        core = self.core
        if not self.is_ready():
            return Refusal.NOT_LEADER
        if self.transfer is not None:
            return Refusal.TRANSFERRING
        size = len(payload)
        if self.uncommitted_bytes and self.uncommitted_bytes + size > core.config.max_uncommitted_bytes:
            return Refusal.OVERLOADED
        self.uncommitted_bytes += size
        if self._draining_for is not None:
            self._held.append(payload)
        else:
            self._append(payload)
        return None

    def _append(self, payload: bytes) -> None:
        core = self.core
        core.accept(Entry(core.log.last_position + 1, core.promised, payload))
        for progress in self._peers:
            self._send_entries(progress)

    def _send_entries(self, progress: Progress) -> None:
        """Send what the peer lacks, as far as its window lets it."""
        last_position = self.core.log.last_position
        while progress.flow is Flow.REPLICATE and progress.next_position <= last_position and progress.has_room():
            self._send_accept(progress)

    def _send_accept(self, progress: Progress) -> None:
        """Send the entries from `next_position` on, or none; where they are gone, ask for a snapshot."""
        core = self.core
        if progress.next_position <= core.log.base_position:
            self._ask_snapshot(progress)
            return
        max_bytes = min(core.config.max_message_bytes, progress.window_bytes)
        first, last = progress.next_run(core.log.last_position)
        entries, size = core.log.read(first, last, max_bytes)
        if entries:
            progress.sent(first, entries[-1].position, size)
        elif first > progress.next_position and progress.flow is Flow.REPLICATE:
            progress.next_position = first  # it holds all the rest
            return
        self._send(progress, entries)

    def _send(self, progress: Progress, entries: tuple[Entry, ...]) -> None:
        core = self.core
        progress.commit_told = min(core.commit_position, progress.accepted_position)
        core.send(
            progress.peer,
            Accept(
                core.promised,
                0 if progress.flow is Flow.SNAPSHOT else progress.sent_position,
                core.commit_position,
                self.rounds.current,
                entries,
                core.timing.round_trip_ms,
            ),
        )

    def _ask_snapshot(self, progress: Progress) -> None:
        progress.await_snapshot()
        self.core.effects.snapshots.append(SendSnapshot(progress.peer, self.core.promised))

    def _send_heartbeats(self) -> None:
        """Without entries: they also find out whether anything that was sent got lost on the way.

        To a peer that is probed or gets a snapshot too: it must go on hearing its leader, and be heard.
        """
        for progress in self._peers:
            self._send(progress, ())

    def _tell_commit(self, progress: Progress) -> None:
        """Let the peer commit without waiting for the next entry or heartbeat: clients wait for it there."""
        reach = min(self.core.commit_position, progress.accepted_position)
        if reach > progress.commit_told:
            progress.commit_told = reach
            self.core.send(progress.peer, Chosen(self.core.promised, reach))

    # --- answers in ----------------------------------------------------------------------

    def receive_accepted(self, sender: NodeId, message: Accepted) -> None:
        core = self.core
        progress = self._peer_by_id.get(sender)
        if progress is None:
            return  # no member any more
        if message.last_position > core.log.last_position or message.round > self.rounds.current:
            return
        self._hear(sender, message.round)
        news = progress.accepted(message.first_position, message.last_position, message.round, core.log.last_position)
        if progress.flow is Flow.SNAPSHOT:
            if progress.accepted_position >= core.log.base_position:
                progress.resume()
            elif progress.retry_ms is not None and progress.retry_ms <= core.now_ms:
                self._ask_snapshot(progress)
        if news:
            self._accepted_positions[sender] = progress.accepted_position
            self._advance_commit()
            if self._peer_by_id.get(sender) is not progress:
                return  # what it accepted was that it is no member any more
        agrees = message.last_position == progress.next_position - 1
        if progress.flow is Flow.PROBE and progress.probe_due and agrees:
            progress.agreed()
            self._send_accept(progress)
        self._send_entries(progress)
        self._tell_commit(progress)
        if self.transfer is not None and self.transfer.target == sender and news:
            self._hand_over()

    def receive_missing(self, sender: NodeId, message: Missing) -> None:
        """Send again from where the peer says that something is missing."""
        core = self.core
        progress = self._peer_by_id.get(sender)
        if progress is None or message.round > self.rounds.current or message.first_position > core.log.last_position:
            return
        self._hear(sender, message.round)
        first_position = message.first_position
        if progress.flow is Flow.SNAPSHOT or message.round < progress.accepted_round:
            return
        if progress.flow is Flow.PROBE and first_position >= progress.next_position and not progress.probe_due:
            return  # an answer to an earlier probe, or this one got lost: no faster than heartbeats
        # It may have acknowledged this: what was chosen before this leadership it forgets to know as
        # chosen when it restarts.  It is not counted until it has accepted it from this leader.
        progress.missing(first_position)
        self._accepted_positions[sender] = progress.accepted_position
        self._send_accept(progress)

    def persisted(self) -> None:
        """The own slots count as far as they are durable."""
        core = self.core
        self._accepted_positions[core.node_id] = core.accepted_position()
        self._advance_commit()

    def snapshot_sent(self, peer: NodeId, position: int | None) -> None:
        progress = self._peer_by_id.get(peer)
        if progress is None or progress.flow is not Flow.SNAPSHOT:
            return
        if position is None:
            # The peer may be down: try again when it answers a heartbeat, but not in a hurry.
            progress.retry_ms = self.core.now_ms + self.core.config.election_timeout_ms
        else:
            assert position <= self.core.log.last_position, (position, self.core.log.last_position)
            progress.probe(max(progress.accepted_position, position) + 1)
            self._send_accept(progress)

    def peer_lost(self, peer: NodeId) -> None:
        """Whatever was in flight to the peer is gone: let the next heartbeat find out where it stands."""
        progress = self._peer_by_id.get(peer)
        if progress is not None and progress.flow is Flow.REPLICATE:
            progress.probe(progress.accepted_position + 1)

    def _advance_commit(self) -> None:
        """A slot is chosen when a phase 2 quorum has accepted it under this ballot; all before it must be, too.

        Every slot after the commit position was proposed under this ballot, so there is no
        entry here that must not be counted (as those of earlier terms in Raft).
        """
        core = self.core
        former_position = core.commit_position
        chosen_position = core.quorum.phase_2.greatest_held(self._accepted_positions)
        for progress in self._peers:
            if progress.ahead:
                chosen_position = self._chosen_position(max(chosen_position, former_position))
                break
        if chosen_position <= former_position or not core.commit(chosen_position):
            return
        for entry in core.log.between(max(former_position, self.opening_position) + 1, core.commit_position):
            self.uncommitted_bytes -= len(entry.payload)
        self._begin_wanted_round()
        for progress in self._peers:
            self._tell_commit(progress)
        if core.commit_position >= self._change_position:
            self._configuration_chosen()
        if self._draining_for is not None:
            self._append_drained()

    def _chosen_position(self, position: int) -> int:
        """From `position` on, slot by slot: where slots are accepted out of order, each has acceptors of its own."""
        core = self.core
        own_position = core.accepted_position()
        while True:
            holders = [progress.peer for progress in self._peers if progress.holds(position + 1)]
            if position < own_position:
                holders.append(core.node_id)
            if not core.quorum.phase_2.is_quorum(holders):
                return position
            position += 1

    # --- members -------------------------------------------------------------------------

    def change(self, goal: Configuration) -> Refusal | None:
        """One step towards `goal` (`ChangeMembers`), or why not; neither where the goal is the latest already.

        A goal without voters, one that is joint, and one in which somebody who votes has
        another incarnation are unsupported: the last must stop voting in between.  So is any
        under flexible quorums, whose sizes are those of one set of voters.
        """
        core = self.core
        latest = core.configuration
        if not self.is_ready():
            return Refusal.NOT_LEADER
        if isinstance(core.quorum, Flexible) or not is_possible(latest, goal):
            return Refusal.UNSUPPORTED
        if goal.version < latest.version or (goal.version == latest.version and not core.is_changing()):
            return None if goal == latest else Refusal.OUTDATED
        if core.is_changing() or self._draining_for is not None:
            return Refusal.CHANGE_UNDER_WAY
        if self.transfer is not None:
            return Refusal.TRANSFERRING
        interim = with_learners(latest, goal)
        if interim is None:
            if not all(self._has_caught_up(node) for node in goal.voters if node not in latest.voters):
                return Refusal.NOT_CAUGHT_UP
            interim = towards(latest, goal)
        self._drain_for(interim)
        return None

    def _has_caught_up(self, node: NodeId) -> bool:
        """It was heard from, and holds durably all that was chosen at the last heartbeat.

        So what it still lacks is what a heartbeat interval or two have brought, under
        whatever load: it takes not much longer than that until it holds everything.
        """
        core = self.core
        if node == core.node_id:
            # Out of the voters, it leads until somebody takes over.  Its log is not that of another incarnation.
            return core.configuration.learners.get(node) == core.config.incarnation
        progress = self._peer_by_id[node]
        heard = core.now_ms - self._heard_ms[node] < core.timing.election_timeout_ms
        return heard and progress.accepted_position >= max(self._heartbeat_commit, 1)

    def _drain_for(self, configuration: Configuration) -> None:
        """Propose nothing more until all that was proposed is chosen; then the configuration; then go on."""
        self._draining_for = configuration
        self._append_drained()

    def _append_drained(self) -> None:
        configuration, core = self._draining_for, self.core
        if configuration is None or core.commit_position < core.log.last_position:
            return
        self._draining_for = None
        self._append_configuration(configuration)
        held, self._held = self._held, []
        for payload in held:
            self._append(payload)

    def _append_configuration(self, configuration: Configuration) -> None:
        """It counts from here on, for this server too."""
        core = self.core
        former, members = core.configuration, {core.node_id, *configuration.members}
        position = core.log.last_position + 1
        entry = Entry(position, core.promised, configuration.encode())
        self.uncommitted_bytes += len(entry.payload)
        accepted = core.accept(entry)
        assert accepted, entry
        self._change_position = position
        for peer in list(self._peer_by_id):
            # With another incarnation it is another peer, that holds nothing yet.
            if peer not in members or incarnation_of(former, peer) != incarnation_of(configuration, peer):
                for by_node in (self._peer_by_id, self._accepted_positions, self._answered_rounds, self._heard_ms):
                    del by_node[peer]
        added = [peer for peer in core.peers if peer not in self._peer_by_id]
        for peer in added:
            self._add_peer(peer, position)
        self._peers = [self._peer_by_id[peer] for peer in core.peers]
        for progress in self._peers:
            if progress.peer in added:
                self._send_accept(progress)
            else:
                self._send_entries(progress)

    def _add_peer(self, peer: NodeId, next_position: int) -> None:
        """It has an election timeout's time to be heard from."""
        core = self.core
        self._peer_by_id[peer] = Progress(peer, next_position, core.config.max_bytes_in_flight)
        self._accepted_positions[peer] = 0
        self._answered_rounds[peer] = 0
        self._heard_ms[peer] = core.now_ms

    def _configuration_chosen(self) -> None:
        """The latest configuration is: the final one follows a joint one; a leader outside of it has done its work."""
        core = self.core
        self._change_position = _NEVER
        if core.configuration.is_joint:
            self._drain_for(after_joint(core.configuration))
        elif not core.is_voter:
            target = self._furthest_voter()
            assert target is not None
            self._begin_transfer(target)

    # --- handing over --------------------------------------------------------------------

    def transfer_to(self, target: NodeId | None, avoid: Collection[NodeId] = ()) -> Refusal | None:
        """Hand the leadership over, or say why not.  None stands for whoever is furthest.

        Where an earlier target is among those to `avoid`, and stands nevertheless, two servers stand at once:
        as when a second leader is elected before the first has heard of it, the higher ballot wins.
        """
        core = self.core
        if not self.is_ready():
            return Refusal.NOT_LEADER
        if self._draining_for is not None:
            return Refusal.CHANGE_UNDER_WAY
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
            return core.now_ms - heard_ms < core.timing.election_timeout_ms, self._accepted_positions[node], heard_ms

        others = [node for node in core.configuration.voters if node != core.node_id and node not in avoid]
        return max(others, key=rank, default=None)

    def _begin_transfer(self, target: NodeId) -> None:
        self.transfer = Transfer(target, self.core.now_ms + self.core.timing.election_timeout_ms)
        self._hand_over()

    def _hand_over(self) -> None:
        """Let the target stand once it holds all that was proposed, so that nothing has to be sent to it.

        Said once more at each heartbeat, should it get lost.
        """
        assert self.transfer is not None
        target = self.transfer.target
        if self._accepted_positions.get(target) == self.core.log.last_position:
            self.core.send(target, TimeoutNow(self.core.promised))
