"""Watches: each fires once, for a reason, and before anything that was caused or could be seen by what it announces."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from quorate.checking.zookeeper.records import Call, Finding, History, Kind, Watch, WatchKind
from quorate.checking.zookeeper.replay import Gone
from quorate.checking.zookeeper.writes import NEVER, Doubt, Writes
from quorate.services.zookeeper.protocol import EventType

_ANNOUNCED: Final = MappingProxyType(
    {
        WatchKind.DATA: (EventType.DATA_CHANGED, EventType.DELETED),
        WatchKind.EXIST: (EventType.CREATED,),
        WatchKind.CHILD: (EventType.CHILDREN_CHANGED, EventType.DELETED),
    }
)
_ANY: Final = frozenset({Kind.CREATE, Kind.SET, Kind.DELETE})


class _Changes:
    """The zxids at which paths, and lists of children, are known to have changed; ascending."""

    def __init__(self, writes: Writes, gone: dict[str, list[Gone]]) -> None:
        self.data: dict[str, list[int]] = {}
        self.children: dict[str, list[int]] = {}
        """Of a node that is watched and was there: also its own end, of which its creation anew tells as well."""
        self.spans: dict[str, list[tuple[int, int]]] = {}
        """[zxid of a creation, zxid of the deletion that follows) of each path."""
        self.child_doubts: dict[str, list[Doubt]] = {}
        """Creations and deletions of unknown outcome, by parent."""
        self.owned: set[str] = set()
        """Paths of ephemerals, and their parents: these go at zxids that nobody is told."""
        self._gone = gone
        self._left: dict[str, list[Gone]] = {}
        """Of each path's children, those that are known to have gone."""
        self._writes = writes
        for path, ends in gone.items():
            self._left.setdefault(_parent(path), []).extend(ends)
        for left in self._left.values():
            left.sort(key=lambda end: end.by)
        for path, doubts in writes.doubts.items():
            for doubt in doubts:
                if doubt.kind is not Kind.SET:
                    self.child_doubts.setdefault(_parent(path), []).append(doubt)
                if doubt.kind is Kind.DELETE:
                    self.child_doubts.setdefault(path, []).append(doubt)
                if doubt.call.ephemeral:
                    self.owned |= {path, _parent(path)}
        for change in writes.changes:
            if change.kind is Kind.CHECK:
                continue
            self.data.setdefault(change.path, []).append(change.zxid)
            if change.kind is Kind.SET:
                continue
            for path in (change.path, _parent(change.path)):
                self.children.setdefault(path, []).append(change.zxid)
            spans = self.spans.setdefault(change.path, [])
            if change.kind is Kind.CREATE:
                spans.append((change.zxid, NEVER))
            elif spans and spans[-1][1] == NEVER:
                # A further deletion is that of a node of whose creation nobody was told.
                spans[-1] = (spans[-1][0], change.zxid)
            if change.call.ephemeral:
                self.owned |= {change.path, _parent(change.path)}

    def of(self, watch: Watch) -> list[int]:
        return (self.children if watch.kind is WatchKind.CHILD else self.data).get(watch.path, [])

    def first_by(self, watch: Watch) -> int:
        """The zxid up to which what a data or child watch is for must have changed since it was set."""
        zxids = self.of(watch)
        at = bisect_right(zxids, watch.set_zxid)
        first = zxids[at] if at < len(zxids) else NEVER
        # The node was there when the watch was set.
        ends = self._gone.get(watch.path, [])
        at = bisect_right(ends, watch.set_zxid, key=_by)
        if at < len(ends):
            first = min(first, ends[at].by)
        if watch.kind is WatchKind.CHILD:
            left = self._left.get(watch.path, [])
            for end in left[bisect_right(left, watch.set_zxid, key=_by) :]:
                if end.by >= first:
                    break
                if end.there_at >= watch.set_zxid:
                    return end.by
        return first

    def may_have_changed(self, watch: Watch, until: int) -> bool:
        """Whether something of unknown outcome may have fired it."""
        if watch.kind is not WatchKind.CHILD:
            return self._writes.may_have(watch.path, _ANY, watch.set_zxid, until)
        doubts = self.child_doubts.get(watch.path, ())
        return any(max(watch.set_zxid, doubt.after) < min(until, doubt.until) for doubt in doubts)

    def may_be_deleted(self, path: str) -> bool:
        return path in self.owned or any(doubt.kind is Kind.DELETE for doubt in self._writes.doubts.get(path, ()))


