"""Bugs in linearizable reads: thesis section 6.4."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_BARRIERS: Final = "quorate.consensus.barriers"
_FOLLOWER: Final = "quorate.consensus.base_follower"
_LEADER: Final = "quorate.consensus.stable_leader"
_GROUP: Final = "quorate.node.group"
_CONNECTION: Final = "quorate.services.zookeeper.connection"

MUTANTS: Final = (
    Mutant(
        "skip_opening_entry_before_barrier",
        "a new leader does not know yet what is committed, and lets reads pass at an older position",
        (Change(_LEADER, "return self.core.commit_position >= self.opening_position", "return True"),),
    ),
    Mutant(
        "deposed_leader_serves_reads",
        "barriers pass without the round: a leader that was deposed without knowing it shows old data",
        (
            Change(
                _BARRIERS,
                "while self._rides and self._rides[0].round <= quorum_round:",
                "while self._rides:",
            ),
        ),
    ),
    Mutant(
        "barrier_rides_on_an_older_round",
        "answers to a round that began before the barrier was asked say nothing of the time since",
        (Change(_BARRIERS, "_Ride(self.current, barrier_position,", "_Ride(self.current - 1, barrier_position,"),),
    ),
    Mutant(
        "barrier_at_handed_position",
        "while the leader's own disk is slow others have committed, and applied, what its reads do not wait for",
        (
            Change(
                _LEADER,
                "position = core.commit_position if self._is_opened() else None",
                "position = core.handed_position if self._is_opened() else None",
            ),
        ),
    ),
    Mutant(
        "barrier_passes_before_apply",
        "reads are let through before the local store has applied what the barrier stands for",
        (
            Change(
                _GROUP,
                "ready = [item for item in self._passed_barriers if item[0] <= self.applied_position]",
                "ready = list(self._passed_barriers)",
            ),
            Change(
                _GROUP,
                "self._passed_barriers = [item for item in self._passed_barriers if item[0] > self.applied_position]",
                "self._passed_barriers = []",
            ),
        ),
    ),
    Mutant(
        "failed_barrier_taken_for_passed",
        "a node that is cut off answers a sync, and the read behind it shows old data",
        (Change(_GROUP, "done(False)", "done(True)"),),
    ),
    Mutant(
        "follower_passes_barriers_itself",
        "a follower takes its own commit position for the cluster's, and reads there see the past",
        (
            Change(
                _FOLLOWER,
                """        self.barriers.add(barrier_id, core.now_ms + core.timing.election_timeout_ms)
        self._request_barrier(leader, barrier_id)
""",
                """        core.effects.barriers_passed.append(BarrierPassed(barrier_id, core.commit_position))
""",
            ),
        ),
    ),
    Mutant(
        "resigning_leader_forgets_barriers",
        "every request is answered: who asked a leader for a barrier waits on when its leadership is over",
        (Change(_LEADER, "for barrier in self.rounds.fail_all():", "for barrier in list[Barrier]():"),),
    ),
    Mutant(
        "sync_without_barrier",
        "a sync is answered at once: the read behind it shows whatever this node has applied",
        (
            Change(
                _CONNECTION,
                "self.door.group.barrier(partial(self._finish_sync, xid, body))",
                "self._finish_sync(xid, body, True)",
            ),
        ),
    ),
)
