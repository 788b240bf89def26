"""Which write has which zxid, as far as clients can know, and when those of unknown outcome may have happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from quorate.checking.zookeeper.records import JUDGED, WRITES, Call, Finding, History, Kind

NEVER: Final = 1 << 63
"""Above every zxid."""
SEQUENCE_DIGITS: Final = 10


@dataclass(frozen=True, slots=True)
class Change:
    """A write that certainly happened, to one path.  `version` is -1, `czxid` 0 where nobody was told.

    A check in a multi is one, too: it changes nothing, and `version` is what it found there, if it was asked for any.
    """

    zxid: int
    kind: Kind
    path: str
    call: Call
    value: str | None = None
    version: int = -1
    czxid: int = 0


@dataclass(frozen=True, slots=True)
class Doubt:
    """A write to one path that may have happened once, at a zxid above `after` and up to `until`.

    Above `after`: a write takes a zxid higher than any that was shown to anybody before the write was sent.  Up to
    `until`: when a later request of its session was answered as of this zxid, the write had happened or never would,
    because either both went over one connection, in order, or the session had been attached anew in between, after
    which nothing that came through its former connection is taken.
    """

    kind: Kind
    call: Call
    after: int
    until: int


@dataclass(slots=True)
class Writes:
    """What `resolve` made out."""

    changes: list[Change] = field(default_factory=list)
    """In order of zxid; a multi has one for each of its parts."""
    doubts: dict[str, list[Doubt]] = field(default_factory=dict)
    """By path; of a sequential create, by the path that was asked for."""
    ends: list[Call] = field(default_factory=list)
    """Closes that were acknowledged."""
    findings: list[Finding] = field(default_factory=list)

    def doubt(self, path: str, kinds: frozenset[Kind], after: int, until: int) -> Doubt | None:
        """What of these kinds may have changed `path` above one zxid and up to another, unknown to all."""
        for doubt in self.doubts.get(path) or self.doubts.get(path[:-SEQUENCE_DIGITS]) or []:
            if doubt.kind in kinds and max(after, doubt.after) < min(until, doubt.until):
                return doubt
        return None

    def may_have(self, path: str, kinds: frozenset[Kind], after: int, until: int) -> bool:
        return self.doubt(path, kinds, after, until) is not None


def resolve(history: History) -> Writes:
    """Find the zxid of each write: from its reply, or from a read that found what it wrote."""
    writes = Writes()
    frontier = frontiers(history)
    until = _latest_zxids(history)
    seen = _match_reads(history, writes.findings)
    by_zxid: dict[int, Call] = {}
    for call, before, latest in zip(history.calls, frontier, until, strict=True):
        if call.kind not in WRITES:
            continue
        found = seen.get(call)
        if call.returned_at is not None:
            if call.code in JUDGED:
                other = by_zxid.setdefault(call.zxid, call)
                if other is not call:
                    writes.findings.append(_shared_zxid(call, other))
            if call.is_done():
                writes.findings.extend(_contradictions(call, found, history))
                if call.kind is Kind.CLOSE:
                    writes.ends.append(call)
                else:
                    writes.changes.extend(_changes(call, call.zxid, None))
        elif found is not None:
            zxid = found.mzxid
            other = by_zxid.setdefault(zxid, call)
            if other is not call:
                writes.findings.append(_shared_zxid(call, other))
            if not before < zxid <= latest:
                writes.findings.append(_out_of_bounds(call, zxid, before, latest))
            writes.changes.extend(_changes(call, zxid, found))
        else:
            for kind, path in _targets(call):
                writes.doubts.setdefault(path, []).append(Doubt(kind, call, before, latest))
    writes.changes.sort(key=lambda change: change.zxid)
    return writes


def frontiers(history: History) -> list[int]:
    """For each call the highest zxid that any answer had shown when it was sent.

    Whatever a server answers, it has applied, and what is applied anywhere is committed: so each write and each synced
    read that is sent later comes behind it.
    """
    answered = sorted((call.returned_at, call.zxid) for call in history.calls if call.is_judged())
    highest: list[int] = []
    at = zxid = 0
    for call in history.calls:
        while at < len(answered) and answered[at][0] < call.invoked_at:  # type: ignore[operator]
            zxid = max(zxid, answered[at][1])
            at += 1
        highest.append(zxid)
    return highest


def _latest_zxids(history: History) -> list[int]:
    """For each call the zxid of the next answer of its session to a later call."""
    following: dict[int, int] = {}
    latest: list[int] = []
    for call in reversed(history.calls):
        latest.append(following.get(call.session, NEVER))
        if call.is_judged():
            following[call.session] = call.zxid
    latest.reverse()
    return latest


def _targets(call: Call) -> Iterator[tuple[Kind, str]]:
    if call.kind is Kind.MULTI:
        yield from ((part.kind, part.path) for part in call.parts if part.kind is not Kind.CHECK)
    elif call.kind is not Kind.CLOSE:
        yield call.kind, call.path


def _match_reads(history: History, findings: list[Finding]) -> dict[Call, Call]:
    """For each write that a get saw, the first get that did.  The same value under two zxids was written twice."""
    writer: dict[tuple[str, str], Call] = {}
    for call in history.calls:
        if call.kind is Kind.MULTI:
            writer.update({(part.path, part.value): call for part in call.parts if part.value is not None})
        elif call.kind in WRITES and call.value is not None:
            writer[call.path, call.value] = call
    seen: dict[Call, Call] = {}
    for call in history.calls:
        if call.kind is not Kind.GET or not call.is_done():
            continue
        write = writer.get((call.path, call.value or ""))
        if write is None:
            findings.append(_finding("reads", call, f"found {call.value!r}, which nobody wrote there"))
        elif write.returned_at is not None and not write.is_done():
            findings.append(_finding("reads", call, f"found {call.value!r}, whose {write.kind.value} failed"))
        elif seen.setdefault(write, call).mzxid != call.mzxid:
            was = seen[write].mzxid
            findings.append(
                _finding("reads", call, f"found {call.value!r} with mzxid 0x{call.mzxid:x}, and with 0x{was:x} before")
            )
    return seen


def _contradictions(call: Call, found: Call | None, history: History) -> Iterator[Finding]:
    """Whatever two answers say of one write must be the same."""
    if found is not None and found.mzxid != call.zxid:
        yield _finding("writes", call, f"was done at zxid 0x{call.zxid:x}, and is read with mzxid 0x{found.mzxid:x}")
    if call.mzxid and call.mzxid != call.zxid:
        yield _finding("writes", call, f"was done at zxid 0x{call.zxid:x}, and answered with mzxid 0x{call.mzxid:x}")
    if call.kind is Kind.SET and call.expected_version not in (-1, call.version - 1):
        yield _finding("writes", call, f"asked for version {call.expected_version}, and made version {call.version}")
    if call.kind is Kind.CREATE and call.czxid:
        owner = history.sessions[call.session].session_id if call.ephemeral else 0
        if (call.czxid, call.version, call.owner) != (call.zxid, 0, owner):
            yield _finding(
                "writes",
                call,
                f"was done at zxid 0x{call.zxid:x} for owner 0x{owner:x}, and answered with "
                f"czxid 0x{call.czxid:x}, version {call.version}, owner 0x{call.owner:x}",
            )


def _changes(call: Call, zxid: int, found: Call | None) -> Iterator[Change]:
    if call.kind is Kind.MULTI:
        for part in call.parts:
            is_create = part.kind is Kind.CREATE
            version = 0 if is_create else part.version
            yield Change(zxid, part.kind, part.path, call, part.value, version, zxid if is_create else 0)
    elif call.kind is Kind.CREATE:
        yield Change(zxid, Kind.CREATE, call.path, call, call.value, 0, zxid)
    elif call.kind is Kind.SET:
        shown = call if found is None else found
        yield Change(zxid, Kind.SET, call.path, call, call.value, shown.version, shown.czxid)
    else:
        yield Change(zxid, Kind.DELETE, call.path, call)


def describe(call: Call) -> str:
    return f"{call.kind.value} {call.path or '(multi)'} of session {call.session}, sent at {call.invoked_at:.6f} s,"


def _finding(check: str, call: Call, text: str) -> Finding:
    at = call.invoked_at if call.returned_at is None else call.returned_at
    return Finding(check, f"{describe(call)} {text}", at, call.session)


def _shared_zxid(call: Call, other: Call) -> Finding:
    return _finding("writes", call, f"has zxid 0x{call.zxid:x}, as has {describe(other).removesuffix(',')}")


def _out_of_bounds(call: Call, zxid: int, before: int, latest: int) -> Finding:
    if zxid <= before:
        return _finding(
            "writes", call, f"has zxid 0x{zxid:x}, though zxid 0x{before:x} had been shown before it was sent"
        )
    return _finding(
        "session order",
        call,
        f"was done at zxid 0x{zxid:x}, though a later request of the session was answered as of 0x{latest:x}",
    )
