"""What a server is in every role: acceptor and learner, and what of that is durable.

The durability order lives here and nowhere else.  Roles change the state through `promise`,
`accept`, `commit` and the snapshot methods, and speak through `send`, which holds a message
back until what it reveals is durable.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from quorate.consensus.configurations import Configurations
from quorate.consensus.core import QuorumOf, ServerCore
from quorate.consensus.membership import PREFIX, Configuration
from quorate.consensus.paxos.ballots import ballot_of, round_of
from quorate.consensus.paxos.hard_state import decode_hard_state, encode_hard_state
from quorate.consensus.paxos.messages import Accepted
from quorate.consensus.paxos.slots import Slots
from quorate.consensus.records import Entry, Recovered, SaveEntry, SaveState
from quorate.consensus.replica import Effects, Message, NodeId, RandomSource, ReplicaConfig, Send

MARK_SLOTS: Final = 1024
MARK_BYTES: Final = 1 << 20
"""How much is handed out before the hard state says once more what is chosen: what a restart may have to learn anew."""


class Core(ServerCore):
    """State that outlives every change of role."""

    log: Slots

    def __init__(
        self,
        config: ReplicaConfig,
        recovered: Recovered,
        random: RandomSource,
        now_ms: int,
        quorum_of: QuorumOf,
    ) -> None:
        compacted = recovered.compacted
        log = Slots(compacted.position, compacted.generation, recovered.entries)
        super().__init__(config, recovered, random, now_ms, log, quorum_of)
        state = decode_hard_state(recovered.state)
        self.promised = state.promised
        self.seen_round = round_of(state.promised)
        """The highest round that was heard of, promised or not: the next candidacy is above it."""
        self._reaccepted = dict(state.reaccepted)
        self.commit_position = self._recovered_commit(state.chosen_position)
        self._handed_generation = compacted.generation
        """With which the entry at `handed_position` was handed out."""
        self.agreed_position = self.commit_position
        """Every slot through here is chosen, or was accepted under the promised ballot: its leader's word for it
        that they are chosen is enough."""
        self._ballots_ticket = 0
        """The ticket under which it was last saved that something was accepted again."""
        self._base_ticket = 0
        """That of the last snapshot that was installed."""
        self._ballots_changed = False
        self._state_changed = False
        """The promise or the ballots, or there is much to mark as chosen."""
        self._pending: dict[int, int] = {}
        """Position to the ticket under which its entry is being written."""
        self._unpersisted: deque[tuple[int, list[int]]] = deque()
        """(ticket, positions written under it)."""
        self._written: list[int] = []
        """Positions written in this step."""
        self._unmarked_slots = 0
        self._unmarked_bytes = 0
        """Handed out since the hard state was saved."""
        self._find_durable()

    @property
    def generation(self) -> int:
        return self.promised

    def _recovered_commit(self, chosen_position: int) -> int:
        """What a log that was read back shows to be chosen: the mark, and all before its latest configuration.

        A configuration is proposed when all before it is chosen, and accepted behind those very entries.
        """
        shown = max(chosen_position, self.configurations.latest_position - 1)
        position = self.log.base_position
        while position < shown and self.log.get(position + 1) is not None:
            position += 1
        return position

    # --- one step ------------------------------------------------------------------------

    def finish(self) -> Effects:
        effects = self.effects
        if self.commit_position > self.handed_position < self.durable_position:
            self._hand_out(min(self.commit_position, self.durable_position))
        if self._state_changed:
            # First: an entry must not survive without the promise and the ballot under which it was accepted.
            effects.records.insert(0, SaveState(self._encode_state()))
        if effects.records or effects.messages_after_persist:
            self._last_ticket += 1
            effects.ticket = self._last_ticket
            if self._promise_changed:
                self._promise_ticket = self._last_ticket
            if self._ballots_changed:
                self._ballots_ticket = self._last_ticket
            self._state_changed = self._promise_changed = self._ballots_changed = False
            if self._written:
                self._unpersisted.append((self._last_ticket, self._written))
                self._written = []
        return effects

    def _hand_out(self, through: int) -> None:
        """Entries in order.  A void one, whose predecessor was not chosen, goes out empty, with generation 0.

        A leader proposes in consecutive slots, and its first proposal is empty.  So an entry's
        predecessor is what its leader proposed in the slot before, and it was chosen, and is
        not void itself, if the entry handed out before is of the same generation.
        """
        committed = self.effects.committed
        before = self._handed_generation
        for entry in self.log.between(self.handed_position + 1, through):
            payload = entry.payload
            if payload and entry.generation != before and not payload.startswith(PREFIX):
                self.log.make_void(entry.position)
                entry = Entry(entry.position, 0, b"")
            self._unmarked_bytes += len(payload)
            before = entry.generation
            committed.append(entry)
        self._unmarked_slots += through - self.handed_position
        self.handed_position = through
        self._handed_generation = before
        if self._unmarked_slots >= MARK_SLOTS or self._unmarked_bytes >= MARK_BYTES:
            self._state_changed = True

    def _encode_state(self) -> bytes:
        # Of what is chosen it does not matter any more under which ballot it was accepted; but
        # only while nobody forgets that it is.  (A snapshot may be handed out before it is durable.)
        mark = min(self.handed_position, self.durable_position)
        self._unmarked_slots = self._unmarked_bytes = 0
        if self._reaccepted:
            self._reaccepted = {key: ballot for key, ballot in self._reaccepted.items() if key[0] > mark}
        return encode_hard_state(self.promised, mark, self._reaccepted)

    def persisted(self, ticket: int) -> None:
        assert ticket <= self._last_ticket, f"ticket {ticket} was never given out"
        self.persisted_ticket = max(self.persisted_ticket, ticket)
        unpersisted, pending = self._unpersisted, self._pending
        while unpersisted and unpersisted[0][0] <= ticket:
            written_under, positions = unpersisted.popleft()
            for position in positions:
                if pending.get(position) == written_under:
                    del pending[position]
        self._find_durable()

    def _find_durable(self) -> None:
        log, pending, position = self.log, self._pending, self.durable_position
        if position < log.base_position:
            if self._base_ticket > self.persisted_ticket:
                return  # the snapshot's record is under way
            position = log.base_position
        while position < log.last_position and position + 1 not in pending and log.get(position + 1) is not None:
            position += 1
        self.durable_position = position

    # --- durable before spoken -----------------------------------------------------------

    def send(self, to: NodeId, message: Message) -> None:
        """Send, as soon as what the message reveals is durable: the only place that decides this.

        Every message reveals the promise: a candidate that forgot its ballot could use it
        again, and an acceptor that forgot its promise could break it.  An `Accepted` moreover
        vouches for entries, and that they were accepted under this ballot, which its receiver
        counts.  Other messages speak of entries that need not be durable: a leader counts
        itself for an entry only when that is, and what a `Promise` tells of was proposed under
        its ballot whether its sender forgets it or not.
        """
        if self.promise_is_durable() and not (isinstance(message, Accepted) and not self._holds(message)):
            self.effects.messages.append(Send(to, message))
        else:
            self.effects.messages_after_persist.append(Send(to, message))

    def _holds(self, message: Accepted) -> bool:
        """Whether what it vouches for is durable."""
        if self._ballots_changed or self._ballots_ticket > self.persisted_ticket:
            return False
        if message.last_position <= self.durable_position:
            return True
        if self._base_ticket > self.persisted_ticket:
            return False
        positions = range(max(message.first_position, self.durable_position + 1), message.last_position + 1)
        return all(position not in self._pending for position in positions)

    def accepted_position(self) -> int:
        """What is durable, under this ballot.

        What a leader held before it led, it accepts again: that it holds the value durably does not
        say so, as long as the ballot is not durable, and it could fall back behind a value of a
        ballot in between.
        """
        if self._ballots_changed or self._ballots_ticket > self.persisted_ticket:
            return min(self.commit_position, self.durable_position)
        return self.durable_position

    # --- the acceptor --------------------------------------------------------------------

    def next_ballot(self) -> int:
        """Above all that was heard of."""
        return ballot_of(max(self.seen_round, round_of(self.promised)) + 1, self.node_id)

    def saw(self, ballot: int) -> None:
        self.seen_round = max(self.seen_round, round_of(ballot))

    def promise(self, ballot: int) -> None:
        """Accept nothing under lower ballots from now on (phase 1b; accepting under a ballot promises it, too)."""
        assert ballot > self.promised, (ballot, self.promised)
        self.promised = ballot
        self.agreed_position = self.commit_position
        self._state_changed = self._promise_changed = True

    def accepted_ballot(self, entry: Entry) -> int:
        """Under which this server accepted the entry that it holds."""
        if not self._reaccepted:
            return entry.generation
        return self._reaccepted.get((entry.position, entry.generation), entry.generation)

    def accept(self, entry: Entry) -> bool:
        """Phase 2b, under the promised ballot; whether the slot counts as accepted now.

        A configuration is accepted only behind slots that are all chosen or accepted under
        this ballot: nobody may count by it who does not hold what was chosen before it.
        """
        position, ballot = entry.position, self.promised
        if position <= self.commit_position:
            return True
        is_configuration = entry.payload.startswith(PREFIX)
        if is_configuration and position > self.agreed_position + 1:
            return False
        held = self.log.get(position)
        if held is None or held.generation != entry.generation:
            self._write(entry)
            if position <= self.configurations.latest_position:
                self.configurations.truncate_from(position)
                self._configure()
            if is_configuration:
                self.configurations.append(position, entry.payload)
                self._configure()
        if ballot != entry.generation and self.accepted_ballot(entry) != ballot:
            self._reaccepted[position, entry.generation] = ballot
            self._state_changed = self._ballots_changed = True
        if position == self.agreed_position + 1:
            if position == self.log.last_position:
                self.agreed_position = position
            else:
                self._find_agreed()
        return True

    def _write(self, entry: Entry) -> None:
        position = entry.position
        self.log.put(entry)
        self.effects.records.append(SaveEntry(entry))
        self._pending[position] = self._last_ticket + 1
        self._written.append(position)
        if position <= self.durable_position:
            self.durable_position = position - 1

    def _find_agreed(self) -> None:
        log, ballot, position = self.log, self.promised, self.agreed_position
        while position < log.last_position:
            entry = log.get(position + 1)
            if entry is None or self.accepted_ballot(entry) != ballot:
                break
            position += 1
        self.agreed_position = position

    # --- the learner ---------------------------------------------------------------------

    def commit(self, position: int) -> bool:
        """Learn that everything through `position` is chosen, as far as it is agreed on; whether that was news."""
        if position > self.agreed_position:
            position = self.agreed_position
        return position > self.commit_position and super().commit(position)

    # --- snapshots -----------------------------------------------------------------------

    def _replace_through(self, position: int, generation: int, configuration: Configuration) -> None:
        """What was accepted in slots after the snapshot stays, and may be agreed on already."""
        later = self.configurations.latest if self.configurations.latest_position > position else None
        later_position = self.configurations.latest_position
        self.log.replace_through(position, generation)
        for written in [written for written in self._pending if written <= position]:
            del self._pending[written]
        self.configurations = Configurations(configuration, position)
        if later is not None:
            self.configurations.append(later_position, later.encode())
        self._base_ticket = self._last_ticket + 1
        self.durable_position = min(self.durable_position, self.handed_position)
        self._handed_generation = generation
        self.agreed_position = max(self.agreed_position, position)
        self._find_agreed()
