"""The door on real nodes: what clients are told while nodes come and go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from tests.processes.cluster import Cluster, Node, eventually

M = TypeVar("M", bound=Message)

pytestmark = pytest.mark.processes

PUT, RANGE = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range"
IN_DOUBT = {EtcdError.TIMEOUT_LEADER_FAILED.message, EtcdError.TIMEOUT_CONNECTION_LOST.message}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 3, {"limits": {"hold_ms": 500}}, services=("etcd",))
    try:
        yield cluster.start()
    finally:
        cluster.close()


class Client:
    """Calls to one node."""

    def __init__(self, node: Node) -> None:
        # A channel that has failed to connect waits before it tries again: not for long here.
        fast = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
        self.channel = grpc.insecure_channel(str(node.config.listen.etcd), options=fast)

    def begin(self, method: str, request: Message, kind: type[M]) -> grpc.Future[M]:
        ask: grpc.UnaryUnaryMultiCallable[Message, M] = self.channel.unary_unary(
            method, request_serializer=lambda r: r.SerializeToString(), response_deserializer=kind.FromString
        )
        return ask.future(request, timeout=30, wait_for_ready=True)

    def put(self, key: str) -> grpc.Future[pb.PutResponse]:
        return self.begin(PUT, pb.PutRequest(key=key.encode()), pb.PutResponse)

    def keys(self) -> set[str]:
        everything = pb.RangeRequest(key=b"\0", range_end=b"\0", keys_only=True)
        return {kv.key.decode() for kv in self.begin(RANGE, everything, pb.RangeResponse).result().kvs}

    def members(self) -> dict[str, list[str]]:
        answer = self.begin("/etcdserverpb.Cluster/MemberList", pb.MemberListRequest(), pb.MemberListResponse)
        return {member.name: list(member.clientURLs) for member in answer.result().members}

    def status(self) -> pb.StatusResponse:
        return self.begin("/etcdserverpb.Maintenance/Status", pb.StatusRequest(), pb.StatusResponse).result()


def words(future: grpc.Future[Any]) -> str:
    """How a call ended: "" is well."""
    error = future.exception(timeout=60)
    assert error is None or isinstance(error, grpc.RpcError)
    return "" if error is None else error.details() or ""


def test_writes_under_way_when_the_leader_dies(cluster: Cluster) -> None:
    leader = cluster.leader()
    clients = [Client(node) for node in cluster.nodes if node is not leader]
    for client in clients:
        client.put("warm").result()
    leader.suspend()
    doubtful = {
        f"doubtful-{at}-{n}": client.put(f"doubtful-{at}-{n}") for at, client in enumerate(clients) for n in (1, 2)
    }
    assert {words(future) for future in doubtful.values()} <= IN_DOUBT
    leader.kill()
    eventually(lambda: all(words(client.put("new")) == "" for client in clients), "both others write again")

    # Where nothing is known of the leader's end yet, a command waits; it is done, or surely was not.
    after = {f"after-{at}": client.put(f"after-{at}") for at, client in enumerate(clients)}
    told = {key: words(future) for key, future in after.items()}
    written = clients[0].keys()
    assert {key for key, word in told.items() if word == ""} <= written
    assert clients[1].keys() == written


def test_acknowledged_writes_are_there_and_refused_ones_are_not(cluster: Cluster) -> None:
    """The leader is killed again and again under writes on every node."""
    clients = [Client(node) for node in cluster.nodes]
    told: dict[str, str] = {}
    for round_ in range(3):
        names = [(f"{round_}-{at}-{n}", client) for n in range(100) for at, client in enumerate(clients)]
        futures = {name: client.put(name) for name, client in names[:150]}
        leader = cluster.leader()
        leader.kill()
        futures |= {name: client.put(name) for name, client in names[150:]}
        cluster.start_node(leader)
        told |= {name: words(future) for name, future in futures.items()}
        cluster.wait_ready()
    written = clients[0].keys()
    assert len(told) == 900
    assert {name for name, word in told.items() if not word} <= written
    assert not {name for name, word in told.items() if word == EtcdError.NO_LEADER.message} & written
    assert any(not word for word in told.values())
    by_etcd = {word for word in told.values() if word.startswith("etcdserver")}
    assert by_etcd <= IN_DOUBT | {EtcdError.NO_LEADER.message, EtcdError.TIMEOUT.message, EtcdError.STOPPED.message}
    assert all(client.keys() == written for client in clients)


def test_a_node_without_a_majority(cluster: Cluster) -> None:
    last, *others = cluster.nodes
    client = Client(last)
    client.put("k").result()
    for node in others:
        node.kill()
    eventually(lambda: client.status().errors == ["etcdserver: no leader"], "it knows no leader")
    assert words(client.put("more")) == EtcdError.NO_LEADER.message
    reading = client.begin(RANGE, pb.RangeRequest(key=b"k"), pb.RangeResponse)
    serializable = client.begin(RANGE, pb.RangeRequest(key=b"k", serializable=True), pb.RangeResponse)
    assert serializable.result().count == 1
    assert words(reading) == EtcdError.TIMEOUT.message
    cluster.start_node(others[0])
    eventually(lambda: words(client.put("again")) == "", "a majority again")
    assert client.keys() == {"k", "again"}


def test_members_know_where_clients_connect(cluster: Cluster) -> None:
    everywhere = {f"node-{node.node}": [f"http://{node.config.listen.etcd}"] for node in cluster.nodes}
    clients = [Client(node) for node in cluster.nodes]
    for client in clients:
        eventually(lambda client=client: client.members() == everywhere, "it was told of all")  # type: ignore[misc]
    restarted = cluster.followers()[0]
    restarted.stop()
    cluster.start_node(restarted)
    again = clients[cluster.nodes.index(restarted)]
    eventually(lambda: again.members() == everywhere, "a node that was started anew was told of all")
    headers = [client.status().header for client in clients]
    assert len({header.cluster_id for header in headers}) == 1
    assert len({header.member_id for header in headers}) == 3
    cluster.wait_ready()
    leaders = {client.status().leader for client in clients}
    assert len(leaders) == 1 and leaders < {header.member_id for header in headers}
