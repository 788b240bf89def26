"""The order of all changes, put together of what clients know; and that each has exactly one cause.

At each revision, in turn: the write that was answered with it did what the model says it does to the state before.
Where no write was, a watch of the whole keyspace says what happened; that must be just what one write of unknown
outcome would do, or the end of one lease.  A write of unknown outcome may have happened at any revision that was not
shown to anybody before it was sent, but only once: so where several could have done the same (deletions have no values
of their own), each revision needs one of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from quorate.checking.etcd.evidence import Evidence
from quorate.checking.etcd.model import Impossible, Past
from quorate.checking.etcd.records import EVERYTHING, Call, Finding, History, Request, Response
from quorate.checking.etcd.texts import call_text, events_text, finding, is_change, is_write, puts_of
from quorate.services.etcd.etcd_pb2 import (
    DeleteRangeRequest,
    Event,
    KeyValue,
    LeaseRevokeRequest,
    PutRequest,
    TxnRequest,
    TxnResponse,
)


@dataclass(slots=True)
class Order:
    """What `rebuild` made out."""

    past: Past = field(default_factory=Past)
    ended: dict[int, int] = field(default_factory=dict)
    """Lease to the revision at which its end took its keys, where nothing else can have."""
    seen: dict[Call, int] = field(default_factory=dict)
    """Writes of unknown outcome that were done, and at which revision; of several that may have been, one."""
    findings: list[Finding] = field(default_factory=list)


def without_headers(response: Response) -> Response:
    """A copy that can be compared with the model's answers."""
    bare = deepcopy(response)
    _strip(bare)
    return bare


def _strip(response: Response) -> None:
    response.ClearField("header")
    if isinstance(response, TxnResponse):
        for op in response.responses:
            kind = op.WhichOneof("response")
            if kind is not None:
                _strip(getattr(op, kind))


def effect(past: Past, request: Request, base: int) -> tuple[Response, list[Event]]:
    """What a write answers, and does, as the next revision after `base`.  Raises Impossible."""
    draft = past.draft(base)
    response: Response
    if isinstance(request, PutRequest):
        response = draft.put(request)
    elif isinstance(request, DeleteRangeRequest):
        response = draft.delete(request)
    else:
        assert isinstance(request, TxnRequest), request
        response = draft.txn(request)
    return response, draft.events


def rebuild(history: History, evidence: Evidence) -> Order:
    builder = _Builder(history, evidence)
    for revision in range(builder.order.past.revision + 1, evidence.latest + 1):
        builder.step(revision)
    builder.match()
    return builder.order


