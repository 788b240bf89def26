"""Multi-Paxos' invariants, watching a lab: what its replicas decide, and what messages say when they really leave."""

from __future__ import annotations

from quorate.consensus.core import QuorumOf
from quorate.consensus.membership import Configuration
from quorate.consensus.records import Entry
from quorate.consensus.replica import Effects, Event, NodeId, Send
from quorate.simulation.paxos_group import PaxosGroup
from quorate.simulation.paxos_invariants import PaxosInvariants
from tests.consensus.invariants import Invariants
from tests.consensus.lab import Lab, Server


class PaxosInLab(Invariants):
    """Watches a lab that has just been built."""

    def __init__(self, lab: Lab, quorum_of: QuorumOf = Configuration.quorum) -> None:
        self._quorum_of = quorum_of
        super().__init__(lab)
        self.own = PaxosInvariants(self.paxos)
        lab.watchers.append(self._stepped)
        lab.send_watchers.append(self._spoken)

    def watch_group(self, voters: list[NodeId]) -> PaxosGroup:
        self.paxos = PaxosGroup(voters, 0, self._quorum_of)
        return self.paxos

    @property
    def committed(self) -> list[Entry]:
        """As it was handed out."""
        return self.paxos.handed

    def _stepped(self, server: Server, event: Event, effects: Effects) -> None:
        self.own.stepped(server.config.node_id, event, effects, server.running().status)

    def _spoken(self, server: Server, send: Send) -> None:
        self.own.check_spoken(server.config.node_id, send, server.durable)
