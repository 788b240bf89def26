"""Bugs in handing the leadership over: Raft thesis section 3.10, and what nodes hold meanwhile (`node.handover`)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_LEADER: Final = "quorate.consensus.stable_leader"
_REPLICA: Final = "quorate.consensus.raft.replica"
_PROPOSALS: Final = "quorate.node.proposals"

MUTANTS: Final = (
    Mutant(
        "transfer_to_lagging_node",
        "Leader Completeness: the leader's word makes up for what its successor's log lacks",
        (
            Change(
                _LEADER,
                "        if self._match_positions.get(target) == self.core.log.last_position:\n",
                "        if target in self._match_positions:\n",
            ),
            Change(
                _LEADER,
                """        if not self._has_caught_up(target):
            return Refusal.NOT_CAUGHT_UP
""",
                "",
            ),
            Change(
                _REPLICA,
                "        return (message.last_term, message.last_position) >=",
                "        return message.transfer or (message.last_term, message.last_position) >=",
            ),
        ),
    ),
    Mutant(
        "held_commands_forgotten",
        "every request is answered: what was held while the leadership was handed over is nobody's afterwards",
        (
            Change(
                _PROPOSALS,
                """        self._hold_until_ms = self._holding_for = None
        # Refused""",
                """        if self._hold_until_ms is not None:
            self._pending.clear()
        self._hold_until_ms = self._holding_for = None
        # Refused""",
            ),
        ),
    ),
    Mutant(
        "held_commands_proposed_twice",
        "at most once: what was held is still waiting when it has gone its way",
        (
            Change(
                _PROPOSALS,
                """        self._outstanding[self._sequence] = _Outstanding(waiters, weight_bytes)
""",
                """        self._outstanding[self._sequence] = _Outstanding(waiters, weight_bytes)
        if self._held:
            pending.appendleft((commands, waiters, weight_bytes))
            self._waiting_bytes += weight_bytes
            self._held = False
""",
            ),
            Change(
                _PROPOSALS,
                """        self._hold_until_ms = self._host.now_ms() + MAX_HOLD_MS
""",
                """        self._hold_until_ms = self._host.now_ms() + MAX_HOLD_MS
        self._held = True
""",
            ),
            Change(
                _PROPOSALS,
                """        self._sequence = 0
""",
                """        self._sequence = 0
        self._held = False
""",
            ),
        ),
    ),
)
