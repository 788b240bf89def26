"""What ZAB owes beyond the invariants of every protocol, after the paper's sections 3 and 5.

epochs never go back    neither the accepted nor the current one, and an accepted epoch stays promised to one
                        leader (through crashes: the group's "durability" sees to those)
durable before spoken   no epoch, history or acknowledgement leaves a server that could still forget it
promise                 a server acknowledges nothing in an epoch before the one that it accepted
discovery               who leads an epoch was promised it by a quorum, none of which has a better history
initial history         the current epoch is saved behind all of the history that it vouches for
commit after sync       a leader takes nothing for committed that it had not heard of before unless its opening
                        entry is on a quorum; and then no server without the last of it could be elected
primary order           along the history epochs never fall, and each begins with the opening entry of its
                        leader, whose history has all that was committed before it ("leader completeness")
transfer                whoever is told to take over holds the leader's whole history, durably
"""

from __future__ import annotations

from dataclasses import dataclass

from quorate.consensus.records import Entry, Record, SaveEntry, SaveState
from quorate.consensus.replica import Effects, Event, NodeId, Role, Send
from quorate.consensus.zab.hard_state import HardState, decode_hard_state
from quorate.consensus.zab.messages import Ack, AckEpoch, AckLeader, HandOver, OutOfSync, Truncate, ZabMessage
from quorate.simulation.durable_records import DurableRecords
from quorate.simulation.invariants import NodeView, brief
from quorate.simulation.violation import Violation
from tests.consensus.invariants import Invariants
from tests.consensus.lab import Lab, Server

History = tuple[int, int, int]
"""What elections compare: (current epoch, generation, position)."""


def history_of(records: DurableRecords) -> History:
    generation = records.generation_at(records.end_position)
    assert generation is not None, "ZAB's logs have no holes"
    return max(decode_hard_state(records.state).current_epoch, generation), generation, records.end_position


@dataclass(slots=True)
class Reign:
    """A leadership: how it began, and what it knows to be committed."""

    opening: Entry
    commit_position: int


