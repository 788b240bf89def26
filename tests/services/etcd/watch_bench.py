"""Watches over a real store, without server or cluster: `Bench` applies batches, its `Client`s read when they are told.

Watches catch up in turns of the loop, so tests say how many turns there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from quorate.services.etcd import commands
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.header import HeaderWriter
from quorate.services.etcd.options import EtcdOptions
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Store
from quorate.services.etcd.versions import Version
from quorate.services.etcd.watching import Watching
from quorate.services.etcd.watching.stream import WatchStream
from tests.services.etcd.recording import RecordedCall

ENOUGH_TURNS = 300


class CountingStore(Store):
    """Counts what is read for watches."""

    def __init__(self) -> None:
        super().__init__()
        self.versions_read = 0
        self.looked_before = 0

    def changes(self, from_revision: int) -> Iterator[Version]:
        for version in super().changes(from_revision):
            self.versions_read += 1
            yield version

    def version_before(self, version: Version) -> Version | None:
        self.looked_before += 1
        return super().version_before(version)


def put(key: bytes, value: bytes = b"", **fields: Any) -> bytes:
    return commands.PUT + pb.PutRequest(key=key, value=value, **fields).SerializeToString()


def delete(key: bytes, range_end: bytes = b"") -> bytes:
    return commands.DELETE_RANGE + pb.DeleteRangeRequest(key=key, range_end=range_end).SerializeToString()


def puts_in_one_txn(*pairs: tuple[bytes, bytes]) -> bytes:
    puts = [pb.RequestOp(request_put=pb.PutRequest(key=key, value=value)) for key, value in pairs]
    return commands.TXN + pb.TxnRequest(success=puts).SerializeToString()


def compact(revision: int) -> bytes:
    return commands.COMPACT + pb.CompactionRequest(revision=revision).SerializeToString()


def creation(key: bytes, **fields: Any) -> pb.WatchRequest:
    return pb.WatchRequest(create_request=pb.WatchCreateRequest(key=key, **fields))


class Client:
    """One Watch call."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.call = RecordedCall()
        self.stream: WatchStream = bench.watching.open(self.call)
        self.call.handler = self.stream

    def create(self, key: bytes = b"", **fields: Any) -> None:
        self._ask(creation(key, **fields))

    def cancel(self, watch_id: int) -> None:
        self._ask(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)))

    def ask_for_progress(self) -> None:
        self._ask(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    def _ask(self, request: pb.WatchRequest) -> None:
        self._bench.do(lambda: self.stream.message(request.SerializeToString()))

    def read(self) -> None:
        """Read all that was sent."""
        self._bench.do(self.call.read_all)

    def responses(self, turns: int = ENOUGH_TURNS) -> list[pb.WatchResponse]:
        """What came since the last time."""
        self._bench.turns(turns)
        return self.call.take(pb.WatchResponse)

    def events(self) -> list[tuple[int, bytes, bytes]]:
        """(revision, key, value) of each event that came since the last time; the value of a deletion is b"-"."""
        return [event for response in self.responses() for event in events_of(response)]


def events_of(response: pb.WatchResponse) -> list[tuple[int, bytes, bytes]]:
    return [
        (event.kv.mod_revision, event.kv.key, b"-" if event.type == pb.Event.DELETE else event.kv.value)
        for event in response.events
    ]


class Bench:
    def __init__(self, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self.errors: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.store = CountingStore()
        self.watching = Watching(self.store, HeaderWriter(1, 2), EtcdOptions(**options))

    def do(self, act: Callable[[], object]) -> None:
        """In the loop, without a turn."""

        async def work() -> None:
            act()

        self._loop.run_until_complete(work())

    def turns(self, count: int) -> list[int]:
        """How many versions were read in each."""
        read = []

        async def work() -> None:
            for _ in range(count):
                before = self.store.versions_read
                await asyncio.sleep(0)
                read.append(self.store.versions_read - before)

        self._loop.run_until_complete(work())
        return read

    def open(self) -> Client:
        return Client(self)

    def apply(self, *batch: bytes) -> Sequence[Result]:
        results: list[Result] = []

        def apply() -> None:
            results.extend(self.store.apply(batch, 0))
            self.watching.advance()

        self.do(apply)
        return results

    def replace_by(self, other: Bench) -> None:
        """Another replica's snapshot takes the place of the store."""
        loader = self.store.restore()
        snapshot = other.store.snapshot()
        for slice_ in snapshot:
            loader.feed(slice_)
        snapshot.close()

        def finish() -> None:
            loader.finish()
            self.watching.restored()

        self.do(finish)

    def close(self) -> None:
        self._loop.close()
        assert not self.errors, self.errors


@contextmanager
def bench(**options: Any) -> Iterator[Bench]:
    it = Bench(**options)
    try:
        yield it
    finally:
        it.close()
