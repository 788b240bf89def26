"""A coordinator that is a group of three servers under a consensus protocol: no one server's end blocks anybody.

The group stands under the coordinator's address in a `World`; each record is a command in its log.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from random import Random

import msgspec
import pytest

from quorate.consensus.membership import Configuration
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.replica import NodeId, Propose, ReplicaConfig
from quorate.transactions.coordinator import Coordinator, CoordinatorConfig
from quorate.transactions.effects import Begin, Effects, Event, Persisted, Receive, Send, Tick
from quorate.transactions.messages import Address
from quorate.transactions.records import decode_record, encode_record
from quorate.transactions.states import CoordinatorState
from quorate.transactions.table import Add, operation
from tests.consensus.lab import Lab
from tests.transactions.world import CLIENT, COORDINATOR, MESSAGES, Packet, World

TABLES: dict[Address, dict[str, int]] = {"stock": {"apples": 10}, "payment": {"ann": 100}}


class Command(msgspec.Struct, array_like=True, frozen=True):
    """The records of one ticket, and whose it is."""

    node: NodeId
    generation: int
    ticket: int
    records: tuple[bytes, ...]


@dataclass(slots=True)
class Member:
    """One server: the fold of what it has applied; while it leads the group, also the coordinator."""

    state: CoordinatorState = field(default_factory=CoordinatorState)
    folded: int = 0
    coordinator: Coordinator | None = None
    waiting: dict[int, Effects] = field(default_factory=dict)


class Group:
    """What a node would do to run a coordinator over a replica, on three servers in a `Lab`."""

    def __init__(self, world: World, protocol: str) -> None:
        self.world = world
        voters = Configuration.make(1, {1: "", 2: "", 3: ""})
        configs = [ReplicaConfig(node_id=node, initial=voters) for node in voters.voters]
        self.lab = Lab(PROTOCOLS[protocol], configs, Random)
        self.members = {node: Member() for node in voters.voters}
        self.cut: set[NodeId] = set()
        """Servers that their peers do not reach, nor they their peers."""

    def work(self) -> None:
        """Until nothing moves: persist, deliver, fold, and speak."""
        while True:
            for node in self.lab.up():
                while self.lab.servers[node].unsynced:
                    self.lab.persist(node)
            flights, self.lab.network = self.lab.network, []
            for flight in flights:
                if flight.sender not in self.cut and flight.to not in self.cut:
                    self.lab.deliver(flight)
            folded = [self._fold(node) for node in self.lab.up()]
            led = [self._lead(node) for node in self.lab.up()]
            if not (flights or any(folded) or any(led) or self.lab.network):
                return

    def _fold(self, node: NodeId) -> bool:
        member, applied = self.members[node], self.lab.servers[node].applied
        entries, member.folded = applied[member.folded :], len(applied)
        for entry in entries:
            if not entry.payload or entry.payload.startswith(b"\xc1"):
                continue
            command = msgspec.msgpack.decode(entry.payload, type=Command)
            taken = all(member.state.apply(decode_record(record)) for record in command.records)
            coordinator = member.coordinator
            if coordinator is None or (command.node, command.generation) != (node, coordinator.generation):
                continue
            if not taken:
                member.coordinator = None
                continue
            self._post(member.waiting.pop(command.ticket).messages_after_persist)
            self.step(node, Persisted(command.ticket))
        return bool(entries)

    def _lead(self, node: NodeId) -> bool:
        """Begin a coordinator's life where the server has come to lead, end it where it leads no more."""
        member = self.members[node]
        leads = node in self.lab.leaders()
        if leads == (member.coordinator is not None):
            return False
        member.coordinator, member.waiting = None, {}
        if leads:
            state = copy.deepcopy(member.state)
            member.coordinator = Coordinator(CoordinatorConfig(COORDINATOR), state, self.world.now_ms)
            self.step(node, Tick())
        return True

    def step(self, node: NodeId, event: Event) -> None:
        member = self.members[node]
        if member.coordinator is None:
            return  # it would tell who leads; the sender tries again
        effects = member.coordinator.step(event, self.world.now_ms)
        self._post(effects.messages)
        if effects.ticket:
            member.waiting[effects.ticket] = effects
            records = tuple(encode_record(record) for record in effects.records)
            command = Command(node, member.coordinator.generation, effects.ticket, records)
            assert self.lab.step(node, Propose(msgspec.msgpack.encode(command))).refused is None

    def _post(self, sends: list[Send]) -> None:
        packets = [Packet(COORDINATOR, send.to, msgspec.msgpack.encode(send.message)) for send in sends]
        self.world.packets.extend(packets)

    def crash(self, node: NodeId) -> None:
        self.lab.crash(node)
        self.members[node].coordinator = None

    def elect(self, *candidates: NodeId) -> NodeId:
        """Time passes for these servers, until one of them leads."""
        for _ in range(1000):
            self.lab.tick(min(candidates, key=lambda node: self.lab.servers[node].running().deadline_ms()))
            self.work()
            for node in self.lab.leaders():
                if node in candidates:
                    return node
        raise AssertionError("nobody was elected")


