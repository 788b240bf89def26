"""Bugs in who may lead: Raft paper section 5.2 and 5.4.1, thesis section 9.6."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_CORE: Final = "quorate.consensus.raft.core"
_REPLICA: Final = "quorate.consensus.raft.replica"
_CANDIDATE: Final = "quorate.consensus.raft.candidate"

MUTANTS: Final = (
    Mutant(
        "vote_without_persisting",
        "Election Safety: the vote is not in the hard state, so a restart gives the term's one vote again",
        (Change(_CORE, "encode_hard_state(self.term, self.voted_for)", "encode_hard_state(self.term, None)"),),
    ),
    Mutant(
        "vote_before_fsync",
        "Election Safety: a vote leaves before it is durable, so a crash gives the term's one vote again",
        (
            Change(_CORE, "import Appended\n", "import Appended, Vote\n"),
            Change(
                _CORE,
                "if self.promise_is_durable() and not (",
                "if isinstance(message, Vote) or self.promise_is_durable() and not (",
            ),
        ),
    ),
    Mutant(
        "term_not_persisted",
        "currentTerm never goes back: a follower speaks in a term that a restart lets it forget",
        (
            Change(
                _CORE,
                """        self.voted_for = None
        self._save_state()
""",
                """        self.voted_for = None
""",
            ),
        ),
    ),
    Mutant(
        "vote_twice_in_a_term",
        "Election Safety: two candidates of one term, cut off from each other, both get a third server's vote",
        (
            Change(
                _REPLICA,
                """            if core.voted_for not in (None, sender):
                return False
""",
                "",
            ),
            Change(
                _CORE,
                """        assert self.voted_for is None or self.voted_for == node, (self.term, self.voted_for, node)
        if self.voted_for is None:
""",
                """        if self.voted_for != node:
""",
            ),
        ),
    ),
    Mutant(
        "forget_up_to_date_check",
        "Leader Completeness: a server whose log lacks committed entries is elected",
        (
            Change(
                _REPLICA,
                "return (message.last_term, message.last_position)"
                " >= (core.log.last_generation, core.log.last_position)",
                "return True",
            ),
        ),
    ),
    Mutant(
        "compare_logs_by_length_alone",
        "Leader Completeness: a deposed leader's long uncommitted tail wins against newer, committed entries",
        (
            Change(
                _REPLICA,
                "return (message.last_term, message.last_position)"
                " >= (core.log.last_generation, core.log.last_position)",
                "return message.last_position >= core.log.last_position",
            ),
        ),
    ),
    Mutant(
        "prevotes_counted_as_votes",
        "Election Safety: late pre-votes, which bind nobody, elect a leader beside one that was voted for",
        (Change(_CANDIDATE, "if message.pre_vote == self.pre_vote:", "if True:"),),
    ),
    Mutant(
        "term_reused_after_restart",
        "Election Safety: the hard state is saved one term too old, so a restarted server stands in that term again",
        (
            Change(
                _CORE,
                "encode_hard_state(self.term, self.voted_for)",
                "encode_hard_state(self.term - 1, self.voted_for)",
            ),
        ),
    ),
)
