"""The keyspace as etcd's documents say it is, in the plainest way: what every request must be answered with.

Every version of every key is kept, by revision, and nothing is ever forgotten: what a compaction allows to be refused
is for `answers` to say.  Answers are made without headers, at all depths.

Source: etcd's documentation, "API reference" and "Data model"; behaviour of etcd 3.4.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from quorate.checking.etcd.records import EVERYTHING
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.etcd_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)

FIRST_REVISION: Final = 1
"""Of the empty keyspace."""


class Impossible(Exception):
    """The request must have been refused, and why."""

    def __init__(self, error: EtcdError) -> None:
        super().__init__(error.message)
        self.error = error


def is_within(name: bytes, key: bytes, range_end: bytes) -> bool:
    """Whether a range has the key `name` in it."""
    if not range_end:
        return name == key
    return key <= name and (range_end == EVERYTHING or name < range_end)


class Past:
    """The keyspace at each revision."""

    def __init__(self) -> None:
        self.revision = FIRST_REVISION
        self._changes: list[tuple[Event, ...]] = []
        """From the second revision on."""
        self._names: list[bytes] = []
        self._revisions: dict[bytes, list[int]] = {}
        self._versions: dict[bytes, list[KeyValue | None]] = {}
        """Beside `_revisions`; None where the key was deleted."""

    def add(self, events: Iterable[Event]) -> None:
        """What happened at the next revision; each event with `prev_kv`."""
        self.revision += 1
        changes = tuple(events)
        self._changes.append(changes)
        for event in changes:
            name = event.kv.key
            if name not in self._versions:
                insort(self._names, name)
                self._revisions[name], self._versions[name] = [], []
            self._revisions[name].append(self.revision)
            self._versions[name].append(event.kv if event.type == Event.PUT else None)

    def changes(self, revision: int) -> tuple[Event, ...]:
        return self._changes[revision - FIRST_REVISION - 1] if revision > FIRST_REVISION else ()

    def get(self, name: bytes, revision: int) -> KeyValue | None:
        place = bisect_right(self._revisions.get(name, ()), revision)
        return self._versions[name][place - 1] if place else None

    def find(self, key: bytes, range_end: bytes, revision: int) -> list[KeyValue]:
        """In the order of keys."""
        if not range_end:
            names = [key]
        else:
            end = len(self._names) if range_end == EVERYTHING else bisect_left(self._names, range_end)
            names = self._names[bisect_left(self._names, key) : end]
        return [found for name in names if (found := self.get(name, revision)) is not None]

    def attached(self, lease: int, revision: int) -> list[bytes]:
        """The keys of a lease, in their order."""
        return [found.key for found in self.find(EVERYTHING, EVERYTHING, revision) if found.lease == lease]

    def draft(self, revision: int) -> Draft:
        """What may be changed on top of a revision."""
        return Draft(self, revision)

    def end_of_lease(self, lease: int, revision: int) -> list[Event]:
        """What the end of a lease would do as the next revision."""
        draft = self.draft(revision)
        for name in self.attached(lease, revision):
            draft.delete(DeleteRangeRequest(key=name))
        return draft.events


class Draft:
    """One request as the next revision after `base`.  It sees what it has changed itself."""

    def __init__(self, past: Past, base: int) -> None:
        self._past = past
        self._base = base
        self._own: dict[bytes, KeyValue | None] = {}
        self.events: list[Event] = []
        """What it changed so far, in order, each with `prev_kv`."""

    def find(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        """In the order of keys."""
        found = {item.key: item for item in self._past.find(key, range_end, self._base)}
        for name, item in self._own.items():
            if is_within(name, key, range_end):
                if item is None:
                    found.pop(name, None)
                else:
                    found[name] = item
        return [item for _, item in sorted(found.items())]

    def range(self, request: RangeRequest) -> RangeResponse:
        """As of the draft, or of the revision asked for."""
        if request.revision > 0:
            return answer_range(request, self._past.find(request.key, request.range_end, request.revision))
        return answer_range(request, self.find(request.key, request.range_end))

    def put(self, request: PutRequest) -> PutResponse:
        """Raises Impossible."""
        found = self.find(request.key, b"")
        before = found[0] if found else None
        if before is None and (request.ignore_value or request.ignore_lease):
            raise Impossible(EtcdError.KEY_NOT_FOUND)
        revision = self._base + 1
        made = KeyValue(
            key=request.key,
            value=before.value if before and request.ignore_value else request.value,
            lease=before.lease if before and request.ignore_lease else request.lease,
            create_revision=before.create_revision if before else revision,
            mod_revision=revision,
            version=before.version + 1 if before else 1,
        )
        self._own[request.key] = made
        self.events.append(Event(type=Event.PUT, kv=made, prev_kv=before))
        return PutResponse(prev_kv=before if request.prev_kv else None)

    def delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        found = self.find(request.key, request.range_end)
        for item in found:
            self._own[item.key] = None
            tombstone = KeyValue(key=item.key, mod_revision=self._base + 1)
            self.events.append(Event(type=Event.DELETE, kv=tombstone, prev_kv=item))
        return DeleteRangeResponse(deleted=len(found), prev_kvs=found if request.prev_kv else ())

    def txn(self, request: TxnRequest) -> TxnResponse:
        """Raises Impossible.  All compares, of nested transactions too, are of the state before the first change."""
        return self._do(request, self._branches(request))

    def _branches(self, request: TxnRequest) -> list[bool]:
        """Which way each transaction goes, in the order in which they are come to."""
        succeeded = all(self._holds(compare) for compare in request.compare)
        branches = [succeeded]
        for op in request.success if succeeded else request.failure:
            if op.HasField("request_txn"):
                branches += self._branches(op.request_txn)
        return branches

    def _do(self, request: TxnRequest, branches: list[bool]) -> TxnResponse:
        succeeded = branches.pop(0)
        responses = []
        for op in request.success if succeeded else request.failure:
            if op.HasField("request_range"):
                responses.append(ResponseOp(response_range=self.range(op.request_range)))
            elif op.HasField("request_put"):
                responses.append(ResponseOp(response_put=self.put(op.request_put)))
            elif op.HasField("request_delete_range"):
                responses.append(ResponseOp(response_delete_range=self.delete(op.request_delete_range)))
            else:
                responses.append(ResponseOp(response_txn=self._do(op.request_txn, branches)))
        return TxnResponse(succeeded=succeeded, responses=responses)

    def _holds(self, compare: Compare) -> bool:
        """Of a range, it must hold for every key; of no key at all, values never compare, and numbers are 0."""
        found = self.find(compare.key, compare.range_end)
        if not found:
            return compare.target != Compare.VALUE and _compares(compare, KeyValue())
        return all(_compares(compare, item) for item in found)


def _compares(compare: Compare, item: KeyValue) -> bool:
    if compare.target == Compare.VALUE:
        order = (item.value > compare.value) - (item.value < compare.value)
    else:
        one, other = {
            Compare.VERSION: (item.version, compare.version),
            Compare.CREATE: (item.create_revision, compare.create_revision),
            Compare.MOD: (item.mod_revision, compare.mod_revision),
            Compare.LEASE: (item.lease, compare.lease),
        }[compare.target]
        order = (one > other) - (one < other)
    if compare.result == Compare.EQUAL:
        return order == 0
    if compare.result == Compare.NOT_EQUAL:
        return order != 0
    return order == (1 if compare.result == Compare.GREATER else -1)


_SORT_KEYS: Final = MappingProxyType(
    {
        RangeRequest.KEY: attrgetter("key"),
        RangeRequest.VERSION: attrgetter("version"),
        RangeRequest.CREATE: attrgetter("create_revision"),
        RangeRequest.MOD: attrgetter("mod_revision"),
        RangeRequest.VALUE: attrgetter("value"),
    }
)


def answer_range(request: RangeRequest, found: list[KeyValue]) -> RangeResponse:
    """`found` is all that is in the range, in the order of keys.  Equal ones stay in that order."""
    if request.count_only:
        return RangeResponse(count=len(found))
    items = [item for item in found if _passes(request, item)]
    if request.sort_order != RangeRequest.NONE or request.sort_target != RangeRequest.KEY:
        items.sort(key=_SORT_KEYS[request.sort_target], reverse=request.sort_order == RangeRequest.DESCEND)
    more = 0 < request.limit < len(items)
    if more:
        items = items[: request.limit]
    response = RangeResponse(kvs=items, more=more, count=len(found))
    if request.keys_only:
        for item in response.kvs:
            item.value = b""
    return response


def _passes(request: RangeRequest, item: KeyValue) -> bool:
    return not (
        (request.min_mod_revision and item.mod_revision < request.min_mod_revision)
        or (request.max_mod_revision and item.mod_revision > request.max_mod_revision)
        or (request.min_create_revision and item.create_revision < request.min_create_revision)
        or (request.max_create_revision and item.create_revision > request.max_create_revision)
    )
