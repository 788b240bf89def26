"""Bugs in replication and commitment: Raft paper sections 5.3 and 5.4, thesis sections 3.5, 5.1 and 10.2.1."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_CORE: Final = "quorate.consensus.raft.core"
_LOG_CORE: Final = "quorate.consensus.log_core"
_FOLLOWER: Final = "quorate.consensus.raft.follower"
_LEADER: Final = "quorate.consensus.raft.leader"
_STABLE_LEADER: Final = "quorate.consensus.stable_leader"

MUTANTS: Final = (
    Mutant(
        "acknowledge_before_fsync",
        "what is committed is durable on a quorum: a follower vouches for entries that a power loss takes away",
        (
            Change(
                _CORE,
                """if self.promise_is_durable() and not (
            isinstance(message, Appended) and message.match_position > self.durable_position
        ):
""",
                """if self.promise_is_durable():
""",
            ),
        ),
    ),
    Mutant(
        "leader_counts_itself_before_fsync",
        "what is committed is durable on a quorum: one follower and a leader that has written nothing make none",
        (
            Change(
                _STABLE_LEADER,
                """        self._append(payload)
        for progress in""",
                """        self._append(payload)
        self._match_positions[self.core.node_id] = self.core.log.last_position
        for progress in""",
            ),
        ),
    ),
    Mutant(
        "apply_before_durable",
        "a node applies, and snapshots, only what it cannot forget itself",
        (
            Change(
                _LOG_CORE,
                "safe_position = min(self.commit_position, self.durable_position)",
                "safe_position = self.commit_position",
            ),
        ),
    ),
    Mutant(
        "apply_before_commit",
        "State Machine Safety: a client is answered, and a store changed, by an entry that a new leader takes back",
        (
            Change(
                _LOG_CORE,
                "safe_position = min(self.commit_position, self.durable_position)",
                "safe_position = self.durable_position",
            ),
        ),
    ),
    Mutant(
        "truncation_keeps_durable_position",
        "the write of forgotten entries vouches for those in their place, which are acknowledged before their sync",
        (
            Change(
                _LOG_CORE,
                """        self.durable_position = min(self.durable_position, position - 1)
        self._unpersisted = deque([(ticket, min(last, position - 1)) for ticket, last in self._unpersisted])
""",
                "",
            ),
        ),
    ),
    Mutant(
        "commit_earlier_term_by_counting",
        "Leader Completeness, figure 8: an earlier term's entry on a majority is overwritten by a later leader",
        (Change(_LEADER, " or core.log.generation_at(held_position) != core.term:", ":"),),
    ),
    Mutant(
        "count_duplicate_acks_twice",
        "what is committed is durable on a quorum: a repeated acknowledgement is taken for another server's",
        (
            Change(
                _STABLE_LEADER,
                """            self._match_positions[peer] = progress.match_position
            self._advance_commit()
""",
                """            self._match_positions[peer] = progress.match_position
            self._advance_commit()
        else:
            behind = min(self._match_positions, key=self._match_positions.__getitem__)
            self._match_positions[behind] = max(self._match_positions[behind], position)
            self._advance_commit()
""",
            ),
        ),
    ),
    Mutant(
        "truncate_on_matching_entries",
        "figure 2, AppendEntries 3: an old message that comes late cuts off what was acknowledged after it",
        (
            Change(
                _FOLLOWER,
                "while known < count and core.log.generation_at(entries[known].position) == entries[known].generation:",
                "while False:",
            ),
        ),
    ),
    Mutant(
        "keep_conflicting_entries",
        "Log Matching: a follower keeps its own entry where the leader has another, and acknowledges the leader's",
        (
            Change(
                _FOLLOWER,
                "while known < count and core.log.generation_at(entries[known].position) == entries[known].generation:",
                "while known < count and core.log.generation_at(entries[known].position) is not None:",
            ),
        ),
    ),
    Mutant(
        "forget_previous_term_check",
        "Log Matching: entries are taken over behind an entry that the leader does not have",
        (
            Change(
                _FOLLOWER,
                "elif core.log.generation_at(previous_position) != message.previous_term:",
                "elif core.log.generation_at(previous_position) is None:",
            ),
        ),
    ),
    Mutant(
        "commit_beyond_matched_entry",
        "figure 2, AppendEntries 5: behind the last entry that was compared a follower commits a tail of its own",
        (
            Change(
                _FOLLOWER,
                "core.commit(min(message.commit_position, last_new_position))",
                "core.commit(min(message.commit_position, core.log.last_position))",
            ),
        ),
    ),
    Mutant(
        "tell_commit_beyond_match",
        "State Machine Safety: a peer that was not compared yet is told to commit, and commits a tail of its own",
        (
            Change(
                _LEADER,
                "reach = min(self.core.commit_position, progress.match_position)",
                "reach = self.core.commit_position",
            ),
        ),
    ),
    Mutant(
        "truncation_not_recorded",
        "a restart brings back the tail that was cut off, behind the new entries",
        (
            Change(
                _LOG_CORE,
                """        self.effects.records.append(TruncateFrom(position))
""",
                "",
            ),
        ),
    ),
)
