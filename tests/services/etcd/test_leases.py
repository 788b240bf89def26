"""The Lease service of several doors around one log, with notes that get lost and leaders that change.

The clients are grpcio's.  Time is the loop's own: a lease of etcd lives for two seconds at the least, so the tests wait
for what happens and never say when.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial

import grpc
import pytest

from quorate.services.etcd import etcd_pb2 as pb
from tests.processes.cluster import eventually
from tests.services.etcd.door_cluster import DoorCluster, Doors, serving

LEASE = "/etcdserverpb.Lease/"


def grant(doors: Doors, ttl_s: int, lease: int = 0, node: int = 0) -> pb.LeaseGrantResponse:
    return doors.ask(f"{LEASE}LeaseGrant", pb.LeaseGrantRequest(TTL=ttl_s, ID=lease), pb.LeaseGrantResponse, node)


def revoke(doors: Doors, lease: int, node: int = 0) -> pb.LeaseRevokeResponse:
    return doors.ask(f"{LEASE}LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse, node)


def time_to_live(doors: Doors, lease: int, node: int = 0, keys: bool = False) -> pb.LeaseTimeToLiveResponse:
    request = pb.LeaseTimeToLiveRequest(ID=lease, keys=keys)
    return doors.ask(f"{LEASE}LeaseTimeToLive", request, pb.LeaseTimeToLiveResponse, node)


def leases(doors: Doors, node: int = 0) -> list[int]:
    answer = doors.ask(f"{LEASE}LeaseLeases", pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse, node)
    return [status.ID for status in answer.leases]


def put(doors: Doors, key: bytes, lease: int) -> None:
    doors.ask("/etcdserverpb.KV/Put", pb.PutRequest(key=key, lease=lease), pb.PutResponse)


def keys(doors: Doors, node: int = 0) -> list[bytes]:
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", keys_only=True)
    answer = doors.ask("/etcdserverpb.KV/Range", request, pb.RangeResponse, node)
    return [kv.key for kv in answer.kvs]


class KeepAlive:
    """A LeaseKeepAlive call."""

    def __init__(self, doors: Doors, node: int = 0) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, int] | grpc.RpcError | None] = queue.SimpleQueue()
        open_call: grpc.StreamStreamMultiCallable[bytes, pb.LeaseKeepAliveResponse] = doors.channel(node).stream_stream(
            f"{LEASE}LeaseKeepAlive", response_deserializer=pb.LeaseKeepAliveResponse.FromString
        )
        self._call = open_call(iter(self._requests.get, None))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for answer in self._call:
                self._answers.put((answer.ID, answer.TTL))
            self._answers.put(None)
        except grpc.RpcError as error:
            self._answers.put(error)

    def send(self, *wanted: int) -> None:
        for lease in wanted:
            self._requests.put(pb.LeaseKeepAliveRequest(ID=lease).SerializeToString())

    def send_raw(self, message: bytes) -> None:
        self._requests.put(message)

    def half_close(self) -> None:
        self._requests.put(None)

    def answer(self) -> tuple[int, int] | None:
        """(lease, TTL); None where the call has ended well.  Raises grpc.RpcError."""
        answer = self._answers.get(timeout=20)
        if isinstance(answer, grpc.RpcError):
            raise answer
        return answer

    def answers(self, count: int) -> list[tuple[int, int] | None]:
        return [self.answer() for _ in range(count)]

    def is_silent(self) -> bool:
        return self._answers.empty()

    def close(self) -> None:
        self._call.cancel()


@pytest.fixture
def doors() -> Iterator[Doors]:
    with serving(3) as it:
        yield it


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


# --- grant, revoke, list ---------------------------------------------------------------------------


def test_granting(doors: Doors) -> None:
    drawn = grant(doors, 60)
    assert 0 < drawn.ID < 1 << 63
    assert drawn.TTL == 60
    assert (grant(doors, 10, lease=5, node=1).ID, grant(doors, 9_000_000_000, lease=-7).ID) == (5, -7)
    for too_short in (1, 0, -5):
        assert grant(doors, too_short).TTL == 2
    assert failure(lambda: grant(doors, 10, lease=5)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "etcdserver: lease already exists",
    )
    assert failure(lambda: grant(doors, 9_000_000_001)) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "etcdserver: too large lease TTL",
    )


@pytest.mark.parametrize("node", [0, 1])
def test_revoking_deletes_the_keys_in_one_revision(doors: Doors, node: int) -> None:
    grant(doors, 60, lease=5)
    put(doors, b"a", 5)
    put(doors, b"b", 5)
    assert revoke(doors, 5, node).header.revision == 4
    assert keys(doors) == []
    for gone in (5, 0):
        assert failure(partial(revoke, doors, gone, node)) == (
            grpc.StatusCode.NOT_FOUND,
            "etcdserver: requested lease not found",
        )


@pytest.mark.parametrize("node", [0, 1])
def test_listing(doors: Doors, node: int) -> None:
    for lease in (9, 5, 7):
        grant(doors, 60, lease=lease)
    revoke(doors, 5)
    assert leases(doors, node) == [9, 7]


# --- what remains ------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", [0, 1])
def test_what_remains_is_known_at_every_node(doors: Doors, node: int) -> None:
    grant(doors, 1_000, lease=5)
    put(doors, b"b", 5)
    put(doors, b"a", 5)
    answer = time_to_live(doors, 5, node)
    assert 900 < answer.TTL < 1_000
    assert (answer.ID, answer.grantedTTL, list(answer.keys)) == (5, 1_000, [])
    assert list(time_to_live(doors, 5, node, keys=True).keys) == [b"a", b"b"]
    unknown = time_to_live(doors, 99, node, keys=True)
    assert (unknown.ID, unknown.TTL, unknown.grantedTTL) == (99, -1, 0)


def test_the_leader_is_asked_again_where_a_note_was_lost(doors: Doors) -> None:
    grant(doors, 1_000, lease=5)
    doors.pull(doors.cluster.cut.add, 1)
    call = doors.begin(f"{LEASE}LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=5), pb.LeaseTimeToLiveResponse, node=1)
    with pytest.raises(grpc.FutureTimeoutError):
        call.result(timeout=0.3)
    doors.pull(doors.cluster.cut.clear)
    assert call.result(timeout=20).TTL > 900


# --- keeping alive -----------------------------------------------------------------------------------


@pytest.mark.parametrize("node", [0, 1])
def test_keep_alives_are_answered_in_order(doors: Doors, node: int) -> None:
    grant(doors, 60, lease=5)
    grant(doors, 70, lease=6)
    stream = KeepAlive(doors, node)
    stream.send(5, 99, 6, 0, 5, 5, 6)
    assert stream.answers(7) == [(5, 60), (99, 0), (6, 70), (0, 0), (5, 60), (5, 60), (6, 70)]
    stream.send(5)
    stream.half_close()
    assert stream.answers(2) == [(5, 60), None]


def test_a_lease_that_is_not_known_yet_is_not_taken_for_none(doors: Doors) -> None:
    doors.pull(doors.cluster.hold)
    request = pb.LeaseGrantRequest(TTL=60, ID=5)
    granted = doors.begin(f"{LEASE}LeaseGrant", request, pb.LeaseGrantResponse, node=2)
    doors.wait_for(lambda cluster: bool(cluster.log), "the grant is on its way")
    stream = KeepAlive(doors, 1)
    stream.send(5, 6)
    doors.wait_for(lambda cluster: bool(cluster.asked), "the door asks for a barrier")
    assert stream.is_silent()
    doors.pull(doors.cluster.release)
    assert stream.answers(2) == [(5, 60), (6, 0)]
    assert granted.result().ID == 5


def test_a_lease_that_is_kept_alive_through_a_follower_lives_and_its_neighbour_ends(doors: Doors) -> None:
    for lease in (5, 6):
        grant(doors, 2, lease=lease)
        put(doors, b"%d" % lease, lease)
    stream = KeepAlive(doors, 1)

    def only_mine_is_left() -> bool:
        stream.send(5)
        assert stream.answer() == (5, 2)
        return leases(doors, 2) == [5]

    eventually(only_mine_is_left, "the lease that nobody kept alive ends")
    assert keys(doors) == [b"5"]
    assert time_to_live(doors, 6).TTL == -1
    stream.close()
    eventually(lambda: leases(doors) == [], "the other ends too when its client is gone")
    assert keys(doors) == []


def test_a_keep_alive_waits_for_the_leaders_word(doors: Doors) -> None:
    grant(doors, 60, lease=5)
    doors.pull(doors.cluster.cut.add, 0)
    stream = KeepAlive(doors, 1)
    stream.send(5, 5)
    ticked = doors.pull(lambda: doors.cluster.nodes[1].group.now_ms())
    doors.wait_for(lambda cluster: cluster.nodes[1].group.now_ms() > ticked + 200, "some ticks")
    assert stream.is_silent()
    doors.pull(doors.cluster.cut.clear)
    assert stream.answers(2) == [(5, 60)] * 2


def test_a_leader_that_lost_touch_confirms_nothing(doors: Doors) -> None:
    grant(doors, 60, lease=5)
    group = doors.cluster.nodes[0].group
    doors.pull(lambda: setattr(group, "quorum_contact_ms", lambda: group.now_ms() - 10_000))
    streams = [KeepAlive(doors, node) for node in (0, 1)]
    for stream in streams:
        stream.send(5)
    ticked = doors.pull(group.now_ms)
    doors.wait_for(lambda cluster: group.now_ms() > ticked + 200, "some ticks")
    assert all(stream.is_silent() for stream in streams)
    doors.pull(lambda: delattr(group, "quorum_contact_ms"))
    assert [stream.answer() for stream in streams] == [(5, 60)] * 2


def test_a_lease_whose_expiry_was_proposed_is_not_confirmed_and_then_answered_as_gone(doors: Doors) -> None:
    grant(doors, 2, lease=5)
    doors.pull(doors.cluster.hold)
    doors.wait_for(lambda cluster: bool(cluster.log), "the leader proposes the expiry")
    streams = [KeepAlive(doors, node) for node in (0, 1)]
    for stream in streams:
        stream.send(5)
    ticked = doors.pull(lambda: doors.cluster.nodes[0].group.now_ms())
    doors.wait_for(lambda cluster: cluster.nodes[0].group.now_ms() > ticked + 200, "some ticks")
    assert all(stream.is_silent() for stream in streams)
    doors.pull(doors.cluster.release)
    assert [stream.answer() for stream in streams] == [(5, 0)] * 2


def test_an_expiry_that_was_lost_is_proposed_again(doors: Doors) -> None:
    grant(doors, 2, lease=5)
    doors.pull(doors.cluster.hold)
    doors.wait_for(lambda cluster: bool(cluster.log), "the leader proposes the expiry")
    doors.pull(doors.cluster.lose)
    doors.wait_for(lambda cluster: bool(cluster.log), "and once more")
    doors.pull(doors.cluster.release)
    eventually(lambda: leases(doors) == [], "the lease ends")


def test_a_pause_of_the_process_ends_no_lease(doors: Doors) -> None:
    grant(doors, 2, lease=5)
    doors.pull(doors.cluster.hold)
    leader = doors.cluster.nodes[0]
    doors.pull(lambda: leader.door.tick(leader.group.now_ms() + 10_000))
    assert doors.pull(lambda: leader.group.submissions[1:]) == []
    doors.pull(doors.cluster.release)
    assert leases(doors) == [5]


def test_a_new_leader_gives_every_lease_its_time_again_and_ends_it_then(doors: Doors) -> None:
    grant(doors, 2, lease=5)
    grant(doors, 1_000, lease=6)
    stream = KeepAlive(doors, 2)
    doors.pull(doors.cluster.lead, None)
    stream.send(6)
    assert stream.is_silent()
    doors.pull(doors.cluster.lead, 1)
    assert stream.answer() == (6, 1_000)
    assert time_to_live(doors, 6, node=2).TTL > 990
    eventually(lambda: leases(doors, 2) == [6], "the new leader ends what nobody kept alive")
    assert doors.pull(lambda: [node.door.summary()["leases_kept"] for node in doors.cluster.nodes]) == [0, 1, 0]


def test_a_keep_alive_without_a_leader_fails_in_the_end() -> None:
    with serving(1, margin_ms=100) as doors:
        doors.pull(doors.cluster.lead, None)
        stream = KeepAlive(doors)
        stream.send(5)
        assert failure(stream.answer) == (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")


def test_what_is_no_request_ends_the_call(doors: Doors) -> None:
    stream = KeepAlive(doors)
    stream.send_raw(b"\xff\xff\xff")
    code, words = failure(stream.answer)
    assert code == grpc.StatusCode.INTERNAL
    assert words is not None
    assert words.startswith("grpc: failed to unmarshal the received message")


def test_a_client_that_does_not_wait_for_answers_is_cut_off(doors: Doors) -> None:
    doors.pull(doors.cluster.hold)
    stream = KeepAlive(doors, 1)
    stream.send(*range(1, 10_100))
    assert failure(stream.answer) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
    doors.pull(doors.cluster.release)


def test_leases_are_kept_by_the_leader_alone(doors: Doors) -> None:
    grant(doors, 60, lease=5)

    def kept(cluster: DoorCluster) -> list[int]:
        return [node.door.summary()["leases_kept"] for node in cluster.nodes]

    assert doors.pull(kept, doors.cluster) == [1, 0, 0]
