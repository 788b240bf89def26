"""Any mix of watches, writes, slow readers and compactions: each watch hears its slice of the history, once, in order.

The model is the list of all changes ever made, which forgets nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.watching import watches
from quorate.services.etcd.watching.groups import News
from quorate.services.etcd.watching.index import NO_END, SINGLE
from tests.services.etcd.test_watching_index import contains
from tests.services.etcd.watch_bench import Bench, Client, compact, delete, put, puts_in_one_txn
from tests.services.etcd.watch_bench import bench as open_bench

KEYS = st.sampled_from([b"a", b"b", b"ba", b"c"])
RANGES = st.sampled_from(
    [(b"a", SINGLE), (b"ba", SINGLE), (b"b", b"c"), (b"a", b"bb"), (b"b", NO_END), (b"\0", NO_END), (b"c", b"d")]
)
WRITES = st.one_of(
    st.builds(lambda key, size: put(key, b"v" * size), KEYS, st.sampled_from([0, 10, 60])),
    st.builds(delete, KEYS),
    st.just(delete(b"b", b"c")),
    st.lists(KEYS, min_size=2, max_size=3, unique=True).map(lambda keys: puts_in_one_txn(*((k, b"t") for k in keys))),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(WRITES, min_size=1, max_size=4)),
        st.tuples(
            st.just("watch"), st.tuples(st.integers(0, 2), RANGES, st.integers(-3, 3) | st.none(), st.booleans())
        ),
        st.tuples(st.just("cancel"), st.tuples(st.integers(0, 2), st.integers(0, 2))),
        st.tuples(st.just("compact"), st.integers(0, 4)),
        st.tuples(st.just("write and compact"), st.tuples(st.lists(WRITES, min_size=1, max_size=3), st.integers(0, 2))),
        st.tuples(st.just("stop reading"), st.integers(0, 2)),
        st.tuples(st.just("read"), st.integers(0, 2)),
        st.tuples(st.just("progress"), st.integers(0, 2)),
        st.tuples(st.just("turns"), st.integers(1, 3)),
        st.tuples(st.just("sweep"), st.none()),
        st.tuples(st.just("snapshot"), st.none()),
        st.tuples(st.just("close"), st.integers(0, 2)),
    ),
    min_size=5,
    max_size=40,
)

Event = tuple[int, bytes, bool]
"""(revision, key, whether it is a deletion)"""


@dataclass
class Followed:
    """What the client of one watch knows."""

    bounds: tuple[bytes, bytes]
    start: int
    deletes: bool
    heard: list[Event] = field(default_factory=list)
    created: bool = False
    compact_revision: int | None = None
    cancel_asked: bool = False
    ended: bool = False


class Run:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.twin = Bench()
        """Applies the same batches, for snapshots: another replica."""
        self.history: list[Event] = []
        self.clients = [bench.open() for _ in range(3)]
        self.followed: list[list[Followed]] = [[] for _ in self.clients]
        """By client; the index is the watch's id, for every id is drawn."""
        self.progress: list[list[int]] = [[] for _ in self.clients]

    def apply(self, *batch: bytes) -> None:
        before = self.bench.store.revision
        for each in (self.twin, self.bench):
            each.apply(*batch)
        # Read off the twin, which never compacts before this.
        self.history += self.changes_since(before + 1)

    def changes_since(self, revision: int) -> list[Event]:
        return [(v.mod_revision, v.key, not v.version) for v in self.twin.store.just_applied(revision)]

    def watch(self, number: int, bounds: tuple[bytes, bytes], offset: int | None, deletes: bool) -> None:
        present = self.bench.store.revision
        start = 0 if offset is None else max(1, present + 4 * offset)
        fields = {} if deletes else {"filters": [pb.WatchCreateRequest.NODELETE]}
        self.followed[number].append(Followed(bounds, start or present + 1, deletes))
        self.clients[number].create(bounds[0], range_end=bounds[1], start_revision=start, **fields)

    def take(self) -> None:
        """What the clients were sent so far."""
        for client, followed, progress in zip(self.clients, self.followed, self.progress, strict=True):
            for response in client.call.take(pb.WatchResponse):
                if response.watch_id == -1:
                    progress.append(response.header.revision)
                    self.check_progress(followed, response.header.revision)
                else:
                    self.hear(followed[response.watch_id], response)

    def hear(self, watch: Followed, response: pb.WatchResponse) -> None:
        assert not watch.ended
        if response.created:
            assert not watch.created
            watch.created = True
        elif response.canceled:
            watch.ended = True
            watch.compact_revision = response.compact_revision or None
            assert watch.compact_revision is not None or watch.cancel_asked
        else:
            assert watch.created
            assert response.events
            assert response.header.revision >= response.events[-1].kv.mod_revision
            watch.heard += [(e.kv.mod_revision, e.kv.key, e.type == pb.Event.DELETE) for e in response.events]
            for event in response.events:
                assert event.type == pb.Event.DELETE or event.kv.value in (b"", b"t", b"v" * 10, b"v" * 60)

    def wanted(self, watch: Followed) -> list[Event]:
        return [
            event
            for event in self.history
            if event[0] >= watch.start and contains(watch.bounds, event[1]) and (watch.deletes or not event[2])
        ]

    def check_progress(self, followed: list[Followed], revision: int) -> None:
        for watch in followed:
            if watch.created and not watch.ended:
                heard = {event for event in watch.heard if event[0] <= revision}
                missing = [e for e in self.wanted(watch) if e[0] <= revision and e not in heard]
                assert not missing or self.may_miss(watch, missing)

    def may_miss(self, watch: Followed, missing: list[Event]) -> bool:
        """Who starts at the compacted revision misses its deletions, as in etcd."""
        compacted_revision = self.bench.store.compacted_revision
        return all(event[0] == watch.start <= compacted_revision and event[2] for event in missing)

    def check_end(self) -> None:
        self.take()
        for client, followed in zip(self.clients, self.followed, strict=True):
            for watch in followed:
                wanted = self.wanted(watch)
                if wanted[: len(watch.heard)] != watch.heard:
                    wanted = [e for e in wanted if not self.may_miss(watch, [e])]
                assert wanted[: len(watch.heard)] == watch.heard
                if client.stream in self.open_streams() and not watch.ended:
                    missing = wanted[len(watch.heard) :]
                    assert not missing or self.may_miss(watch, missing), "a watch was not told of all"
                if watch.compact_revision is not None:
                    assert watch.start <= watch.compact_revision

    def open_streams(self) -> list[object]:
        return [client.stream for client in self.clients]

    def replace_client(self, number: int) -> None:
        """Its call ends, and another begins: what was not heard of the old one never will be."""
        self.take()
        self.clients[number].stream.closed()
        for watch in self.followed[number]:
            wanted = self.wanted(watch)
            if wanted[: len(watch.heard)] != watch.heard:
                wanted = [e for e in wanted if not self.may_miss(watch, [e])]
            assert wanted[: len(watch.heard)] == watch.heard
        self.clients[number] = self.bench.open()
        self.followed[number] = []

    def step(self, what: str, value: Any) -> None:
        bench = self.bench
        if what == "write":
            self.apply(*value)
        elif what == "watch":
            self.watch(*value)
        elif what == "cancel":
            number, watch_id = value
            if watch_id < len(self.followed[number]):
                self.followed[number][watch_id].cancel_asked = True
            self.clients[number].cancel(watch_id)
        elif what == "compact":
            self.apply(compact(max(1, bench.store.revision - value)))
        elif what == "write and compact":
            writes, back = value
            self.apply(*writes, compact(max(1, bench.store.revision + len(writes) - back)))
        elif what == "sweep":
            bench.store.sweep(1_000)
        elif what == "snapshot":
            bench.replace_by(self.twin)
        elif what == "turns":
            bench.turns(value)
        else:
            self.client_step(what, value)
        self.take()

    def client_step(self, what: str, number: int) -> None:
        client: Client = self.clients[number]
        if what == "stop reading":
            client.call.reads = False
        elif what == "read":
            client.call.reads = True
            client.read()
        elif what == "progress":
            client.ask_for_progress()
        else:
            assert what == "close"
            self.replace_client(number)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_each_watch_hears_its_slice_of_the_history_once_and_in_order(steps: list[tuple[str, Any]]) -> None:
    with open_bench(watch_step=2) as bench, pytest.MonkeyPatch.context() as small:
        # So small that steps of catching up, and pauses of readers, come about with few writes.
        small.setattr(watches, "LOW_WATER_BYTES", 50)
        small.setattr(watches, "TURN_BYTES", 100)
        small.setattr(News, "is_enough", lambda news: news.steps >= 3)
        run = Run(bench)
        run.watch(0, (b"b", b"c"), None, deletes=True)
        run.watch(0, (b"\0", NO_END), None, deletes=True)
        run.watch(1, (b"ba", SINGLE), 1, deletes=True)
        try:
            for what, value in steps:
                run.step(what, value)
            for client in run.clients:
                client.call.reads = True
                client.read()
            bench.turns(500)
            run.check_end()
        finally:
            run.twin.close()
