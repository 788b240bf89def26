"""The watches that a ZooKeeper client has set: whom to call for which event, and what to set again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar, Final, TypeAlias

import msgspec

from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.protocol import EventType, Op, SetWatches


class WatchEvent(msgspec.Struct, frozen=True):
    """What a watch is called with.  `event_type` is an EventType, or SESSION_ENDED where nothing will come any more."""

    SESSION_ENDED: ClassVar[int] = int(EventType.NONE)

    event_type: int
    path: str


Watcher: TypeAlias = Callable[[WatchEvent], None]

_DATA: Final = 0
_EXIST: Final = 1
_CHILD: Final = 2
_SPENT: Final[Mapping[int, tuple[int, ...]]] = MappingProxyType(
    {
        EventType.CREATED: (_DATA, _EXIST),
        EventType.DATA_CHANGED: (_DATA, _EXIST),
        EventType.DELETED: (_DATA, _EXIST, _CHILD),
        EventType.CHILDREN_CHANGED: (_CHILD,),
    }
)


class WatchList:
    """Watchers by kind and path, in the order in which they were set."""

    def __init__(self) -> None:
        self._watchers: tuple[dict[str, list[Watcher]], ...] = ({}, {}, {})

    def registration(self, op: Op, path: str, watcher: Watcher) -> Callable[[int], None]:
        """What to call with the read's error code: it sets the watch where the server has set it."""

        def register(code: int) -> None:
            if code == ErrorCode.OK:
                kind = _CHILD if op in (Op.GET_CHILDREN, Op.GET_CHILDREN2) else _DATA
            elif code == ErrorCode.NO_NODE and op is Op.EXISTS:
                kind = _EXIST
            else:
                return
            self._watchers[kind].setdefault(path, []).append(watcher)

        return register

    def fire(self, event_type: int, path: str) -> list[Watcher]:
        """The watchers that this event spends."""
        fired: list[Watcher] = []
        for kind in _SPENT.get(event_type, ()):
            fired += self._watchers[kind].pop(path, [])
        return fired

    def again(self, seen_zxid: int) -> bytes | None:
        """The setWatches record for a new connection; None where nothing is watched."""
        data, exist, child = [[path.encode() for path in table] for table in self._watchers]
        if not (data or exist or child):
            return None
        return SetWatches(seen_zxid, data, exist, child).encode(Op.SET_WATCHES)

    def give_up(self) -> Iterator[tuple[Watcher, str]]:
        """All watchers and their paths; none is left."""
        for table in self._watchers:
            while table:
                path, watchers = table.popitem()
                for watcher in watchers:
                    yield watcher, path
