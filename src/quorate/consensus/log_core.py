"""The half of a server's core that is its log, where that has no holes: Raft's and ZAB's."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from quorate.consensus.configurations import Configurations
from quorate.consensus.core import ServerCore
from quorate.consensus.log import Log
from quorate.consensus.membership import PREFIX, Configuration
from quorate.consensus.records import Entry, Recovered, SaveEntry, TruncateFrom
from quorate.consensus.replica import Effects, RandomSource, ReplicaConfig
from quorate.quorums import Quorum


class LogCore(ServerCore):
    """What is written counts as durable in the order of the log, up to where nothing before is under way."""

    log: Log
    quorum: Quorum

    def __init__(self, config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> None:
        compacted = recovered.compacted
        log = Log(compacted.position, compacted.generation, recovered.entries)
        super().__init__(config, recovered, random, now_ms, log)
        self.durable_position = log.last_position
        self._log_changed = False
        self._unpersisted: deque[tuple[int, int]] = deque()
        """(ticket, last position): once the ticket is persisted, the log is durable through the position."""

    # --- one step ------------------------------------------------------------------------

    def finish(self) -> Effects:
        effects = self.effects
        if effects.records or effects.messages_after_persist:
            self._last_ticket += 1
            effects.ticket = self._last_ticket
            if self._promise_changed:
                self._promise_ticket = self._last_ticket
                self._promise_changed = False
            if self._log_changed:
                self._unpersisted.append((self._last_ticket, self.log.last_position))
                self._log_changed = False
        safe_position = min(self.commit_position, self.durable_position)
        if safe_position > self.handed_position:
            effects.committed = self.log.between(self.handed_position + 1, safe_position)
            self.handed_position = safe_position
        return effects

    def persisted(self, ticket: int) -> None:
        assert ticket <= self._last_ticket, f"ticket {ticket} was never given out"
        self.persisted_ticket = max(self.persisted_ticket, ticket)
        unpersisted = self._unpersisted
        while unpersisted and unpersisted[0][0] <= ticket:
            self.durable_position = max(self.durable_position, unpersisted.popleft()[1])

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
        """Forget entries that contradict a leader's.  None of them can be committed."""
        assert position > self.commit_position, f"entry {position} is committed, commit is {self.commit_position}"
        self.log.truncate_from(position)
        self.effects.records.append(TruncateFrom(position))
        self._log_changed = True
        # A write of the forgotten entries that is still under way must not, when it ends,
        # vouch for what takes their place.
        self.durable_position = min(self.durable_position, position - 1)
        self._unpersisted = deque([(ticket, min(last, position - 1)) for ticket, last in self._unpersisted])
        if self.configurations.truncate_from(position):
            self._configure()

    # --- snapshots -----------------------------------------------------------------------

    def _replace_through(self, position: int, generation: int, configuration: Configuration) -> None:
        """If the log has the snapshot's last entry, the entries after it may be acknowledged already and stay.

        If not, none of them can be committed (Raft thesis, section 5.1).
        """
        if self.log.generation_at(position) == generation:
            self.log.compact(position, self.config.max_tail_bytes)
            self.configurations.compact(position, configuration)
        else:
            if self.log.last_position > position:
                self.truncate_from(position + 1)
            self.log = Log(position, generation)
            self.configurations = Configurations(configuration, position)
            # Beyond what was committed, what is durable of the old log says nothing about
            # the new one, which is durable with the snapshot's record.  (Not simply what was
            # handed out: that may rest on an earlier snapshot whose record is under way.)
            self.durable_position = min(self.durable_position, self.handed_position)
            self._unpersisted.clear()
        self._log_changed = True
