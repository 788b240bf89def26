"""What a server is in every role, whatever its protocol: how far its log is committed, handed out and durable.

Each protocol has a core that extends this one by its own hard state, and that decides in
`send` what must be durable before it is spoken.  Raft's and ZAB's extend `log_core`, since
their logs have no holes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from quorate.consensus.configurations import recover_configurations
from quorate.consensus.membership import Configuration
from quorate.consensus.records import CompactedThrough, Entry, Recovered
from quorate.consensus.replica import Effects, InstallSnapshot, Message, NodeId, RandomSource, ReplicaConfig
from quorate.consensus.timing import Timing
from quorate.quorums import PhasedQuorum

QuorumOf: TypeAlias = Callable[[Configuration], PhasedQuorum]


class Tail(Protocol):
    """The part of a log that is held in memory."""

    base_position: int
    """Of the last entry that is not held any more."""
    last_position: int

    def generation_at(self, position: int) -> int | None: ...

    def between(self, first: int, last: int) -> Sequence[Entry]: ...

    def compact(self, position: int, keep_bytes: int) -> None: ...


class ServerCore:
    """State that outlives every change of role."""

    def __init__(
        self,
        config: ReplicaConfig,
        recovered: Recovered,
        random: RandomSource,
        now_ms: int,
        log: Tail,
        quorum_of: QuorumOf = Configuration.quorum,
    ) -> None:
        """`quorum_of`: who decides in a configuration, by default majorities."""
        self.config = config
        self.node_id = config.node_id
        self.random = random
        self.now_ms = now_ms
        self.quorum_of = quorum_of
        self.timing = Timing(config.election_timeout_ms, config.max_election_timeout_ms)
        self.log = log
        self.compacted_position = recovered.compacted.position
        self.commit_position = recovered.compacted.position
        """What is known to be committed.  It may be ahead of what is durable here."""
        self.handed_position = recovered.compacted.position
        """What was handed out to be applied: committed and durable here."""
        self.durable_position = recovered.compacted.position
        """Everything through here is held, durably."""
        self.effects = Effects()
        self.persisted_ticket = 0
        self._last_ticket = 0
        self._promise_ticket = 0
        """The ticket under which was saved what this server promised last: term and vote, epoch, or ballot."""
        self._promise_changed = False
        self.configurations = recover_configurations(config.initial, recovered)
        self.quorum: PhasedQuorum
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

    @abstractmethod
    def finish(self) -> Effects:
        """Close the step: number it, and hand out what has become safe to apply."""

    @abstractmethod
    def persisted(self, ticket: int) -> None:
        """Everything under tickets up to `ticket` is durable."""

    # --- durable before spoken -----------------------------------------------------------

    @property
    @abstractmethod
    def generation(self) -> int:
        """The one that this server is in: its term, accepted epoch or promised ballot."""

    def promise_is_durable(self) -> bool:
        return not self._promise_changed and self._promise_ticket <= self.persisted_ticket

    @abstractmethod
    def send(self, to: NodeId, message: Message) -> None:
        """Send, as soon as what the message reveals is durable: the only place that decides this."""

    def accepted_position(self) -> int:
        """As an acceptor of its own entries, a leader counts itself through here."""
        return self.durable_position

    # --- configurations ------------------------------------------------------------------

    def _configure(self) -> None:
        """The latest configuration is another one: it counts at once."""
        latest = self.configurations.latest
        self.quorum = self.quorum_of(latest)
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

        Its log may be the only one that holds the removal, and nobody else electable (Raft
        thesis, section 4.2.2).
        """
        if self.is_voter:
            return True
        former = self.configurations.former.incarnation(self.node_id)
        return self.is_changing() and former == self.config.incarnation

    # --- log -----------------------------------------------------------------------------

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
        """Take over a leader's snapshot, with the configuration there, that reaches beyond what is committed here."""
        assert position > self.commit_position, (position, self.commit_position)
        former, was_changing = self.configuration, self.is_changing()
        self._replace_through(position, generation, configuration)
        self.effects.records.append(CompactedThrough(position, generation, configuration.encode()))
        self.effects.install = InstallSnapshot(position, generation)
        self.compacted_position = position
        self.commit_position = position
        self.handed_position = position
        if self.configuration != former or self.is_changing() != was_changing:
            self._configure()

    @abstractmethod
    def _replace_through(self, position: int, generation: int, configuration: Configuration) -> None:
        """The snapshot stands for the log through `position`: what of the rest stays, and what is durable now."""

    # --- chance --------------------------------------------------------------------------

    def draw_election_timeout_ms(self) -> int:
        """Between one and two election timeouts, so that servers seldom stand at the same time."""
        timeout_ms = self.timing.election_timeout_ms
        return self.random.randrange(timeout_ms, 2 * timeout_ms)
