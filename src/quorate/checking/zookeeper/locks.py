"""Locks by ephemeral sequential claims, fenced by the zxid of the claim: one holder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from quorate.checking.zookeeper.records import Finding, History, Hold, Use


def check_locks(history: History) -> Iterator[Finding]:
    """In the order of zxids no two claims hold a lock at once, and holders' tokens grow.

    A claim holds from the list in which it was seen to be first until it is gone: deleted by its holder, or vanished
    with its session, which then is not served any more.  The next claim that is seen to be first has a higher number,
    so a higher czxid, and the list that shows it does not contain the former one.  So when a claim is first as of
    zxid z, the former holder's claim was deleted, or its session has had no answer as of z or later: a holder whose
    session is alive is not robbed.  A former holder that does not know may still come to the resource, in real time;
    the resource refuses its token as soon as it has seen the next one.
    """
    served: dict[int, int] = {}
    for call in history.calls:
        if call.is_judged():
            served[call.session] = max(served.get(call.session, 0), call.zxid)
    by_lock: dict[str, list[Hold]] = {}
    claims: dict[int, str] = {}
    for hold in history.holds:
        by_lock.setdefault(hold.lock, []).append(hold)
        claim = claims.setdefault(hold.token, hold.claim)
        if claim != hold.claim:
            yield Finding("locks", f"{claim} and {hold.claim} have the same token 0x{hold.token:x}", hold.at)
    for holds in by_lock.values():
        holds.sort(key=lambda hold: hold.held_zxid)
        for former, hold in pairwise(holds):
            yield from _overlap(former, hold, served.get(former.session, 0))
    yield from _uses(history.uses, {hold.token: hold.session for hold in history.holds})


def _overlap(former: Hold, hold: Hold, served_zxid: int) -> Iterator[Finding]:
    if former.claim == hold.claim:
        return
    what = f"{hold.claim} holds {hold.lock} as of zxid 0x{hold.held_zxid:x}"
    if hold.token <= former.token:
        yield Finding(
            "locks", f"{what} with token 0x{hold.token:x}, after {former.claim} with 0x{former.token:x}", hold.at
        )
    release = former.release
    if release is not None and not release.is_done():
        return
    if release is not None:
        if release.zxid > hold.held_zxid:
            yield Finding("locks", f"{what}, and {former.claim} was deleted at 0x{release.zxid:x} only", hold.at)
    elif served_zxid >= hold.held_zxid:
        yield Finding(
            "locks",
            f"{what}, and {former.claim}, which was not deleted, belongs to session {former.session}, which was "
            f"served as of 0x{served_zxid:x}",
            hold.at,
        )


def _uses(uses: list[Use], session_of: dict[int, int]) -> Iterator[Finding]:
    """The resource takes tokens in ascending order, each from the one session that holds it."""
    highest: dict[str, int] = {}
    for use in uses:
        if use.accepted:
            if use.token < highest.get(use.lock, 0):
                text = f"{use.lock}: token 0x{use.token:x} was accepted after 0x{highest[use.lock]:x}"
                yield Finding("locks", text, use.at)
            highest[use.lock] = max(highest.get(use.lock, 0), use.token)
        if session_of.get(use.token) != use.session:
            text = f"{use.lock}: session {use.session} came with token 0x{use.token:x}, which it does not hold"
            yield Finding("locks", text, use.at)
