"""What a server is in every role: its epochs, its history, and what of them is durable.

The durability order lives here and nowhere else.  Roles change the hard state through
`promise` and `accept_history`, the log through the methods of `LogCore`, and speak through
`send`, which holds a message back until what it reveals is durable.
"""

from __future__ import annotations

from typing import Final

from quorate.consensus.log_core import LogCore
from quorate.consensus.records import Recovered, SaveState
from quorate.consensus.replica import Message, NodeId, RandomSource, ReplicaConfig, Send
from quorate.consensus.sanity import MAX_NUMBER
from quorate.consensus.zab.hard_state import HardState, decode_hard_state, encode_hard_state
from quorate.consensus.zab.messages import Ack, AckEpoch, FollowerInfo, Vote

ASIDE_TIMEOUTS: Final = 2
"""Each as long as a round of leader election may take, which is one to two election timeouts."""


class Core(LogCore):
    """State that outlives every change of role."""

    def __init__(self, config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> None:
        super().__init__(config, recovered, random, now_ms)
        state = decode_hard_state(recovered.state)
        self.accepted_epoch = state.accepted_epoch
        """The paper's f.p: no earlier epoch is followed any more."""
        self.promised_to = state.promised_to
        """Whose NEWEPOCH that was."""
        self.current_epoch = state.current_epoch
        """The paper's f.a: the initial history of this epoch was accepted as a whole."""
        self.election_round = 0
        """Of leader election.  It may begin anew with the process: what elections find out binds nobody."""
        self.seen_epoch = state.accepted_epoch
        """The highest that any server was found to have accepted: the next leadership goes beyond it."""
        self.aside_until_ms = 0
        """Until then this server lets all others go before it in elections."""

    @property
    def generation(self) -> int:
        return self.accepted_epoch

    # --- durable before spoken -----------------------------------------------------------

    def send(self, to: NodeId, message: Message) -> None:
        """Send, as soon as what the message reveals is durable: the only place that decides this.

        Every message reveals the accepted epoch.  An `Ack` moreover vouches for entries,
        which its receiver counts.  An `AckEpoch` says how far the history reaches when
        this server stops acknowledging to earlier leaders: an acknowledgement that
        still waits for the disk must not come to count for more than it says, so it waits
        for all of the log, and for the current epoch.  Other messages speak of entries
        that need not be durable: a leader counts itself for an entry only when that is,
        and a vote binds nobody.
        """
        if self.promise_is_durable() and not self._vouches_for_more(message):
            self.effects.messages.append(Send(to, message))
        else:
            self.effects.messages_after_persist.append(Send(to, message))

    def _vouches_for_more(self, message: Message) -> bool:
        if isinstance(message, Ack):
            return message.position > self.durable_position
        if isinstance(message, AckEpoch):
            return self._log_changed or bool(self._unpersisted)
        return False

    def send_follower_info(self, to: NodeId) -> None:
        """CEPOCH: to a leader to be, or to one whose epoch is behind."""
        promised_to = -1 if self.promised_to is None else self.promised_to
        self.send(to, FollowerInfo(self.accepted_epoch, promised_to))

    # --- hard state ----------------------------------------------------------------------

    def promise(self, epoch: int, leader: NodeId) -> None:
        """Accept that `leader` wants to lead `epoch`: nothing of an earlier one is acknowledged any more."""
        assert self.accepted_epoch < epoch <= MAX_NUMBER + 1, (self.accepted_epoch, epoch)
        self.accepted_epoch = epoch
        self.promised_to = leader
        self.seen_epoch = max(self.seen_epoch, epoch)
        self._promise_changed = True
        self._save_state()

    def accept_history(self) -> None:
        """The log holds the whole initial history of the accepted epoch.

        The record comes behind those of the history: were it in front, a crash in between
        would leave a server that passes for one that has all of it (ZOOKEEPER-4643).
        """
        assert self.current_epoch < self.accepted_epoch == self.log.last_generation
        self.current_epoch = self.accepted_epoch
        self._log_changed = True  # it vouches for the log, and waits for it
        self._save_state()

    def _save_state(self) -> None:
        state = HardState(self.accepted_epoch, self.promised_to, self.current_epoch)
        self.effects.records.append(SaveState(encode_hard_state(state)))

    def is_synchronised(self) -> bool:
        """The log is a prefix of the history of whoever leads the accepted epoch, and reaches into that epoch."""
        return self.current_epoch == self.accepted_epoch

    def stand_aside(self) -> None:
        """For the next elections: this server was the best, and found no quorum.

        It may be cut off from some who were told of it by others, and stop these from finding a leader again and again.
        """
        self.aside_until_ms = self.now_ms + ASIDE_TIMEOUTS * self.draw_election_timeout_ms()

    def own_vote(self) -> Vote:
        """How good the own history is.

        Whose log reaches into an epoch has all of its initial history, even where it has not
        accepted a later one as a whole, or a crash took the state that was written behind it.
        """
        epoch = max(self.current_epoch, self.log.last_generation)
        return Vote(epoch, self.log.last_generation, self.log.last_position, self.node_id)
