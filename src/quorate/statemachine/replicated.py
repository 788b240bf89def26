"""One node that replicates a user's class."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.replica import Leadership, Role
from quorate.node.config import (
    MAX_MEMBERS,
    NO_ADDRESS,
    WILDCARD_HOSTS,
    Address,
    LimitsConfig,
    ListenConfig,
    NodeConfig,
    StorageConfig,
    TimingConfig,
    parse_address,
)
from quorate.node.environment import Environment
from quorate.node.node import HostedService, Node
from quorate.node.repair import DAMAGED, start_node
from quorate.services.interface import DoorConfig, Group, Service
from quorate.statemachine.door import CallerDoor
from quorate.statemachine.errors import (
    CannotStart,
    InvalidCommand,
    NodeStopped,
    OutcomeUnknown,
    Refused,
    StateMachineFailed,
)
from quorate.statemachine.machine import StateMachine
from quorate.statemachine.store import Definition, Store, isolated
from quorate.storage.identity import IdentityMismatch
from quorate.storage.log_errors import LogSyncFailed, UnknownLogFormat
from quorate.storage.real_disk import RealDisk

M = TypeVar("M", bound=StateMachine)
R = TypeVar("R")
P = ParamSpec("P")

GROUP_ID: Final = 64
"""Stands in logs, snapshots and messages, so it never changes; far from those of Quorate's own services."""
SERVICE: Final = "statemachine"
PATIENCE_S: Final = 3.0
"""How long a command or a read waits for a cluster and a leader before it is refused."""
LOOK_AGAIN_S: Final = 0.05
"""A read that found no leader that could vouch asks again after this, at the latest."""
MAX_SEGMENT_BYTES: Final = 16 << 20
_CANNOT_START: Final = (*DAMAGED, IdentityMismatch, UnknownLogFormat, LogSyncFailed, OSError)
_NOBODY: Final = Leadership(Role.FOLLOWER, None, 0)


