"""Raft with mistakes put in, walked through the lab: which invariant sees which mistake within a few seeds.

The table below is also what tells that a check has grown weaker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from quorate.consensus.barriers import Barrier, Rounds
from quorate.consensus.progress import LogProgress
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.raft import core
from quorate.consensus.raft.candidate import Candidate
from quorate.consensus.raft.core import Core
from quorate.consensus.raft.follower import Follower
from quorate.consensus.raft.hard_state import encode_hard_state
from quorate.consensus.raft.leader import Leader
from quorate.consensus.raft.messages import Append, Appended, Commit, RaftMessage, RequestVote, Vote
from quorate.consensus.raft.replica import RaftReplica
from quorate.consensus.replica import BarrierPassed, Effects, Event, NodeId, Send
from quorate.simulation.raft_invariants import RaftInvariants
from quorate.simulation.violation import Violation
from tests.consensus.exploration import Walk
from tests.consensus.lab import Server

STEPS = 3000
SEEDS = 20

Mistake = tuple[object, str, Callable[..., Any]]
"""(class or module, method or function, what to put in its place)."""


def vote_again(self: Core, node: NodeId) -> None:
    self.voted_for = node
    self._save_state()


def would_vote_again(self: RaftReplica, sender: NodeId, message: RequestVote) -> bool:
    log = self._core.log
    return message.term >= self._core.term and (
        (message.last_term, message.last_position) >= (log.last_generation, log.last_position)
    )


def would_vote_for_any_log(self: RaftReplica, sender: NodeId, message: RequestVote) -> bool:
    core, role = self._core, self._role
    if message.term == core.term and isinstance(role, Follower) and role.leader not in (None, sender):
        return False
    return message.term > core.term or (message.term == core.term and core.voted_for in (None, sender))


def would_vote_for_the_longer_log(self: RaftReplica, sender: NodeId, message: RequestVote) -> bool:
    return would_vote_for_any_log(self, sender, message) and message.last_position >= self._core.log.last_position


def save_no_vote(term: int, voted_for: NodeId | None) -> bytes:
    return encode_hard_state(term, None)


def take_every_vote(self: Candidate, sender: NodeId, message: Vote) -> None:
    self._answers.setdefault(sender, message.granted)


def truncate_in_memory(self: Core, position: int) -> None:
    self.log.truncate_from(position)
    self.durable_position = min(self.durable_position, position - 1)
    self._unpersisted = deque([(ticket, min(last, position - 1)) for ticket, last in self._unpersisted])


def commit_by_counting(self: Leader) -> None:
    """`_advance_commit` without the look at the term."""
    core = self.core
    held_position, former_position = core.quorum.greatest_held(self._match_positions), core.commit_position
    if core.commit(held_position):
        for entry in core.log.between(max(former_position, core.log.base_position) + 1, held_position):
            if entry.position > self.opening_position:
                self.uncommitted_bytes -= len(entry.payload)
        self._begin_wanted_round()
        for progress in self._progress_by_id.values():
            self._tell_commit(progress)
        if held_position >= self._change_position:
            self._configuration_committed()


def speaks_at_once(*kinds: type) -> Callable[[Core, NodeId, RaftMessage], None]:
    send = Core.send

    def speak(self: Core, to: NodeId, message: RaftMessage) -> None:
        if isinstance(message, kinds):
            self.effects.messages.append(Send(to, message))
        else:
            send(self, to, message)

    return speak


def replace_what_matches(self: Follower, previous_position: int, message: Append, count: int) -> bool:
    if previous_position < self.core.log.last_position:
        self.core.truncate_from(previous_position + 1)
    self.core.append_all(message.entries[len(message.entries) - count :])
    return True


def count_own_log_before_it_is_durable(self: Leader) -> None:
    self._match_positions[self.core.node_id] = self.core.log.last_position
    self._advance_commit()


def pass_without_a_round(self: Leader, barrier: Barrier) -> None:
    if barrier.asker is None:
        self.core.effects.barriers_passed.append(BarrierPassed(barrier.barrier_id, self.core.commit_position))


def ride_on_the_round_before() -> Callable[[Rounds, int, int | None], int]:
    begin = Rounds.begin

    def hasty(self: Rounds, now_ms: int, barrier_position: int | None) -> int:
        number = begin(self, now_ms, barrier_position)
        self._rides = deque([replace(ride, round=min(ride.round, number - 1)) for ride in self._rides])
        return number

    return hasty


def begin_round_at_what_was_handed_out(self: Leader) -> None:
    core = self.core
    position = core.handed_position if self._is_opened() else None
    self._answered_rounds[core.node_id] = self.rounds.begin(core.now_ms, position)
    self._confirm_rounds()


def tell_what_it_has_not_counted(self: Leader, progress: LogProgress) -> None:
    if progress.match_position > progress.commit_told:
        progress.commit_told = progress.match_position
        self.core.send(progress.peer, Commit(self.core.term, progress.match_position))


def hand_out_what_is_not_durable() -> Callable[[Core], Effects]:
    finish = Core.finish

    def hasty(self: Core) -> Effects:
        durable_position, self.durable_position = self.durable_position, self.commit_position
        effects = finish(self)
        self.durable_position = durable_position
        return effects

    return hasty


MISTAKES: dict[str, tuple[tuple[Mistake, ...], str, str | None]] = {
    # name: (what is changed, the check that sees it first, what sees it without Raft's own invariants)
    "vote twice in a term": (
        ((Core, "vote_for", vote_again), (RaftReplica, "_would_vote", would_vote_again)),
        "one vote",
        "election safety",
    ),
    "forget the up-to-date check": (
        ((RaftReplica, "_would_vote", would_vote_for_any_log),),
        "election restriction",
        "leader completeness",
    ),
    "compare logs by their length alone": (
        ((RaftReplica, "_would_vote", would_vote_for_the_longer_log),),
        "election restriction",
        "leader completeness",
    ),
    "do not save the vote": (((core, "encode_hard_state", save_no_vote),), "durable before spoken", None),
    "count pre-votes as votes": (((Candidate, "receive_vote", take_every_vote),), "election by votes", None),
    "do not record a truncation": (((Core, "truncate_from", truncate_in_memory),), "log matching", None),
    # Without Raft's own: nothing within hundreds of seeds.
    "commit an earlier term's entry by counting": (
        ((Leader, "_advance_commit", commit_by_counting),),
        "commit by counting",
        None,
    ),
    "vote before it is durable": (((Core, "send", speaks_at_once(Vote)),), "durable before spoken", None),
    "acknowledge before it is durable": (
        ((Core, "send", speaks_at_once(Appended)),),
        "durable before spoken",
        "durable quorum",
    ),
    "truncate matching entries": (((Follower, "_save", replace_what_matches),), "durable quorum", "durable quorum"),
    "a leader counts itself too early": (
        ((Leader, "persisted", count_own_log_before_it_is_durable),),
        "durable quorum",
        "durable quorum",
    ),
    "hand out before it is durable": (
        ((Core, "finish", hand_out_what_is_not_durable()),),
        "durable before applied",
        "durable before applied",
    ),
    "skip the opening entry before a barrier": (
        ((Leader, "_is_opened", lambda self: True),),
        "read barrier",
        "read barrier",
    ),
    "pass a barrier without a round": (((Leader, "barrier", pass_without_a_round),), "read barrier", "read barrier"),
    "ride on the round before": (((Rounds, "begin", ride_on_the_round_before()),), "read barrier", None),
    "read what was handed out": (
        ((Leader, "_begin_round", begin_round_at_what_was_handed_out),),
        "read barrier",
        None,
    ),
    "tell a follower to commit what it alone holds": (
        ((Leader, "_tell_commit", tell_what_it_has_not_counted),),
        "durable quorum",
        "durable quorum",
    ),
    "be ready at once": (((Leader, "is_ready", lambda self: True),), "ready leader", "ready leader"),
    "claim to be in touch": (
        ((RaftReplica, "quorum_contact_ms", lambda self: self._core.now_ms if self._leadership().ready else None),),
        "quorum contact",
        "quorum contact",
    ),
}


def first_seen(own: bool) -> str | None:
    """The check that the first walk breaks which breaks any."""
    return next((seen for seed in range(SEEDS) if (seen := seen_on(seed, own)) is not None), None)


def seen_on(seed: int, own: bool) -> str | None:
    """The check that a walk breaks, with or without Raft's own invariants."""
    walk = Walk(PROTOCOLS["raft"], 3, seed)
    raft = RaftInvariants(walk.invariants.group)

    def watch(server: Server, event: Event, effects: Effects) -> None:
        raft.stepped(server.config.node_id, event, effects, server.running().status)

    if own:
        walk.lab.watchers.append(watch)
    try:
        walk.run(STEPS)
    except Violation as violation:
        return violation.check
    return None


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, check, general_check = MISTAKES[name]
    for owner, method, instead in changes:
        monkeypatch.setattr(owner, method, instead)
    assert first_seen(own=True) == check
    if general_check is not None:
        assert first_seen(own=False) == general_check


def test_what_was_committed_by_counting_could_be_lost_in_an_election(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_advance_commit", commit_by_counting)
    monkeypatch.setattr(RaftInvariants, "_check_counted", lambda self, view, last: None)
    monkeypatch.setattr(RaftInvariants, "_check_unopened", lambda self, view, reign, position: None)
    assert first_seen(own=True) == "election restriction"


def test_without_a_mistake_nothing_is_seen() -> None:
    assert first_seen(own=True) is None
