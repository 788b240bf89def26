"""Watches over gRPC, with grpcio as the client."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import grpc
import pytest

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.options import EtcdOptions
from tests.services.etcd.door_cluster import Doors, serving
from tests.services.etcd.watch_bench import creation, events_of

TIMEOUT_S = 20


class WatchCall:
    """A Watch call that reads what it is sent; a lazy one only when it is asked to."""

    def __init__(self, doors: Doors, node: int = 0, lazy: bool = False) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[pb.WatchResponse | grpc.RpcError] = queue.SimpleQueue()
        open_call: grpc.StreamStreamMultiCallable[bytes, pb.WatchResponse] = doors.channel(node).stream_stream(
            "/etcdserverpb.Watch/Watch", response_deserializer=pb.WatchResponse.FromString
        )
        self._call = open_call(iter(self._requests.get, None))
        if not lazy:
            self.read()

    def read(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError as error:
            self._responses.put(error)

    def ask(self, request: pb.WatchRequest) -> None:
        self._requests.put(request.SerializeToString())

    def create(self, key: bytes, count: int = 1, **fields: object) -> None:
        """Create watches, and wait until they are there."""
        for _ in range(count):
            self.ask(creation(key, **fields))
        for _ in range(count):
            assert self.response().created

    def response(self) -> pb.WatchResponse:
        response = self._responses.get(timeout=TIMEOUT_S)
        if isinstance(response, grpc.RpcError):
            raise response
        return response

    def events(self, count: int) -> list[tuple[int, bytes, bytes]]:
        events: list[tuple[int, bytes, bytes]] = []
        while len(events) < count:
            events += events_of(self.response())
        return events

    def cancel(self) -> None:
        self._call.cancel()


def put(doors: Doors, key: bytes, value: bytes = b"", node: int = 0) -> int:
    answer = doors.ask("/etcdserverpb.KV/Put", pb.PutRequest(key=key, value=value), pb.PutResponse, node)
    return answer.header.revision


@pytest.fixture
def doors() -> Iterator[Doors]:
    with serving(3) as it:
        yield it


def watches(doors: Doors) -> list[int]:
    return doors.pull(lambda: [node.door.summary()["watches"] for node in doors.cluster.nodes])


def test_watchers_at_every_node_hear_of_every_write(doors: Doors) -> None:
    calls = [WatchCall(doors, node) for node in range(3)]
    for call in calls:
        call.create(b"a", range_end=b"b")
    revisions = [put(doors, b"a%d" % number, node=number % 3) for number in range(30)]
    for call in calls:
        assert [event[:2] for event in call.events(30)] == [
            (revision, b"a%d" % number) for number, revision in enumerate(revisions)
        ]
    for call in calls:
        call.cancel()
    doors.wait_for(lambda cluster: not any(n.door.summary()["watches"] for n in cluster.nodes), "watches are forgotten")


def test_a_thousand_watches_of_one_call(doors: Doors) -> None:
    call = WatchCall(doors)
    call.create(b"a", count=1_000)
    assert watches(doors) == [1_000, 0, 0]
    put(doors, b"a", b"1")
    put(doors, b"a", b"2")
    heard: dict[int, list[bytes]] = {}
    for _ in range(2_000):
        response = call.response()
        heard.setdefault(response.watch_id, []).extend(event.kv.value for event in response.events)
    assert heard == {watch_id: [b"1", b"2"] for watch_id in range(1_000)}


def test_who_does_not_read_harms_nobody_and_gets_all_in_the_end(doors: Doors) -> None:
    lazy, keen = WatchCall(doors, 1, lazy=True), WatchCall(doors, 1)
    lazy.ask(creation(b"a"))
    keen.create(b"a")
    doors.wait_for(lambda cluster: cluster.nodes[1].door.summary()["watches"] == 2, "both watch")
    revisions = [put(doors, b"a", bytes(200_000)) for _ in range(100)]
    assert [event[0] for event in keen.events(100)] == revisions
    assert put(doors, b"b", node=1) == revisions[-1] + 1
    lazy.read()
    assert lazy.response().created
    assert [event[0] for event in lazy.events(100)] == revisions


def test_a_long_history_is_caught_up_with_while_others_write(doors: Doors) -> None:
    for number in range(300):
        put(doors, b"a", b"%d" % number)
    call = WatchCall(doors, 2)
    call.create(b"a", start_revision=2)
    for number in range(300, 400):
        put(doors, b"a", b"%d" % number)
    assert [int(value) for _, _, value in call.events(400)] == list(range(400))
    call.ask(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
    progress = call.response()
    assert (progress.watch_id, progress.header.revision) == (-1, 401)


def test_progress_by_time() -> None:
    with serving(1, EtcdOptions(watch_progress_interval_ms=200)) as doors:
        call = WatchCall(doors)
        call.create(b"a", progress_notify=True)
        put(doors, b"b")
        put(doors, b"b")
        while (progress := call.response()).header.revision < 3:
            assert not progress.events
        assert (progress.watch_id, len(progress.events)) == (0, 0)
