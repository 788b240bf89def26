"""A laboratory for replicas: servers with a disk that can lose what was not synced, and a network in one's hand.

Nothing happens by itself here.  Messages lie in `network` until they are delivered or
dropped, records lie in a server's `unsynced` until they are persisted or lost in a crash,
and the clock stands until it is moved.  Every step of every replica is shown to the
`watchers`, which check it or write it down.  Nothing here knows any one protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from quorate.consensus.membership import NO_CONFIGURATION
from quorate.consensus.records import CompactedThrough, Entry, Record, Recovered
from quorate.consensus.replica import (
    Compacted,
    ConsensusProtocol,
    Effects,
    Event,
    Message,
    NodeId,
    Persisted,
    RandomSource,
    Receive,
    Replica,
    ReplicaConfig,
    Role,
    Send,
    SnapshotArrived,
    SnapshotSent,
    Tick,
)
from quorate.simulation.durable_records import DurableRecords


@dataclass(frozen=True, slots=True)
class Unsynced:
    """One step's records and the messages that wait for them."""

    ticket: int
    records: tuple[Record, ...]
    messages: tuple[Send, ...]


@dataclass(frozen=True, slots=True)
class InFlight:
    """A message on its way."""

    sender: NodeId
    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Transfer:
    """A snapshot on its way."""

    sender: NodeId
    to: NodeId
    generation: int
    compacted: CompactedThrough


@dataclass
class Server:
    """One node: a replica while it runs, and what outlives it."""

    config: ReplicaConfig
    random: RandomSource
    durable: DurableRecords
    written: DurableRecords
    """The log as it will be when everything unsynced is durable."""
    snapshots: dict[int, tuple[Entry, ...]]
    """By position: the applied entries that a snapshot stands for."""
    replica: Replica | None = None
    unsynced: deque[Unsynced] = field(default_factory=deque)
    applied: list[Entry] = field(default_factory=list)
    """The store: every entry from position 1 on."""

    def running(self) -> Replica:
        assert self.replica is not None, f"server {self.config.node_id} is down"
        return self.replica


Watcher: TypeAlias = Callable[[Server, Event, Effects], None]
"""Called after each step, before its effects are carried out."""


SendWatcher: TypeAlias = Callable[[Server, Send], None]
"""Called when a message really leaves its server."""


BuildWatcher: TypeAlias = Callable[[Server, Recovered], None]
"""Called when a server starts again, before it does anything."""


