"""Hosts of coordinators and participants, their disks or groups, and a network that may do anything to a message.

A *host* is an address with one order of durable records and any number of *lives*: a process has one at most, a
group may have a deposed leader or two that have not noticed.  What a life asks to be made durable waits in its queue
until `sync`; a crash loses it, or keeps the records that happened to reach the disk (or the group) already.

Records and messages are bytes on their ways, as they would be.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from quorate.simulation.violation import Violation
from quorate.transactions.coordinator import Coordinator, CoordinatorConfig
from quorate.transactions.effects import Begin, Effects, Event, Persisted, Receive, Refused, Send, Tick
from quorate.transactions.messages import Address, AnyMessage, Message, Outcome
from quorate.transactions.participant import Participant, ParticipantConfig
from quorate.transactions.records import AnyRecord, decode_record, encode_record
from quorate.transactions.states import CoordinatorState, ParticipantState
from quorate.transactions.table import Table

COORDINATOR = "coordinator"
CLIENT = "client"

State: TypeAlias = CoordinatorState | ParticipantState
Machine: TypeAlias = Coordinator | Participant


MESSAGES: Final = msgspec.msgpack.Decoder[AnyMessage](AnyMessage)


def require(holds: bool, check: str, text: str) -> None:
    """A promise, by a short name; and what was seen where it is broken."""
    if not holds:
        raise Violation(check, text)


@dataclass(slots=True)
class Life:
    """A running coordinator or participant, and what it waits to see made durable, oldest first."""

    machine: Machine
    unsynced: deque[Effects] = field(default_factory=deque)


class Host:
    def __init__(self, address: Address, is_group: bool, values: dict[str, int]) -> None:
        self.address = address
        self.is_group = is_group
        self.values = values
        """What the table of a participant begins with."""
        self.log: list[bytes] = []
        """Durable records that were taken, in order."""
        self.state = self.fold()
        """What they come to: the store of a group's replicas, and what a process would find after a crash."""
        self.lives: list[Life] = []

    def fold(self) -> State:
        state: State
        state = CoordinatorState() if self.address == COORDINATOR else ParticipantState(Table(self.values))
        for data in self.log:
            assert state.apply(decode_record(data)), "a void record is in the log"
        return state

    def write(self, data: bytes) -> bool:
        """One record more; False where it is void."""
        if not self.state.apply(decode_record(data)):
            assert self.is_group, "a process has one life at a time"
            return False
        self.log.append(data)
        return True

    def start(self, now_ms: int) -> Life:
        """A new life.  In a group the others go on: they do not know that they are over."""
        assert self.is_group or not self.lives
        state = self.fold()
        machine: Machine
        if isinstance(state, CoordinatorState):
            machine = Coordinator(CoordinatorConfig(COORDINATOR, vote_timeout_ms=1000), state, now_ms)
        else:
            machine = Participant(ParticipantConfig(self.address), state, now_ms)
        self.lives.append(Life(machine))
        return self.lives[-1]

    @property
    def table(self) -> Table:
        """Of a participant, with what is durably committed there."""
        assert isinstance(self.state, ParticipantState) and isinstance(self.state.resource, Table)
        return self.state.resource


@dataclass(frozen=True, slots=True)
class Packet:
    sender: Address
    to: Address
    data: bytes


