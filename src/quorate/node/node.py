"""One node: its parts, put together, started and stopped in order.

A node that belongs to no cluster yet has no groups: it only shakes hands, until it has met
the first members or was let in by one (`roster`), and then starts its groups.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quorate import __version__
from quorate.consensus.paxos import flexible
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.records import Recovered
from quorate.consensus.replica import (
    ConsensusProtocol,
    Leadership,
    Message,
    PeerLost,
    Receive,
    ReplicaConfig,
    SendSnapshot,
    SnapshotArrived,
    SnapshotSent,
)
from quorate.net.connection import Direction
from quorate.net.handshake import Handshake, HandshakeRefused, LocalIdentity
from quorate.net.links import Links
from quorate.net.listener import PeerListener
from quorate.net.transfer import DoubtfulSnapshot, Offer, TransferFailed, TransferReceiver, send_snapshot
from quorate.node.admin import AdminListener, AdminPages, observing_pages
from quorate.node.config import NO_ADDRESS, SERVICE_GROUPS, WILDCARD_HOSTS, Address, NodeConfig
from quorate.node.data_folder import open_folder
from quorate.node.driver import Driver
from quorate.node.environment import Environment
from quorate.node.group import ReplicatedGroup
from quorate.node.metrics import MetricsPage
from quorate.node.neighbours import Neighbours
from quorate.node.operations import Operations
from quorate.node.protocols import CLUSTER_SERVICE, deciding_quorums, quorum_sizes
from quorate.node.recovery import apply_entries
from quorate.node.room import CLUSTER_GROUP, DiskRoom
from quorate.node.roster import Roster, Standing
from quorate.node.self_watch import SelfWatch
from quorate.node.snapshot_header import read_header
from quorate.node.snapshotting import Snapshotter
from quorate.node.steering import Steering
from quorate.node.wire import (
    Forward,
    ForwardRefused,
    FrameReader,
    Held,
    Hold,
    HoldEnded,
    Met,
    Note,
    Positions,
    Room,
    Stopping,
)
from quorate.services.cluster.door import ClusterDoor
from quorate.services.cluster.store import ClusterStore
from quorate.services.interface import DoorConfig, Service
from quorate.storage.disk import File
from quorate.storage.identity import IdentityMismatch
from quorate.storage.set_aside import was_set_aside
from quorate.storage.snapshots import SnapshotInfo, Snapshots
from quorate.storage.sync_policy import SyncPolicy

_log = logging.getLogger(__name__)

TICK_INTERVAL_S = 0.05
LINK_INTERVAL_MS = 250
MAX_STOP_WAIT_MS = 800
MAX_PEER_FRAME_BYTES = 256 << 20
"""Above what one flush may hold for a peer: `limits.max_bytes_in_flight` and one entry more."""


@dataclass(frozen=True, slots=True)
class HostedService:
    """A service, the id of the group that replicates it, and where its door listens."""

    group_id: int
    service: Service
    host: str
    port: int


class Node:
    """A member of a cluster.  `start`, then wait for `failed` or your own reasons, then `stop`."""

    def __init__(
        self,
        config: NodeConfig,
        environment: Environment,
        services: list[HostedService],
        protocols: Mapping[str, ConsensusProtocol] = PROTOCOLS,
    ) -> None:
        self.config = config
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._environment = environment
        self._hosted = services
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        names = [*(hosted.service.name for hosted in services), CLUSTER_SERVICE]
        self._watch = SelfWatch(names, config.timing.election_timeout_ms, self._now_ms)
        self._tick_handle: asyncio.TimerHandle | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._serving = False
        self._stopping = False
        self._link_ms = 0

        disk = environment.disk
        services_by_group = {at.group_id: at.service.name for at in services} | {CLUSTER_GROUP: CLUSTER_SERVICE}
        folder = open_folder(disk, config, services_by_group.values(), self._random_hex)
        self._identity, self._log, self._recovered = folder.identity, folder.log, folder.recovered
        self._protocols = {
            group: named_protocol(folder.protocols[of], protocols) for group, of in services_by_group.items()
        }
        self._snapshots = Snapshots(disk)
        self.members = ClusterStore()
        """Who belongs to the cluster, as far as this node has applied it."""
        self._roster = Roster(
            config,
            self._identity,
            self.members,
            [hosted.service.name for hosted in services],
            __version__,
            was_set_aside(disk),
            self._now_ms,
            self._became_member,
            self._fail,
        )
        self._handshake = Handshake(self._roster)
        self._links = Links(self._handshake, self, MAX_PEER_FRAME_BYTES)
        self._sync_policy = SyncPolicy()
        self._driver = Driver(
            self._log,
            self._links,
            self._sync_policy,
            self._watch.stalls,
            environment.clock,
            self._send_snapshot,
            self._fail,
        )
        self._room = DiskRoom(self._log, self._links, self._driver.schedule)
        self._host = _Host(self, self._driver, self._room, environment)
        self._groups: dict[int, ReplicatedGroup] = {}
        self.cluster_door: ClusterDoor | None = None
        """Where changes of the members are asked for; None while this node belongs to no cluster."""
        self._steering: Steering | None = None
        self._snapshotter = Snapshotter(
            self._snapshots, self._log, self._host, config.storage.snapshot_log_bytes, self._fail
        )
        transfers = TransferReceiver(self._snapshots, services_by_group, self._snapshot_arrived)
        reader = FrameReader(self._protocols)
        self._listener = PeerListener(self._handshake, self, transfers, reader.read, MAX_PEER_FRAME_BYTES)
        self.neighbours = Neighbours(self._roster, self._links, self._listener, self._groups, self._host)
        self._admin = AdminListener(self._pages())

    def _pages(self) -> AdminPages:
        # A simulated node has no process to tell of.
        metrics = MetricsPage(self.status, self._watch.metrics, of_process=self._environment.process_id != 0)
        return AdminPages({**observing_pages(self.status, metrics.render), **Operations(self).pages()})

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def _random_hex(self) -> str:
        return f"{self._environment.random.getrandbits(128):032x}"

    # --- building ----------------------------------------------------------------------------

    def _build_groups(self) -> None:
        """The services' groups, and the cluster's own last."""
        for hosted in self._hosted:
            store = hosted.service.create_store()
            group = self._build_group(hosted.group_id, hosted.service.name, store)
            group.attach(hosted.service.create_door(store, group, self._door_config(hosted)))
            self._groups[hosted.group_id] = group
        cluster = self._build_group(CLUSTER_GROUP, CLUSTER_SERVICE, self.members)
        door = self.cluster_door = ClusterDoor(self.members, cluster)
        door.changed.append(self._members_changed)
        cluster.attach(door)
        self._groups[CLUSTER_GROUP] = cluster
        self._steering = Steering(
            self.config,
            self._identity,
            self._roster,
            self.members,
            door,
            self._groups,
            cluster,
            self._host,
            self._listener.incarnation_of,
            self._watch.metrics,
        )

    def _build_group(self, group_id: int, name: str, store: Any) -> ReplicatedGroup:
        config = self.config
        replica_config = ReplicaConfig(
            node_id=config.node,
            initial=self._roster.initial(),
            incarnation=self._identity.incarnation,
            election_timeout_ms=config.timing.election_timeout_ms,
            max_election_timeout_ms=config.timing.longest_election_timeout_ms,
            heartbeat_interval_ms=config.timing.heartbeat_interval_ms,
            max_bytes_in_flight=config.limits.max_bytes_in_flight,
            max_message_bytes=config.limits.max_message_bytes,
            max_uncommitted_bytes=config.limits.max_uncommitted_bytes,
            max_tail_bytes=config.limits.max_tail_bytes,
        )
        recovered = self._recovered.get(group_id, Recovered())
        random = self._environment.random
        protocol = self._protocols[group_id]
        return ReplicatedGroup(
            group_id,
            name,
            protocol,
            config.node,
            random.getrandbits(63),
            self._host,
            protocol.build(replica_config, recovered, random, self._driver.now_ms()),
            store,
            random,
            config.limits.hold_ms,
            config.limits.max_uncommitted_bytes,
            self._environment.pace,
        )

    def _door_config(self, hosted: HostedService) -> DoorConfig:
        config = self.config
        return DoorConfig(
            host=hosted.host,
            port=hosted.port,
            admin=str(config.listen.admin),
            max_frame_bytes=config.limits.max_frame_bytes,
            max_connections=config.limits.max_connections,
            max_requests_in_flight=config.limits.max_requests_in_flight,
            max_unread_bytes=config.limits.max_unread_bytes,
            margin_ms=2 * config.timing.election_timeout_ms,
            cluster_id=self._identity.cluster_id,
            peer=str(config.members[config.node]),
            reachable_host=config.members[config.node].host if hosted.host in WILDCARD_HOSTS else hosted.host,
        )

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load, join the cluster, serve.  Raises OSError (an address is taken), DamagedData, CorruptSnapshot.

        Where this node belongs to no cluster yet, it serves as soon as it does.
        """
        member = self._roster.standing is Standing.MEMBER
        if member:
            await self._start_groups()
        listen = self.config.listen
        await self._listener.start(listen.peer.host, listen.peer.port)
        if listen.admin != NO_ADDRESS:
            await self._admin.start(listen.admin.host, listen.admin.port)
        if member:
            await self._open_doors()
        else:
            _log.info("%s: %s", self._roster.standing.value, self._roster.waiting_for())
        self._links.start()
        self.neighbours.link()
        if self._environment.watch_loop:
            self._watch.loop.start()
        self._tick()
        if self._roster.standing is Standing.MEMBER and not member:
            # It became one while the listeners opened.
            await self._start_late()

    async def _start_groups(self) -> None:
        self._build_groups()
        for group_id, group in self._groups.items():
            compacted = self._recovered.get(group_id, Recovered()).compacted
            if compacted.position:
                await self._snapshotter.restore(group, compacted.position)
        self._check_groups()
        self._recovered = {}
        self._members_changed()
        # Before any listener: a peer may speak as soon as it can connect.
        self._driver.start(self._groups)
        self._serving = True

    def _check_groups(self) -> None:
        """Which services a cluster has is decided when it is formed.  Raises IdentityMismatch."""
        known = ClusterStore.of(self.members.content())
        apply_entries(known, self._recovered.get(CLUSTER_GROUP, Recovered()).entries)
        # A log that does not know yet how the cluster was formed may hold something of its groups.
        there = set(known.groups) or {*self._groups, *self._recovered}
        if there != self._groups.keys():
            names = {group: service for service, group in SERVICE_GROUPS.items()}
            formed_with = [names.get(group, f"group {group}") for group in sorted(there - {CLUSTER_GROUP})]
            serves = [hosted.service.name for hosted in self._hosted]
            raise IdentityMismatch(
                f"the cluster of this data folder was formed to serve {' and '.join(formed_with)}, these settings say "
                f"{' and '.join(serves)}: set services = {json.dumps(formed_with)}"
            )

    async def _open_doors(self) -> None:
        for group in self._groups.values():
            await group.door.start()

    def _became_member(self) -> None:
        """The roster's, from a handshake or a tick."""
        if self._tick_handle is not None:
            # No message can come before this task's first turn: it has nothing to load.
            self._spawn(self._start_late(), "start-groups")

    async def _start_late(self) -> None:
        if self._groups:
            return
        await self._start_groups()
        self.neighbours.have_dial_again()
        await self._open_doors()
        _log.info(
            "a member now: serving %s", ", ".join(f"{at.service.name} on {at.host}:{at.port}" for at in self._hosted)
        )

    async def stop(self) -> None:
        """Leave in order: leaderships first, then clients, then peers, then the disk."""
        self._stopping = True
        if self._serving and not self.failed.done():
            for link in self._links.by_peer.values():
                link.queue((CLUSTER_GROUP, Stopping()))
            # At once: a node that leads nothing is gone in a moment.
            self._links.flush()
            await self._give_up_leaderships()
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._watch.loop.stop()
        await self._snapshotter.stop()
        if self._serving:
            for group in self._groups.values():
                group.stop()
                await group.door.stop()
        await self._driver.stop()
        for task in list(self._tasks):
            task.cancel()
        await self._links.stop()
        await self._listener.stop()
        await self._admin.stop()
        self._log.close()

    async def _give_up_leaderships(self) -> None:
        led = [group for group in self._groups.values() if len(group.replica.configuration().voters) > 1]
        # Where all nodes stop at once there is nobody to hand over to, and none of them should wait for that.
        limit_ms = min(MAX_STOP_WAIT_MS, self.config.timing.longest_election_timeout_ms)
        await asyncio.gather(
            *(self.hand_over(group, "stop", "this node stops", limit_ms=limit_ms) for group in led if group.leads())
        )

    async def hand_over(
        self, group: ReplicatedGroup, kind: str, reason: str, target: int | None = None, *, limit_ms: int | None = None
    ) -> str | None:
        """Hand the group's leadership over; returns why that did not succeed.

        `kind` is one of `metrics.HANDOVER_REASONS`, `reason` the words for the log.
        """
        limit_ms = self.config.timing.longest_election_timeout_ms if limit_ms is None else limit_ms
        return await self._watch.hand_over(group, self._host, self._links, kind, reason, target, limit_ms)

    def _tick(self) -> None:
        now_ms = self._driver.now_ms()
        self._tick_handle = self._loop.call_later(TICK_INTERVAL_S, self._tick)
        try:
            for group in self._groups.values():
                group.tick(now_ms)
            if now_ms >= self._link_ms:
                self._link_ms = now_ms + LINK_INTERVAL_MS
                self.neighbours.link()
                self.neighbours.tell_met()
            if self._steering is None:
                self._roster.tick(now_ms)
            else:
                self._steering.tick(now_ms)
                self.neighbours.tick(now_ms)
                self._watch_itself(now_ms)
            self._snapshotter.tick(self._groups, now_ms)
            if self._room.tick(now_ms):
                for group in self._groups.values():
                    group.disk_filled()
        except Exception as error:
            self._fail(error)

    def _watch_itself(self, now_ms: int) -> None:
        led = [group for group in self._groups.values() if group.leads()]
        wanted = self._watch.tick(now_ms, led)
        if wanted is not None:
            limit_ms = self.config.timing.longest_election_timeout_ms
            self._spawn(self._watch.hand_all_over(wanted, led, self._host, self._links, limit_ms), "hand-over")

    def _fail(self, error: BaseException) -> None:
        """Stop acting at once: after a bug or a failed disk no further step may vouch for anything."""
        self._driver.halt()
        if not self.failed.done():
            self.failed.set_result(error)

    # --- members -----------------------------------------------------------------------------

    def _members_changed(self) -> None:
        """What is known of the members is another."""
        self._roster.store_changed()
        voters = tuple(self.members.voters)
        self._room.ask_voters(voters, deciding_quorums([of.name for of in self._protocols.values()], voters))
        self.neighbours.link()
        self.neighbours.heed()

    def configured(self) -> None:
        """GroupHost's: a group's configuration changed."""
        self.neighbours.heed()

    def led(self, service: str, before: Leadership, after: Leadership) -> None:
        """GroupHost's: a group's leadership changed."""
        self._watch.led(service, before, after)

    # --- LinkEvents --------------------------------------------------------------------------

    def received(self, peer: int, items: list[tuple[int, Message]]) -> None:
        try:
            for group_id, message in items:
                self._receive(peer, group_id, message)
        except Exception as error:
            self._fail(error)

    def _receive(self, peer: int, group_id: int, message: Message) -> None:
        group = self._groups.get(group_id)
        if isinstance(message, Room):
            self._room.hear(peer, message.full)
        elif isinstance(message, Met):
            self._roster.hear_met(peer, self._listener.incarnation_of(peer), message.met)
        elif isinstance(message, Stopping):
            self.neighbours.hear_stopping(peer)
        elif isinstance(message, Positions):
            self.neighbours.hear_positions(peer, message)
        elif group is None or not self._serving:
            if self._groups:
                _log.warning("node %d sent a message for group %d, which is not here", peer, group_id)
        elif isinstance(message, Forward | ForwardRefused | Note | Hold | Held | HoldEnded):
            group.receive(peer, message)
        elif self._log.full and not self._room.takes(message.payload_bytes()):
            # As if lost on the way.  Small messages go on, so that votes and heartbeats survive a full disk.
            group.disk_filled()
        elif self._stopping and message.asks_to_lead():
            return  # the leader has been told, and finds another
        elif self.neighbours.unheeded and (peer, group_id) in self.neighbours.unheeded and message.vouches():
            # A folder that was emptied has forgotten what its node vouched for: this must not be counted.
            return
        else:
            self._driver.step(group_id, Receive(peer, message))

    def burst_ended(self, peer: int) -> None:
        self._driver.flush_now()

    def connected(self, peer: int) -> None:
        self._driver.schedule()

    def accepted(self, peer: int) -> None:
        """A peer dialled us, and was let in."""
        self.neighbours.link()
        self.neighbours.heed()

    def lost(self, peer: int, direction: Direction) -> None:
        try:
            self._room.hear(peer, False)
            self.neighbours.lost(peer)
            for group_id, group in self._groups.items():
                group.peer_lost(peer, direction)
                self._driver.step(group_id, PeerLost(peer))
        except Exception as error:
            self._fail(error)

    # --- snapshots ---------------------------------------------------------------------------

    def _send_snapshot(self, group_id: int, wanted: SendSnapshot) -> None:
        self._spawn(self._sending(group_id, wanted), f"snapshot-to-{wanted.to}")

    async def _sending(self, group_id: int, wanted: SendSnapshot) -> None:
        sent: int | None = None
        info = self._snapshotter.newest(group_id)
        try:
            if info is None:
                raise DoubtfulSnapshot("there is none that could be sent yet")
            _log.info("sending node %d the snapshot of group %d at position %d", wanted.to, group_id, info.position)
            link = self._links.by_peer.get(wanted.to)
            if link is None:
                raise TransferFailed(f"node {wanted.to} is no member any more")
            await send_snapshot(
                self._handshake,
                link.address,
                wanted.to,
                self._snapshots,
                info,
                group_id,
                wanted.generation,
            )
            sent = info.position
            self._watch.metrics.snapshots_sent += 1
        except (TransferFailed, HandshakeRefused, OSError) as error:
            _log.warning("a snapshot did not reach node %d: %s", wanted.to, error)
            if isinstance(error, DoubtfulSnapshot):
                await self._snapshotter.verify(self._groups[group_id], info)
        self._driver.step(group_id, SnapshotSent(wanted.to, sent))

    async def _snapshot_arrived(self, peer: int, offer: Offer) -> None:
        if offer.group not in self._groups:
            return
        arrived = next((info for info in self._snapshots.all(offer.group) if info.position == offer.position), None)
        if arrived is None:
            return  # a newer one has taken its place meanwhile
        header = read_header(self._snapshots, arrived)
        self._driver.step(
            offer.group,
            SnapshotArrived(peer, offer.generation, offer.position, offer.position_generation, header.configuration),
        )

    def install_snapshot(self, group_id: int, position: int) -> None:
        """GroupHost's: load the snapshot once the log says durably that it counts."""
        group = self._groups[group_id]
        self._driver.when_durable(lambda: self._snapshotter.install(group, position))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._loop.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    # --- admin -------------------------------------------------------------------------------

    def start_snapshots(self) -> dict[str, Any]:
        """Have a snapshot of every group taken, one after another (`POST /snapshot`)."""
        return {"started": self._snapshotter.ask(self._groups)}

    def start_snapshot(self, group: ReplicatedGroup) -> bool:
        """Start one of the group; False where that cannot be now."""
        return self._snapshotter.start(group)

    def newest_snapshot(self, group: ReplicatedGroup) -> SnapshotInfo | None:
        return self._snapshotter.newest(group.group_id)

    def open_snapshot(self, info: SnapshotInfo) -> File:
        """Raises OSError."""
        return self._snapshotter.open(info)

    def groups(self) -> list[ReplicatedGroup]:
        """None before this node belongs to a cluster."""
        return [*self._groups.values()]

    def remember_addresses(self, others: Mapping[int, str]) -> None:
        """Where other members are, as an earlier folder of this node knew it."""
        if not self._identity.addresses:
            self._identity.remember_members(others, [])

    def local_identity(self) -> LocalIdentity:
        return self._roster.local()

    def admin_of(self, node: int) -> str:
        return str(self.config.listen.admin) if node == self.config.node else self._roster.admin(node)

    def wall_ms(self) -> int:
        return self._environment.wall_ms()

    def reset_longest_stop(self) -> dict[str, Any]:
        longest_ms = self._watch.loop.longest_stop_ms
        self._watch.loop.reset()
        return {"loop_longest_stop_ms": longest_ms}

    def status(self) -> dict[str, Any]:
        """All that this node knows of itself, for people and programs (docs/operations.md)."""
        config = self.config
        groups = [group.describe() for group in self._groups.values()]
        # The first service's group speaks for the node where only one can.
        first: Mapping[str, Any] = groups[0] if groups else {}
        return {
            "version": __version__,
            "cluster": config.cluster,
            "cluster_id": self._identity.cluster_id,
            "state": self._roster.standing.value,
            "waiting_for": self._roster.waiting_for(),
            "failure": str(self.failed.result()) if self.failed.done() else None,
            "node": config.node,
            "incarnation": self._identity.incarnation,
            "pid": self._environment.process_id,
            "uptime_s": round(self._loop.time() - self._started_s, 3),
            "protocol": self._identity.protocol,
            "role": first.get("role", self._roster.standing.value),
            "leader": first.get("leader"),
            "generation": first.get("generation", 0),
            "ready": first.get("ready", False),
            "words": first.get("words", {}),
            "members": self._describe_members(),
            "membership": {
                "version": self.members.version,
                "under_way": {str(group): version for group, version in self.members.under_way().items()},
                "cluster_id": self.members.cluster_id,
            },
            "groups": groups,
            "log_bytes": self._log.size_bytes(),
            "log_segments": len(self._log.segments()),
            "log_full": self._log.full,
            "log_sync_ms": round(self._sync_policy.estimate_ms, 3),
            "log_sync_aside": self._sync_policy.aside,
            "loop_longest_stop_ms": round(self._watch.loop.longest_stop_ms, 3),
            "endpoints": {
                "peer": str(config.listen.peer),
                "admin": str(config.listen.admin),
                **{hosted.service.name: str(Address(hosted.host, hosted.port)) for hosted in self._hosted},
            },
        }

    def _describe_members(self) -> list[dict[str, Any]]:
        config, store = self.config, self.members
        known = {**store.leaving, **store.members}
        addresses = {**self._roster.addresses(), config.node: str(config.members[config.node])}
        described = []
        for node, address in sorted(addresses.items()):
            own, member, link = node == config.node, known.get(node), self._links.by_peer.get(node)
            described.append(
                {
                    "node": node,
                    "peer": address,
                    "admin": str(config.listen.admin) if own else self._roster.admin(node),
                    "connected": own or (link is not None and link.connected),
                    "voter": member.voter if member is not None else node in config.members and not config.join,
                    "refilling": member is not None and member.refilling,
                    "leaving": node in store.leaving,
                    "incarnation": member.incarnation if member is not None else "",
                    "replaces": member.replaces if member is not None and member.replaces in known else None,
                }
            )
        return described


def named_protocol(name: str, protocols: Mapping[str, ConsensusProtocol]) -> ConsensusProtocol:
    """One of these, or Multi-Paxos with quorums of the sizes that the name tells."""
    sizes = quorum_sizes(name)
    return protocols[name] if sizes is None or name in protocols else replace(flexible(*sizes), name=name)


class _Host:
    """The node as its groups see it (`node.ports.GroupHost`)."""

    def __init__(self, node: Node, driver: Driver, room: DiskRoom, environment: Environment) -> None:
        self.now_ms = driver.now_ms
        self.wall_ms = environment.wall_ms
        self.clock = environment.clock
        self.step = driver.step
        self.schedule = driver.schedule
        self.when_durable = driver.when_durable
        self.send = driver.send
        self.install_snapshot = node.install_snapshot
        self.configured = node.configured
        self.led = node.led
        self.own_disk_full = room.own_full
        self.refuses_writes = room.refuses_writes