class Lab:
    """A group of servers on one clock."""

    def __init__(
        self,
        protocol: ConsensusProtocol,
        configs: Sequence[ReplicaConfig],
        random_for: Callable[[NodeId], RandomSource],
        recovered: dict[NodeId, Recovered] | None = None,
    ) -> None:
        self.protocol = protocol
        self.now_ms = 0
        self.network: list[InFlight] = []
        self.transfers: list[Transfer] = []
        self.watchers: list[Watcher] = []
        self.send_watchers: list[SendWatcher] = []
        self.build_watchers: list[BuildWatcher] = []
        self.servers: dict[NodeId, Server] = {}
        for config in configs:
            start = (recovered or {}).get(config.node_id, Recovered())
            self.servers[config.node_id] = Server(
                config=config,
                random=random_for(config.node_id),
                durable=DurableRecords(start),
                written=DurableRecords(start),
                snapshots={0: ()},
            )
            self.restart(config.node_id)

    # --- one server ----------------------------------------------------------------------

    def step(self, node: NodeId, event: Event) -> Effects:
        """Let a running server take an event, and carry out what needs no waiting."""
        server = self.servers[node]
        effects = server.running().step(event, self.now_ms)
        for record in effects.records:
            server.written.write(record)
        for watcher in self.watchers:
            watcher(server, event, effects)
        self._post(server, effects.messages)
        if effects.ticket:
            server.unsynced.append(
                Unsynced(effects.ticket, tuple(effects.records), tuple(effects.messages_after_persist))
            )
        if effects.install is not None:
            server.applied = list(server.snapshots[effects.install.position])
        server.applied.extend(effects.committed)
        for wanted in effects.snapshots:
            self.transfers.append(Transfer(node, wanted.to, wanted.generation, server.written.compacted))
        return effects

    def _post(self, server: Server, sends: Sequence[Send]) -> None:
        for send in sends:
            for watcher in self.send_watchers:
                watcher(server, send)
            self.network.append(InFlight(server.config.node_id, send.to, send.message))

    def persist(self, node: NodeId) -> None:
        """The oldest unsynced step of a server becomes durable."""
        server = self.servers[node]
        batch = server.unsynced.popleft()
        for record in batch.records:
            server.durable.write(record)
        self._post(server, batch.messages)
        self.step(node, Persisted(batch.ticket))

    def crash(self, node: NodeId, surviving_records: int = 0) -> None:
        """Stop a server at once.  Of its unsynced records the first few may have reached the disk all the same."""
        server = self.servers[node]
        assert server.replica is not None
        unsynced = [record for batch in server.unsynced for record in batch.records]
        for record in unsynced[:surviving_records]:
            server.durable.write(record)
        server.replica = None
        server.unsynced.clear()
        self.transfers = [transfer for transfer in self.transfers if transfer.sender != node]

    def restart(self, node: NodeId) -> None:
        """Start a server from what is durable."""
        server = self.servers[node]
        assert server.replica is None
        recovered = server.durable.recover()
        for watcher in self.build_watchers:
            watcher(server, recovered)
        server.written = DurableRecords(recovered)
        server.applied = list(server.snapshots[recovered.compacted.position])
        server.replica = self.protocol.build(server.config, recovered, server.random, self.now_ms)

    def wipe(self, node: NodeId) -> None:
        """The folder of a stopped server is lost: it comes back knowing nothing, under its next incarnation."""
        server = self.servers[node]
        assert server.replica is None
        server.config = replace(server.config, initial=NO_CONFIGURATION, incarnation=server.config.incarnation + "'")
        server.durable = DurableRecords(Recovered())
        server.snapshots = {0: ()}

    def compact(self, node: NodeId, position: int) -> None:
        """A server makes a snapshot of what its store was at `position`."""
        server = self.servers[node]
        assert position <= len(server.applied), (position, len(server.applied))
        server.snapshots[position] = tuple(server.applied[:position])
        self.step(node, Compacted(position))

    # --- between servers -----------------------------------------------------------------

    def deliver(self, flight: InFlight) -> None:
        """Hand over a message; it is up to the caller to take it off `network`, or to deliver it twice."""
        receiver = self.servers[flight.to].replica
        if receiver is None:
            return
        voting_as = receiver.configuration().incarnation(flight.sender)
        if flight.message.vouches() and voting_as not in (None, self.servers[flight.sender].config.incarnation):
            return  # as its node would have it: this is not the data folder that votes
        self.step(flight.to, Receive(flight.sender, flight.message))

    def finish_transfer(self, transfer: Transfer, arrives: bool = True) -> None:
        """A snapshot arrives, or its transfer fails; its sender learns which."""
        self.transfers.remove(transfer)
        receiver = self.servers[transfer.to]
        arrives = arrives and receiver.replica is not None
        position = transfer.compacted.position
        if arrives:
            receiver.snapshots[position] = self.servers[transfer.sender].snapshots[position]
            compacted = transfer.compacted
            event = SnapshotArrived(
                transfer.sender, transfer.generation, position, compacted.generation, compacted.configuration
            )
            self.step(transfer.to, event)
        self.step(transfer.sender, SnapshotSent(transfer.to, position if arrives else None))

    def tick(self, node: NodeId) -> None:
        """Move the clock to a server's deadline, if that is still to come, and let the server know."""
        self.now_ms = max(self.now_ms, self.servers[node].running().deadline_ms())
        self.step(node, Tick())

    # --- questions -----------------------------------------------------------------------

    def up(self) -> list[NodeId]:
        return [node for node, server in self.servers.items() if server.replica is not None]

    def leaders(self) -> list[NodeId]:
        """Ready leaders, the newest generation last."""
        found: list[tuple[int, NodeId]] = []
        for node in self.up():
            status = self.servers[node].running().status()
            if status.role is Role.LEADER and status.ready:
                found.append((status.generation, node))
        return [node for _, node in sorted(found)]