class _Builder:
    def __init__(self, history: History, evidence: Evidence) -> None:
        self.order = Order()
        self._evidence = evidence
        self._done: dict[int, Call] = {}
        """Changes that were answered, by revision."""
        self._writers: dict[bytes, Call] = {}
        """Writes of unknown outcome by the values that they put."""
        self._nameless: list[Call] = []
        """Those of unknown outcome that may do something without a value of their own."""
        self._revoked: defaultdict[int, list[int]] = defaultdict(list)
        """Leases that were revoked, by the revision in the answer."""
        self._open: dict[int, list[Call]] = {}
        """Revisions without an answer: who may have done it."""
        self._observed = _observed(history)
        for call in history.calls:
            self._sort_in(call)

    def _sort_in(self, call: Call) -> None:
        if isinstance(call.request, LeaseRevokeRequest) and call.response is not None:
            self._revoked[call.revision].append(call.request.ID)
        elif is_change(call):
            other = self._done.setdefault(call.revision, call)
            if other is not call:
                text = f"was done at revision {call.revision}, as was {call_text(other).removesuffix(',')}"
                self.order.findings.append(finding("writes", call, text))
        elif call.is_unknown() and is_write(call.request):
            self._writers.update((put.value, call) for put in puts_of(call.request) if not put.ignore_value)
            if not isinstance(call.request, PutRequest) or call.request.ignore_value:
                self._nameless.append(call)

    # --- one revision ------------------------------------------------------------------------

    def step(self, revision: int) -> None:
        past = self.order.past
        observed = self._observed.get(revision)
        call = self._done.get(revision)
        if call is not None:
            past.add(self._answered(call, revision))
            return
        if observed is None:
            for lease in self._revoked.get(revision, ()):
                if past.attached(lease, revision - 1):
                    past.add(past.end_of_lease(lease, revision - 1))
                    self.order.ended[lease] = revision
                    return
            self._blame(revision, "what happened is not known to anybody: no write has it, and no watch was told of it")
            past.add(())
            return
        self._explain(revision, observed)
        past.add(_with_past(past, observed, revision))

    def _answered(self, call: Call, revision: int) -> Sequence[Event]:
        """What a write did, as it was answered."""
        assert call.response is not None
        try:
            response, events = effect(self.order.past, call.request, revision - 1)
        except Impossible as impossible:
            text = f"was done at revision {revision}, though then it must fail: {impossible}"
            self.order.findings.append(finding("writes", call, text))
            return _with_past(self.order.past, self._observed.get(revision, ()), revision)
        answered = without_headers(call.response)
        if answered != response:
            text = f"was answered at revision {revision} with <{_one_line(answered)}>, expected <{_one_line(response)}>"
            self.order.findings.append(finding("writes", call, text))
        return events

    def _explain(self, revision: int, observed: tuple[Event, ...]) -> None:
        past = self.order.past
        puts = [event for event in observed if event.type == Event.PUT]
        writer = self._writers.get(puts[0].kv.value) if puts else None
        # A value may be kept by a put that ignores it, so its writer need not be who put it there.
        candidates = self._nameless if writer is None else [writer, *self._nameless]
        fitting = [call for call in dict.fromkeys(candidates) if self._fits(call, revision, observed)]
        lease = self._lease_that_ends(revision, observed)
        if fitting:
            if not lease:
                self._open[revision] = fitting
        elif lease:
            self.order.ended[lease] = revision
        else:
            what = events_text(observed)
            if puts or not any(item.lease for item in _before(past, observed, revision)):
                self._blame(revision, f"nobody asked for what happened: {what}")
            else:
                self._blame(revision, f"neither did anybody ask for it nor is it the end of a lease: {what}", "leases")

    def _fits(self, call: Call, revision: int, observed: tuple[Event, ...]) -> bool:
        if self._evidence.before(call.invoked_at) >= revision:
            return False
        try:
            _, events = effect(self.order.past, call.request, revision - 1)
        except Impossible:
            return False
        return [_bare(event) for event in events] == [_bare(event) for event in observed]

    def _lease_that_ends(self, revision: int, observed: tuple[Event, ...]) -> int:
        """The lease of which all keys are deleted, and nothing else; 0 where it is none."""
        if any(event.type == Event.PUT for event in observed):
            return 0
        leases = {item.lease for item in _before(self.order.past, observed, revision)}
        lease = leases.pop() if len(leases) == 1 else 0
        gone = sorted(event.kv.key for event in observed)
        return lease if lease and self.order.past.attached(lease, revision - 1) == gone else 0

    def _blame(self, revision: int, text: str, check: str = "writes") -> None:
        at = self._evidence.first_seen(revision)
        self.order.findings.append(Finding(check, f"revision {revision}: {text}", at))

    # --- each cause once ---------------------------------------------------------------------

    def match(self) -> None:
        """Give each revision that has none a write of its own (augmenting paths, as of Kuhn)."""
        taken: dict[Call, int] = {}

        def place(revision: int, tried: set[Call]) -> bool:
            for call in self._open[revision]:
                if call not in tried:
                    tried.add(call)
                    if call not in taken or place(taken[call], tried):
                        taken[call] = revision
                        return True
            return False

        for revision in self._open:
            if not place(revision, set()):
                who = "; ".join(call_text(call).removesuffix(",") for call in self._open[revision])
                self._blame(revision, f"who may have done it has been done at another revision already: {who}")
        self.order.seen = taken


def _observed(history: History) -> dict[int, tuple[Event, ...]]:
    """What the watches of the whole keyspace told of each revision; the first one counts."""
    told: dict[int, tuple[Event, ...]] = {}
    for watch in history.watches:
        if (watch.request.key, watch.request.range_end) == (EVERYTHING, EVERYTHING) and not watch.request.filters:
            for delivery in watch.deliveries:
                by_revision: defaultdict[int, list[Event]] = defaultdict(list)
                for event in delivery.response.events:
                    by_revision[event.kv.mod_revision].append(event)
                for revision, events in by_revision.items():
                    told.setdefault(revision, tuple(events))
    return told


def _before(past: Past, events: Sequence[Event], revision: int) -> Iterator[KeyValue]:
    """What the keys held before, of those that were there."""
    for event in events:
        item = past.get(event.kv.key, revision - 1)
        if item is not None:
            yield item


def _with_past(past: Past, events: Sequence[Event], revision: int) -> list[Event]:
    """Events with what was there before, whatever the watch told of that."""
    return [Event(type=event.type, kv=event.kv, prev_kv=past.get(event.kv.key, revision - 1)) for event in events]


def _bare(event: Event) -> tuple[object, ...]:
    return event.type, event.kv.SerializeToString(deterministic=True)


def _one_line(message: Response) -> str:
    return " ".join(str(message).split())
