"""One-shot watches of one node: who waits for which change of which path.

ZooKeeper keeps two tables, and so does this module.  *Data* watches are set by getData on a
node that is there and by exists on any path; they fire on creation, deletion and change of
data.  *Child* watches are set by getChildren; they fire when a child comes or goes, and when
the node itself is deleted.  A connection that has both on a deleted node is told once.

A watch belongs to a connection, not to a session: when the connection is lost the client
sets it again on the next one (`set_again`).  Watchers are opaque here; they need only be
hashable.  Dictionaries stand in for sets so that watchers fire in the order in which they
were set, on every run.

Source: `WatchManager` and `DataTree` of ZooKeeper 3.8.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Generic, TypeAlias, TypeVar

W = TypeVar("W")

NODE_CREATED = 1
NODE_DELETED = 2
NODE_DATA_CHANGED = 3
NODE_CHILDREN_CHANGED = 4

Event: TypeAlias = tuple[int, bytes]
"""(event type, path)"""


class WatchKind(enum.IntEnum):
    """What checkWatches and removeWatches ask about (`Watcher.WatcherType`)."""

    CHILDREN = 1
    DATA = 2
    ANY = 3


class _PathTable(Generic[W]):
    """Watchers by path and paths by watcher, always in step."""

    __slots__ = ("by_path", "by_watcher")

    def __init__(self) -> None:
        self.by_path: dict[bytes, dict[W, None]] = {}
        self.by_watcher: dict[W, dict[bytes, None]] = {}

    def add(self, path: bytes, watcher: W) -> None:
        self.by_path.setdefault(path, {})[watcher] = None
        self.by_watcher.setdefault(watcher, {})[path] = None

    def take(self, path: bytes) -> Iterable[W]:
        watchers = self.by_path.pop(path, None)
        if watchers is None:
            return ()
        for watcher in watchers:
            self._forget_path(watcher, path)
        return watchers

    def discard(self, path: bytes, watcher: W) -> bool:
        watchers = self.by_path.get(path)
        if watchers is None or watcher not in watchers:
            return False
        del watchers[watcher]
        if not watchers:
            del self.by_path[path]
        self._forget_path(watcher, path)
        return True

    def holds(self, path: bytes, watcher: W) -> bool:
        return watcher in self.by_path.get(path, ())

    def forget(self, watcher: W) -> None:
        for path in self.by_watcher.pop(watcher, ()):
            watchers = self.by_path[path]
            del watchers[watcher]
            if not watchers:
                del self.by_path[path]

    def _forget_path(self, watcher: W, path: bytes) -> None:
        paths = self.by_watcher[watcher]
        del paths[path]
        if not paths:
            del self.by_watcher[watcher]


class Watches(Generic[W]):
    """All one-shot watches of one node's connections."""

    __slots__ = ("_child", "_data", "watch_children", "watch_data")

    def __init__(self) -> None:
        self._data: _PathTable[W] = _PathTable()
        self._child: _PathTable[W] = _PathTable()
        self.watch_data: Callable[[bytes, W], None] = self._data.add
        """(path, watcher): as getData and exists do.  Setting it twice is setting it once."""
        self.watch_children: Callable[[bytes, W], None] = self._child.add
        """(path, watcher): as getChildren does."""

    def is_empty(self) -> bool:
        return not self._data.by_path and not self._child.by_path

    def count(self) -> int:
        """Pairs of path and watcher, both tables together."""
        return sum(map(len, self._data.by_watcher.values())) + sum(map(len, self._child.by_watcher.values()))

    def fire(self, event_type: int, path: bytes) -> Iterable[W]:
        """Who is to be told of this change, each once; their watches are gone afterwards."""
        if event_type == NODE_CHILDREN_CHANGED:
            return self._child.take(path)
        told = self._data.take(path)
        if event_type != NODE_DELETED:
            return told
        also = self._child.take(path)
        return dict.fromkeys([*told, *also]) if also else told

    def forget(self, watcher: W) -> None:
        """The connection is gone."""
        self._data.forget(watcher)
        self._child.forget(watcher)

    def has(self, kind: WatchKind, path: bytes, watcher: W) -> bool:
        return (kind != WatchKind.CHILDREN and self._data.holds(path, watcher)) or (
            kind != WatchKind.DATA and self._child.holds(path, watcher)
        )

    def remove(self, kind: WatchKind, path: bytes, watcher: W) -> bool:
        """False where there was no such watch."""
        removed_data = kind != WatchKind.CHILDREN and self._data.discard(path, watcher)
        removed_child = kind != WatchKind.DATA and self._child.discard(path, watcher)
        return removed_data or removed_child

    def set_again(
        self,
        watcher: W,
        seen_zxid: int,
        zxids_of: Callable[[bytes], tuple[int, int] | None],
        data: Iterable[bytes],
        exist: Iterable[bytes],
        child: Iterable[bytes],
    ) -> list[Event]:
        """Take over the watches of a client that was connected elsewhere until `seen_zxid`.

        `zxids_of(path)` is the (mzxid, pzxid) of a node that is there, else None.  Returns
        the events that the client missed, in the order of its lists; those watches are
        spent.  All others are set.
        """
        missed: list[Event] = []
        for path in data:
            zxids = zxids_of(path)
            if zxids is None:
                missed.append((NODE_DELETED, path))
            elif zxids[0] > seen_zxid:
                missed.append((NODE_DATA_CHANGED, path))
            else:
                self._data.add(path, watcher)
        for path in exist:
            if zxids_of(path) is None:
                self._data.add(path, watcher)
            else:
                missed.append((NODE_CREATED, path))
        for path in child:
            zxids = zxids_of(path)
            if zxids is None:
                missed.append((NODE_DELETED, path))
            elif zxids[1] > seen_zxid:
                missed.append((NODE_CHILDREN_CHANGED, path))
            else:
                self._child.add(path, watcher)
        return missed
