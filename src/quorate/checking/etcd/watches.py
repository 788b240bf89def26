"""Watches: every event in its range once, in the order of revisions, over however many connections.

What a watch has been told is always an unbroken part of the order of changes, from where it began.  The events of one
revision come together.  A notification of progress says that nothing up to its revision is still to come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quorate.checking.etcd.answers import may_be_compacted
from quorate.checking.etcd.evidence import Evidence
from quorate.checking.etcd.model import Past, is_within
from quorate.checking.etcd.order import Order
from quorate.checking.etcd.records import Call, Delivery, Finding, History, Watch
from quorate.checking.etcd.texts import events_text, name_of
from quorate.services.etcd.etcd_pb2 import CompactionRequest, Event, WatchCreateRequest


def check_watches(history: History, evidence: Evidence, order: Order) -> Iterator[Finding]:
    compactions = [call for call in history.calls if isinstance(call.request, CompactionRequest)]
    for watch in history.watches:
        yield from _Reader(watch, order.past, evidence, compactions).findings()


def due(request: WatchCreateRequest, past: Past, first: int, last: int) -> Iterator[Event]:
    """What a watch is to be told of the revisions from `first` to `last`, each event with what was before."""
    for revision in range(first, min(last, past.revision) + 1):
        for event in past.changes(revision):
            if is_within(event.kv.key, request.key, request.range_end) and not _is_filtered(request, event):
                yield event


def _is_filtered(request: WatchCreateRequest, event: Event) -> bool:
    unwanted = WatchCreateRequest.NOPUT if event.type == Event.PUT else WatchCreateRequest.NODELETE
    return unwanted in request.filters


class _Reader:
    """Goes through what one watch was told."""

    def __init__(self, watch: Watch, past: Past, evidence: Evidence, compactions: Sequence[Call]) -> None:
        self._watch = watch
        self._past = past
        self._evidence = evidence
        self._compactions = compactions
        self._next = watch.request.start_revision
        """The first revision of which it has not been told; 0 while that is open."""
        self._half_blind = 0
        """A compacted revision at which it began: deletions at it cannot be read any more."""

    def findings(self) -> Iterator[Finding]:
        """Up to the first thing that is wrong: what follows from that is of no interest."""
        for delivery in self._watch.deliveries:
            trouble = self._trouble(delivery)
            if trouble:
                what = self._watch.request
                name = f"watch of {name_of(what.key, what.range_end)} of {self._watch.client}"
                text = f"{name}, set at {self._watch.asked_at:.6f} s from revision {what.start_revision}, {trouble}"
                yield Finding("watches", text, delivery.at, self._watch.client)
                return

    def _trouble(self, delivery: Delivery) -> str:
        response = delivery.response
        if response.created and not self._next:
            self._next = response.header.revision + 1
        if response.created and self._compacted_by(delivery.at) >= self._next:
            self._half_blind = self._next
        if response.canceled:
            return self._wrong_end(delivery)
        if response.events:
            return self._wrong_events(delivery)
        if response.created:
            return ""
        missing = self._due(response.header.revision)
        if missing:
            at = missing[0].kv.mod_revision
            return f"was told of progress up to {response.header.revision}, and not of revision {at}"
        self._next = max(self._next, response.header.revision + 1)
        return ""

    def _due(self, last: int) -> list[Event]:
        return [
            event
            for event in due(self._watch.request, self._past, self._next, last)
            if event.type == Event.PUT or event.kv.mod_revision != self._half_blind
        ]

    def _wrong_events(self, delivery: Delivery) -> str:
        response = delivery.response
        told = list(response.events)
        last = max(event.kv.mod_revision for event in told)
        if last > response.header.revision:
            return f"was told of revision {last} under a header of revision {response.header.revision}"
        expected = self._due(last)
        if told and told[0].kv.mod_revision == self._half_blind and len(told) > len(expected):
            # This member had not compacted yet.
            expected = list(due(self._watch.request, self._past, self._next, last))
        text = f"from revision {self._next} on, was told of {events_text(told)}, expected {events_text(expected)}"
        if len(told) != len(expected):
            return text
        for event, right in zip(told, expected, strict=True):
            if (event.type, event.kv) != (right.type, right.kv):
                return text
            if problem := self._wrong_previous(event, right, delivery.at):
                return problem
        self._next = last + 1
        return ""

    def _wrong_previous(self, event: Event, right: Event, at: float) -> str:
        """What was before is as of the revision before; where that may be compacted, it may be missing."""
        had = event.HasField("prev_kv")
        text = f"was told of revision {event.kv.mod_revision} and before it <{' '.join(str(event.prev_kv).split())}>"
        if not self._watch.request.prev_kv:
            return f"{text}, for which it did not ask" if had else ""
        if had:
            return (
                ""
                if right.HasField("prev_kv") and event.prev_kv == right.prev_kv
                else f"{text}, expected " + (f"<{' '.join(str(right.prev_kv).split())}>")
            )
        may_be_gone = self._compacted_by(at) >= event.kv.mod_revision
        return "" if may_be_gone or not right.HasField("prev_kv") else f"{text}, though there was something"

    def _wrong_end(self, delivery: Delivery) -> str:
        response = delivery.response
        if not response.compact_revision:
            return "" if self._watch.cancelled else f"was cancelled by the server: {response.cancel_reason}"
        if not any(may_be_compacted(call, delivery.at) == response.compact_revision for call in self._compactions):
            return f"was cancelled as compacted at {response.compact_revision}, which nobody asked for"
        if self._next > response.compact_revision:
            return f"was cancelled as compacted at {response.compact_revision}, and was to go on from {self._next}"
        return ""

    def _compacted_by(self, at: float) -> int:
        return max((may_be_compacted(call, at) for call in self._compactions), default=0)
