"""Raft under everything that a network and a disk may do to it, from seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.raft.messages import Appended, TimeoutNow
from quorate.consensus.records import Entry
from quorate.consensus.replica import Effects, Event, NodeId, Send
from quorate.simulation.raft_invariants import RaftInvariants
from tests.consensus.exploration import CLIMATES, Walk
from tests.consensus.invariants import Invariants, require
from tests.consensus.lab import Lab, Server


class DurableBeforeSpoken:
    """Raft's own invariants; and here, where messages really leave, also those that had to wait are looked at."""

    def __init__(self, lab: Lab, invariants: Invariants) -> None:
        self.group = invariants.group
        self.raft = RaftInvariants(invariants.group)
        self.handovers = 0
        self.vouched: dict[tuple[NodeId, Appended], Entry | None] = {}
        """What was at the position acknowledged when the acknowledgement was made; None where a snapshot was."""
        lab.watchers.append(self.note)
        lab.send_watchers.append(self.check)

    def note(self, server: Server, event: Event, effects: Effects) -> None:
        self.raft.stepped(server.config.node_id, event, effects, server.running().status)
        for send in (*effects.messages, *effects.messages_after_persist):
            if isinstance(send.message, TimeoutNow):
                self.handovers += 1
                self.check_handover(server, send.to)
            if isinstance(send.message, Appended):
                entry = server.written.entries.get(send.message.match_position)
                self.vouched[server.config.node_id, send.message] = entry

    def check_handover(self, server: Server, target: NodeId) -> None:
        """Whoever is told to stand at once holds all that the leader has, durably (thesis, section 3.10)."""
        views = self.group.views
        last, held = views[server.config.node_id].written, views[target].durable
        require(
            held.generation_at(last.end_position) == last.generation_at(last.end_position)
            or held.compacted.position >= last.end_position,
            f"server {server.config.node_id} hands over to {target}, whose log ends at {held.end_position}",
        )
        configuration = server.running().configuration()
        require(target in configuration.voters, f"{target} is to lead, and no voter of {configuration}")

    def check(self, server: Server, send: Send) -> None:
        node, message = server.config.node_id, send.message
        vouched = self.vouched[node, message] if isinstance(message, Appended) else None
        self.raft.check_spoken(node, send, server.durable, vouched)


@dataclass(frozen=True, slots=True)
class Explored:
    walk: Walk
    handovers: int

    @property
    def invariants(self) -> Invariants:
        return self.walk.invariants


def explore(nodes: int, seed: int, steps: int) -> Explored:
    walk = Walk(PROTOCOLS["raft"], nodes, seed)
    watcher = DurableBeforeSpoken(walk.lab, walk.invariants)
    walk.run(steps)
    return Explored(walk, watcher.handovers)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("climate", range(len(CLIMATES)))
def test_every_invariant_holds_on_a_walk(nodes: int, climate: int) -> None:
    walks = [explore(nodes, seed, steps=5000) for seed in range(climate, 4 * len(CLIMATES), len(CLIMATES))]
    # A walk that elects nobody and commits nothing would check nothing.
    assert sum(walk.invariants.leaderships for walk in walks) >= 4
    assert sum(len(walk.invariants.committed) for walk in walks) >= 40
    assert sum(walk.invariants.barriers_passed for walk in walks) >= 4
    assert not CLIMATES[climate].change or sum(walk.invariants.changes for walk in walks) >= 8
    assert not CLIMATES[climate].hand_over or sum(walk.handovers for walk in walks) >= 4


def test_the_same_seed_walks_the_same_way() -> None:
    first, second = (explore(3, seed=5, steps=1500) for _ in range(2))
    assert first.invariants.committed == second.invariants.committed
    assert first.walk.lab.now_ms == second.walk.lab.now_ms
