"""An order, a stock and a payment participant under everything that may happen, from a seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from quorate.transactions.coordinator import Coordinator
from quorate.transactions.effects import Begin, Refusal
from quorate.transactions.messages import Address
from quorate.transactions.table import Add, Create, Read, decode_result, operation
from tests.transactions.ledger import Ledger
from tests.transactions.world import CLIENT, COORDINATOR, Host, Life, Packet, World, choose_from, require

ORDERS, STOCK, PAYMENT = "orders", "stock", "payment"
ARTICLES, CUSTOMERS, PRICE = 3, 5, 7
IN_STOCK, PURSE = 20, 60

TABLES = {
    ORDERS: {},
    STOCK: {f"article-{n}": IN_STOCK for n in range(ARTICLES)},
    PAYMENT: {**{f"customer-{n}": PURSE for n in range(CUSTOMERS)}, **{f"till-{n}": 0 for n in range(ARTICLES)}},
}
MONEY = PURSE * CUSTOMERS


@dataclass(frozen=True, slots=True)
class Climate:
    """How often what happens, as weights; the rest are probabilities."""

    name: str
    groups: frozenset[Address]
    begin: int = 4
    deliver: int = 60
    sync: int = 30
    tick: int = 8
    crash: int = 0
    restart: int = 0
    take_over: int = 0
    loss: float = 0.0
    """Of a packet, like the next two."""
    repetition: float = 0.0
    lateness: float = 0.0
    """It is overtaken by all that happens within some time."""
    slow: float = 0.0
    """That a life's disk is slow, or its group: of a deposed leader, it does not find out for long that it is one."""
    audits: float = 0.35
    """That a client asks for an audit."""
    articles: int = ARTICLES
    """That are in demand, of all that there are: few make conflicts."""


EVERYBODY = frozenset((COORDINATOR, *TABLES))
NOBODY: frozenset[Address] = frozenset()

CLIMATES = (
    Climate("reordering", NOBODY),
    Climate("bad network", NOBODY, loss=0.2, repetition=0.2),
    Climate("crashes", NOBODY, crash=2, restart=6),
    Climate("crashes and a bad network", NOBODY, crash=2, restart=6, loss=0.1, repetition=0.2),
    Climate("the coordinator is a group", frozenset((COORDINATOR,)), crash=1, restart=6, take_over=2, repetition=0.2),
    Climate("all are groups", EVERYBODY, crash=1, restart=6, take_over=1, loss=0.05, repetition=0.2),
    Climate("leaders change often", EVERYBODY, begin=2, deliver=80, sync=20, crash=1, take_over=3, repetition=0.3),
    Climate(
        "leaders change often, and disks are slow", EVERYBODY, sync=10, tick=4, crash=1, take_over=3, repetition=0.3
    ),
    # Little time passes, so that nobody who waits gives up before others have come between.
    Climate("late packets", NOBODY, tick=1, lateness=0.1, audits=0.6, articles=2),
    Climate("late packets and crashes", NOBODY, tick=1, crash=2, restart=8, lateness=0.1, articles=2),
    Climate("some leaders are slow", EVERYBODY, begin=2, tick=2, crash=1, take_over=2, slow=0.5),
    Climate("the coordinator's leaders are slow", frozenset((COORDINATOR,)), tick=6, take_over=4, loss=0.05, slow=0.7),
)


