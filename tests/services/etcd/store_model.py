"""The store as it would be if memory and time did not matter: a whole copy of all keys for every revision.

Written from etcd's documentation and its observed answers, to be obviously right; it shares no code with the store.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import NamedTuple

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.lease_table import LEASE_OVERHEAD_BYTES

Response = (
    pb.RangeResponse
    | pb.PutResponse
    | pb.DeleteRangeResponse
    | pb.TxnResponse
    | pb.CompactionResponse
    | pb.LeaseGrantResponse
    | pb.LeaseRevokeResponse
)


class KeyValue(NamedTuple):
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int

    def message(self) -> pb.KeyValue:
        return pb.KeyValue(**self._asdict())


class Lease(NamedTuple):
    ttl_s: int
    generation: int


State = dict[bytes, KeyValue]
NOTHING = KeyValue(b"", b"", 0, 0, 0, 0)
SORT_FIELDS = ["key", "version", "create_revision", "mod_revision", "value"]
COMPARE_FIELDS = ["version", "create_revision", "mod_revision", "value", "lease"]
COMPARE_RESULTS = [operator.eq, operator.gt, operator.lt, operator.ne]


class Refusal(Exception):
    def __init__(self, error: EtcdError) -> None:
        super().__init__(error.message)
        self.error = error


def in_range(key: bytes, request_key: bytes, range_end: bytes) -> bool:
    if not range_end:
        return key == request_key
    return request_key <= key and (range_end == b"\0" or key < range_end)


class Model:
    def __init__(self) -> None:
        self.states: list[State] = [{}, {}]
        """By revision."""
        self.changes: list[list[KeyValue]] = [[], []]
        """By revision; a deletion has version 0."""
        self.compacted = -1
        self.leases: dict[int, Lease] = {}
        self.grants = 0
        self.now: State = {}
        """At the next revision, while a command is done."""
        self.new: list[KeyValue] = []

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    # --- what is asked ---

    def all_changes(self, from_revision: int) -> Iterator[KeyValue]:
        for revision in range(max(from_revision, 0), self.revision + 1):
            for change in self.changes[revision]:
                # What compaction forgets, it forgets also of its own revision and those before.
                if revision > self.compacted or self.states[self.compacted].get(change.key) is change:
                    yield change

    def size_bytes(self) -> int:
        versions = list(self.all_changes(0))
        return sum(256 + len(kv.key) + len(kv.value) for kv in versions) + LEASE_OVERHEAD_BYTES * len(self.leases)

    def keys_of(self, lease: int) -> set[bytes]:
        return {kv.key for kv in self.states[-1].values() if kv.lease == lease}

    def range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        self.now, self.new = self.states[-1], []
        return self._range(request)

    def _range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        current = self.revision + bool(self.new)
        if request.revision > current:
            raise Refusal(EtcdError.FUTURE_REVISION)
        if 0 < request.revision < self.compacted:
            raise Refusal(EtcdError.COMPACTED)
        is_present = request.revision <= 0 or request.revision == current
        state = self.now if is_present else self.states[request.revision]
        found = sorted(kv for kv in state.values() if in_range(kv.key, request.key, request.range_end))
        response = pb.RangeResponse(header=pb.ResponseHeader(revision=current), count=len(found))
        if request.count_only:
            return response
        if request.max_mod_revision:
            found = [kv for kv in found if kv.mod_revision <= request.max_mod_revision]
        if request.min_mod_revision:
            found = [kv for kv in found if kv.mod_revision >= request.min_mod_revision]
        if request.max_create_revision:
            found = [kv for kv in found if kv.create_revision <= request.max_create_revision]
        if request.min_create_revision:
            found = [kv for kv in found if kv.create_revision >= request.min_create_revision]
        field = operator.attrgetter(SORT_FIELDS[request.sort_target])
        found.sort(key=field, reverse=request.sort_order == pb.RangeRequest.DESCEND)
        if 0 < request.limit < len(found):
            found, response.more = found[: request.limit], True
        if request.keys_only:
            found = [kv._replace(value=b"") for kv in found]
        response.kvs.extend(kv.message() for kv in found)
        return response

    # --- what is done ---

    def put(self, request: pb.PutRequest) -> pb.PutResponse:
        self._begin()
        if request.lease and request.lease not in self.leases:
            raise Refusal(EtcdError.LEASE_NOT_FOUND)
        self._check_put(request)
        response = self._put(request)
        self._end()
        return response

    def delete_range(self, request: pb.DeleteRangeRequest) -> pb.DeleteRangeResponse:
        self._begin()
        response = self._delete_range(request)
        self._end()
        return response

    def txn(self, request: pb.TxnRequest) -> pb.TxnResponse:
        self._begin()
        ways: list[bool] = []
        for put in self._choose(request, ways):
            if isinstance(put, pb.PutRequest):
                self._check_put(put)
                if put.lease and put.lease not in self.leases:
                    raise Refusal(EtcdError.LEASE_NOT_FOUND)
        for range_ in self._choose(request, []):
            if isinstance(range_, pb.RangeRequest) and range_.revision:
                if range_.revision > self.revision:
                    raise Refusal(EtcdError.FUTURE_REVISION)
                if range_.revision < self.compacted:
                    raise Refusal(EtcdError.COMPACTED)
        response = self._run(request, ways)
        self._end()
        response.header.revision = self.revision
        return response

    def compact(self, request: pb.CompactionRequest) -> pb.CompactionResponse:
        if request.revision <= self.compacted:
            raise Refusal(EtcdError.COMPACTED)
        if request.revision > self.revision:
            raise Refusal(EtcdError.FUTURE_REVISION)
        self.compacted = request.revision
        return pb.CompactionResponse(header=pb.ResponseHeader(revision=self.revision))

    def grant(self, lease: int, ttl_s: int) -> pb.LeaseGrantResponse:
        if lease in self.leases:
            raise Refusal(EtcdError.LEASE_EXISTS)
        self.grants += 1
        self.leases[lease] = Lease(max(2, ttl_s), self.grants)
        header = pb.ResponseHeader(revision=self.revision)
        return pb.LeaseGrantResponse(header=header, ID=lease, TTL=max(2, ttl_s))

    def revoke(self, lease: int) -> pb.LeaseRevokeResponse:
        if lease not in self.leases:
            raise Refusal(EtcdError.LEASE_NOT_FOUND)
        self._begin()
        for key in sorted(self.keys_of(lease)):
            self._delete_range(pb.DeleteRangeRequest(key=key))
        self._end()
        del self.leases[lease]
        return pb.LeaseRevokeResponse(header=pb.ResponseHeader(revision=self.revision))

    def expire(self, lease: int, generation: int) -> pb.LeaseRevokeResponse:
        if lease in self.leases and self.leases[lease].generation == generation:
            return self.revoke(lease)
        return pb.LeaseRevokeResponse(header=pb.ResponseHeader(revision=self.revision))

    # --- steps of it ---

    def _begin(self) -> None:
        self.now, self.new = dict(self.states[-1]), []

    def _end(self) -> None:
        if self.new:
            self.states.append(self.now)
            self.changes.append(self.new)
        self.new = []

    def _check_put(self, request: pb.PutRequest) -> None:
        if (request.ignore_value or request.ignore_lease) and request.key not in self.states[-1]:
            raise Refusal(EtcdError.KEY_NOT_FOUND)

    def _put(self, request: pb.PutRequest) -> pb.PutResponse:
        revision = self.revision + 1
        before = self.now.get(request.key)
        value = before.value if before and request.ignore_value else request.value
        lease = before.lease if before and request.ignore_lease else request.lease
        create_revision, version = (before.create_revision, before.version + 1) if before else (revision, 1)
        made = KeyValue(request.key, value, create_revision, revision, version, lease)
        self.now[request.key] = made
        self.new.append(made)
        prev_kv = before.message() if before and request.prev_kv else None
        return pb.PutResponse(header=pb.ResponseHeader(revision=revision), prev_kv=prev_kv)

    def _delete_range(self, request: pb.DeleteRangeRequest) -> pb.DeleteRangeResponse:
        deleted = sorted(kv for kv in self.now.values() if in_range(kv.key, request.key, request.range_end))
        for kv in deleted:
            del self.now[kv.key]
            self.new.append(KeyValue(kv.key, b"", 0, self.revision + 1, 0, 0))
        response = pb.DeleteRangeResponse(deleted=len(deleted))
        response.header.revision = self.revision + bool(self.new)
        if request.prev_kv:
            response.prev_kvs.extend(kv.message() for kv in deleted)
        return response

    def _holds(self, compare: pb.Compare) -> bool:
        found = [kv for kv in self.states[-1].values() if in_range(kv.key, compare.key, compare.range_end)]
        if not found and compare.target == pb.Compare.VALUE:
            return False
        field = COMPARE_FIELDS[compare.target]
        holds = COMPARE_RESULTS[compare.result]
        return all(holds(getattr(kv, field), getattr(compare, field)) for kv in found or [NOTHING])

    def _choose(self, request: pb.TxnRequest, ways: list[bool]) -> Iterator[pb.PutRequest | pb.RangeRequest]:
        """Puts and ranges on the way; `ways` gets the outcomes of all compares, from outside to inside."""
        ways.append(all(self._holds(compare) for compare in request.compare))
        for operation in request.success if ways[-1] else request.failure:
            if operation.HasField("request_txn"):
                yield from self._choose(operation.request_txn, ways)
            elif operation.HasField("request_put"):
                yield operation.request_put
            elif operation.HasField("request_range"):
                yield operation.request_range

    def _run(self, request: pb.TxnRequest, ways: list[bool]) -> pb.TxnResponse:
        response = pb.TxnResponse(header=pb.ResponseHeader(), succeeded=ways.pop(0))
        for operation in request.success if response.succeeded else request.failure:
            answer = response.responses.add()
            if operation.HasField("request_txn"):
                answer.response_txn.CopyFrom(self._run(operation.request_txn, ways))
            elif operation.HasField("request_put"):
                answer.response_put.CopyFrom(self._put(operation.request_put))
            elif operation.HasField("request_range"):
                answer.response_range.CopyFrom(self._range(operation.request_range))
            else:
                answer.response_delete_range.CopyFrom(self._delete_range(operation.request_delete_range))
        return response
