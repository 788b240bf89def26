"""Bugs in ZAB: the paper's sections 4 and 5, and those of ZooKeeper's own notes."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_CORE: Final = "quorate.consensus.zab.core"
_LOG_CORE: Final = "quorate.consensus.log_core"
_DISCOVERY: Final = "quorate.consensus.zab.discovery"
_FOLLOWER: Final = "quorate.consensus.zab.follower"
_LEADER: Final = "quorate.consensus.zab.leader"
_STABLE_LEADER: Final = "quorate.consensus.stable_leader"
_LOOKING: Final = "quorate.consensus.zab.looking"
_REPLICA: Final = "quorate.consensus.zab.replica"


def _zab(name: str, breaks: str, *changes: Change) -> Mutant:
    return Mutant(f"zab_{name}", breaks, changes, protocol="zab")


_WORSE_HISTORY_ACCEPTED: Final = Change(
    _DISCOVERY, "if sender in core.voters and theirs > own:", "if sender in core.voters and theirs is own:"
)

MUTANTS: Final = (
    # --- what must survive a crash ---
    _zab(
        "forget_accepted_epoch",
        "an epoch once accepted binds: after a restart an earlier one is followed and acknowledged again",
        Change(_CORE, "self.accepted_epoch = state.accepted_epoch", "self.accepted_epoch = 0"),
        Change(_CORE, "self.promised_to = state.promised_to", "self.promised_to = None"),
        Change(_CORE, "self.seen_epoch = state.accepted_epoch", "self.seen_epoch = 0"),
        Change(_CORE, "self.current_epoch = state.current_epoch", "self.current_epoch = 0"),
    ),
    _zab(
        "forget_current_epoch",
        "the newest history wins: who restarts does not know any more of which epoch its history is",
        Change(_CORE, "self.current_epoch = state.current_epoch", "self.current_epoch = 0"),
        Change(_CORE, "epoch = max(self.current_epoch, self.log.last_generation)", "epoch = self.current_epoch"),
    ),
    _zab(
        "current_epoch_saved_before_history",
        "ZOOKEEPER-4643: a crash in between leaves a server that passes for one that has the initial history",
        Change(
            _CORE,
            "it vouches for the log, and waits for it\n        self._save_state()",
            "it vouches for the log, and waits for it\n        self._save_state()\n"
            "        self.effects.records.insert(0, self.effects.records.pop())",
        ),
    ),
    _zab(
        "new_epoch_before_durable",
        "one leader in an epoch: the leader to be forgets the epoch that it chose, and chooses it again",
        Change(
            _CORE,
            "if self.promise_is_durable() and not self._vouches_for_more(message):",
            "if type(message).__name__ == 'NewEpoch' or (\n"
            "            self.promise_is_durable() and not self._vouches_for_more(message)\n        ):",
        ),
    ),
    _zab(
        "accept_epoch_before_durable",
        "an epoch once accepted binds: ACK-E leaves before it is durable, and a crash takes it back",
        Change(
            _CORE,
            "if self.promise_is_durable() and not self._vouches_for_more(message):",
            "if isinstance(message, AckEpoch) or (\n"
            "            self.promise_is_durable() and not self._vouches_for_more(message)\n        ):",
        ),
    ),
    _zab(
        "acknowledge_before_durable",
        "what is committed is durable on a quorum: a follower vouches for entries that a power loss takes away",
        Change(_CORE, "return message.position > self.durable_position", "return False"),
    ),
    _zab(
        "acknowledge_leader_before_durable",
        "synchronisation ends with durable histories: ACK-LD does not wait for the disk",
        Change(_CORE, "if isinstance(message, Ack):", "if type(message) is Ack:"),
    ),
    _zab(
        "leader_counts_itself_before_durable",
        "what is committed is durable on a quorum: one follower and a leader that has written nothing make none",
        Change(
            _STABLE_LEADER,
            "        self._append(payload)\n        for progress",
            "        self._append(payload)\n"
            "        self._match_positions[self.core.node_id] = self.core.log.last_position\n        for progress",
        ),
    ),
    _zab(
        "truncation_not_recorded",
        "a restart brings back the history that was cut off",
        Change(_LOG_CORE, "        self.effects.records.append(TruncateFrom(position))\n", ""),
    ),
    # --- election and discovery ---
    _zab(
        "highest_id_elected",
        "the best history wins: the highest id does, and nobody compares histories in the discovery either",
        Change(
            _LOOKING,
            "if self.vote is None or message.vote > self.vote:",
            "if self.vote is None or message.vote.node > self.vote.node:",
        ),
        _WORSE_HISTORY_ACCEPTED,
    ),
    _zab(
        "longest_history_elected",
        "the best history wins: the longest does, though it is that of an earlier epoch",
        Change(
            _LOOKING,
            "if self.vote is None or message.vote > self.vote:",
            "def length(vote: Vote) -> tuple[int, int]:\n            return vote.position, vote.node\n\n"
            "        if self.vote is None or length(message.vote) > length(self.vote):",
        ),
        Change(
            _DISCOVERY,
            "if sender in core.voters and theirs > own:",
            "if sender in core.voters and theirs.position > own.position:",
        ),
    ),
    _zab(
        "lead_without_acknowledged_epoch",
        "one leader in an epoch: who wanted to follow counts as having accepted the epoch",
        Change(
            _DISCOVERY,
            "return core.quorum.is_quorum([core.node_id, *self.acks])",
            "return core.quorum.is_quorum([core.node_id, *self._infos])",
        ),
    ),
    _zab(
        "epoch_accepted_from_two_leaders",
        "one leader in an epoch: who accepted one's NEWEPOCH accepts another's with the same number",
        Change(_REPLICA, "not (message.established or core.promised_to == sender)", "False"),
        Change(
            _DISCOVERY,
            "(message.epoch >= self.epoch and (message.epoch, message.promised_to) != own)",
            "message.epoch > self.epoch",
        ),
        Change(_DISCOVERY, "        own = (self.epoch, core.node_id)\n", ""),
        Change(_DISCOVERY, "self.epoch = core.seen_epoch + 1", "self.epoch = core.accepted_epoch + 1"),
    ),
    _zab(
        "acknowledge_an_old_epoch",
        "who accepted an epoch acknowledges nothing in an earlier one: it goes back to a leader of the past",
        Change(
            _REPLICA,
            """        if message.epoch == core.accepted_epoch:
            follower = self._follow_established(sender)
            if follower is not None:
                follower.receive(message)
