"""One ZooKeeper session whose calls are recorded: none raises what the server or the network did, the record tells."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeAlias

from quorate.checking.zookeeper.records import NO_NODE, Call, End, History, Kind, Part, Session, Watch, WatchKind
from quorate.client.zookeeper import State, Transaction, ZooKeeperClient
from quorate.client.zookeeper_errors import (
    ClientClosed,
    ConnectionLoss,
    SessionExpired,
    SessionMoved,
    ZooKeeperError,
)
from quorate.client.zookeeper_watches import Watcher, WatchEvent
from quorate.services.zookeeper.protocol import Stat

_UNKNOWN: Final = (ConnectionLoss, SessionExpired, SessionMoved, ClientClosed)
"""Also where the call was perhaps never sent: nobody is worse off if it is held to be possible."""


Note: TypeAlias = Callable[[str, str, str], object]
"""(client, "invoke" or "return", what)"""


@dataclass(slots=True)
class Recorder:
    """What all clients of a run record into.  `now_s` is true time."""

    now_s: Callable[[], float]
    note: Note | None = None
    """Told what clients do, where a run is traced."""
    history: History = field(default_factory=History)
    coverage: Counter[str] = field(default_factory=Counter)


class LiveWatch:
    """A watch's record, and a way to wait for it."""

    __slots__ = ("record", "woken")

    def __init__(self, record: Watch) -> None:
        self.record = record
        self.woken = asyncio.Event()
        """It fired, or its session has ended."""


