"""ZAB's invariants, watching a lab that `Invariants` watch already."""

from __future__ import annotations

from quorate.consensus.records import Entry
from quorate.consensus.replica import Effects, Event, NodeId, Send
from quorate.consensus.zab.messages import Ack
from quorate.simulation.zab_invariants import ZabInvariants, vouched_by
from tests.consensus.invariants import Invariants
from tests.consensus.lab import Lab, Server


class ZabInLab:
    """Here, where messages really leave, also those that had to wait are looked at."""

    def __init__(self, lab: Lab, invariants: Invariants) -> None:
        self.own = ZabInvariants(invariants.group)
        self._vouched: dict[tuple[NodeId, Ack], Entry | None] = {}
        """What was at the position acknowledged when that was made; None where a snapshot was."""
        lab.watchers.append(self._stepped)
        lab.send_watchers.append(self._spoken)

    def _stepped(self, server: Server, event: Event, effects: Effects) -> None:
        node = server.config.node_id
        self.own.stepped(node, event, effects, server.running().status)
        for send in (*effects.messages, *effects.messages_after_persist):
            if isinstance(send.message, Ack):
                self._vouched[node, send.message] = vouched_by(server.written, send.message)

    def _spoken(self, server: Server, send: Send) -> None:
        node, message = server.config.node_id, send.message
        vouched = self._vouched.get((node, message)) if isinstance(message, Ack) else None
        self.own.check_spoken(node, send, server.durable, vouched)
