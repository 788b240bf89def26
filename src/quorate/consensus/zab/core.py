"""What a server is in every role: its epochs, its history, and what of them is durable.

The durability order lives here and nowhere else.  Roles change the hard state through
`promise` and `accept_history`, the log through `append`, `truncate_from` and the snapshot
methods, and speak through `send`, which holds a message back until what it reveals is
durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from quorate.consensus.configurations import Configurations, recover_configurations
from quorate.consensus.log import Log
from quorate.consensus.membership import PREFIX, Configuration
from quorate.consensus.records import CompactedThrough, Entry, Recovered, SaveEntry, SaveState, TruncateFrom
from quorate.consensus.replica import Effects, InstallSnapshot, NodeId, RandomSource, ReplicaConfig, Send
from quorate.consensus.timing import Timing
from quorate.consensus.zab.hard_state import HardState, decode_hard_state, encode_hard_state
from quorate.consensus.zab.messages import MAX_NUMBER, Ack, AckEpoch, FollowerInfo, Vote, ZabMessage
from quorate.quorums import Quorum


class Core:
    """State that outlives every change of role."""

    def __init__(self, config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> None:
        self.config = config
        self.node_id = config.node_id
        self.random = random
        self.now_ms = now_ms
        self.timing = Timing(config.election_timeout_ms, config.max_election_timeout_ms)
        state = decode_hard_state(recovered.state)
        self.accepted_epoch = state.accepted_epoch
        """The paper's f.p: no earlier epoch is followed any more."""
        self.promised_to = state.promised_to
        """Whose NEWEPOCH that was."""
        self.election_round = 0
        """Of leader election.  It may begin anew with the process: what elections find out binds nobody."""
        self.seen_epoch = state.accepted_epoch
        """The highest that any server was found to have accepted: the next leadership goes beyond it."""
        compacted = recovered.compacted
        self.log = Log(compacted.position, compacted.generation, recovered.entries)
        self.current_epoch = state.current_epoch
        """The paper's f.a: the initial history of this epoch was accepted as a whole."""
        self.compacted_position = compacted.position
        self.commit_position = compacted.position
        """What is known to be committed.  It may be ahead of what is durable here."""
        self.handed_position = compacted.position
        """What was handed out to be applied: committed and durable here."""
        self.durable_position = self.log.last_position
        """The log in memory is durable through here."""
        self.effects = Effects()
        self.persisted_ticket = 0
        self._last_ticket = 0
        self._promise_ticket = 0
        """The ticket under which the accepted epoch was saved."""
        self._promise_changed = False
        self._history_ticket = 0
        """The ticket under which the log or the current epoch was last changed."""
        self._history_changed = False
        self._unpersisted: deque[tuple[int, int]] = deque()
        """(ticket, last position): once the ticket is persisted, the log is durable through the position."""
        self.configurations = recover_configurations(config.initial, recovered)
        self.quorum: Quorum
        """Of the latest configuration in the log, like what follows."""
        self.voters: tuple[NodeId, ...]
        """While joint those of either set."""
        self.peers: tuple[NodeId, ...]
        """Everybody else who gets entries."""
        self.is_voter: bool
        """This server under this very incarnation: with an empty folder it has forgotten what it promised."""
        self._configure()

    # --- one step ------------------------------------------------------------------------

    def begin(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.effects = Effects()

    def finish(self) -> Effects:
        """Close the step: number it, and hand out what has become safe to apply."""
        effects = self.effects
        if effects.records or effects.messages_after_persist:
            self._last_ticket += 1
            effects.ticket = self._last_ticket
            if self._promise_changed:
                self._promise_ticket = self._last_ticket
                self._promise_changed = False
            if self._history_changed:
                self._history_ticket = self._last_ticket
                self._unpersisted.append((self._last_ticket, self.log.last_position))
                self._history_changed = False
        safe_position = min(self.commit_position, self.durable_position)
        if safe_position > self.handed_position:
            effects.committed = self.log.between(self.handed_position + 1, safe_position)
            self.handed_position = safe_position
        return effects

    def persisted(self, ticket: int) -> None:
        """Everything under tickets up to `ticket` is durable."""
        assert ticket <= self._last_ticket, f"ticket {ticket} was never given out"
        self.persisted_ticket = max(self.persisted_ticket, ticket)
        unpersisted = self._unpersisted
        while unpersisted and unpersisted[0][0] <= ticket:
            self.durable_position = max(self.durable_position, unpersisted.popleft()[1])

    # --- durable before spoken -----------------------------------------------------------

    def promise_is_durable(self) -> bool:
        return not self._promise_changed and self._promise_ticket <= self.persisted_ticket

    def send(self, to: NodeId, message: ZabMessage) -> None:
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

    def _vouches_for_more(self, message: ZabMessage) -> bool:
        if isinstance(message, Ack):
            return message.position > self.durable_position
        if isinstance(message, AckEpoch):
            return self._history_changed or self._history_ticket > self.persisted_ticket
        return False

    def send_follower_info(self, to: NodeId) -> None:
        """CEPOCH: to a leader to be, or to one whose epoch is behind."""
        promised_to = -1 if self.promised_to is None else self.promised_to
        self.send(to, FollowerInfo(self.accepted_epoch, promised_to))

    # --- epochs --------------------------------------------------------------------------

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
        self._history_changed = True
        self._save_state()

    def _save_state(self) -> None:
        state = HardState(self.accepted_epoch, self.promised_to, self.current_epoch)
        self.effects.records.append(SaveState(encode_hard_state(state)))

    def is_synchronised(self) -> bool:
        """The log is a prefix of the history of whoever leads the accepted epoch, and reaches into that epoch."""
        return self.current_epoch == self.accepted_epoch

    def own_vote(self) -> Vote:
        """How good the own history is.

        Whose log reaches into an epoch has all of its initial history, even where it has not
        accepted a later one as a whole, or a crash took the state that was written behind it.
        """
        epoch = max(self.current_epoch, self.log.last_generation)
        return Vote(epoch, self.log.last_generation, self.log.last_position, self.node_id)

    # --- configurations ------------------------------------------------------------------

    def _configure(self) -> None:
        """The latest configuration is another one: it counts at once."""
        latest = self.configurations.latest
        self.quorum = latest.quorum()
        self.voters = tuple(sorted({*latest.voters, *latest.old_voters}))
        self.peers = tuple([node for node in latest.members if node != self.node_id])
        self.is_voter = latest.incarnation(self.node_id) == self.config.incarnation
        self.effects.configuration = latest

    @property
    def configuration(self) -> Configuration:
        return self.configurations.latest

    def is_changing(self) -> bool:
        """The latest configuration is joint, or not known to be committed."""
        return self.configuration.is_joint or self.configurations.latest_position > self.commit_position

    def may_stand(self) -> bool:
        """Voters stand; so does one whose removal may not be committed, and does not count itself.

        Its log may be the only one that holds the removal, and nobody else electable.
        """
        if self.is_voter:
            return True
        former = self.configurations.former.incarnation(self.node_id)
        return self.is_changing() and former == self.config.incarnation

    # --- log -----------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        self.log.append(entry)
        self.effects.records.append(SaveEntry(entry))
        self._history_changed = True
        if entry.payload.startswith(PREFIX):
            self.configurations.append(entry.position, entry.payload)
            self._configure()

    def append_all(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.append(entry)

    def truncate_from(self, position: int) -> None:
        """Forget entries that are not in a leader's history.  None of them can be committed."""
        assert position > self.commit_position, f"entry {position} is committed, commit is {self.commit_position}"
        self.log.truncate_from(position)
        self.effects.records.append(TruncateFrom(position))
        self._history_changed = True
        # A write of the forgotten entries that is still under way must not, when it ends,
        # vouch for what takes their place.
        self.durable_position = min(self.durable_position, position - 1)
        self._unpersisted = deque([(ticket, min(last, position - 1)) for ticket, last in self._unpersisted])
        if self.configurations.truncate_from(position):
            self._configure()

    def commit(self, position: int) -> bool:
        """Learn that everything through `position` is committed; whether that was news."""
        if position <= self.commit_position:
            return False
        assert position <= self.log.last_position, (position, self.log.last_position)
        if self.commit_position < self.configurations.latest_position <= position:
            self.effects.configuration = self.configuration
        self.commit_position = position
        return True

    # --- snapshots -----------------------------------------------------------------------

    def compact(self, position: int) -> None:
        """The node made a snapshot at `position`; one older than what is known already changes nothing."""
        assert position <= self.handed_position, (position, self.handed_position)
        if position <= self.compacted_position:
            return
        generation = self.log.generation_at(position)
        assert generation is not None, position
        self.compacted_position = position
        configuration = self.configurations.compact(position)
        self.effects.records.append(CompactedThrough(position, generation, configuration.encode()))
        self.log.compact(position, self.config.max_tail_bytes)

    def install(self, position: int, generation: int, configuration: Configuration) -> None:
        """Take over a leader's snapshot, with the configuration there, that reaches beyond what is committed here.

        If the log has the snapshot's last entry, the entries after it may be acknowledged
        already and stay; if not, none of them can be committed.
        """
        assert position > self.commit_position, (position, self.commit_position)
        former, was_changing = self.configuration, self.is_changing()
        if self.log.generation_at(position) == generation:
            self.log.compact(position, self.config.max_tail_bytes)
            self.configurations.compact(position)
        else:
            if self.log.last_position > position:
                self.truncate_from(position + 1)
            self.log = Log(position, generation)
            self.configurations = Configurations(configuration, position)
            # Beyond what was committed, what is durable of the old log says nothing about
            # the new one, which is durable with the record below.
            self.durable_position = min(self.durable_position, self.handed_position)
            self._unpersisted.clear()
        self.effects.records.append(CompactedThrough(position, generation, configuration.encode()))
        self.effects.install = InstallSnapshot(position, generation)
        self.compacted_position = position
        self.commit_position = position
        self.handed_position = position
        self._history_changed = True
        if self.configuration != former or self.is_changing() != was_changing:
            self._configure()

    # --- chance --------------------------------------------------------------------------

    def draw_election_timeout_ms(self) -> int:
        """Between one and two election timeouts, so that servers seldom give up at the same time."""
        timeout_ms = self.timing.election_timeout_ms
        return self.random.randrange(timeout_ms, 2 * timeout_ms)