class Shop:
    """One run.  `check` raises Violation; `counts` say what was exercised."""

    def __init__(self, seed: int) -> None:
        self.climate = CLIMATES[seed % len(CLIMATES)]
        self.random = random.Random(seed)
        self.world = World(TABLES, self.climate.groups)
        self.ledger = Ledger(self.world)
        self.counts: Counter[str] = Counter()
        self._orders = 0
        self._late: list[tuple[int, Packet]] = []
        """With when they come."""
        self._slow: list[Life] = []

    def run(self, steps: int) -> None:
        climate = self.climate
        actions = (self.begin, self.deliver, self.sync, self.tick, self.crash, self.restart, self.take_over)
        weights = (
            climate.begin,
            climate.deliver,
            climate.sync,
            climate.tick,
            climate.crash,
            climate.restart,
            climate.take_over,
        )
        for action in self.random.choices(actions, weights, k=steps):
            action()
        self.heal()
        self.check()

    # --- what may happen -------------------------------------------------------------------

    def begin(self) -> None:
        host = self.world.hosts[COORDINATOR]
        if not host.lives:
            return
        life = self.random.choice(host.lives)
        machine = life.machine
        assert isinstance(machine, Coordinator)
        number, operations = machine.next_number, self.draw()
        is_new = not self.ledger.begun or self.random.random() > 0.1
        if not is_new:
            number = self.random.choice(sorted(self.ledger.begun))
        refused = self.world.step(host, life, Begin(number, CLIENT, operations))
        if refused is None:
            require(is_new, "one name each", f"{number} came again and was not refused")
            self.ledger.begun[number] = operations
        else:
            # A deposed leader has not heard of its successor's numbers.
            expected = {Refusal.NOT_OPEN} if is_new else {Refusal.NOT_NEW, Refusal.NOT_OURS, Refusal.NOT_OPEN}
            require(refused.refusal in expected, "one name each", f"{number} is refused: {refused.text}")
            self.counts["refused"] += 1

    def draw(self) -> dict[Address, bytes]:
        article = self.random.randrange(self.climate.articles)
        customer = self.random.randrange(CUSTOMERS - ARTICLES + self.climate.articles)
        quantity = self.random.randrange(1, 4)
        kind = self.random.random()
        if kind < 0.75 - self.climate.audits:
            self._orders += 1
            return {
                ORDERS: operation(Create(f"order-{self._orders}", quantity)),
                STOCK: operation(Add(f"article-{article}", -quantity)),
                PAYMENT: operation(
                    Add(f"customer-{customer}", -quantity * PRICE), Add(f"till-{article}", quantity * PRICE)
                ),
            }
        if kind < 0.75:
            # An audit, which must see two articles and what was taken for them at one moment.
            audited = (article, (article + 1) % ARTICLES)
            return {
                STOCK: operation(*(Read(f"article-{n}") for n in audited)),
                PAYMENT: operation(*(Read(f"till-{n}") for n in audited)),
            }
        if kind < 0.9:
            other = (customer + 1) % CUSTOMERS
            return {PAYMENT: operation(Add(f"customer-{customer}", -5), Add(f"customer-{other}", 5))}
        # Some of an order is taken back; there may be no such order, or not so much of it.
        return {
            ORDERS: operation(Add(f"order-{self.random.randrange(1, self._orders + 2)}", -quantity)),
            STOCK: operation(Add(f"article-{article}", quantity)),
            PAYMENT: operation(
                Add(f"customer-{customer}", quantity * PRICE), Add(f"till-{article}", -quantity * PRICE)
            ),
        }

    def deliver(self) -> None:
        packets = self.world.packets
        if not packets:
            return
        # Late ones are often overtaken, some for long.
        index = max(self.random.randrange(len(packets)) for _ in range(self.random.randrange(1, 4)))
        fate = self.random.random()
        if fate < self.climate.loss:
            packets.pop(index)
            self.counts["lost"] += 1
        elif fate < self.climate.loss + self.climate.repetition:
            self.world.deliver(packets[index], choose_from(self.random))
            self.counts["repeated"] += 1
        elif fate < self.climate.loss + self.climate.repetition + self.climate.lateness:
            self._late.append((self.world.now_ms + self.random.randrange(1000), packets.pop(index)))
            self.counts["late"] += 1
        else:
            self.world.deliver(packets.pop(index), choose_from(self.random))

    def sync(self) -> None:
        waiting = [(host, life) for host in self.world.hosts.values() for life in host.lives if life.unsynced]
        if not waiting:
            return
        host, life = self.random.choice(waiting)
        if not any(life is slow for slow in self._slow) or self.random.random() < 0.1:
            self.world.sync(host, life)

    def tick(self) -> None:
        self.world.tick(self.random.randrange(1, 200))
        self._bring_late(self.world.now_ms)

    def _bring_late(self, through_ms: int) -> None:
        self.world.packets += [packet for due_ms, packet in self._late if due_ms <= through_ms]
        self._late = [(due_ms, packet) for due_ms, packet in self._late if due_ms > through_ms]

    def crash(self) -> None:
        host = self._any_host()
        if not host.lives:
            return
        life = self.random.choice(host.lives)
        unsynced = sum(len(effects.records) for effects in life.unsynced)
        self.counts["crashed with unsynced records"] += unsynced > 0
        self.world.crash(host, life, self.random.randrange(unsynced + 1))
        if host.is_group and not host.lives:
            self.world.start(host)

    def restart(self) -> None:
        host = self._any_host()
        if not host.lives:
            self._start(host)

    def take_over(self) -> None:
        """In a group somebody else leads; the former leader has not noticed."""
        host = self._any_host()
        if host.is_group:
            self._start(host)
            self.counts["taken over"] += 1

    def _any_host(self) -> Host:
        return self.random.choice(list(self.world.hosts.values()))

    def _start(self, host: Host) -> None:
        self.counts["restarted in doubt"] += bool(getattr(host.state, "prepared", None))
        self.counts["restarted with commits"] += bool(getattr(host.state, "committed", None))
        life = self.world.start(host)
        if self.random.random() < self.climate.slow:
            self._slow.append(life)

    # --- the end ---------------------------------------------------------------------------

    def heal(self) -> None:
        """No more faults: every process runs, every group elects a leader once more, time passes."""
        for host in self.world.hosts.values():
            if host.is_group:
                for life in list(host.lives):
                    self.world.crash(host, life)
            if not host.lives:
                self._start(host)
        self._bring_late(self.world.now_ms + 1000)
        self.world.pass_time(3000)

    def check(self) -> None:
        self.ledger.check()
        orders, stock, payment = (self.world.hosts[name].table.values for name in (ORDERS, STOCK, PAYMENT))
        sold = sum(orders.values())
        require(sum(payment.values()) == MONEY, "money", f"{sum(payment.values())} of {MONEY}")
        require(sum(stock.values()) == IN_STOCK * ARTICLES - sold, "articles", f"{sold} sold, and in stock {stock}")
        taken = sum(value for key, value in payment.items() if key.startswith("till-"))
        require(taken == sold * PRICE, "money", f"{sold} sold, and {taken} taken")
        self._check_audits()
        self.counts["fenced"] = self.world.fenced
        for is_committed in self.ledger.ended.values():
            self.counts["committed" if is_committed else "aborted after a promise"] += 1
        self.counts["begun"] = len(self.ledger.begun)
        self.counts["told"] = len(self.world.outcomes)

    def _check_audits(self) -> None:
        for outcome in self.world.outcomes:
            if outcome.committed and set(outcome.results) == {STOCK, PAYMENT}:
                in_stock, taken = (decode_result(outcome.results[name]) for name in (STOCK, PAYMENT))
                for left, money in zip(in_stock, taken, strict=True):
                    require(money == (IN_STOCK - (left or 0)) * PRICE, "audits", f"an audit saw {in_stock} and {taken}")
                self.counts["audits"] += 1


def run(seed: int, steps: int = 2000) -> Shop:
    """Raises Violation, or AssertionError of the code under test."""
    shop = Shop(seed)
    shop.run(steps)
    return shop
