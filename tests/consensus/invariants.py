"""What must hold after every step of every replica, whatever the protocol and whatever happened before.

The names are those of the Raft paper's figure 3; single leader per generation and log
matching hold for the other protocols in their own form.
"""

from __future__ import annotations

from quorate.consensus.records import Entry, SaveEntry
from quorate.consensus.replica import Effects, Event, NodeId, ReadBarrier, Role
from quorate.quorums import Majority
from tests.consensus.lab import Lab, Server


class Violated(AssertionError):
    """A safety property does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violated(what)


class Invariants:
    """Watches a lab.  `committed` is the history that must never change."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.committed: list[Entry] = []
        """Every entry that any replica ever took for committed, from position 1 on."""
        self.barriers_passed = 0
        self.leaderships = 0
        self._leader_of: dict[int, NodeId] = {}
        self._elected_ms: dict[int, int] = {}
        self._written: dict[tuple[int, int], tuple[bytes, int]] = {}
        """(position, generation) to payload and the generation of the entry before."""
        self._asked: dict[tuple[NodeId, int], int] = {}
        """(node, barrier id) to what was committed anywhere when it was asked."""
        lab.watchers.append(self.check)

    def check(self, server: Server, event: Event, effects: Effects) -> None:
        self._check_written(server, effects)
        self._check_leader(server)
        self._check_committed(server, effects)
        self._check_barriers(server, event, effects)

    def _check_written(self, server: Server, effects: Effects) -> None:
        """Log Matching: one position and generation, one entry and one history before it (by induction)."""
        for record in effects.records:
            if isinstance(record, SaveEntry):
                entry = record.entry
                before = server.written.generation_at(entry.position - 1)
                require(before is not None, f"{server.config.node_id} wrote {entry.position} after a gap")
                assert before is not None
                known = self._written.setdefault((entry.position, entry.generation), (entry.payload, before))
                require(known == (entry.payload, before), f"Log Matching: {entry} after {before}, elsewhere {known}")

    def _check_leader(self, server: Server) -> None:
        node = server.config.node_id
        status = server.running().status()
        if status.role is not Role.LEADER:
            require(server.running().quorum_contact_ms() is None, "only a leader has a quorum")
            return
        generation = status.generation
        if generation not in self._leader_of:
            self.leaderships += 1
            self._leader_of[generation] = node
            self._elected_ms[generation] = self.lab.now_ms
            for entry in self.committed[server.written.compacted.position :]:
                if entry.generation < generation:
                    require(
                        server.written.entries.get(entry.position) == entry,
                        f"Leader Completeness: {node} leads {generation} without committed {entry}",
                    )
        require(self._leader_of[generation] == node, f"Election Safety: {generation} has two leaders")
        contact_ms = server.running().quorum_contact_ms()
        if contact_ms is not None:
            require(contact_ms <= self.lab.now_ms, "contact in the future")
            for other, elected_ms in self._elected_ms.items():
                require(other <= generation or elected_ms >= contact_ms, f"{other} was elected before {contact_ms}")

    def _check_committed(self, server: Server, effects: Effects) -> None:
        node = server.config.node_id
        if effects.install is not None:
            position = effects.install.position
            require(position <= len(self.committed), f"{node} installs {position}, which is not committed")
            require(
                list(server.snapshots[position]) == self.committed[:position],
                f"State Machine Safety: the snapshot of {position} differs",
            )
            applied_position = position
        else:
            applied_position = len(server.applied)
        commit_position = server.running().status().commit_position
        while len(self.committed) < commit_position:
            # Taken for committed for the first time: a quorum must hold it durably by now.
            entry = server.written.entries[len(self.committed) + 1]
            holders = [other.config.node_id for other in self.lab.servers.values() if _holds(other, entry)]
            require(
                Majority(server.config.voters).is_quorum(holders), f"{node} commits {entry}, durable only on {holders}"
            )
            self.committed.append(entry)
        for entry in effects.committed:
            applied_position += 1
            require(entry.position == applied_position, f"{node} applies {entry.position} after {applied_position - 1}")
            require(self.committed[entry.position - 1] == entry, f"State Machine Safety: {node} applies {entry}")
            require(_holds(server, entry), f"{node} applies {entry}, which is not durable there")

    def _check_barriers(self, server: Server, event: Event, effects: Effects) -> None:
        node = server.config.node_id
        if isinstance(event, ReadBarrier):
            self._asked[node, event.barrier_id] = len(self.committed)
        for barrier in effects.barriers_passed:
            asked = self._asked.pop((node, barrier.barrier_id))
            require(barrier.position >= asked, f"barrier at {barrier.position} misses {asked}")
            require(barrier.position <= len(self.committed), "barrier beyond what is committed")
            self.barriers_passed += 1
        for barrier_id in effects.barriers_failed:
            del self._asked[node, barrier_id]


def _holds(server: Server, entry: Entry) -> bool:
    return entry.position <= server.durable.compacted.position or server.durable.entries.get(entry.position) == entry
