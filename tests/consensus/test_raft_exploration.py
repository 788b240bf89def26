"""Raft under everything that a network and a disk may do to it, from seeds."""

from __future__ import annotations

import pytest

from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.raft.hard_state import decode_hard_state
from quorate.consensus.raft.messages import Appended, RaftMessage, RequestVote, Vote
from quorate.consensus.records import Entry
from quorate.consensus.replica import Effects, Event, NodeId, Send
from quorate.quorums import Majority
from quorate.simulation.durable_records import DurableRecords
from tests.consensus.exploration import CLIMATES, Walk
from tests.consensus.invariants import Invariants, require
from tests.consensus.lab import Lab, Server


def up_to_date(records: DurableRecords) -> tuple[int, int]:
    """What Raft's voters compare: the last entry's term, then its position."""
    position = max(records.entries, default=records.compacted.position)
    generation = records.generation_at(position)
    assert generation is not None
    return generation, position


class Unbeatable:
    """Once an entry is taken for committed, no server without it could win an election.

    Stronger than to wait until such a server does win: it sees the mistake of figure 8 of
    the Raft paper in the step that makes it.
    """

    def __init__(self, lab: Lab, invariants: Invariants) -> None:
        self.lab = lab
        self.invariants = invariants
        self.checked = 0
        lab.watchers.append(self.check)

    def check(self, server: Server, event: Event, effects: Effects) -> None:
        committed = self.invariants.committed
        if len(committed) == self.checked:
            return
        self.checked = len(committed)
        last = committed[-1]
        for rival in self.lab.servers.values():
            if last.position <= rival.written.compacted.position or rival.written.entries.get(last.position) == last:
                continue
            claim = up_to_date(rival.written)
            voters = [
                voter.config.node_id
                for voter in self.lab.servers.values()
                if voter is rival or claim >= up_to_date(voter.durable)
            ]
            require(
                not Majority(server.config.voters).is_quorum(voters),
                f"{last} is taken for committed, but {voters} would elect {rival.config.node_id} without it",
            )


class DurableBeforeSpoken:
    """No term, vote or acknowledgement leaves a server that could still forget it."""

    def __init__(self, lab: Lab) -> None:
        self.vouched: dict[tuple[NodeId, Appended], Entry | None] = {}
        """What was at the position acknowledged when the acknowledgement was made; None where a snapshot was."""
        lab.watchers.append(self.note)
        lab.send_watchers.append(self.check)

    def note(self, server: Server, event: Event, effects: Effects) -> None:
        for send in (*effects.messages, *effects.messages_after_persist):
            if isinstance(send.message, Appended):
                entry = server.written.entries.get(send.message.match_position)
                self.vouched[server.config.node_id, send.message] = entry

    def check(self, server: Server, send: Send) -> None:
        message, durable = send.message, server.durable
        term, voted_for = decode_hard_state(durable.state)
        assert isinstance(message, RaftMessage)
        if isinstance(message, RequestVote | Vote) and message.pre_vote:
            return  # a pre-vote speaks of a term that nobody is in
        require(term >= message.term, f"{message} spoken in durable term {term}")
        if term > message.term:
            return
        if isinstance(message, RequestVote):
            require(voted_for == server.config.node_id, f"{message} with a durable vote for {voted_for}")
        if isinstance(message, Vote) and message.granted:
            require(voted_for == send.to, f"{message} to {send.to} with a durable vote for {voted_for}")
        if isinstance(message, Appended) and message.match_position > durable.compacted.position:
            entry = durable.entries.get(message.match_position)
            vouched = self.vouched[server.config.node_id, message]
            require(entry is not None and entry == (vouched or entry), f"{message} spoken with durable {entry}")


def explore(nodes: int, seed: int, steps: int) -> Walk:
    walk = Walk(PROTOCOLS["raft"], nodes, seed)
    Unbeatable(walk.lab, walk.invariants)
    DurableBeforeSpoken(walk.lab)
    walk.run(steps)
    return walk


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("climate", range(len(CLIMATES)))
def test_every_invariant_holds_on_a_walk(nodes: int, climate: int) -> None:
    walks = [explore(nodes, seed, steps=5000) for seed in range(climate, 4 * len(CLIMATES), len(CLIMATES))]
    # A walk that elects nobody and commits nothing would check nothing.
    assert sum(walk.invariants.leaderships for walk in walks) >= 4
    assert sum(len(walk.invariants.committed) for walk in walks) >= 40
    assert sum(walk.invariants.barriers_passed for walk in walks) >= 4


def test_the_same_seed_walks_the_same_way() -> None:
    first, second = (explore(3, seed=5, steps=1500) for _ in range(2))
    assert first.invariants.committed == second.invariants.committed
    assert first.lab.now_ms == second.lab.now_ms
