"""A replica, whatever its protocol: takes each event to the role that the server has, and tells its node who leads.

Each protocol has a replica that extends this one by its messages and its changes of role.
A server is in one of three kinds of roles: it leads, it follows, or it is in an election.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar

from quorate.consensus.barriers import Barrier
from quorate.consensus.base_follower import BaseFollower
from quorate.consensus.core import ServerCore
from quorate.consensus.membership import Configuration, InvalidConfiguration, decode_configuration
from quorate.consensus.replica import (
    ChangeMembers,
    Compacted,
    Effects,
    Event,
    Leadership,
    Message,
    NodeId,
    PeerLost,
    Persisted,
    Propose,
    ReadBarrier,
    Receive,
    Refusal,
    Role,
    SnapshotArrived,
    SnapshotSent,
    Status,
    Tick,
    TransferLeadership,
)
from quorate.consensus.sanity import MAX_NUMBER
from quorate.consensus.stable_leader import StableLeader

MAX_ASKER: Final = 1 << 31


class Election(Protocol):
    """The part that a server takes in an election."""

    def deadline_ms(self) -> int: ...

    def tick(self) -> bool:
        """Whether to give up, and to begin another."""
        ...


CoreT = TypeVar("CoreT", bound=ServerCore)
AnyRole: TypeAlias = BaseFollower[Any] | Election | StableLeader[Any, Any]


class BaseReplica(Generic[CoreT]):
    """One server of one group.  Implements `quorate.consensus.replica.Replica`."""

    _LOWEST_GENERATION: ClassVar[int] = 1
    """Of an entry at which there may be a snapshot."""

    def __init__(self, core: CoreT) -> None:
        self._core = core
        self._asker = core.random.randrange(0, MAX_ASKER)
        """Tells this replica's forwarded barriers from those before a restart."""
        self._role: AnyRole = self._first_role()
        self._announced = self._leadership()
        self._announced_role: AnyRole = self._role

    @abstractmethod
    def _first_role(self) -> BaseFollower[CoreT]: ...

    # --- the interface -------------------------------------------------------------------

    def step(self, event: Event, now_ms: int) -> Effects:
        core = self._core
        core.begin(now_ms)
        if isinstance(event, Receive):
            self._receive(event.sender, event.message)
        elif isinstance(event, Persisted):
            self._persisted(event.ticket)
        elif isinstance(event, Propose):
            role = self._role
            core.effects.refused = role.propose(event.payload) if isinstance(role, StableLeader) else Refusal.NOT_LEADER
        elif isinstance(event, Tick):
            self._tick()
        else:
            self._take_rare(event)
        effects = core.finish()
        if effects.configuration is not None or self._may_have_new_leadership():
            leadership = self._leadership()
            if leadership != self._announced:
                effects.leadership = self._announced = leadership
            self._announced_role = self._role
        return effects

    def deadline_ms(self) -> int:
        role = self._role
        return role.heartbeat_ms if isinstance(role, StableLeader) else role.deadline_ms()

    def status(self) -> Status:
        core, role = self._core, self._role
        leadership = self._leadership()
        return Status(
            role=leadership.role,
            leader=leadership.leader,
            generation=core.generation,
            ready=leadership.ready,
            voters=core.voters,
            learners=tuple(core.configuration.learners),
            first_position=core.log.base_position + 1,
            last_position=core.log.last_position,
            commit_position=core.commit_position,
            durable_position=core.durable_position,
            words=self._words() | {"election_timeout_ms": core.timing.election_timeout_ms},
            peer_positions=role.peer_positions() if isinstance(role, StableLeader) else {},
            successor=role.successor() if isinstance(role, StableLeader) else None,
        )

    @abstractmethod
    def _words(self) -> dict[str, int | str]:
        """The protocol's own for its state."""

    def configuration(self) -> Configuration:
        return self._core.configuration

    def settled_version(self) -> int:
        return -1 if self._core.is_changing() else self._core.configuration.version

    def quorum_contact_ms(self) -> int | None:
        role = self._role
        return role.rounds.contact_ms if isinstance(role, StableLeader) and role.is_ready() else None

    def uncommitted_bytes(self) -> int:
        return self._role.uncommitted_bytes if isinstance(self._role, StableLeader) else 0

    # --- events --------------------------------------------------------------------------

    @abstractmethod
    def _receive(self, sender: NodeId, message: Message) -> None: ...

    def _take_rare(self, event: Event) -> None:
        core, role = self._core, self._role
        if isinstance(event, ReadBarrier):
            self._read_barrier(event.barrier_id)
        elif isinstance(event, Compacted):
            core.compact(event.position)
        elif isinstance(event, SnapshotArrived):
            self._snapshot_arrived(event)
        elif isinstance(event, SnapshotSent):
            if isinstance(role, StableLeader):
                role.snapshot_sent(event.peer, event.position)
        elif isinstance(event, PeerLost):
            if isinstance(role, StableLeader):
                role.peer_lost(event.peer)
            else:
                self._leader_lost(event.peer)
        else:
            assert isinstance(event, ChangeMembers | TransferLeadership), event
            core.effects.refused = self._lead(event)

    def _lead(self, event: ChangeMembers | TransferLeadership) -> Refusal | None:
        role = self._role
        if not isinstance(role, StableLeader):
            return Refusal.NOT_LEADER
        if isinstance(event, ChangeMembers):
            return role.change(event.goal)
        return role.transfer_to(event.target, event.avoid)

    def _tick(self) -> None:
        role = self._role
        if isinstance(role, StableLeader):
            if not role.tick():
                self._step_down()
        elif role.tick():
            self._begin_election()

    def _persisted(self, ticket: int) -> None:
        self._core.persisted(ticket)
        role = self._role
        if isinstance(role, StableLeader):
            role.persisted()
        elif not isinstance(role, BaseFollower):
            self._count()

    def _read_barrier(self, barrier_id: int) -> None:
        role = self._role
        if isinstance(role, StableLeader):
            role.barrier(Barrier(barrier_id, self._core.node_id, None))
        elif isinstance(role, BaseFollower):
            role.forward_barrier(barrier_id)
        else:
            self._core.effects.barriers_failed.append(barrier_id)

    def _snapshot_arrived(self, event: SnapshotArrived) -> None:
        # The numbers came with the snapshot, off the network.
        if not self._LOWEST_GENERATION <= event.position_generation <= event.generation <= MAX_NUMBER:
            return
        if not 1 <= event.position <= MAX_NUMBER or event.sender == self._core.node_id:
            return
        try:
            encoded = event.configuration
            configuration = decode_configuration(encoded) if encoded else self._core.config.initial
        except InvalidConfiguration:
            return
        follower = self._follow_sender(event.sender, event.generation)
        if follower is not None:
            follower.take_snapshot(event, configuration)

    # --- changes of role -----------------------------------------------------------------

    @abstractmethod
    def _step_down(self) -> None:
        """No quorum hears this leader, or it is no voter any more."""

    @abstractmethod
    def _begin_election(self) -> None:
        """No leader was heard for too long, or an election led to nothing."""

    @abstractmethod
    def _leader_lost(self, peer: NodeId) -> None:
        """The connection to `peer`, which may be the leader, was closed."""

    @abstractmethod
    def _count(self) -> None:
        """In an election: what it asks for may be complete, now that the own promise is durable."""

    @abstractmethod
    def _follow_sender(self, sender: NodeId, generation: int) -> BaseFollower[CoreT] | None:
        """`sender` sent a snapshot as the leader of `generation`.  None where it is not to be followed."""

    def _leave(self) -> None:
        """The role ends: what waits for it fails."""
        role = self._role
        if isinstance(role, StableLeader):
            role.resign()
        elif isinstance(role, BaseFollower):
            role.fail_barriers()

    # --- leadership, for the node --------------------------------------------------------

    def _leadership(self) -> Leadership:
        core, role = self._core, self._role
        if isinstance(role, StableLeader):
            return Leadership(Role.LEADER, core.node_id, core.generation, role.is_ready())
        if isinstance(role, BaseFollower):
            return Leadership(Role.FOLLOWER if core.is_voter else Role.LEARNER, role.known_leader(), core.generation)
        return Leadership(Role.CANDIDATE if core.may_stand() else Role.LEARNER, None, core.generation)

    def _may_have_new_leadership(self) -> bool:
        """False on almost every step: a role lives in one generation, and within it only these two can change.

        And whether it votes, which a configuration says.
        """
        role = self._role
        if role is not self._announced_role:
            return True
        if isinstance(role, StableLeader):
            return not self._announced.ready and role.is_ready()
        return isinstance(role, BaseFollower) and role.leader != self._announced.leader
