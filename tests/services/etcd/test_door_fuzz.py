"""Any bytes for any method: an answer or a status of etcd's, and a door that goes on."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorate.services.etcd import etcd_pb2 as pb
from tests.services.etcd.door_cluster import Doors, serving
from tests.services.etcd.refusals import ANSWERS, REQUESTS, delete, nested, put, read

SEEDS: dict[str, list[Message]] = {
    "/etcdserverpb.KV/Range": [
        pb.RangeRequest(
            key=b"a", range_end=b"z", limit=3, revision=2, sort_order="ASCEND", sort_target="CREATE", min_mod_revision=1
        )
    ],
    "/etcdserverpb.KV/Put": [pb.PutRequest(key=b"a", value=b"b", lease=1, prev_kv=True, ignore_lease=True)],
    "/etcdserverpb.KV/DeleteRange": [pb.DeleteRangeRequest(key=b"a", range_end=b"b", prev_kv=True)],
    "/etcdserverpb.KV/Txn": [
        pb.TxnRequest(
            compare=[
                pb.Compare(key=b"a", target="MOD", result="GREATER", mod_revision=3),
                pb.Compare(key=b"a", range_end=b"c", target="VALUE", value=b"v"),
            ],
            success=[put(b"a", value=b"1"), read(b"a", range_end=b"\0"), nested([delete(b"x")], [put(b"y", lease=3)])],
            failure=[delete(b"a", b"\0")],
        )
    ],
    "/etcdserverpb.KV/Compact": [pb.CompactionRequest(revision=1, physical=True)],
    "/etcdserverpb.Lease/LeaseGrant": [pb.LeaseGrantRequest(TTL=10, ID=5)],
    "/etcdserverpb.Lease/LeaseRevoke": [pb.LeaseRevokeRequest(ID=5)],
    "/etcdserverpb.Lease/LeaseTimeToLive": [pb.LeaseTimeToLiveRequest(ID=5, keys=True)],
    "/etcdserverpb.Lease/LeaseLeases": [pb.LeaseLeasesRequest()],
    "/etcdserverpb.Cluster/MemberList": [pb.MemberListRequest(linearizable=True)],
    "/etcdserverpb.Maintenance/Status": [pb.StatusRequest()],
}
for case in (*REQUESTS, *ANSWERS):
    if case.request.ByteSize() < 4096:
        SEEDS[case.method].append(case.request)

UNARY = sorted(SEEDS)
STREAMS = {
    "/etcdserverpb.Watch/Watch": [
        pb.WatchRequest(
            create_request=pb.WatchCreateRequest(key=b"a", range_end=b"z", start_revision=1, filters=["NOPUT"])
        ),
        pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=0)),
        pb.WatchRequest(progress_request=pb.WatchProgressRequest()),
        pb.WatchRequest(),
    ],
    "/etcdserverpb.Lease/LeaseKeepAlive": [pb.LeaseKeepAliveRequest(ID=5), pb.LeaseKeepAliveRequest()],
}
EXPECTED = {
    *(grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE),
    *(grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.CANCELLED),
}


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    with serving(2) as doors:
        yield doors
        assert len(doors.pull(lambda: {node.store.digest() for node in doors.cluster.nodes})) == 1


def mutated(message: bytes, seed: int) -> bytes:
    """A few bytes changed, lost, doubled or put in."""
    source, changed = random.Random(seed), bytearray(message)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(changed) + 1)
        kind = source.randrange(4)
        if kind == 0:
            changed[at : at + 1] = bytes([source.randrange(256)])
        elif kind == 1:
            del changed[at : at + source.randint(1, 3)]
        elif kind == 2:
            changed[at:at] = changed[at : at + source.randint(1, 8)]
        else:
            changed[at:at] = source.randbytes(source.randint(1, 3))
    return bytes(changed)


def mutations(seeds: list[Message]) -> st.SearchStrategy[bytes]:
    encoded = [seed.SerializeToString() for seed in seeds]
    return st.builds(mutated, st.sampled_from(encoded), st.integers(0, 1 << 32)) | st.binary(max_size=200)


any_call = st.sampled_from(UNARY).flatmap(lambda method: st.tuples(st.just(method), mutations(SEEDS[method])))
any_stream = st.sampled_from(sorted(STREAMS)).flatmap(
    lambda method: st.tuples(st.just(method), st.lists(mutations(STREAMS[method]), max_size=6))  # type: ignore[arg-type]
)
few = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def goes_on(doors: Doors) -> None:
    answer = doors.ask("/etcdserverpb.KV/Put", pb.PutRequest(key=b"still there"), pb.PutResponse)
    assert not doors.cluster.errors, doors.cluster.errors
    stores = [node.store for node in doors.cluster.nodes]
    assert stores[0].revision == stores[1].revision == answer.header.revision


@few
@given(calls=st.lists(any_call, min_size=1, max_size=20))
def test_any_bytes_in_any_call(doors: Doors, calls: list[tuple[str, bytes]]) -> None:
    futures = []
    for method, message in calls:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = doors.channel().unary_unary(method)
        futures.append(ask.future(message, timeout=20))
    for (method, message), future in zip(calls, futures, strict=True):
        future.exception(timeout=30)
        assert future.code() in EXPECTED, (method, message, future.code(), future.details())
    goes_on(doors)


@few
@given(stream=any_stream)
def test_any_bytes_in_any_stream(doors: Doors, stream: tuple[str, list[bytes]]) -> None:
    method, messages = stream
    begin: grpc.StreamStreamMultiCallable[bytes, bytes] = doors.channel().stream_stream(method)
    call = begin(iter(messages), timeout=20)
    goes_on(doors)
    call.cancel()
    goes_on(doors)


@few
@given(note=st.binary(max_size=60), prefix=st.sampled_from([b"", b"m", b"m\x92", b"\x01", b"\x02"]))
def test_any_bytes_from_another_door(doors: Doors, note: bytes, prefix: bytes) -> None:
    """Not from a client, but bytes off the network all the same: understood, or a ValueError."""
    with contextlib.suppress(ValueError):
        doors.pull(doors.cluster.nodes[0].door.told, 1, prefix + note)
    goes_on(doors)
