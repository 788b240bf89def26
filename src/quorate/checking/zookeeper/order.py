"""The order of zxids: against real time, within each session, and of sequential names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from quorate.checking.zookeeper.records import WRITES, Call, End, Finding, History, Kind
from quorate.checking.zookeeper.writes import SEQUENCE_DIGITS, describe, frontiers

FASTEST_CLOCK: Final = 1.1
"""No server's clock is expected to run faster than so many times true time."""


def check_real_time(history: History) -> Iterator[Finding]:
    """A write comes behind everything that anybody was shown before it was sent; a synced read is not older.

    Holds because whatever a reply shows is applied, so committed, so in the log of every later leader: a command that
    is proposed later stands behind it, and takes a higher zxid.  A sync waits until the server has applied everything
    that was committed when it arrived.
    """
    for call, before in zip(history.calls, frontiers(history), strict=True):
        if not call.is_judged():
            continue
        if call.kind in WRITES:
            if call.zxid <= before:
                text = f"has zxid 0x{call.zxid:x}, though zxid 0x{before:x} had been shown before it was sent"
                yield _finding("linearizable writes", call, text)
        elif call.synced and call.zxid < before:
            text = f"was answered as of 0x{call.zxid:x}, though zxid 0x{before:x} had been shown before its sync"
            yield _finding("linearizable reads", call, text)


def check_sessions(history: History) -> Iterator[Finding]:
    """The replies of a session come in the order of its requests, and its zxids never go back.

    Within a connection the server answers in order, each time from a state that is not older; and a server that is
    behind what a client has seen does not take it over.  A write has a zxid above all that its session was shown
    before.  With the replay this says that a session sees its own writes, and never an older state after a newer one.
    """
    for session in history.sessions:
        if session.broken_connections:
            text = f"session {session.number} was sent answers out of order, or what is none"
            yield Finding("session order", text, session.ended_at, session.number)
    last: dict[int, Call] = {}
    for call in history.calls:
        if not call.is_judged():
            continue
        before = last.get(call.session)
        if before is not None:
            if call.arrival <= before.arrival:
                yield _finding("session order", call, f"was answered before {describe(before)} which was sent first")
            if call.zxid < before.zxid or (call.zxid == before.zxid and call.kind in WRITES):
                text = f"has zxid 0x{call.zxid:x}, after 0x{before.zxid:x} for {describe(before).removesuffix(',')}"
                yield _finding("session order", call, text)
        last[call.session] = call


def check_session_ids(history: History) -> Iterator[Finding]:
    """No two sessions have the same id: the sessions of one history all come from one cluster's log."""
    first: dict[int, int] = {}
    for session in history.sessions:
        other = first.setdefault(session.session_id, session.number)
        if session.session_id and other != session.number:
            text = f"sessions {other} and {session.number} both have the id 0x{session.session_id:x}"
            yield Finding("session order", text, session.opened_at, session.number)


def check_expiry(history: History) -> Iterator[Finding]:
    """A session whose client got a ping back lasts for a timeout from when that ping was sent.

    A ping is answered only when a leader has put the session's deadline off, a leader that is surely not replaced yet;
    the next one gives every session its whole timeout again.  The leader's clock may run fast, so less than the whole
    timeout is demanded here.  The client knows of the expiry later than it happened, so no client is wronged by
    counting up to then.
    """
    for session in history.sessions:
        if session.end is End.EXPIRED and session.vouched_at is not None:
            lasted_s = session.ended_at - session.vouched_at
            if lasted_s * 1000 < session.timeout_ms / FASTEST_CLOCK:
                yield Finding(
                    "session expiry",
                    f"session {session.number} with a timeout of {session.timeout_ms} ms had expired at "
                    f"{session.ended_at:.6f} s, {lasted_s:.6f} s after a ping was sent that was answered",
                    session.ended_at,
                    session.number,
                )


def check_sequences(history: History) -> Iterator[Finding]:
    """The numbers of sequential nodes under one parent grow with their zxids.

    Holds because the number is the count of creates under that parent so far; deletions do not count down.
    """
    made: dict[str, list[Call]] = {}
    for call in history.calls:
        if call.sequential and call.kind is Kind.CREATE and call.is_done():
            made.setdefault(call.path.rpartition("/")[0], []).append(call)
    for calls in made.values():
        calls.sort(key=lambda call: call.zxid)
        for before, call in pairwise(calls):
            if call.path[-SEQUENCE_DIGITS:] <= before.path[-SEQUENCE_DIGITS:]:
                yield _finding("sequences", call, f"was numbered after {before.path}, which has a lower zxid")


def check_gaps(history: History) -> Iterator[Finding]:
    """Sets that went over one connection, to a node that nobody else writes, leave no gap.

    The log takes what one connection brings in order and without gaps; after a loss it takes nothing that came behind.
    So when the version that a set made is known, those in front of it have counted too, but for those that were
    answered with an error.
    """
    versions: dict[tuple[str, str], int] = {}
    for call in history.calls:
        if call.kind is Kind.GET and call.is_done() and call.value is not None:
            versions[call.path, call.value] = call.version
    sets: dict[tuple[int, int], list[Call]] = {}
    for call in history.calls:
        if call.connection and (call.is_done() or call.is_unknown()):
            sets.setdefault((call.session, call.connection), []).append(call)
    highest: dict[str, int] = {}
    for calls in sets.values():
        path = calls[0].path
        made = [call.version if call.is_done() else versions.get((path, call.value or ""), -1) for call in calls]
        for index, (call, version) in enumerate(zip(calls, made, strict=True)):
            least = highest.get(path, 0) + 1 + index
            if 0 <= version < least:
                text = f"made version {version} as number {index + 1} of its connection: expected {least} or more"
                yield _finding("session order", call, text)
        highest[path] = max([highest.get(path, 0), *made])


def _finding(check: str, call: Call, text: str) -> Finding:
    return Finding(check, f"{describe(call)} {text}", call.returned_at or call.invoked_at, call.session)
