"""The watch tables: which change spends which watch."""

from __future__ import annotations

from quorate.services.zookeeper.watches import (
    NODE_CHILDREN_CHANGED,
    NODE_CREATED,
    NODE_DATA_CHANGED,
    NODE_DELETED,
    Watches,
    WatchKind,
)


def test_a_watch_fires_once() -> None:
    watches: Watches[str] = Watches()
    watches.watch_data(b"/a", "ann")
    watches.watch_data(b"/a", "ann")
    assert list(watches.fire(NODE_DATA_CHANGED, b"/a")) == ["ann"]
    assert list(watches.fire(NODE_DATA_CHANGED, b"/a")) == []
    assert watches.count() == 0


def test_watchers_are_told_in_the_order_in_which_they_came() -> None:
    watches: Watches[str] = Watches()
    for name in ("cid", "ann", "bob"):
        watches.watch_data(b"/a", name)
    assert list(watches.fire(NODE_DATA_CHANGED, b"/a")) == ["cid", "ann", "bob"]


def test_data_and_child_watches_are_different() -> None:
    watches: Watches[str] = Watches()
    watches.watch_data(b"/a", "ann")
    watches.watch_children(b"/a", "bob")
    assert list(watches.fire(NODE_CHILDREN_CHANGED, b"/a")) == ["bob"]
    assert list(watches.fire(NODE_DATA_CHANGED, b"/a")) == ["ann"]


def test_creation_spends_an_exists_watch() -> None:
    watches: Watches[str] = Watches()
    watches.watch_data(b"/a", "ann")
    assert list(watches.fire(NODE_CREATED, b"/a")) == ["ann"]


def test_deletion_spends_both_kinds_and_tells_each_watcher_once() -> None:
    watches: Watches[str] = Watches()
    watches.watch_data(b"/a", "ann")
    watches.watch_children(b"/a", "ann")
    watches.watch_children(b"/a", "bob")
    assert list(watches.fire(NODE_DELETED, b"/a")) == ["ann", "bob"]
    assert watches.count() == 0


def test_a_lost_connection_leaves_nothing_behind() -> None:
    watches: Watches[str] = Watches()
    watches.watch_data(b"/a", "ann")
    watches.watch_data(b"/a", "bob")
    watches.watch_children(b"/b", "ann")
    watches.forget("ann")
    assert watches.count() == 1
    assert list(watches.fire(NODE_DATA_CHANGED, b"/a")) == ["bob"]
    assert list(watches.fire(NODE_CHILDREN_CHANGED, b"/b")) == []


def test_removal_by_kind() -> None:
    watches: Watches[str] = Watches()
    watches.watch_data(b"/a", "ann")
    assert watches.has(WatchKind.DATA, b"/a", "ann")
    assert watches.has(WatchKind.ANY, b"/a", "ann")
    assert not watches.has(WatchKind.CHILDREN, b"/a", "ann")
    assert not watches.remove(WatchKind.CHILDREN, b"/a", "ann")
    assert watches.remove(WatchKind.ANY, b"/a", "ann")
    assert not watches.remove(WatchKind.ANY, b"/a", "ann")


def test_watches_set_again_fire_what_was_missed_and_keep_the_rest() -> None:
    watches: Watches[str] = Watches()
    zxids = {b"/old": (5, 5), b"/new": (9, 5), b"/kids": (5, 9)}
    missed = watches.set_again(
        "ann",
        7,
        zxids.get,
        data=[b"/old", b"/new", b"/gone"],
        exist=[b"/absent", b"/old"],
        child=[b"/old", b"/kids", b"/gone"],
    )
    assert missed == [
        (NODE_DATA_CHANGED, b"/new"),
        (NODE_DELETED, b"/gone"),
        (NODE_CREATED, b"/old"),
        (NODE_CHILDREN_CHANGED, b"/kids"),
        (NODE_DELETED, b"/gone"),
    ]
    assert list(watches.fire(NODE_DATA_CHANGED, b"/old")) == ["ann"]
    assert list(watches.fire(NODE_CREATED, b"/absent")) == ["ann"]
    assert list(watches.fire(NODE_CHILDREN_CHANGED, b"/old")) == ["ann"]
    assert watches.count() == 0
