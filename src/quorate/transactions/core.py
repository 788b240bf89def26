"""What coordinator and participant share: steps, tickets, and the rule *durable before spoken*."""

from __future__ import annotations

from quorate.transactions.effects import Effects, Send
from quorate.transactions.messages import Address, AnyMessage, TransactionId
from quorate.transactions.records import AnyRecord, Opened
from quorate.transactions.states import CoordinatorState, ParticipantState


class Core:
    """One life of a coordinator or participant.  It opens with its first step."""

    def __init__(self, state: CoordinatorState | ParticipantState) -> None:
        self._state = state
        self._effects = Effects()
        self._last_ticket = 0
        self._persisted_ticket = 0
        self._tickets: dict[TransactionId, int] = {}
        """Of the last record about each transaction, oldest first, while it is not known to be durable."""
        self.generation = state.fence.generation + 1
        self._save(Opened(self.generation, state.fence.length))
        self._opened_ticket = self._last_ticket + 1

    def is_unopened(self) -> bool:
        """Nothing has been asked to be made durable yet: a first step is due."""
        return self._last_ticket == 0

    def is_open(self) -> bool:
        """The opening is durable, so that no other life has this generation."""
        return self._opened_ticket <= self._persisted_ticket

    def save(self, transaction: TransactionId, record: AnyRecord) -> None:
        """Change the state by a record about a transaction."""
        self._save(record)
        self._tickets.pop(transaction, None)
        self._tickets[transaction] = self._last_ticket + 1

    def _save(self, record: AnyRecord) -> None:
        taken = self._state.apply(record)
        assert taken, f"{record} does not follow from what is here"
        self._effects.records.append(record)

    def send(self, to: Address, message: AnyMessage) -> None:
        """Send, as soon as all records about the message's transaction are durable: the only place that decides this.

        Every message also rests on the life's opening: until that is durable, another life
        may have taken over, which knows better.
        """
        rests_on = max(self._opened_ticket, self._tickets.get(message.transaction, 0))
        if rests_on <= self._persisted_ticket:
            self._effects.messages.append(Send(to, message))
        else:
            self._effects.messages_after_persist.append(Send(to, message))

    def persisted(self, ticket: int) -> None:
        assert ticket <= self._last_ticket, f"ticket {ticket} was never given out"
        self._persisted_ticket = max(self._persisted_ticket, ticket)
        while self._tickets:
            transaction, waiting = next(iter(self._tickets.items()))
            if waiting > ticket:
                break
            del self._tickets[transaction]

    def finish(self) -> Effects:
        """Close the step and number it."""
        effects, self._effects = self._effects, Effects()
        if effects.records or effects.messages_after_persist:
            self._last_ticket += 1
            effects.ticket = self._last_ticket
        return effects
