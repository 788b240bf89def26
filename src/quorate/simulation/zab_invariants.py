"""What ZAB owes beyond the invariants of every protocol, after the paper's sections 3 and 5.

The properties of the paper (section 3); total order and agreement are the group's "state machine safety":

    integrity               what is delivered was proposed by the leader of its epoch
    local primary order     a leader proposes position by position, from its opening entry on, and so it is delivered
    global primary order    along what is delivered epochs never fall
    primary integrity       a leader proposes nothing of its clients' before it has delivered all that earlier epochs
                            delivered anywhere (with the group's "ready leader")

And how the protocol brings them about (section 5), seen in the step that breaks it:

    epochs never go back    neither the accepted nor the current one, and an accepted epoch stays promised to one
                            leader (through crashes: the group's "durability" sees to those)
    promise                 a server acknowledges nothing in an epoch before the one that it accepted
    discovery               who leads an epoch was promised it by a quorum, none of which has a better history
    initial history         the current epoch is saved behind all of the history that it vouches for
    commit after sync       a leader takes nothing for committed that it had not heard of before unless its opening
                            entry is on a quorum; and then no server without the last of it could be elected
    durable before spoken   no epoch, history or acknowledgement leaves a server that could still forget it
    durable quorum          what a leader tells others to commit is durable on a quorum, whoever delivers it first
    read barrier            see `leader_reads`
    hand-over               whoever is told to take over holds the leader's whole history, durably
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from quorate.consensus.membership import is_configuration
from quorate.consensus.records import Entry, Record, SaveEntry, SaveState
from quorate.consensus.replica import Effects, Event, NodeId, Role, Send, Status
from quorate.consensus.replica import Propose as Asked
from quorate.consensus.zab.hard_state import HardState, decode_hard_state
from quorate.consensus.zab.messages import (
    Ack,
    AckEpoch,
    AckLeader,
    Commit,
    Diff,
    HandOver,
    OutOfSync,
    Ping,
    Propose,
    Truncate,
    UpToDate,
    ZabMessage,
)
from quorate.simulation.durable_records import DurableRecords
from quorate.simulation.invariants import GroupInvariants, Life, NodeView, brief
from quorate.simulation.leader_reads import LeaderReads
from quorate.simulation.violation import Violation

EXERCISED = ("discoveries", "DIFF", "TRUNC", "SNAP", "UPTODATE", "histories accepted", "hand-overs")
"""What is counted of a run.  In capitals: messages that were sent; a SNAP is one that was asked for."""

History: TypeAlias = tuple[int, int, int]
"""What elections compare: (current epoch, generation, position)."""


@dataclass(slots=True)
class _Reign:
    """A leadership: how it began, and what it has come to."""

    opening: Entry
    commit_position: int
    """What it is known to take for committed."""
    proposed_position: int
    reads: LeaderReads


class ZabInvariants:
    """Watches a group whose every step `group` has been shown before."""

    def __init__(self, group: GroupInvariants) -> None:
        self.counts = dict.fromkeys(EXERCISED, 0)
        self._group = group
        self._committed_position = 0
        """Checked so far."""
        self._states: dict[bytes | None, HardState] = {}
        self._saved: dict[NodeId, tuple[NodeView, HardState]] = {}
        """The state that each server saved last, in this life of it."""
        self._promised: dict[tuple[int, Life], NodeId | None] = {}
        """(epoch, server) to the leader that it promised the epoch, over all restarts."""
        self._claimed: dict[tuple[int, NodeId], History] = {}
        """(epoch, server) to the history of its latest ACK-E."""
        self._reigns: dict[NodeId, _Reign] = {}
        """The last of each server."""
        self._proposed: dict[tuple[int, int], Entry] = {}
        """(position, epoch) to what the leader of the epoch proposed there."""

    def stepped(self, node: NodeId, event: Event, effects: Effects, status: Callable[[], Status]) -> None:
        """What a step sends at once must be durable by now; what it holds back is its node's to hold back."""
        view = self._group.views[node]
        # The view's log is behind this step already, its durable part is not.
        if effects.records:
            self._check_records(view, effects.records)
        leadership = effects.leadership
        if leadership is not None and leadership.role is Role.LEADER:
            self._begin_reign(view, leadership.generation, status().commit_position)
        if view.leadership.role is Role.LEADER:
            self._lead(view, event, effects)
            self._reigns[node].reads.stepped(view, event, effects, status)
        self.counts["SNAP"] += len(effects.snapshots)
        accepted_epoch = self.state(view.durable.state).accepted_epoch
        for send in effects.messages:
            message = send.message
            self._check_said(view, send)
            if (type(message) is Propose or type(message) is Ping) and message.epoch <= accepted_epoch:
                continue  # the most frequent ones, and they say nothing but their epoch
            self.check_spoken(node, send, view.durable, vouched_by(view.written, message))
        for send in effects.messages_after_persist:
            self._check_said(view, send)
        if len(self._group.committed) != self._committed_position:
            self._check_delivered()

    def state(self, data: bytes | None) -> HardState:
        known = self._states.get(data)
        if known is None:
            known = self._states[data] = decode_hard_state(data)
        return known

    def _history_of(self, records: DurableRecords) -> History:
        generation = records.generation_at(records.end_position)
        assert generation is not None, "ZAB's logs have no holes"
        return max(self.state(records.state).current_epoch, generation), generation, records.end_position

    # --- epochs and entries --------------------------------------------------------------

    def _check_records(self, view: NodeView, records: Sequence[Record]) -> None:
        for index, record in enumerate(records):
            if isinstance(record, SaveEntry):
                entry = record.entry
                before = view.written.generation_at(entry.position - 1)
                if before is not None and (entry.generation < before or (entry.generation > before and entry.payload)):
                    raise Violation(
                        "global primary order", f"server {view.node} writes {brief(entry)} behind epoch {before}"
                    )
            elif isinstance(record, SaveState):
                self._check_state(view, self.state(record.data), records[index + 1 :])

    def _check_state(self, view: NodeView, state: HardState, behind: Sequence[Record]) -> None:
        node, former = view.node, self._saved_state(view)
        same_promise = former.promised_to is None or state.promised_to == former.promised_to
        if (
            state.accepted_epoch < former.accepted_epoch
            or state.current_epoch < former.current_epoch
            or (state.accepted_epoch == former.accepted_epoch and not same_promise)
        ):
            raise Violation("epochs never go back", f"server {node} saves {state} after {former}")
        self._saved[node] = (view, state)
        self._promised[state.accepted_epoch, (node, view.incarnation)] = state.promised_to
        if state.promised_to == node and state.accepted_epoch > former.accepted_epoch:
            self.counts["discoveries"] += 1
            self._claimed[state.accepted_epoch, node] = self._history_of(view.written)
        if state.current_epoch > former.current_epoch:
            self.counts["histories accepted"] += 1
            later = [record for record in behind if isinstance(record, SaveEntry)]
            if view.written.generation_at(view.written.end_position) != state.current_epoch or later:
                raise Violation("initial history", f"server {node} saves {state} before its history {later}")

    def _saved_state(self, view: NodeView) -> HardState:
        life, saved = self._saved.get(view.node, (None, None))
        return saved if life is view and saved is not None else self.state(view.durable.state)

    # --- what is said --------------------------------------------------------------------

    def _check_said(self, view: NodeView, send: Send) -> None:
        """A message is made: now it leaves, or as soon as what is under way is durable."""
        node, message, kind = view.node, send.message, type(send.message)
        if kind is Ack or kind is AckLeader or kind is OutOfSync or kind is AckEpoch:
            assert isinstance(message, ZabMessage)
            state = self._saved_state(view)
            if message.epoch != state.accepted_epoch:
                raise Violation("promise", f"server {node}, which accepted {state}, says {message}")
            if kind is AckEpoch:
                self._claimed[message.epoch, node] = self._history_of(view.written)
        elif kind is Diff:
            self.counts["DIFF"] += 1
        elif kind is Truncate:
            self.counts["TRUNC"] += 1
        elif kind is UpToDate:
            self.counts["UPTODATE"] += 1
        elif kind is HandOver:
            self._check_hand_over(view, send.to)

    def _check_hand_over(self, view: NodeView, to: NodeId) -> None:
        self.counts["hand-overs"] += 1
        last, incarnation = view.written, view.configuration.voters.get(to)
        # The folder that voted: it may be lost by now, of which the leader cannot know.
        target = None if incarnation is None else self._group.lives.get((to, incarnation))
        held = target is not None and (
            target.durable.generation_at(last.end_position) == last.generation_at(last.end_position)
            or target.durable.compacted.position >= last.end_position
        )
        if not held:
            raise Violation(
                "hand-over", f"server {view.node} hands over to {to}, of {view.configuration}, without its last entry"
            )

    def check_spoken(self, node: NodeId, send: Send, durable: DurableRecords, vouched: Entry | None) -> None:
        """A message leaves the server while `durable` is durable there.

        `vouched` is the entry at the position that it acknowledges, None where a snapshot stands for that.
        """
        message = send.message
        assert isinstance(message, ZabMessage), message
        state = self.state(durable.state)
        how = None
        if message.epoch > state.accepted_epoch:
            how = f"with durable {state}"
        elif isinstance(message, AckEpoch) and message.epoch == state.accepted_epoch:
            claimed, own = (message.current_epoch, message.generation, message.position), self._history_of(durable)
            if claimed[1:] != own[1:] or message.current_epoch > own[0]:
                how = f"with durable history {own}"
        elif isinstance(message, Ack) and message.position > durable.compacted.position:
            entry = durable.entries.get(message.position)
            if state.accepted_epoch == message.epoch and (entry is None or entry != (vouched or entry)):
                how = f"with durable {None if entry is None else brief(entry)}"
        if isinstance(message, AckLeader) and self._history_of(durable)[0] < message.epoch:
            how = f"with durable {state}"
        if how is not None:
            raise Violation("durable before spoken", f"server {node} says {message} to {send.to} {how}")

    # --- leading -------------------------------------------------------------------------

    def _begin_reign(self, view: NodeView, epoch: int, commit_position: int) -> None:
        node = view.node
        former = self._reigns.get(node)
        if former is not None and former.opening.generation == epoch:
            return  # it is ready now
        opening = view.written.entries[view.written.end_position]
        if opening.generation != epoch or opening.payload:
            raise Violation(
                "local primary order", f"server {node} leads {epoch}, its history ends with {brief(opening)}"
            )
        self._proposed[opening.position, epoch] = opening
        self._reigns[node] = _Reign(opening, commit_position, opening.position, LeaderReads(epoch, opening.position))
        own = self._claimed.get((epoch, node))
        promised = [voter for voter in view.electors if self._promised.get((epoch, voter)) == node]
        claims = {voter: self._claimed.get((epoch, voter)) for voter, _ in promised}
        worse = [voter for voter, claim in claims.items() if own is not None and claim is not None and claim <= own]
        if not view.quorum.is_quorum(worse):
            raise Violation(
                "discovery", f"server {node} leads {epoch} with history {own}, promised by servers with {claims}"
            )

    def _lead(self, view: NodeView, event: Event, effects: Effects) -> None:
        reign = self._reigns[view.node]
        for record in effects.records:
            if isinstance(record, SaveEntry) and record.entry is not reign.opening:
                self._check_proposal(view, reign, record.entry, type(event) is Asked)
        if effects.committed:
            self._check_committed(view, reign, effects.committed[-1].position)
        for send in effects.messages:
            message = send.message
            if (
                type(message) is Propose
                or type(message) is Ping
                or type(message) is Commit
                or type(message) is UpToDate
            ):
                if message.commit_position > reign.commit_position:
                    self._check_committed(view, reign, message.commit_position)
                if message.commit_position > len(self._group.committed):
                    self._group.learn_commit(view.node, message.commit_position)

    def _check_proposal(self, view: NodeView, reign: _Reign, entry: Entry, is_asked: bool) -> None:
        node, epoch = view.node, reign.opening.generation
        if entry.generation != epoch or entry.position != reign.proposed_position + 1:
            raise Violation(
                "local primary order",
                f"server {node}, leading {epoch}, proposes {brief(entry)} after {reign.proposed_position}",
            )
        is_delivered = view.leadership.ready and view.handed_position >= reign.opening.position
        if (is_asked or not is_configuration(entry.payload)) and not is_delivered:
            raise Violation(
                "primary integrity",
                f"server {node}, leading {epoch} from {reign.opening.position} on, proposes {brief(entry)}, and has "
                f"delivered {view.handed_position}",
            )
        reign.proposed_position = entry.position
        self._proposed[entry.position, epoch] = entry

    def _check_committed(self, view: NodeView, reign: _Reign, commit_position: int) -> None:
        if commit_position <= reign.commit_position:
            return
        opening = reign.opening
        holders = self._group.holders(opening, view.electors)
        # What it delivers may still end before the opening: its own disk may be the slowest.
        if not view.quorum.is_quorum(holders):
            raise Violation(
                "commit after sync",
                f"server {view.node} takes {commit_position} for committed, but its opening {brief(opening)} is "
                f"durable on {holders} only",
            )
        reign.commit_position = commit_position

    def _check_delivered(self) -> None:
        committed = self._group.committed
        before = committed[self._committed_position - 1].generation if self._committed_position else 0
        for entry in committed[self._committed_position :]:
            if self._proposed.get((entry.position, entry.generation)) != entry:
                raise Violation("integrity", f"{brief(entry)} is delivered, which its epoch's leader never proposed")
            if entry.generation < before:
                raise Violation("global primary order", f"{brief(entry)} is delivered after epoch {before}")
            before = entry.generation
        self._committed_position = len(committed)
        self._check_rivals(committed[-1])

    def _check_rivals(self, last: Entry) -> None:
        """No server without the last committed entry has a history that a quorum would accept."""
        views = self._group.views
        for rival in views.values():
            configuration = rival.configuration
            if rival.written.holds(last):
                continue
            claim = self._history_of(rival.written)
            voters = [
                node
                for node, view in views.items()
                if configuration.incarnation(node) == view.incarnation
                and (view is rival or claim >= self._history_of(view.durable))
            ]
            if configuration.quorum().is_quorum(voters):
                raise Violation(
                    "commit after sync",
                    f"{brief(last)} is taken for committed, but servers {voters} would elect {rival.node} without it",
                )


def vouched_by(written: DurableRecords, message: object) -> Entry | None:
    """What is at the position that a message acknowledges."""
    return written.entries.get(message.position) if isinstance(message, Ack) else None
