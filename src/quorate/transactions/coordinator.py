"""The coordinator: asks everybody, decides, and tells until everybody has heard of a commit."""

from __future__ import annotations

from dataclasses import dataclass, field

from quorate.transactions.core import Core
from quorate.transactions.effects import Begin, Effects, Event, Persisted, Receive, Refusal, Refused, Tick
from quorate.transactions.messages import (
    Acknowledgement,
    Address,
    Decision,
    Inquiry,
    Outcome,
    Prepare,
    TransactionId,
    Vote,
)
from quorate.transactions.records import Committed, Forgotten
from quorate.transactions.states import CoordinatorState


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """Times in milliseconds."""

    name: Address
    vote_timeout_ms: int = 2_000
    """A transaction is aborted when a vote is missing after this long."""
    resend_interval_ms: int = 200
    """What was not answered is said again at multiples of this."""


@dataclass(slots=True)
class Voting:
    """A transaction in phase one."""

    client: Address
    operations: dict[Address, bytes]
    begun_ms: int
    results: dict[Address, bytes] = field(default_factory=dict)
    """Of whom a yes came: by name, for a count cannot tell a repetition from a second voter."""

    @property
    def participants(self) -> tuple[Address, ...]:
        return tuple(sorted(self.operations))


class Coordinator:
    """Runs transactions, any number at once.  Two phases each:

    voting --all said yes--> committed --all acknowledged--> forgotten
       \\--a no, or too late--> forgotten (aborted)
    """

    def __init__(self, config: CoordinatorConfig, state: CoordinatorState, now_ms: int) -> None:
        """A new life, which knows `state` and owns it from now on.

        Whatever was being voted on in earlier lives is thereby aborted.
        """
        self._config = config
        self._now_ms = now_ms
        self._state = state
        self._core = Core(state)
        self.next_number = self._core.generation << 32
        """For the next `Begin`."""
        self._voting: dict[int, Voting] = {}
        self._unacknowledged: dict[int, dict[Address, None]] = {}
        """Participants that may not know of a commit yet."""
        self._next_round_ms = now_ms + config.resend_interval_ms
        for number, participants in state.committed.items():
            self._announce_commit(number, participants)

    @property
    def generation(self) -> int:
        """Which life of the coordinator this is, counted from 1."""
        return self._core.generation

    @property
    def unfinished(self) -> tuple[int, ...]:
        """Numbers of the transactions that somebody is still to hear of, in order."""
        return tuple(sorted([*self._voting, *self._unacknowledged]))

    def deadline_ms(self) -> int | None:
        """When `Tick` is due; None while there is nothing to wait for."""
        if self._core.is_unopened():
            return self._now_ms
        return self._next_round_ms if self._voting or self._unacknowledged else None

    def step(self, event: Event, now_ms: int) -> Effects:
        """Take one event.  Raises only for bugs of ours (AssertionError); any message is safe."""
        self._now_ms = now_ms
        refused = None
        if isinstance(event, Begin):
            refused = self._begin(event)
        elif isinstance(event, Persisted):
            self._core.persisted(event.ticket)
        elif isinstance(event, Receive):
            self._receive(event)
        else:
            assert isinstance(event, Tick), event
            self._tick()
        effects = self._core.finish()
        effects.refused = refused
        return effects

    # --- phase one -----------------------------------------------------------------------

    def _begin(self, begin: Begin) -> Refused | None:
        name, end = self._config.name, (self.generation + 1) << 32
        if not self._core.is_open():
            # Another replica may be opening the same generation, and number alike.
            return Refused(Refusal.NOT_OPEN, f"transaction {begin.number}: {name} is only starting, try again")
        if begin.number < self.next_number:
            text = f"transaction {begin.number} is not new: the next number of {name} is {self.next_number}"
            return Refused(Refusal.NOT_NEW, text)
        if begin.number >= end:
            text = f"transaction {begin.number}: this life of {name} gives out numbers below {end}"
            return Refused(Refusal.NOT_OURS, text)
        if not begin.operations:
            return Refused(
                Refusal.NO_PARTICIPANTS, f"transaction {begin.number} has no participant, expected at least one"
            )
        self.next_number = begin.number + 1
        if not (self._voting or self._unacknowledged):
            self._next_round_ms = self._now_ms + self._config.resend_interval_ms
        self._voting[begin.number] = Voting(begin.client, dict(begin.operations), self._now_ms)
        self._ask(begin.number, self._finished_below())
        return None

    def _finished_below(self) -> int:
        """Everything with a smaller number is aborted, or acknowledged by all."""
        return min([*self._voting, *self._unacknowledged])

    def _ask(self, number: int, finished_below: int) -> None:
        """Send `Prepare` to everybody whose vote is missing."""
        voting = self._voting[number]
        for participant in voting.participants:
            if participant not in voting.results:
                operation = voting.operations[participant]
                message = Prepare(self._id(number), voting.participants, finished_below, operation)
                self._core.send(participant, message)

    def _vote(self, sender: Address, vote: Vote) -> None:
        number = vote.transaction.number
        voting = self._voting.get(number)
        if voting is None:
            # Late.  After a yes somebody holds locks and waits.
            if vote.yes:
                self._answer(sender, number)
            return
        if sender not in voting.operations:
            return
        if not vote.yes:
            self._abort(number, f"{sender}: {vote.reason}", but=sender)
            return
        voting.results[sender] = vote.result
        if len(voting.results) == len(voting.operations):
            self._commit(number)

    # --- the decision --------------------------------------------------------------------

    def _commit(self, number: int) -> None:
        """Everybody has promised.  The record is the decision: nobody hears of it before it is durable."""
        voting = self._voting.pop(number)
        assert voting.results.keys() == voting.operations.keys(), (number, voting)
        self._core.save(self._id(number), Committed(self.generation, number, voting.participants))
        self._announce_commit(number, voting.participants)
        results = {participant: voting.results[participant] for participant in voting.participants}
        self._core.send(voting.client, Outcome(self._id(number), True, results))

    def _abort(self, number: int, reason: str, but: Address | None = None) -> None:
        """Nothing is written: a transaction that nobody remembers is an aborted one.

        Those who do not hear of it will ask.
        """
        voting = self._voting.pop(number)
        for participant in voting.participants:
            if participant != but:
                self._core.send(participant, Decision(self._id(number), False))
        self._core.send(voting.client, Outcome(self._id(number), False, reason=reason))

    # --- phase two -----------------------------------------------------------------------

    def _announce_commit(self, number: int, participants: tuple[Address, ...]) -> None:
        self._unacknowledged[number] = dict.fromkeys(participants)
        self._tell(number)

    def _tell(self, number: int) -> None:
        for participant in self._unacknowledged[number]:
            self._core.send(participant, Decision(self._id(number), True))

    def _acknowledged(self, sender: Address, number: int) -> None:
        waiting = self._unacknowledged.get(number)
        if waiting is None:
            return
        waiting.pop(sender, None)
        if not waiting:
            del self._unacknowledged[number]
            self._core.save(self._id(number), Forgotten(self.generation, number))

    def _answer(self, sender: Address, number: int) -> None:
        """Somebody is in doubt.  What is voted on gets no answer yet, what is unknown was aborted.

        Unless it is of a later life than this one, which then is over and knows nothing.
        """
        if number in self._voting or number >= self.next_number:
            return
        self._core.send(sender, Decision(self._id(number), number in self._state.committed))

    # --- everything else -----------------------------------------------------------------

    def _receive(self, event: Receive) -> None:
        message = event.message
        transaction = message.transaction
        if transaction.coordinator != self._config.name:
            return
        if isinstance(message, Vote):
            self._vote(event.sender, message)
        elif isinstance(message, Acknowledgement):
            self._acknowledged(event.sender, transaction.number)
        elif isinstance(message, Inquiry):
            self._answer(event.sender, transaction.number)

    def _tick(self) -> None:
        if self._now_ms < self._next_round_ms:
            return
        self._next_round_ms = self._now_ms + self._config.resend_interval_ms
        timeout_ms = self._config.vote_timeout_ms
        for number, voting in list(self._voting.items()):
            if self._now_ms - voting.begun_ms >= timeout_ms:
                silent = [name for name in voting.participants if name not in voting.results]
                self._abort(number, f"no vote from {', '.join(silent)} within {timeout_ms} ms")
        if self._voting:
            finished_below = self._finished_below()
            for number in self._voting:
                self._ask(number, finished_below)
        for number in self._unacknowledged:
            self._tell(number)

    def _id(self, number: int) -> TransactionId:
        return TransactionId(self._config.name, number)
