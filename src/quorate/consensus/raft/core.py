"""What a server is in every role: its term and vote, its log, and what of them is durable.

The durability order lives here and nowhere else.  Roles change the hard state through
`enter_term` and `vote_for`, the log through `append`, `replace_from` and the snapshot
methods, and speak through `send`, which holds a message back until what it reveals is
durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from quorate.consensus.configurations import Configurations, recover_configurations
from quorate.consensus.log import Log
from quorate.consensus.membership import PREFIX, Configuration
from quorate.consensus.raft.hard_state import decode_hard_state, encode_hard_state
from quorate.consensus.raft.messages import MAX_NUMBER, Appended, RaftMessage
from quorate.consensus.records import CompactedThrough, Entry, Recovered, SaveEntry, SaveState, TruncateFrom
from quorate.consensus.replica import Effects, InstallSnapshot, NodeId, RandomSource, ReplicaConfig, Send
from quorate.consensus.timing import Timing
from quorate.quorums import Quorum


class Core:
    """State that outlives every change of role (the "all servers" part of thesis figure 3.1)."""

    def __init__(self, config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> None:
        self.config = config
        self.node_id = config.node_id
        self.random = random
        self.now_ms = now_ms
        self.timing = Timing(config.election_timeout_ms, config.max_election_timeout_ms)
        self.term, self.voted_for = decode_hard_state(recovered.state)
        compacted = recovered.compacted
        self.log = Log(compacted.position, compacted.generation, recovered.entries)
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
        self._state_ticket = 0
        """The ticket under which the current hard state was saved."""
        self._state_changed = False
        self._log_changed = False
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
        if self._state_changed:
            # First, so that no recovered log holds an entry of a term above the recovered one.
            effects.records.insert(0, SaveState(encode_hard_state(self.term, self.voted_for)))
        if effects.records or effects.messages_after_persist:
            self._last_ticket += 1
            effects.ticket = self._last_ticket
            if self._state_changed:
                self._state_ticket = self._last_ticket
                self._state_changed = False
            if self._log_changed:
                self._unpersisted.append((self._last_ticket, self.log.last_position))
                self._log_changed = False
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

    def state_is_durable(self) -> bool:
        return not self._state_changed and self._state_ticket <= self.persisted_ticket

    def send(self, to: NodeId, message: RaftMessage) -> None:
        """Send, as soon as what the message reveals is durable: the only place that decides this.

        Every message reveals the term, and a vote or a request for votes reveals the
        vote.  An `Appended` moreover vouches for log entries, which its receiver counts.
        Other messages speak of entries that need not be durable: a leader counts itself
        for an entry only when that is (thesis section 10.2.1), and a candidate's claim to
        have an up-to-date log promises nothing about the time after a crash.
        """
        if self.state_is_durable() and not (
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
        self._state_changed = True

    def vote_for(self, node: NodeId) -> None:
        """Give the one vote of this term.  Giving it again to the same candidate changes nothing."""
        assert self.voted_for is None or self.voted_for == node, (self.term, self.voted_for, node)
        if self.voted_for is None:
            self.voted_for = node
            self._state_changed = True

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

        Its log may be the only one that holds the removal, and nobody else electable
        (thesis section 4.2.2).
        """
        if self.is_voter:
            return True
        former = self.configurations.former.incarnation(self.node_id)
        return self.is_changing() and former == self.config.incarnation

    # --- log -----------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        self.log.append(entry)
        self.effects.records.append(SaveEntry(entry))
        self._log_changed = True
        if entry.payload.startswith(PREFIX):
            self.configurations.append(entry.position, entry.payload)
            self._configure()

    def append_all(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.append(entry)

    def truncate_from(self, position: int) -> None:
        """Forget entries that contradict a leader's.  None of them can be committed (Leader Completeness)."""
        assert position > self.commit_position, f"entry {position} is committed, commit is {self.commit_position}"
        self.log.truncate_from(position)
        self.effects.records.append(TruncateFrom(position))
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
        term = self.log.generation_at(position)
        assert term is not None, position
        self.compacted_position = position
        configuration = self.configurations.compact(position)
        self.effects.records.append(CompactedThrough(position, term, configuration.encode()))
        self.log.compact(position, self.config.max_tail_bytes)

    def install(self, position: int, term: int, configuration: Configuration) -> None:
        """Take over a leader's snapshot, with the configuration there, that reaches beyond what is committed here.

        If the log has the snapshot's last entry, the entries after it may be acknowledged
        already and stay (thesis section 5.1); if not, none of them can be committed.
        """
        assert position > self.commit_position, (position, self.commit_position)
        former, was_changing = self.configuration, self.is_changing()
        if self.log.generation_at(position) == term:
            self.log.compact(position, self.config.max_tail_bytes)
            self.configurations.compact(position)
        else:
            if self.log.last_position > position:
                self.truncate_from(position + 1)
            self.log = Log(position, term)
            self.configurations = Configurations(configuration, position)
            # Beyond what was committed, what is durable of the old log says nothing about
            # the new one, which is durable with the record below.  (Not simply what was
            # handed out: that may rest on an earlier snapshot whose record is under way.)
            self.durable_position = min(self.durable_position, self.handed_position)
            self._unpersisted.clear()
        self.effects.records.append(CompactedThrough(position, term, configuration.encode()))
        self.effects.install = InstallSnapshot(position, term)
        self.compacted_position = position
        self.commit_position = position
        self.handed_position = position
        self._log_changed = True
        if self.configuration != former or self.is_changing() != was_changing:
            self._configure()

    # --- chance --------------------------------------------------------------------------

    def draw_election_timeout_ms(self) -> int:
        """Between one and two election timeouts, so that servers seldom stand at the same time."""
        timeout_ms = self.timing.election_timeout_ms
        return self.random.randrange(timeout_ms, 2 * timeout_ms)
