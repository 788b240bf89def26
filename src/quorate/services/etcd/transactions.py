"""Transactions: compares decide the way, then what is on it is done, all in one revision.

All compares, also those of nested transactions, are made before anything is done, and so are the checks that can fail:
a transaction fails as a whole or not at all.  A read in it sees the writes before it.  Where the answer would be too
large it is done all the same, without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.answer_room import AnswerRoom, AnswerTooLarge
from quorate.services.etcd.encoding import bytes_field, bytes_head, integer_field
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.keyspace import Keyspace
from quorate.services.etcd.reading import end_of, present, read_range
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


def compared_keys(keyspace: Keyspace, request: pb.TxnRequest) -> int:
    """How many keys its compares of ranges would look at, those of both branches counted."""
    ranges = (compare for compare in request.compare if compare.range_end)
    total = sum(keyspace.live.count(compare.key, end_of(compare.range_end)) for compare in ranges)
    for operation in (*request.success, *request.failure):
        if operation.HasField("request_txn"):
            total += compared_keys(keyspace, operation.request_txn)
    return total


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

    def __init__(self, keyspace: Keyspace, revision: int, room: AnswerRoom) -> None:
        self._keyspace = keyspace
        self._room = room
        self._next_revision = revision + 1
        self._parts: list[bytes] = []
        """The answer so far.  Joined once, at the end: else every level of nesting would copy those in it."""
        self._is_too_large = False
        """There will be no answer; what is left is done without."""
        self.revision = revision
        """What a read sees: one more than before once something was changed."""

    def run(self, way: Plan) -> bytes | None:
        """The response's fields but for its header; None where it was done and they are too large."""
        self._run(way)
        return None if self._is_too_large else b"".join(self._parts)

    def _run(self, way: Plan) -> int:
        """Answers in `_parts`; bytes of that."""
        parts = self._parts
        parts.append(integer_field(2, way.succeeded))
        total_bytes = len(parts[-1])
        for step in way.steps:
            place = len(parts)
            parts.append(b"")  # what comes before the body, whose length must be known
            if isinstance(step, Plan):
                body_bytes = self._run(step)
                # The response in a ResponseOp is numbered as the request in a RequestOp.
                number, header = 4, bytes_field(1, b"")  # etcd leaves the header of a nested transaction empty
            else:
                number, body = self._do(step)
                header = bytes_field(1, integer_field(3, self.revision))
                body_bytes = sum(map(len, body))
                parts += body
            if self._is_too_large:
                parts.clear()
                continue
            response = bytes_head(number, len(header) + body_bytes) + header
            parts[place] = bytes_head(3, len(response) + body_bytes) + response
            total_bytes += len(parts[place]) + body_bytes
        return total_bytes

    def _do(self, step: Request) -> tuple[int, list[bytes]]:
        """(number of the response's field in a ResponseOp, the response's fields but for its header)"""
        if isinstance(step, pb.PutRequest):
            return 2, self._put(step)
        if isinstance(step, pb.DeleteRangeRequest):
            return 3, self._delete_range(step)
        if self._is_too_large:
            return 1, []
        try:
            body = read_range(self._keyspace, step, self.revision, self._room)
        except AnswerTooLarge:
            self._is_too_large = True
            return 1, []
        return 1, body

    def _put(self, request: pb.PutRequest) -> list[bytes]:
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
        return [] if before is None or not request.prev_kv else self._previous(2, [before])

    def _delete_range(self, request: pb.DeleteRangeRequest) -> list[bytes]:
        deleted = delete_range(self._keyspace, request, self._next_revision)
        if deleted:
            self.revision = self._next_revision
        count = integer_field(2, len(deleted))
        return [count, *self._previous(3, deleted)] if request.prev_kv else [count]

    def _previous(self, number: int, versions: list[Version]) -> list[bytes]:
        if not self._is_too_large:
            try:
                return previous_fields(number, versions, self._room)
            except AnswerTooLarge:
                self._is_too_large = True
        return []


def delete_range(keyspace: Keyspace, request: pb.DeleteRangeRequest, revision: int) -> list[Version]:
    """What was deleted."""
    if request.range_end:
        keys = keyspace.live.take(request.key, end_of(request.range_end), len(keyspace.live))
    else:
        keys = [] if keyspace.latest(request.key) is None else [request.key]
    return keyspace.delete(keys, revision)


def previous_fields(number: int, versions: list[Version], room: AnswerRoom) -> list[bytes]:
    """What was there before a change, as fields of its response.  Raises AnswerTooLarge."""
    room.hold(versions)
    return [bytes_field(number, encode_key_value(version)) for version in versions]
