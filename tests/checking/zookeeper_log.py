"""Histories of ZooKeeper clients, written by hand: one call a second, each answered half a second later."""

from __future__ import annotations

from typing import Any

from quorate.checking.zookeeper.promise import findings
from quorate.checking.zookeeper.records import (
    NO_NODE,
    OK,
    Call,
    Finding,
    History,
    Kind,
    Part,
    Session,
    Watch,
    WatchKind,
)


class Log:
    """Calls are appended as they are named; each gives its record, to be spoiled afterwards."""

    def __init__(self) -> None:
        self.history = History()
        self._arrivals: dict[int, int] = {}

    def session(self) -> int:
        number = len(self.history.sessions)
        self.history.sessions.append(Session(number, f"client-{number}", 4_000, 0.0, 0xA0 + number))
        return number

    def _call(self, session: int, kind: Kind, path: str, zxid: int | None, **fields: Any) -> Call:
        at = float(len(self.history.calls))
        call = Call(session, kind, path, at, **fields)
        if zxid is not None:
            call.returned_at = at + 0.5
            call.zxid = zxid
            call.arrival = self.arrive(session)
        self.history.calls.append(call)
        return call

    def arrive(self, session: int) -> int:
        self._arrivals[session] = self._arrivals.get(session, 0) + 1
        return self._arrivals[session]

    def create(self, session: int, path: str, value: str | None, zxid: int | None, **fields: Any) -> Call:
        if zxid is not None and not fields.get("code"):
            owner = self.history.sessions[session].session_id if fields.get("ephemeral") else 0
            fields |= {"czxid": zxid, "mzxid": zxid, "version": 0, "owner": owner}
        return self._call(session, Kind.CREATE, path, zxid, value=value, **fields)

    def set(self, session: int, path: str, value: str, zxid: int | None, version: int = -1, **fields: Any) -> Call:
        mzxid = zxid if zxid is not None and not fields.get("code") else 0
        return self._call(session, Kind.SET, path, zxid, value=value, mzxid=mzxid, version=version, **fields)

    def delete(self, session: int, path: str, zxid: int | None, **fields: Any) -> Call:
        return self._call(session, Kind.DELETE, path, zxid, **fields)

    def multi(self, session: int, zxid: int | None, *parts: Part, **fields: Any) -> Call:
        return self._call(session, Kind.MULTI, "", zxid, parts=parts, **fields)

    def get(
        self, session: int, path: str, value: str, stat: tuple[int, int, int], zxid: int, synced: bool = True
    ) -> Call:
        """`stat` is (czxid, mzxid, version)."""
        czxid, mzxid, version = stat
        return self._call(
            session, Kind.GET, path, zxid, value=value, czxid=czxid, mzxid=mzxid, version=version, synced=synced
        )

    def exists(self, session: int, path: str, stat: tuple[int, int, int], zxid: int, owner: int = 0) -> Call:
        czxid, mzxid, version = stat
        return self._call(
            session, Kind.EXISTS, path, zxid, czxid=czxid, mzxid=mzxid, version=version, owner=owner, synced=True
        )

    def absent(self, session: int, path: str, zxid: int, synced: bool = True) -> Call:
        return self._call(session, Kind.EXISTS, path, zxid, code=NO_NODE, synced=synced)

    def children(self, session: int, path: str, names: tuple[str, ...], zxid: int) -> Call:
        return self._call(session, Kind.CHILDREN, path, zxid, code=OK, children=names, synced=True)

    def close(self, session: int, zxid: int | None) -> Call:
        return self._call(session, Kind.CLOSE, "", zxid)

    def watch(self, read: Call, kind: WatchKind) -> Watch:
        """A watch that was set by a read."""
        watch = Watch(read.session, kind, read.path, read.zxid, read.arrival)
        self.history.watches.append(watch)
        return watch

    def fire(self, watch: Watch, event_type: int) -> None:
        watch.fired_arrival = self.arrive(watch.session)
        watch.fired_times += 1
        watch.event_type = event_type

    def findings(self) -> list[Finding]:
        return findings(self.history)

    def checks(self) -> frozenset[str]:
        """The names of the checks that found something."""
        return frozenset(finding.check for finding in self.findings())
