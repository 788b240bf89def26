"""The etcd store, situation by situation; what a random run would seldom meet.  The rest: test_store_properties."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.services.etcd import commands
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.encoding import bytes_field, read_two_fields, varint
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.lease_table import LEASE_OVERHEAD_BYTES
from quorate.services.etcd.store import Compacted, Store
from quorate.services.etcd.transactions import is_read_only
from quorate.services.etcd.versions import Version, encode_key_value
from tests.services.etcd.store_helpers import apply, keys_and_values, put, read, response_of, sweep


def delete(store: Store, key: bytes, range_end: bytes = b"", **options: Any) -> Any:
    return apply(store, pb.DeleteRangeRequest(key=key, range_end=range_end, **options))


def compact(store: Store, revision: int) -> Any:
    return apply(store, pb.CompactionRequest(revision=revision))


def operation(request: Any) -> pb.RequestOp:
    match request:
        case pb.PutRequest():
            return pb.RequestOp(request_put=request)
        case pb.RangeRequest():
            return pb.RequestOp(request_range=request)
        case pb.DeleteRangeRequest():
            return pb.RequestOp(request_delete_range=request)
    return pb.RequestOp(request_txn=request)


def txn(store: Store, *requests: Any, compare: tuple[pb.Compare, ...] = ()) -> Any:
    return apply(store, pb.TxnRequest(compare=compare, success=map(operation, requests)))


@pytest.fixture
def store() -> Store:
    return Store()


# --- bytes ------------------------------------------------------------------------------------


@given(
    st.builds(
        Version,
        st.binary(min_size=1, max_size=300),
        st.binary(max_size=300),
        *[st.integers(1, (1 << 63) - 1)] * 3,
        st.integers(-(1 << 63), (1 << 63) - 1),
    )
)
def test_a_key_value_is_encoded_as_protobuf_does(version: Version) -> None:
    decoded = pb.KeyValue.FromString(encode_key_value(version))
    assert decoded == pb.KeyValue(**{name: getattr(version, name) for name in version.__struct_fields__})
    assert len(encode_key_value(version)) == decoded.ByteSize()


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_varint_is_what_protobuf_writes(number: int) -> None:
    assert (b"\x08" + varint(number) if number else b"") == pb.CompactionRequest(revision=number).SerializeToString()


@given(st.binary(max_size=200), st.integers(0, 20_000))
def test_a_plain_put_is_read_as_protobuf_does(key: bytes, value_bytes: int) -> None:
    value = bytes(value_bytes)
    message = pb.PutRequest(key=key, value=value).SerializeToString()
    is_common = 0 < len(key) < 128 and 0 < value_bytes < 16_384
    assert read_two_fields(b"p" + message, 1) == ((key, value) if is_common else None)
    assert read_two_fields(b"p" + message + b"\x18\x01", 1) is None
    assert read_two_fields(b"p" + message[:-1], 1) is None


@pytest.mark.parametrize(
    "command",
    [
        *(b"", b"?", b"p\xff", b"d\x0a\x05a", b"t\x12\xff\xff", b"c\x08", commands.GRANT, commands.REVOKE + bytes(7)),
        commands.EXPIRE + bytes(17),
        b"t" + b"\x12\x04\x22\x02\x12\x01" * 3,
    ],
)
def test_a_command_that_cannot_be_decoded_is_answered_and_changes_nothing(store: Store, command: bytes) -> None:
    put(store, b"a")
    before = store.digest()
    (result,) = store.apply([command], store.time_ms)
    assert (result.revision, result.body, result.error) == (2, b"", EtcdError.MALFORMED)
    assert store.digest() == before


@given(st.lists(st.builds(bytes.__add__, st.sampled_from([b"p", b"d", b"t", b"c", b"g", b"r", b"e"]), st.binary())))
def test_no_bytes_make_apply_raise(commands_: list[bytes]) -> None:
    assert len(Store().apply(commands_, 1)) == len(commands_)


def test_a_transaction_that_is_nested_too_deeply_is_refused(store: Store) -> None:
    request = b""
    for _ in range(60):
        request = bytes_field(2, bytes_field(4, request))
    assert apply(store, commands.TXN + request) is EtcdError.MALFORMED


def test_a_put_in_an_unusual_order_of_fields_is_a_put(store: Store) -> None:
    """The last of a field that comes twice counts, and unknown fields are passed over."""
    store.apply([b"p" + b"\x12\x01v\x0a\x01x\x0a\x01k\x78\x01"], 1)
    assert keys_and_values(store, b"k") == [(b"k", b"v")]


# --- ranges -----------------------------------------------------------------------------------


def test_a_range_without_end_is_all_keys_from_there(store: Store) -> None:
    for key in (b"a", b"b", b"c"):
        put(store, key)
    assert [key for key, _ in keys_and_values(store, b"b", b"\0")] == [b"b", b"c"]
    assert [key for key, _ in keys_and_values(store, b"\0", b"\0")] == [b"a", b"b", b"c"]
    assert read(store, b"c", b"a").count == 0


def test_count_is_of_the_range_and_more_is_of_the_limit(store: Store) -> None:
    for number in range(5):
        put(store, b"key%d" % number)
    response = read(store, b"key", b"kez", limit=2)
    assert ([kv.key for kv in response.kvs], response.more, response.count) == ([b"key0", b"key1"], True, 5)
    response = read(store, b"key", b"kez", limit=2, min_mod_revision=4)
    assert ([kv.key for kv in response.kvs], response.more, response.count) == ([b"key2", b"key3"], True, 5)
    response = read(store, b"key", b"kez", limit=2, min_mod_revision=5)
    assert ([kv.key for kv in response.kvs], response.more, response.count) == ([b"key3", b"key4"], False, 5)


def test_of_keys_that_sort_alike_the_first_by_key_comes_first_either_way(store: Store) -> None:
    for key in (b"c", b"a", b"b", b"a"):
        put(store, key)
    by_version = {"sort_target": pb.RangeRequest.VERSION}
    descending = {**by_version, "sort_order": pb.RangeRequest.DESCEND}
    assert [kv.key for kv in read(store, b"a", b"z", **by_version).kvs] == [b"b", b"c", b"a"]
    assert [kv.key for kv in read(store, b"a", b"z", **descending).kvs] == [b"a", b"b", b"c"]


def test_the_header_of_an_old_read_is_of_the_present(store: Store) -> None:
    first = put(store, b"a", b"1")
    put(store, b"a", b"2")
    response = read(store, b"a", revision=first)
    assert (response.kvs[0].value, response.header.revision) == (b"1", 3)


def test_a_deleted_key_is_still_there_before(store: Store) -> None:
    revision = put(store, b"a", b"1")
    delete(store, b"a")
    put(store, b"b")
    assert keys_and_values(store, b"a", b"z") == [(b"b", b"")]
    assert keys_and_values(store, b"a", b"z", revision=revision) == [(b"a", b"1")]
    assert read(store, b"a").count == 0


def test_a_key_that_comes_again_begins_anew(store: Store) -> None:
    put(store, b"a")
    put(store, b"a")
    delete(store, b"a")
    revision = put(store, b"a")
    (kv,) = read(store, b"a").kvs
    assert (kv.create_revision, kv.mod_revision, kv.version) == (revision, revision, 1)


# --- puts and deletions -----------------------------------------------------------------------


def test_what_changes_nothing_takes_no_revision(store: Store) -> None:
    put(store, b"a")
    assert delete(store, b"x", b"z").header.revision == 2
    assert txn(store, pb.RangeRequest(key=b"a")).header.revision == 2
    assert apply(store, commands.grant(1, 10)).header.revision == 2
    assert apply(store, commands.revoke(1)).header.revision == 2
    assert store.revision == 2


@pytest.mark.parametrize("options", [{"ignore_value": True}, {"ignore_lease": True}])
def test_ignoring_what_is_not_there_fails(store: Store, options: dict[str, Any]) -> None:
    assert apply(store, pb.PutRequest(key=b"a", **options)) is EtcdError.KEY_NOT_FOUND
    put(store, b"a")
    delete(store, b"a")
    assert apply(store, pb.PutRequest(key=b"a", **options)) is EtcdError.KEY_NOT_FOUND


def test_one_deletion_is_one_revision_in_the_order_of_keys(store: Store) -> None:
    for key in (b"b", b"c", b"a"):
        put(store, key)
    response = delete(store, b"a", b"z", prev_kv=True)
    assert (response.deleted, response.header.revision) == (3, 5)
    assert [kv.key for kv in response.prev_kvs] == [b"a", b"b", b"c"]
    assert [(gone.key, gone.version, gone.mod_revision) for gone in store.changes(5)] == [
        *[(b"a", 0, 5), (b"b", 0, 5), (b"c", 0, 5)]
    ]


# --- transactions -----------------------------------------------------------------------------


def compare(key: bytes, range_end: bytes = b"", **fields: Any) -> pb.Compare:
    return pb.Compare(key=key, range_end=range_end, **fields)


def test_a_read_in_a_transaction_sees_the_writes_before_it(store: Store) -> None:
    put(store, b"a", b"old")
    reading = pb.RangeRequest(key=b"a")
    at_the_start = pb.RangeRequest(key=b"a", revision=2)
    response = txn(store, reading, pb.PutRequest(key=b"a", value=b"new"), reading, at_the_start)
    before, wrote, after, old = response.responses
    assert (before.response_range.kvs[0].value, before.response_range.header.revision) == (b"old", 2)
    assert wrote.response_put.header.revision == 3
    assert (after.response_range.kvs[0].value, after.response_range.header.revision) == (b"new", 3)
    assert (old.response_range.kvs[0].value, old.response_range.header.revision) == (b"old", 3)
    assert response.header.revision == 3


def test_a_nested_compare_sees_nothing_of_the_writes_before_it(store: Store) -> None:
    nested = pb.TxnRequest(compare=[compare(b"a", target=pb.Compare.VERSION, version=0)])
    response = txn(store, pb.PutRequest(key=b"a"), nested)
    assert response.responses[1].response_txn.succeeded


def test_a_nested_transaction_has_an_empty_header(store: Store) -> None:
    response = txn(store, pb.TxnRequest(success=[operation(pb.PutRequest(key=b"a"))]))
    nested = response.responses[0].response_txn
    assert nested.HasField("header") and nested.header == pb.ResponseHeader()


def test_a_compare_of_a_range_must_hold_for_each_key_and_for_an_absent_one(store: Store) -> None:
    is_first = {"target": pb.Compare.VERSION, "version": 1}
    put(store, b"a1")
    put(store, b"a2")
    assert txn(store, compare=(compare(b"a", b"b", **is_first),)).succeeded
    put(store, b"a2")
    assert not txn(store, compare=(compare(b"a", b"b", **is_first),)).succeeded
    assert txn(store, compare=(compare(b"x", b"z", target=pb.Compare.MOD, mod_revision=0),)).succeeded
    assert not txn(store, compare=(compare(b"x", b"z", **is_first),)).succeeded


def test_compares_of_more_keys_than_anybody_should_wait_for_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.services.etcd.store.MAX_COMPARED_KEYS", 5)
    for key in (b"a", b"b", b"c"):
        put(store, key, b"")
    compare = pb.Compare(key=b"a", range_end=b"z", target=pb.Compare.VERSION, result=pb.Compare.GREATER)
    nested = pb.RequestOp(request_txn=pb.TxnRequest(compare=[compare]))
    revision = store.revision
    (once,) = store.apply([commands.TXN + pb.TxnRequest(compare=[compare]).SerializeToString()], 1)
    (twice,) = store.apply([commands.TXN + pb.TxnRequest(compare=[compare], failure=[nested]).SerializeToString()], 1)
    assert once.error is None
    assert twice.error is EtcdError.TOO_MUCH_TO_COMPARE
    assert store.revision == revision


@pytest.mark.parametrize("result", range(4))
def test_no_compare_holds_of_a_value_that_is_not_there(store: Store, result: Any) -> None:
    assert not txn(store, compare=(compare(b"a", target=pb.Compare.VALUE, value=b"", result=result),)).succeeded


def test_a_compare_whose_number_is_of_another_target_compares_with_nought(store: Store) -> None:
    put(store, b"a")
    mismatch = compare(b"a", target=pb.Compare.VERSION, mod_revision=1)
    assert not txn(store, compare=(mismatch,)).succeeded
    assert txn(store, compare=(compare(b"b", target=pb.Compare.VERSION, mod_revision=1),)).succeeded


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (pb.PutRequest(key=b"x", lease=9), EtcdError.LEASE_NOT_FOUND),
        (pb.PutRequest(key=b"x", ignore_value=True), EtcdError.KEY_NOT_FOUND),
        (pb.PutRequest(key=b"x", ignore_value=True, lease=9), EtcdError.KEY_NOT_FOUND),
        (pb.RangeRequest(key=b"x", revision=5), EtcdError.FUTURE_REVISION),
        (pb.RangeRequest(key=b"x", revision=2), EtcdError.COMPACTED),
        (pb.RangeRequest(key=b"x", revision=-1), EtcdError.COMPACTED),
        (pb.TxnRequest(success=[pb.RequestOp()]), EtcdError.KEY_NOT_FOUND),
    ],
)
def test_a_transaction_fails_as_a_whole_wherever_the_fault_is(store: Store, request_: Any, error: EtcdError) -> None:
    """Revision 5 would be the transaction's own."""
    for _ in range(3):
        put(store, b"a")
    compact(store, 3)
    before = store.digest()
    nested = pb.TxnRequest(success=[operation(pb.DeleteRangeRequest(key=b"a")), operation(request_)])
    assert txn(store, pb.PutRequest(key=b"b"), nested) is error
    assert store.digest() == before