""",
            """        if message.epoch in (core.accepted_epoch, core.current_epoch):
            follower = self._follow_established(sender)
            if follower is not None:
                follower.receive(message)
""",
        ),
        Change(
            _FOLLOWER,
            "    def receive(self, message: FromLeader) -> None:\n",
            "    spoken_epoch = 0\n\n    def receive(self, message: FromLeader) -> None:\n"
            "        self.spoken_epoch = message.epoch\n",
        ),
        Change(
            _FOLLOWER,
            "core.send(self.leader, Ack(core.accepted_epoch, round, position))",
            "core.send(self.leader, Ack(self.spoken_epoch or core.accepted_epoch, round, position))",
        ),
    ),
    # --- synchronisation ---
    _zab(
        "skip_trunc",
        "all take over the initial history: a follower keeps what the leader has not, and acknowledges the leader's",
        Change(
            _FOLLOWER,
            "core.log.generation_at(entries[known].position) == entries[known].generation:",
            "entries[known].position <= core.log.last_position:",
        ),
        Change(_FOLLOWER, "if not core.is_synchronised() and core.log.last_position > position:", "if False:"),
    ),
    _zab(
        "history_compared_by_position",
        "entries are taken over behind a history that the leader does not have",
        Change(
            _FOLLOWER,
            "elif core.log.generation_at(position) != message.previous_generation:",
            "elif core.log.generation_at(position) is None:",
        ),
    ),
    _zab(
        "epoch_current_before_new_leader",
        "the current epoch vouches for the whole initial history: it is taken for accepted with the first of it",
        Change(
            _FOLLOWER,
            "ended = not core.is_synchronised() and core.log.generation_at(position) == core.accepted_epoch\n"
            "        if ended:",
            "ended = not core.is_synchronised() and not isinstance(message, Ping)\n        if ended:",
        ),
        Change(
            _CORE,
            "assert self.current_epoch < self.accepted_epoch == self.log.last_generation",
            "assert self.current_epoch < self.accepted_epoch",
        ),
    ),
    _zab(
        "synchronised_with_ack_e",
        "nothing is committed before the synchronisation of a quorum ended: ACK-E counts for ACK-LD",
        Change(
            _LEADER,
            "        progress = self._progress_by_id.get(sender)\n        if progress is None:\n"
            "            progress = self._progress_by_id[sender] = self._new",
            "        self._match_positions[sender] = max(self._match_positions[sender], self.opening_position)\n"
            "        progress = self._progress_by_id.get(sender)\n        if progress is None:\n"
            "            progress = self._progress_by_id[sender] = self._new",
        ),
    ),
    _zab(
        "up_to_date_before_quorum",
        "UPTODATE follows a quorum's ACK-LD: every follower is told with its own",
        Change(
            _LEADER,
            "reach = min(core.commit_position, progress.match_position)",
            "reach = min(max(core.commit_position, self.opening_position), progress.match_position)",
        ),
    ),
    _zab(
        "commit_former_epoch_by_counting",
        "nothing of the initial history is committed before it is a quorum's as a whole: it is counted entry by entry",
        Change(
            _LEADER,
            "held_position <= core.commit_position or held_position < self.opening_position:",
            "held_position <= core.commit_position:",
        ),
    ),
    # --- broadcast and reads ---
    _zab(
        "commit_before_quorum",
        "an entry is committed when a quorum has it: one server is enough",
        Change(
            _LEADER,
            "held_position = core.quorum.greatest_held(self._match_positions)",
            "held_position = max(self._match_positions.values())",
        ),
    ),
    _zab(
        "reads_without_round",
        "barriers pass without the round: a leader that was deposed without knowing it shows old data",
        Change(
            _STABLE_LEADER,
            "rounds.confirm(core.quorum.phase_2.greatest_held(self._answered_rounds))",
            "rounds.confirm(rounds.current)",
        ),
    ),
    _zab(
        "reads_before_opening",
        "a new leader does not know yet what is committed, and lets reads pass at an older position",
        Change(_STABLE_LEADER, "return self.core.commit_position >= self.opening_position", "return True"),
    ),
    _zab(
        "hand_over_to_lagging_node",
        "a leader's initial history has all that is committed: its predecessor's word makes up for what it lacks",
        Change(
            _STABLE_LEADER,
            "if self._match_positions.get(target) == self.core.log.last_position:",
            "if target is not None:",
        ),
        Change(
            _STABLE_LEADER,
            "if not self._has_caught_up(target):\n            return Refusal.NOT_CAUGHT_UP\n        self._begin",
            "self._begin",
        ),
        _WORSE_HISTORY_ACCEPTED,
    ),
)
