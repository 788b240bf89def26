"""A seeded walk through everything that may happen to a group, with the invariants watching.

The same seed walks the same way, so a failing seed is a reproduction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from quorate.consensus.membership import NO_CONFIGURATION, Configuration
from quorate.consensus.replica import (
    ChangeMembers,
    ConsensusProtocol,
    PeerLost,
    Propose,
    ReadBarrier,
    ReplicaConfig,
    Role,
    TransferLeadership,
)
from tests.consensus.invariants import Invariants, require
from tests.consensus.lab import InFlight, Lab


@dataclass(frozen=True, slots=True)
class Climate:
    """How often what happens, relative to one another."""

    deliver: int = 600
    persist: int = 250
    propose: int = 60
    tick: int = 25
    barrier: int = 20
    drop: int = 10
    duplicate: int = 10
    crash: int = 2
    restart: int = 8
    compact: int = 4
    transfer: int = 12
    peer_lost: int = 2
    partition: int = 2
    heal: int = 4
    coup: int = 1
    full: int = 1
    room: int = 4
    change: int = 0
    wish: int = 0
    hand_over: int = 0


CLIMATES = (
    Climate(),
    Climate(drop=120, duplicate=60, tick=40),
    Climate(crash=12, restart=30, tick=50, persist=120),
    Climate(persist=60, propose=120),
    Climate(tick=60, partition=8, heal=10),
    Climate(compact=30, crash=6, restart=12, partition=6, transfer=20),
    Climate(tick=60, peer_lost=15, propose=120, crash=4, restart=16),
    Climate(tick=60, coup=20, heal=20, propose=40, barrier=60),
    Climate(barrier=120, crash=12, restart=60, duplicate=60, tick=40),
    Climate(full=20, room=30, tick=60, propose=120, compact=10),
    Climate(change=60, wish=6, tick=50, barrier=5),
    Climate(change=60, wish=12, tick=60, crash=8, restart=24, hand_over=30),
    Climate(change=80, wish=12, tick=60, partition=8, heal=12, persist=120),
    Climate(change=60, wish=12, tick=60, coup=10, heal=20, hand_over=20, peer_lost=6),
    Climate(change=60, wish=10, tick=50, compact=30, transfer=30, crash=4, restart=12, hand_over=20),
    Climate(hand_over=20, tick=60, drop=30, coup=4, heal=12),
)


class Walk:
    """One seeded walk."""

    def __init__(
        self,
        protocol: ConsensusProtocol,
        nodes: int,
        seed: int,
        invariants: Callable[[Lab], Invariants] = Invariants,
    ) -> None:
        self.random = Random(seed)
        self.climate = CLIMATES[seed % len(CLIMATES)]
        everybody = tuple(range(1, nodes + 1))
        # Where members change, some or all of them are there from the beginning.
        first = self.random.randint(1, nodes) if self.climate.change else nodes
        initial = Configuration.make(1, dict.fromkeys(everybody[:first], ""))
        self.goal = initial
        configs = [
            ReplicaConfig(
                node,
                initial if node in initial.voters else NO_CONFIGURATION,
                max_bytes_in_flight=64,
                max_message_bytes=24,
                max_uncommitted_bytes=512,
                max_tail_bytes=self.random.choice((0, 40, 1000)),
            )
            for node in everybody
        ]
        self.lab = Lab(protocol, configs, lambda node: Random(seed * 100 + node))
        self.invariants = invariants(self.lab)
        self.cut: set[tuple[int, int]] = set()
        self.frozen: set[int] = set()
        """Servers that no tick reaches, as if their process were stopped."""
        self.full: set[int] = set()
        """Servers whose disk is full: they lose what carries entries."""
        self.in_order = self.random.random()
        self.proposals = 0
        self.barriers = dict.fromkeys(everybody, 0)
        self._actions: list[Callable[[], None]] = []
        self._weights: list[int] = []
        for name in Climate.__dataclass_fields__:
            self._actions.append(getattr(self, f"_{name}"))
            self._weights.append(getattr(self.climate, name))

    def run(self, steps: int) -> None:
        for action in self.random.choices(self._actions, self._weights, k=steps):
            action()
        self._recover()

    def _recover(self) -> None:
        """With everybody up and the network whole, all members come to one history, and to who is wanted as such."""
        lab = self.lab
        self.cut.clear()
        self.full.clear()
        for node in lab.servers:
            if node not in lab.up():
                lab.restart(node)
        marker = b"the end"
        for _ in range(3000):
            self._settle()
            if any(entry.payload == marker for entry in self.invariants.committed):
                leader = lab.leaders()[-1] if lab.leaders() else None
                if leader is not None and self._is_settled(leader):
                    return
                self._change()
            elif lab.leaders():
                lab.step(lab.leaders()[-1], Propose(marker))
            lab.tick(min(lab.up(), key=lambda node: lab.servers[node].running().deadline_ms()))
        require(False, "the group did not recover")

    def _is_settled(self, leader: int) -> bool:
        """The members are those that were wanted last, and hold all that was ever committed."""
        servers, replica = self.lab.servers, self.lab.servers[leader].running()
        settled = replica.settled_version() == self.goal.version and replica.configuration() == self.goal
        return settled and all(servers[node].applied == self.invariants.committed for node in self.goal.members)

    def _settle(self) -> None:
        """Persist and deliver until nothing is under way."""
        lab = self.lab
        while lab.network or lab.transfers or any(server.unsynced for server in lab.servers.values()):
            for node in lab.up():
                while lab.servers[node].unsynced:
                    lab.persist(node)
            for transfer in list(lab.transfers):
                lab.finish_transfer(transfer)
            if lab.network:
                lab.deliver(lab.network.pop(0))

    # --- what may happen -----------------------------------------------------------------

    def _pick(self) -> InFlight | None:
        """A message to handle next: often the oldest, sometimes any."""
        network = self.lab.network
        if not network:
            return None
        return network.pop(0 if self.random.random() < self.in_order else self.random.randrange(len(network)))

    def _deliver(self) -> None:
        flight = self._pick()
        if flight is None or (flight.sender, flight.to) in self.cut:
            return
        if flight.to not in self.full or flight.message.payload_bytes() == 0:
            self.lab.deliver(flight)

    def _drop(self) -> None:
        self._pick()

    def _duplicate(self) -> None:
        if self.lab.network:
            self.lab.network.append(self.random.choice(self.lab.network))

    def _persist(self) -> None:
        waiting = [node for node in self.lab.up() if self.lab.servers[node].unsynced]
        if waiting:
            self.lab.persist(self.random.choice(waiting))

    def _propose(self) -> None:
        for node in self.lab.up():
            if self.lab.servers[node].running().status().role is Role.LEADER:
                self.proposals += 1
                self.lab.step(node, Propose(b"%d" % self.proposals + bytes(self.random.randrange(20))))

    def _tick(self) -> None:
        awake = [node for node in self.lab.up() if node not in self.frozen]
        if awake:
            if self.random.random() < 0.7:
                node = min(awake, key=lambda node: self.lab.servers[node].running().deadline_ms())
            else:
                node = self.random.choice(awake)
            self.lab.tick(node)

    def _barrier(self) -> None:
        if self.lab.up():
            node = self.random.choice(self.lab.up())
            self.barriers[node] += 1
            self.lab.step(node, ReadBarrier(self.barriers[node]))

    def _crash(self) -> None:
        if self.lab.up():
            node = self.random.choice(self.lab.up())
            unsynced = sum(len(batch.records) for batch in self.lab.servers[node].unsynced)
            self.lab.crash(node, self.random.choice((0, self.random.randint(0, unsynced))))
            if self.random.random() < 0.5:
                for other in self.lab.up():
                    self.lab.step(other, PeerLost(node))

    def _restart(self) -> None:
        down = [node for node in self.lab.servers if node not in self.lab.up()]
        if down:
            node = self.random.choice(down)
            self.lab.restart(node)
            self.barriers[node] = 0

    def _compact(self) -> None:
        if self.lab.up():
            node = self.random.choice(self.lab.up())
            applied = len(self.lab.servers[node].applied)
            if applied:
                self.lab.compact(node, self.random.randint(1, applied))

    def _transfer(self) -> None:
        if self.lab.transfers:
            transfer = self.random.choice(self.lab.transfers)
            self.lab.finish_transfer(transfer, arrives=self.random.random() < 0.8)

    def _peer_lost(self) -> None:
        if self.lab.up():
            self.lab.step(self.random.choice(self.lab.up()), PeerLost(self.random.choice(list(self.lab.servers))))

    def _partition(self) -> None:
        """Cut a random group off, in both directions or in one."""
        nodes = list(self.lab.servers)
        inside = self.random.sample(nodes, self.random.randint(1, len(nodes) - 1))
        outside = [node for node in nodes if node not in inside]
        self.cut = {(a, b) for a in inside for b in outside}
        if self.random.random() < 0.7:
            self.cut |= {(b, a) for a, b in self.cut}

    def _coup(self) -> None:
        """Cut the newest leader off, in the middle of whatever it does, and let it sleep: it does not know."""
        leaders = [
            (status.generation, node)
            for node, status in [(node, self.lab.servers[node].running().status()) for node in self.lab.up()]
            if status.role is Role.LEADER
        ]
        if leaders:
            _, leader = max(leaders)
            self.cut = {(leader, other) for other in self.lab.servers} | {(other, leader) for other in self.lab.servers}
            self.frozen = {leader}
            for other in self.lab.up():
                if other != leader:
                    self.lab.step(other, PeerLost(leader))

    def _wish(self) -> None:
        """Somebody decides on other members."""
        nodes = list(self.lab.servers)
        voters = self.random.sample(nodes, self.random.randint(1, len(nodes)))
        learners = [node for node in nodes if node not in voters and self.random.random() < 0.5]
        self.goal = Configuration.make(self.goal.version + 1, dict.fromkeys(voters, ""), dict.fromkeys(learners, ""))

    def _change(self) -> None:
        """Whoever leads is asked for a step towards that."""
        for node in self.lab.up():
            if self.lab.servers[node].running().status().role is Role.LEADER:
                self.lab.step(node, ChangeMembers(self.goal))

    def _hand_over(self) -> None:
        for node in self.lab.up():
            if self.lab.servers[node].running().status().role is Role.LEADER:
                target = self.random.choice([None, *self.lab.servers])
                self.lab.step(node, TransferLeadership(target))

    def _full(self) -> None:
        self.full.add(self.random.choice(list(self.lab.servers)))

    def _room(self) -> None:
        self.full.clear()

    def _heal(self) -> None:
        self.cut = set()
        self.frozen = set()
