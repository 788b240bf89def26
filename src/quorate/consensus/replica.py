"""The replica interface: events in, effects out.  Raft, Multi-Paxos and ZAB stand behind it.

A replica is a value.  `step(event, now_ms)` changes it and returns `Effects`: everything
that it wants from the world.  Its node carries the effects out in this order, which is the
whole durability contract (DESIGN.md section 4):

1. append `records` to the log, and send `messages` (they need not wait);
2. make the records durable, then send `messages_after_persist` and feed `Persisted(ticket)`;
3. apply `committed`, in order.

Tickets only grow, so a record that was written, truncated and written again is never
confused with itself.  Time is an argument, in milliseconds of a clock that never goes back
and has no meaning between nodes; randomness is handed in.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import msgspec

from quorate.consensus.membership import Configuration
from quorate.consensus.records import Entry, Record, Recovered

NodeId: TypeAlias = int


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of every protocol's messages.  They travel between nodes as msgpack arrays."""

    def payload_bytes(self) -> int:
        """Bytes of log entries carried: what a node whose disk is full must not accept."""
        return 0

    def vouches(self) -> bool:
        """Whether the receiver counts it as its sender's word: a vote, an acknowledgement.

        Such a message is worth something only from the incarnation that is a voter.
        """
        return False

    def asks_to_lead(self) -> bool:
        """Whether it hands the sender's leadership to the receiver: a node that stops takes none."""
        return False


# --- events: all that can happen to a replica ------------------------------------------------


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed.  Due whenever `now_ms` reaches `Replica.deadline_ms()`; harmless earlier."""


class Receive(msgspec.Struct, frozen=True):
    """A message from a peer.  Messages may be lost, delayed, duplicated and reordered."""

    sender: NodeId
    message: Message


class Propose(msgspec.Struct, frozen=True, gc=False):
    """Append one batch to the log.  Refused (`Effects.refused`) where this is no ready leader."""

    payload: bytes


class ReadBarrier(msgspec.Struct, frozen=True, gc=False):
    """Ask, on any node, for a position such that a store that has applied it may answer linearizable reads.

    Answered by `Effects.barriers_passed` or `Effects.barriers_failed` under the same id.
    Ids are chosen by the node and never used twice in a process.
    """

    barrier_id: int


class Persisted(msgspec.Struct, frozen=True, gc=False):
    """The records of every effect with a ticket up to `ticket` are durable."""

    ticket: int


class Compacted(msgspec.Struct, frozen=True, gc=False):
    """This node made a durable snapshot of its store at `position`; entries before it may be dropped."""

    position: int


class SnapshotArrived(msgspec.Struct, frozen=True, gc=False):
    """A peer's snapshot came in whole and is durable here, but not yet installed.

    `generation` is that of the sender's leadership, as in its `SendSnapshot`;
    `position_generation` that of the entry at `position`.
    """

    sender: NodeId
    generation: int
    position: int
    position_generation: int
    configuration: bytes
    """Who decided as of `position`, encoded."""


class SnapshotSent(msgspec.Struct, frozen=True, gc=False):
    """A `SendSnapshot` ended: the peer has the snapshot of `position`, or, where None, the transfer failed."""

    peer: NodeId
    position: int | None


class PeerLost(msgspec.Struct, frozen=True, gc=False):
    """The connection to `peer` was closed by its side: a hint, never proof, that its process is gone."""

    peer: NodeId


class ChangeMembers(msgspec.Struct, frozen=True):
    """Lead the group, on its ready leader, towards `goal`, which is not joint.

    One call is one step at most, so it is repeated until `Replica.settled_version()` is
    the goal's: members that are new become learners first, whoever is to vote must have
    caught up (`Refusal.NOT_CAUGHT_UP` until then), and sets of voters take over from one
    another jointly.  A goal whose version is not above that of the latest configuration,
    and that is not the goal of a change under way, is refused as `Refusal.OUTDATED`.
    """

    goal: Configuration


class TransferLeadership(msgspec.Struct, frozen=True, gc=False):
    """Hand the leadership to `target`, a voter; None for the one that is furthest and not in `avoid`.

    One that is being handed to somebody in `avoid` goes to another, or stays.  The leader
    takes no proposals meanwhile.  It gives up after an election timeout and
    leads on; a target that lags too far, or does not answer, is refused as
    `Refusal.NOT_CAUGHT_UP`.
    """

    target: NodeId | None = None
    avoid: tuple[NodeId, ...] = ()


Event: TypeAlias = (
    Tick
    | Receive
    | Propose
    | ReadBarrier
    | Persisted
    | Compacted
    | SnapshotArrived
    | SnapshotSent
    | PeerLost
    | ChangeMembers
    | TransferLeadership
)


# --- effects: all that a replica can want ----------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """One message to one peer, never to oneself."""

    to: NodeId
    message: Message


class SendSnapshot(msgspec.Struct, frozen=True, gc=False):
    """The peer needs entries that are gone: send it the newest snapshot, in chunks, on a connection of its own."""

    to: NodeId
    generation: int


class InstallSnapshot(msgspec.Struct, frozen=True, gc=False):
    """Replace the store by the snapshot of `position` that arrived; entries after it follow as committed."""

    position: int
    generation: int


class BarrierPassed(msgspec.Struct, frozen=True, gc=False):
    """Reads under this barrier are linearizable once the local store has applied `position`."""

    barrier_id: int
    position: int


class Role(enum.Enum):
    """What a node is in its group.  The words are neutral; `Status.words` has the protocol's own."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    LEARNER = "learner"


