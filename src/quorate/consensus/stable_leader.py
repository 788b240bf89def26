"""A leader, whatever its protocol: heartbeats and barriers, what peers hold, members, handing over.

Each protocol has a leader that extends this one by how entries are sent, which answers come
back, and which position a quorum of them commits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from quorate.consensus.barriers import Barrier, Rounds
from quorate.consensus.configurations import after_joint, incarnation_of, is_possible, towards, with_learners
from quorate.consensus.core import ServerCore
from quorate.consensus.membership import Configuration
from quorate.consensus.progress import Flow, Progress
from quorate.consensus.replica import BarrierPassed, NodeId, Refusal, SendSnapshot

CoreT = TypeVar("CoreT", bound=ServerCore)
ProgressT = TypeVar("ProgressT", bound=Progress)

_NEVER: Final = 1 << 63
"""After every position."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """The leadership is being handed to `target`, until `deadline_ms`."""

    target: NodeId
    deadline_ms: int


class StableLeader(Generic[CoreT, ProgressT]):
    """Leads one generation from the moment that it is built.  `_open` sends its opening entry."""

    def __init__(self, core: CoreT) -> None:
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
        self._match_positions: dict[NodeId, int] = {core.node_id: core.accepted_position()}
        self._answered_rounds: dict[NodeId, int] = {core.node_id: 0}
        self._heard_ms: dict[NodeId, int] = {core.node_id: core.now_ms}
        self._progress_by_id: dict[NodeId, ProgressT] = {}
        """Of the peers that entries are sent to."""
        for peer in core.peers:
            self._add_peer(peer)

    def is_ready(self) -> bool:
        """Everything that earlier leaderships committed has been handed out to be applied."""
        return self.core.handed_position >= self.opening_position

    def peer_positions(self) -> dict[NodeId, int]:
        return {peer: self._match_positions[peer] for peer in self.core.peers}

    def resign(self) -> None:
        """The leadership ends: what still waits for it fails."""
        for barrier in self.rounds.fail_all():
            if barrier.asker is None:
                self.core.effects.barriers_failed.append(barrier.barrier_id)
            else:
                self._answer_barrier(barrier.node, barrier.asker, barrier.barrier_id, -1)

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

    def receive_barrier_request(self, sender: NodeId, asker: int, barrier_id: int) -> None:
        """A follower's barrier; of members only."""
        if sender in self.core.peers:
            self.barrier(Barrier(barrier_id, sender, asker))

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
        """A phase 2 quorum meets every phase 1 quorum: who answered a round had elected nobody else when it began."""
        core, rounds = self.core, self.rounds
        former_ms = rounds.contact_ms
        passed = rounds.confirm(core.quorum.phase_2.greatest_held(self._answered_rounds))
        if rounds.contact_ms is not None and rounds.contact_ms != former_ms:
            core.timing.measured(core.now_ms - rounds.contact_ms)
        for barrier, position in passed:
            if barrier.asker is None:
                core.effects.barriers_passed.append(BarrierPassed(barrier.barrier_id, position))
            else:
                self._answer_barrier(barrier.node, barrier.asker, barrier.barrier_id, position)

    def _hear(self, sender: NodeId, answered_round: int) -> None:
        """Whoever answers in this generation has promised itself to no later one."""
        self._heard_ms[sender] = self.core.now_ms
        if answered_round > self._answered_rounds[sender]:
            self._answered_rounds[sender] = answered_round
            self._confirm_rounds()
            self._begin_wanted_round()

    @abstractmethod
    def _answer_barrier(self, node: NodeId, asker: int, barrier_id: int, position: int) -> None:
        """Tell a follower about its barrier; position -1 says that it failed."""

    @abstractmethod
    def _send_heartbeats(self) -> None:
        """Messages without entries to all peers, that carry the newest round."""

    # --- entries out ---------------------------------------------------------------------

    def propose(self, payload: bytes) -> Refusal | None:
        """Append one batch and send it where nothing is in the way; or say why not."""
        if not self.is_ready():
            return Refusal.NOT_LEADER
        if self.transfer is not None:
            return Refusal.TRANSFERRING
        size = len(payload)
        if self.uncommitted_bytes and self.uncommitted_bytes + size > self.core.config.max_uncommitted_bytes:
            return Refusal.OVERLOADED
        self.uncommitted_bytes += size
        self._propose(payload)
        return None

    def _propose(self, payload: bytes) -> None:
        self._append(payload)
        for progress in self._progress_by_id.values():
            self._send_entries(progress)

    @abstractmethod
    def _append(self, payload: bytes) -> None:
        """An entry of this leadership at the end of the log."""

    def _send_entries(self, progress: ProgressT) -> None:
        """Send what the peer lacks, as far as its window lets it."""
        last_position = self.core.log.last_position
        while progress.flow is Flow.REPLICATE and progress.next_position <= last_position and progress.has_room():
            self._send_next(progress)

    @abstractmethod
    def _send_next(self, progress: ProgressT) -> None:
        """Send the entries from `next_position` on, or none; where they are gone, ask for a snapshot."""

    def _ask_snapshot(self, progress: ProgressT) -> None:
        progress.await_snapshot()
        self.core.effects.snapshots.append(SendSnapshot(progress.peer, self.core.generation))

    @abstractmethod
    def _tell_commit(self, progress: ProgressT) -> None:
        """Let the peer commit without waiting for the next entry or heartbeat: clients wait for it there."""

    # --- answers in ----------------------------------------------------------------------

    def _acknowledged(self, progress: ProgressT, position: int, news: bool) -> None:
        """The peer vouches for everything through `position`; `progress` knows, for which it was `news` or not."""
        core, peer = self.core, progress.peer
        if progress.flow is Flow.SNAPSHOT:
            if progress.match_position >= core.log.base_position:
                progress.resume()
            elif progress.retry_ms is not None and progress.retry_ms <= core.now_ms:
                self._ask_snapshot(progress)
        if news:
            self._match_positions[peer] = progress.match_position
            self._advance_commit()
            if self._progress_by_id.get(peer) is not progress:
                return  # what it acknowledged was that it is no member any more
        if progress.flow is Flow.PROBE and progress.probe_due and position == progress.next_position - 1:
            progress.agreed()
            self._send_next(progress)
        if progress.next_position <= core.log.last_position:
            self._send_entries(progress)
        if progress.commit_told < core.commit_position:
            self._tell_commit(progress)
        if news and self.transfer is not None and self.transfer.target == peer:
            self._hand_over()

    def persisted(self) -> None:
        """The own log counts as far as it is durable."""
        core = self.core
        self._match_positions[core.node_id] = core.accepted_position()
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

    @abstractmethod
    def _advance_commit(self) -> None:
        """Commit (`_commit`) what enough servers hold."""

    def _commit(self, position: int) -> None:
        """Everything through `position` is held by a quorum, in a way that no later leader can miss."""
        core = self.core
        former_position = core.commit_position
        if not core.commit(position):
            return
        for entry in core.log.between(max(former_position, self.opening_position) + 1, core.commit_position):
            self.uncommitted_bytes -= len(entry.payload)
        self._begin_wanted_round()
        for progress in self._progress_by_id.values():
            self._tell_commit(progress)
        if core.commit_position >= self._change_position:
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
        if core.is_changing() or self._is_draining():
            return Refusal.CHANGE_UNDER_WAY
        if self.transfer is not None:
            return Refusal.TRANSFERRING
        interim = with_learners(latest, goal)
        if interim is None:
            if not all(self._has_caught_up(node) for node in goal.voters if node not in latest.voters):
                return Refusal.NOT_CAUGHT_UP
            interim = towards(latest, goal)
        self._introduce(interim)
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

    def _is_draining(self) -> bool:
        """Whether a configuration waits for what was proposed before it."""
        return False

    def _introduce(self, configuration: Configuration) -> None:
        """Append it, at once or as soon as the protocol lets it."""
        self._append_configuration(configuration)

    def _append_configuration(self, configuration: Configuration) -> None:
        """It counts from here on, for this server too."""
        core = self.core
        former, members = core.configuration, {core.node_id, *configuration.members}
        payload = configuration.encode()
        self.uncommitted_bytes += len(payload)
        self._append(payload)
        self._change_position = core.log.last_position
        for peer in [peer for peer in self._match_positions if peer != core.node_id]:
            # With another incarnation it is another peer, that holds nothing yet.
            if peer not in members or incarnation_of(former, peer) != incarnation_of(configuration, peer):
                self._progress_by_id.pop(peer, None)
                for by_node in (self._match_positions, self._answered_rounds, self._heard_ms):
                    del by_node[peer]
        added = [peer for peer in core.peers if peer not in self._match_positions]
        for peer in added:
            self._add_peer(peer)
        self._send_to_members(added)

    def _add_peer(self, peer: NodeId) -> None:
        """Nothing is known of it.  It has an election timeout's time to be heard from."""
        self._match_positions[peer] = 0
        self._answered_rounds[peer] = 0
        self._heard_ms[peer] = self.core.now_ms

    @abstractmethod
    def _new_progress(self, peer: NodeId, next_position: int) -> ProgressT: ...

    def _send_to_members(self, added: Collection[NodeId]) -> None:
        """The newest entry, to old members and new ones, of whose logs nothing is known."""
        for peer in added:
            self._progress_by_id[peer] = self._new_progress(peer, self.core.log.last_position)
        self._progress_by_id = {peer: self._progress_by_id[peer] for peer in self.core.peers}
        for peer, progress in self._progress_by_id.items():
            if peer in added:
                self._send_next(progress)
            else:
                self._send_entries(progress)

    def _configuration_committed(self) -> None:
        """The latest configuration is: the final one follows a joint one; a leader outside of it has done its work."""
        core = self.core
        self._change_position = _NEVER
        if core.configuration.is_joint:
            self._introduce(after_joint(core.configuration))
        elif not core.is_voter:
            target = self._furthest_voter()
            assert target is not None
            self._begin_transfer(target)

    # --- handing over --------------------------------------------------------------------

    def transfer_to(self, target: NodeId | None, avoid: Collection[NodeId] = ()) -> Refusal | None:
        """Hand the leadership over (Raft thesis, section 3.10), or say why not.  None stands for whoever is furthest.

        Where an earlier target is among those to `avoid`, and stands nevertheless, two servers stand at once:
        as when a second leader is elected before the first has heard of it, at most one can win.
        """
        core = self.core
        if not self.is_ready():
            return Refusal.NOT_LEADER
        if self._is_draining():
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
            return core.now_ms - heard_ms < core.timing.election_timeout_ms, self._match_positions[node], heard_ms

        others = [node for node in core.configuration.voters if node != core.node_id and node not in avoid]
        return max(others, key=rank, default=None)

    def _begin_transfer(self, target: NodeId) -> None:
        self.transfer = Transfer(target, self.core.now_ms + self.core.timing.election_timeout_ms)
        self._hand_over()

    def _hand_over(self) -> None:
        """Let the target stand once it holds the whole log: nobody would elect it before.

        Said once more at each heartbeat, should it get lost.
        """
        assert self.transfer is not None
        target = self.transfer.target
        if self._match_positions.get(target) == self.core.log.last_position:
            self._tell_to_stand(target)

    @abstractmethod
    def _tell_to_stand(self, target: NodeId) -> None: ...