def test_a_fault_on_the_way_not_taken_does_no_harm(store: Store) -> None:
    faulty = [operation(pb.PutRequest(key=b"x", lease=9)), operation(pb.RangeRequest(key=b"x", revision=99))]
    response = apply(store, pb.TxnRequest(success=[operation(pb.PutRequest(key=b"a"))], failure=faulty))
    assert response.succeeded and store.revision == 2


def test_a_key_that_a_transaction_writes_twice_has_one_version_at_its_revision(store: Store) -> None:
    """No door lets this through at one level, but a put and then a deletion in nested transactions do come."""
    nested = pb.TxnRequest(success=[operation(pb.DeleteRangeRequest(key=b"a"))])
    put(store, b"a", b"before")
    txn(store, pb.PutRequest(key=b"a", value=b"during"), nested)
    assert [(version.value, version.version) for version in store.changes(3)] == [(b"during", 2), (b"", 0)]
    assert store.at(b"a", 3) is None
    *_, gone = store.changes(3)
    before = store.version_before(gone)
    assert before is not None and before.value == b"before"


def test_a_put_that_keeps_the_value_of_what_its_transaction_deleted_keeps_it(store: Store) -> None:
    put(store, b"a", b"kept")
    txn(store, pb.DeleteRangeRequest(key=b"a"), pb.PutRequest(key=b"a", ignore_value=True))
    assert keys_and_values(store, b"a") == [(b"a", b"kept")]


