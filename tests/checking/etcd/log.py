"""Histories of etcd's clients, written by hand: one call a second, each answered half a second later, and rightly.

What is right is what the checks' own model says; a test spoils it afterwards, and sees which check objects.
"""

from __future__ import annotations

from typing import Any

from quorate.checking.etcd.model import Past
from quorate.checking.etcd.order import effect
from quorate.checking.etcd.promise import findings
from quorate.checking.etcd.records import (
    EVERYTHING,
    Call,
    Delivery,
    Finding,
    History,
    Hold,
    KeepAlive,
    Request,
    Response,
    Watch,
)
from quorate.checking.etcd.watches import due
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError


class Log:
    """Calls are appended as they are named; each gives its record, to be spoiled afterwards."""

    def __init__(self) -> None:
        self.history = History()
        self.past = Past()
        self.at = 0.0
        self._values = 0
        self.everything = self.watch(EVERYTHING, EVERYTHING, 1, prev_kv=True)

    @property
    def revision(self) -> int:
        return self.past.revision

    def header(self) -> pb.ResponseHeader:
        return pb.ResponseHeader(cluster_id=1, member_id=1, revision=self.revision, raft_term=1)

    def _begin(self, request: Request, client: str = "a", **fields: Any) -> Call:
        self.at += 1.0
        call = Call(client, request, self.at, connection=1, **fields)
        self.history.calls.append(call)
        return call

    def _answer(self, call: Call, response: Response) -> Call:
        response.header.CopyFrom(self.header())
        call.response, call.returned_at = response, self.at + 0.5
        return call

    def refused(self, request: Request, error: EtcdError) -> Call:
        call = self._begin(request)
        call.error, call.returned_at = error, self.at + 0.5
        return call

    # --- keys --------------------------------------------------------------------------------

    def write(self, request: Request, **fields: Any) -> Call:
        """Answered, and told to whoever watches everything."""
        call = self._begin(request, **fields)
        response, events = effect(self.past, request, self.revision)
        if events:
            self.past.add(events)
            self.tell(self.everything)
        return self._answer(call, response)

    def lost(self, request: Request, *, done: bool) -> Call:
        """Of unknown outcome to its client, and done or not."""
        call = self._begin(request)
        if done:
            self.past.add(effect(self.past, request, self.revision)[1])
            self.tell(self.everything)
        return call

    def put(self, key: bytes, value: bytes = b"", **fields: Any) -> Call:
        return self.write(self.putting(key, value, **fields))

    def putting(self, key: bytes, value: bytes = b"", **fields: Any) -> pb.PutRequest:
        self._values += 1
        return pb.PutRequest(key=key, value=value or b"%d" % self._values, **fields)

    def read(self, key: bytes, range_end: bytes = b"", **fields: Any) -> Call:
        request = pb.RangeRequest(key=key, range_end=range_end, **fields)
        return self._answer(self._begin(request), self.past.draft(self.revision).range(request))

    def compact(self, revision: int) -> Call:
        return self._answer(self._begin(pb.CompactionRequest(revision=revision)), pb.CompactionResponse())

    # --- watches -----------------------------------------------------------------------------

    def watch(self, key: bytes, range_end: bytes = b"", start: int = 0, **fields: Any) -> Watch:
        request = pb.WatchCreateRequest(key=key, range_end=range_end, start_revision=start, **fields)
        watch = Watch("w", request, self.at)
        self.history.watches.append(watch)
        self.deliver(watch, pb.WatchResponse(header=self.header(), created=True))
        return watch

    def deliver(self, watch: Watch, response: pb.WatchResponse) -> Delivery:
        delivery = Delivery(self.at + 0.5, response)
        watch.deliveries.append(delivery)
        return delivery

    def tell(self, watch: Watch, revision: int = 0) -> Delivery:
        """The events of a revision (of the last) in a range, rightly."""
        events = list(due(watch.request, self.past, revision or self.revision, revision or self.revision))
        response = pb.WatchResponse(header=self.header(), events=events)
        if not watch.request.prev_kv:
            for event in response.events:
                event.ClearField("prev_kv")
        return self.deliver(watch, response)

    def progress(self, watch: Watch) -> Delivery:
        return self.deliver(watch, pb.WatchResponse(header=self.header()))

    # --- leases and locks --------------------------------------------------------------------

    def grant(self, lease: int, ttl_s: int) -> Call:
        request = pb.LeaseGrantRequest(ID=lease, TTL=ttl_s)
        return self._answer(self._begin(request), pb.LeaseGrantResponse(ID=lease, TTL=ttl_s))

    def keep_alive(self, lease: int, ttl_s: int) -> KeepAlive:
        self.at += 1.0
        keep_alive = KeepAlive("a", lease, self.at, self.at + 0.5, ttl_s, self.revision)
        self.history.keep_alives.append(keep_alive)
        return keep_alive

    def expire(self, lease: int) -> None:
        """A second later."""
        self.at += 1.0
        self.past.add(self.past.end_of_lease(lease, self.revision))
        self.tell(self.everything)

    def revoke(self, lease: int) -> Call:
        call = self._begin(pb.LeaseRevokeRequest(ID=lease))
        events = self.past.end_of_lease(lease, self.revision)
        if events:
            self.past.add(events)
            self.tell(self.everything)
        return self._answer(call, pb.LeaseRevokeResponse())

    def hold(self, claim: bytes, client: str = "a") -> Hold:
        """A claim `lock/...` was found to be the oldest."""
        item = self.past.get(claim, self.revision)
        assert item is not None
        hold = Hold(b"lock/", claim, client, item.create_revision, self.revision, self.at)
        self.history.holds.append(hold)
        return hold

    # --- what comes of it --------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        return findings(self.history)

    def checks(self) -> frozenset[str]:
        """The names of the checks that found something."""
        return frozenset(finding.check for finding in self.findings())
