"""What must hold of Multi-Paxos after every step: what the replica interface shows, and the papers' own invariants.

one value a ballot      in a slot, all that accept under one ballot accept the same value
chosen value            once a phase 2 quorum holds a value durably under one ballot, no other is ever chosen there,
                        nor proposed under a later ballot
promise order           a durable promise never goes back, nor does the ballot under which a slot was accepted
durable before spoken   no message leaves that speaks of a promise or of acceptances that are not durable
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from quorate.consensus.membership import Configuration, decode_configuration, is_configuration
from quorate.consensus.paxos.ballots import owner_of
from quorate.consensus.paxos.hard_state import HardState, decode_hard_state
from quorate.consensus.paxos.messages import Accepted, PaxosMessage, PreVote, PreVoted, TimeoutNow
from quorate.consensus.records import CompactedThrough, Entry, Record, Recovered, SaveEntry, SaveState
from quorate.consensus.replica import Effects, Event, InstallSnapshot, NodeId, Persisted, Role, Send
from quorate.quorums import PhasedQuorum
from quorate.simulation.durable_records import DurableRecords
from quorate.simulation.invariants import GroupInvariants, NodeView, brief
from quorate.simulation.violation import Violation
from tests.consensus.invariants import Invariants, require
from tests.consensus.lab import Lab, Server

QuorumOf = Callable[[Configuration], PhasedQuorum]


class PaxosGroup(GroupInvariants):
    """Slots may be written out of order and written over; `committed` holds the values as they were chosen.

    `handed` holds what they come to: an entry whose predecessor was not chosen is empty, with generation 0.
    """

    def __init__(self, voters: Sequence[NodeId], quorum_of: QuorumOf) -> None:
        super().__init__(voters, clock_slack_s=0)
        self.handed: list[Entry] = []
        self.void = 0
        self._quorum_of = quorum_of

    def built(
        self,
        node: NodeId,
        recovered: Recovered,
        now_ms: int,
        initial: Configuration | None = None,
        incarnation: str = "",
    ) -> None:
        super().built(node, recovered, now_ms, initial, incarnation)
        self._count_by_latest(self.views[node])

    def _count_by_latest(self, view: NodeView) -> None:
        super()._count_by_latest(view)
        quorum = self._quorum_of(view.counts_by).phase_2
        view.quorum = quorum  # type: ignore[assignment]  # one of another size asks for nothing else

    def _write(self, view: NodeView, records: Sequence[Record], install: InstallSnapshot | None) -> None:
        for record in records:
            if not isinstance(record, SaveEntry):
                super()._write(view, [record], install)
                continue
            entry = record.entry
            self._check_entry(view.node, entry, 0)
            # Where nothing was handed out yet, it may be a late proposal under an earlier ballot.
            if entry.position <= view.handed_position and self.committed[entry.position - 1] != entry:
                chosen = self.committed[entry.position - 1]
                raise Violation("chosen value", f"node {view.node} writes {brief(entry)} over {brief(chosen)}")
            view.written.write(record)
            while view.changes and view.changes[-1][0] >= entry.position:
                view.changes.pop()
            if is_configuration(entry.payload):
                view.changes.append((entry.position, decode_configuration(entry.payload)))

    def _check_entry(self, node: NodeId, entry: Entry, before: int) -> None:
        super()._check_entry(node, entry, 0)

    def _check_snapshot(self, node: NodeId, position: int, generation: int) -> None:
        if position > len(self.handed) or self.handed[position - 1].generation != generation:
            raise Violation("snapshot", f"node {node} has one of {position}/{generation}, which was not handed out")

    def _commit(self, view: NodeView, entry: Entry) -> None:
        super()._commit(view, entry)
        before = self.handed[-1].generation if self.handed else 0
        if entry.payload and entry.generation != before:
            require(not is_configuration(entry.payload), f"a configuration is void: {brief(entry)}")
            self.void += 1
            entry = Entry(entry.position, 0, b"")
        self.handed.append(entry)

    def _hand_out(self, view: NodeView, entries: Sequence[Entry]) -> None:
        for entry in entries:
            position = entry.position
            if position != view.handed_position + 1:
                raise Violation("state machine safety", f"node {view.node} hands out {position} out of order")
            held = view.durable.entries.get(position)
            if position > len(self.committed):
                if held is None:
                    raise Violation("durable before applied", f"node {view.node} hands out {brief(entry)}")
                self._commit(view, held)
            if not view.durable.holds(self.committed[position - 1]):
                raise Violation("durable before applied", f"node {view.node} hands out {brief(entry)}, not durable")
            if entry != self.handed[position - 1]:
                raise Violation(
                    "state machine safety",
                    f"node {view.node} hands out {brief(entry)}, others {brief(self.handed[position - 1])}",
                )
            view.handed_position = position


class PaxosInvariants(Invariants):
    """`fixed_members` lets the ballots of a slot be counted: who decides is the same all the time."""

    def __init__(self, lab: Lab, quorum_of: QuorumOf = Configuration.quorum, fixed_members: bool = False) -> None:
        self._quorum_of = quorum_of
        super().__init__(lab)
        self.handovers = 0
        self.gaps = 0
        """Slots that a new leader filled with a no-op."""
        self.found = 0
        """Values that a new leader proposed again."""
        some = next(iter(lab.servers.values())).config.initial
        self._quorum = quorum_of(some).phase_2 if fixed_members else None
        self._unsynced: dict[NodeId, deque[tuple[int, Sequence[Record]]]] = {node: deque() for node in lab.servers}
        self._states: dict[bytes | None, HardState] = {}
        self._promised: dict[NodeId, int] = {}
        self._accepted: dict[tuple[NodeId, int], int] = {}
        """(node, slot) to the ballot under which it accepted last, durably."""
        self._values: dict[tuple[int, int], int] = {}
        """(slot, ballot) to the generation of the value."""
        self._votes: dict[tuple[int, int], set[NodeId]] = {}
        self._chosen: dict[int, tuple[int, int]] = {}
        """Slot to (generation of the value, ballot)."""
        lab.watchers.append(self._note)
        lab.send_watchers.append(self._check_spoken)
        lab.build_watchers.append(self._rebuilt)

    def watch_group(self, voters: list[NodeId]) -> PaxosGroup:
        self.paxos = PaxosGroup(voters, self._quorum_of)
        return self.paxos

    @property
    def committed(self) -> list[Entry]:
        return self.paxos.handed

    def _state(self, data: bytes | None) -> HardState:
        known = self._states.get(data)
        if known is None:
            known = self._states[data] = decode_hard_state(data)
        return known

    def _rebuilt(self, server: Server, recovered: Recovered) -> None:
        """What of the unsynced survived counts from now on, like all that is durable."""
        node = server.config.node_id
        self._unsynced[node].clear()
        state = self._state(recovered.state)
        self._check_promise(node, state)
        for entry in recovered.entries:
            self._vote(node, entry, state)

    def _note(self, server: Server, event: Event, effects: Effects) -> None:
        node = server.config.node_id
        unsynced = self._unsynced[node]
        if isinstance(event, Persisted):
            while unsynced and unsynced[0][0] <= event.ticket:
                self._persist(node, unsynced.popleft()[1], self.group.views[node].durable)
        if effects.records:
            unsynced.append((effects.ticket, effects.records))
        for send in (*effects.messages, *effects.messages_after_persist):
            if isinstance(send.message, TimeoutNow):
                self.handovers += 1
        leadership = effects.leadership
        if leadership is not None and leadership.role is Role.LEADER and not leadership.ready:
            self._count_found(server, leadership.generation, effects)

    def _count_found(self, server: Server, ballot: int, effects: Effects) -> None:
        saved = [record.entry for record in effects.records if isinstance(record, SaveEntry)]
        self.gaps += sum(entry.generation == ballot for entry in saved) - 1
        state = next(record for record in effects.records if isinstance(record, SaveState)) if saved[:-1] else None
        if state is not None:
            self.found += sum(found == ballot for found in self._state(state.data).reaccepted.values())

    def _persist(self, node: NodeId, records: Sequence[Record], durable: DurableRecords) -> None:
        state = self._state(durable.state)
        for record in records:
            if isinstance(record, SaveState):
                self._check_promise(node, self._state(record.data))
                for position, generation in state.reaccepted:
                    entry = durable.entries.get(position)
                    if entry is not None and entry.generation == generation:
                        self._vote(node, entry, state)
            elif isinstance(record, SaveEntry) and durable.entries.get(record.entry.position) == record.entry:
                self._vote(node, record.entry, state)
            elif isinstance(record, CompactedThrough):
                for key in [key for key in self._accepted if key[0] == node and key[1] <= record.position]:
                    del self._accepted[key]

    def _check_promise(self, node: NodeId, state: HardState) -> None:
        before = self._promised.get(node, 0)
        require(state.promised >= before, f"node {node} promises {state.promised} after {before}")
        self._promised[node] = state.promised

    def _vote(self, node: NodeId, entry: Entry, state: HardState) -> None:
        """The node accepted the entry durably."""
        position, generation = entry.position, entry.generation
        if position <= state.chosen_position:
            return
        ballot = state.reaccepted.get((position, generation), generation)
        before = self._accepted.get((node, position), 0)
        require(ballot >= before, f"node {node} accepts {brief(entry)} under {ballot} after {before}")
        self._accepted[node, position] = ballot
        known = self._values.setdefault((position, ballot), generation)
        require(known == generation, f"in slot {position}, values {known} and {generation} are accepted under {ballot}")
        votes = self._votes.setdefault((position, ballot), set())
        votes.add(node)
        chosen = self._chosen.get(position)
        if chosen is not None and ballot > chosen[1]:
            require(chosen[0] == generation, f"slot {position}: {generation} under {ballot}, but {chosen} was chosen")
        if self._quorum is not None and self._quorum.is_quorum(votes):
            former = self._chosen.setdefault(position, (generation, ballot))
            require(former[0] == generation, f"slot {position}: {generation} and {former[0]} are both chosen")

    def _check_spoken(self, server: Server, send: Send) -> None:
        """A message leaves: what it speaks of is durable."""
        message, node = send.message, server.config.node_id
        assert isinstance(message, PaxosMessage)
        if isinstance(message, PreVote) or (isinstance(message, PreVoted) and message.granted):
            return
        state = self._state(server.durable.state)
        spoken = f"node {node} says {message} to {send.to}"
        require(state.promised >= message.ballot, f"{spoken}, durable is {state.promised}")
        if isinstance(message, Accepted) and owner_of(message.ballot) == send.to:
            first = max(message.first_position, server.durable.compacted.position + 1, message.last_position - 20)
            for position in range(first, message.last_position + 1):
                entry = server.durable.entries.get(position)
                require(entry is not None, f"{spoken}, slot {position} is not durable")
                assert entry is not None
                ballot = state.reaccepted.get((position, entry.generation), entry.generation)
                known = position <= len(self.paxos.committed) and self.paxos.committed[position - 1] == entry
                require(ballot >= message.ballot or known, f"{spoken}, slot {position} was accepted under {ballot}")
