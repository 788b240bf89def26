"""Every answer is the right one as of the revision in its header, and that revision is new enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from quorate.checking.etcd.evidence import Evidence
from quorate.checking.etcd.model import FIRST_REVISION, Impossible
from quorate.checking.etcd.order import Order, effect, without_headers
from quorate.checking.etcd.records import Call, Finding, History, Response
from quorate.checking.etcd.texts import events_text, finding, is_change, is_write
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.etcd_pb2 import (
    CompactionRequest,
    LeaseLeasesRequest,
    RangeRequest,
    RangeResponse,
)

MOST_SHOWN: Final = 300
"""Letters of an answer in a finding."""


def check_real_time(history: History, evidence: Evidence) -> Iterator[Finding]:
    """What is asked for after something was shown to anybody is not older than that; a change is newer.

    Only a serializable read may be older, and the list of leases, which any member gives as it knows it.
    """
    for call in history.calls:
        if call.response is None or _may_be_old(call):
            continue
        before = evidence.before(call.invoked_at)
        if is_change(call):
            if call.revision <= before:
                text = f"was done at revision {call.revision}, though {before} had been shown before it was sent"
                yield finding("linearizable writes", call, text)
        elif call.revision < before:
            text = f"was answered as of revision {call.revision}, though {before} had been shown before it was sent"
            yield finding("linearizable reads", call, text)


def _may_be_old(call: Call) -> bool:
    request = call.request
    return isinstance(request, LeaseLeasesRequest) or (isinstance(request, RangeRequest) and request.serializable)


def check_connections(history: History) -> Iterator[Finding]:
    """On one connection, which is with one life of one member, revisions never go back."""
    answered = sorted(
        (call for call in history.calls if call.response is not None), key=lambda call: call.returned_at or 0.0
    )
    by_start = sorted(answered, key=lambda call: call.invoked_at)
    highest: dict[int, int] = {}
    ended = 0
    for call in by_start:
        while ended < len(answered) and (answered[ended].returned_at or 0.0) < call.invoked_at:
            former = answered[ended]
            highest[former.connection] = max(highest.get(former.connection, 0), former.revision)
            ended += 1
        before = highest.get(call.connection, 0)
        if call.revision < before:
            text = f"was answered as of revision {call.revision}, after {before} on the same connection"
            yield finding("monotonic reads", call, text)


def check_answers(history: History, evidence: Evidence, order: Order) -> Iterator[Finding]:
    """The answers of all but changes, which `order.rebuild` has held against the model already."""
    for call in history.calls:
        request, response = call.request, call.response
        if response is None:
            continue
        if call.revision < FIRST_REVISION:
            yield finding("answers", call, f"was answered as of revision {call.revision}")
        elif isinstance(request, RangeRequest):
            assert isinstance(response, RangeResponse)
            yield from _check_range(call, request, response, order)
        elif is_write(request) and not is_change(call):
            yield from _check_no_change(call, response, order)
        elif isinstance(request, CompactionRequest) and request.revision > call.revision:
            yield finding("compaction", call, f"was done as of revision {call.revision}")


def _check_range(call: Call, request: RangeRequest, response: RangeResponse, order: Order) -> Iterator[Finding]:
    if request.revision > call.revision:
        yield finding("reads", call, f"was answered as of revision {call.revision}")
        return
    expected = order.past.draft(call.revision).range(request)
    answered = without_headers(response)
    if answered != expected:
        yield finding("reads", call, _difference(call, answered, expected))


def _check_no_change(call: Call, response: Response, order: Order) -> Iterator[Finding]:
    try:
        expected, events = effect(order.past, call.request, call.revision)
    except Impossible as impossible:
        text = f"was answered as of revision {call.revision}, though then it must fail: {impossible}"
        yield finding("writes", call, text)
        return
    answered = without_headers(response)
    if events:
        yield finding("writes", call, f"changed nothing as of revision {call.revision}, expected {events_text(events)}")
    elif answered != expected:
        yield finding("writes", call, _difference(call, answered, expected))


def _difference(call: Call, answered: Response, expected: Response) -> str:
    return f"was answered as of revision {call.revision} with <{_short(answered)}>, expected <{_short(expected)}>"


def _short(response: Response) -> str:
    text = " ".join(str(response).split())
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."


# --- refusals ------------------------------------------------------------------------------------


def check_refusals(history: History, evidence: Evidence, order: Order) -> Iterator[Finding]:
    """What was refused for the state that it found can have found such a state; leases are `leases`' affair."""
    compactions = [call for call in history.calls if isinstance(call.request, CompactionRequest)]
    for call in history.calls:
        if call.error is EtcdError.COMPACTED:
            yield from _check_compacted(call, compactions)
        elif call.error is EtcdError.FUTURE_REVISION:
            asked = call.request.revision if isinstance(call.request, RangeRequest | CompactionRequest) else 0
            before = evidence.before(call.invoked_at)
            if asked <= before and not _may_be_old(call):
                yield finding("answers", call, f"was refused as of the future, though {before} had been shown before")
        elif call.error is EtcdError.KEY_NOT_FOUND:
            if not _may_be_refused(call, evidence, order):
                yield finding("answers", call, "was refused, as if there were no such key")
        elif isinstance(call.request, RangeRequest) and call.response is not None:
            yield from _check_not_compacted(call, call.request, compactions)


def _check_compacted(call: Call, compactions: list[Call]) -> Iterator[Finding]:
    """Somebody asked for a compaction that explains it."""
    request = call.request
    if isinstance(request, RangeRequest):
        least = request.revision + 1
    elif isinstance(request, CompactionRequest):
        least = request.revision
    else:
        least = 0
    if not any(may_be_compacted(other, call.returned_at or 0.0) >= least for other in compactions if other is not call):
        yield finding("compaction", call, "was refused as compacted, and nobody asked for that")


def may_be_compacted(compaction: Call, by: float) -> int:
    """Up to which revision a request may have compacted by a time; 0 where it has not."""
    assert isinstance(compaction.request, CompactionRequest)
    return compaction.request.revision if compaction.error is None and compaction.invoked_at < by else 0


def _check_not_compacted(call: Call, request: RangeRequest, compactions: list[Call]) -> Iterator[Finding]:
    if request.serializable or not request.revision:
        return
    for other in compactions:
        if other.response is not None and (other.returned_at or 0.0) < call.invoked_at:
            assert isinstance(other.request, CompactionRequest)
            if other.request.revision > request.revision:
                text = f"was answered, though {other.request.revision} had been compacted before it was sent"
                yield finding("compaction", call, text)
                return


def _may_be_refused(call: Call, evidence: Evidence, order: Order) -> bool:
    """Whether one of the states that it may have found refuses it."""

    def refuses(revision: int) -> bool:
        try:
            effect(order.past, call.request, revision)
        except Impossible as impossible:
            return impossible.error is call.error
        return False

    return any_state(call, evidence, refuses)


def any_state(call: Call, evidence: Evidence, holds: Callable[[int], bool]) -> bool:
    """Whether something holds at one of the revisions that an answered call may have found."""
    first = max(FIRST_REVISION, evidence.before(call.invoked_at))
    last = max(first, evidence.until(call.returned_at or call.invoked_at))
    return any(holds(revision) for revision in range(first, last + 1))
