"""A follower, whatever its protocol: how long it waits for its leader, and barriers on their way through it.

Each protocol has a follower that extends this one by how it takes what its leader says.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar

from quorate.consensus.barriers import ForwardedBarriers
from quorate.consensus.core import ServerCore
from quorate.consensus.membership import Configuration
from quorate.consensus.replica import BarrierPassed, NodeId, SnapshotArrived

CoreT = TypeVar("CoreT", bound=ServerCore)


class BaseFollower(Generic[CoreT]):
    """Follows `leader`, or waits to hear of one where it is None."""

    def __init__(self, core: CoreT, asker: int, leader: NodeId | None = None) -> None:
        """`asker` tells this replica's forwarded barriers from those before a restart."""
        self.core = core
        self.asker = asker
        self.leader = leader
        self.barriers = ForwardedBarriers()
        self.election_timeout_ms = core.draw_election_timeout_ms()
        self.election_ms = core.now_ms + self.election_timeout_ms
        """When this server gives its leader up."""

    def known_leader(self) -> NodeId | None:
        """One that was heard to lead."""
        return self.leader

    # --- time ----------------------------------------------------------------------------

    def postpone_election(self) -> None:
        self.election_ms = self.core.now_ms + self.election_timeout_ms

    def hasten_election(self) -> None:
        """Within a quarter of the election timeout; not at once, so that others may have noticed the same."""
        timeout_ms = self.core.timing.election_timeout_ms
        delay_ms = self.core.random.randrange(timeout_ms // 16, timeout_ms // 4 + 1)
        self.election_ms = min(self.election_ms, self.core.now_ms + delay_ms)

    def redraw_election_timeout(self) -> None:
        """By what the leader says of round trips another one is right."""
        self.election_timeout_ms = self.core.draw_election_timeout_ms()
        self.postpone_election()

    def deadline_ms(self) -> int:
        expiry_ms = self.barriers.next_expiry_ms
        return self.election_ms if expiry_ms is None else min(self.election_ms, expiry_ms)

    def tick(self) -> bool:
        """Whether it is time for an election."""
        core = self.core
        expiry_ms = self.barriers.next_expiry_ms
        if expiry_ms is not None and expiry_ms <= core.now_ms:
            core.effects.barriers_failed.extend(self.barriers.take_expired(core.now_ms))
        return core.now_ms >= self.election_ms

    # --- snapshots -----------------------------------------------------------------------

    @abstractmethod
    def take_snapshot(self, event: SnapshotArrived, configuration: Configuration) -> None:
        """The leader's snapshot is here: go on from it, and tell the leader once that is durable."""

    # --- barriers ------------------------------------------------------------------------

    def forward_barrier(self, barrier_id: int) -> None:
        core, leader = self.core, self.known_leader()
        if leader is None:
            core.effects.barriers_failed.append(barrier_id)
            return
        self.barriers.add(barrier_id, core.now_ms + core.timing.election_timeout_ms)
        self._request_barrier(leader, barrier_id)

    @abstractmethod
    def _request_barrier(self, leader: NodeId, barrier_id: int) -> None: ...

    def receive_barrier_answer(self, asker: int, barrier_id: int, position: int) -> None:
        """Position -1 says that it failed."""
        if asker != self.asker or not self.barriers.take(barrier_id):
            return
        if position < 0:
            self.core.effects.barriers_failed.append(barrier_id)
        else:
            self.core.effects.barriers_passed.append(BarrierPassed(barrier_id, position))

    def fail_barriers(self) -> None:
        self.core.effects.barriers_failed.extend(self.barriers.take_all())