class World:
    """All hosts, the packets under way, and the time.  Whoever drives it chooses what happens next."""

    def __init__(self, tables: dict[Address, dict[str, int]], groups: frozenset[Address] = frozenset()) -> None:
        addresses = [COORDINATOR, *tables]
        self.hosts = {name: Host(name, name in groups, tables.get(name, {})) for name in addresses}
        self.packets: list[Packet] = []
        self.now_ms = 0
        self.outcomes: list[Outcome] = []
        """What the client was told, in order."""
        self.record_watchers: list[Callable[[Address, AnyRecord], None]] = []
        """Called with each record that has become durable and was taken."""
        self.fenced = 0
        """Lives that ended because a record of theirs was void."""
        for host in self.hosts.values():
            self.start(host)

    # --- one thing happens -----------------------------------------------------------------

    def start(self, host: Host) -> Life:
        life = host.start(self.now_ms)
        self.step(host, life, Tick())
        return life

    def crash(self, host: Host, life: Life, kept: int = 0) -> None:
        """The life ends at once; of what was not synced the first `kept` records are durable all the same."""
        host.lives.remove(life)
        for record in [record for effects in life.unsynced for record in effects.records][:kept]:
            if not self._write(host, record):
                break

    def step(self, host: Host, life: Life, event: Event) -> Refused | None:
        effects = life.machine.step(event, self.now_ms)
        self._post(host, effects.messages)
        if effects.ticket:
            life.unsynced.append(effects)
        return effects.refused

    def sync(self, host: Host, life: Life) -> None:
        """The oldest ticket of a life becomes durable; or is void, which ends the life."""
        effects = life.unsynced.popleft()
        for record in effects.records:
            if not self._write(host, record):
                host.lives.remove(life)
                self.fenced += 1
                return
        self._post(host, effects.messages_after_persist)
        self.step(host, life, Persisted(effects.ticket))

    def deliver(self, packet: Packet, choose: Callable[[list[Life]], Life] = lambda lives: lives[-1]) -> None:
        """To whichever life of a group the network takes for the leader; nobody gets it where none is left."""
        message = MESSAGES.decode(packet.data)
        if packet.to == CLIENT:
            assert isinstance(message, Outcome)
            self.outcomes.append(message)
            return
        host = self.hosts[packet.to]
        if host.lives:
            self.step(host, choose(host.lives), Receive(packet.sender, message))

    def tick(self, elapsed_ms: int) -> None:
        self.now_ms += elapsed_ms
        for host in self.hosts.values():
            for life in list(host.lives):
                deadline_ms = life.machine.deadline_ms()
                if deadline_ms is not None and deadline_ms <= self.now_ms:
                    self.step(host, life, Tick())

    def begin(self, operations: dict[Address, bytes], life: Life | None = None) -> int:
        """The client asks for a transaction; its number."""
        host = self.hosts[COORDINATOR]
        life = life or host.lives[-1]
        assert isinstance(life.machine, Coordinator)
        number = life.machine.next_number
        refused = self.step(host, life, Begin(number, CLIENT, operations))
        assert refused is None, refused
        return number

    # --- much happens ----------------------------------------------------------------------

    def settle(self, lost_to: Sequence[Address] = (), stuck: Sequence[Address] = ()) -> None:
        """Sync and deliver, in order, until nothing is left to do without time passing.

        Packets to some addresses are lost; the disks of some hosts are stuck.
        """
        for _ in range(10_000):
            running = [(host, life) for host in self.hosts.values() for life in host.lives]
            waiting = [(host, life) for host, life in running if life.unsynced and host.address not in stuck]
            for host, life in waiting:
                self.sync(host, life)
            packets, self.packets = self.packets, []
            for packet in packets:
                if packet.to not in lost_to:
                    self.deliver(packet)
            if not waiting and not packets:
                return
        raise Violation("an end", "they never stop talking")

    def pass_time(self, duration_ms: int, lost_to: Sequence[Address] = (), stuck: Sequence[Address] = ()) -> None:
        for _ in range(duration_ms // 100):
            self.tick(100)
            self.settle(lost_to, stuck)

    def coordinator(self) -> Coordinator:
        machine = self.hosts[COORDINATOR].lives[-1].machine
        assert isinstance(machine, Coordinator)
        return machine

    def participant(self, name: Address) -> Participant:
        machine = self.hosts[name].lives[-1].machine
        assert isinstance(machine, Participant)
        return machine

    # --- below -----------------------------------------------------------------------------

    def _write(self, host: Host, record: AnyRecord) -> bool:
        if not host.write(encode_record(record)):
            return False
        for watcher in self.record_watchers:
            watcher(host.address, record)
        return True

    def _post(self, host: Host, sends: list[Send]) -> None:
        for send in sends:
            assert isinstance(send.message, Message)
            self.packets.append(Packet(host.address, send.to, msgspec.msgpack.encode(send.message)))


def choose_from(source: random.Random) -> Callable[[list[Life]], Life]:
    return lambda lives: lives[source.randrange(len(lives))]
