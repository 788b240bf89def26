"""What a watch is told, when, and under which header: what etcd 3.4.23 was seen to do, and the differences we chose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quorate.net.grpc.status import Code
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.watching.groups import Watch
from tests.services.etcd.watch_bench import Bench, compact, delete, events_of, put, puts_in_one_txn
from tests.services.etcd.watch_bench import bench as open_bench

NOPUT = pb.WatchCreateRequest.NOPUT
NODELETE = pb.WatchCreateRequest.NODELETE


@pytest.fixture
def bench() -> Iterator[Bench]:
    with open_bench() as it:
        yield it


def test_a_watch_is_told_of_each_change_of_its_key_under_its_revision(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a")
    (created,) = client.responses()
    assert (created.created, created.canceled, created.watch_id, created.header.revision) == (True, False, 0, 1)
    bench.apply(put(b"a", b"1"))
    bench.apply(put(b"b", b"1"))
    bench.apply(delete(b"a"))
    first, second = client.responses()
    assert events_of(first) == [(2, b"a", b"1")]
    assert first.header.revision == 2
    assert events_of(second) == [(4, b"a", b"-")]
    assert second.header.revision == 4
    assert second.events[0].kv == pb.KeyValue(key=b"a", mod_revision=4)


def test_what_one_transaction_changed_comes_in_one_response_and_so_does_what_one_batch_did(bench: Bench) -> None:
    client = bench.open()
    client.create(b"\0", range_end=b"\0")
    client.responses()
    bench.apply(puts_in_one_txn((b"a", b"1"), (b"b", b"2")), put(b"c", b"3"))
    (response,) = client.responses()
    assert events_of(response) == [(2, b"a", b"1"), (2, b"b", b"2"), (3, b"c", b"3")]
    assert response.header.revision == 3


def test_watch_ids(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a")
    client.create(b"a", watch_id=1)
    client.create(b"a")
    client.create(b"a", watch_id=-5)
    assert [response.watch_id for response in client.responses()] == [0, 1, 2, -5]
    client.create(b"a", watch_id=1)
    (taken,) = client.responses()
    assert (taken.created, taken.canceled, taken.watch_id) == (True, True, -1)
    assert taken.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"
    client.cancel(0)
    client.cancel(99)
    (canceled,) = client.responses()
    assert (canceled.canceled, canceled.created, canceled.watch_id) == (True, False, 0)
    client.create(b"a")
    assert [response.watch_id for response in client.responses()] == [3]
    bench.apply(put(b"a"))
    assert sorted(response.watch_id for response in client.responses()) == [-5, 1, 2, 3]
    assert bench.watching.count() == 4


@pytest.mark.parametrize("end", [b"a", b"b"])
def test_an_empty_range_is_refused(bench: Bench, end: bytes) -> None:
    client = bench.open()
    client.create(b"b", range_end=end)
    (refused,) = client.responses()
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
    assert refused.cancel_reason == "mvcc: watcher range is empty"


@pytest.mark.parametrize(
    ("key", "end", "seen"),
    [
        (b"", b"", [b"\0"]),
        (b"", b"\0", [b"\0", b"a", b"ab", b"ac", b"b", b"\xff"]),
        (b"\0", b"\0", [b"\0", b"a", b"ab", b"ac", b"b", b"\xff"]),
        (b"ab", b"\0", [b"ab", b"ac", b"b", b"\xff"]),
        (b"a", b"b", [b"a", b"ab", b"ac"]),
        (b"ab", b"b", [b"ab", b"ac"]),
        (b"", b"ab", [b"\0", b"a"]),
    ],
)
def test_ranges(bench: Bench, key: bytes, end: bytes, seen: list[bytes]) -> None:
    client = bench.open()
    client.create(key, range_end=end)
    client.responses()
    bench.apply(*map(put, (b"\0", b"a", b"ab", b"ac", b"b", b"\xff")))
    assert [event[1] for event in client.events()] == seen


def test_filters(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a", filters=[NOPUT])
    client.create(b"a", filters=[NODELETE])
    client.create(b"a", filters=[NOPUT, NODELETE])
    client.responses()
    bench.apply(put(b"a", b"1"), delete(b"a"))
    responses = {response.watch_id: events_of(response) for response in client.responses()}
    assert responses == {0: [(3, b"a", b"-")], 1: [(2, b"a", b"1")]}


def test_the_previous_value_comes_with_events_for_those_who_asked_and_is_looked_up_once(bench: Bench) -> None:
    clients = [bench.open() for _ in range(5)]
    for client in clients:
        client.create(b"a", prev_kv=True)
    plain = bench.open()
    plain.create(b"a")
    bench.apply(put(b"a", b"1"))
    bench.apply(put(b"a", b"2"))
    bench.apply(delete(b"a"))
    for client in clients:
        events = [event for response in client.responses() for event in response.events]
        assert [event.HasField("prev_kv") for event in events] == [False, True, True]
        assert [(event.prev_kv.value, event.prev_kv.mod_revision) for event in events[1:]] == [(b"1", 2), (b"2", 3)]
    assert not any(event.HasField("prev_kv") for response in plain.responses() for event in response.events)
    assert bench.store.looked_before == 2


def test_a_previous_value_that_was_compacted_is_absent(bench: Bench) -> None:
    bench.apply(put(b"a", b"1"), put(b"a", b"2"), put(b"a", b"3"), compact(3))
    client = bench.open()
    client.create(b"a", prev_kv=True, start_revision=3)
    _, response = client.responses()
    assert [(event.kv.value, event.HasField("prev_kv")) for event in response.events] == [(b"2", False), (b"3", True)]


def test_a_start_in_the_past_gets_the_history_and_then_what_comes(bench: Bench) -> None:
    bench.apply(put(b"a", b"1"), put(b"b", b"1"), put(b"a", b"2"))
    client = bench.open()
    client.create(b"a", start_revision=2)
    created, history = client.responses()
    assert created.header.revision == 4
    assert events_of(history) == [(2, b"a", b"1"), (4, b"a", b"2")]
    assert history.header.revision == 4
    bench.apply(put(b"a", b"3"))
    assert client.events() == [(5, b"a", b"3")]


def test_a_start_in_the_future_waits(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a", start_revision=4)
    client.create(b"a", start_revision=4, fragment=True)
    client.responses()
    bench.apply(put(b"a", b"1"))
    assert client.responses() == []
    bench.apply(put(b"a", b"2"), put(b"a", b"3"), put(b"a", b"4"))
    assert [events_of(response) for response in client.responses()] == [[(4, b"a", b"3"), (5, b"a", b"4")]] * 2


def test_a_start_that_was_compacted_is_created_and_canceled_and_the_others_live_on(bench: Bench) -> None:
    bench.apply(put(b"a", b"1"), put(b"a", b"2"), put(b"a", b"3"), compact(3))
    client = bench.open()
    client.create(b"a")
    client.create(b"a", start_revision=2)
    client.create(b"a", start_revision=3)
    _, created, canceled, *_ = responses = client.responses()
    assert (created.watch_id, created.created, created.canceled) == (1, True, False)
    assert (canceled.watch_id, canceled.canceled, canceled.compact_revision) == (1, True, 3)
    assert canceled.header.revision == 0
    assert events_of(responses[-1]) == [(3, b"a", b"2"), (4, b"a", b"3")]
    bench.apply(put(b"a", b"4"))
    assert sorted(response.watch_id for response in client.responses()) == [0, 2]
    assert bench.watching.count() == 2


def test_a_negative_start_where_nothing_was_compacted(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a", start_revision=-3)
    _, canceled = client.responses()
    assert (canceled.canceled, canceled.compact_revision) == (True, -1)


def test_a_watch_is_told_of_what_its_batch_has_compacted_at_once(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a")
    client.responses()
    bench.apply(put(b"a", b"1"), put(b"a", b"2"), delete(b"a"), compact(4))
    assert client.events() == [(2, b"a", b"1"), (3, b"a", b"2"), (4, b"a", b"-")]


def test_half_closing_changes_nothing_and_closing_forgets_all(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a")
    client.create(b"a", start_revision=9)
    client.stream.half_closed()
    bench.apply(put(b"a", b"1"))
    assert client.events() == [(2, b"a", b"1")]
    client.stream.closed()
    assert bench.watching.count() == 0
    bench.apply(put(b"a", b"2"))
    assert client.events() == []


def test_what_is_no_request_ends_the_call_and_what_is_unknown_is_passed_over(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a")
    bench.do(lambda: client.stream.message(b""))
    assert client.call.failure is None
    bench.do(lambda: client.stream.message(b"\xff\xff\xff"))
    assert client.call.failure is not None
    assert client.call.failure[0] == Code.INTERNAL
    assert client.call.failure[1].startswith("grpc: failed to unmarshal the received message")
    assert bench.watching.count() == 0


# --- fragments ---------------------------------------------------------------------------------


def test_a_large_response_is_split_for_those_who_asked() -> None:
    with open_bench(max_request_bytes=1_000) as bench:
        limit = 1_000 + (512 << 10)
        bench.apply(*(put(b"%d" % number, bytes(1 << 18)) for number in range(4)), put(b"last"))
        client = bench.open()
        client.create(b"\0", range_end=b"\0", start_revision=2, fragment=True)
        bench.apply(puts_in_one_txn(*((b"%d" % number, bytes(1 << 18)) for number in range(4))))
        sizes = []
        fragments = []
        bench.turns(300)
        for message in client.call.sent[1:]:
            sizes.append(len(message))
            fragments.append(pb.WatchResponse.FromString(message))
        assert max(sizes) < limit
        seen = [event[:2] for fragment in fragments for event in events_of(fragment)]
        assert [key for _, key in seen] == [b"0", b"1", b"2", b"3", b"last", b"0", b"1", b"2", b"3"]
        last = [fragment for fragment in fragments if events_of(fragment)[-1][0] == 7]
        assert [fragment.fragment for fragment in last] == [True] * (len(last) - 1) + [False]
        assert len(last) >= 2


def test_a_large_response_is_not_split_for_others() -> None:
    with open_bench(max_request_bytes=1_000) as bench:
        client = bench.open()
        client.create(b"\0", range_end=b"\0")
        client.responses()
        bench.apply(puts_in_one_txn(*((b"%d" % number, bytes(1 << 18)) for number in range(4))))
        (response,) = client.responses()
        assert (len(response.events), response.fragment) == (4, False)


# --- progress ----------------------------------------------------------------------------------


def test_progress_is_answered_under_the_present_revision(bench: Bench) -> None:
    client = bench.open()
    client.ask_for_progress()
    client.create(b"a")
    bench.apply(put(b"b"))
    client.ask_for_progress()
    first, _, second = client.responses()
    assert [(r.watch_id, r.header.revision, len(r.events)) for r in (first, second)] == [(-1, 1, 0), (-1, 2, 0)]


def test_progress_is_answered_only_when_all_watches_of_the_stream_were_told_of_all(bench: Bench) -> None:
    for _ in range(5):
        bench.apply(*(put(b"a", b"x") for _ in range(1_000)))
    client = bench.open()
    client.create(b"b")
    client.create(b"a", start_revision=2)
    client.ask_for_progress()
    client.ask_for_progress()
    responses = client.responses()
    assert [response.watch_id for response in responses if not response.events] == [0, 1, -1]
    assert responses[-1].watch_id == -1
    assert responses[-1].header.revision == bench.store.revision
    assert sum(len(response.events) for response in responses) == 5_000


def test_progress_waits_for_a_client_that_does_not_read(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a")
    client.call.reads = False
    bench.apply(put(b"a", bytes(100_000)))
    bench.apply(put(b"a", bytes(100_000)))
    client.ask_for_progress()
    assert not any(response.watch_id == -1 for response in client.responses())
    client.call.reads = True
    client.read()
    told, progress = client.responses()
    assert len(told.events) == 1
    assert progress.watch_id == -1


def test_the_end_of_the_watch_that_lagged_lets_progress_be_answered(bench: Bench) -> None:
    bench.apply(*(put(b"a", b"x") for _ in range(20_000)))
    client = bench.open()
    client.create(b"b", start_revision=2)
    client.ask_for_progress()
    client.cancel(0)
    assert [(r.watch_id, r.created, r.canceled) for r in client.responses(turns=0)] == [
        (0, True, False),
        (0, False, True),
        (-1, False, False),
    ]


def test_requests_for_progress_of_one_turn_are_answered_once(bench: Bench) -> None:
    client = bench.open()
    client.create(b"a")
    client.responses()

    def ask() -> None:
        for _ in range(2_200):
            client.stream.message(pb.WatchRequest(progress_request=pb.WatchProgressRequest()).SerializeToString())

    bench.do(ask)
    assert [response.watch_id for response in client.responses()] == [-1]
    bench.do(ask)
    assert [response.watch_id for response in client.responses()] == [-1], "and so are those of the next"
    bench.do(ask)
    bench.do(client.stream.closed)
    client.call.sent.clear()
    assert client.responses() == []


class CountedWatches(dict[int, Watch]):
    """The watches of a stream; counts how many somebody looks at one after the other."""

    looked_at = 0

    def values(self) -> Any:
        for watch in super().values():
            self.looked_at += 1
            yield watch


def test_a_request_for_progress_looks_at_no_watch(bench: Bench) -> None:
    """A stream of 20,000 watches and 2,200 requests for progress stopped a node for 1.4 s."""
    bench.apply(*(put(b"a", b"x") for _ in range(20_000)))
    client = bench.open()
    watches = client.stream.watches = CountedWatches()
    for number in range(100):
        client.create(b"k%d" % number)
    client.create(b"b", start_revision=2)
    client.ask_for_progress()
    client.ask_for_progress()
    assert not any(response.watch_id == -1 for response in client.responses(turns=0))
    assert [response.watch_id for response in client.responses()] == [-1]
    client.ask_for_progress()
    assert [response.watch_id for response in client.responses()] == [-1]
    assert watches.looked_at == 0


def test_idle_watches_that_asked_are_told_of_progress_by_time() -> None:
    with open_bench(watch_progress_interval_ms=1_000) as bench:
        client = bench.open()
        client.create(b"a", progress_notify=True)
        client.create(b"b", progress_notify=True)
        client.create(b"b")
        client.responses()
        bench.apply(put(b"a"))
        client.responses()
        bench.do(lambda: bench.watching.tick(999))
        assert client.responses() == []
        bench.do(lambda: bench.watching.tick(1_000))
        (idle,) = client.responses()
        assert (idle.watch_id, idle.header.revision, len(idle.events)) == (1, 2, 0)
        bench.do(lambda: bench.watching.tick(1_950))
        assert client.responses() == []
        bench.do(lambda: bench.watching.tick(2_000))
        assert [response.watch_id for response in client.responses()] == [0, 1]
        client.stream.closed()
        bench.do(lambda: bench.watching.tick(9_000))
        assert client.responses() == []


def test_a_watch_that_is_behind_is_not_told_of_progress_by_time() -> None:
    with open_bench(watch_progress_interval_ms=1_000) as bench:
        bench.apply(*(put(b"a", b"x") for _ in range(20_000)))
        client = bench.open()
        client.create(b"b", start_revision=2, progress_notify=True)
        bench.do(lambda: bench.watching.tick(1_000))
        assert [response.created for response in client.responses(turns=0)] == [True]
        client.responses()
        bench.do(lambda: bench.watching.tick(2_000))
        assert [response.header.revision for response in client.responses()] == [20_001]