class _Answers:
    """The answers that one session got, in order: zxids, arrivals, and times."""

    def __init__(self) -> None:
        self.zxids: list[int] = []
        self.arrivals: list[int] = []
        self.times: list[float] = []

    def add(self, call: Call) -> None:
        self.times.append(call.returned_at or 0.0)
        self.zxids.append(call.zxid)
        self.arrivals.append(call.arrival)

    def first_as_of(self, zxid: int, behind_arrival: int) -> int:
        """The index of the first answer behind that arrival and as of that zxid or a later one."""
        return max(bisect_right(self.zxids, zxid - 1), bisect_right(self.arrivals, behind_arrival))


def check_watches(history: History, writes: Writes, gone: dict[str, list[Gone]]) -> Iterator[Finding]:
    """No answer that is as of a change, or later, comes before the event of a watch that was set before that change.

    That is more than ZooKeeper promises (the event comes before the *data* can be seen) and what a door does: it
    delivers the events of a batch before any answer made from the state after it.  A client that was away sets its
    watches again before it asks for anything else, with the zxid up to which it has seen; what changed behind that is
    announced before any answer.  The exception is a node that came and went while its client was away: an exist watch
    need not tell of that, so for those an answer counts only where the node is known to be there.

    Ephemerals that go with their session are nobody's write, and count as far as the replay knows that they are gone
    (`gone`): at the zxid of a close that was acknowledged, or by that of an answer in which the node, or a name in a
    list, is missing.  A data watch was set on a node that was there: if it is not there as of a later zxid z, whoever
    saw that, it went in between, and no answer of the watching session that is as of z or later may come before the
    event.  The same holds for a child watch: on the node itself, and of a list where one of the names that were in it
    as of the watch, or later, is gone as of z.  A session that closes need not be told of its own end.

    A watch fires at most once, with an event of its kind, and only if something changed since it was set.  Whoever
    deletes an ephemeral by ending is not asked for a zxid, so reasons are looked for at other nodes only, and only
    where no write of unknown outcome could be one.

    After healing, a session that is still served gets an answer to a synced read: a watch that was lost shows there.
    """
    changes = _Changes(writes, gone)
    answers: dict[int, _Answers] = {session.number: _Answers() for session in history.sessions}
    for call in history.calls:
        if call.is_judged() and call.kind is not Kind.CLOSE:
            answers[call.session].add(call)
    for watch in history.watches:
        if watch.set_arrival:
            yield from _missed(watch, changes, answers[watch.session])
            yield from _unfounded(watch, changes, answers[watch.session])
    for session in history.sessions:
        if session.unasked_events:
            text = f"session {session.number} got {session.unasked_events} events for which it had no watch"
            yield Finding("watches", text, session.ended_at, session.number)


def _missed(watch: Watch, changes: _Changes, answers: _Answers) -> Iterator[Finding]:
    if watch.kind is WatchKind.EXIST:
        if changes.may_be_deleted(watch.path):
            return
        spans = [span for span in changes.spans.get(watch.path, []) if span[0] > watch.set_zxid]
    else:
        first = changes.first_by(watch)
        spans = [(first, NEVER)] if first < NEVER else []
    fired_arrival = watch.fired_arrival or NEVER
    for begin, end in spans:
        index = answers.first_as_of(begin, watch.set_arrival)
        if index >= len(answers.zxids) or answers.arrivals[index] > fired_arrival:
            return
        if answers.zxids[index] < end:
            yield _finding(
                watch,
                f"{'has not fired' if not watch.fired_arrival else 'fired late'}: changed by zxid 0x{begin:x}, "
                f"and the session was given an answer as of 0x{answers.zxids[index]:x} without the event",
                answers.times[index],
            )
            return


def _unfounded(watch: Watch, changes: _Changes, answers: _Answers) -> Iterator[Finding]:
    if not watch.fired_times:
        return
    index = bisect_right(answers.arrivals, watch.fired_arrival)
    fired_at = answers.times[index - 1]
    if watch.fired_times > 1:
        yield _finding(watch, f"fired {watch.fired_times} times", fired_at)
    if watch.event_type not in _ANNOUNCED[watch.kind]:
        yield _finding(watch, f"fired with an event of type {watch.event_type}", fired_at)
    latest = answers.zxids[index] if index < len(answers.zxids) else NEVER
    zxids = changes.of(watch)
    at = bisect_right(zxids, watch.set_zxid)
    if at < len(zxids) and zxids[at] <= latest:
        return
    if watch.path not in changes.owned and not changes.may_have_changed(watch, latest):
        yield _finding(
            watch, f"fired, and nothing changed between zxids 0x{watch.set_zxid:x} and 0x{latest:x}", fired_at
        )


def _by(end: Gone) -> int:
    return end.by


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _finding(watch: Watch, text: str, at: float) -> Finding:
    return Finding(
        "watches",
        f"{watch.kind.value} watch of {watch.path}, set in session {watch.session} at zxid "
        f"0x{watch.set_zxid:x}, {text}",
        at,
        watch.session,
    )
