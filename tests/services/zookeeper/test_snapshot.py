"""Snapshots are exact: a store restored from one equals the store as it was when the snapshot was begun."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.services.zookeeper import commands, snapshot
from quorate.services.zookeeper.protocol import (
    ANYONE,
    AccessRule,
    Check,
    Create,
    Delete,
    MultiItem,
    Op,
    SetACL,
    SetData,
    pack_multi,
)
from quorate.services.zookeeper.snapshot import SnapshotLoader
from quorate.services.zookeeper.store import Store
from tests.services.zookeeper.store_helpers import PASSWORD, SESSION, Writer

PATHS = [b"/a", b"/b", b"/a/a", b"/a/b", b"/b/a", b"/b/b", b"/a/a/a", b"/a/a/b", b"/b/b/c"]
OWN_ACL = (AccessRule(31, b"digest", b"user:hash"),)

paths = st.sampled_from(PATHS)
changes = st.one_of(
    st.builds(Create, paths, st.binary(max_size=3), st.sampled_from([ANYONE, OWN_ACL]), st.integers(0, 3)),
    st.builds(Create, paths, st.binary(max_size=3)),
    st.builds(Delete, paths),
    st.builds(SetData, paths, st.none() | st.binary(max_size=3)),
)
writes = st.one_of(
    changes,
    st.builds(SetACL, paths, st.just(OWN_ACL)),
    st.lists(st.one_of(changes, st.builds(Check, paths, st.integers(0, 1))), max_size=4),
    st.sampled_from(["end the second session", "begin a session"]),
)
Write = Create | Delete | SetData | SetACL | list[MultiItem] | str


def perform(writer: Writer, write: Write) -> None:
    if isinstance(write, list):
        writer.write(Op.MULTI, pack_multi(tuple(write)))
    elif write == "end the second session":
        session = writer.store.sessions.get(SESSION + 1)
        writer.apply(commands.expire_session(SESSION + 1, session.generation if session else 0))
    elif write == "begin a session":
        writer.apply(commands.create_session(SESSION + 2, 5000, PASSWORD, 3))
    else:
        assert not isinstance(write, str)
        writer.do(write)


def restored(slices: list[bytes]) -> Store:
    store = Store()
    Writer(store).create(b"/gone")
    loader = store.restore()
    for slice_ in slices:
        loader.feed(slice_)
    loader.finish()
    return store


@settings(max_examples=300, deadline=None)
@given(st.lists(writes, max_size=25), st.lists(st.none() | writes, max_size=60), st.integers(1, 3), st.booleans())
def test_exact_while_changes_go_on(
    before: list[Write], during: list[Write | None], nodes_per_slice: int, ephemeral_leaf: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Small slices, so that a small tree takes many.
        patch.setattr(snapshot, "_NODES_PER_SLICE", nodes_per_slice)
        writer, twin = Writer(), Writer()
        for each in (writer, twin):
            second = Writer(each.store, SESSION + 1)
            second.create(b"/a", flags=int(ephemeral_leaf))
            second.create(b"/b/b", flags=1)
            for write in before:
                perform(each, write)
        expected = twin.store.digest()
        writing = writer.store.snapshot()
        slices: list[bytes] = []
        # None in `during` stands for a slice: changes come before, between and after slices.
        for step in during:
            if step is None:
                slices.extend([slice_] if (slice_ := next(writing, None)) is not None else [])
            else:
                perform(writer, step)
                perform(twin, step)
        slices.extend(writing)
        copy = restored(slices)
        assert copy.digest() == expected
        assert copy.tree.node_count == sum(1 for _ in copy._walk())
        assert writer.store.digest() == twin.store.digest()
        # The copy takes up where the original was.
        assert copy.summary()["zxid"] == copy.zxid
        assert writer.store.tree.overlay is None


@settings(max_examples=60, deadline=None)
@given(st.lists(writes, max_size=30), st.randoms(use_true_random=False))
def test_parents_and_children_in_any_order(before: list[Write], shuffler: random.Random) -> None:
    writer = Writer()
    for write in before:
        perform(writer, write)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "_NODES_PER_SLICE", 1)
        head, *rest = writer.store.snapshot()
    shuffler.shuffle(rest)
    assert restored([head, *rest]).digest() == writer.store.digest()


def test_znodes_that_changed_after_the_walk_had_passed_may_come_twice() -> None:
    writer = Writer()
    writer.create(b"/a", b"old")
    expected = writer.store.digest()
    writing = writer.store.snapshot()
    writing.nodes_per_slice = 1
    slices = [next(writing) for _ in range(5)]
    writer.set_data(b"/a", b"new")
    slices += writing
    assert sum(slice_.count(b"old") for slice_ in slices) == 2
    assert restored(slices).digest() == expected


def small_snapshot() -> list[bytes]:
    writer = Writer()
    for path in (b"/a", b"/a/a", b"/a/b"):
        writer.create(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "_NODES_PER_SLICE", 2)
        return list(writer.store.snapshot())


def test_a_missing_slice_is_noticed() -> None:
    slices = small_snapshot()
    store = Store()
    untouched = store.digest()
    for missing in range(len(slices)):
        part = msgspec.msgpack.decode(slices[missing])
        if part[0] == 3 and not any(nodes[0] for _, nodes in part[2]):
            continue  # nothing was in it
        with pytest.raises(ValueError, match="snapshot"):
            loader = store.restore()
            for slice_ in slices[:missing] + slices[missing + 1 :]:
                loader.feed(slice_)
            loader.finish()
    assert store.digest() == untouched


def test_no_slices_are_noticed() -> None:
    with pytest.raises(ValueError, match="head is missing"):
        Store().restore().finish()


@given(st.binary(max_size=60), st.integers(0, 20), st.data())
def test_bytes_that_are_no_slice_are_refused(noise: bytes, which: int, data: st.DataObject) -> None:
    slices = small_snapshot()
    good = slices[which % len(slices)]
    at = data.draw(st.integers(0, len(good)))
    for bad in (noise, good[:at], good[:at] + noise, good[:at] + noise + good[at + len(noise) :]):
        loader: SnapshotLoader = Store().restore()
        loader.feed(slices[0])
        try:
            loader.feed(bad)
            loader.finish()
        except ValueError:
            pass


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 1"):
        Store().restore().feed(msgspec.msgpack.encode(snapshot.Head(2, 0, 0, 4, 0)))


def test_closed_early_nothing_is_kept_any_more() -> None:
    writer = Writer()
    writing = writer.store.snapshot()
    next(writing)
    writer.create(b"/a")
    assert writer.store.tree.overlay
    writing.close()
    assert writer.store.tree.overlay is None
    assert list(writing) == []
    assert restored(list(writer.store.snapshot())).digest() == writer.store.digest()


def test_closed_before_the_first_slice() -> None:
    writer = Writer()
    writer.store.snapshot().close()
    assert writer.store.tree.overlay is None


def test_slices_are_bounded() -> None:
    writer = Writer()
    writer.create(b"/p")
    for number in range(5000):
        writer.create(b"/p/%d" % number, b"x" * (number % 300))
    slices = list(writer.store.snapshot())
    assert max(map(len, slices)) <= 512 << 10
    assert len(slices) >= 5
    assert restored(slices).digest() == writer.store.digest()
