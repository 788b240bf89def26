"""Bugs in how members change: Raft thesis chapter 4, and the cluster group's decisions (docs/membership.md)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_CORE: Final = "quorate.consensus.core"
_CANDIDATE: Final = "quorate.consensus.raft.candidate"
_LEADER: Final = "quorate.consensus.stable_leader"
_CONFIGURATIONS: Final = "quorate.consensus.configurations"
_ROSTER: Final = "quorate.node.roster"
_STORE: Final = "quorate.services.cluster.store"

# In the replica and not in `Configuration.quorum`, by which the checks judge.
_QUORUMS: Final = Change(
    _CORE, "from quorate.quorums import PhasedQuorum", "from quorate.quorums import Joint, Majority, PhasedQuorum"
)
_QUORUM: Final = "        self.quorum = self.quorum_of(latest)\n"

MUTANTS: Final = (
    Mutant(
        "learner_counted_in_quorum",
        "quorums of voters overlap: with learners among those who decide two of them need not",
        (
            _QUORUMS,
            Change(
                _CORE,
                _QUORUM,
                """        self.quorum = self.quorum_of(latest)
        if latest.learners:
            decide = Majority((*latest.voters, *latest.learners))
            old = tuple(node for node in latest.old_voters)
            self.quorum = Joint(Majority(old), decide) if old else decide
""",
            ),
        ),
    ),
    Mutant(
        "union_instead_of_both_majorities",
        "joint consensus: a majority of old and new voters taken together is none of each",
        (
            _QUORUMS,
            Change(
                _CORE,
                _QUORUM,
                """        self.quorum = self.quorum_of(latest)
        if latest.is_joint:
            self.quorum = Majority(tuple({**latest.old_voters, **latest.voters}))
""",
            ),
        ),
    ),
    Mutant(
        "new_voters_alone_commit_the_joint_configuration",
        "joint consensus: what the old voters do not have, a leader that they elect overwrites",
        (
            _QUORUMS,
            Change(
                _CORE,
                _QUORUM,
                """        self.quorum = self.quorum_of(latest)
        if latest.is_joint:
            self.quorum = Majority(tuple(latest.voters))
""",
            ),
        ),
    ),
    Mutant(
        "joint_consensus_skipped",
        "joint consensus: from old voters straight to new ones there are two majorities without a common node",
        (
            Change(
                _CONFIGURATIONS,
                "old_voters = present.voters if present.voters != goal.voters else {}",
                "old_voters: dict[int, str] = {}",
            ),
        ),
    ),
    Mutant(
        "joint_configuration_left_before_committed",
        "joint consensus: the final configuration counts while the joint one may be unknown to all old voters",
        (
            Change(
                _LEADER,
                """        self._introduce(interim)
        return None
""",
                """        self._introduce(interim)
        if interim.is_joint:
            self._append_configuration(after_joint(interim))
        return None
""",
            ),
        ),
    ),
    Mutant(
        "configuration_counted_before_durable",
        "a leader counts itself for a configuration that a power loss takes away from it",
        (
            Change(
                _LEADER,
                """        self._change_position = core.log.last_position
""",
                """        self._change_position = core.log.last_position
        self._match_positions[core.node_id] = core.log.last_position
""",
            ),
        ),
    ),
    Mutant(
        "joint_configuration_never_left",
        "a change ends whoever leads: a leader that finds a joint configuration in its log leaves it there",
        (
            Change(
                _LEADER,
                "self._change_position = self.opening_position if core.is_changing() else _NEVER",
                "self._change_position = _NEVER",
            ),
        ),
    ),
    Mutant(
        "leader_outside_counts_itself",
        "a leader that is being removed is one of no majority of those who stay",
        (
            _QUORUMS,
            Change(
                _CORE,
                _QUORUM,
                """        self.quorum = self.quorum_of(latest)
        if latest.is_joint and self.node_id not in latest.voters:
            self.quorum = Joint(Majority(tuple(latest.old_voters)), Majority((*latest.voters, self.node_id)))
""",
            ),
        ),
    ),
    Mutant(
        "removed_nodes_vote_counted",
        "Election Safety: votes are a number, and those of removed nodes are as good as others",
        (
            Change(
                _CANDIDATE,
                "return self.core.quorum.is_quorum([*self._voters(granted=True), self.core.node_id])",
                "return len(self._voters(granted=True)) + 1 > len(self.core.configuration.voters) // 2",
            ),
        ),
    ),
    Mutant(
        "compaction_forgets_configuration",
        "who decides survives a restart: a log that begins behind a snapshot begins with the first members",
        (
            Change(
                _CORE,
                """        configuration = self.configurations.compact(position)
        self.effects.records.append(CompactedThrough(position, generation, configuration.encode()))
""",
                """        self.configurations.compact(position)
        self.effects.records.append(CompactedThrough(position, generation))
""",
            ),
        ),
    ),
    Mutant(
        "barriers_pass_by_new_voters_alone",
        "joint consensus: the old voters may have elected another leader, of which the new ones do not know",
        (
            Change(
                _LEADER,
                "from quorate.consensus.replica import BarrierPassed, NodeId, Refusal, SendSnapshot\n",
                """from quorate.consensus.replica import BarrierPassed, NodeId, Refusal, SendSnapshot
from quorate.quorums import Majority
""",
            ),
            Change(
                _LEADER,
                "rounds.confirm(core.quorum.phase_2.greatest_held(self._answered_rounds))",
                "rounds.confirm(Majority(tuple(core.configuration.voters)).greatest_held(self._answered_rounds))",
            ),
        ),
    ),
    Mutant(
        "snapshot_forgets_who_was_removed",
        "the members are the same everywhere: who restores the cluster group lets removed folders in",
        (
            Change(
                _STORE,
                "self.removed, self.reached = content.removed, content.reached",
                "self.removed, self.reached = {}, content.reached",
            ),
        ),
    ),
    Mutant(
        "removed_node_let_in",
        "a removed node is told so, and ends: it is let in, and knows nothing of it",
        (Change(_ROSTER, "        if why is not None:\n", "        if False:\n"),),
    ),
)