def test_only_ranges_on_both_ways_make_a_transaction_that_needs_no_consensus(store: Store) -> None:
    reading, writing = operation(pb.RangeRequest(key=b"a")), operation(pb.PutRequest(key=b"a"))
    assert is_read_only(pb.TxnRequest(success=[reading], failure=[reading]))
    assert not is_read_only(pb.TxnRequest(success=[reading], failure=[writing]))
    assert not is_read_only(pb.TxnRequest(success=[operation(pb.TxnRequest(success=[reading]))]))
    put(store, b"a", b"1")
    response = response_of(store.txn(pb.TxnRequest(success=[reading])), pb.TxnResponse)
    assert response.responses[0].response_range.kvs[0].value == b"1"
    future = operation(pb.RangeRequest(key=b"a", revision=3))
    assert store.txn(pb.TxnRequest(success=[future])).error is EtcdError.FUTURE_REVISION


# --- compaction -------------------------------------------------------------------------------


def test_compaction_refuses_what_is_before_it_and_not_its_own_revision(store: Store) -> None:
    for value in (b"1", b"2", b"3"):
        put(store, b"a", value)
    assert compact(store, 5) is EtcdError.FUTURE_REVISION
    assert compact(store, 3).header.revision == 4
    assert compact(store, 3) is EtcdError.COMPACTED
    assert read(store, b"a", revision=2) is EtcdError.COMPACTED
    assert read(store, b"a", revision=5) is EtcdError.FUTURE_REVISION
    assert keys_and_values(store, b"a", revision=3) == [(b"a", b"2")]
    assert keys_and_values(store, b"a", revision=-7) == [(b"a", b"3")]
    with pytest.raises(Compacted) as caught:
        store.changes(2)
    assert caught.value.revision == 3
    with pytest.raises(Compacted):
        store.at(b"a", 2)


