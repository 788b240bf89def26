"""Notes what the replicas of a service say and who of them leads, without their knowing.

A node is handed protocols (`Node(..., protocols)`); those from `Ledger.protocols` build the real replicas, each behind
a `NotedReplica`.  What nodes say beside consensus, and the cluster's own group, is not noted here; the bytes of
all that is said between nodes are counted by the network's meter (`stage`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from quorate.consensus.membership import Configuration
from quorate.consensus.paxos import messages as paxos
from quorate.consensus.raft import messages as raft
from quorate.consensus.records import Recovered
from quorate.consensus.replica import (
    ConsensusProtocol,
    Effects,
    Event,
    Message,
    NodeId,
    RandomSource,
    Replica,
    ReplicaConfig,
    Status,
)
from quorate.consensus.zab import messages as zab

ELECTION_MESSAGES = (
    *(raft.RequestVote, raft.Vote),
    *(paxos.PreVote, paxos.PreVoted, paxos.Prepare, paxos.Promise, paxos.Rejected),
    *(zab.Notification, zab.Leading, zab.FollowerInfo, zab.NewEpoch, zab.AckEpoch),
)
"""What is said to find a leader, from the first question to the last promise."""


def candidacy_of(message: Message) -> int | None:
    """The generation in which the sender of this message stands; None where it only asks, or says something else.

    Raft: a term for which votes are asked; Paxos: a ballot of phase 1; ZAB: an epoch that is proposed.
    """
    match message:
        case raft.RequestVote(pre_vote=False):
            return message.term
        case paxos.Prepare():
            return message.ballot
        case zab.NewEpoch(established=False):
            return message.epoch
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Led:
    """A node's leadership became ready to take writes."""

    at_s: float
    node: NodeId
    generation: int


class Ledger:
    """One run: all nodes.  Times are true times in seconds."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        """Of the service's group, by class."""
        self.election_messages = 0
        self.candidacies: dict[tuple[NodeId, int], None] = {}
        """(node, generation) of every candidacy that binds others."""
        self.led: list[Led] = []
        """Leaderships that became ready, in order."""
        self.timeout_spread = 1.0
        """Election timeouts are drawn from the lower end of what the protocol asks for, this share of it: 1 is as in
        production, and near 0 all nodes stand at nearly the same time."""

    def protocols(
        self, protocols: Mapping[str, ConsensusProtocol], node: NodeId, true_s: Callable[[], float]
    ) -> Mapping[str, ConsensusProtocol]:
        """For one start of a node, whose first group is the service's: that one is noted.

        `true_s` is true time on the node's machine.
        """
        start = _Start(self, node, true_s)
        return MappingProxyType({name: _noted(protocol, start) for name, protocol in protocols.items()})

    def stepped(self, node: NodeId, effects: Effects, now_s: Callable[[], float]) -> None:
        for send in (*effects.messages, *effects.messages_after_persist):
            message = send.message
            self.messages[type(message).__name__] += 1
            if isinstance(message, ELECTION_MESSAGES):
                self.election_messages += 1
                generation = candidacy_of(message)
                if generation is not None:
                    self.candidacies[node, generation] = None
        leadership = effects.leadership
        if leadership is not None and leadership.ready:
            led = Led(now_s(), node, leadership.generation)
            if not self.led or (self.led[-1].node, self.led[-1].generation) != (led.node, led.generation):
                self.led.append(led)


@dataclass(slots=True)
class _Start:
    """One start of one node."""

    ledger: Ledger
    node: NodeId
    true_s: Callable[[], float]
    groups: int = 0
    """Built so far."""


def _noted(protocol: ConsensusProtocol, start: _Start) -> ConsensusProtocol:
    def build(config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> Replica:
        start.groups += 1
        if start.groups > 1:
            return protocol.build(config, recovered, random, now_ms)
        return NotedReplica(protocol.build(config, recovered, _Timeouts(random, start.ledger), now_ms), start)

    return replace(protocol, build=build)


class _Timeouts:
    """The randomness of a replica, with election timeouts as alike as the ledger says.

    What a replica draws from 0 on is no timeout, but a number that nobody else may have.
    """

    def __init__(self, random: RandomSource, ledger: Ledger) -> None:
        self._random = random
        self._ledger = ledger

    def randrange(self, start: int, stop: int) -> int:
        drawn = self._random.randrange(start, stop)
        return drawn if start == 0 else start + int((drawn - start) * self._ledger.timeout_spread)


class NotedReplica:
    """Implements `quorate.consensus.replica.Replica`."""

    def __init__(self, replica: Replica, start: _Start) -> None:
        self.deadline_ms: Callable[[], int] = replica.deadline_ms
        self.status: Callable[[], Status] = replica.status
        self.configuration: Callable[[], Configuration] = replica.configuration
        self.settled_version: Callable[[], int] = replica.settled_version
        self.quorum_contact_ms: Callable[[], int | None] = replica.quorum_contact_ms
        self.uncommitted_bytes: Callable[[], int] = replica.uncommitted_bytes
        self._replica = replica
        self._start = start

    def step(self, event: Event, now_ms: int) -> Effects:
        effects = self._replica.step(event, now_ms)
        self._start.ledger.stepped(self._start.node, effects, self._start.true_s)
        return effects
