"""The participant: locks, promises, and waits to hear how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from quorate.transactions.core import Core
from quorate.transactions.effects import Effects, Event, Persisted, Receive, Tick
from quorate.transactions.locks import Locks
from quorate.transactions.messages import (
    Acknowledgement,
    Address,
    Decision,
    Inquiry,
    Prepare,
    TransactionId,
    Vote,
)
from quorate.transactions.records import Prepared, Resolved
from quorate.transactions.resource import Unacceptable
from quorate.transactions.states import ParticipantState


@dataclass(frozen=True, slots=True)
class ParticipantConfig:
    """Times in milliseconds."""

    name: Address
    inquiry_interval_ms: int = 500
    """After this long in doubt a participant asks the coordinator and its peers, and again after each such time."""


class Participant:
    """Takes part in transactions of any coordinators, any number at once:

        (unknown) --Prepare, yes--> prepared --Decision--> resolved --> forgotten
             \\--a peer in doubt asks--> resolved (aborted)

    Between its yes and the decision it is *in doubt*: it keeps all locks and decides nothing.
    """

    def __init__(self, config: ParticipantConfig, state: ParticipantState, now_ms: int) -> None:
        """A new life, which knows `state` and owns it from now on."""
        self._config = config
        self._now_ms = now_ms
        self._state = state
        self._core = Core(state)
        self.locks = Locks()
        self._ask_ms: dict[TransactionId, int] = {}
        """When to ask about each transaction in doubt."""
        for transaction, prepared in state.prepared.items():
            conflict = self.locks.acquire(transaction, prepared.reads, prepared.writes)
            assert conflict is None, f"{transaction} and another one were prepared with {conflict}"
            self._ask_ms[transaction] = now_ms

    @property
    def in_doubt(self) -> tuple[TransactionId, ...]:
        return tuple(self._state.prepared)

    def deadline_ms(self) -> int | None:
        """When `Tick` is due; None while there is nothing to wait for."""
        if self._core.is_unopened():
            return self._now_ms
        return min(self._ask_ms.values(), default=None)

    def step(self, event: Event, now_ms: int) -> Effects:
        """Take one event.  Raises only for bugs of ours (AssertionError); any message is safe."""
        self._now_ms = now_ms
        if isinstance(event, Persisted):
            self._core.persisted(event.ticket)
        elif isinstance(event, Receive):
            self._receive(event)
        else:
            assert isinstance(event, Tick), event
            self._ask_about_doubts()
        return self._core.finish()

    # --- phase one -----------------------------------------------------------------------

    def _prepare(self, prepare: Prepare) -> None:
        """Vote, and vote the same when asked again: a `Prepare` may come late, and after the transaction's end."""
        transaction = prepare.transaction
        if self._state.is_finished(transaction):
            return
        committed = self._state.resolved.get(transaction)
        if committed:
            self._core.send(transaction.coordinator, Acknowledgement(transaction))
            return
        if committed is not None:
            self._vote_no(transaction, "was aborted before")
            return
        if transaction not in self._state.prepared:
            self._lock_and_promise(prepare)
        if transaction in self._state.prepared:
            result = self._state.prepared[transaction].result
            self._core.send(transaction.coordinator, Vote(transaction, True, result))

    def _lock_and_promise(self, prepare: Prepare) -> None:
        """Prepared, or a no.  After a no nothing is held, and a repetition may find things changed."""
        transaction = prepare.transaction
        try:
            plan = self._state.resource.plan(prepare.operation)
        except Unacceptable as error:
            self._vote_no(transaction, str(error))
            return
        conflict = self.locks.acquire(transaction, plan.reads, plan.writes)
        if conflict is not None:
            self._vote_no(transaction, f"{conflict} is locked by another transaction")
            return
        record = Prepared(
            self._core.generation,
            transaction,
            prepare.participants,
            prepare.finished_below,
            tuple(sorted(plan.reads)),
            dict(plan.writes),
            plan.result,
        )
        self._core.save(transaction, record)
        self._ask_ms[transaction] = self._now_ms + self._config.inquiry_interval_ms

    def _vote_no(self, transaction: TransactionId, reason: str) -> None:
        self._core.send(transaction.coordinator, Vote(transaction, False, reason=reason))

    # --- phase two -----------------------------------------------------------------------

    def _decision(self, sender: Address, decision: Decision) -> None:
        transaction = decision.transaction
        prepared = self._state.prepared.get(transaction)
        if prepared is not None:
            if sender == transaction.coordinator or sender in prepared.participants:
                self._resolve(transaction, decision.committed)
        elif decision.committed and (self._state.is_finished(transaction) or self._state.resolved.get(transaction)):
            # Repeated, because the acknowledgement was lost.  One that is unknown here is not
            # acknowledged: a later life of this participant may have promised it.
            self._core.send(transaction.coordinator, Acknowledgement(transaction))

    def _resolve(self, transaction: TransactionId, committed: bool) -> None:
        self._core.save(transaction, Resolved(self._core.generation, transaction, committed))
        self.locks.release(transaction)
        del self._ask_ms[transaction]
        if committed:
            self._core.send(transaction.coordinator, Acknowledgement(transaction))

    # --- in doubt ------------------------------------------------------------------------

    def _ask_about_doubts(self) -> None:
        """Cooperative termination (Bernstein, Hadzilacos and Goodman 1987, section 7.4)."""
        for transaction, due_ms in self._ask_ms.items():
            if due_ms > self._now_ms:
                continue
            self._ask_ms[transaction] = self._now_ms + self._config.inquiry_interval_ms
            peers = self._state.prepared[transaction].participants
            for address in (transaction.coordinator, *peers):
                if address != self._config.name:
                    self._core.send(address, Inquiry(transaction))

    def _answer(self, sender: Address, transaction: TransactionId) -> None:
        """Tell a peer in doubt how it ended.  Where this participant has not promised, it ends it now, as aborted."""
        if transaction in self._state.prepared or self._state.is_finished(transaction):
            return
        if transaction not in self._state.resolved:
            self._core.save(transaction, Resolved(self._core.generation, transaction, False))
        self._core.send(sender, Decision(transaction, self._state.resolved[transaction]))

    # --- everything else -----------------------------------------------------------------

    def _receive(self, event: Receive) -> None:
        message = event.message
        if isinstance(message, Prepare):
            transaction = message.transaction
            ours = event.sender == transaction.coordinator and self._config.name in message.participants
            if ours and message.finished_below <= transaction.number:
                self._prepare(message)
        elif isinstance(message, Decision):
            self._decision(event.sender, message)
        elif isinstance(message, Inquiry):
            self._answer(event.sender, message.transaction)
