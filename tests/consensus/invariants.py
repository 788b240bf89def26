"""The simulator's invariants, watching a lab.

A lab has every server at hand, so that more can be asked here than of nodes: what a replica
knows to be committed after every step, and what exactly a snapshot stands for.
"""

from __future__ import annotations

from quorate.consensus.membership import Configuration, is_configuration
from quorate.consensus.records import Entry, Recovered, SaveEntry
from quorate.consensus.replica import Effects, Event, Leadership, NodeId, Role
from quorate.simulation.invariants import GroupInvariants
from quorate.simulation.violation import Violation
from tests.consensus.lab import Lab, Server


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation("lab", what)


class Invariants:
    """Watches a lab that has just been built."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        # All servers go by one clock, so what they say of time is exact.
        first = [node for node, server in lab.servers.items() if server.config.initial.voters]
        self.group = self.watch_group(first)
        self._announced: dict[NodeId, Leadership] = {}
        self._told: dict[NodeId, tuple[Configuration, int]] = {}
        """The latest configuration that a server told of, and its version where that was settled then."""
        for server in lab.servers.values():
            self._built(server, server.durable.recover())
        lab.build_watchers.append(self._built)
        lab.watchers.append(self._check)

    def watch_group(self, voters: list[NodeId]) -> GroupInvariants:
        """Those of the protocol: by default of one whose log has no holes."""
        return GroupInvariants(voters, clock_slack_s=0)

    @property
    def committed(self) -> list[Entry]:
        """Every entry that any replica ever took for committed, from position 1 on."""
        return self.group.committed

    @property
    def leaderships(self) -> int:
        return self.group.counts.elections

    @property
    def barriers_passed(self) -> int:
        return self.group.counts.barriers_passed

    @property
    def changes(self) -> int:
        """Configurations that were committed."""
        return sum(is_configuration(entry.payload) for entry in self.committed)

    def _check_configuration(self, server: Server, effects: Effects, commit_position: int) -> None:
        """Changes one after another, by steps of which any two quorums share a node (thesis, section 4.3)."""
        node, replica = server.config.node_id, server.running()
        view = self.group.views[node]
        latest = replica.configuration()
        require(latest == view.configuration, f"server {node} goes by {latest}, its log says {view.configuration}")
        committed = not view.changes or view.changes[-1][0] <= commit_position
        settled = latest.version if committed and not latest.is_joint else -1
        require(replica.settled_version() == settled, f"server {node} is settled at {replica.settled_version()}")
        told = self._told.get(node)
        if effects.configuration is not None:
            require(effects.configuration == latest, f"server {node} tells of {effects.configuration}")
            self._told[node] = (latest, settled)
        elif told is not None and settled >= 0:
            require(told == (latest, settled), f"server {node} told of {told}, but is at {latest}, {settled}")
        appends = any(isinstance(r, SaveEntry) and is_configuration(r.entry.payload) for r in effects.records)
        # What a new leader takes over with its election (Paxos) was appended by others.
        is_elected = effects.leadership is not None and not effects.leadership.ready
        if appends and view.leadership.role is Role.LEADER and not is_elected:
            before = view.changes[-2][0] if len(view.changes) > 1 else 0
            require(before <= commit_position, f"leader {node} appends {latest} before {before} is committed")
            former = view.counts_by
            if former.is_joint:
                follows = not latest.is_joint and latest.voters == former.voters
            else:
                follows = former.voters == (latest.old_voters or latest.voters)
            require(follows, f"leader {node} appends {latest} after {former}")

    def _built(self, server: Server, recovered: Recovered) -> None:
        config = server.config
        self.group.built(config.node_id, recovered, self.lab.now_ms, config.initial, config.incarnation)
        self._announced.pop(server.config.node_id, None)
        self._told.pop(server.config.node_id, None)

    def _check(self, server: Server, event: Event, effects: Effects) -> None:
        node = server.config.node_id
        if effects.install is not None:
            position = effects.install.position
            require(
                list(server.snapshots[position]) == self.committed[:position], f"the snapshot of {position} differs"
            )
        self.group.stepped(node, event, effects, self.lab.now_ms, self.lab.now_ms / 1000)
        status = server.running().status()
        self.group.learn_commit(node, status.commit_position)
        self.group.check_contact(node, server.running().quorum_contact_ms())
        if effects.leadership is not None:
            self._announced[node] = effects.leadership
        self._check_configuration(server, effects, status.commit_position)
        announced = self._announced.get(node)
        if announced is not None:
            actual = Leadership(status.role, status.leader, status.generation, status.ready)
            require(announced == actual, f"server {node} announced {announced}, but is {actual}")
