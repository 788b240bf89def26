"""A network, disks and hosts in memory, on which proposers, acceptors and learners run; and a ledger of what they did.

Whatever happens follows from the weather, which draws from a seed or keeps to a script.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple, Protocol

from quorate.consensus.replica import Message, NodeId, RandomSource
from quorate.consensus.single_decree import Acceptor, Learner, Proposer
from quorate.consensus.single_decree.hard_state import decode_acceptor
from quorate.consensus.single_decree.messages import Accept, Accepted, Effects, Prepare, Promise, Proposal, Rejected
from quorate.quorums import Majority
from quorate.simulation.trace import Trace

STRAGGLERS_MS: Final = 600


class Violation(AssertionError):
    """A promise of the protocol was seen broken."""


class Agents(NamedTuple):
    """What runs on the hosts.  A deliberate bug takes the place of one."""

    proposer: type[Proposer] = Proposer
    acceptor: type[Acceptor] = Acceptor
    learner: type[Learner] = Learner
    speaks_when_durable: bool = True


AS_THEY_ARE: Final = Agents()


class Weather(Protocol):
    def copies(self, sender: NodeId, to: NodeId, message: Message) -> list[int]:
        """After how many milliseconds each copy of the message arrives; none for a loss."""
        ...

    def write_ms(self) -> int: ...


class Ledger:
    """What is chosen, seen from outside: by the proposals that each acceptor has ever durably accepted."""

    def __init__(self, acceptors: Majority) -> None:
        self._acceptors = acceptors
        self.proposed: set[bytes] = set()
        self.accepted: dict[Proposal, set[NodeId]] = {}
        self.chosen: set[bytes] = set()

    def note_accepted(self, node: NodeId, proposal: Proposal) -> None:
        holders = self.accepted.setdefault(proposal, set())
        holders.add(node)
        if self._acceptors.is_quorum(holders):
            self.chosen.add(proposal.value)
            if len(self.chosen) > 1:
                raise Violation(f"two values chosen: {sorted(self.chosen)}")
            if proposal.value not in self.proposed:
                raise Violation(f"{proposal.value!r} is chosen and was never proposed")

    def note_learned(self, node: NodeId, value: bytes) -> None:
        if value not in self.chosen:
            raise Violation(f"{node} has learned {value!r}, which is not chosen")


@dataclass(slots=True)
class Running:
    """The agents of a host in one of its lives."""

    learner: Learner
    acceptor: Acceptor | None
    proposer: Proposer | None
    unfinished: deque[tuple[str, Effects]] = field(default_factory=deque)
    """What the disk has not finished, in order: (whose, effects)."""
    disk_idle_ms: int = 0


@dataclass(slots=True)
class Host:
    node: NodeId
    durable: dict[str, bytes] = field(default_factory=dict)
    lives: int = 0
    running: Running | None = None
    has_learned: bool = False


class World:
    """Hosts with an acceptor, hosts with a proposer and a learner, hosts with all three.

    A proposer proposes as soon as it lives, each time a value of its own: a1 is the first of node 1, b2 the
    second of node 2.
    """

    def __init__(
        self,
        acceptors: tuple[NodeId, ...],
        proposers: Mapping[NodeId, int],
        weather: Weather,
        random: RandomSource,
        agents: Agents = AS_THEY_ARE,
        trace: Trace | None = None,
    ) -> None:
        """`proposers` are mapped to when they first start, in milliseconds."""
        self.now_ms = 0
        self.weather = weather
        self.ledger = Ledger(Majority(acceptors))
        self.delivered = 0
        self.after_write: Callable[[NodeId], None] = lambda node: None
        """Called when a state is durable and its messages have left: the moment at which crashes tell most."""
        self._acceptors = Majority(acceptors)
        self._proposers = proposers
        self._random = random
        self._agents = agents
        self._trace = trace
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.hosts = {node: Host(node) for node in sorted({*acceptors, *proposers})}
        for node in self.hosts:
            self.after(proposers.get(node, 0), lambda node=node: self.start(node))  # type: ignore[misc]

    # --- time --------------------------------------------------------------------------------

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now_ms + delay_ms, self._count, action))

    def run(self, until_ms: int, enough: Callable[[], bool] = lambda: False) -> None:
        while self._events and self._events[0][0] <= until_ms and not enough():
            self.now_ms, _, action = heapq.heappop(self._events)
            action()

    # --- hosts -------------------------------------------------------------------------------

    def start(self, node: NodeId) -> None:
        host = self.hosts[node]
        if host.running is not None:
            return
        host.lives += 1
        host.has_learned = False
        acceptor = proposer = None
        if node in self._acceptors.members:
            acceptor = self._agents.acceptor(tuple(self._proposers), host.durable.get("acceptor"))
        if node in self._proposers:
            proposer = self._agents.proposer(node, self._acceptors, self._random, host.durable.get("proposer"))
        host.running = Running(self._agents.learner(self._acceptors), acceptor, proposer)
        if proposer is not None:
            value = f"{chr(ord('a') + node - 1)}{host.lives}".encode()
            self.ledger.proposed.add(value)
            self._carry_out(host, "proposer", proposer.propose(value, self.now_ms))

    def crash(self, node: NodeId, finished_writes: int = 0) -> None:
        """What is not durable is lost, and was never spoken of; some of it may have been finished just now."""
        host = self.hosts[node]
        if host.running is not None:
            for whose, effects in list(host.running.unfinished)[:finished_writes]:
                self._persist(host, whose, effects)
            host.running = None
            if self._trace is not None:
                self._trace.note(f"node-{node}", self.now_ms / 1000, "crash", "")

    def has_everybody_learned(self) -> bool:
        return all(host.has_learned for host in self.hosts.values() if host.node in self._proposers)

    # --- effects: the disk, then the network ---------------------------------------------------

    def _carry_out(self, host: Host, whose: str, effects: Effects) -> None:
        running = host.running
        assert running is not None
        if whose == "proposer" and running.proposer is not None and running.proposer.deadline_ms is not None:
            self.after(running.proposer.deadline_ms - self.now_ms, lambda: self._tick(host, running))
        if not self._agents.speaks_when_durable:
            self._send(host, effects)
            effects = Effects(effects.state)
        running.unfinished.append((whose, effects))
        if effects.state is not None:
            running.disk_idle_ms = max(running.disk_idle_ms, self.now_ms) + self.weather.write_ms()
        if running.disk_idle_ms <= self.now_ms:
            self._finish(host, running)
        else:
            self.after(running.disk_idle_ms - self.now_ms, lambda: self._finish(host, running))

    def _finish(self, host: Host, running: Running) -> None:
        if host.running is running:
            whose, effects = running.unfinished.popleft()
            self._persist(host, whose, effects)
            self._send(host, effects)
            if effects.state is not None:
                self.after_write(host.node)

    def _persist(self, host: Host, whose: str, effects: Effects) -> None:
        if effects.state is None:
            return
        host.durable[whose] = effects.state
        if whose == "acceptor":
            _, accepted = decode_acceptor(effects.state)
            if accepted is not None:
                self.ledger.note_accepted(host.node, accepted)

    def _send(self, host: Host, effects: Effects) -> None:
        for send in effects.messages:
            number = 0
            if self._trace is not None:
                text = describe(send.message)
                number = self._trace.send(f"node-{host.node}", self.now_ms / 1000, f"node-{send.to}", text)
            for delay_ms in self.weather.copies(host.node, send.to, send.message):
                self.after(delay_ms, self._delivery(host.node, send.to, send.message, number))

    # --- events ------------------------------------------------------------------------------

    def _delivery(self, sender: NodeId, to: NodeId, message: Message, number: int) -> Callable[[], None]:
        def deliver() -> None:
            host = self.hosts[to]
            if host.running is not None:
                self.delivered += 1
                if self._trace is not None:
                    self._trace.receive(f"node-{to}", self.now_ms / 1000, number)
                self._receive(host, host.running, sender, message)

        return deliver

    def _receive(self, host: Host, running: Running, sender: NodeId, message: Message) -> None:
        if isinstance(message, Accepted):
            running.learner.receive(sender, message)
            if running.learner.chosen is not None and not host.has_learned:
                host.has_learned = True
                self.ledger.note_learned(host.node, running.learner.chosen)
                if running.proposer is not None:
                    running.proposer.stop()
                if self._trace is not None:
                    text = f"learns {running.learner.chosen.decode()}"
                    self._trace.note(f"node-{host.node}", self.now_ms / 1000, "note", text)
        elif isinstance(message, Prepare | Accept):
            if running.acceptor is not None:
                self._carry_out(host, "acceptor", running.acceptor.receive(sender, message))
        elif isinstance(message, Promise | Rejected) and running.proposer is not None:
            self._carry_out(host, "proposer", running.proposer.receive(sender, message, self.now_ms))

    def _tick(self, host: Host, running: Running) -> None:
        if host.running is running and running.proposer is not None:
            deadline_ms = running.proposer.deadline_ms
            if deadline_ms is not None and deadline_ms <= self.now_ms:
                self._carry_out(host, "proposer", running.proposer.tick(self.now_ms))


def describe(message: Message) -> str:
    """A message in a few words, for diagrams."""
    assert isinstance(message, Prepare | Promise | Accept | Accepted | Rejected)
    ballot = f"{message.ballot.round}.{message.ballot.node}"
    if isinstance(message, Prepare):
        return f"prepare {ballot}"
    if isinstance(message, Rejected):
        return f"rejected {ballot}, promised {message.promised.round}.{message.promised.node}"
    if isinstance(message, Promise):
        told = message.accepted
        knows = "nothing" if told is None else f"{told.value.decode()} of {told.ballot.round}.{told.ballot.node}"
        return f"promise {ballot}, knows {knows}"
    return f"{'accept' if isinstance(message, Accept) else 'accepted'} {ballot}, {message.value.decode()}"


@dataclass(slots=True)
class Climate:
    """Weather from a seed: each fault by chance."""

    random: Random
    loss: float = 0.0
    repetition: float = 0.0
    straggling: float = 0.0
    """How many messages are overtaken by nearly everything."""
    longest_ms: int = 10
    slowest_write_ms: int = 5

    def copies(self, sender: NodeId, to: NodeId, message: Message) -> list[int]:
        if self.random.random() < self.loss:
            return []
        count = 2 if self.random.random() < self.repetition else 1
        return [self._delay_ms() for _ in range(count)]

    def _delay_ms(self) -> int:
        straggles = self.random.random() < self.straggling
        return self.random.randint(1, STRAGGLERS_MS if straggles else self.longest_ms)

    def write_ms(self) -> int:
        return self.random.randint(0, self.slowest_write_ms)
