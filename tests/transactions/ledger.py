"""What must be true of transactions, judged from durable records, what the client was told, and the tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from quorate.simulation.violation import Violation
from quorate.transactions.messages import Address, Outcome, TransactionId
from quorate.transactions.records import AnyRecord, Committed, Prepared, Resolved
from quorate.transactions.table import Table
from tests.transactions.world import COORDINATOR, World, require


@dataclass(slots=True)
class Version:
    """What one transaction made of a key, and who found it so."""

    writer: int | None
    readers: list[int] = field(default_factory=list)


class Ledger:
    """Watches a world, and at its end says whether all was well."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.begun: dict[int, dict[Address, bytes]] = {}
        """Operations by number."""
        self.ended: dict[int, bool] = {}
        """Whether it was committed, as the first durable record about it says."""
        self.done: Counter[tuple[Address, int]] = Counter()
        """How often each participant has carried out each transaction."""
        self.versions: dict[tuple[Address, str], list[Version]] = {}
        self._promises: dict[tuple[Address, int], Prepared] = {}
        world.record_watchers.append(self.note)

    # --- while it runs ---------------------------------------------------------------------

    def note(self, host: Address, record: AnyRecord) -> None:
        if isinstance(record, Committed):
            self._end(host, record.number, True)
        elif isinstance(record, Prepared):
            self._promise(host, record)
        elif isinstance(record, Resolved):
            number = self._number(record.transaction)
            self._end(host, number, record.committed)
            promise = self._promises.pop((host, number), None)
            if record.committed:
                assert promise is not None
                self.done[host, number] += 1
                for key in promise.writes:
                    self._history(host, key).append(Version(number))

    def _promise(self, host: Address, record: Prepared) -> None:
        number = self._number(record.transaction)
        self._promises[host, number] = record
        for key in record.reads:
            self._history(host, key)[-1].readers.append(number)

    def _end(self, host: Address, number: int, committed: bool) -> None:
        known = self.ended.setdefault(number, committed)
        require(known == committed, "one decision", f"{host} takes {number} for committed={committed}")

    def _history(self, host: Address, key: str) -> list[Version]:
        return self.versions.setdefault((host, key), [Version(None)])

    @staticmethod
    def _number(transaction: TransactionId) -> int:
        assert transaction.coordinator == COORDINATOR
        return transaction.number

    # --- at the end, when all has healed ---------------------------------------------------

    def check(self) -> None:
        self._check_nothing_is_left()
        self._check_all_or_nothing()
        for outcome in self.world.outcomes:
            self._check_told(outcome)
        self._check_serializable()

    def _check_nothing_is_left(self) -> None:
        require(not self.world.coordinator().unfinished, "an end", "the coordinator cannot forget a transaction")
        for name in self.tables():
            participant = self.world.participant(name)
            require(not participant.in_doubt and not len(participant.locks), "an end", f"{name} keeps locks for ever")

    def _check_all_or_nothing(self) -> None:
        for number, operations in self.begun.items():
            times = {name: self.done[name, number] for name in operations}
            expected = 1 if self.ended.get(number, False) else 0
            require(set(times.values()) == {expected}, "all or nothing", f"{number} was carried out {times}")

    def _check_told(self, outcome: Outcome) -> None:
        number = self._number(outcome.transaction)
        truth = self.ended.get(number, False)
        require(outcome.committed == truth, "outcome", f"the client was told committed={outcome.committed} of {number}")

    def _check_serializable(self) -> None:
        """There is an order in which the same operations, one at a time, return and leave the same values."""
        tables = {name: Table(self.world.hosts[name].values) for name in self.tables()}
        results = {outcome.transaction.number: outcome.results for outcome in self.world.outcomes}
        for number in self._serial_order():
            for name, operation in self.begun[number].items():
                plan = tables[name].plan(operation)
                tables[name].apply(plan.writes)
                told = results[number].get(name) if number in results else plan.result
                require(told == plan.result, "serializability", f"{number} at {name} returned {told!r}")
        for name, table in tables.items():
            require(
                table.values == self.world.hosts[name].table.values, "serializability", f"{name} holds other values"
            )

    def _serial_order(self) -> list[int]:
        """By what each found and left: writer before reader, reader before the next writer, writer before writer."""
        committed = {number for number, is_committed in self.ended.items() if is_committed}
        before: dict[int, set[int]] = {number: set() for number in sorted(committed)}
        for history in self.versions.values():
            for version, following in zip(history, [*history[1:], None], strict=True):
                readers = [reader for reader in version.readers if reader in committed]
                for reader in readers:
                    if version.writer is not None and version.writer != reader:
                        before[reader].add(version.writer)
                if following is not None and following.writer is not None:
                    earlier = {*readers, *([version.writer] if version.writer is not None else [])}
                    before[following.writer] |= earlier - {following.writer}
        try:
            return list(TopologicalSorter(before).static_order())
        except CycleError as error:
            raise Violation("serializability", f"each of {error.args[1]} came before the next") from error

    def tables(self) -> list[Address]:
        return [name for name in self.world.hosts if name != COORDINATOR]
