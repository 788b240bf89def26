"""Snapshots of the store are exact, and a damaged one is refused; at random: test_store_properties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from quorate.services.etcd import commands
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.store import Store
from tests.services.etcd.store_helpers import apply, put, sweep

PACK = msgspec.msgpack.encode
UNPACK = msgspec.msgpack.decode


def filled() -> Store:
    """Revision 9, compacted at 4, one lease with one key."""
    store = Store()
    apply(store, commands.grant(7, 10))
    put(store, b"a", b"1")
    put(store, b"b", b"1", lease=7)
    put(store, b"a", b"2")
    apply(store, pb.DeleteRangeRequest(key=b"a"))
    put(store, b"a", b"3")
    put(store, b"a", b"4")
    apply(store, pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=key)) for key in (b"c", b"d")]))
    put(store, b"b", b"2", lease=7)
    apply(store, pb.CompactionRequest(revision=4))
    return store


def slices_of(store: Store, versions_per_slice: int = 2) -> list[bytes]:
    writer = store.snapshot()
    writer.versions_per_slice = versions_per_slice
    return list(writer)


def restored(slices: list[bytes]) -> Store:
    store = Store()
    loader = store.restore()
    for slice_ in slices:
        loader.feed(slice_)
    loader.finish()
    return store


@pytest.mark.parametrize("swept", [0, 1, 2, 3, 100])
def test_a_snapshot_holds_the_state_wherever_the_sweep_is(swept: int) -> None:
    store = filled()
    store.sweep(swept)
    copy = restored(slices_of(store))
    assert copy.digest() == store.digest()
    sweep(store)
    sweep(copy)
    assert copy.summary() == store.summary()


def test_an_empty_store_has_a_snapshot() -> None:
    assert restored(slices_of(Store())).digest() == Store().digest()


def test_a_snapshot_is_of_its_moment_whatever_comes_while_it_is_taken() -> None:
    store = filled()
    writer = store.snapshot()
    writer.versions_per_slice = 1
    digest = store.digest()
    slices = [next(writer), next(writer), next(writer)]
    put(store, b"a", b"late")
    apply(store, pb.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
    apply(store, pb.CompactionRequest(revision=store.revision))
    assert not store.sweep(100)
    slices += writer
    assert restored(slices).digest() == digest
    sweep(store)
    assert store.summary()["versions"] == 0


def test_a_snapshot_that_is_abandoned_lets_the_sweep_go_on() -> None:
    store = filled()
    writer = store.snapshot()
    next(writer)
    writer.close()
    assert not list(writer)
    sweep(store)
    # The writes at 3, 4 and 6 to 9; of those before, what was at revision 4 of both keys.
    assert store.summary()["versions"] == 8
    slices_of(store)


def test_a_restore_replaces_everything() -> None:
    store = filled()
    loader = store.restore()
    for slice_ in slices_of(Store()):
        loader.feed(slice_)
    loader.finish()
    assert store.digest() == Store().digest()
    assert put(store, b"a") == 2


def test_a_restored_store_goes_on_as_the_first_does() -> None:
    first = filled()
    second = restored(slices_of(first))
    for store in (first, second):
        put(store, b"a", b"5")
        apply(store, commands.revoke(7))
        apply(store, commands.grant(7, 10))
        apply(store, pb.CompactionRequest(revision=10))
    assert first.digest() == second.digest()


HEAD, LEASES, FIRST, *_ = range(10)


def edit(number: int, path: list[int], value: Any) -> Callable[[list[bytes]], None]:
    """Put another value at a place inside of a slice."""

    def change(slices: list[bytes]) -> None:
        whole = inner = UNPACK(slices[number])
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        slices[number] = PACK(whole)

    return change


DAMAGE: dict[str, Callable[[list[bytes]], object]] = {
    "no head": lambda slices: slices.pop(0),
    "two heads": lambda slices: slices.insert(0, slices[0]),
    "nothing": lambda slices: slices.clear(),
    "no leases": lambda slices: slices.pop(1),
    "a slice is missing": lambda slices: slices.pop(3),
    "the last slice is missing": lambda slices: slices.pop(),
    "two slices change places": lambda slices: slices.insert(2, slices.pop(3)),
    "a slice comes twice": lambda slices: slices.append(slices[-1]),
    "garbage": lambda slices: slices.append(b"\xc1"),
    "a slice of an unknown kind": lambda slices: slices.append(PACK([9, []])),
    "one byte less": lambda slices: slices.append(slices.pop()[:-1]),
    "one byte more": lambda slices: slices.append(slices.pop() + b"\0"),
    "another format": edit(HEAD, [1], 2),
    "another revision": edit(HEAD, [2], 10),
    "a lower revision": edit(HEAD, [2], 8),
    "compacted in the future": edit(HEAD, [3], 10),
    "compacted later than the history shows": edit(HEAD, [3], 5),
    "never compacted": edit(HEAD, [3], -1),
    "more bytes": edit(HEAD, [6], 1),
    "more leases": edit(HEAD, [7], 2),
    "more versions": edit(HEAD, [8], 10),
    "swept beyond the compaction": edit(HEAD, [9], 5),
    "swept more than there is": edit(HEAD, [10], 5),
    "a lease's generation that was not given": edit(LEASES, [1, 0, 2], 2),
    "a lease without time": edit(LEASES, [1, 0, 1], 0),
    "another lease": edit(LEASES, [1, 0, 0], 8),
    "a lease without id": edit(LEASES, [1, 0, 0], 0),
    "a version's key is text": edit(-1, [1, 0, 0], "a"),
    "a version of another create revision": edit(-1, [1, 0, 2], 8),
    "a version of a later revision": edit(-1, [1, 0, 3], 10),
    "a version with another number": edit(-1, [1, 0, 4], 5),
    "a version of a negative number": edit(-1, [1, 0, 4], -1),
    "a deletion that leaves a value": edit(-1, [1, 0, 4], 0),
    "a version without a field": edit(-1, [1, 0], [b"a", b"", 1, 2, 3]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_snapshot_is_refused_and_the_store_is_as_it_was(damage: str) -> None:
    slices = slices_of(filled())
    assert len(slices) == 7
    DAMAGE[damage](slices)
    store = filled()
    digest = store.digest()
    loader = store.restore()

    def load() -> None:
        for slice_ in slices:
            loader.feed(slice_)
        loader.finish()

    with pytest.raises(ValueError, match="snapshot"):
        load()
    assert store.digest() == digest
