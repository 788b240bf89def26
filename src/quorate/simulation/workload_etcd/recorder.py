"""A client of etcd's API whose calls are recorded: none raises what the server or the network did, the record tells."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias, assert_never

from quorate.checking.etcd.records import Call, Delivery, Finding, History, KeepAlive, Request, Response, Watch
from quorate.checking.etcd.texts import name_of, request_text
from quorate.client.etcd import EtcdClient, EtcdClientError, NotDone
from quorate.client.etcd import Watch as ClientWatch
from quorate.services.etcd.etcd_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    Event,
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchResponse,
)

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
    connections: int = 0
    """Of all clients together."""
    late: list[Finding] = field(default_factory=list)
    """What was waited for in vain."""

    def tell(self, client: str, kind: str, text: str) -> None:
        if self.note is not None:
            self.note(client, kind, text)


class LiveWatch:
    """A watch's record, which goes on to be written, and a way to wait for what comes."""

    def __init__(self, recorder: Recorder, client: str, watch: ClientWatch) -> None:
        request = WatchCreateRequest()
        request.CopyFrom(watch.request)
        self.record = Watch(client, request, recorder.now_s())
        self.watch = watch
        self.compacted = 0
        """The compact revision with which the server ended it."""
        self._recorder = recorder
        self._changed = asyncio.Event()
        recorder.history.watches.append(self.record)
        self._task = asyncio.ensure_future(self._listen())

    @property
    def next_revision(self) -> int:
        """It was told of all before this one; 0 while that is open."""
        return self.watch.next_revision

    @property
    def is_over(self) -> bool:
        return self._task.done()

    def cancel(self) -> None:
        self.record.cancelled = True
        self.watch.cancel()

    async def wait(self, limit_s: float) -> None:
        """For the next thing that comes."""
        self._changed.clear()
        if self.is_over:
            return
        try:
            async with asyncio.timeout(limit_s):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _listen(self) -> None:
        count = 0
        async for response in self.watch:
            self.record.deliveries.append(Delivery(self._recorder.now_s(), response))
            if response.created:
                count += 1
                self._recorder.coverage["watches set" if count == 1 else "watches resumed"] += 1
            self._count(response)
            self._changed.set()
        self._changed.set()

    def _count(self, response: WatchResponse) -> None:
        coverage = self._recorder.coverage
        if response.canceled and response.compact_revision:
            self.compacted = response.compact_revision
            coverage["watches overtaken by compaction"] += 1
        elif response.canceled:
            coverage["watches cancelled"] += 1
        elif response.events:
            coverage["watch events"] += len(response.events)
            gone = [event for event in response.events if event.type == Event.DELETE and event.prev_kv.lease]
            coverage["leased keys deleted"] += len(gone)
        elif not response.created:
            coverage["progress notified"] += 1
        if response.events or response.canceled:
            record = self.record
            text = f"watch of {name_of(record.request.key, record.request.range_end)}"
            self._recorder.tell(record.client, "watch", f"{text}: up to revision {self.watch.next_revision - 1}")


class RecordedClient:
    """Calls give back their records."""

    def __init__(self, recorder: Recorder, name: str, servers: Sequence[str], random: Random) -> None:
        self.recorder = recorder
        self.name = name
        self.etcd = EtcdClient(servers, random)
        self.process = ""
        self.calls = 0
        self.completed = 0
        self._numbers: dict[int, int] = {}
        """Of this client's connections, those in the history."""
        self._processes = 0
        self._member = ""
        self._renew_process()

    def start(self) -> None:
        self.etcd.start()

    async def close(self) -> None:
        await self.etcd.close()

    # --- calls -------------------------------------------------------------------------------

    async def do(self, request: Request, *, is_register: bool = False) -> Call:
        """`is_register` says that it is an operation of the linearizable history."""
        recorder = self.recorder
        call = Call(self.name, request, recorder.now_s(), self.process if is_register else "")
        recorder.history.calls.append(call)
        self.calls += 1
        recorder.tell(self.name, "invoke", request_text(request))
        try:
            call.response = await self._ask(request)
        except NotDone as error:
            if error.error is None:
                # It was never sent.  To hold it for possible wrongs nobody.
                self._unknown(call, str(error))
            else:
                call.error = error.error
                self._answered(call, error.error.name)
        except EtcdClientError as error:
            self._unknown(call, str(error))
        else:
            self._answered(call, f"ok as of revision {call.revision}")
            self._count(call)
        return call

    async def _ask(self, request: Request) -> Response:
        etcd = self.etcd
        match request:
            case RangeRequest():
                return await etcd.range(request)
            case PutRequest():
                return await etcd.put(request)
            case DeleteRangeRequest():
                return await etcd.delete_range(request)
            case TxnRequest():
                return await etcd.txn(request)
            case CompactionRequest():
                return await etcd.compact(request)
            case LeaseGrantRequest():
                return await etcd.lease_grant(request)
            case LeaseRevokeRequest():
                return await etcd.lease_revoke(request)
            case LeaseTimeToLiveRequest():
                return await etcd.lease_time_to_live(request)
            case LeaseLeasesRequest():
                return await etcd.lease_leases(request)
        assert_never(request)

    def _answered(self, call: Call, text: str) -> None:
        call.returned_at = self.recorder.now_s()
        call.connection = self._connection()
        self.completed += 1
        kind = type(call.request).__name__.removesuffix("Request")
        self.recorder.coverage[f"{kind} refused: {text}" if call.error else kind] += 1
        self.recorder.tell(self.name, "return", f"{request_text(call.request)}: {text}")

    def _connection(self) -> int:
        """Of the answer that has just come."""
        etcd = self.etcd
        if etcd.connections not in self._numbers:
            self.recorder.connections += 1
            self._numbers[etcd.connections] = self.recorder.connections
        if etcd.member != self._member:
            self.recorder.coverage["members changed"] += bool(self._member)
            self._member = etcd.member
        return self._numbers[etcd.connections]

    def _count(self, call: Call) -> None:
        if isinstance(call.response, TxnResponse):
            self.recorder.coverage["txns succeeded" if call.response.succeeded else "txns failed"] += 1
        elif isinstance(call.request, RangeRequest) and call.request.revision:
            self.recorder.coverage["reads of the past"] += 1

    def _unknown(self, call: Call, why: str) -> None:
        self.recorder.coverage["unknown outcomes"] += 1
        self.recorder.tell(self.name, "return", f"{request_text(call.request)}: unknown, {why}")
        self._renew_process()

    def _renew_process(self) -> None:
        """An operation of unknown outcome may still run, so its process does nothing more."""
        self._processes += 1
        self.process = f"{self.name}.{self._processes}"

    # --- what lasts --------------------------------------------------------------------------

    def watch(self, request: WatchCreateRequest) -> LiveWatch:
        return LiveWatch(self.recorder, self.name, self.etcd.watch(request))

    async def keep_alive(self, lease: int) -> KeepAlive | None:
        """None where no answer came."""
        sent_at = self.recorder.now_s()
        try:
            answer = await self.etcd.keep_alive(lease)
        except EtcdClientError:
            self.recorder.coverage["keep-alives without an answer"] += 1
            return None
        record = KeepAlive(self.name, lease, sent_at, self.recorder.now_s(), answer.TTL, answer.header.revision)
        self.recorder.history.keep_alives.append(record)
        self.recorder.coverage["leases kept alive" if answer.TTL > 0 else "leases found to be over"] += 1
        return record
