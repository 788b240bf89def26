"""Locks by claims under leases, of which the oldest holds; what a holder writes, it writes if its claim is still there.

Source: etcd's `concurrency` recipes: a claim's create revision is its place in the line, and its fencing token.
"""

from __future__ import annotations

from collections.abc import Iterator

from quorate.checking.etcd.model import is_within
from quorate.checking.etcd.order import Order
from quorate.checking.etcd.records import Call, Finding, History, Hold, Use
from quorate.checking.etcd.texts import finding, is_change
from quorate.services.etcd.etcd_pb2 import Compare, TxnRequest


def check_locks(history: History, order: Order) -> Iterator[Finding]:
    """In the order of revisions no two claims hold a lock at once, and holders' tokens grow.

    A claim that was the oldest stays the oldest until it is gone, because later ones have higher create revisions.  So
    a fenced write that was done is the holder's, if at its revision the claim with its token is the oldest.  What is
    outside of the cluster takes tokens in ascending order: a former holder that does not know may still come, in real
    time, and is refused as soon as the next one was there.
    """
    by_token: dict[int, Hold] = {}
    for hold in history.holds:
        first = by_token.setdefault(hold.token, hold)
        if first.claim != hold.claim:
            text = f"{first.claim!r} and {hold.claim!r} have the same token {hold.token}"
            yield Finding("locks", text, hold.at, hold.client)
        if not _is_oldest(hold, hold.held_revision, order):
            text = f"{hold.claim!r} holds as of revision {hold.held_revision}, and is not the oldest claim then"
            yield Finding("locks", text, hold.at, hold.client)
    locks = {(hold.token, hold.claim): hold for hold in history.holds}
    for call in history.calls:
        revision = call.revision if is_change(call) else order.seen.get(call, 0)
        fenced = _fence(call)
        if not revision or fenced is None or fenced not in locks:
            continue
        if not _is_oldest(locks[fenced], revision - 1, order):
            yield finding("locks", call, f"was done at revision {revision}, when its claim was not the oldest")
    yield from _check_uses(history.uses, by_token)


def _is_oldest(hold: Hold, revision: int, order: Order) -> bool:
    range_end = hold.lock[:-1] + bytes([hold.lock[-1] + 1])
    assert is_within(hold.claim, hold.lock, range_end)
    claims = order.past.find(hold.lock, range_end, revision)
    oldest = min(claims, key=lambda item: item.create_revision, default=None)
    return oldest is not None and (oldest.key, oldest.create_revision) == (hold.claim, hold.token)


def _fence(call: Call) -> tuple[int, bytes] | None:
    """The token and the claim without which a transaction would not be done."""
    if isinstance(call.request, TxnRequest):
        for compare in call.request.compare:
            if compare.target == Compare.CREATE and compare.result == Compare.EQUAL and compare.create_revision:
                return compare.create_revision, compare.key
    return None


def _check_uses(uses: list[Use], by_token: dict[int, Hold]) -> Iterator[Finding]:
    highest: dict[bytes, int] = {}
    for use in uses:
        if use.accepted:
            if use.token < highest.get(use.lock, 0):
                text = f"{use.lock!r}: token {use.token} was accepted after {highest[use.lock]}"
                yield Finding("locks", text, use.at, use.client)
            highest[use.lock] = max(highest.get(use.lock, 0), use.token)
        hold = by_token.get(use.token)
        if hold is None or hold.client != use.client:
            text = f"{use.lock!r}: {use.client} came with token {use.token}, which it does not hold"
            yield Finding("locks", text, use.at, use.client)
