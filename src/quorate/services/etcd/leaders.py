"""Clients that rather hear of it than wait while no leader is known (etcd's `clientv3.WithRequireLeader`).

etcd refuses their calls at once, and ends their streams after a while only, since clients that come back cost more.
"""

from __future__ import annotations

from collections.abc import Callable

from quorate.net.grpc.calls import Call, StreamHandler
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.requests import UnaryHandler
from quorate.services.interface import Group

ELECTIONS = 3
"""Election timeouts without a leader before streams end, as in etcd."""
_PRUNE_ABOVE = 64


class _Refused:
    """The stream of a call that has failed in opening."""

    def message(self, message: bytes) -> None: ...

    def half_closed(self) -> None: ...

    def writable(self) -> None: ...

    def closed(self) -> None: ...


class LeaderWanted:
    """Wraps handlers, and keeps account of the streams."""

    def __init__(self, group: Group, election_timeout_ms: int) -> None:
        self._group = group
        self._patience_ms = ELECTIONS * election_timeout_ms
        self._streams: dict[Call, None] = {}
        """All that are open, and some that were."""
        self._wanting: dict[Call, None] = {}
        """Those of them that want a leader."""
        self._prune_above = _PRUNE_ABOVE
        self._without_since_ms: int | None = None

    def unary(self, handle: UnaryHandler) -> UnaryHandler:
        group = self._group

        def guarded(call: Call, message: bytes) -> None:
            if group.leadership.leader is None and _wants_leader(call):
                call.fail(*EtcdError.NO_LEADER.value)
            else:
                handle(call, message)

        return guarded

    def streaming(self, open_stream: Callable[[Call], StreamHandler]) -> Callable[[Call], StreamHandler]:
        def guarded(call: Call) -> StreamHandler:
            wants = _wants_leader(call)
            if wants and self._group.leadership.leader is None:
                call.fail(*EtcdError.NO_LEADER.value)
                return _Refused()
            self._remember(call, wants)
            return open_stream(call)

        return guarded

    def _remember(self, call: Call, wants: bool) -> None:
        if len(self._streams) >= self._prune_above:
            self._streams = {open_: None for open_ in self._streams if not open_.is_over}
            self._wanting = {open_: None for open_ in self._wanting if not open_.is_over}
            self._prune_above = 2 * len(self._streams) + _PRUNE_ABOVE
        self._streams[call] = None
        if wants:
            self._wanting[call] = None

    def tick(self, now_ms: int) -> None:
        if self._group.leadership.leader is not None:
            self._without_since_ms = None
        elif self._without_since_ms is None:
            self._without_since_ms = now_ms
        elif now_ms >= self._without_since_ms + self._patience_ms and self._wanting:
            wanting, self._wanting = self._wanting, {}
            _end(wanting, EtcdError.NO_LEADER)

    def stop(self) -> None:
        """End all streams: they would be waited for."""
        streams, self._streams, self._wanting = self._streams, {}, {}
        _end(streams, EtcdError.STOPPED)


def _wants_leader(call: Call) -> bool:
    return call.metadata.get("hasleader") == "true"


def _end(streams: dict[Call, None], error: EtcdError) -> None:
    for call in streams:
        if not call.is_over:
            call.fail(*error.value)
