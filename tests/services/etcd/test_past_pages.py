"""Pages of the past: what a client gets that lists a range at one revision while others write."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd import sorted_keys
from quorate.services.etcd import store as store_module
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.store import Store
from tests.services.etcd.store_helpers import apply, put, read, response_of, sweep

DESCEND = pb.RangeRequest.DESCEND


def delete(store: Store, key: bytes, range_end: bytes = b"") -> None:
    assert apply(store, pb.DeleteRangeRequest(key=key, range_end=range_end)).deleted


@pytest.mark.parametrize("seed", range(6))
def test_every_page_of_every_revision_is_what_was_there_then(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Keys come, go, come again, come and go, after few changes and after many; some of the history is swept."""
    monkeypatch.setattr(sorted_keys, "_MAX_CHUNK", 8)
    monkeypatch.setattr(sorted_keys, "_SMALL_CHUNK", 2)
    randomness = random.Random(seed)
    store = Store()
    present: dict[bytes, bytes] = {}
    states: dict[int, dict[bytes, bytes]] = {}
    for step in range(150):
        key = b"k%02d" % randomness.randrange(40)
        if key in present and randomness.random() < 0.4:
            doomed = [other for other in present if key <= other < key + b"\xff" or other == key]
            delete(store, key, key + b"\xff")
            for other in doomed:
                del present[other]
        else:
            present[key] = b"%d" % step
            put(store, key, present[key])
        states[store.revision] = dict(present)
    apply(store, pb.CompactionRequest(revision=60))
    sweep(store)
    for revision, state in states.items():
        if revision < 60:
            continue
        for _ in range(10):
            start, end = randomness.choice([(b"\0", b"\0"), (b"k1", b"k3"), (b"k05", b"\0"), (b"k3", b"k2")])
            limit, order = randomness.choice([0, 1, 3, 10, 39, 100]), randomness.choice([0, DESCEND])
            inside = [item for item in sorted(state.items()) if start <= item[0] and (end == b"\0" or item[0] < end)]
            if order == DESCEND:
                inside.reverse()
            found = read(store, start, end, revision=revision, limit=limit, sort_order=order)
            assert [(kv.key, kv.value) for kv in found.kvs] == inside[: limit or None]
            assert (found.count, found.more) == (len(inside), 0 < limit < len(inside))
            assert read(store, start, end, revision=revision, count_only=True).count == len(inside)


@pytest.mark.parametrize("order", [0, DESCEND])
def test_a_page_of_a_moment_ago_looks_at_no_more_than_itself(monkeypatch: pytest.MonkeyPatch, order: Any) -> None:
    """A list of many pages would otherwise look at its whole range for each."""
    monkeypatch.setattr(store_module, "ANSWER_ROOM_BYTES", 10_000)  # what is looked at is charged, too
    store = Store()
    for number in range(1000):
        put(store, b"k%04d" % number)
    pinned = store.revision
    delete(store, b"k0003")
    put(store, b"k0003x")
    page = pb.RangeRequest(key=b"k", range_end=b"l", revision=pinned, limit=10, sort_order=order)
    read_page = pb.TxnRequest(success=[pb.RequestOp(request_range=page)])
    answer = response_of(store.txn(read_page), pb.TxnResponse)
    assert answer is not EtcdError.ANSWER_TOO_LARGE
    found = answer.responses[0].response_range
    numbers = range(999, 989, -1) if order == DESCEND else range(10)
    assert [kv.key for kv in found.kvs] == [b"k%04d" % number for number in numbers]
    assert found.count == 1000 and found.more
