"""Elections with pre-vote, after Raft (Ongaro's thesis, sections 4.2.3 and 9.6): Raft's, and Multi-Paxos' too.

A server that hears no leader first asks whether a candidacy could win, which changes
nobody's state, and stands only when a quorum would have it.  Whoever hears a leader answers
no candidate, so a server that lost touch cannot depose one that works.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic

from quorate.consensus.base_follower import BaseFollower
from quorate.consensus.base_replica import BaseReplica, CoreT
from quorate.consensus.replica import NodeId
from quorate.consensus.stable_leader import StableLeader


class WaitingFollower(BaseFollower[CoreT]):
    """Stands for election when it hears from no leader for its election timeout."""

    def __init__(self, core: CoreT, asker: int, leader: NodeId | None = None) -> None:
        super().__init__(core, asker, leader)
        self.heard_ms = core.now_ms
        """When the leader was last heard from; without meaning while there is none."""

    def hear_from(self, leader: NodeId) -> None:
        """The leader of the current generation lives."""
        assert self.leader is None or self.leader == leader, (self.core.generation, self.leader, leader)
        self.leader = leader
        self.heard_ms = self.core.now_ms
        self.election_ms = self.core.now_ms + self.election_timeout_ms

    def leader_is_alive(self) -> bool:
        """Whether candidates get no answer, so that a server that lost touch cannot depose a working leader.

        By the timeout in effect: nobody who was told the same by the leader stands sooner, so
        this keeps no election from its time.  One who was told less is kept waiting, but for
        `max_election_timeout_ms` at most, since silence counts from when the leader was heard.
        """
        return self.leader is not None and self.core.now_ms - self.heard_ms < self.core.timing.election_timeout_ms

    def tick(self) -> bool:
        """Whether it is time to stand for election."""
        if not super().tick():
            return False
        if not self.core.may_stand():
            self.postpone_election()
            return False
        return True

    def leader_lost(self) -> None:
        """The connection to the leader closed: stand soon unless it is heard from again."""
        self.leader = None
        self.hasten_election()
        self.fail_barriers()


class BaseCandidate(Generic[CoreT]):
    """Gathers answers, first to a pre-vote, then to its candidacy."""

    def __init__(self, core: CoreT, pre_vote: bool) -> None:
        assert core.may_stand()
        self.core = core
        self.pre_vote = pre_vote
        """Nothing but a pre-vote is asked for."""
        timeout_ms = core.draw_election_timeout_ms()
        self.election_ms = core.now_ms + (timeout_ms // 2 if pre_vote else timeout_ms)
        """When this is given up for a new pre-vote: sooner for pre-votes, since asking for them disturbs nobody."""
        self._answers: dict[NodeId, bool] = {}
        """Who would grant it or has, or refused.  The first answer holds: a voter answers one way only."""

    def deadline_ms(self) -> int:
        return self.election_ms

    def tick(self) -> bool:
        """Whether to give up."""
        return self.core.now_ms >= self.election_ms

    @abstractmethod
    def has_won(self) -> bool:
        """A quorum granted, the own vote among them as soon as that is durable."""

    @abstractmethod
    def has_lost(self) -> bool:
        """So many refused that no quorum is left to grant."""

    def _voters(self, granted: bool) -> list[NodeId]:
        return [voter for voter, answer in self._answers.items() if answer == granted]


class PreVoteReplica(BaseReplica[CoreT]):
    """A server that stands for election after a pre-vote."""

    @abstractmethod
    def _follower(self, leader: NodeId | None) -> WaitingFollower[CoreT]: ...

    def _first_role(self) -> WaitingFollower[CoreT]:
        return self._follower(None)

    def _leader_is_alive(self) -> bool:
        role = self._role
        return isinstance(role, StableLeader) or (isinstance(role, WaitingFollower) and role.leader_is_alive())

    def _leader_lost(self, peer: NodeId) -> None:
        role = self._role
        if isinstance(role, WaitingFollower) and role.leader == peer:
            role.leader_lost()

    def _count(self) -> None:
        candidate = self._role
        assert isinstance(candidate, BaseCandidate)
        if candidate.has_lost():
            self._become_follower(None)
        elif candidate.has_won():
            if candidate.pre_vote:
                self._stand()
            else:
                self._become_leader()

    # --- changes of role -----------------------------------------------------------------

    def _step_down(self) -> None:
        self._become_follower(None)

    def _become_follower(self, leader: NodeId | None) -> None:
        self._leave()
        self._role = self._follower(leader)

    def _begin_election(self) -> None:
        """Ask whether a candidacy could win, before disturbing anyone with a new generation."""
        self._leave()
        self._role = self._candidate(pre_vote=True)
        self._count()

    def _stand(self, transfer: bool = False) -> None:
        """A quorum would have this server lead, or (`transfer`) its leader would: go on to a new generation."""
        self._leave()
        self._enter_own_generation()
        self._role = self._candidate(pre_vote=False, transfer=transfer)

    @abstractmethod
    def _enter_own_generation(self) -> None:
        """Promise itself to its own candidacy."""

    @abstractmethod
    def _candidate(self, pre_vote: bool, transfer: bool = False) -> BaseCandidate[CoreT]: ...

    @abstractmethod
    def _become_leader(self) -> None: ...