def test_a_new_store_may_be_compacted_at_nought_once(store: Store) -> None:
    """As etcd, whose compacted revision begins at -1."""
    assert compact(store, -1) is EtcdError.COMPACTED
    assert compact(store, 0).header.revision == 1
    assert compact(store, 0) is EtcdError.COMPACTED


def test_history_from_the_compacted_revision_on_is_without_what_was_forgotten_at_it(store: Store) -> None:
    put(store, b"a", b"1")
    put(store, b"b")
    delete(store, b"b")
    compact(store, 4)
    put(store, b"a", b"2")
    assert [version.mod_revision for version in store.changes(4)] == [5]
    sweep(store)
    assert [version.mod_revision for version in store.changes(4)] == [5]


def test_there_is_nothing_before_a_change_if_that_is_compacted(store: Store) -> None:
    put(store, b"a", b"1")
    put(store, b"a", b"2")
    put(store, b"a", b"3")
    compact(store, 3)
    second, third = store.changes(3)
    assert store.version_before(second) is None
    assert store.version_before(third) == second


def test_a_sweep_gives_back_all_that_was_forgotten(store: Store) -> None:
    for _ in range(3):
        for number in range(3000):
            put(store, b"key%d" % number)
    delete(store, b"key2", b"key3")
    compact(store, store.revision)
    left = store.summary()["keys"]
    assert 0 < left < 3000
    assert store.size_bytes == sum(256 + len(key) for key, _ in keys_and_values(store, b"\0", b"\0"))
    assert store.sweep(1)
    sweep(store)
    assert store.summary()["versions"] == left
    assert store.digest()


