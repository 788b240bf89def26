"""Watches that are behind: who starts in the past, who does not read, and whom a compaction or a snapshot meets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.watching.groups import Watch
from tests.services.etcd.watch_bench import Bench, Client, compact, creation, delete, events_of, put
from tests.services.etcd.watch_bench import bench as open_bench

TURN_BYTES = 256 << 10
LOW_WATER_BYTES = 64 << 10


@pytest.fixture
def bench() -> Iterator[Bench]:
    with open_bench() as it:
        yield it


def fill(bench: Bench, count: int, key: bytes = b"a") -> None:
    for first in range(0, count, 1_000):
        bench.apply(*(put(key, b"%d" % number) for number in range(first, min(first + 1_000, count))))


def deaf(bench: Bench, key: bytes = b"a", count: int = 1) -> Client:
    """A client that watches and does not read."""
    client = bench.open()
    for _ in range(count):
        client.create(key)
    client.responses()
    client.call.reads = False
    return client


def test_who_does_not_read_costs_a_bounded_buffer_and_gets_all_in_order_when_it_reads(bench: Bench) -> None:
    client, other = deaf(bench), bench.open()
    other.create(b"a")
    other.responses()
    for number in range(200):
        bench.apply(put(b"a", b"%06d" % number + bytes(10_000)))
        bench.turns(2)
    assert client.call.most_unsent < LOW_WATER_BYTES + 11_000
    assert len(other.events()) == 200
    seen = client.events()
    while client.call.unsent:
        client.read()
        assert client.call.unsent <= TURN_BYTES + 11_000
        seen += client.events()
    assert [revision for revision, _, _ in seen] == list(range(2, 202))


def test_many_watches_of_a_call_that_is_not_read_are_bounded_together(bench: Bench) -> None:
    client = deaf(bench, count=200)
    for number in range(10):
        bench.apply(put(b"a", b"%03d" % number + bytes(10_000)))
        bench.turns(2)
    assert client.call.most_unsent < TURN_BYTES + LOW_WATER_BYTES
    seen: dict[int, list[int]] = {watch_id: [] for watch_id in range(200)}
    reads = 0
    while True:
        for response in client.responses(turns=5):
            seen[response.watch_id] += (revision for revision, _, _ in events_of(response))
        if not client.call.unsent:
            break
        client.read()
        reads += 1
    assert all(revisions == list(range(2, 12)) for revisions in seen.values())
    assert reads > 30


class CountedField(bytes):
    """The end of each response to a watch; counts how often a response was made."""

    made = 0

    def __radd__(self, response: bytes) -> bytes:
        CountedField.made += 1
        return response + bytes(self)


def test_no_response_is_made_that_cannot_be_sent(bench: Bench) -> None:
    """20,000 watches of one call, and an event of 300 KB: it was copied for each of them in every turn, 0.15 s."""
    client = deaf(bench, count=200)
    for watch in client.stream.watches.values():
        watch.id_field = CountedField(watch.id_field)  # type: ignore[misc]
    CountedField.made = 0
    bench.apply(put(b"a", bytes(100_000)))
    reads = 0
    while client.call.unsent:
        client.read()
        bench.turns(5)
        reads += 1
    assert reads > 30
    assert len(client.responses()) == CountedField.made == 200


class CountedWaiting(dict[Watch, int]):
    """The watches of a call that wait for its client; counts how many go on."""

    gone_on = 0

    def pop(self, watch: Watch, *otherwise: Any) -> Any:
        self.gone_on += 1
        return super().pop(watch, *otherwise)


def test_of_many_watches_that_wait_only_a_step_goes_on_at_a_time() -> None:
    with open_bench(watch_step=10) as bench:
        client = deaf(bench, count=100)
        bench.apply(put(b"a", bytes(300_000)))
        waiting = client.stream.waiting = CountedWaiting(client.stream.waiting)
        assert len(waiting) == 99
        client.read()
        bench.turns(20)
        assert waiting.gone_on == 10, "one was told, and its client has to read that first"
        assert len(waiting) == 98
        client.call.reads = True
        client.read()
        told = client.responses()
        assert sorted(response.watch_id for response in told) == list(range(100))
        bench.apply(put(b"a", b"x"))
        assert sorted(response.watch_id for response in client.responses()) == list(range(100))


def test_a_call_that_ends_while_its_watches_go_on_harms_no_other() -> None:
    with open_bench(watch_step=10) as bench:
        client = deaf(bench, count=100)
        other = bench.open()
        other.create(b"a")
        bench.apply(put(b"a", bytes(300_000)))
        client.call.reads = True

        def read_and_close() -> None:
            client.call.read_all()
            client.stream.closed()

        bench.do(read_and_close)
        assert len(other.events()) == 1
        assert bench.watching.count() == 1


@pytest.mark.parametrize("calls", [1, 100])
def test_a_hundred_watches_of_everything_are_told_of_no_more_than_a_step_in_a_turn(bench: Bench, calls: int) -> None:
    fill(bench, 5_000)
    clients = [bench.open() for _ in range(calls)]

    def create() -> None:
        request = creation(b"\0", range_end=b"\0", start_revision=2).SerializeToString()
        for number in range(100):
            clients[number % calls].stream.message(request)

    bench.do(create)
    # 2,000 steps: a version is one, and one for each watch.  The last revision is told whole, the next one looked at.
    assert max(bench.turns(300)) <= 2_000 // 101 + 2
    told = [pb.WatchResponse.FromString(message) for client in clients for message in client.call.sent]
    assert sum(len(response.events) for response in told) == 100 * 5_000


def test_who_reads_again_is_up_to_date_again(bench: Bench) -> None:
    client = deaf(bench)
    bench.apply(put(b"a", bytes(100_000)))
    bench.apply(put(b"a", b"1"))
    client.call.reads = True
    client.read()
    assert [revision for revision, _, _ in client.events()] == [2, 3]
    bench.apply(put(b"a", b"2"))
    assert [events_of(response) for response in client.responses(turns=0)] == [[(4, b"a", b"2")]]


def test_a_watch_that_a_compaction_overtakes_is_canceled_and_its_id_is_free(bench: Bench) -> None:
    client = deaf(bench)
    bench.apply(put(b"a", bytes(100_000)))
    bench.apply(put(b"a", b"1"))
    bench.apply(put(b"a", b"2"), compact(4))
    client.call.reads = True
    client.read()
    told, canceled = client.responses()
    assert [event[0] for event in events_of(told)] == [2]
    assert (canceled.canceled, canceled.watch_id, canceled.compact_revision) == (True, 0, 4)
    assert bench.watching.count() == 0
    client.create(b"a", watch_id=7)
    assert [response.canceled for response in client.responses()] == [False]


def test_a_watch_that_has_yet_to_be_told_of_the_compacted_revision_is_canceled(bench: Bench) -> None:
    """A deletion at that very revision is forgotten with it."""
    client = deaf(bench)
    bench.apply(put(b"a", bytes(100_000)))
    bench.apply(delete(b"a"))
    bench.apply(compact(3))
    client.call.reads = True
    client.read()
    assert client.responses()[-1].compact_revision == 3


def test_a_watch_on_its_way_that_has_yet_to_be_told_of_the_compacted_revision_is_canceled(bench: Bench) -> None:
    bench.apply(put(b"a", b"1"), delete(b"a"), put(b"a", b"2"))
    client = bench.open()

    def create_and_compact() -> None:
        client.stream.message(creation(b"a", start_revision=3).SerializeToString())
        bench.store.apply([compact(3)], 0)
        bench.watching.advance()

    bench.do(create_and_compact)
    assert [(response.created, response.compact_revision) for response in client.responses()] == [(True, 0), (False, 3)]


def test_a_watch_that_waits_for_later_changes_survives_a_compaction(bench: Bench) -> None:
    client = deaf(bench)
    bench.apply(put(b"a", bytes(100_000)))
    bench.apply(put(b"a", b"1"))
    bench.apply(compact(2))
    client.call.reads = True
    client.read()
    assert [revision for revision, _, _ in client.events()] == [2, 3]


def test_a_compaction_in_the_middle_of_a_long_way_cancels(bench: Bench) -> None:
    fill(bench, 20_000)
    client = bench.open()
    client.create(b"b", start_revision=2)
    client.create(b"b", start_revision=15_000)
    client.responses(turns=1)
    bench.apply(compact(14_000))
    (canceled,) = client.responses()
    assert (canceled.watch_id, canceled.compact_revision) == (0, 14_000)


def test_two_hundred_watches_all_over_the_history_read_it_a_few_times_together(bench: Bench) -> None:
    fill(bench, 10_000)
    clients = [bench.open() for _ in range(200)]

    def create() -> None:
        for number, client in enumerate(clients):
            request = creation(b"b" if number else b"a", start_revision=2 + 50 * number)
            client.stream.message(request.SerializeToString())

    bench.do(create)
    bench.turns(2_000)
    assert 10_000 <= bench.store.versions_read < 4 * 10_000
    bench.apply(put(b"b", b"x"))
    assert all(client.responses(turns=0)[-1].events for client in clients[1:])
    assert len(clients[0].events()) == 10_000


def test_a_turn_reads_a_bounded_part_of_the_history(bench: Bench) -> None:
    fill(bench, 10_000)
    client = bench.open()
    client.create(b"b", start_revision=2)
    assert max(bench.turns(20)) <= 2_001
    assert bench.store.versions_read >= 10_000


def test_a_short_way_does_not_wait_for_a_long_one(bench: Bench) -> None:
    fill(bench, 40_000)
    far, near = bench.open(), bench.open()
    far.create(b"b", start_revision=2)
    near.create(b"a", start_revision=40_000)
    assert [len(response.events) for response in near.responses(turns=3)] == [0, 2]
    assert bench.store.versions_read < 20_000


def test_what_ends_a_call_while_events_are_sent_harms_no_other(bench: Bench) -> None:
    clients = [bench.open() for _ in range(3)]
    for client in clients:
        client.create(b"a")
        client.create(b"a")
    first = clients[0].call
    send = first.send

    def send_and_break(message: bytes) -> None:
        send(message)
        clients[0].stream.closed()
        clients[1].stream.closed()

    first.send = send_and_break  # type: ignore[method-assign]
    bench.apply(put(b"a", b"1"))
    assert len(clients[1].responses()) == 2
    assert [len(response.events) for response in clients[2].responses()] == [0, 0, 1, 1]
    assert bench.watching.count() == 2


# --- snapshots ---------------------------------------------------------------------------------


def test_after_a_snapshot_watches_are_told_of_what_it_brought(bench: Bench) -> None:
    with open_bench() as other:
        for each in (bench, other):
            each.apply(put(b"a", b"1"))
        client = bench.open()
        client.create(b"a")
        client.create(b"a", start_revision=5)
        client.create(b"b")
        client.responses()
        other.apply(put(b"a", b"2"), put(b"b", b"1"), put(b"a", b"3"))
        bench.replace_by(other)
        assert {response.watch_id: events_of(response) for response in client.responses()} == {
            0: [(3, b"a", b"2"), (5, b"a", b"3")],
            1: [(5, b"a", b"3")],
            2: [(4, b"b", b"1")],
        }
        bench.apply(put(b"a", b"4"))
        assert sorted(response.watch_id for response in client.responses(turns=0)) == [0, 1]


def test_after_a_snapshot_that_was_compacted_watches_that_missed_something_are_canceled(bench: Bench) -> None:
    with open_bench() as other:
        client = bench.open()
        client.create(b"a")
        client.create(b"a", start_revision=6)
        client.responses()
        other.apply(*(put(b"a", b"%d" % number) for number in range(4)), compact(4))
        bench.replace_by(other)
        (canceled,) = client.responses()
        assert (canceled.watch_id, canceled.compact_revision) == (0, 4)
        bench.apply(put(b"a", b"x"))
        assert [(response.watch_id, events_of(response)) for response in client.responses()] == [(1, [(6, b"a", b"x")])]


def test_a_snapshot_of_what_is_known_already_changes_nothing(bench: Bench) -> None:
    with open_bench() as other:
        for each in (bench, other):
            each.apply(put(b"a", b"1"), put(b"a", b"2"), compact(2))
        client = bench.open()
        client.create(b"a")
        client.responses()
        bench.replace_by(other)
        client.ask_for_progress()
        assert [response.watch_id for response in client.responses(turns=0)] == [-1]
        bench.apply(put(b"a", b"3"))
        assert client.events() == [(4, b"a", b"3")]


def test_a_start_at_the_compacted_revision_is_not_taken_for_overtaken(bench: Bench) -> None:
    with open_bench() as other:
        for each in (bench, other):
            fill(each, 20_000)
            each.apply(compact(10_000))
        client = bench.open()
        client.create(b"b", start_revision=10_000)
        bench.replace_by(other)
        assert [response.created for response in client.responses()] == [True]
        assert bench.watching.count() == 1


def test_prev_kv_comes_also_when_catching_up(bench: Bench) -> None:
    bench.apply(put(b"a", b"1"))
    bench.apply(put(b"a", b"2"))
    client = bench.open()
    client.create(b"a", prev_kv=True, start_revision=2)
    events = [event for response in client.responses() for event in response.events]
    assert [event.prev_kv.value for event in events] == [b"", b"1"]
    assert events[1].prev_kv == pb.KeyValue(key=b"a", value=b"1", create_revision=2, mod_revision=2, version=1)
