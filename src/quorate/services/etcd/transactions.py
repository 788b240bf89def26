"""Transactions: compares decide the way, then what is on it is done, all in one revision.

All compares, also those of nested transactions, are made before anything is done, and so are the checks that can fail:
a transaction fails as a whole or not at all.  A read in it sees the writes before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.encoding import bytes_field, integer_field
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.keyspace import Keyspace
from quorate.services.etcd.reading import present, read_range
from quorate.services.etcd.versions import VERSION_OVERHEAD_BYTES, Version, encode_key_value

ABSENT: Final = Version(b"", b"", 0, 0, 0, 0)
"""What a key is compared as where it is not there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A transaction whose compares were made: the way that it takes."""

    succeeded: bool
    steps: list[Step]

    def requests(self) -> Iterator[Request]:
        """All that is to be done, also by nested transactions, in its order."""
        for step in self.steps:
            if isinstance(step, Plan):
                yield from step.requests()
            else:
                yield step


Request: TypeAlias = pb.RangeRequest | pb.PutRequest | pb.DeleteRangeRequest
Step: TypeAlias = Request | Plan


def is_read_only(request: pb.TxnRequest) -> bool:
    """Only ranges on either way: it needs no consensus."""
    return all(
        operation.WhichOneof("request") == "request_range"
        for branch in (request.success, request.failure)
        for operation in branch
    )


def put_bytes(request: pb.TxnRequest) -> int:
    """What its puts may add, by the quota; of two ways the dearer."""
    return max(map(_branch_bytes, (request.success, request.failure)))


def _branch_bytes(operations: Iterable[pb.RequestOp]) -> int:
    total = 0
    for operation in operations:
        kind = operation.WhichOneof("request")
        if kind == "request_put":
            put = operation.request_put
            total += VERSION_OVERHEAD_BYTES + len(put.key) + len(put.value)
        elif kind == "request_txn":
            total += put_bytes(operation.request_txn)
    return total


def plan(keyspace: Keyspace, request: pb.TxnRequest) -> Plan | EtcdError:
    """Make the compares.  KEY_NOT_FOUND, etcd's word for it, where an operation is empty."""
    succeeded = all(_holds(keyspace, compare) for compare in request.compare)
    steps: list[Step] = []
    for operation in request.success if succeeded else request.failure:
        kind = operation.WhichOneof("request")
        if kind == "request_range":
            steps.append(operation.request_range)
        elif kind == "request_put":
            steps.append(operation.request_put)
        elif kind == "request_delete_range":
            steps.append(operation.request_delete_range)
        elif kind == "request_txn":
            nested = plan(keyspace, operation.request_txn)
            if isinstance(nested, EtcdError):
                return nested
            steps.append(nested)
        else:
            return EtcdError.KEY_NOT_FOUND
    return Plan(succeeded, steps)


def _holds(keyspace: Keyspace, compare: pb.Compare) -> bool:
    """For each key of a range; where there is none, for an absent one, which has no value to compare."""
    versions = present(keyspace, compare.key, compare.range_end)
    if versions:
        return all(_compare(compare, version) for version in versions)
    return compare.target != pb.Compare.VALUE and _compare(compare, ABSENT)


def _compare(compare: pb.Compare, version: Version) -> bool:
    # A field of another target than the one that is named is 0 here, as in etcd.
    sign: int
    match compare.target:
        case pb.Compare.VERSION:
            sign = _sign(version.version, compare.version)
        case pb.Compare.CREATE:
            sign = _sign(version.create_revision, compare.create_revision)
        case pb.Compare.MOD:
            sign = _sign(version.mod_revision, compare.mod_revision)
        case pb.Compare.LEASE:
            sign = _sign(version.lease, compare.lease)
        case pb.Compare.VALUE:
            value = compare.value
            sign = (version.value > value) - (version.value < value)
        case _:
            sign = 0
    match compare.result:
        case pb.Compare.EQUAL:
            return sign == 0
        case pb.Compare.NOT_EQUAL:
            return sign != 0
        case pb.Compare.GREATER:
            return sign > 0
        case pb.Compare.LESS:
            return sign < 0
    return True


def _sign(left: int, right: int) -> int:
    return (left > right) - (left < right)


def find_error(keyspace: Keyspace, way: Plan, revision: int, compacted_revision: int) -> EtcdError | None:
    """Why the transaction cannot be done, seen before anything of it is: puts first, as in etcd."""
    for request in way.requests():
        if isinstance(request, pb.PutRequest):
            if (request.ignore_value or request.ignore_lease) and keyspace.latest(request.key) is None:
                return EtcdError.KEY_NOT_FOUND
            if request.lease and request.lease not in keyspace.leases:
                return EtcdError.LEASE_NOT_FOUND
    for request in way.requests():
        if isinstance(request, pb.RangeRequest) and request.revision:
            # etcd does not take a negative revision for the present here, as it does elsewhere.
            if request.revision > revision:
                return EtcdError.FUTURE_REVISION
            if request.revision < compacted_revision:
                return EtcdError.COMPACTED
    return None


class Run:
    """Does what is on a transaction's way."""

    def __init__(self, keyspace: Keyspace, revision: int) -> None:
        self._keyspace = keyspace
        self._next_revision = revision + 1
        self.revision = revision
        """What a read sees: one more than before once something was changed."""

    def run(self, way: Plan) -> bytes:
        """The response's fields but for its header."""
        fields = [integer_field(2, way.succeeded)]
        for step in way.steps:
            # The response in a ResponseOp is numbered as the request in a RequestOp.
            if isinstance(step, Plan):
                # etcd leaves the header of a nested transaction empty.
                response = bytes_field(4, bytes_field(1, b"") + self.run(step))
            elif isinstance(step, pb.RangeRequest):
                body = read_range(self._keyspace, step, self.revision)
                response = bytes_field(1, self._header() + body)
            elif isinstance(step, pb.PutRequest):
                body = self._put(step)
                response = bytes_field(2, self._header() + body)
            else:
                body = self._delete_range(step)
                response = bytes_field(3, self._header() + body)
            fields.append(bytes_field(3, response))
        return b"".join(fields)

    def _header(self) -> bytes:
        return bytes_field(1, integer_field(3, self.revision))

    def _put(self, request: pb.PutRequest) -> bytes:
        keyspace, key = self._keyspace, request.key
        before = keyspace.latest(key)
        # No door lets a transaction delete a key and put it; if one did, what to keep is what was there at first.
        kept = before or keyspace.at(key, self._next_revision - 1)
        value, lease = request.value, request.lease
        if request.ignore_value:
            assert kept is not None
            value = kept.value
        if request.ignore_lease:
            assert kept is not None
            lease = kept.lease
        keyspace.put(key, value, lease, self._next_revision)
        self.revision = self._next_revision
        return b"" if before is None or not request.prev_kv else bytes_field(2, encode_key_value(before))

    def _delete_range(self, request: pb.DeleteRangeRequest) -> bytes:
        body, count = delete_range(self._keyspace, request, self._next_revision)
        if count:
            self.revision = self._next_revision
        return body


def delete_range(keyspace: Keyspace, request: pb.DeleteRangeRequest, revision: int) -> tuple[bytes, int]:
    """(the response's fields but for its header, number of keys deleted)"""
    deleted = present(keyspace, request.key, request.range_end)
    for version in deleted:
        keyspace.delete(version.key, revision)
    fields = [integer_field(2, len(deleted))]
    if request.prev_kv:
        fields += (bytes_field(3, encode_key_value(version)) for version in deleted)
    return b"".join(fields), len(deleted)