def test_what_is_left_of_very_many_keys_is_found_after_the_sweep(store: Store) -> None:
    """The index makes itself smaller on the way."""
    for number in range(30_000):
        put(store, b"key%05d" % number)
    delete(store, b"key", b"key29")
    compact(store, store.revision)
    sweep(store)
    assert store.summary()["versions"] == 1000
    assert all(keys_and_values(store, b"key%05d" % number) for number in range(29_000, 30_000))


def test_the_sweep_goes_on_from_one_compaction_into_the_next(store: Store) -> None:
    for number in range(10):
        put(store, b"%d" % number)
        put(store, b"0")
    compact(store, 10)
    assert store.sweep(3)
    compact(store, store.revision)
    sweep(store)
    assert store.summary()["versions"] == 10


# --- leases -----------------------------------------------------------------------------------


def test_a_lease_is_granted_once_and_says_its_ttl(store: Store) -> None:
    response = apply(store, commands.grant(7, 10))
    assert (response.ID, response.TTL) == (7, 10)
    assert [(change.lease.lease_id, change.granted) for change in store.lease_changes] == [(7, True)]
    assert apply(store, commands.grant(7, 10)) is EtcdError.LEASE_EXISTS
    assert not store.lease_changes
    assert apply(store, commands.grant(8, 1)).TTL == 2
    assert apply(store, commands.grant(9, 9_000_000_001)) is EtcdError.LEASE_TTL_TOO_LARGE
    assert apply(store, commands.grant(9, 9_000_000_000)).TTL == 9_000_000_000
    assert apply(store, commands.grant(-5, 10)).ID == -5


