"""Bugs in two-phase commit, each of which the seeds of `tests.transactions.shop` must find."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_CORE: Final = "quorate.transactions.core"
_COORDINATOR: Final = "quorate.transactions.coordinator"
_LOCKS: Final = "quorate.transactions.locks"
_PARTICIPANT: Final = "quorate.transactions.participant"
_STATES: Final = "quorate.transactions.states"


def _at_once(messages: str) -> Change:
    before = "if rests_on <= self._persisted_ticket:"
    return Change(_CORE, before, f"{before[:-1]} or type(message).__name__ in {messages!r}.split():")


_RELEASE_OF_NOTHING: Final = Change(_LOCKS, "self._held.pop(owner)", "self._held.pop(owner, ())")
_PROMISED: Final = "        self._core.save(transaction, record)\n"
_RECOVER_LOCKS: Final = """            conflict = self.locks.acquire(transaction, prepared.reads, prepared.writes)
            assert conflict is None, f"{transaction} and another one were prepared with {conflict}"
"""
_ALL_SAID_YES: Final = "        assert voting.results.keys() == voting.operations.keys(), (number, voting)\n"
_RESULTS: Final = "{participant: voting.results[participant] for participant in voting.participants}"


def _shop(name: str, breaks: str, *changes: Change) -> Mutant:
    return Mutant(name, breaks, changes, "shop", "two_phase_commit")


MUTANTS: Final = (
    _shop(
        "announce_before_the_decision_is_durable",
        "a decision does not change: the coordinator crashes, and presumes of what it committed that it was aborted",
        _at_once("Decision Outcome"),
    ),
    _shop(
        "vote_before_the_promise_is_durable",
        "a yes outlives crashes: it is counted, and the participant has forgotten what to write",
        _at_once("Vote"),
    ),
    _shop(
        "acknowledge_before_durable",
        "a commit is forgotten when all have it: one loses it again, asks, and is told that it was aborted",
        _at_once("Acknowledgement"),
    ),
    _shop(
        "forget_votes_at_restart",
        "a yes outlives crashes",
        Change(
            _PARTICIPANT,
            "        self._state = state\n",
            "        self._state = state\n        state.prepared = {}\n",
        ),
    ),
    _shop(
        "forget_locks_at_restart",
        "serializable: what was promised is overtaken by another transaction after a crash",
        Change(_PARTICIPANT, _RECOVER_LOCKS, ""),
        _RELEASE_OF_NOTHING,
    ),
    _shop(
        "commit_on_a_missing_vote",
        "a commit needs the yes of everybody",
        Change(_COORDINATOR, "== len(voting.operations):", ">= len(voting.operations) - 1:"),
        Change(_COORDINATOR, _ALL_SAID_YES, ""),
        Change(_COORDINATOR, _RESULTS, "dict(voting.results)"),
    ),
    _shop(
        "count_votes",
        "a commit needs the yes of everybody: a repeated vote passes for another participant's",
        Change(
            _COORDINATOR,
            "voting.results[sender] = vote.result",
            "voting.results[sender if sender not in voting.results else sender + str(len(voting.results))] = b''",
        ),
        Change(_COORDINATOR, _ALL_SAID_YES, ""),
        Change(_COORDINATOR, _RESULTS, "{}"),
    ),
    _shop(
        "release_locks_between_the_phases",
        "serializable: another transaction plans on values that are about to be overwritten",
        Change(_PARTICIPANT, _PROMISED, f"{_PROMISED}        self.locks.release(transaction)\n"),
        Change(_PARTICIPANT, _RECOVER_LOCKS, ""),
        _RELEASE_OF_NOTHING,
    ),
    _shop(
        "do_not_lock_what_is_read",
        "serializable: a value that a decision rests on changes before the decision",
        Change(
            _PARTICIPANT,
            "self.locks.acquire(transaction, plan.reads, plan.writes)",
            "self.locks.acquire(transaction, (), plan.writes)",
        ),
        Change(_PARTICIPANT, _RECOVER_LOCKS, _RECOVER_LOCKS.replace("prepared.reads", "()")),
    ),
    _shop(
        "readers_leave_early",
        "serializable: Prepare takes the locks, so a reader that lets go sees others half done",
        Change(
            _PARTICIPANT,
            _PROMISED,
            f"{_PROMISED}        if not plan.writes:\n            self.locks.release(transaction)\n",
        ),
        Change(
            _PARTICIPANT,
            _RECOVER_LOCKS,
            _RECOVER_LOCKS.replace("prepared.reads", "prepared.reads if prepared.writes else ()"),
        ),
        _RELEASE_OF_NOTHING,
    ),
    _shop(
        "presume_commit",
        "a transaction that nobody remembers was aborted",
        Change(_COORDINATOR, "number in self._state.committed)", "True)"),
    ),
    _shop(
        "decide_alone_in_doubt",
        "whoever said yes does not decide: it gives up waiting, and the others commit",
        Change(
            _PARTICIPANT,
            "in self._ask_ms.items():\n            if due_ms > self._now_ms:\n                continue\n",
            "in list(self._ask_ms.items()):\n            if due_ms > self._now_ms:\n                continue\n"
            "            self._resolve(transaction, False)\n            continue\n",
        ),
    ),
    _shop(
        "carry_out_a_repeated_prepare_again",
        "all or nothing, once: a late repetition of Prepare is a transaction of its own",
        Change(
            _PARTICIPANT,
            "if self._state.is_finished(transaction):\n            return",
            "if False:\n            return",
        ),
        Change(_PARTICIPANT, "committed = self._state.resolved.get(transaction)", "committed = None"),
    ),
    _shop(
        "forget_finished_transactions_at_once",
        "all or nothing, once: the repetition comes when the first is not remembered any more",
        Change(
            _STATES,
            "        self.finished_below[coordinator] = finished_below\n",
            "        self.resolved = {}\n        self.finished_below[coordinator] = finished_below\n",
        ),
    ),
    _shop(
        "tell_a_peer_without_promising",
        "a peer that says aborted never says yes afterwards",
        Change(
            _PARTICIPANT,
            "self._core.save(transaction, Resolved(self._core.generation, transaction, False))",
            "return self._core.send(sender, Decision(transaction, False))",
        ),
    ),
    _shop(
        "forget_a_commit_at_the_first_acknowledgement",
        "presumed abort: who is forgotten too early was not committed for those who ask later",
        Change(_COORDINATOR, "        if not waiting:\n", "        if waiting is not None:\n"),
    ),
    _shop(
        "acknowledge_what_is_unknown",
        "a commit is forgotten when all have it: a deposed leader of a participant acknowledges for its successor",
        Change(
            _PARTICIPANT,
            "(self._state.is_finished(transaction) or self._state.resolved.get(transaction)):",
            "True:",
        ),
    ),
    _shop(
        "presume_abort_of_a_later_life",
        "presumed abort: a deposed leader of the coordinator has not heard of what its successor committed",
        Change(_COORDINATOR, " or number >= self.next_number:", ":"),
    ),
    _shop(
        "reuse_numbers_after_a_restart",
        "a transaction is named once: a vote for one of an earlier life is counted for another",
        Change(
            _COORDINATOR,
            "self.next_number = self._core.generation << 32",
            "self.next_number = max(state.committed, default=-1) + 1",
        ),
    ),
    _shop(
        "take_records_of_a_deposed_leader",
        "one leader at a time: what its successor has taken for aborted is committed",
        Change(
            _STATES,
            "        elif record.generation != self.generation:\n            return False\n",
            "",
        ),
    ),
    _shop(
        "open_without_knowing_all_records",
        "one leader at a time: the former one's last record comes between what the next knows and its opening",
        Change(_STATES, " or record.follows != self.length:", ":"),
    ),
    _shop(
        "speak_before_the_opening_is_durable",
        "no two lives share a generation: two replicas number transactions alike",
        Change(
            _CORE,
            "rests_on = max(self._opened_ticket, self._tickets.get(message.transaction, 0))",
            "rests_on = self._tickets.get(message.transaction, 0)",
        ),
    ),
)
