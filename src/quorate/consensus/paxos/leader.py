"""A leader: the proposer of every slot from its opening on, and the learner that counts who accepted."""

from __future__ import annotations

from collections.abc import Sequence

from quorate.consensus.membership import Configuration
from quorate.consensus.paxos.candidate import Heard
from quorate.consensus.paxos.core import Core
from quorate.consensus.paxos.messages import Accept, Accepted, BarrierAnswer, Chosen, Missing, TimeoutNow
from quorate.consensus.paxos.progress import SlotProgress
from quorate.consensus.progress import Flow
from quorate.consensus.records import Entry
from quorate.consensus.replica import NodeId, Refusal
from quorate.consensus.stable_leader import StableLeader
from quorate.quorums import Flexible


class Leader(StableLeader[Core, SlotProgress]):
    """Leads under the promised ballot from the moment that it is built.

    What phase 1 found is proposed again at once, and behind it the opening entry.
    """

    def __init__(self, core: Core, found: Sequence[Entry], commit_position: int, heard: dict[NodeId, Heard]) -> None:
        """`found`: a value for every open slot; `heard`: what each acceptor that promised is known to hold."""
        assert core.promise_is_durable()
        for entry in found:
            accepted = core.accept(entry)
            assert accepted, entry
        core.commit(commit_position)
        super().__init__(core)
        if not core.is_voter:
            self._change_position = self.opening_position
        self._draining_for: Configuration | None = None
        """What is to be proposed once all before it is chosen."""
        self._held: list[bytes] = []
        """Proposals that wait until then."""
        for peer in core.peers:
            known = heard.get(peer)
            next_position = self.opening_position if known is None else known.commit_position + 1
            self._progress_by_id[peer] = self._new_progress(peer, min(next_position, self.opening_position))
        # The first of this leadership: what follows it names it, directly or not, as its predecessor.
        self._append(b"")
        self._begin_round()
        for progress in self._progress_by_id.values():
            self._send_next(progress)

    def _new_progress(self, peer: NodeId, next_position: int) -> SlotProgress:
        return SlotProgress(peer, next_position, self.core.config.max_bytes_in_flight)

    # --- entries and heartbeats out ------------------------------------------------------

    def _append(self, payload: bytes) -> None:
        """In the next slot; but not while a configuration waits for those before it."""
        if self._draining_for is not None:
            self._held.append(payload)
            return
        core = self.core
        entry = Entry(core.log.last_position + 1, core.promised, payload)
        accepted = core.accept(entry)
        assert accepted, entry

    def _send_next(self, progress: SlotProgress) -> None:
        """Send the entries from `next_position` on, or none; where they are gone, ask for a snapshot."""
        core = self.core
        if progress.next_position <= core.log.base_position:
            self._ask_snapshot(progress)
            return
        max_bytes = min(core.config.max_message_bytes, progress.window_bytes)
        first, last = progress.next_run(core.log.last_position)
        entries, size = core.log.read(first, last, max_bytes)
        if entries:
            last = entries[-1].position
            progress.sent(first, last, size)
            if last > progress.sent_position:
                progress.sent_position = last
        elif first > progress.next_position and progress.flow is Flow.REPLICATE:
            progress.next_position = first  # it holds all the rest
            return
        self._send(progress, entries)

    def _send(self, progress: SlotProgress, entries: tuple[Entry, ...]) -> None:
        core = self.core
        progress.commit_told = min(core.commit_position, progress.match_position)
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

    def _send_heartbeats(self) -> None:
        """Without entries: they also find out whether anything that was sent got lost on the way.

        To a peer that is probed or gets a snapshot too: it must go on hearing its leader, and be heard.
        """
        for progress in self._progress_by_id.values():
            self._send(progress, ())

    def _tell_commit(self, progress: SlotProgress) -> None:
        """Let the peer commit without waiting for the next entry or heartbeat: clients wait for it there."""
        reach = min(self.core.commit_position, progress.match_position)
        if reach > progress.commit_told:
            progress.commit_told = reach
            self.core.send(progress.peer, Chosen(self.core.promised, reach))

    def _answer_barrier(self, node: NodeId, asker: int, barrier_id: int, position: int) -> None:
        self.core.send(node, BarrierAnswer(self.core.promised, asker, barrier_id, position))

    def _tell_to_stand(self, target: NodeId) -> None:
        self.core.send(target, TimeoutNow(self.core.promised))

    # --- answers in ----------------------------------------------------------------------

    def receive_accepted(self, sender: NodeId, message: Accepted) -> None:
        core = self.core
        progress = self._progress_by_id.get(sender)
        if progress is None:
            return  # no member any more
        if message.last_position > core.log.last_position or message.round > self.rounds.current:
            return
        self._hear(sender, message.round)
        news = progress.accepted(message.first_position, message.last_position, message.round, core.log.last_position)
        self._acknowledged(progress, message.last_position, news)

    def receive_missing(self, sender: NodeId, message: Missing) -> None:
        """Send again from where the peer says that something is missing."""
        core = self.core
        progress = self._progress_by_id.get(sender)
        if progress is None or message.round > self.rounds.current or message.first_position > core.log.last_position:
            return
        self._hear(sender, message.round)
        first_position = message.first_position
        if progress.flow is Flow.SNAPSHOT or message.round < progress.match_round:
            return
        if progress.flow is Flow.PROBE and first_position >= progress.next_position and not progress.probe_due:
            return  # an answer to an earlier probe, or this one got lost: no faster than heartbeats
        # It may have acknowledged this: what was chosen before this leadership it forgets to know as
        # chosen when it restarts.  It is not counted until it has accepted it from this leader.
        progress.missing(first_position)
        self._match_positions[sender] = progress.match_position
        self._send_next(progress)

    def _advance_commit(self) -> None:
        """A slot is chosen when a phase 2 quorum has accepted it under this ballot; all before it must be, too.

        Every slot after the commit position was proposed under this ballot, so there is no
        entry here that must not be counted (as those of earlier terms in Raft).
        """
        core = self.core
        former_position = core.commit_position
        chosen_position = core.quorum.phase_2.greatest_held(self._match_positions)
        for progress in self._progress_by_id.values():
            if progress.ahead:
                chosen_position = self._chosen_position(max(chosen_position, former_position))
                break
        if chosen_position <= former_position:
            return
        self._commit(chosen_position)
        if self._draining_for is not None:
            self._append_drained()

    def _chosen_position(self, position: int) -> int:
        """From `position` on, slot by slot: where slots are accepted out of order, each has acceptors of its own."""
        core = self.core
        own_position = core.accepted_position()
        while True:
            holders = [progress.peer for progress in self._progress_by_id.values() if progress.holds(position + 1)]
            if position < own_position:
                holders.append(core.node_id)
            if not core.quorum.phase_2.is_quorum(holders):
                return position
            position += 1

    # --- members -------------------------------------------------------------------------

    def change(self, goal: Configuration) -> Refusal | None:
        """Unsupported under flexible quorums too: their sizes are those of one set of voters."""
        if self.is_ready() and isinstance(self.core.quorum, Flexible):
            return Refusal.UNSUPPORTED
        return super().change(goal)

    def _is_draining(self) -> bool:
        return self._draining_for is not None

    def _introduce(self, configuration: Configuration) -> None:
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
            self._propose(payload)