def test_the_end_of_a_lease_deletes_its_keys_in_one_revision_and_in_their_order(store: Store) -> None:
    apply(store, commands.grant(7, 10))
    for key in (b"c", b"a", b"b"):
        put(store, key, lease=7)
    put(store, b"other")
    revision = apply(store, commands.revoke(7)).header.revision
    assert revision == 6
    assert [(gone.key, gone.mod_revision) for gone in store.changes(6)] == [(b"a", 6), (b"b", 6), (b"c", 6)]
    assert [(change.lease.lease_id, change.granted) for change in store.lease_changes] == [(7, False)]
    assert apply(store, commands.revoke(7)) is EtcdError.LEASE_NOT_FOUND
    assert not store.leases


def test_a_key_hangs_on_the_lease_of_its_last_put(store: Store) -> None:
    apply(store, commands.grant(7, 10))
    apply(store, commands.grant(8, 10))
    put(store, b"moved", lease=7)
    put(store, b"moved", lease=8)
    put(store, b"freed", lease=7)
    put(store, b"freed")
    put(store, b"kept", b"1", lease=7)
    put(store, b"kept", b"2", ignore_lease=True)
    put(store, b"deleted", lease=7)
    delete(store, b"deleted")
    assert store.leases[7].keys == {b"kept"}
    apply(store, commands.revoke(7))
    assert [key for key, _ in keys_and_values(store, b"\0", b"\0")] == [b"freed", b"moved"]


def test_the_end_of_an_earlier_lease_does_nothing_to_a_later_one_of_the_same_id(store: Store) -> None:
    apply(store, commands.grant(7, 10))
    first = store.leases[7].generation
    apply(store, commands.revoke(7))
    apply(store, commands.grant(7, 10))
    put(store, b"a", lease=7)
    assert apply(store, commands.expire(7, first)).header.revision == 2
    assert 7 in store.leases
    apply(store, commands.expire(7, store.leases[7].generation))
    assert not store.leases and not keys_and_values(store, b"a")


def test_a_put_with_a_lease_that_there_is_not_fails(store: Store) -> None:
    assert apply(store, pb.PutRequest(key=b"a", lease=7)) is EtcdError.LEASE_NOT_FOUND
    assert store.revision == 1


# --- quota ------------------------------------------------------------------------------------


def test_a_full_store_takes_deletions_and_compactions_and_then_puts_again() -> None:
    store = Store(quota_bytes=100_000)
    value = bytes(10_000)
    revisions = []
    while not isinstance(response := apply(store, pb.PutRequest(key=b"a", value=value)), EtcdError):
        revisions.append(response.header.revision)
    assert response is EtcdError.NO_SPACE and len(revisions) == 9
    before = store.digest()
    writing = operation(pb.PutRequest(key=b"b", value=value))
    nested = operation(pb.TxnRequest(failure=[writing]))
    assert apply(store, pb.TxnRequest(failure=[writing])) is EtcdError.NO_SPACE
    assert apply(store, pb.TxnRequest(success=[nested])) is EtcdError.NO_SPACE
    assert store.digest() == before
    assert txn(store, pb.RangeRequest(key=b"a")).succeeded
    assert txn(store, pb.DeleteRangeRequest(key=b"a")).responses[0].response_delete_range.deleted == 1
    compact(store, store.revision)
    assert store.size_bytes == 0
    put(store, b"a", value)


def test_a_full_store_grants_no_leases() -> None:
    store = Store(quota_bytes=1000)
    put(store, b"a", bytes(300))
    assert apply(store, commands.grant(1, 10)) is EtcdError.NO_SPACE
    delete(store, b"a")
    compact(store, store.revision)
    apply(store, commands.grant(1, 10))
    assert store.size_bytes == LEASE_OVERHEAD_BYTES
    apply(store, commands.revoke(1))
    assert store.size_bytes == 0


def test_a_lease_counts_for_what_it_takes(store: Store) -> None:
    """Else a client could fill the memory with leases long before the quota is reached."""
    grants = [commands.grant(number << 40, 60) for number in range(1, 5001)]
    tracemalloc.start()
    try:
        for command in grants:
            store.apply([command], 1)
        taken_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken_bytes <= store.size_bytes <= 2 * taken_bytes
