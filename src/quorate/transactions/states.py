"""What the records come to: the durable half of a coordinator and of a participant.

A running coordinator or participant changes this state by records and in no other way, so
that recovery is nothing of its own: it is the same records again.  In a group every replica
folds the records of the group's log, and whoever comes to lead begins with a copy.
"""

from __future__ import annotations

from quorate.transactions.messages import Address, TransactionId
from quorate.transactions.records import AnyRecord, Committed, Forgotten, Opened, Prepared, Resolved
from quorate.transactions.resource import Resource


class Fence:
    """Which life may write.

    A life opens with the generation after the last one and names how many records it knows;
    it is turned away where one was written meanwhile.  From then on records of earlier
    lives are void.  So it does not matter when a deposed leader learns that it is one, nor
    which order of records the log came to have, as long as it is one order.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.length = 0
        """Records that were taken."""

    def takes(self, record: AnyRecord) -> bool:
        if isinstance(record, Opened):
            if record.generation != self.generation + 1 or record.follows != self.length:
                return False
            self.generation = record.generation
        elif record.generation != self.generation:
            return False
        self.length += 1
        return True


class CoordinatorState:
    """Commits that not everybody is known to have heard of.  Of aborted transactions there is nothing."""

    def __init__(self) -> None:
        self.fence = Fence()
        self.committed: dict[int, tuple[Address, ...]] = {}
        """Participants by the transaction's number."""

    def apply(self, record: AnyRecord) -> bool:
        """Take the next record of the log; False where it is void."""
        if not self.fence.takes(record):
            return False
        if isinstance(record, Committed):
            self.committed[record.number] = record.participants
        elif isinstance(record, Forgotten):
            del self.committed[record.number]
        return True


class ParticipantState:
    """Promises, ends, and the resource with all that was committed.  It owns `resource`."""

    def __init__(self, resource: Resource) -> None:
        self.fence = Fence()
        self.resource = resource
        self.prepared: dict[TransactionId, Prepared] = {}
        """Voted yes on, and not known how it ended."""
        self.resolved: dict[TransactionId, bool] = {}
        """Whether it was committed, of each that ended and that a late message may still name."""
        self.finished_below: dict[Address, int] = {}
        """By coordinator: transactions with smaller numbers have left `resolved`."""

    def is_finished(self, transaction: TransactionId) -> bool:
        """So long ended that nobody needs to know how.  If it was committed, this participant has acknowledged it."""
        return transaction.number < self.finished_below.get(transaction.coordinator, 0)

    def apply(self, record: AnyRecord) -> bool:
        """Take the next record of the log; False where it is void."""
        if not self.fence.takes(record):
            return False
        if isinstance(record, Prepared):
            self.prepared[record.transaction] = record
            self._forget(record.transaction.coordinator, record.finished_below)
        elif isinstance(record, Resolved):
            prepared = self.prepared.pop(record.transaction, None)
            self.resolved[record.transaction] = record.committed
            if record.committed:
                assert prepared is not None, f"{record.transaction} is committed and was never prepared"
                self.resource.apply(prepared.writes)
        return True

    def _forget(self, coordinator: Address, finished_below: int) -> None:
        if finished_below <= self.finished_below.get(coordinator, 0):
            return
        self.finished_below[coordinator] = finished_below
        self.resolved = {
            transaction: committed
            for transaction, committed in self.resolved.items()
            if not self.is_finished(transaction)
        }
