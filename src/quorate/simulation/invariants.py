"""What must hold of a group after every step of every replica, whatever happened before.

The names are those of the Raft paper's figure 3.  The checks see what the replica interface
shows (`quorate.consensus.replica`) and know no protocol.  Each raises `Violation` under one
of these names:

    election safety         one leader in a generation; nobody follows another one
    log matching            one position and generation: one entry, and one generation before it
    leader completeness     a new leader has every entry that was committed in an earlier generation
    state machine safety    all hand out the same entries, contiguous, each once since the restart;
                            none that was handed out is truncated
    durable quorum          what is committed is durable on a quorum, and stays so
    durable before applied  what a node hands out is durable on that node
    snapshot                one stands for committed entries only, and for none that its node has not applied
    ready leader            a leader is ready only once it handed out all that was committed in earlier generations
    read barrier            it passes at a position not before anything that was committed when it was asked
    quorum contact          no newer leader had been elected by the moment that a leader claims to have led
    generation order        within a life, a node's generation never goes back
    durability              what a node recovers is all that `Persisted` had vouched for before the crash, and
                            of what was under way the first records or none: so neither state goes back
    configuration chain     see `configuration_history`

Nodes are counted under the incarnations that the configuration in question names.  A folder that was lost, or set
aside, can neither vote any more nor take anything back, so it goes on to count with what it held in the end: what it
acknowledged before may be committed after.  What comes in its place counts as somebody else.

An entry is taken for committed when a replica first hands it out.  A leader may know it
before (when two followers have it and its own disk is slow); until somebody hands it out or
lets a barrier pass on it nobody can tell, and both are checked when they happen.  What this
cannot see is a commit that came too early and that the disks made good before anybody handed
it out.  Who can ask for the commit position on every step (the lab in tests/consensus) calls
`learn_commit`, and loses nothing.  The generation in which it was committed is, in the same way, that of the node which
hands it out first.  An entry's own is no measure: a later leader may find an entry of an earlier one and commit it,
and a leader of a generation between the two, who was elected without it and is told so late, owes nothing to it.

Raft and ZAB write logs without holes, which "log matching" asks of them.  Multi-Paxos accepts out
of order, and is watched by `paxos_group`.

Costs are in proportion to what a step brings.  Only elections, restarts and violations walk
over a log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from zlib import crc32

from quorate.consensus.membership import NO_CONFIGURATION, Configuration, decode_configuration, is_configuration
from quorate.consensus.records import CompactedThrough, Entry, Record, Recovered, SaveEntry, TruncateFrom
from quorate.consensus.replica import (
    BarrierPassed,
    Compacted,
    Effects,
    Event,
    InstallSnapshot,
    Leadership,
    NodeId,
    Persisted,
    ReadBarrier,
    Receive,
    Role,
    SnapshotSent,
)
from quorate.quorums import AtLeast, Quorum
from quorate.simulation.configuration_history import ConfigurationHistory
from quorate.simulation.durable_records import DurableRecords
from quorate.simulation.violation import Violation

MOMENTS_KEPT = 4096
"""Of a leader's steps: far more than it makes in the time that it may go without a quorum."""


@dataclass(slots=True)
class Counts:
    """What a run has exercised."""

    elections: int = 0
    step_downs: int = 0
    entries_committed: int = 0
    truncations: int = 0
    """Those that took entries away."""
    snapshots_sent: int = 0
    snapshots_installed: int = 0
    barriers_passed: int = 0
    barriers_failed: int = 0
    restarts: int = 0


Life: TypeAlias = tuple[NodeId, str]
"""A node and its incarnation."""


@dataclass(slots=True)
class NodeView:
    """All that is known of a node from what its replica was told and asked for."""

    node: NodeId
    durable: DurableRecords
    """What `Persisted` vouches for."""
    written: DurableRecords
    """The log as it will be when everything under way is durable."""
    now_ms: int
    leadership: Leadership
    handed_position: int
    """The last that was handed out to be applied, or that a snapshot stands for."""
    base: Configuration
    """That of the log's beginning."""
    counts_by: Configuration
    """The latest configuration that its log held when this step began: what it appends in it counts later."""
    quorum: Quorum | AtLeast
    """Of `counts_by`: who decides about an entry."""
    electors: tuple[Life, ...]
    """Who votes in `counts_by`."""
    incarnation: str
    changes: list[tuple[int, Configuration]] = field(default_factory=list)
    """Every configuration in its log, with its position."""
    unsynced: deque[tuple[int, Sequence[Record]]] = field(default_factory=deque)
    """(ticket, records) that are under way to the disk."""
    asked: dict[int, int] = field(default_factory=dict)
    """Barrier id to what was committed anywhere when it was asked."""
    moments: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=MOMENTS_KEPT))
    """While it leads: (time of its own clock in ms, true time in s) of the steps that it made."""
    damaged: bool = False
    """Its disk was made to forget: what it recovers next says nothing."""

    @property
    def configuration(self) -> Configuration:
        return self.changes[-1][1] if self.changes else self.base


