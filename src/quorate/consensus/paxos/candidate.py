"""A candidate: first asks whether it could win (pre-vote), then prepares a ballot of its own (phase 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorate.consensus.membership import PREFIX, Configuration, decode_configuration
from quorate.consensus.paxos.core import Core
from quorate.consensus.paxos.messages import Prepare, PreVote, PreVoted, Promise
from quorate.consensus.pre_vote import BaseCandidate
from quorate.consensus.records import Entry
from quorate.consensus.replica import NodeId
from quorate.consensus.sanity import MAX_NUMBER

_CHOSEN: Final = MAX_NUMBER + 1
"""Above every ballot."""


@dataclass(slots=True)
class Heard:
    """What one acceptor has told so far."""

    next_position: int
    """All of its slots before this one are known."""
    commit_position: int = 0
    complete: bool = False


class Candidate(BaseCandidate[Core]):
    """Gathers promises for one ballot.  But for a pre-vote the server has promised it itself."""

    def __init__(self, core: Core, pre_vote: bool, transfer: bool = False) -> None:
        """`transfer`: the leader itself told this server to stand."""
        super().__init__(core, pre_vote)
        self.transfer = transfer
        self.ballot = core.next_ballot() if pre_vote else core.promised
        self.first_position = core.commit_position + 1
        self.heard: dict[NodeId, Heard] = {}
        self._asked = {core.node_id}
        self._values: dict[int, tuple[int, Entry]] = {}
        """By slot, of what any acceptor accepted there the value of the highest ballot, with that ballot."""
        for entry in core.log.between(self.first_position, core.log.last_position):
            self._values[entry.position] = core.accepted_ballot(entry), entry
        self._ask(core.voters)

    def _ask(self, voters: tuple[NodeId, ...]) -> None:
        for voter in voters:
            if voter in self._asked:
                continue
            self._asked.add(voter)
            if self.pre_vote:
                self.core.send(voter, PreVote(self.ballot, self.core.commit_position))
            else:
                self.core.send(voter, Prepare(self.ballot, self.first_position, self.transfer))

    # --- answers -------------------------------------------------------------------------

    def receive_pre_voted(self, sender: NodeId, message: PreVoted) -> None:
        if self.pre_vote and (not message.granted or message.ballot == self.ballot):
            self._answers.setdefault(sender, message.granted)

    def receive_rejected(self, sender: NodeId) -> None:
        if not self.pre_vote:
            self._answers.setdefault(sender, False)

    def receive_promise(self, sender: NodeId, message: Promise) -> None:
        """Phase 2a's rule, Paxos Made Simple, section 2.2: of each slot the value of the highest-numbered proposal."""
        if self.pre_vote:
            return
        heard = self.heard.setdefault(sender, Heard(self.first_position))
        if message.first_position > heard.next_position:
            return  # the part before it is lost or late: without that this one is no answer
        values = self._values
        for value in message.accepted:
            position = value.entry.position
            # Of what it knows to be chosen an acceptor forgets the ballot.
            ballot = _CHOSEN if position <= message.commit_position else value.ballot
            known = values.get(position)
            if position >= self.first_position and (known is None or ballot > known[0]):
                values[position] = ballot, value.entry
        heard.next_position = max(heard.next_position, message.last_position + 1)
        heard.commit_position = max(heard.commit_position, message.commit_position)
        if message.complete:
            heard.complete = True
            self._answers.setdefault(sender, True)

    def has_won(self) -> bool:
        """Its own promise counts like any other, and like any other not before it is durable.

        The quorum is of the latest configuration that anybody accepted, which may be
        another one than at the beginning.
        """
        if not self.pre_vote and not self.core.promise_is_durable():
            return False
        promised = [*self._voters(granted=True), self.core.node_id]
        if self.pre_vote:
            return self.core.quorum.phase_1.is_quorum(promised)
        if not self.core.quorum.phase_1.is_quorum(promised):
            return False
        latest = self._latest_configuration()
        if latest == self.core.configuration:
            return True
        self._ask(tuple(sorted({*latest.voters, *latest.old_voters})))
        return self.core.quorum_of(latest).phase_1.is_quorum(promised)

    def has_lost(self) -> bool:
        """So many refused that no quorum is left."""
        refused = self._voters(granted=False)
        left = [voter for voter in self.core.voters if voter not in refused]
        return not self.core.quorum.phase_1.is_quorum(left)

    # --- what is to be proposed ----------------------------------------------------------

    def _latest_configuration(self) -> Configuration:
        """As the log will have it that this server leads with."""
        found: Entry | None = None
        for _, entry in self._values.values():
            if entry.payload.startswith(PREFIX) and (found is None or entry.position > found.position):
                found = entry
        if found is not None:
            return decode_configuration(found.payload)
        configurations = self.core.configurations
        overruled = configurations.latest_position >= self.first_position
        return configurations.former if overruled else configurations.latest

    def commit_position(self) -> int:
        """What is known to be chosen, here or to whoever promised."""
        known = [heard.commit_position for heard in self.heard.values() if heard.complete]
        return max([self.core.commit_position, *known])

    def proposals(self) -> list[Entry]:
        """A value for every slot from `first_position` to the last in which anybody accepted one.

        Where nobody did, nothing was chosen, and nothing can be under an earlier ballot: the
        gap is filled with a no-op (Paxos Made Simple, section 3).
        """
        found: list[Entry] = []
        for position in range(self.first_position, max(self._values, default=0) + 1):
            known = self._values.get(position)
            found.append(known[1] if known is not None else Entry(position, self.ballot, b""))
        return found
