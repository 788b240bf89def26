"""Groups of servers in the laboratory, brought to where a test begins; and events at random that all must bear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st

from quorate.consensus.membership import NO_CONFIGURATION, PREFIX, Configuration
from quorate.consensus.records import Entry
from quorate.consensus.replica import (
    ChangeMembers,
    ConsensusProtocol,
    Event,
    Message,
    NodeId,
    PeerLost,
    Propose,
    ReadBarrier,
    Receive,
    ReplicaConfig,
    SnapshotArrived,
    SnapshotSent,
    Tick,
    TransferLeadership,
)
from tests.consensus.lab import InFlight, Lab

# --- groups ------------------------------------------------------------------------------


def group(protocol: ConsensusProtocol, nodes: int, learners: tuple[NodeId, ...] = (), **limits: Any) -> Lab:
    """Voters 1 ... `nodes`, none of which leads."""
    voters = tuple(range(1, nodes + 1))
    initial = Configuration.make(1, dict.fromkeys(voters, ""), dict.fromkeys(learners, ""))
    configs = [ReplicaConfig(node, initial, **limits) for node in (*voters, *learners)]
    return Lab(protocol, configs, Random)


def settle(lab: Lab, accepts: Callable[[InFlight], bool] = lambda flight: True) -> None:
    """Persist and deliver until nothing moves; what is not accepted is lost."""
    while lab.network or any(lab.servers[node].unsynced for node in lab.up()):
        for node in lab.up():
            while lab.servers[node].unsynced:
                lab.persist(node)
        while lab.network:
            flight = lab.network.pop(0)
            if accepts(flight):
                lab.deliver(flight)


def elect(lab: Lab, node: NodeId) -> None:
    """Of equal histories ZAB elects that of the highest id, the others whoever stands first."""
    lab.tick(node)
    settle(lab)
    assert lab.leaders() == [node]


# --- events at random ----------------------------------------------------------------------

LIMITS = st.sampled_from([(1 << 62) - 1, 1 << 62, (1 << 63) - 1, (1 << 64) - 1, -(1 << 63)])
NUMBERS: st.SearchStrategy[int] = st.integers(-1, 6) | LIMITS
CONFIGURATIONS = st.sampled_from(
    [
        b"",
        PREFIX,
        NO_CONFIGURATION.encode(),
        Configuration.make(2, {1: "", 2: ""}).encode(),
        Configuration.make(3, {4: "", 7: ""}, {1: ""}, {1: "", 2: ""}).encode(),
        Configuration(3, {2: ""}, {2: ""}).encode(),
    ]
)
GOALS = st.sampled_from(
    [
        NO_CONFIGURATION,
        Configuration.make(2, {1: "", 2: ""}, {4: ""}),
        Configuration.make(2, {2: "", 3: ""}),
        Configuration(2, {1: "", 2: "x"}, {2: ""}, {1: ""}),
    ]
)
PEERS = st.integers(0, 4)


def entries_of(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Entry]:
    return st.builds(Entry, numbers, numbers, st.binary(max_size=2) | CONFIGURATIONS)


def events_of(messages: st.SearchStrategy[Message], numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Event]:
    """Whatever may happen to a replica, and what may not."""
    return st.one_of(
        st.builds(Receive, PEERS, messages),
        st.builds(SnapshotArrived, PEERS, numbers, numbers, numbers, CONFIGURATIONS),
        st.builds(PeerLost, PEERS),
        st.builds(SnapshotSent, PEERS, st.none()),
        st.just(Tick()),
        st.just(Propose(b"x")),
        st.just(ReadBarrier(1)),
        st.builds(TransferLeadership, st.none() | PEERS, st.lists(PEERS, max_size=3).map(tuple)),
        st.builds(ChangeMembers, GOALS),
    )


def bear(lab: Lab, node: NodeId, events: Sequence[Event]) -> None:
    """A server takes all of it, and what it says in return can be said over a network."""
    replica = lab.servers[node].running()
    for event in events:
        effects = replica.step(event, lab.now_ms + 30)
        for send in (*effects.messages, *effects.messages_after_persist):
            decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(send.message), type=lab.protocol.message_type)
            assert decoded == send.message
        replica.status()