class GroupInvariants:
    """Watches the replicas of one group: `built` for each that starts, `stepped` for each step, in true order."""

    def __init__(self, voters: Sequence[NodeId], clock_slack_s: float) -> None:
        """`voters` are the first ones; who decides later, each node's log says.

        `clock_slack_s`: the true time in which the slowest of the nodes' clocks goes on by 1 ms, if clocks differ.
        The nodes speak of whole milliseconds, so a moment that they name may have begun that much earlier.
        """
        self.committed: list[Entry] = []
        """The history that must never change: the entry of position p is at p - 1."""
        self._committed_in: list[int] = []
        """Of each of `committed`, the generation of the node that took it for committed first, in that step; its own,
        where somebody knew of the commit who had not heard of that yet."""
        self.counts = Counts()
        self.views: dict[NodeId, NodeView] = {}
        """By node, what is known of its present folder."""
        self.lives: dict[Life, NodeView] = {}
        """The same, and of folders that are lost what they held in the end."""
        self.history = ConfigurationHistory()
        self._first = Configuration.make(1, dict.fromkeys(voters, ""))
        self._clock_slack_s = clock_slack_s
        self._known: dict[tuple[int, int], tuple[Entry, int]] = {}
        """(position, generation) to the entry and the generation of the one before it."""
        self._leader_of: dict[int, NodeId] = {}
        self._elected_s: dict[int, float] = {}
        """By generation, the true time at which a leader appeared."""
        self._newest_elected = 0

    # --- what happens ------------------------------------------------------------------------

    def built(
        self,
        node: NodeId,
        recovered: Recovered,
        now_ms: int,
        initial: Configuration | None = None,
        incarnation: str = "",
    ) -> None:
        """A replica starts, from nothing or after a crash.

        Without `initial` its first configuration is that of the first voters, all of incarnation "".
        """
        found = DurableRecords(recovered)
        former = self.views.get(node)
        if former is not None and former.incarnation == incarnation:
            self.counts.restarts += 1
            if not former.damaged:
                _check_recovered(former, found)
        compacted = recovered.compacted
        base = initial
        if base is None:
            base = self._first if node in self._first.voters else NO_CONFIGURATION
        self.history.begin(base)
        if compacted.configuration:
            base = decode_configuration(compacted.configuration)
        view = self.views[node] = self.lives[node, incarnation] = NodeView(
            node,
            found,
            DurableRecords(recovered),
            now_ms,
            Leadership(Role.FOLLOWER, None, 0),
            compacted.position,
            base,
            base,
            base.quorum(),
            _electors(base),
            incarnation,
            [
                (entry.position, decode_configuration(entry.payload))
                for entry in recovered.entries
                if is_configuration(entry.payload)
            ],
        )
        if view.changes:
            self._count_by_latest(view)
        if compacted.position:
            self._check_snapshot(node, compacted.position, compacted.generation)
        before = compacted.generation
        for entry in recovered.entries:
            self._check_entry(node, entry, before)
            before = entry.generation

    def damaged(self, node: NodeId) -> None:
        """The node's disk is about to forget, or has forgotten, what had been durable: nothing is asked of it."""
        view = self.views.get(node)
        if view is not None:
            view.damaged = True

    def lost(self, node: NodeId) -> None:
        """The node's folder is gone, or set aside for ever: what comes next is another incarnation."""
        self.views.pop(node, None)

    def counting(self) -> list[Configuration]:
        """Every configuration by which somebody may still decide: the latest committed, and later ones in any log."""
        found = [self.history.latest] if self.history.latest.voters else []
        for view in self.views.values():
            found += [latter for position, latter in view.changes if position > self.history.position]
        return found

    def stepped(self, node: NodeId, event: Event, effects: Effects, now_ms: int, true_s: float) -> None:
        """A replica took an event at true time `true_s`, when its node's clock read `now_ms`."""
        view = self.views[node]
        view.now_ms = now_ms
        if view.counts_by is not view.configuration:
            self._count_by_latest(view)
        if not isinstance(event, Receive):
            self._take(view, event)
        if effects.records:
            self._write(view, effects.records, effects.install)
            view.unsynced.append((effects.ticket, effects.records))
        if effects.install is not None:
            self._install(view, effects.install)
        if effects.committed:
            self._hand_out(view, effects.committed)
            self._note_generation(view, effects.leadership)
        if effects.leadership is not None:
            self._lead(view, effects.leadership, true_s)
        elif view.leadership.role is Role.LEADER and view.moments[-1][0] != now_ms:
            view.moments.append((now_ms, true_s))
        if effects.barriers_passed:
            self._pass_barriers(view, effects.barriers_passed)
        for barrier_id in effects.barriers_failed:
            if view.asked.pop(barrier_id, None) is None:
                raise Violation("read barrier", f"node {node} fails barrier {barrier_id}, for which nothing waits")
            self.counts.barriers_failed += 1

    def learn_commit(self, node: NodeId, commit_position: int) -> None:
        """A replica takes everything through `commit_position` for committed, though it may not have handed it out."""
        view = self.views[node]
        while len(self.committed) < commit_position:
            entry = view.written.entries.get(len(self.committed) + 1)
            if entry is None:
                raise Violation("durable quorum", f"node {node} commits {commit_position}, which it does not have")
            self._commit(view, entry)
        self._note_generation(view, None)

    def check_contact(self, node: NodeId, contact_ms: int | None) -> None:
        """The node was told this `quorum_contact_ms`.

        Its clock first read that time at or after the step that it names, less the slack.
        A time that no kept step names is not judged.
        """
        if contact_ms is None:
            return
        view = self.views[node]
        leadership = view.leadership
        if leadership.role is not Role.LEADER or not leadership.ready:
            raise Violation("quorum contact", f"node {node} is no ready leader and claims to have led at {contact_ms}")
        if contact_ms > view.now_ms:
            raise Violation("quorum contact", f"node {node} at {view.now_ms} claims to have led at {contact_ms}")
        if self._newest_elected <= leadership.generation:
            return
        began_s = _first_moment(view, contact_ms)
        for generation, elected_s in self._elected_s.items():
            if generation > leadership.generation and elected_s < began_s - self._clock_slack_s:
                raise Violation(
                    "quorum contact",
                    f"node {node} claims to have led {leadership.generation} at {began_s:.6f} s (its {contact_ms} ms), "
                    f"but node {self._leader_of[generation]} had been elected in {generation} at {elected_s:.6f} s",
                )

    def unanswered_barriers(self, node: NodeId) -> list[int]:
        """Ids of the barriers that the node's replica was asked for and has neither let pass nor failed."""
        view = self.views.get(node)
        return sorted(view.asked) if view is not None else []

    def is_deposed(self, node: NodeId) -> bool:
        """The node leads still, and there is a newer leader."""
        view = self.views[node]
        return view.leadership.role is Role.LEADER and self._newest_elected > view.leadership.generation

    def _count_by_latest(self, view: NodeView) -> None:
        view.counts_by = view.configuration
        view.quorum = view.counts_by.quorum()
        view.electors = _electors(view.counts_by)

    def _take(self, view: NodeView, event: Event) -> None:
        if isinstance(event, Persisted):
            _persist(view, event.ticket)
        elif isinstance(event, ReadBarrier):
            view.asked[event.barrier_id] = len(self.committed)
        elif isinstance(event, Compacted):
            self._check_compacted(view, event.position)
        elif isinstance(event, SnapshotSent) and event.position is not None:
            self.counts.snapshots_sent += 1

    # --- the log -----------------------------------------------------------------------------

    def _write(self, view: NodeView, records: Sequence[Record], install: InstallSnapshot | None) -> None:
        written = view.written
        for record in records:
            if isinstance(record, SaveEntry):
                entry = record.entry
                before = written.generation_at(entry.position - 1)
                if before is None:
                    raise Violation("log matching", f"node {view.node} writes {entry.position} after a gap")
                self._check_entry(view.node, entry, before)
                written.write(record)
                if is_configuration(entry.payload):
                    view.changes.append((entry.position, decode_configuration(entry.payload)))
            elif isinstance(record, TruncateFrom):
                self._truncate(view, record)
            elif isinstance(record, CompactedThrough):
                if record.position > view.handed_position and (install is None or install.position != record.position):
                    raise Violation(
                        "snapshot", f"node {view.node} compacts {record.position}, has applied {view.handed_position}"
                    )
                self._check_snapshot(view.node, record.position, record.generation)
                written.write(record)
                self._compact(view, record)
            else:
                written.write(record)

    def _check_entry(self, node: NodeId, entry: Entry, before: int) -> None:
        known = self._known.setdefault((entry.position, entry.generation), (entry, before))
        if known[1] != before or (known[0] is not entry and known[0] != entry):
            raise Violation(
                "log matching",
                f"node {node} writes {brief(entry)} after {before}, elsewhere {brief(known[0])} is after {known[1]}",
            )

    def _truncate(self, view: NodeView, record: TruncateFrom) -> None:
        position, end_position = record.position, view.written.end_position
        if position <= view.handed_position:
            raise Violation(
                "state machine safety",
                f"node {view.node} truncates from {position}, has handed out {view.handed_position}",
            )
        self.counts.truncations += position <= end_position
        lost = self.committed[position - 1 : end_position]
        held = [entry for entry in lost if view.written.holds(entry)]
        view.written.write(record)
        while view.changes and view.changes[-1][0] >= position:
            view.changes.pop()
        if view.counts_by is not view.configuration:
            self._count_by_latest(view)
        for entry in held:
            self._check_quorum(view, entry, "truncates")

    def _compact(self, view: NodeView, record: CompactedThrough) -> None:
        """Who decided as of the snapshot is what the log said, or what the leader's snapshot brings."""
        while view.changes and view.changes[0][0] <= record.position:
            view.base = view.changes.pop(0)[1]
        if record.configuration:
            view.base = decode_configuration(record.configuration)

    def _check_compacted(self, view: NodeView, position: int) -> None:
        if position > view.handed_position:
            raise Violation(
                "snapshot", f"node {view.node} has a snapshot of {position}, was handed {view.handed_position}"
            )

    def _check_snapshot(self, node: NodeId, position: int, generation: int) -> None:
        if position > len(self.committed):
            raise Violation("snapshot", f"node {node} has one of {position}, committed is {len(self.committed)}")
        entry = self.committed[position - 1]
        if entry.generation != generation:
            raise Violation("snapshot", f"node {node} has one of {position}/{generation}, committed is {brief(entry)}")

    def _install(self, view: NodeView, install: InstallSnapshot) -> None:
        self._check_snapshot(view.node, install.position, install.generation)
        if install.position <= view.handed_position:
            raise Violation(
                "state machine safety",
                f"node {view.node} goes back to the snapshot of {install.position} from {view.handed_position}",
            )
        view.handed_position = install.position
        self.counts.snapshots_installed += 1

    # --- what is committed -------------------------------------------------------------------

    def _hand_out(self, view: NodeView, entries: Sequence[Entry]) -> None:
        committed = self.committed
        for entry in entries:
            position = entry.position
            if position != view.handed_position + 1:
                raise Violation(
                    "state machine safety", f"node {view.node} hands out {position} after {view.handed_position}"
                )
            if not view.durable.holds(entry):
                raise Violation(
                    "durable before applied", f"node {view.node} hands out {brief(entry)}, which it could forget"
                )
            if position > len(committed):
                self._commit(view, entry)
            elif committed[position - 1] != entry:
                raise Violation(
                    "state machine safety",
                    f"node {view.node} hands out {brief(entry)}, another one {brief(committed[position - 1])}",
                )
            view.handed_position = position

    def _commit(self, view: NodeView, entry: Entry) -> None:
        """Taken for committed for the first time: by now a quorum must hold it durably."""
        self._check_quorum(view, entry, "commits")
        if is_configuration(entry.payload):
            leader = view.node if view.leadership.role is Role.LEADER else None
            self.history.commit(entry.position, decode_configuration(entry.payload), leader)
        self.committed.append(entry)
        self.counts.entries_committed += 1

    def _note_generation(self, view: NodeView, news: Leadership | None) -> None:
        """The step that committed may be the one in which its node hears of another leadership."""
        present = max(view.leadership.generation, news.generation if news is not None else 0)
        for entry in self.committed[len(self._committed_in) :]:
            self._committed_in.append(max(present, entry.generation))

    def _check_quorum(self, view: NodeView, entry: Entry, does: str) -> None:
        holders = self.holders(entry, view.electors)
        if not view.quorum.is_quorum(holders):
            raise Violation("durable quorum", f"node {view.node} {does} {brief(entry)}, then durable only on {holders}")

    def holders(self, entry: Entry, electors: Sequence[Life]) -> list[NodeId]:
        """Those of them that hold the entry durably, and are not about to forget it."""
        lives, found = self.lives, []
        for elector in electors:
            view = lives.get(elector)
            if view is not None and view.durable.holds(entry) and view.written.holds(entry):
                found.append(elector[0])
        return found

    # --- who leads ---------------------------------------------------------------------------

    def _lead(self, view: NodeView, leadership: Leadership, true_s: float) -> None:
        former, view.leadership = view.leadership, leadership
        generation = leadership.generation
        if generation < former.generation:
            raise Violation("generation order", f"node {view.node} goes from {former.generation} to {generation}")
        if leadership.leader is not None:
            leader = self._leader_of.setdefault(generation, leadership.leader)
            if leader != leadership.leader:
                raise Violation(
                    "election safety",
                    f"node {view.node} says that {leadership.leader} leads {generation}, elsewhere {leader} does",
                )
        if former.role is Role.LEADER and (leadership.role is not Role.LEADER or former.generation != generation):
            self.counts.step_downs += 1
        if leadership.role is Role.LEADER:
            if former.role is not Role.LEADER or former.generation != generation:
                view.moments.clear()
                self._elect(view, generation, true_s)
            if leadership.ready:
                self._check_ready(view, generation)
            view.moments.append((view.now_ms, true_s))

    def _elect(self, view: NodeView, generation: int, true_s: float) -> None:
        if generation in self._elected_s:
            raise Violation("election safety", f"node {view.node} is elected in {generation}, where one had led before")
        self._elected_s[generation] = true_s
        self._newest_elected = max(self._newest_elected, generation)
        self.counts.elections += 1
        start = view.written.compacted.position
        for entry, committed_in in zip(self.committed[start:], self._committed_in[start:], strict=True):
            if committed_in < generation and not view.written.holds(entry):
                raise Violation(
                    "leader completeness",
                    f"node {view.node} is elected in {generation} without committed {brief(entry)}",
                )

    def _check_ready(self, view: NodeView, generation: int) -> None:
        position = len(self.committed)
        while position > view.handed_position:
            if self._committed_in[position - 1] < generation:
                entry = self.committed[position - 1]
                raise Violation(
                    "ready leader", f"node {view.node} leads {generation} before it handed out {brief(entry)}"
                )
            position -= 1

    # --- barriers ----------------------------------------------------------------------------

    def _pass_barriers(self, view: NodeView, barriers: Sequence[BarrierPassed]) -> None:
        for barrier in barriers:
            asked_position = view.asked.pop(barrier.barrier_id, None)
            if asked_position is None:
                raise Violation("read barrier", f"node {view.node} passes {barrier}, for which nothing waits")
            if barrier.position < asked_position:
                raise Violation(
                    "read barrier", f"node {view.node} passes {barrier}, but {asked_position} was committed before"
                )
            if barrier.position > len(self.committed) and not self._is_safe(barrier.position):
                raise Violation("read barrier", f"node {view.node} passes {barrier}, which nobody can have committed")
            self.counts.barriers_passed += 1

    def _is_safe(self, position: int) -> bool:
        """Some entry at a position that none has handed out yet is durable on a quorum."""
        found = [view.durable.entries.get(position) for view in self.views.values()]
        return any(
            entry is not None and view.quorum.is_quorum(self.holders(entry, view.electors))
            for entry in found
            for view in self.views.values()
        )


