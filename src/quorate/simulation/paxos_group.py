"""What must hold of every group, for one whose slots are accepted out of order: Multi-Paxos'.

It differs from a log without holes in this:

- slots may be written out of order, and written over as long as nothing was handed out of them;
- an entry has none before it, so of "log matching" only the first half holds: one position and generation, one entry;
- *void* entries: whose predecessor from the same leadership was not chosen is handed out empty, with generation 0
  (`quorate.consensus.paxos`).  So there are two histories: what was chosen, and what was handed out.
"""

from __future__ import annotations

from collections.abc import Sequence

from quorate.consensus.core import QuorumOf
from quorate.consensus.membership import Configuration, decode_configuration, is_configuration
from quorate.consensus.records import Entry, Record, Recovered, SaveEntry
from quorate.consensus.replica import InstallSnapshot, NodeId
from quorate.simulation.invariants import GroupInvariants, NodeView, brief
from quorate.simulation.violation import Violation


class PaxosGroup(GroupInvariants):
    """`committed` holds the values as they were chosen, `handed` what they come to."""

    def __init__(
        self, voters: Sequence[NodeId], clock_slack_s: float, quorum_of: QuorumOf = Configuration.quorum
    ) -> None:
        super().__init__(voters, clock_slack_s)
        self.handed: list[Entry] = []
        self.void_entries = 0
        self.quorum_of = quorum_of

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
        view.quorum = self.quorum_of(view.counts_by).phase_2

    def _write(self, view: NodeView, records: Sequence[Record], install: InstallSnapshot | None) -> None:
        for record in records:
            if isinstance(record, SaveEntry):
                self._write_entry(view, record)
            else:
                super()._write(view, [record], install)

    def _write_entry(self, view: NodeView, record: SaveEntry) -> None:
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
            if is_configuration(entry.payload):
                raise Violation("chosen value", f"node {view.node} finds a configuration void: {brief(entry)}")
            self.void_entries += 1
            entry = Entry(entry.position, 0, b"")
        self.handed.append(entry)

    def _hand_out(self, view: NodeView, entries: Sequence[Entry]) -> None:
        for entry in entries:
            position = entry.position
            if position != view.handed_position + 1:
                raise Violation(
                    "state machine safety", f"node {view.node} hands out {position} after {view.handed_position}"
                )
            held = view.durable.entries.get(position)
            if held is None:
                raise Violation(
                    "durable before applied", f"node {view.node} hands out {brief(entry)}, which it could forget"
                )
            if position > len(self.committed):
                self._commit(view, held)
            elif held != self.committed[position - 1]:
                raise Violation(
                    "state machine safety",
                    f"node {view.node} hands out {brief(entry)} for {brief(held)}, "
                    f"others have {brief(self.committed[position - 1])}",
                )
            if entry != self.handed[position - 1]:
                raise Violation(
                    "state machine safety",
                    f"node {view.node} hands out {brief(entry)}, another one {brief(self.handed[position - 1])}",
                )
            view.handed_position = position