class Replicated(Generic[M]):
    """One node of a cluster that replicates the class which `create` makes.

        async with quorate.Replicated(Stock, node=0, members={0: "10.0.0.1:7000", ...}, data="folder") as stock:
            await stock.submit(Stock.add, "apples", 3)

    `members` maps every node's id to its peer address, "host:port".  `data` is this node's folder.  `protocol` is
    "raft", "paxos" or "zab", for good.  `name` is the cluster's, by default the class's.  `join` for a node that is
    added to a cluster that serves.  `admin`, "host:port", is where `quorate status` and `quorate member` reach this
    node.  Sizes are in bytes, times in milliseconds.

    Raises TypeError where the class cannot be replicated, and CannotStart for settings that are wrong.
    """

    def __init__(
        self,
        create: Callable[[], M],
        *,
        node: int,
        members: Mapping[int, str],
        data: str | os.PathLike[str],
        protocol: str = "raft",
        name: str = "",
        join: bool = False,
        admin: str | None = None,
        election_timeout_ms: int = 300,
        max_command_bytes: int = 1 << 20,
        snapshot_log_bytes: int = 64 << 20,
    ) -> None:
        self._definition = Definition(create)
        if protocol not in PROTOCOLS:
            raise CannotStart(f"protocol {protocol!r}: there are {', '.join(PROTOCOLS)}")
        for setting, value, least in (
            ("election_timeout_ms", election_timeout_ms, 50),
            ("max_command_bytes", max_command_bytes, 1),
            ("snapshot_log_bytes", snapshot_log_bytes, 1 << 18),
        ):
            if value < least:
                raise CannotStart(f"{setting} = {value}: must be at least {least}")
        name = name or self._definition.name
        if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) is None:
            raise CannotStart(f"name {name!r}: must be 1 to 64 letters, digits, '.', '_' or '-'")
        addresses = _addresses(node, members)
        self._max_command_bytes = max_command_bytes
        self._config = NodeConfig(
            name,
            node,
            Path(data).absolute(),
            addresses,
            ListenConfig(addresses[node], NO_ADDRESS if admin is None else _address("admin", admin)),
            protocol,
            join,
            TimingConfig(election_timeout_ms, heartbeat_interval_ms=election_timeout_ms * 4 // 15),
            LimitsConfig(hold_ms=int(PATIENCE_S * 1000)),
            StorageConfig(min(MAX_SEGMENT_BYTES, snapshot_log_bytes // 4), snapshot_log_bytes),
            services=(),
        )
        self.leadership = _NOBODY
        """Who leads, as this node sees it: role, leader, generation (the term, ballot or epoch), ready."""
        self._led = _Signal()
        self._changed = _Signal()
        self._ended = _Signal()
        self._disk: RealDisk | None = None
        self._node: Node | None = None
        self._store: Store[M] | None = None
        self._door: CallerDoor | None = None
        """None until the node belongs to a cluster."""
        self._failure: BaseException | None = None
        self._stopping: asyncio.Task[None] | None = None

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the node, also again after `stop`.  It serves once a quorum of the members runs: see `wait_ready`.

        Raises CannotStart, and StateMachineFailed where the folder holds what the class does not understand.
        """
        if self._disk is not None:
            raise RuntimeError("the node runs already")
        self._failure, self._stopping = None, None
        try:
            disk = RealDisk(self._config.data)
        except OSError as error:
            raise CannotStart(f"the data folder {self._config.data} cannot be used: {error}") from error
        environment = Environment(disk, _wall_ms, time.monotonic, random.SystemRandom(), os.getpid())
        service = Service(SERVICE, self._create_store, self._create_door)
        hosted = HostedService(GROUP_ID, service, "", 0)
        try:
            self._disk = disk
            self._node = await start_node(self._config, disk, lambda settings: Node(settings, environment, [hosted]))
        except BaseException as error:
            self._forget()
            if isinstance(error, _CANNOT_START):
                raise CannotStart(f"node {self._config.node} cannot start: {error}") from error
            raise
        self._node.failed.add_done_callback(lambda failed: self._fail(failed.result()))

    async def stop(self) -> None:
        """Hand leadership over, refuse what waits, and stop.  What is under way is OutcomeUnknown to its callers."""
        if self._node is None:
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(self._node), name="quorate-stop")
        await asyncio.shield(self._stopping)

    async def _stop(self, node: Node) -> None:
        try:
            await node.stop()
        finally:
            self._forget()

    def _fail(self, error: BaseException) -> None:
        if self._stopping is None and self._node is not None:
            self._failure = error
            self._stopping = asyncio.create_task(self._stop(self._node), name="quorate-stop")
            # Whoever waits for the node hears of why it failed, not of what came of that.
            self._stopping.add_done_callback(lambda stopped: stopped.cancelled() or stopped.exception())

    def _forget(self) -> None:
        if self._disk is not None:
            self._disk.close()
        self._disk = self._node = self._store = self._door = None
        self.leadership = _NOBODY
        for signal in (self._led, self._changed, self._ended):
            signal.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.stop()

    def _create_store(self) -> Store[M]:
        self._store = Store(self._definition)
        return self._store

    def _create_door(self, store: Any, group: Group, config: DoorConfig) -> CallerDoor:
        self._door = CallerDoor(group, self._changed.set, self._lead)
        return self._door

    def _lead(self, leadership: Leadership) -> None:
        self.leadership = leadership
        self._led.set()

    # --- commands and reads ------------------------------------------------------------------

    async def submit(self, command: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Have a command replicated and carried out; what the method returned.  On any node.

        Raises the CommandError that it raised; Refused where it certainly was not and never will be carried out;
        OutcomeUnknown where it may have been, or may be yet; InvalidCommand and NodeStopped where nothing was
        submitted.
        """
        data = self._definition.commands.encode(command, args, kwargs)
        if len(data) > self._max_command_bytes:
            raise InvalidCommand(f"a command of {len(data)} bytes: max_command_bytes is {self._max_command_bytes}")
        door = await self._joined(asyncio.get_running_loop().time() + PATIENCE_S)
        try:
            result: R = await door.submit(data)
        except OutcomeUnknown as error:
            if self._failure is not None:
                raise OutcomeUnknown(
                    f"whether it was carried out is unknown: {_tell(self._failure)}"
                ) from self._failure
            raise error
        return result

    async def query(self, question: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask this node's machine once it has applied all that was answered anywhere before this call: linearizable.

        `question` must change nothing.  Raises Refused where nobody could vouch for that, NodeStopped, and what
        `question` raises.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PATIENCE_S
        while not await (await self._joined(until_s)).barrier():
            if loop.time() >= until_s:
                raise Refused("not read: no leader could vouch for what is current")
            await self._led.wait(self._led.times, LOOK_AGAIN_S)
        return self.query_local(question, *args, **kwargs)

    def query_local(self, question: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask this node's machine as it is: what it says was true, perhaps long ago.

        Raises NodeStopped, Refused where this node belongs to no cluster yet, and what `question` raises.
        """
        self._check_runs()
        if self._store is None:
            raise Refused(f"not read: {self._waiting_for()}")
        return isolated(question(self._store.machine, *args, **kwargs))  # type: ignore[no-any-return]

    async def _joined(self, until_s: float) -> CallerDoor:
        """The door, once there is one.  Raises Refused where there is none by then, and NodeStopped."""
        while True:
            self._check_runs()
            if self._door is not None:
                return self._door
            left_s = until_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise Refused(f"not carried out: {self._waiting_for()}")
            await self._changed.wait(self._changed.times, left_s)

    def _check_runs(self) -> None:
        if self._failure is not None:
            raise NodeStopped(_tell(self._failure)) from self._failure
        if self._node is None:
            raise NodeStopped("this node does not run")

    def _waiting_for(self) -> str:
        return (self._node and self._node.status()["waiting_for"]) or "this node is starting"

    # --- events ------------------------------------------------------------------------------

    @property
    def leader(self) -> int | None:
        """The node that leads, as this one sees it; None where nobody does."""
        return self.leadership.leader

    @property
    def leads(self) -> bool:
        """This node leads, and is ready to."""
        return self.leadership.role is Role.LEADER and self.leadership.ready

    async def leaderships(self) -> AsyncIterator[Leadership]:
        """The present leadership and every later one; only the last where several came.  Ends with the node.

        Raises NodeStopped where the node fails.
        """
        told: Leadership | None = None
        while self._goes_on():
            times = self._led.times
            if self.leadership != told:
                told = self.leadership
                yield told
            await self._led.wait(times)

    async def changes(self) -> AsyncIterator[None]:
        """At once, and whenever commands were carried out here since, whoever submitted them.  Ends with the node.

        Raises NodeStopped where the node fails.
        """
        while self._goes_on():
            times = self._changed.times
            if self._store is not None:
                yield
            await self._changed.wait(times)

    async def wait_ready(self) -> None:
        """Until the cluster is formed and this node has a leader.  Raises NodeStopped."""
        while True:
            self._check_runs()
            if self.leader is not None:
                return
            await self._led.wait(self._led.times)

    async def wait_stopped(self) -> None:
        """Until the node has stopped.  Raises why it failed, if it did: StateMachineFailed, or what befell its disk."""
        while self._node is not None:
            await self._ended.wait(self._ended.times)
        if self._failure is not None:
            raise self._failure

    def _goes_on(self) -> bool:
        if self._failure is not None:
            self._check_runs()
        return self._node is not None

    def status(self) -> dict[str, Any]:
        """All that the node knows of itself, as `quorate status --json` shows it.  Raises NodeStopped."""
        self._check_runs()
        assert self._node is not None
        return self._node.status()


class _Signal:
    """Wakes all who wait.  Who has looked at `times` first misses nothing."""

    def __init__(self) -> None:
        self.times = 0
        """How often it was set."""
        self._waiting: dict[asyncio.Future[None], None] = {}

    def set(self) -> None:
        self.times += 1
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, times: int, limit_s: float | None = None) -> None:
        """Until it was set more than so often, or the limit is over."""
        if self.times > times:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            await asyncio.wait([future], timeout=limit_s)
        finally:
            self._waiting.pop(future, None)


def _addresses(node: int, members: Mapping[int, str]) -> Mapping[int, Address]:
    """Raises CannotStart."""
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise CannotStart(f"members has {len(members)} nodes: there can be 1 to {MAX_MEMBERS}")
    if node not in members:
        raise CannotStart(f"node {node} is not in members, which lists {', '.join(map(str, sorted(members)))}")
    addresses = {member: _address(f"members[{member}]", text) for member, text in members.items()}
    for member, address in addresses.items():
        if address.host in WILDCARD_HOSTS:
            raise CannotStart(f"members[{member}] = {members[member]!r}: the other nodes cannot connect to that")
    if len(set(addresses.values())) < len(addresses):
        raise CannotStart("two of the members have the same address")
    return MappingProxyType(addresses)


def _address(what: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise CannotStart(f"{what} = {error}") from error


def _tell(failure: BaseException) -> str:
    kind = "" if isinstance(failure, StateMachineFailed) else f"{type(failure).__name__}: "
    return f"this node failed: {kind}{failure}"


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
