"""What etcd refuses before consensus, in its order of checks.

Source: etcd 3.4's `etcdserver/api/v3rpc/key.go`; INVALID_SORT_OPTION is of 3.5, where 3.4 crashes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final

from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.etcd_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest

TOTAL_OPS_FACTOR: Final = 16
"""A transaction with all that is nested in it may have so many times the operations that one branch may have.

etcd bounds the longest way down only, which allows 1.5 MiB of operations; checking those would stop the loop.
"""
_LAST_SORT_ORDER: Final = max(RangeRequest.SortOrder.values())
_LAST_SORT_TARGET: Final = max(RangeRequest.SortTarget.values())


def check_range(request: RangeRequest) -> EtcdError | None:
    if not request.key:
        return EtcdError.EMPTY_KEY
    if not (0 <= request.sort_order <= _LAST_SORT_ORDER and 0 <= request.sort_target <= _LAST_SORT_TARGET):
        return EtcdError.INVALID_SORT_OPTION
    return None


def check_put(request: PutRequest) -> EtcdError | None:
    if not request.key:
        return EtcdError.EMPTY_KEY
    if request.ignore_value and request.value:
        return EtcdError.VALUE_PROVIDED
    if request.ignore_lease and request.lease:
        return EtcdError.LEASE_PROVIDED
    return None


def check_delete_range(request: DeleteRangeRequest) -> EtcdError | None:
    return None if request.key else EtcdError.EMPTY_KEY


def check_txn(request: TxnRequest, max_ops: int) -> EtcdError | None:
    """Each request in it, how many there are, and that no key is changed twice."""
    error = _Operations(max_ops * TOTAL_OPS_FACTOR).check(request, max_ops)
    if error is not None:
        return error
    for branch in (request.success, request.failure):
        try:
            _changes(branch)
        except _DuplicateKey:
            return EtcdError.DUPLICATE_KEY
    return None


def is_serializable(request: TxnRequest) -> bool:
    """All its reads ask for no more than this node's own state; it only reads (`transactions.is_read_only`)."""
    operations = [op for branch in (request.success, request.failure) for op in branch]
    return bool(operations) and all(op.request_range.serializable for op in operations)


class _Operations:
    """Counts the operations of a transaction while it checks them one by one."""

    def __init__(self, left: int) -> None:
        self._left = left

    def check(self, txn: TxnRequest, max_ops: int) -> EtcdError | None:
        longest = max(len(txn.compare), len(txn.success), len(txn.failure))
        self._left -= len(txn.compare) + len(txn.success) + len(txn.failure)
        if longest > max_ops or self._left < 0:
            return EtcdError.TOO_MANY_OPS
        if not all(compare.key for compare in txn.compare):
            return EtcdError.EMPTY_KEY
        for branch in (txn.success, txn.failure):
            for op in branch:
                error = self._check_op(op, max_ops - longest)
                if error is not None:
                    return error
        return None

    def _check_op(self, op: RequestOp, max_ops: int) -> EtcdError | None:
        kind = op.WhichOneof("request")
        if kind == "request_put":
            return check_put(op.request_put)
        if kind == "request_range":
            return check_range(op.request_range)
        if kind == "request_delete_range":
            return check_delete_range(op.request_delete_range)
        if kind == "request_txn":
            return self.check(op.request_txn, max_ops)
        return EtcdError.KEY_NOT_FOUND


class _DuplicateKey(Exception):
    """A key is put twice, or put and deleted."""


def _changes(branch: Iterable[RequestOp]) -> tuple[set[bytes], _Intervals]:
    """The keys that the operations put, and the ranges that they delete.  Raises _DuplicateKey.

    A nested transaction does either of its branches, so both may put one key.  As in etcd a put is compared with
    deletions of nested transactions before its own, not of those behind it.
    """
    operations = list(branch)
    deleted = _Intervals()
    for op in operations:
        if op.HasField("request_delete_range"):
            deleted.add(op.request_delete_range.key, op.request_delete_range.range_end)
    put: set[bytes] = set()
    for op in operations:
        if op.HasField("request_txn"):
            put_then, deleted_then = _changes(op.request_txn.success)
            put_else, deleted_else = _changes(op.request_txn.failure)
            nested = put_then | put_else
            if not put.isdisjoint(nested) or any(key in deleted for key in nested):
                raise _DuplicateKey
            put |= nested
            deleted.update(deleted_then)
            deleted.update(deleted_else)
    for op in operations:
        if op.HasField("request_put"):
            key = op.request_put.key
            if key in put or key in deleted:
                raise _DuplicateKey
            put.add(key)
    return put, deleted


class _Intervals:
    """A set of keys made of half-open intervals: disjoint, in order."""

    def __init__(self) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []

    def add(self, key: bytes, range_end: bytes) -> None:
        """One key where `range_end` is empty.

        `range_end` of a zero byte stands for all keys from `key` on, but etcd compares it as it is, so that the
        interval is empty: a transaction may delete all keys from one on, and put one of them.
        """
        self._add(key, range_end or key + b"\0")

    def _add(self, start: bytes, end: bytes) -> None:
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def update(self, other: _Intervals) -> None:
        for start, end in zip(other._starts, other._ends, strict=True):
            self._add(start, end)

    def __contains__(self, key: bytes) -> bool:
        at = bisect_right(self._starts, key) - 1
        return at >= 0 and key < self._ends[at]
