"""The diagrams on the page of two-phase commit are what happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from quorate.simulation.diagram_text import render_text
from quorate.simulation.trace import Trace
from quorate.transactions.effects import Send
from quorate.transactions.messages import Address, AnyMessage, Decision, Outcome, Vote
from quorate.transactions.records import AnyRecord
from quorate.transactions.table import Add, operation
from tests.transactions.world import CLIENT, COORDINATOR, Host, Life, Packet, World

PAGE = Path(__file__).parents[2] / "docs" / "protocols" / "two_phase_commit.md"
WIDTH = 108
HOP_MS = 10
STOCK, PAYMENT = "stock", "payment"
ORDER = {STOCK: operation(Add("apples", -2)), PAYMENT: operation(Add("ann", -30), Add("till", 30))}


class DrawnWorld(World):
    """A world whose messages, records and crashes go to a trace."""

    def __init__(self) -> None:
        self.trace = Trace()
        self._late_ms = 0
        self._numbers: list[tuple[Packet, int]] = []
        super().__init__({STOCK: {"apples": 10}, PAYMENT: {"ann": 100, "till": 0}})
        self.record_watchers.append(self._written)
        self.settle()
        self.trace = Trace()
        self._late_ms = 0

    def settle(self, lost_to: Sequence[Address] = (), stuck: Sequence[Address] = ()) -> None:
        """A hop after another, so that each shows later than the one before."""
        while self.packets or self._waiting(stuck):
            for host, life in self._waiting(stuck):
                self.sync(host, life)
            packets, self.packets = self.packets, []
            self._late_ms += HOP_MS
            for packet in packets:
                self.deliver(packet)

    def _waiting(self, stuck: Sequence[Address]) -> list[tuple[Host, Life]]:
        running = [(host, life) for host in self.hosts.values() for life in host.lives]
        return [(host, life) for host, life in running if life.unsynced and host.address not in stuck]

    def order(self) -> None:
        self.trace.note(CLIENT, self._now_s(), "invoke", "an order")
        self.begin(ORDER)

    def stop(self, name: Address) -> None:
        host = self.hosts[name]
        self.crash(host, host.lives[-1])
        self.trace.note(name, self._now_s(), "crash", "")

    def start_again(self, name: Address) -> None:
        self.trace.note(name, self._now_s(), "start", "")
        self.start(self.hosts[name])

    def _now_s(self) -> float:
        return (self.now_ms + self._late_ms) / 1000

    def _post(self, host: Host, sends: list[Send]) -> None:
        for send in sends:
            super()._post(host, [send])
            assert isinstance(send.message, AnyMessage)
            number = self.trace.send(host.address, self._now_s(), send.to, label(send.message))
            self._numbers.append((self.packets[-1], number))

    def deliver(self, packet: Packet, choose: Callable[[list[Life]], Life] = lambda lives: lives[-1]) -> None:
        number = next(number for sent, number in self._numbers if sent is packet)
        if packet.to == CLIENT or self.hosts[packet.to].lives:
            self.trace.receive(packet.to, self._now_s(), number)
        super().deliver(packet, choose)

    def _written(self, address: Address, record: AnyRecord) -> None:
        self.trace.note(address, self._now_s(), "sync", type(record).__name__)


def label(message: AnyMessage) -> str:
    if isinstance(message, Vote):
        return f"Vote {'yes' if message.yes else 'no'}"
    if isinstance(message, Decision | Outcome):
        return f"{type(message).__name__} {'commit' if message.committed else 'abort'}"
    return type(message).__name__


def an_order() -> str:
    world = DrawnWorld()
    world.order()
    world.settle()
    assert world.outcomes[0].committed
    return render_text(world.trace.events, WIDTH)


def all_in_doubt() -> str:
    """The coordinator, one process, crashes with both votes and before its decision is durable."""
    world = DrawnWorld()
    world.order()
    world.settle(stuck=[COORDINATOR])
    world.stop(COORDINATOR)
    world.pass_time(600)
    assert all(world.participant(name).in_doubt for name in (STOCK, PAYMENT))
    world.start_again(COORDINATOR)
    world.pass_time(500)
    assert not any(world.participant(name).in_doubt for name in (STOCK, PAYMENT))
    return render_text(world.trace.events, WIDTH)


@pytest.mark.parametrize("draw", [an_order, all_in_doubt])
def test_the_page_shows(draw: Callable[[], str]) -> None:
    drawing = draw()
    assert drawing in PAGE.read_text(encoding="utf-8"), f"this belongs on the page:\n{drawing}"
