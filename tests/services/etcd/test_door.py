"""The whole door, over TCP, with grpcio as its client."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.door import SWEEP_VERSIONS
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.header import cluster_number, member_number
from quorate.services.etcd.options import EtcdOptions
from quorate.services.interface import Refused
from tests.net.grpc.test_tls import Certificates
from tests.services.etcd.door_cluster import CLUSTER_ID, Doors, serving
from tests.services.etcd.refusals import ANSWERS, REQUESTS, Case, nested_deeply, put, read

PUT, RANGE, TXN = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn"
DELETE, COMPACT = "/etcdserverpb.KV/DeleteRange", "/etcdserverpb.KV/Compact"
MEMBERS, STATUS = "/etcdserverpb.Cluster/MemberList", "/etcdserverpb.Maintenance/Status"
WATCH = "/etcdserverpb.Watch/Watch"


@pytest.fixture(scope="module")
def one() -> Iterator[Doors]:
    """For tests that leave the group as it is."""
    with serving() as doors:
        yield doors


@pytest.fixture
def doors() -> Iterator[Doors]:
    with serving(options=EtcdOptions(request_timeout_ms=300), margin_ms=100) as doors:
        yield doors


def said(error: grpc.RpcError) -> tuple[str, str]:
    return error.code().name, error.details() or ""


def words(error: EtcdError) -> tuple[str, str]:
    return error.code.name, error.message


# --- requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*REQUESTS, *ANSWERS], ids=lambda case: case.situation)
def test_the_answer_to(case: Case, one: Doors) -> None:
    if case.error is None:
        one.ask(case.method, case.request, pb.PutResponse)
    else:
        with pytest.raises(grpc.RpcError) as refusal:
            one.ask(case.method, case.request, pb.PutResponse)
        assert said(refusal.value) == words(case.error)


@pytest.mark.parametrize(
    "method", [PUT, RANGE, TXN, DELETE, COMPACT, MEMBERS, STATUS, "/etcdserverpb.Lease/LeaseGrant"]
)
def test_bytes_that_are_no_message(method: str, one: Doors) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        one.ask(method, b"\xff\xff\xff", pb.PutResponse)
    assert refusal.value.code() is grpc.StatusCode.INTERNAL
    assert said(refusal.value)[1].startswith("grpc: error unmarshalling request: ")


@pytest.mark.parametrize("missing", [1, 2, 100])
def test_a_read_whose_key_is_longer_than_the_message(missing: int, one: Doors) -> None:
    for size_bytes in (1, 126, 127, 128, 129, 200):
        whole = pb.RangeRequest(key=b"k" * size_bytes).SerializeToString()
        with pytest.raises(grpc.RpcError) as refusal:
            one.ask(RANGE, whole[:-missing] if missing < size_bytes else whole[:-1], pb.RangeResponse)
        assert refusal.value.code() is grpc.StatusCode.INTERNAL


def test_a_message_larger_than_grpc_takes(one: Doors) -> None:
    """In the words of grpc-go, at the size at which etcd says them."""
    request = pb.PutRequest(key=b"k", value=bytes(3 << 20))
    with pytest.raises(grpc.RpcError) as refusal:
        one.ask(PUT, request, pb.PutResponse)
    expected = f"grpc: received message larger than max ({request.ByteSize()} vs. 2097152)"
    assert said(refusal.value) == ("RESOURCE_EXHAUSTED", expected)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
        ("/etcdserverpb.Auth/AuthEnable", "unknown service etcdserverpb.Auth"),
    ],
)
def test_what_is_not_served(method: str, message: str, one: Doors) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        one.ask(method, b"", pb.PutResponse)
    assert said(refusal.value) == ("UNIMPLEMENTED", message)


def test_transactions_as_deep_as_python_decodes(one: Doors) -> None:
    ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = one.channel().unary_unary(TXN)
    # The answer is too deep for Python's clients.
    assert ask(nested_deeply(49), timeout=20)
    with pytest.raises(grpc.RpcError) as refusal:
        ask(nested_deeply(50), timeout=20)
    assert refusal.value.code() is grpc.StatusCode.INTERNAL


def test_what_is_written_is_read() -> None:
    with serving() as doors:
        assert doors.ask(PUT, pb.PutRequest(key=b"k", value=b"v"), pb.PutResponse).header.revision == 2
        changed = doors.ask(TXN, pb.TxnRequest(success=[put(b"k", value=b"w"), read(b"k")]), pb.TxnResponse)
        assert changed.responses[1].response_range.kvs[0].value == b"w"
        for request in (
            pb.RangeRequest(key=b"k"),
            pb.RangeRequest(key=b"k", serializable=True),
            pb.RangeRequest(key=b"a", range_end=b"z"),
        ):
            found = doors.ask(RANGE, request, pb.RangeResponse)
            assert (found.count, found.kvs[0].value, found.header.revision) == (1, b"w", 3)
        for serializable in (True, False):
            txn = pb.TxnRequest(success=[read(b"k", serializable=serializable)])
            answer = doors.ask(TXN, txn, pb.TxnResponse)
            assert answer.responses[0].response_range.kvs[0].value == b"w"
        assert doors.ask(DELETE, pb.DeleteRangeRequest(key=b"k"), pb.DeleteRangeResponse).deleted == 1
        assert doors.ask(COMPACT, pb.CompactionRequest(revision=4), pb.CompactionResponse).header.revision == 4


def test_a_key_longer_than_the_short_way_of_a_read(one: Doors) -> None:
    for size_bytes in (1, 126, 127, 128, 129, 300):
        key = b"l" * size_bytes
        one.ask(PUT, pb.PutRequest(key=key, value=b"%d" % size_bytes), pb.PutResponse)
        found = one.ask(RANGE, pb.RangeRequest(key=key), pb.RangeResponse)
        assert (found.kvs[0].key, found.kvs[0].value) == (key, b"%d" % size_bytes)


@pytest.mark.parametrize("serializable", [True, False])
def test_a_range_that_is_read_in_pieces(serializable: bool) -> None:
    with serving() as doors:
        for start in range(0, 2000, 100):
            txn = pb.TxnRequest(success=[put(b"k%04d" % number) for number in range(start, start + 100)])
            doors.ask(TXN, txn, pb.TxnResponse)
        request = pb.RangeRequest(key=b"k", range_end=b"l", serializable=serializable)
        found = doors.ask(RANGE, request, pb.RangeResponse)
        assert [kv.key for kv in found.kvs] == [b"k%04d" % number for number in range(2000)]
        assert (found.count, found.header.revision) == (2000, 21)


def test_only_reads_that_ask_for_less_do_without_a_barrier(doors: Doors) -> None:
    doors.pull(doors.cluster.hold)
    doors.ask(RANGE, pb.RangeRequest(key=b"k", serializable=True), pb.RangeResponse)
    doors.ask(TXN, pb.TxnRequest(success=[read(serializable=True)]), pb.TxnResponse)
    waiting: list[grpc.Future[Any]] = [
        doors.begin(RANGE, pb.RangeRequest(key=b"k"), pb.RangeResponse),
        doors.begin(RANGE, pb.RangeRequest(key=b"k", limit=1), pb.RangeResponse),
        doors.begin(TXN, pb.TxnRequest(success=[read()]), pb.TxnResponse),
        doors.begin(TXN, pb.TxnRequest(compare=[pb.Compare(key=b"k", version=0)]), pb.TxnResponse),
    ]
    doors.wait_for(lambda cluster: cluster.nodes[0].door.summary()["outstanding"] == 4, "all reads wait")
    assert not any(future.done() for future in waiting)
    assert doors.cluster.position == 0, "no read goes through the log"
    doors.pull(doors.cluster.release)
    for future in waiting:
        future.result()


def test_what_a_compaction_forgets_is_swept_on_every_node() -> None:
    with serving(2) as doors:
        puts = [doors.begin(PUT, pb.PutRequest(key=b"k"), pb.PutResponse) for _ in range(SWEEP_VERSIONS + 500)]
        revision = max(future.result().header.revision for future in puts)
        doors.ask(COMPACT, pb.CompactionRequest(revision=revision), pb.CompactionResponse)
        doors.wait_for(
            lambda cluster: all(node.store.summary()["versions"] == 1 for node in cluster.nodes),
            "only the present is left",
        )


# --- header ------------------------------------------------------------------------------------


def test_every_answer_says_whose_it_is() -> None:
    with serving(2) as doors:
        doors.ask(PUT, pb.PutRequest(key=b"k"), pb.PutResponse)
        for node in (0, 1):
            header = doors.ask(RANGE, pb.RangeRequest(key=b"k"), pb.RangeResponse, node).header
            expected = pb.ResponseHeader(
                cluster_id=cluster_number(CLUSTER_ID),
                member_id=member_number(CLUSTER_ID, node),
                revision=2,
                raft_term=2,
            )
            assert header == expected
        doors.pull(doors.cluster.lead, 1)
        assert doors.ask(PUT, pb.PutRequest(key=b"k"), pb.PutResponse).header.raft_term == 3


# --- when there is no result ---------------------------------------------------------------------


def _write_that_waits(doors: Doors) -> grpc.Future[pb.PutResponse]:
    doors.pull(doors.cluster.hold)
    future = doors.begin(PUT, pb.PutRequest(key=b"k"), pb.PutResponse)
    doors.wait_for(lambda cluster: bool(cluster.log), "the write waits")
    return future


def _failure(future: grpc.Future[Any]) -> tuple[str, str]:
    error = future.exception(timeout=20)
    assert isinstance(error, grpc.RpcError)
    return said(error)


@pytest.mark.parametrize("why", Refused)
def test_a_write_that_is_refused(why: Refused, doors: Doors) -> None:
    future = _write_that_waits(doors)
    doors.pull(doors.cluster.refuse, why)
    told = {Refused.NO_LEADER: EtcdError.NO_LEADER, Refused.DISK_FULL: EtcdError.NO_SPACE}
    assert _failure(future) == words(told.get(why, EtcdError.STOPPED))


def test_a_write_under_way_when_the_leader_changes() -> None:
    """No client of etcd takes these words for "not done"."""
    with serving(2) as doors:
        future = _write_that_waits(doors)
        doors.pull(doors.cluster.lead, 1)
        assert _failure(future) == words(EtcdError.TIMEOUT_LEADER_FAILED)


def test_a_write_that_takes_too_long(doors: Doors) -> None:
    future = _write_that_waits(doors)
    assert _failure(future) == words(EtcdError.TIMEOUT)
    doors.pull(doors.cluster.release)
    doors.wait_for(lambda cluster: cluster.nodes[0].store.revision == 2, "it is done all the same")


def test_a_read_waits_for_the_next_leader() -> None:
    with serving(2) as doors:
        doors.pull(doors.cluster.lead, None)
        future = doors.begin(RANGE, pb.RangeRequest(key=b"k"), pb.RangeResponse)
        doors.wait_for(lambda cluster: bool(cluster.nodes[0].door._reads._failed), "its barrier failed")

        def lead() -> int:
            doors.cluster.lead(1)
            return len(doors.cluster.nodes[0].door._reads._asked)

        assert doors.pull(lead) == 1, "at once, not with the next tick"
        assert future.result().header.raft_term == 4


def test_a_read_while_there_is_no_leader_for_long(doors: Doors) -> None:
    doors.pull(doors.cluster.lead, None)
    future = doors.begin(RANGE, pb.RangeRequest(key=b"k"), pb.RangeResponse)
    assert _failure(future) == words(EtcdError.TIMEOUT)
    doors.ask(RANGE, pb.RangeRequest(key=b"k", serializable=True), pb.RangeResponse)


def test_a_client_that_gave_up_harms_nobody(doors: Doors) -> None:
    future = _write_that_waits(doors)
    reading = doors.begin(RANGE, pb.RangeRequest(key=b"k"), pb.RangeResponse)
    doors.wait_for(lambda cluster: bool(cluster.asked), "the read waits")
    future.cancel()
    reading.cancel()
    doors.pull(doors.cluster.release)
    assert doors.ask(PUT, pb.PutRequest(key=b"k"), pb.PutResponse).header.revision == 3


def test_while_the_group_is_congested_writes_wait(doors: Doors) -> None:
    doors.pull(doors.cluster.congest, 0, True)
    doors.ask(PUT, pb.PutRequest(key=b"k"), pb.PutResponse)
    waiting = doors.begin(PUT, pb.PutRequest(key=b"k"), pb.PutResponse)
    doors.wait_for(lambda cluster: cluster.nodes[0].door.summary()["outstanding"] == 1, "it waits")
    assert doors.pull(lambda: len(doors.cluster.nodes[0].group.submissions)) == 1
    doors.pull(doors.cluster.congest, 0, False)
    waiting.result()


# --- clients that want a leader -------------------------------------------------------------------


def test_a_call_that_wants_a_leader(doors: Doors) -> None:
    read_here = pb.RangeRequest(key=b"k", serializable=True)
    doors.ask(RANGE, read_here, pb.RangeResponse, hasleader="true")
    doors.pull(doors.cluster.lead, None)
    assert _failure(doors.begin(RANGE, read_here, pb.RangeResponse, hasleader="true")) == words(EtcdError.NO_LEADER)
    doors.ask(RANGE, read_here, pb.RangeResponse)


def _watch(doors: Doors, **metadata: str) -> tuple[queue.Queue[pb.WatchRequest | None], Iterator[pb.WatchResponse]]:
    """A stream with one watch on it."""
    requests: queue.Queue[pb.WatchRequest | None] = queue.Queue()
    requests.put(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")))
    begin: grpc.StreamStreamMultiCallable[pb.WatchRequest, pb.WatchResponse] = doors.channel().stream_stream(
        WATCH,
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )
    return requests, iter(begin(iter(requests.get, None), timeout=20, metadata=tuple(metadata.items())))


def test_a_stream_that_wants_a_leader(doors: Doors) -> None:
    requests, patient = _watch(doors)
    more, wanting = _watch(doors, hasleader="true")
    assert next(patient).created and next(wanting).created
    doors.pull(doors.cluster.lead, None)
    with pytest.raises(grpc.RpcError) as refusal:
        next(wanting)
    assert said(refusal.value) == words(EtcdError.NO_LEADER)
    # It comes back, and is refused at once.
    again, refused = _watch(doors, hasleader="true")
    with pytest.raises(grpc.RpcError) as refusal:
        next(refused)
    assert said(refusal.value) == words(EtcdError.NO_LEADER)
    doors.pull(doors.cluster.lead, 0)
    doors.ask(PUT, pb.PutRequest(key=b"k"), pb.PutResponse)
    assert next(patient).events[0].kv.key == b"k"
    for stream in (requests, more, again):
        stream.put(None)


# --- members -------------------------------------------------------------------------------------


def _members(doors: Doors, node: int = 0) -> pb.MemberListResponse:
    return doors.ask(MEMBERS, pb.MemberListRequest(linearizable=True), pb.MemberListResponse, node)


def test_every_door_knows_where_all_are() -> None:
    with serving(3) as doors:
        everywhere = {
            member_number(CLUSTER_ID, node): (
                f"node-{node}",
                [f"http://127.0.0.1:{7000 + node}"],
                [f"http://127.0.0.1:{doors.cluster.nodes[node].door.port}"],
            )
            for node in range(3)
        }
        for node in range(3):
            answer = _members(doors, node)
            assert [member.ID for member in answer.members] == sorted(everywhere)
            assert {m.ID: (m.name, list(m.peerURLs), list(m.clientURLs)) for m in answer.members} == everywhere
            # As etcd: no revision.
            assert answer.header.revision == 0 and answer.header.member_id == member_number(CLUSTER_ID, node)


def test_a_door_that_could_not_be_reached_is_told_when_it_can() -> None:
    with serving(2) as doors:
        doors.pull(doors.cluster.cut.add, 1)
        doors.pull(doors.cluster.nodes[0].door._members._known.clear)
        assert not any(member.clientURLs for member in _members(doors).members)
        doors.pull(doors.cluster.cut.clear)
        doors.wait_for(
            lambda cluster: 1 in cluster.nodes[0].door._members._known, "a later announcement of node 1 arrives"
        )


def test_a_learner_is_called_one(doors: Doors) -> None:
    doors.pull(doors.cluster.learners.append, 7)
    listed = {member.name: member for member in _members(doors).members}
    assert listed["node-7"].isLearner and not listed["node-0"].isLearner
    assert list(listed["node-7"].clientURLs) == []
    assert not doors.ask(STATUS, b"", pb.StatusResponse).isLearner


def test_behind_a_wildcard_clients_are_told_another_host() -> None:
    with serving(host="::1", reachable_host="fd00::7") as doors:
        port = doors.cluster.nodes[0].door.port
        channel = grpc.insecure_channel(f"[::1]:{port}")
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MEMBERS)
        answer = pb.MemberListResponse.FromString(ask(b"", timeout=20))
        channel.close()
        assert list(answer.members[0].clientURLs) == [f"http://[fd00::7]:{port}"]


def test_with_tls_clients_are_told_so(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with serving(options=EtcdOptions(tls=certificates.server_context(with_clients=False))) as doors:
        authority = certificates.path("ours.pem").read_bytes()
        target = f"127.0.0.1:{doors.cluster.nodes[0].door.port}"
        with grpc.secure_channel(target, grpc.ssl_channel_credentials(authority)) as channel:
            ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MEMBERS)
            answer = pb.MemberListResponse.FromString(ask(b"", timeout=20))
        assert list(answer.members[0].clientURLs) == [f"https://{target}"]


def test_a_note_that_is_none(doors: Doors) -> None:
    for note in (b"m", b"m\xff", b"m\x93\x01\x02\x03", b"m\x92\xa1a\xa1b"):
        with pytest.raises(ValueError, match="announcement"):
            doors.pull(doors.cluster.nodes[0].door.told, 0, note)


def test_status(doors: Doors) -> None:
    doors.ask(PUT, pb.PutRequest(key=b"k", value=bytes(1000)), pb.PutResponse)
    status = doors.ask(STATUS, b"", pb.StatusResponse)
    assert (status.version, status.leader) == ("3.4.23", status.header.member_id)
    assert (status.raftIndex, status.raftAppliedIndex, status.raftTerm) == (1, 1, 2)
    assert status.dbSize >= status.dbSizeInUse >= 1000
    assert (status.header.revision, list(status.errors), status.isLearner) == (2, [], False)
    doors.pull(doors.cluster.lead, None)
    status = doors.ask(STATUS, b"", pb.StatusResponse)
    assert (status.leader, list(status.errors)) == (0, ["etcdserver: no leader"])


# --- the end -------------------------------------------------------------------------------------


def test_a_node_that_stops_answers_what_waits() -> None:
    with serving() as doors:
        doors.pull(doors.cluster.hold)
        reading = doors.begin(RANGE, pb.RangeRequest(key=b"k"), pb.RangeResponse)
        requests, watching = _watch(doors)
        assert next(watching).created
        doors.wait_for(lambda cluster: bool(cluster.asked), "the read waits")
        doors.run(doors.cluster.stop())
        assert _failure(reading) == words(EtcdError.STOPPED)
        with pytest.raises(grpc.RpcError) as end:
            next(watching)
        assert said(end.value) == words(EtcdError.STOPPED)
        requests.put(None)


def test_a_node_that_stops_refuses_what_waits_for_a_congested_group() -> None:
    with serving() as doors:
        doors.pull(doors.cluster.congest, 0, True)
        doors.ask(PUT, pb.PutRequest(key=b"k"), pb.PutResponse)
        waiting = doors.begin(PUT, pb.PutRequest(key=b"k"), pb.PutResponse)
        doors.wait_for(lambda cluster: cluster.nodes[0].door.summary()["outstanding"] == 1, "it waits")
        doors.run(doors.cluster.stop())
        assert _failure(waiting) == words(EtcdError.STOPPED)
