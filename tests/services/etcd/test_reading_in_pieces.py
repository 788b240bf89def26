"""Large ranges in pieces: the same answer as of one read, whatever is changed while they are read."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.reading_in_pieces import AT_ONCE_KEYS, PIECE_BYTES, RangeInPieces, read
from quorate.services.etcd.store import Store
from tests.services.etcd.store_helpers import apply, put, response_of, sweep

ALL = {"key": b"k", "range_end": b"l"}


def filled(keys: int = 500, value: bytes = b"v") -> Store:
    store = Store()
    for number in range(keys):
        put(store, b"k%04d" % number, value + b"%d" % number)
    return store


def begin(store: Store, **options: Any) -> RangeInPieces:
    range_ = read(store, pb.RangeRequest(**{**ALL, **options}))
    assert isinstance(range_, RangeInPieces)
    return range_


def finish(range_: RangeInPieces, max_keys: int = 100) -> Any:
    while range_.result is None:
        assert 1 <= range_.step(max_keys) <= max_keys
    return response_of(range_.result, pb.RangeResponse)


def whole(store: Store, **options: Any) -> Any:
    return response_of(store.range(pb.RangeRequest(**{**ALL, **options})), pb.RangeResponse)


def disturb(store: Store, chance: random.Random) -> None:
    """Change, delete and add keys everywhere."""
    for _ in range(20):
        key = b"k%04d" % chance.randrange(700)
        put(store, key, b"changed") if chance.random() < 0.6 else apply(store, pb.DeleteRangeRequest(key=key))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"keys_only": True},
        {"limit": 300},
        {"limit": 500},
        {"limit": 501},
        {"range_end": b"\0"},
        {"key": b"k0100", "range_end": b"k0399"},
        {"sort_order": pb.RangeRequest.ASCEND},
        {"sort_order": pb.RangeRequest.DESCEND},
        {"sort_order": pb.RangeRequest.DESCEND, "limit": 200},
    ],
    ids=str,
)
def test_it_is_of_the_revision_at_which_it_began(options: dict[str, Any]) -> None:
    store, chance = filled(), random.Random(1)
    disturb(store, chance)
    expected = whole(store, **options)
    range_ = begin(store, **options)
    while range_.result is None:
        range_.step(37)
        disturb(store, chance)
    assert response_of(range_.result, pb.RangeResponse) == expected
    assert expected != whole(store, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"limit": AT_ONCE_KEYS},
        {"count_only": True},
        {"range_end": b""},
        {"revision": 400},
        {"min_mod_revision": 3},
        {"max_create_revision": 300},
        {"sort_target": pb.RangeRequest.MOD},
        {"range_end": b"k%04d" % AT_ONCE_KEYS},
    ],
    ids=str,
)
def test_what_is_read_at_once(options: dict[str, Any]) -> None:
    store = filled()
    request = pb.RangeRequest(**{**ALL, **options})
    assert read(store, request) == store.range(request)


def test_it_begins_with_its_first_piece() -> None:
    """Behind others it may wait for long, and costs little until then."""
    store = filled()
    range_ = begin(store)
    put(store, b"k0000", b"later")
    assert finish(range_) == whole(store)


def test_large_values_make_small_pieces() -> None:
    store = filled(200, bytes(PIECE_BYTES // 10))
    range_ = begin(store)
    assert range_.step(200) == 10
    assert finish(range_) == whole(store)


def test_a_compaction_that_does_not_go_past_it_is_not_seen() -> None:
    store, chance = filled(), random.Random(1)
    expected = whole(store)
    range_ = begin(store)
    range_.step(100)
    disturb(store, chance)
    apply(store, pb.CompactionRequest(revision=expected.header.revision))
    sweep(store)
    assert finish(range_) == expected


def test_a_compaction_that_goes_past_it_makes_it_begin_anew() -> None:
    store, chance = filled(), random.Random(1)
    range_ = begin(store)
    range_.step(100)
    disturb(store, chance)
    apply(store, pb.CompactionRequest(revision=store.revision))
    sweep(store)
    range_.step(100)
    expected = whole(store)
    range_.step(100)
    disturb(store, chance)
    assert finish(range_) == expected


def test_the_second_such_compaction_ends_it() -> None:
    store, chance = filled(), random.Random(1)
    range_ = begin(store)
    for _ in range(2):
        range_.step(100)
        disturb(store, chance)
        apply(store, pb.CompactionRequest(revision=store.revision))
        range_.step(100)
    assert finish(range_) == EtcdError.COMPACTED


def test_all_its_keys_are_deleted_after_its_first_piece() -> None:
    store = filled()
    expected = whole(store)
    range_ = begin(store)
    range_.step(100)
    apply(store, pb.DeleteRangeRequest(key=b"k", range_end=b"l"))
    assert finish(range_) == expected
