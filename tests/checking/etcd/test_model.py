"""The model by which answers are judged, against answers that an etcd 3.4.23 gave."""

from __future__ import annotations

import pytest

from quorate.checking.etcd.model import Impossible, Past
from quorate.checking.etcd.order import effect
from quorate.checking.etcd.records import Request, Response
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError


def do(past: Past, request: Request) -> Response:
    response, events = effect(past, request, past.revision)
    if events:
        past.add(events)
    return response


def put(key: bytes, value: bytes = b"", **fields: object) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, **fields))  # type: ignore[arg-type]


def read(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=range_end))


def keys(past: Past, **fields: object) -> list[bytes]:
    answer = past.draft(past.revision).range(pb.RangeRequest(**fields))  # type: ignore[arg-type]
    return [item.key for item in answer.kvs]


@pytest.fixture
def past() -> Past:
    """a at 2, 5 and 6 (deleted, and made anew at 6), b at 3, c at 4."""
    past = Past()
    for key in (b"a", b"b", b"c"):
        do(past, pb.PutRequest(key=key, value=key + b"1"))
    do(past, pb.DeleteRangeRequest(key=b"a"))
    do(past, pb.PutRequest(key=b"a", value=b"a2"))
    return past


def test_versions_begin_anew_after_a_deletion(past: Past) -> None:
    do(past, pb.PutRequest(key=b"a", value=b"a3"))
    assert past.get(b"a", 4) == pb.KeyValue(key=b"a", value=b"a1", create_revision=2, mod_revision=2, version=1)
    assert past.get(b"a", 5) is None
    assert past.get(b"a", 7) == pb.KeyValue(key=b"a", value=b"a3", create_revision=6, mod_revision=7, version=2)


def test_ranges(past: Past) -> None:
    assert keys(past, key=b"a", range_end=b"c") == [b"a", b"b"]
    assert keys(past, key=b"b", range_end=b"\0") == [b"b", b"c"]
    assert keys(past, key=b"\0", range_end=b"\0") == [b"a", b"b", b"c"]
    assert keys(past, key=b"c", range_end=b"a") == []
    assert keys(past, key=b"a", range_end=b"d", revision=5) == [b"b", b"c"]
    by_age = {"sort_target": pb.RangeRequest.MOD, "sort_order": pb.RangeRequest.DESCEND}
    assert keys(past, key=b"a", range_end=b"d", **by_age) == [b"a", b"c", b"b"]
    assert keys(past, key=b"a", range_end=b"d", min_mod_revision=4, max_mod_revision=5) == [b"c"]
    limited = past.draft(6).range(pb.RangeRequest(key=b"a", range_end=b"d", limit=2, keys_only=True))
    assert ([item.value for item in limited.kvs], limited.more, limited.count) == ([b"", b""], True, 3)
    counted = past.draft(6).range(pb.RangeRequest(key=b"a", range_end=b"d", count_only=True))
    assert (len(counted.kvs), counted.more, counted.count) == (0, False, 3)


def test_a_transaction_sees_its_own_writes_and_compares_what_was_before(past: Past) -> None:
    inner = pb.TxnRequest(
        compare=[pb.Compare(key=b"d", target=pb.Compare.VERSION, version=0)],
        success=[read(b"d")],
    )
    request = pb.TxnRequest(
        compare=[pb.Compare(key=b"a", range_end=b"d", target=pb.Compare.CREATE, result=pb.Compare.GREATER)],
        success=[put(b"d", b"d1"), read(b"d"), pb.RequestOp(request_txn=inner)],
    )
    response = do(past, request)
    assert isinstance(response, pb.TxnResponse)
    made = pb.KeyValue(key=b"d", value=b"d1", create_revision=7, mod_revision=7, version=1)
    assert response.succeeded
    assert list(response.responses[1].response_range.kvs) == [made]
    # The inner comparison is of the state before the put, and its read of the state behind it.
    assert response.responses[2].response_txn.succeeded
    assert list(response.responses[2].response_txn.responses[0].response_range.kvs) == [made]
    assert past.revision == 7


def test_of_keys_that_are_not_there_numbers_are_zero_and_values_never_compare(past: Past) -> None:
    for compare, holds in (
        (pb.Compare(key=b"x", target=pb.Compare.MOD, mod_revision=0), True),
        (pb.Compare(key=b"x", target=pb.Compare.VALUE, value=b""), False),
        (pb.Compare(key=b"x", target=pb.Compare.VALUE, result=pb.Compare.NOT_EQUAL, value=b"y"), False),
        (pb.Compare(key=b"a", target=pb.Compare.VALUE, result=pb.Compare.LESS, value=b"a3"), True),
        (pb.Compare(key=b"a", target=pb.Compare.LEASE, result=pb.Compare.NOT_EQUAL, lease=1), True),
    ):
        response = do(past, pb.TxnRequest(compare=[compare]))
        assert isinstance(response, pb.TxnResponse)
        assert response.succeeded is holds, compare
    assert past.revision == 6


def test_what_is_ignored_is_kept_and_must_be_there(past: Past) -> None:
    do(past, pb.PutRequest(key=b"a", lease=5, ignore_value=True))
    do(past, pb.PutRequest(key=b"a", value=b"a3", ignore_lease=True))
    found = past.get(b"a", 8)
    assert found is not None
    assert (found.value, found.lease, found.version) == (b"a3", 5, 3)
    assert past.attached(5, 8) == [b"a"]
    with pytest.raises(Impossible) as raised:
        do(past, pb.PutRequest(key=b"x", ignore_value=True))
    assert raised.value.error is EtcdError.KEY_NOT_FOUND


def test_a_lease_takes_its_keys_in_one_revision(past: Past) -> None:
    for key in (b"b", b"a"):
        do(past, pb.PutRequest(key=key, lease=5))
    past.add(past.end_of_lease(5, past.revision))
    assert [(event.type, event.kv.key, event.kv.mod_revision) for event in past.changes(9)] == [
        (pb.Event.DELETE, b"a", 9),
        (pb.Event.DELETE, b"b", 9),
    ]
    assert keys(past, key=b"\0", range_end=b"\0") == [b"c"]
