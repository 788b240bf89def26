"""The simulator's invariants, watching a lab.

A lab has every server at hand, so that more can be asked here than of nodes: what a replica
knows to be committed after every step, and what exactly a snapshot stands for.
"""

from __future__ import annotations

from quorate.consensus.records import Entry, Recovered
from quorate.consensus.replica import Effects, Event, Leadership, NodeId
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
        self.group = GroupInvariants(tuple(lab.servers), clock_slack_s=0)
        self._announced: dict[NodeId, Leadership] = {}
        for server in lab.servers.values():
            self._built(server, server.durable.recover())
        lab.build_watchers.append(self._built)
        lab.watchers.append(self._check)

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

    def _built(self, server: Server, recovered: Recovered) -> None:
        self.group.built(server.config.node_id, recovered, self.lab.now_ms)
        self._announced.pop(server.config.node_id, None)

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
        announced = self._announced.get(node)
        if announced is not None:
            actual = Leadership(status.role, status.leader, status.generation, status.ready)
            require(announced == actual, f"server {node} announced {announced}, but is {actual}")
