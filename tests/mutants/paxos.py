"""Bugs in Multi-Paxos: Paxos Made Simple, sections 2.2, 2.4 and 3, and the order of one leader's proposals."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_CANDIDATE: Final = "quorate.consensus.paxos.candidate"
_CORE: Final = "quorate.consensus.paxos.core"
_FOLLOWER: Final = "quorate.consensus.paxos.follower"
_LEADER: Final = "quorate.consensus.paxos.leader"
_REPLICA: Final = "quorate.consensus.paxos.replica"
_STABLE_LEADER: Final = "quorate.consensus.stable_leader"

_SEND: Final = "if self.promise_is_durable() and not (isinstance(message, Accepted) and not self._holds(message)):"


def _paxos(name: str, breaks: str, *changes: Change, service: str = "zookeeper") -> Mutant:
    return Mutant(f"paxos_{name}", breaks, changes, service, "paxos")


def _at_once(message: str) -> Change:
    return Change(_CORE, _SEND, f"if type(message).__name__ == {message!r} or ({_SEND[3:-1]}):")


MUTANTS: Final = (
    # --- what must survive a crash ---
    _paxos(
        "forget_promise",
        "a promise binds: after a restart what is proposed under a lower ballot is accepted again",
        Change(_CORE, "self.promised = state.promised", "self.promised = 0"),
        Change(_CORE, "self.seen_round = round_of(state.promised)", "self.seen_round = 0"),
    ),
    _paxos(
        "reuse_ballot",
        "a ballot is used once: the hard state is one round too old, so a restarted server proposes under its last one",
        Change(
            _CORE,
            "return encode_hard_state(self.promised, mark, self._reaccepted)",
            "return encode_hard_state(max(self.promised - 1_000_000_000, 0), mark, self._reaccepted)",
        ),
    ),
    _paxos(
        "prepare_before_durable",
        "a ballot is used once: a candidate asks for promises under one that a crash lets it forget",
        _at_once("Prepare"),
    ),
    _paxos(
        "promise_before_durable",
        "a promise binds: it leaves before it is durable, and a crash takes it back",
        _at_once("Promise"),
    ),
    _paxos(
        "accepted_before_durable",
        "what is chosen is durable on a quorum: an acceptor vouches for values that a power loss takes away",
        _at_once("Accepted"),
    ),
    _paxos(
        "leader_counts_itself_before_durable",
        "what is chosen is durable on a quorum: one acceptor and a leader that has written nothing make none",
        Change(
            _STABLE_LEADER,
            "        self._append(payload)\n        for progress",
            "        self._append(payload)\n"
            "        self._match_positions[self.core.node_id] = self.core.log.last_position\n        for progress",
        ),
    ),
    _paxos(
        "forget_ballot_of_acceptance",
        "a promise tells under which ballot was accepted: of a value that was proposed again it is the first one",
        Change(
            _FOLLOWER, "AcceptedValue(entry, core.accepted_ballot(entry))", "AcceptedValue(entry, entry.generation)"
        ),
    ),
    # --- phase 1 ---
    _paxos(
        "own_value_preferred",
        "the value of the highest ballot is proposed: a candidate prefers its own to what a promise carried",
        Change(_CANDIDATE, "(known is None or ballot > known[0])", "known is None"),
    ),
    _paxos(
        "value_of_lowest_ballot",
        "the value of the highest ballot is proposed: that of the lowest is",
        Change(_CANDIDATE, "(known is None or ballot > known[0])", "(known is None or ballot < known[0])"),
    ),
    _paxos(
        "gap_filled_though_told",
        "a gap is filled with a no-op where nobody accepted: a candidate fills its own gaps, whatever it was told",
        Change(
            _CANDIDATE,
            "known = self._values.get(position)\n            found",
            "known = self._values.get(position) if self.core.log.get(position) else None\n            found",
        ),
    ),
    _paxos(
        "promise_stops_at_gap",
        "a promise tells all that was accepted: it ends at the first slot in which nothing was",
        Change(
            _FOLLOWER,
            "first_position, end_position = message.first_position, core.log.last_position",
            "first_position, end_position = message.first_position, core.durable_position",
        ),
    ),
    _paxos(
        "phase_1_one_short",
        "every quorum of phase 1 meets every quorum of phase 2: one promise less will do",
        Change(
            _CANDIDATE,
            "        if not self.core.quorum.phase_1.is_quorum(promised):\n            return False\n",
            "        if len(promised) < len(self.core.voters) // 2:\n            return False\n",
        ),
        Change(_CANDIDATE, "return self.core.quorum_of(latest).phase_1.is_quorum(promised)", "return True"),
    ),
    _paxos(
        "pre_votes_taken_for_promises",
        "a quorum has promised: those that only said that they would are counted, and bound by nothing",
        Change(
            _CANDIDATE,
            "if self.pre_vote and (not message.granted or message.ballot == self.ballot):",
            "if not message.granted or message.ballot == self.ballot:",
        ),
    ),
    _paxos(
        "accept_under_lower_ballot",
        "who promised a ballot accepts nothing under lower ones: it goes back to a leader of the past",
        Change(_REPLICA, "            if message.ballot > core.promised:\n", "            if message.ballot > 0:\n"),
        Change(
            _REPLICA,
            """                if self._follow(sender, message.ballot) is not None:
                    self._receive_under_promise(sender, message)
