"""Requests that etcd refuses, or that look as if it should: the code and the words, for tests of checks and doors.

Each is sent to a real etcd by test_checks.py, so this table cannot say what etcd does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.encoding import bytes_field
from quorate.services.etcd.errors import EtcdError


class Case(NamedTuple):
    situation: str
    method: str
    request: Message
    error: EtcdError | None
    """None: it is done."""


def put(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, **fields))


def delete(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=range_end))


def read(key: bytes = b"r", **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, **fields))


def nested(success: Sequence[pb.RequestOp] = (), failure: Sequence[pb.RequestOp] = ()) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(success=success, failure=failure))


def _txn(*success: pb.RequestOp, failure: Sequence[pb.RequestOp] = ()) -> pb.TxnRequest:
    return pb.TxnRequest(success=success, failure=failure)


def nested_deeply(levels: int) -> bytes:
    """A transaction with one read, inside of so many others; Python's protobuf takes only 49 of them."""
    encoded = _txn(read()).SerializeToString()
    for _ in range(levels):
        encoded = bytes_field(2, bytes_field(4, encoded))
    return encoded


_PUT, _RANGE, _DELETE, _TXN, _COMPACT, _GRANT = (
    *("/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", "/etcdserverpb.KV/DeleteRange", "/etcdserverpb.KV/Txn"),
    *("/etcdserverpb.KV/Compact", "/etcdserverpb.Lease/LeaseGrant"),
)
_LARGE: Final = b"x" * (3 << 19)
_CONDITION: Final = pb.Compare(key=b"c", version=0)

REQUESTS: Final = (
    Case("a put without a key", _PUT, pb.PutRequest(value=b"v"), EtcdError.EMPTY_KEY),
    Case("a range without a key", _RANGE, pb.RangeRequest(), EtcdError.EMPTY_KEY),
    Case("a range without a key, with an end", _RANGE, pb.RangeRequest(range_end=b"z"), EtcdError.EMPTY_KEY),
    Case("a deletion without a key", _DELETE, pb.DeleteRangeRequest(range_end=b"z"), EtcdError.EMPTY_KEY),
    Case(
        "a value for a put that should keep it",
        _PUT,
        pb.PutRequest(key=b"k", value=b"v", ignore_value=True),
        EtcdError.VALUE_PROVIDED,
    ),
    Case(
        "a lease for a put that should keep it",
        _PUT,
        pb.PutRequest(key=b"k", lease=1, ignore_lease=True),
        EtcdError.LEASE_PROVIDED,
    ),
    Case(
        "both at once: the value is looked at first",
        _PUT,
        pb.PutRequest(key=b"k", value=b"v", lease=1, ignore_value=True, ignore_lease=True),
        EtcdError.VALUE_PROVIDED,
    ),
    Case("an operation that is none", _TXN, _txn(pb.RequestOp()), EtcdError.KEY_NOT_FOUND),
    Case("a comparison without a key", _TXN, pb.TxnRequest(compare=[pb.Compare()]), EtcdError.EMPTY_KEY),
    Case(
        "a comparison without a key beside an operation that is none",
        _TXN,
        pb.TxnRequest(compare=[pb.Compare()], success=[pb.RequestOp()]),
        EtcdError.EMPTY_KEY,
    ),
    Case("a put without a key in a transaction", _TXN, _txn(put(b"")), EtcdError.EMPTY_KEY),
    Case("a bad operation in the other branch", _TXN, _txn(failure=[delete(b"")]), EtcdError.EMPTY_KEY),
    Case("a bad operation in a nested transaction", _TXN, _txn(nested([read(b"")])), EtcdError.EMPTY_KEY),
    Case("as many operations as may be", _TXN, _txn(*[read()] * 128), None),
    Case("one more", _TXN, _txn(*[read()] * 129), EtcdError.TOO_MANY_OPS),
    Case("as many in either branch", _TXN, _txn(*[read()] * 128, failure=[read()] * 128), None),
    Case("one comparison more", _TXN, pb.TxnRequest(compare=[_CONDITION] * 129), EtcdError.TOO_MANY_OPS),
    Case("too many operations, one of them bad", _TXN, _txn(*[read(b"")] * 129), EtcdError.TOO_MANY_OPS),
    Case("as many as may be, nested", _TXN, _txn(nested([read()] * 127)), None),
    Case("one more, nested", _TXN, _txn(nested([read()] * 128)), EtcdError.TOO_MANY_OPS),
    Case("nested ones beside one another", _TXN, _txn(nested([read()] * 64), nested([read()] * 64)), None),
    Case("a key put twice", _TXN, _txn(put(b"a"), put(b"a")), EtcdError.DUPLICATE_KEY),
    Case("a key put in either branch", _TXN, _txn(put(b"a"), failure=[put(b"a")]), None),
    Case("a key put twice in the other branch", _TXN, _txn(failure=[put(b"a"), put(b"a")]), EtcdError.DUPLICATE_KEY),
    Case("a key put and deleted", _TXN, _txn(put(b"a"), delete(b"a")), EtcdError.DUPLICATE_KEY),
    Case("a key put in a deleted range", _TXN, _txn(put(b"b"), delete(b"a", b"c")), EtcdError.DUPLICATE_KEY),
    Case(
        "a key put at the start of a deleted range", _TXN, _txn(put(b"a"), delete(b"a", b"c")), EtcdError.DUPLICATE_KEY
    ),
    Case("a key put at the end of a deleted range", _TXN, _txn(put(b"c"), delete(b"a", b"c")), None),
    Case("a key put before a deleted range", _TXN, _txn(put(b"Z"), delete(b"a", b"c")), None),
    Case("a key put beside the one deleted", _TXN, _txn(put(b"a\0"), delete(b"a")), None),
    Case("a key put in a range that ends before it begins", _TXN, _txn(put(b"b"), delete(b"c", b"a")), None),
    Case("a key put in a range without an end", _TXN, _txn(put(b"b"), delete(b"a", b"\0")), None),
    Case(
        "one of several deleted ranges",
        _TXN,
        _txn(delete(b"k", b"m"), delete(b"a", b"c"), delete(b"x"), delete(b"b", b"d"), put(b"cc")),
        EtcdError.DUPLICATE_KEY,
    ),
    Case(
        "between several deleted ranges",
        _TXN,
        _txn(delete(b"k", b"m"), delete(b"a", b"c"), delete(b"x"), delete(b"b", b"d"), put(b"e"), put(b"d")),
        None,
    ),
    Case("a key deleted twice", _TXN, _txn(delete(b"a"), delete(b"a")), None),
    Case("a key put in both branches of a nested transaction", _TXN, _txn(nested([put(b"a")], [put(b"a")])), None),
    Case("a key put inside and outside", _TXN, _txn(put(b"a"), nested([put(b"a")])), EtcdError.DUPLICATE_KEY),
    Case(
        "a key put outside and in the other branch",
        _TXN,
        _txn(put(b"a"), nested((), [put(b"a")])),
        EtcdError.DUPLICATE_KEY,
    ),
    Case(
        "two nested ones with one key",
        _TXN,
        _txn(nested([put(b"a")]), nested((), [put(b"a")])),
        EtcdError.DUPLICATE_KEY,
    ),
    Case("put inside, deleted outside", _TXN, _txn(nested([put(b"b")]), delete(b"a", b"c")), EtcdError.DUPLICATE_KEY),
    Case(
        "deleted inside, put outside", _TXN, _txn(put(b"b"), nested((), [delete(b"a", b"c")])), EtcdError.DUPLICATE_KEY
    ),
    Case("put in a nested one, deleted in a later one", _TXN, _txn(nested([put(b"a")]), nested([delete(b"a")])), None),
    Case(
        "deleted in a nested one, put in a later one",
        _TXN,
        _txn(nested([delete(b"a")]), nested([put(b"a")])),
        EtcdError.DUPLICATE_KEY,
    ),
)
"""What is decided before consensus, by the request alone."""