class Refusal(enum.Enum):
    """Why a replica did nothing with a request.  Nothing was appended: the request may be made again."""

    NOT_LEADER = "this node does not lead the group"
    OVERLOADED = "too many bytes are waiting to be committed"
    UNSUPPORTED = "this protocol cannot do that yet"
    CHANGE_UNDER_WAY = "an earlier change of the members is not committed yet"
    NOT_CAUGHT_UP = "the node has not caught up"
    OUTDATED = "the members have been changed since"
    NOT_A_VOTER = "the node is not another voter of the group"
    TRANSFERRING = "the leadership is being handed over"


class Leadership(msgspec.Struct, frozen=True):
    """Who leads, as this node sees it.

    `ready` is true on the leader itself, from when its opening entry is handed out to be
    applied: with it everything that earlier leaderships committed has been handed out.
    """

    role: Role
    leader: NodeId | None
    generation: int
    ready: bool = False


@dataclass(slots=True)
class Effects:
    """All that one step wants.  Lists are in order; the node carries them out as the module head says."""

    records: list[Record] = field(default_factory=list)
    ticket: int = 0
    """Ticket of `records` and `messages_after_persist`; 0 where both are empty."""
    messages: list[Send] = field(default_factory=list)
    messages_after_persist: list[Send] = field(default_factory=list)
    install: InstallSnapshot | None = None
    """Carried out before `committed`."""
    committed: list[Entry] = field(default_factory=list)
    """Next entries to apply: contiguous, each exactly once since restart, all durable on this node.

    Entries of the protocol's own (a leader's opening entry) have an empty payload: they
    move the applied position and nothing else.  So has a void one of Multi-Paxos, whose
    generation is 0.
    """
    barriers_passed: list[BarrierPassed] = field(default_factory=list)
    barriers_failed: list[int] = field(default_factory=list)
    snapshots: list[SendSnapshot] = field(default_factory=list)
    leadership: Leadership | None = None
    """Set where role, leader, generation or readiness changed in this step."""
    configuration: Configuration | None = None
    """The latest configuration, where it changed, or became settled, in this step."""
    refused: Refusal | None = None
    """Set where a Propose, ChangeMembers or TransferLeadership was refused."""


