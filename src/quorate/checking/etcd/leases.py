"""Leases: one that was vouched for lasts for its TTL, and takes all of its keys when it ends.

That its keys go together, in one revision, and only then, is what `order` finds causes for.  Here is when.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from quorate.checking.etcd.evidence import Evidence
from quorate.checking.etcd.order import Order
from quorate.checking.etcd.records import Call, Finding, History, KeepAlive
from quorate.checking.etcd.texts import finding, puts_of
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.etcd_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)

FASTEST_CLOCK: Final = 1.1
"""No server's clock is expected to run faster than so many times true time."""


@dataclass(slots=True)
class Lease:
    """All that is known of one."""

    number: int
    granted: Call | None = None
    """Where that was answered."""
    vouched: list[tuple[float, int]] = field(default_factory=list)
    """When what was answered was sent, and the TTL in the answer, in seconds."""
    revokes: list[Call] = field(default_factory=list)
    """But for those that certainly were not done."""

    def lasts_until(self) -> float:
        """True time up to which it lives for sure, unless it is revoked."""
        return max((at + ttl_s / FASTEST_CLOCK for at, ttl_s in self.vouched), default=0.0)

    def may_be_gone(self, asked_at: float, by: float) -> bool:
        """Whether who asked from one time to another can have found no such lease."""
        if self.granted is None or (self.granted.returned_at or 0.0) >= asked_at:
            return True
        return self.lasts_until() <= by or any(call.invoked_at < by for call in self.revokes)


def check_leases(history: History, evidence: Evidence, order: Order) -> Iterator[Finding]:
    leases = _gather(history)
    for number, revision in order.ended.items():
        if number in leases:
            yield from _check_end(leases[number], revision, evidence)
    yield from _check_use(history, leases, order)
    for lease in leases.values():
        yield from _check_revokes(lease, order)
    for keep_alive in history.keep_alives:
        yield from _check_keep_alive(keep_alive, leases, order, evidence)
    yield from _check_answers(history, leases, order)


def _gather(history: History) -> dict[int, Lease]:
    leases: dict[int, Lease] = {}
    for call in history.calls:
        if isinstance(call.request, LeaseGrantRequest):
            number = call.response.ID if isinstance(call.response, LeaseGrantResponse) else call.request.ID
            if not number or call.error is not None:
                continue
            lease = leases.setdefault(number, Lease(number))
            if isinstance(call.response, LeaseGrantResponse):
                lease.granted = call
                lease.vouched.append((call.invoked_at, call.response.TTL))
        elif isinstance(call.request, LeaseRevokeRequest) and call.error is None:
            leases.setdefault(call.request.ID, Lease(call.request.ID)).revokes.append(call)
    for keep_alive in history.keep_alives:
        if keep_alive.ttl_s > 0:
            lease = leases.setdefault(keep_alive.lease, Lease(keep_alive.lease))
            lease.vouched.append((keep_alive.sent_at, keep_alive.ttl_s))
    return leases


def _check_end(lease: Lease, revision: int, evidence: Evidence) -> Iterator[Finding]:
    """Seen to be over no earlier than it may end."""
    seen = evidence.first_seen(revision)
    if lease.lasts_until() > seen and not any(call.invoked_at < seen for call in lease.revokes):
        at, ttl_s = max(lease.vouched, key=lambda vouched: vouched[0] + vouched[1] / FASTEST_CLOCK)
        text = (
            f"lease {lease.number:x} with a TTL of {ttl_s} s took its keys with it at revision {revision}, seen at "
            f"{seen:.6f} s, though what was sent at {at:.6f} s had prolonged it"
        )
        yield Finding("leases", text, seen, "" if lease.granted is None else lease.granted.client)