class GroupWorld(World):
    """A world whose coordinator is the group; `leader` is whom the network takes for its leader."""

    def __init__(self, protocol: str) -> None:
        super().__init__(TABLES)
        self.hosts[COORDINATOR].lives.clear()
        self.group = Group(self, protocol)
        self.leader = self.group.elect(1, 2, 3)
        self.settle()

    def deliver(self, packet: Packet, choose: object = None) -> None:
        if packet.to != COORDINATOR:
            super().deliver(packet)
            return
        self.group.step(self.leader, Receive(packet.sender, MESSAGES.decode(packet.data)))
        self.group.work()

    def buy(self) -> None:
        coordinator = self.group.members[self.leader].coordinator
        assert coordinator is not None
        operations = {"stock": operation(Add("apples", -1)), "payment": operation(Add("ann", -10))}
        self.group.step(self.leader, Begin(coordinator.next_number, CLIENT, operations))
        self.group.work()

    def tick(self, elapsed_ms: int) -> None:
        super().tick(elapsed_ms)
        for node in self.group.lab.up():
            self.group.step(node, Tick())
        self.group.work()

    def in_doubt(self) -> list[Address]:
        return [name for name in TABLES if self.participant(name).in_doubt]

    def values(self) -> tuple[int, int]:
        return self.hosts["stock"].table.values["apples"], self.hosts["payment"].table.values["ann"]


def promised(world: GroupWorld) -> None:
    """Everybody has promised, and the leader, alone by now, has heard it: its decision is in no other log."""
    world.buy()
    world.group.cut = {world.leader}
    world.settle()
    assert world.in_doubt() == list(TABLES) and world.outcomes == []


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_a_transaction_is_carried_out(protocol: str) -> None:
    world = GroupWorld(protocol)
    world.buy()
    world.settle()
    assert [outcome.committed for outcome in world.outcomes] == [True]
    assert world.values() == (9, 90)


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_the_leader_never_comes_back_and_nobody_is_blocked(protocol: str) -> None:
    world = GroupWorld(protocol)
    promised(world)
    world.group.crash(world.leader)
    world.pass_time(1000)
    assert world.in_doubt() == list(TABLES)
    world.leader = world.group.elect(*world.group.lab.up())
    world.pass_time(1000)
    assert world.in_doubt() == [] and world.values() == (10, 100)
    world.buy()
    world.settle()
    assert [outcome.committed for outcome in world.outcomes] == [True] and world.values() == (9, 90)


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_a_decision_in_the_group_s_log_outlives_the_leader_that_told_nobody(protocol: str) -> None:
    world = GroupWorld(protocol)
    world.buy()
    former = world.leader
    for name in TABLES:
        host = world.hosts[name]
        for packet in [packet for packet in world.packets if packet.to == name]:
            world.deliver(packet)
        while host.lives[-1].unsynced:
            world.sync(host, host.lives[-1])
    # The votes arrive; what the leader says then is lost with it.
    votes, world.packets = [packet for packet in world.packets if packet.to == COORDINATOR], []
    for packet in votes:
        world.deliver(packet)
    assert world.packets
    world.packets = []
    world.group.crash(former)
    assert world.in_doubt() == list(TABLES)
    world.leader = world.group.elect(*world.group.lab.up())
    world.settle()
    assert world.in_doubt() == [] and world.values() == (9, 90)


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_a_leader_that_is_cut_off_and_does_not_know_it_decides_nothing(protocol: str) -> None:
    world = GroupWorld(protocol)
    promised(world)
    former = world.leader
    others = [node for node in world.group.lab.up() if node != former]
    world.leader = world.group.elect(*others)
    world.pass_time(1000)
    assert world.in_doubt() == [] and world.values() == (10, 100)
    world.group.cut = set()
    world.leader = world.group.elect(*others)
    world.pass_time(3000)
    assert world.outcomes == [] and world.values() == (10, 100)
