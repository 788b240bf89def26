"""Two-phase commit, crash by crash: an order takes from the stock and from a purse, at all three or at none.

    python examples/order_payment/order_payment.py

Coordinator and participants are `quorate.transactions`; what is missing to run them is small, and all of it is here: a
log that is synced, and a way to hand messages on.  Every host here has a file of its own.  The messages stay in this
program, so that a crash can be put where it hurts.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from pathlib import Path

from quorate.transactions import (
    Coordinator,
    CoordinatorConfig,
    CoordinatorState,
    Participant,
    ParticipantConfig,
    ParticipantState,
)
from quorate.transactions.effects import Begin, Effects, Event, Persisted, Receive, Send, Tick
from quorate.transactions.messages import Outcome
from quorate.transactions.records import AnyRecord, Committed, decode_record, encode_record
from quorate.transactions.table import Add, Create, Table, operation

TABLES = {"orders": {}, "stock": {"apples": 10}, "payment": {"ann": 100, "till": 0}}
INTERVAL_MS = 500


class Log:
    """Records on disk, each behind its length.  One to rely on has checksums too, and cuts a torn tail off."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, records: list[AnyRecord]) -> None:
        with self._path.open("ab") as file:
            for record in records:
                data = encode_record(record)
                file.write(len(data).to_bytes(4, "big") + data)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[AnyRecord]:
        data, records = self._path.read_bytes() if self._path.exists() else b"", []
        while data:
            end = 4 + int.from_bytes(data[:4], "big")
            records.append(decode_record(data[4:end]))
            data = data[end:]
        return records


class Shop:
    """The hosts that run, the messages under way, and a clock that moves when we say so."""

    def __init__(self, folder: Path) -> None:
        self.logs = {name: Log(folder / name) for name in ("coordinator", *TABLES)}
        self.running: dict[str, Coordinator | Participant] = {}
        self.messages: deque[tuple[str, Send]] = deque()
        self.now_ms = 0
        self.lose_coordinator_at_decision: bool | None = None
        """Just before (False) or just after (True) its decision is durable; None: not at all."""
        for name in self.logs:
            self.start(name)

    def start(self, name: str) -> None:
        """From the records in the log: there is no other way to start."""
        state = CoordinatorState() if name == "coordinator" else ParticipantState(Table(TABLES[name]))
        for record in self.logs[name].read():
            state.apply(record)
        if isinstance(state, CoordinatorState):
            self.running[name] = Coordinator(CoordinatorConfig(name), state, self.now_ms)
        else:
            self.running[name] = Participant(ParticipantConfig(name, INTERVAL_MS), state, self.now_ms)
        self.step(name, Tick())

    def step(self, name: str, event: Event) -> None:
        """One event, and all that it wants: the order of these lines is the whole contract."""
        effects: Effects = self.running[name].step(event, self.now_ms)
        self.messages.extend((name, send) for send in effects.messages)
        if not effects.ticket:
            return
        decides = any(isinstance(record, Committed) for record in effects.records)
        if decides and self.lose_coordinator_at_decision is False:
            del self.running[name]
            return
        self.logs[name].append(effects.records)
        if decides and self.lose_coordinator_at_decision is True:
            del self.running[name]
            return
        self.messages.extend((name, send) for send in effects.messages_after_persist)
        self.step(name, Persisted(effects.ticket))

    def order(self, number: int, apples: int, price: int) -> None:
        coordinator = self.running["coordinator"]
        assert isinstance(coordinator, Coordinator)
        print(f"order {number}: {apples} apples for {price}")
        operations = {
            "orders": operation(Create(f"order-{number}", apples)),
            "stock": operation(Add("apples", -apples)),
            "payment": operation(Add("ann", -price), Add("till", price)),
        }
        self.step("coordinator", Begin(coordinator.next_number, "client", operations))
        self.talk()

    def talk(self) -> None:
        """Until nobody has anything to say."""
        while self.messages:
            sender, send = self.messages.popleft()
            if isinstance(send.message, Outcome):
                print(
                    "  the client hears:", "committed" if send.message.committed else f"aborted, {send.message.reason}"
                )
            elif send.to in self.running:
                self.step(send.to, Receive(sender, send.message))

    def wait(self) -> None:
        """Long enough for everybody in doubt to ask."""
        self.now_ms += INTERVAL_MS
        for name in list(self.running):
            self.step(name, Tick())
        self.talk()

    def show(self) -> None:
        for name in TABLES:
            participant = self.running[name]
            state = ParticipantState(Table(TABLES[name]))
            for record in self.logs[name].read():
                state.apply(record)
            assert isinstance(participant, Participant) and isinstance(state.resource, Table)
            doubt = "  in doubt, and holds its locks" if participant.in_doubt else ""
            print(f"  {name:8} {state.resource.values}{doubt}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        shop.order(1, apples=2, price=30)
        shop.show()
        shop.order(2, apples=9, price=10)
        shop.show()
        for is_durable, when in ((False, "before its decision is durable"), (True, "when it is, and nobody has heard")):
            shop.lose_coordinator_at_decision = is_durable
            shop.order(3 + is_durable, apples=1, price=15)
            print(f"  the coordinator crashes {when}")
            shop.wait()
            shop.show()
            print("  the next one starts from the same records: a process when it is back, in a group at once")
            shop.lose_coordinator_at_decision = None
            shop.start("coordinator")
            shop.wait()
            shop.show()


if __name__ == "__main__":
    main()