def brief(entry: Entry) -> str:
    """An entry in a few characters; two that differ look different."""
    return f"{entry.position}/{entry.generation} #{crc32(entry.payload):08x}"


def _electors(configuration: Configuration) -> tuple[Life, ...]:
    return tuple({**configuration.old_voters, **configuration.voters}.items())


def _persist(view: NodeView, ticket: int) -> None:
    unsynced, durable = view.unsynced, view.durable
    while unsynced and unsynced[0][0] <= ticket:
        for record in unsynced.popleft()[1]:
            durable.write(record)


def _first_moment(view: NodeView, own_ms: int) -> float:
    """The true time of the first kept step at or after a time of the node's clock; minus infinity where unknown."""
    first_s = float("-inf")
    for moment_ms, true_s in reversed(view.moments):
        if moment_ms < own_ms:
            return first_s
        first_s = true_s
    return first_s if view.moments[0][0] == own_ms else float("-inf")


def _check_recovered(former: NodeView, found: DurableRecords) -> None:
    """The log is written in order: what is found is what was durable, and some first part of what was under way."""
    folded = DurableRecords(former.durable.recover())
    if folded.same_as(found):
        return
    for _, records in former.unsynced:
        for record in records:
            folded.write(record)
            if folded.same_as(found):
                return
    durable = former.durable
    missing = [position for position, entry in durable.entries.items() if not found.holds(entry)]
    raise Violation(
        "durability",
        f"node {former.node} recovered state {found.state!r}, compacted {found.compacted.position}, entries to "
        f"{found.end_position}; durable had been state {durable.state!r}, compacted {durable.compacted.position}, "
        f"entries to {durable.end_position} (missing or changed now: {sorted(missing)[:10]}), "
        f"and {len(former.unsynced)} steps were under way",
    )