@dataclass(frozen=True, slots=True)
class Status:
    """A replica's state for people and metrics.  Positions as in `records`; -1 stands for unknown."""

    role: Role
    leader: NodeId | None
    generation: int
    ready: bool
    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...]
    first_position: int
    """First position still held in memory."""
    last_position: int
    commit_position: int
    durable_position: int
    """What is in the log through here is durable on this node."""
    words: dict[str, int | str]
    """The protocol's own words for its state, for example {"term": 7, "voted_for": 1}."""
    peer_positions: dict[NodeId, int]
    """On a leader: the position that each peer is known to hold durably."""
    successor: NodeId | None = None
    """To whom the leader hands over."""


class RandomSource(Protocol):
    """The part of `random.Random` that a replica may use."""

    def randrange(self, start: int, stop: int) -> int: ...


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    """What every protocol needs to know of its place.  Times in milliseconds, sizes in bytes."""

    node_id: NodeId
    initial: Configuration
    """Who decides before the log says otherwise; the same on all first members, `NO_CONFIGURATION` on later ones."""
    incarnation: str = ""
    """Of this node's data folder.  It stands and counts itself only where a configuration names it with this one."""
    election_timeout_ms: int = 400
    """A follower stands for election after this long without its leader, and up to as long again by chance.

    This is the lower bound: where round trips take long it grows, up to `max_election_timeout_ms`.
    """
    max_election_timeout_ms: int = 4_000
    heartbeat_interval_ms: int = 80
    max_bytes_in_flight: int = 16 << 20
    """Bytes of entries sent to one peer and not yet acknowledged by it."""
    max_message_bytes: int = 1 << 20
    """Bytes of entries in one message, unless a single entry is larger."""
    max_uncommitted_bytes: int = 64 << 20
    """A leader refuses proposals (`Refusal.OVERLOADED`) above this."""
    max_tail_bytes: int = 32 << 20
    """Committed entries kept in memory for lagging peers; one that needs older ones gets a snapshot."""


class Replica(Protocol):
    """One node's part in one group."""

    def step(self, event: Event, now_ms: int) -> Effects:
        """Take one event.  Raises only for bugs of ours (AssertionError); any message of the right type is safe."""
        ...

    def deadline_ms(self) -> int:
        """When `Tick` is due."""
        ...

    def status(self) -> Status: ...

    def configuration(self) -> Configuration:
        """The latest in the log, which is the one that counts, committed or not."""
        ...

    def settled_version(self) -> int:
        """Version of the latest configuration where it is committed and not joint, else -1."""
        ...

    def quorum_contact_ms(self) -> int | None:
        """On a ready leader: a time of its own clock after which it is known to have led, else None.

        The latest moment such that a quorum answered messages that were sent at or after
        it.  No other leader can have been elected by that moment.
        """
        ...

    def uncommitted_bytes(self) -> int:
        """On a leader: bytes proposed and not committed, for backpressure; elsewhere 0."""
        ...


@dataclass(frozen=True, slots=True)
class ConsensusProtocol:
    """A protocol as the node knows it: how to decode its messages and build its replicas."""

    name: str
    message_type: Any
    """A union of `Message` subclasses, for msgspec decoders."""
    build: Callable[[ReplicaConfig, Recovered, RandomSource, int], Replica]
    """(config, recovered, random, now_ms) -> a replica that starts as a follower.

    The store is taken to have been restored from a snapshot of `recovered.compacted.position`;
    entries after it come out as `Effects.committed` when they are known to be committed.
    """
    generation_of: Callable[[bytes | None], int]
    """The generation that a saved hard state has reached, 0 without one.  Raises InvalidState."""
    describe_generation: Callable[[int], str]
    """A generation in the protocol's own words, a word and a number: "term 7"."""
    leaves_holes: bool
    """Entries are accepted out of order, so a log that is read back may lack some before its last one."""
    state_at: Callable[[int], bytes]
    """A hard state that has reached the generation and promised nobody anything: for a cluster made of a backup."""