""",
            """                follower = self._follow(sender, message.ballot)
                if isinstance(message, Accept) and follower is not None:
                    follower.receive_accept(message)
""",
        ),
        Change(
            _FOLLOWER,
            "Accepted(core.promised, message.round, first_position, last_position)",
            "Accepted(message.ballot, message.round, first_position, last_position)",
        ),
    ),
    # --- phase 2 ---
    _paxos(
        "phase_2_one_short",
        "every quorum of phase 2 meets every quorum of phase 1: one acceptor less will do",
        Change(
            _LEADER,
            "chosen_position = core.quorum.phase_2.greatest_held(self._match_positions)",
            "chosen_position = sorted([self._match_positions[node] for node in core.voters])[len(core.voters) // 2]",
        ),
    ),
    _paxos(
        "commit_beyond_agreed",
        "a follower learns as far as it accepted under that leader's ballot: it takes its own older values for chosen",
        Change(
            _CORE,
            "if position > self.agreed_position:\n            position = self.agreed_position\n",
            "if position > self.agreed_position:\n"
            "            self.agreed_position = max(self.agreed_position, min(position, self.durable_position))\n"
            "            position = self.agreed_position\n",
        ),
    ),
    _paxos(
        "agreed_under_former_ballot",
        "a follower learns as far as it accepted under that leader's ballot: what it accepted from the last one counts",
        Change(
            _CORE, "        self.agreed_position = self.commit_position\n        self._state", "        self._state"
        ),
    ),
    _paxos(
        "gaps_acknowledged",
        "an acceptor vouches for what it accepted: with a later slot for all before it",
        Change(
            _FOLLOWER,
            "first_position = 1 if last_position <= core.agreed_position else entries[0].position",
            "first_position = 1",
        ),
    ),
    # --- the order of one leader's proposals ---
    _paxos(
        "void_entry_applied",
        "the order of one leader's proposals: one is applied whose predecessor was not chosen",
        Change(
            _CORE,
            "if payload and entry.generation != before and not payload.startswith(PREFIX):",
            "if payload and before < 0:",
        ),
    ),
    _paxos(
        "entry_behind_void_one_applied",
        "the order of one leader's proposals: the predecessor was chosen and is void, and what follows it is applied",
        Change(
            _CORE,
            "            before = entry.generation\n",
            "            before = self.log.get(entry.position).generation\n",
        ),
    ),
    # --- reads ---
    _paxos(
        "reads_without_round",
        "barriers pass without the round: a leader that was deposed without knowing it shows old data",
        Change(
            _STABLE_LEADER,
            "rounds.confirm(core.quorum.phase_2.greatest_held(self._answered_rounds))",
            "rounds.confirm(rounds.current)",
        ),
    ),
    _paxos(
        "reads_before_opening",
        "a new leader does not know yet what is chosen, and lets reads pass at an older position",
        Change(_STABLE_LEADER, "return self.core.commit_position >= self.opening_position", "return True"),
        service="etcd",  # whose reads have barriers, most of them
    ),
)
