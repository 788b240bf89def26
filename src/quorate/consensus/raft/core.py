"""What a server is in every role: its term and vote, its log, and what of them is durable.

The durability order lives here and nowhere else.  Roles change the hard state through
`enter_term` and `vote_for`, the log through the methods of `LogCore`, and speak through
`send`, which holds a message back until what it reveals is durable.
"""

from __future__ import annotations

from quorate.consensus.log_core import LogCore
from quorate.consensus.raft.hard_state import decode_hard_state, encode_hard_state
from quorate.consensus.raft.messages import Appended
from quorate.consensus.records import Recovered, SaveState
from quorate.consensus.replica import Message, NodeId, RandomSource, ReplicaConfig, Send
from quorate.consensus.sanity import MAX_NUMBER


class Core(LogCore):
    """State that outlives every change of role (the "all servers" part of thesis figure 3.1)."""

    def __init__(self, config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> None:
        super().__init__(config, recovered, random, now_ms)
        self.term, self.voted_for = decode_hard_state(recovered.state)

    @property
    def generation(self) -> int:
        return self.term

    # --- durable before spoken -----------------------------------------------------------

    def send(self, to: NodeId, message: Message) -> None:
        """Send, as soon as what the message reveals is durable: the only place that decides this.

        Every message reveals the term, and a vote or a request for votes reveals the
        vote.  An `Appended` moreover vouches for log entries, which its receiver counts.
        Other messages speak of entries that need not be durable: a leader counts itself
        for an entry only when that is (thesis section 10.2.1), and a candidate's claim to
        have an up-to-date log promises nothing about the time after a crash.
        """
        if self.promise_is_durable() and not (
            isinstance(message, Appended) and message.match_position > self.durable_position
        ):
            self.effects.messages.append(Send(to, message))
        else:
            self.effects.messages_after_persist.append(Send(to, message))

    # --- hard state ----------------------------------------------------------------------

    def enter_term(self, term: int) -> None:
        """Go on to a later term, in which this server has not voted yet."""
        assert self.term < term <= MAX_NUMBER + 1, (self.term, term)
        self.term = term
        self.voted_for = None
        self._save_state()

    def vote_for(self, node: NodeId) -> None:
        """Give the one vote of this term.  Giving it again to the same candidate changes nothing."""
        assert self.voted_for is None or self.voted_for == node, (self.term, self.voted_for, node)
        if self.voted_for is None:
            self.voted_for = node
            self._save_state()

    def _save_state(self) -> None:
        """One record a step, its first: no recovered log is to hold an entry of a term above the recovered one."""
        records = self.effects.records
        if self._promise_changed:
            del records[0]
        records.insert(0, SaveState(encode_hard_state(self.term, self.voted_for)))
        self._promise_changed = True