class ZabInvariants:
    """Watches a lab whose `invariants` watch it already."""

    def __init__(self, lab: Lab, invariants: Invariants) -> None:
        self.group = invariants.group
        self.handovers = 0
        self.truncates = 0
        self.snapshots = 0
        self.synchronised = 0
        """How often an initial history was accepted as a whole."""
        self._promised: dict[tuple[int, NodeId], NodeId | None] = {}
        """(epoch, server) to the leader that it promised the epoch, over all restarts."""
        self._claimed: dict[tuple[int, NodeId], History] = {}
        """(epoch, server) to the history of its latest ACK-E."""
        self._vouched: dict[tuple[NodeId, Ack], Entry | None] = {}
        """What was at the position acknowledged when that was made; None where a snapshot was."""
        self._saved: dict[NodeId, tuple[NodeView, HardState]] = {}
        """The state that each server saved last, in this life of it."""
        self._reigns: dict[NodeId, Reign] = {}
        """The last of each server."""
        self._committed_position = 0
        lab.watchers.append(self._stepped)
        lab.send_watchers.append(self._spoken)

    def _stepped(self, server: Server, event: Event, effects: Effects) -> None:
        view = self.group.views[server.config.node_id]
        # The view's log is behind this step already, its durable part is not.
        self._check_states(view, effects.records)
        self._check_entries(view, effects.records)
        state = decode_hard_state(view.written.state)
        for send in (*effects.messages, *effects.messages_after_persist):
            self._check_said(server, view, state, send)
        commit_position = server.running().status().commit_position
        if effects.leadership is not None and effects.leadership.role is Role.LEADER:
            self._check_discovery(view, state.accepted_epoch, commit_position)
        if view.leadership.role is Role.LEADER:
            self._check_committed(view, commit_position)
        self.snapshots += effects.install is not None
        if len(self.group.committed) != self._committed_position:
            self._committed_position = len(self.group.committed)
            self._check_rivals(self.group.committed[-1])

    # --- epochs and entries --------------------------------------------------------------

    def _check_states(self, view: NodeView, records: list[Record]) -> None:
        node = view.node
        for index, record in enumerate(records):
            if not isinstance(record, SaveState):
                continue
            state, former = decode_hard_state(record.data), self._saved_state(view)
            same_promise = former.promised_to is None or state.promised_to == former.promised_to
            if (
                state.accepted_epoch < former.accepted_epoch
                or state.current_epoch < former.current_epoch
                or (state.accepted_epoch == former.accepted_epoch and not same_promise)
            ):
                raise Violation("epochs never go back", f"server {node} saves {state} after {former}")
            self._saved[node] = (view, state)
            self._promised[state.accepted_epoch, node] = state.promised_to
            if state.promised_to == node and state.accepted_epoch > former.accepted_epoch:
                self._claimed[state.accepted_epoch, node] = history_of(view.written)
            if state.current_epoch > former.current_epoch:
                self.synchronised += 1
                later = [record for record in records[index:] if isinstance(record, SaveEntry)]
                if view.written.generation_at(view.written.end_position) != state.current_epoch or later:
                    raise Violation("initial history", f"server {node} saves {state} before its history {later}")

    def _saved_state(self, view: NodeView) -> HardState:
        life, saved = self._saved.get(view.node, (None, None))
        return saved if life is view and saved is not None else decode_hard_state(view.durable.state)

    def _check_entries(self, view: NodeView, records: list[Record]) -> None:
        for record in records:
            if not isinstance(record, SaveEntry):
                continue
            entry = record.entry
            before = view.written.generation_at(entry.position - 1)
            if before is not None and (entry.generation < before or (entry.generation > before and entry.payload)):
                raise Violation("primary order", f"server {view.node} writes {brief(entry)} behind epoch {before}")

    # --- what is said --------------------------------------------------------------------

    def _check_said(self, server: Server, view: NodeView, state: HardState, send: Send) -> None:
        """A message is made: now it leaves, or as soon as what is under way is durable."""
        node, message = view.node, send.message
        if isinstance(message, Ack):
            self._vouched[node, message] = view.written.entries.get(message.position)
        if isinstance(message, Ack | OutOfSync | AckEpoch) and message.epoch != state.accepted_epoch:
            raise Violation("promise", f"server {node}, which accepted {state}, says {message}")
        if isinstance(message, AckEpoch):
            self._claimed[message.epoch, node] = history_of(view.written)
        self.truncates += isinstance(message, Truncate)
        if isinstance(message, HandOver):
            self.handovers += 1
            target, last = self.group.views[send.to].durable, view.written
            held = target.generation_at(last.end_position) == last.generation_at(last.end_position)
            voters = server.running().configuration().voters
            if not (held or target.compacted.position >= last.end_position) or send.to not in voters:
                raise Violation("transfer", f"server {node} hands over to {send.to}, at {target.end_position}")

    def _spoken(self, server: Server, send: Send) -> None:
        """A message really leaves, now."""
        node, message, durable = server.config.node_id, send.message, server.durable
        assert isinstance(message, ZabMessage), message
        state = decode_hard_state(durable.state)
        how = None
        if message.epoch > state.accepted_epoch:
            how = f"with durable {state}"
        elif isinstance(message, AckEpoch) and message.epoch == state.accepted_epoch:
            claimed = (message.current_epoch, message.generation, message.position)
            if claimed[1:] != history_of(durable)[1:] or message.current_epoch > history_of(durable)[0]:
                how = f"with durable history {history_of(durable)}"
        elif isinstance(message, Ack) and message.position > durable.compacted.position:
            entry, vouched = durable.entries.get(message.position), self._vouched.get((node, message))
            if state.accepted_epoch == message.epoch and (entry is None or entry != (vouched or entry)):
                how = f"with durable {None if entry is None else brief(entry)}"
        if isinstance(message, AckLeader) and history_of(durable)[0] < message.epoch:
            how = f"with durable {state}"
        if how is not None:
            raise Violation("durable before spoken", f"server {node} says {message} to {send.to} {how}")

    # --- leading -------------------------------------------------------------------------

    def _check_discovery(self, view: NodeView, epoch: int, commit_position: int) -> None:
        node = view.node
        former = self._reigns.get(node)
        if former is not None and former.opening.generation == epoch:
            return  # it is ready now
        opening = view.written.entries[view.written.end_position]
        if opening.generation != epoch:
            raise Violation("primary order", f"server {node} leads {epoch}, its history ends with {brief(opening)}")
        self._reigns[node] = Reign(opening, commit_position)
        own = self._claimed[epoch, node]
        promised = [voter for voter, _ in view.electors if self._promised.get((epoch, voter)) == node]
        worse = [voter for voter in promised if self._claimed[epoch, voter] <= own]
        if not view.quorum.is_quorum(worse):
            raise Violation(
                "discovery",
                f"server {node} leads {epoch} with history {own}, promised by {promised}: {self._claimed}",
            )

    def _check_committed(self, view: NodeView, commit_position: int) -> None:
        reign = self._reigns[view.node]
        if commit_position <= reign.commit_position:
            return
        opening = reign.opening
        if commit_position < opening.position or not view.quorum.is_quorum(self.group.holders(opening, view.electors)):
            raise Violation(
                "commit after sync",
                f"server {view.node} takes {commit_position} for committed before its opening {brief(opening)} is",
            )
        reign.commit_position = commit_position

    def _check_rivals(self, last: Entry) -> None:
        """No server without the last committed entry has a history that a quorum would accept."""
        views = self.group.views
        for rival in views.values():
            configuration = rival.configuration
            if rival.written.holds(last):
                continue
            claim = history_of(rival.written)
            voters = [
                node
                for node, view in views.items()
                if configuration.incarnation(node) == view.incarnation
                and (view is rival or claim >= history_of(view.durable))
            ]
            if configuration.quorum().is_quorum(voters):
                raise Violation(
                    "commit after sync",
                    f"{brief(last)} is taken for committed, but servers {voters} would elect {rival.node} without it",
                )