def _check_use(history: History, leases: dict[int, Lease], order: Order) -> Iterator[Finding]:
    """Keys are put under leases that are there, and refused only where there is none."""
    ended = dict(order.ended)
    for lease in leases.values():
        for call in lease.revokes:
            if call.response is not None:
                ended[lease.number] = min(ended.get(lease.number, call.revision), call.revision)
    for revision in range(2, order.past.revision + 1):
        for event in order.past.changes(revision):
            number = event.kv.lease
            if number and ended.get(number, revision) < revision:
                text = f"revision {revision} put a key under lease {number:x}, which had ended by {ended[number]}"
                yield Finding("leases", text)
    for call in history.calls:
        if call.error is EtcdError.LEASE_NOT_FOUND and call.returned_at is not None:
            numbers = [put.lease for put in puts_of(call.request) if put.lease]
            if isinstance(call.request, LeaseRevokeRequest):
                numbers = [call.request.ID]
            known = [leases[number] for number in numbers if number in leases]
            if known and not any(lease.may_be_gone(call.invoked_at, call.returned_at) for lease in known):
                yield finding("leases", call, "was told that there is no such lease, which must live still")


def _check_revokes(lease: Lease, order: Order) -> Iterator[Finding]:
    for call in lease.revokes:
        if call.response is not None:
            left = order.past.attached(lease.number, min(call.revision, order.past.revision))
            if left:
                yield finding("leases", call, f"was done at revision {call.revision}, and left {left}")


def _check_keep_alive(
    keep_alive: KeepAlive, leases: dict[int, Lease], order: Order, evidence: Evidence
) -> Iterator[Finding]:
    lease = leases.get(keep_alive.lease)
    if lease is None:
        return
    what = f"keep-alive of lease {lease.number:x}, sent at {keep_alive.sent_at:.6f} s"
    if keep_alive.ttl_s <= 0:
        if not lease.may_be_gone(keep_alive.sent_at, keep_alive.returned_at):
            text = f"{what}, was told that there is no such lease, which must live still"
            yield Finding("leases", text, keep_alive.returned_at, keep_alive.client)
        return
    end = order.ended.get(lease.number)
    over = None if end is None else evidence.first_seen(end)
    for call in lease.revokes:
        if call.response is not None and call.returned_at is not None:
            over = call.returned_at if over is None else min(over, call.returned_at)
    if over is not None and over < keep_alive.sent_at:
        text = f"{what}, was answered, though the lease had ended by {over:.6f} s"
        yield Finding("leases", text, keep_alive.returned_at, keep_alive.client)


def _check_answers(history: History, leases: dict[int, Lease], order: Order) -> Iterator[Finding]:
    """What is told of a lease, and of which leases there are."""
    unnamed = sum(
        isinstance(call.request, LeaseGrantRequest) and call.is_unknown() and not call.request.ID
        for call in history.calls
    )
    for call in history.calls:
        response = call.response
        if isinstance(response, LeaseLeasesResponse):
            strange = [status.ID for status in response.leases if status.ID not in leases]
            if len(strange) > unnamed:
                yield finding("leases", call, f"was told of {len(strange)} leases that nobody was granted")
        elif isinstance(response, LeaseTimeToLiveResponse):
            yield from _check_time_to_live(call, response, leases, order)


def _check_time_to_live(
    call: Call, response: LeaseTimeToLiveResponse, leases: dict[int, Lease], order: Order
) -> Iterator[Finding]:
    assert isinstance(call.request, LeaseTimeToLiveRequest)
    lease = leases.get(call.request.ID)
    if lease is None:
        return
    if response.TTL < 0:
        if not lease.may_be_gone(call.invoked_at, call.returned_at or 0.0):
            yield finding("leases", call, "was told that there is no such lease, which must live still")
    elif response.grantedTTL < response.TTL:
        yield finding("leases", call, f"was told of {response.TTL} s left of {response.grantedTTL} s")
    elif call.request.keys:
        keys = order.past.attached(lease.number, call.revision)
        if sorted(response.keys) != keys:
            yield finding(
                "leases", call, f"was told as of revision {call.revision} of {response.keys}, expected {keys}"
            )
