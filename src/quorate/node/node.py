"""One node: its parts, put together, started and stopped in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from quorate import __version__
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.records import Recovered
from quorate.consensus.replica import (
    ConsensusProtocol,
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
from quorate.net.transfer import Offer, TransferFailed, TransferReceiver, send_snapshot
from quorate.node.admin import AdminListener, AdminPages
from quorate.node.config import NodeConfig
from quorate.node.driver import Driver
from quorate.node.environment import Environment
from quorate.node.group import ReplicatedGroup
from quorate.node.loop_watch import LoopWatch
from quorate.node.room import DiskRoom
from quorate.node.snapshotting import DamagedData, Snapshotter
from quorate.node.wire import Forward, ForwardRefused, Note, Room, items_decoder
from quorate.services.interface import DoorConfig, Service
from quorate.storage.identity import Identity
from quorate.storage.log import Log
from quorate.storage.snapshots import Snapshots
from quorate.storage.sync_policy import SyncPolicy

_log = logging.getLogger(__name__)

TICK_INTERVAL_S = 0.05
ALLOCATE_INTERVAL_MS = 1000
MAX_PEER_FRAME_BYTES = 256 << 20
"""Above what one flush may hold for a peer: `limits.max_bytes_in_flight` and one entry more."""


CLUSTER_GROUP = 0
"""Messages about nodes, not about one of the groups that they host."""


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
        self._watch = LoopWatch()
        self._tick_handle: asyncio.TimerHandle | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._serving = False

        disk = environment.disk
        known = Identity.load(disk) is not None
        self._snapshots = Snapshots(disk)
        self._log, recovery = Log.open(disk, segment_bytes=config.storage.segment_bytes)
        if known and recovery.fresh:
            raise DamagedData("this data folder has been in use, but its log is gone: what the node voted is forgotten")
        # Only now, so that a first start which is cut short leaves no identity without a log.
        self._identity = Identity.open(disk, config.cluster, config.node, self._random_hex())
        if recovery.torn is not None:
            torn = recovery.torn
            _log.warning("cut a torn tail of %d bytes from %s at offset %d", torn.bytes_cut, torn.file, torn.offset)
        self._recovered = recovery.groups
        self._protocol = protocols[config.protocol]
        self._decoder = items_decoder(self._protocol.message_type)
        self._addresses = {peer: (at.host, at.port) for peer, at in config.members.items() if peer != config.node}
        local = LocalIdentity(
            config.cluster, config.protocol, config.node, self._identity.incarnation, str(config.listen.admin)
        )
        self._handshake = Handshake(local, frozenset(config.members), self._admit_incarnation)
        self._links = Links(self._addresses, self._handshake, self, MAX_PEER_FRAME_BYTES)
        self._sync_policy = SyncPolicy()
        self._driver = Driver(
            self._log, self._links, self._sync_policy, environment.clock, self._send_snapshot, self._fail
        )
        self._room = DiskRoom(self._log, self._links, config.members, self._driver.schedule)
        self._host = _Host(self, self._driver, self._room, environment)
        self._groups = {hosted.group_id: self._build_group(hosted) for hosted in services}
        self._snapshotter = Snapshotter(
            self._snapshots, self._log, self._host, config.storage.snapshot_log_bytes, self._fail
        )
        names = {hosted.group_id: hosted.service.name for hosted in services}
        transfers = TransferReceiver(self._snapshots, names, self._snapshot_arrived)
        self._listener = PeerListener(self._handshake, self, transfers, self._decoder.decode, MAX_PEER_FRAME_BYTES)
        pages = AdminPages(
            self.status, {"/snapshot": self.start_snapshots, "/reset-longest-stop": self._reset_longest_stop}
        )
        self._admin = AdminListener(pages)

    def _random_hex(self) -> str:
        return f"{self._environment.random.getrandbits(128):032x}"

    # --- building ----------------------------------------------------------------------------

    def _build_group(self, hosted: HostedService) -> ReplicatedGroup:
        config = self.config
        replica_config = ReplicaConfig(
            node_id=config.node,
            voters=tuple(sorted(config.members)),
            election_timeout_ms=config.timing.election_timeout_ms,
            heartbeat_interval_ms=config.timing.heartbeat_interval_ms,
            max_bytes_in_flight=config.limits.max_bytes_in_flight,
            max_message_bytes=config.limits.max_message_bytes,
            max_uncommitted_bytes=config.limits.max_uncommitted_bytes,
            max_tail_bytes=config.limits.max_tail_bytes,
        )
        recovered = self._recovered.get(hosted.group_id, Recovered())
        random = self._environment.random
        store = hosted.service.create_store()
        group = ReplicatedGroup(
            hosted.group_id,
            hosted.service.name,
            config.node,
            random.getrandbits(63),
            self._host,
            self._protocol.build(replica_config, recovered, random, self._driver.now_ms()),
            store,
            random,
            config.limits.hold_ms,
            config.limits.max_uncommitted_bytes,
        )
        door_config = DoorConfig(
            host=hosted.host,
            port=hosted.port,
            admin=str(config.listen.admin),
            max_frame_bytes=config.limits.max_frame_bytes,
            max_connections=config.limits.max_connections,
            max_requests_in_flight=config.limits.max_requests_in_flight,
            max_unread_bytes=config.limits.max_unread_bytes,
            election_timeout_ms=config.timing.election_timeout_ms,
        )
        group.attach(hosted.service.create_door(store, group, door_config))
        return group

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load, join the cluster, serve.  Raises OSError (an address is taken), DamagedData, CorruptSnapshot."""
        for group_id, group in self._groups.items():
            compacted = self._recovered.get(group_id, Recovered()).compacted
            if compacted.position:
                await self._snapshotter.restore(group, compacted.position)
        self._recovered = {}
        # Before any listener: a peer may speak as soon as it can connect.
        self._driver.start(self._groups)
        self._serving = True
        listen = self.config.listen
        await self._listener.start(listen.peer.host, listen.peer.port)
        await self._admin.start(listen.admin.host, listen.admin.port)
        for group in self._groups.values():
            await group.door.start()
        self._links.start()
        if self._environment.watch_loop:
            self._watch.start()
        self._tick()

    async def stop(self) -> None:
        """Leave in order: clients first, then peers, then the disk."""
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._watch.stop()
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

    def _tick(self) -> None:
        now_ms = self._driver.now_ms()
        self._tick_handle = self._loop.call_later(TICK_INTERVAL_S, self._tick)
        try:
            for group in self._groups.values():
                group.tick(now_ms)
            self._snapshotter.tick(self._groups, now_ms)
            if self._room.tick(now_ms):
                for group in self._groups.values():
                    group.disk_filled()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Stop acting at once: after a bug or a failed disk no further step may vouch for anything."""
        self._driver.halt()
        if not self.failed.done():
            self.failed.set_result(error)

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
        elif group is None:
            _log.warning("node %d sent a message for group %d, which is not here", peer, group_id)
        elif isinstance(message, Forward | ForwardRefused | Note):
            group.receive(peer, message)
        elif self._log.full and not self._room.takes(message.payload_bytes()):
            # As if lost on the way.  Small messages go on, so that votes and heartbeats survive a full disk.
            group.disk_filled()
        else:
            self._driver.step(group_id, Receive(peer, message))

    def burst_ended(self, peer: int) -> None:
        self._driver.flush_now()

    def connected(self, peer: int) -> None:
        self._driver.schedule()

    def lost(self, peer: int, direction: Direction) -> None:
        try:
            self._room.hear(peer, False)
            for group_id, group in self._groups.items():
                group.peer_lost(peer, direction)
                self._driver.step(group_id, PeerLost(peer))
        except Exception as error:
            self._fail(error)

    def _admit_incarnation(self, peer: int, incarnation: str) -> str | None:
        known = self._identity.known_peer(peer)
        if known is None:
            self._identity.remember_peer(peer, incarnation)
        elif known != incarnation:
            return (
                f"node {peer} came with another data folder (incarnation {incarnation[:8]}, known is {known[:8]}): "
                "what it had voted is forgotten, so it must not vote under this id; give it its old folder back"
            )
        return None

    # --- snapshots ---------------------------------------------------------------------------

    def _send_snapshot(self, group_id: int, wanted: SendSnapshot) -> None:
        self._spawn(self._sending(group_id, wanted), f"snapshot-to-{wanted.to}")

    async def _sending(self, group_id: int, wanted: SendSnapshot) -> None:
        sent: int | None = None
        try:
            info = self._snapshots.newest(group_id)
            if info is None:
                raise TransferFailed("there is no snapshot yet")
            _log.info("sending node %d the snapshot of group %d at position %d", wanted.to, group_id, info.position)
            await send_snapshot(
                self._handshake,
                self._addresses[wanted.to],
                wanted.to,
                self._snapshots,
                info,
                group_id,
                wanted.generation,
            )
            sent = info.position
        except (TransferFailed, HandshakeRefused, OSError) as error:
            _log.warning("a snapshot did not reach node %d: %s", wanted.to, error)
        self._driver.step(group_id, SnapshotSent(wanted.to, sent))

    async def _snapshot_arrived(self, peer: int, offer: Offer) -> None:
        self._driver.step(
            offer.group, SnapshotArrived(peer, offer.generation, offer.position, offer.position_generation)
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
        """Start a snapshot of every group now (`POST /snapshot`)."""
        return {"started": [group.group_id for group in self._groups.values() if self._snapshotter.start(group)]}

    def _reset_longest_stop(self) -> dict[str, Any]:
        longest_ms = self._watch.longest_stop_ms
        self._watch.reset()
        return {"loop_longest_stop_ms": longest_ms}

    def status(self) -> dict[str, Any]:
        """All that this node knows of itself, for people and programs (docs/operations.md)."""
        config = self.config
        groups = [group.describe() for group in self._groups.values()]
        first: Mapping[str, Any] = groups[0]
        members = []
        for node, address in sorted(config.members.items()):
            own = node == config.node
            link = self._links.by_peer.get(node)
            admin = str(config.listen.admin) if own else link.peer_admin if link is not None else ""
            connected = own or (link is not None and link.connected)
            members.append({"node": node, "peer": str(address), "admin": admin, "connected": connected})
        return {
            "version": __version__,
            "cluster": config.cluster,
            "node": config.node,
            "incarnation": self._identity.incarnation,
            "pid": self._environment.process_id,
            "uptime_s": round(self._loop.time() - self._started_s, 3),
            "protocol": config.protocol,
            "role": first["role"],
            "leader": first["leader"],
            "generation": first["generation"],
            "ready": first["ready"],
            "words": first["words"],
            "members": members,
            "groups": groups,
            "log_bytes": self._log.size_bytes(),
            "log_segments": len(self._log.segments()),
            "log_full": self._log.full,
            "log_sync_ms": round(self._sync_policy.estimate_ms, 3),
            "log_sync_aside": self._sync_policy.aside,
            "loop_longest_stop_ms": round(self._watch.longest_stop_ms, 3),
            "endpoints": {
                "peer": str(config.listen.peer),
                "admin": str(config.listen.admin),
                **{hosted.service.name: f"{hosted.host}:{hosted.port}" for hosted in self._hosted},
            },
        }


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
        self.own_disk_full = room.own_full
        self.refuses_writes = room.refuses_writes
