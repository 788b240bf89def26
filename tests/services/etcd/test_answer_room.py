"""Answers that are too large to give: what was asked for is done, and no more is built than there is room for."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd import store as store_module
from quorate.services.etcd.answer_room import ANSWER_ROOM_BYTES
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.store import Store
from tests.services.etcd.store_helpers import RESPONSES, apply, command_of, keys_and_values, put, response_of

EVERYTHING = pb.RangeRequest(key=b"\0", range_end=b"\0")
ALL_OF_IT = pb.RequestOp(request_range=EVERYTHING)


def operation(request: Any) -> pb.RequestOp:
    match request:
        case pb.PutRequest():
            return pb.RequestOp(request_put=request)
        case pb.DeleteRangeRequest():
            return pb.RequestOp(request_delete_range=request)
        case pb.TxnRequest():
            return pb.RequestOp(request_txn=request)
    return pb.RequestOp(request_range=request)


def txn(*requests: Any) -> pb.TxnRequest:
    return pb.TxnRequest(success=map(operation, requests))


def apply_together(store: Store, *requests: Any) -> list[Any]:
    commands = [command_of(request) for request in requests]
    results = store.apply(commands, 1)
    return [response_of(result, RESPONSES[command[:1]]) for command, result in zip(commands, results, strict=True)]


def full_store(values: int = 20, value_bytes: int = 1000) -> Store:
    store = Store()
    for number in range(values):
        put(store, b"k%04d" % number, bytes(value_bytes))
    return store


@pytest.fixture
def small_room(monkeypatch: pytest.MonkeyPatch) -> int:
    """Enough for `full_store` once, not twice."""
    monkeypatch.setattr(store_module, "ANSWER_ROOM_BYTES", 30_000)
    return 30_000


def test_a_transaction_that_asks_for_the_store_a_thousand_times_takes_no_more_than_the_room() -> None:
    store = full_store(2000)
    bomb = txn(pb.PutRequest(key=b"z"), *[pb.TxnRequest(success=[ALL_OF_IT] * 64)] * 8)
    before = store.revision
    tracemalloc.start()
    try:
        assert apply(store, bomb) is EtcdError.ANSWER_TOO_LARGE
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < ANSWER_ROOM_BYTES * 1.1
    assert store.revision == before + 1 and keys_and_values(store, b"z") == [(b"z", b"")]


@pytest.mark.parametrize("where", ["before", "within", "behind"])
@pytest.mark.usefixtures("small_room")
def test_what_has_no_answer_is_done_as_a_whole(where: str) -> None:
    """What comes after the part that was too large is done too, nested or not, in the same revision."""
    too_much = [EVERYTHING, EVERYTHING]
    changes = [
        pb.PutRequest(key=b"a", value=b"1", prev_kv=True),
        pb.DeleteRangeRequest(key=b"k0001", range_end=b"k0005", prev_kv=True),
        txn(pb.PutRequest(key=b"b"), pb.DeleteRangeRequest(key=b"k0007")),
    ]
    parts = {
        "before": [*too_much, *changes],
        "within": [changes[0], txn(*too_much, changes[1]), changes[2]],
        "behind": [*changes, *too_much],
    }[where]
    store = full_store()
    put(store, b"a")
    before = store.revision
    assert apply(store, txn(*parts)) is EtcdError.ANSWER_TOO_LARGE
    assert store.revision == before + 1
    expected = {b"a", b"b"} | {b"k%04d" % number for number in range(20)} - {b"k%04d" % n for n in (1, 2, 3, 4, 7)}
    assert {key for key, _ in keys_and_values(store, b"\0", b"\0")} == expected
    # As where there is room.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "ANSWER_ROOM_BYTES", ANSWER_ROOM_BYTES)
        other = full_store()
        put(other, b"a")
        assert isinstance(apply(other, txn(*parts)), pb.TxnResponse)
    assert other.digest() == store.digest()


@pytest.mark.usefixtures("small_room")
@pytest.mark.parametrize(
    "request_",
    [
        pb.DeleteRangeRequest(key=b"\0", range_end=b"\0", prev_kv=True),
        txn(pb.DeleteRangeRequest(key=b"\0", range_end=b"\0", prev_kv=True)),
        pb.PutRequest(key=b"k0000", prev_kv=True),
        txn(pb.PutRequest(key=b"k0000", prev_kv=True)),
    ],
)
def test_what_was_there_before_counts(request_: Any) -> None:
    store = full_store(1, 40_000)
    assert apply(store, request_) is EtcdError.ANSWER_TOO_LARGE
    assert keys_and_values(store, b"k0000") in ([], [(b"k0000", b"")])


@pytest.mark.usefixtures("small_room")
def test_the_answers_of_a_batch_share_the_room() -> None:
    write_and_read = txn(pb.PutRequest(key=b"a"), EVERYTHING)
    store = full_store()
    first, second, count, last = apply_together(
        store, write_and_read, write_and_read, pb.DeleteRangeRequest(key=b"a"), pb.PutRequest(key=b"b")
    )
    assert len(first.responses[1].response_range.kvs) == 21
    assert second is EtcdError.ANSWER_TOO_LARGE
    # What needs no room is answered whatever else is in the batch; the next batch has a room of its own.
    assert count.deleted == 1 and last.header.revision == store.revision
    assert len(apply(store, write_and_read).responses[1].response_range.kvs) == 22


@pytest.mark.usefixtures("small_room")
def test_what_comes_behind_an_answer_that_was_thrown_away_has_room() -> None:
    bomb = txn(pb.PutRequest(key=b"a"), EVERYTHING, EVERYTHING)
    ordinary = txn(pb.PutRequest(key=b"b"), pb.RangeRequest(key=b"k0001"))
    refused, refused_too, answered = apply_together(full_store(), bomb, bomb, ordinary)
    assert refused is refused_too is EtcdError.ANSWER_TOO_LARGE
    assert len(answered.responses[1].response_range.kvs) == 1


@pytest.mark.usefixtures("small_room")
@pytest.mark.parametrize("options", [{"count_only": True, "revision": 2}, {"min_mod_revision": 1 << 40}])
def test_looking_at_much_counts_though_little_is_found(options: dict[str, Any]) -> None:
    """Else a transaction could look through the store a thousand times for an answer of nothing."""
    store = full_store(1000, 0)
    put(store, b"z")
    look = pb.RangeRequest(key=b"\0", range_end=b"\0", **options)
    assert isinstance(apply(store, txn(pb.PutRequest(key=b"a"))), pb.TxnResponse)
    assert apply(store, txn(pb.PutRequest(key=b"a"), look)) is EtcdError.ANSWER_TOO_LARGE


@pytest.mark.usefixtures("small_room")
def test_a_transaction_that_only_reads_has_room_of_its_own() -> None:
    store = full_store()
    for _ in range(2):
        answer = response_of(store.txn(txn(EVERYTHING)), pb.TxnResponse)
        assert len(answer.responses[0].response_range.kvs) == 20
    assert store.txn(txn(EVERYTHING, EVERYTHING)).error is EtcdError.ANSWER_TOO_LARGE