ANSWERS: Final = (
    Case(
        "a put that keeps the value of no key",
        _PUT,
        pb.PutRequest(key=b"no", ignore_value=True),
        EtcdError.KEY_NOT_FOUND,
    ),
    Case(
        "a put that keeps the lease of no key",
        _PUT,
        pb.PutRequest(key=b"no", ignore_lease=True),
        EtcdError.KEY_NOT_FOUND,
    ),
    Case("a put under no lease", _PUT, pb.PutRequest(key=b"k", lease=7), EtcdError.LEASE_NOT_FOUND),
    Case("a read of the future", _RANGE, pb.RangeRequest(key=b"k", revision=1 << 40), EtcdError.FUTURE_REVISION),
    Case("a read of the future in a transaction", _TXN, _txn(read(revision=1 << 40)), EtcdError.FUTURE_REVISION),
    Case("a compaction in the future", _COMPACT, pb.CompactionRequest(revision=1 << 40), EtcdError.FUTURE_REVISION),
    Case("a compaction before the beginning", _COMPACT, pb.CompactionRequest(revision=-5), EtcdError.COMPACTED),
    Case("a lease for ever", _GRANT, pb.LeaseGrantRequest(TTL=9_000_000_001), EtcdError.LEASE_TTL_TOO_LARGE),
    Case("a large put", _PUT, pb.PutRequest(key=b"k", value=_LARGE[:-64]), None),
    Case("a larger put", _PUT, pb.PutRequest(key=b"k", value=_LARGE), EtcdError.REQUEST_TOO_LARGE),
    Case("a larger transaction", _TXN, _txn(put(b"k", value=_LARGE)), EtcdError.REQUEST_TOO_LARGE),
    Case("a larger read", _RANGE, pb.RangeRequest(key=_LARGE), None),
)
"""What is decided by size or by the store."""