class RecordedSession:
    """Calls give back their records.  Once `record.end` is set, the session is over.

    `is_key` says that a path is one of those whose history is linearizable.
    """

    def __init__(
        self, recorder: Recorder, client: str, servers: Sequence[str], random: Random, timeout_ms: int
    ) -> None:
        self.recorder = recorder
        self.zk = ZooKeeperClient(servers, random, timeout_ms)
        history = recorder.history
        self.record = Session(len(history.sessions), client, timeout_ms, recorder.now_s())
        history.sessions.append(self.record)
        self.number = self.record.number
        self.process = ""
        self.calls = 0
        self.completed = 0
        self.watches: list[LiveWatch] = []
        """Those that have not fired."""
        self._processes = 0
        self._server = ""
        self.own_path = ""
        """A node that this session created and nobody else writes."""
        self._renew_process()

    # --- life --------------------------------------------------------------------------------

    async def open(self, limit_s: float) -> bool:
        """False where no server took it in time; it is over then."""
        try:
            async with asyncio.timeout(limit_s):
                await self.zk.start()
        except (TimeoutError, ZooKeeperError):
            self.leave()
            return False
        self.record.session_id = self.zk.session_id
        self.record.timeout_ms = self.zk.timeout_ms
        self._server = self.zk.server
        self.recorder.coverage["sessions opened"] += 1
        return True

    async def close(self) -> None:
        """Ask the server to end the session; without an answer it is left to expire."""
        if self.is_over():
            return
        call = self._begin(Call(self.number, Kind.CLOSE, "", self.recorder.now_s()))
        if await self.zk.close():
            self._answered(call)
            self._end(End.CLOSED)
            self.recorder.coverage["sessions closed"] += 1
        else:
            self._unknown(call, "not confirmed")
            self._end(End.LEFT)

    def leave(self) -> None:
        """Stop without a word: the session ends when it expires."""
        self.zk.abandon()
        if self.record.end is None:
            self._end(End.LEFT)
            self.recorder.coverage["sessions left"] += 1

    def is_over(self) -> bool:
        if self.record.end is None and self.zk.state is State.EXPIRED:
            self._expired()
        return self.record.end is not None

    def _expired(self) -> None:
        if self.record.end is None:
            self._end(End.EXPIRED)
            self.recorder.coverage["sessions expired"] += 1

    def _end(self, end: End) -> None:
        self.record.end = end
        self.record.ended_at = self.recorder.now_s()
        if self.zk.vouched_at_s is not None:
            # Clients' clocks run as true time does.
            ago_s = asyncio.get_running_loop().time() - self.zk.vouched_at_s
            self.record.vouched_at = self.record.ended_at - ago_s
            self.recorder.coverage["sessions vouched for"] += 1
        self.record.unasked_events = self.zk.unasked_events
        self.record.broken_connections = self.zk.broken_connections

    # --- reads -------------------------------------------------------------------------------

    async def get(self, path: str, *, synced: bool = False, watch: bool = False) -> Call:
        call = self._begin(
            Call(self.number, Kind.GET, path, self.recorder.now_s(), None, self.process if synced else "", synced)
        )
        live = self._watch(WatchKind.DATA, path) if watch else None
        try:
            syncing = await self._sync_ahead(path) if synced else None
            data, stat = await self.zk.get(path, self._watcher(live))
            if syncing is not None:
                # Answered before the read, or lost with an earlier connection.
                syncing.result()
        except ZooKeeperError as error:
            return self._failed(call, error)
        call.value = data.decode()
        return self._shown(call, stat, live)

    async def _sync_ahead(self, path: str) -> asyncio.Task[None]:
        """Send a sync, and do not wait for its answer: what is sent next follows on its heels."""
        syncing = asyncio.ensure_future(self.zk.sync(path))
        # If the read fails, nobody asks any more how the sync ended.
        syncing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        return syncing

    async def exists(self, path: str, *, synced: bool = False, watch: bool = False) -> Call:
        call = self._begin(Call(self.number, Kind.EXISTS, path, self.recorder.now_s(), synced=synced))
        live = self._watch(WatchKind.DATA, path) if watch else None
        try:
            if synced:
                await self.zk.sync(path)
            stat = await self.zk.exists(path, self._watcher(live))
        except ZooKeeperError as error:
            return self._failed(call, error)
        if stat is not None:
            return self._shown(call, stat, live)
        call.code = NO_NODE
        self._answered(call)
        if live is not None:
            live.record.kind = WatchKind.EXIST
            self._set(call, live)
        return call

    async def children(self, path: str, *, synced: bool = False, watch: bool = False) -> Call:
        call = self._begin(Call(self.number, Kind.CHILDREN, path, self.recorder.now_s(), synced=synced))
        live = self._watch(WatchKind.CHILD, path) if watch else None
        try:
            if synced:
                await self.zk.sync(path)
            names, stat = await self.zk.get_children2(path, self._watcher(live))
        except ZooKeeperError as error:
            return self._failed(call, error)
        call.children = tuple(names)
        return self._shown(call, stat, live)

    async def sync(self) -> Call:
        call = self._begin(Call(self.number, Kind.SYNC, "/", self.recorder.now_s(), synced=True))
        try:
            await self.zk.sync()
        except ZooKeeperError as error:
            return self._failed(call, error)
        return self._answered(call)

    # --- writes ------------------------------------------------------------------------------

    async def set(
        self,
        path: str,
        value: str,
        *,
        expected_version: int = -1,
        expected_value: str | None = None,
    ) -> Call:
        is_own = path == self.own_path
        call = Call(self.number, Kind.SET, path, self.recorder.now_s(), value, "" if is_own else self.process)
        call.expected_version = expected_version
        call.expected_value = expected_value
        if is_own:
            # What is sent while there is no connection goes over the next one.
            call.connection = self.zk.connections + (self.zk.state is not State.CONNECTED)
        self._begin(call)
        try:
            stat = await self.zk.set(path, value.encode(), expected_version)
        except ZooKeeperError as error:
            return self._failed(call, error)
        return self._shown(call, stat, None)

    async def create(
        self,
        path: str,
        value: str | None,
        *,
        ephemeral: bool = False,
        sequential: bool = False,
        is_key: bool = False,
    ) -> Call:
        """The record's path becomes that of the node made."""
        call = Call(self.number, Kind.CREATE, path, self.recorder.now_s(), value, self.process if is_key else "")
        call.ephemeral = ephemeral
        call.sequential = sequential
        self._begin(call)
        try:
            call.path, stat = await self.zk.create2(
                path, (value or "").encode(), ephemeral=ephemeral, sequential=sequential
            )
        except ZooKeeperError as error:
            return self._failed(call, error)
        return self._shown(call, stat, None)

    async def delete(self, path: str, *, is_key: bool = False) -> Call:
        call = self._begin(
            Call(self.number, Kind.DELETE, path, self.recorder.now_s(), process=self.process if is_key else "")
        )
        try:
            await self.zk.delete(path)
        except ZooKeeperError as error:
            return self._failed(call, error)
        return self._answered(call)

    async def multi(self, parts: Sequence[Part]) -> Call:
        """Of a check, `version` is the one to check."""
        call = Call(self.number, Kind.MULTI, "", self.recorder.now_s(), process=self.process, parts=tuple(parts))
        self._begin(call)
        transaction = Transaction()
        for part in parts:
            data = (part.value or "").encode()
            if part.kind is Kind.SET:
                transaction.set(part.path, data)
            elif part.kind is Kind.CREATE:
                transaction.create(part.path, data)
            elif part.kind is Kind.DELETE:
                transaction.delete(part.path)
            else:
                transaction.check(part.path, part.version)
        try:
            results = await self.zk.multi(transaction)
        except ZooKeeperError as error:
            return self._failed(call, error)
        for part, result in zip(parts, results, strict=True):
            if part.kind is Kind.SET and result.stat is not None:
                part.version = result.stat.version
        return self._answered(call)

    # --- records -----------------------------------------------------------------------------

    def _begin(self, call: Call) -> Call:
        self.recorder.history.calls.append(call)
        self.calls += 1
        note = self.recorder.note
        if note is not None:
            note(self.record.client, "invoke", _describe(call))
        return call

    def _answered(self, call: Call) -> Call:
        zk = self.zk
        call.returned_at = self.recorder.now_s()
        call.zxid = zk.answer_zxid
        call.arrival = zk.answer_arrival
        self.completed += 1
        self.recorder.coverage[call.kind.value] += 1
        if zk.server != self._server:
            self._server = zk.server
            self.recorder.coverage["sessions moved"] += 1
        note = self.recorder.note
        if note is not None:
            note(self.record.client, "return", f"{_describe(call)}: {call.code or 'ok'} as of zxid {call.zxid:#x}")
        return call

    def _shown(self, call: Call, stat: Stat, live: LiveWatch | None) -> Call:
        call.czxid = stat.czxid
        call.mzxid = stat.mzxid
        call.pzxid = stat.pzxid
        call.version = stat.version
        call.owner = stat.ephemeral_owner
        self._answered(call)
        if live is not None:
            self._set(call, live)
        return call

    def _failed(self, call: Call, error: ZooKeeperError) -> Call:
        if not isinstance(error, _UNKNOWN):
            call.code = error.code
            return self._answered(call)
        self._unknown(call, str(error))
        if isinstance(error, SessionExpired):
            self._expired()
        return call

    def _unknown(self, call: Call, why: str) -> None:
        self.recorder.coverage["unknown outcomes"] += 1
        note = self.recorder.note
        if note is not None:
            note(self.record.client, "return", f"{_describe(call)}: unknown, {why}")
        self._renew_process()

    def _renew_process(self) -> None:
        """An operation of unknown outcome may still run, so its process does nothing more."""
        self._processes += 1
        self.process = f"{self.record.client}.{self.number}.{self._processes}"

    # --- watches -----------------------------------------------------------------------------

    def _watch(self, kind: WatchKind, path: str) -> LiveWatch:
        live = LiveWatch(Watch(self.number, kind, path))
        self.recorder.history.watches.append(live.record)
        return live

    def _watcher(self, live: LiveWatch | None) -> Watcher | None:
        if live is None:
            return None

        def on_event(event: WatchEvent) -> None:
            if event.event_type != WatchEvent.SESSION_ENDED:
                record = live.record
                record.fired_times += 1
                record.fired_arrival = self.zk.arrivals
                record.event_type = event.event_type
                self.recorder.coverage["watches fired"] += 1
            if live in self.watches:
                self.watches.remove(live)
            live.woken.set()

        return on_event

    def _set(self, call: Call, live: LiveWatch) -> None:
        live.record.set_zxid = call.zxid
        live.record.set_arrival = call.arrival
        if not live.woken.is_set():
            self.watches.append(live)


def _describe(call: Call) -> str:
    if call.kind is Kind.MULTI:
        return "multi " + ", ".join(f"{part.kind.value} {part.path}" for part in call.parts)
    synced = "synced " if call.synced else ""
    value = "" if call.value is None else f" {call.value}"
    return f"{synced}{call.kind.value} {call.path}{value}"
