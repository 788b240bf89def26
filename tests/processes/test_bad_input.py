"""Bytes and clients that mean harm, against real nodes: one clear log line each, and nobody else notices."""

from __future__ import annotations

import random
import resource
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import pytest

from quorate.net.frames import FrameEncoder
from quorate.net.handshake import WIRE_VERSION, Hello, Purpose, Unwelcome
from quorate.node.config import Address
from tests.processes.cluster import READY_S, Cluster, Node, eventually, pause, running
from tests.processes.conftest import MakeCluster
from tests.processes.raw_client import (
    RawClient,
    connect_body,
    create_body,
    frame,
    get_data_body,
    request_body,
)

pytestmark = pytest.mark.processes

MIB = 1 << 20
MARSHALLING_ERROR, UNIMPLEMENTED = -5, -6


@pytest.fixture
def others_unaffected(cluster: Cluster) -> Iterator[None]:
    """A kazoo client of each node writes and reads all the time, and must never lose its connection."""
    states: list[Any] = []
    rounds: list[int] = []
    target = cluster.nodes[0]

    def work(stopping: threading.Event) -> None:
        client = cluster.client([target])
        client.add_listener(states.append)
        client.ensure_path("/others")
        while not stopping.is_set():
            version = client.set("/others", b"x" * 100).version
            assert client.get("/others")[1].version == version
            rounds.append(1)
            pause(0.002)
        client.remove_listener(states.append)

    leader = cluster.wait_ready()
    generation = leader.require_status().generation
    with running(work):
        eventually(lambda: len(rounds) > 5, "the other client works")
        yield
        count = len(rounds)
        eventually(lambda: len(rounds) > count + 20, "the other client goes on")
    assert states == [], f"the other client was disturbed: {states}"
    assert cluster.leader().require_status().generation == generation, "the leader was unseated"
    for node in cluster.nodes:
        assert "Traceback" not in node.log_text()


def ended(connection: socket.socket) -> bytes:
    """What the node still sends before it closes the connection; it must do so."""
    connection.settimeout(READY_S)
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def send_and_see_it_closed(address: Address, data: bytes) -> bytes:
    with socket.create_connection(address) as connection:
        connection.sendall(data)
        return ended(connection)


# --- the port for clients ---------------------------------------------------------------------

HUGE = struct.pack(">i", MIB + 1)


@pytest.mark.usefixtures("others_unaffected")
def test_nonsense_on_the_port_for_clients_is_refused_and_logged(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    address = node.config.listen.zookeeper
    cases = [
        (b"GET / HTTP/1.1\r\n\r\n", "neither a connect request nor a four-letter word"),
        (b"\xff" * 64, "cannot be a connect request"),
        (HUGE + b"x" * 100, "cannot be a connect request"),
        (struct.pack(">i", -5), "cannot be a connect request"),
        (frame(connect_body(10_000)) + HUGE + b"x" * 1000, f"sent a frame of {MIB + 1} bytes: the limit is {MIB}"),
        (frame(connect_body(10_000)) + struct.pack(">i", 7) + b"x" * 7, "sent a frame of 7 bytes"),
        (frame(connect_body(10_000)) + struct.pack(">i", -1), "sent a frame of -1 bytes"),
    ]
    for data, complaint in cases:
        since = len(node.log_text())
        send_and_see_it_closed(address, data)
        assert "127.0.0.1:" in node.wait_for_log(complaint, since), "the line names the client"
    assert node.log_text().count("WARNING quorate.zookeeper") <= 3 * len(cases)


@pytest.mark.usefixtures("others_unaffected")
def test_nonsense_within_a_session_is_answered_with_an_error(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    with RawClient(node.config.listen.zookeeper) as client:
        client.open_session(10_000)
        assert client.call(request_body(1, 4242, b"whatever"))[0] == UNIMPLEMENTED
        assert client.call(request_body(2, 4, b"\0\0\0\x09/a"))[0] == MARSHALLING_ERROR
        assert client.call(request_body(3, 1, b"\xff" * 30))[0] == MARSHALLING_ERROR
        assert client.call(request_body(4, 14, struct.pack(">i?i", 1, False, -1) + b"\xff" * 9))[0] == MARSHALLING_ERROR
        # The connection lives on, and counts right.
        assert client.call(create_body(5, "/after-nonsense", b""))[0] == 0
    assert "operation 4242, which is not supported" in node.log_text()


@pytest.mark.usefixtures("others_unaffected")
def test_random_bytes_everywhere(cluster: Cluster) -> None:
    """Whatever comes, the node closes the connection or waits for more; it never falls."""
    chance = random.Random(2181)
    node = cluster.nodes[0]
    listen = node.config.listen
    for _ in range(40):
        noise = chance.randbytes(chance.randrange(1, 3000))
        for address in (listen.zookeeper, listen.peer, listen.admin):
            with socket.create_connection(address) as connection:
                connection.sendall(noise)
        with RawClient(listen.zookeeper) as client:
            client.open_session(4_000)
            client.socket.sendall(frame(chance.randbytes(chance.randrange(8, 200))) + noise)
    assert node.runs()


@pytest.mark.usefixtures("others_unaffected")
def test_a_frame_that_never_ends_is_cut_off(cluster: Cluster) -> None:
    """A connect request that stops half way is waited for, ten seconds and no longer."""
    node = cluster.nodes[0]
    with socket.create_connection(node.config.listen.zookeeper) as connection:
        connection.sendall(frame(connect_body(10_000))[:20])
        assert ended(connection) == b""
    node.wait_for_log("did not open a session in time")


# --- the port for peers -----------------------------------------------------------------------


def hello(target: Node, **changes: Any) -> bytes:
    """The handshake of another member with `target`, but for `changes`."""
    other = (target.node + 1) % 3
    proper = Hello(
        wire_version=WIRE_VERSION,
        release="0",
        cluster=target.config.cluster,
        cluster_id="",
        protocol=target.require_status().raw["protocol"],
        node=other,
        incarnation="0" * 32,
        to_node=target.node,
        purpose=Purpose.MESSAGES,
        admin="127.0.0.1:1",
        address=str(target.config.members[other]),
        formation={},
    )
    return bytes(FrameEncoder().encode(msgspec.structs.replace(proper, **changes)))


@pytest.mark.usefixtures("others_unaffected")
def test_a_stranger_on_the_port_for_peers_is_refused_logged_and_told_why(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    cases = [
        (hello(node, cluster="another"), "belongs to cluster 'another', this node to 'tested'"),
        (hello(node, wire_version=99), "speaks wire version 99"),
        (hello(node, protocol="viewstamped"), "runs the protocol viewstamped"),
        (hello(node, to_node=7), "wants node 7, this is node 0"),
        (hello(node, node=9), "is not a member of cluster tested: add it with"),
        (hello(node, cluster_id="f" * 32), "takes no node of the old one"),
        (hello(node, address="127.0.0.1:9"), "is known at"),
        (hello(node), "came with another data folder"),
        (struct.pack(">I", 1 << 30), "a frame of 1073741824 bytes was announced"),
        (frame(b"not msgpack at all"), "not a Quorate handshake"),
        (frame(msgspec.msgpack.encode({"type": "hello"})), "not a Quorate handshake"),
        (b"GET / HTTP/1.1\r\n\r\n", "bytes was announced"),
    ]
    for data, complaint in cases:
        since = len(node.log_text())
        answer = send_and_see_it_closed(node.config.listen.peer, data)
        unwelcome = msgspec.msgpack.decode(answer[4:], type=Unwelcome)
        assert complaint in unwelcome.reason
        assert complaint in node.wait_for_log("refused a peer connection from ('127.0.0.1'", since)


@pytest.mark.usefixtures("others_unaffected")
def test_a_silent_connection_to_the_port_for_peers_is_cut_off(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    with socket.create_connection(node.config.listen.peer) as connection:
        answer = ended(connection)
    assert b"no handshake in time" in answer
    node.wait_for_log("no handshake in time")


# --- the admin port -----------------------------------------------------------------------------


@pytest.mark.usefixtures("others_unaffected")
def test_nonsense_on_the_admin_port_gets_an_http_error(cluster: Cluster) -> None:
    address = cluster.nodes[0].config.listen.admin
    for data in (b"\0\1\2\3\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n"):
        assert send_and_see_it_closed(address, data).startswith(b"HTTP/1.1 4")
    missing = send_and_see_it_closed(address, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    assert missing.startswith(b"HTTP/1.1 404") and b"/status" in missing
    wrong = send_and_see_it_closed(address, b"GET /snapshot HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wrong.startswith(b"HTTP/1.1 405")


# --- many, slow and deaf clients ------------------------------------------------------------------


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Let this process open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"only {hard} open files are allowed here, {count} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("with_session", [True, False], ids=["sessions", "bare"])
@pytest.mark.usefixtures("others_unaffected")
def test_two_thousand_idle_connections(cluster: Cluster, with_session: bool) -> None:
    node = cluster.nodes[0]
    before_bytes = node.resident_bytes()
    with many_files(4096), ExitStack() as stack:
        clients = [stack.enter_context(RawClient(node.config.listen.zookeeper)) for _ in range(2000)]
        if with_session:
            for client in clients:
                client.socket.sendall(frame(connect_body(40_000)))
            sessions = {struct.unpack_from(">iiq", client.read_frame())[2] for client in clients}
            assert len(sessions) == 2000
            # All of them are served, not only held.
            for client in clients[::100]:
                assert client.call(get_data_body(1, "/others"))[0] == 0
        status = eventually(
            lambda: found if (found := node.require_status().raw["groups"][0]["door"])["connections"] >= 2000 else None,
            "the node counts its connections",
        )
        assert status["connections"] < 2010
        grown_bytes = node.resident_bytes() - before_bytes
        print(f"2,000 idle connections took {grown_bytes / MIB:.1f} MiB")
        assert grown_bytes < 40 * MIB


def test_more_connections_than_allowed_are_turned_away(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(settings={"limits": {"max_connections": 20}}).start()
    node = cluster.nodes[0]
    kept = cluster.client([node])
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(node.config.listen.zookeeper)) for _ in range(19)]
        for client in clients:
            client.open_session(10_000)
        assert send_and_see_it_closed(node.config.listen.zookeeper, frame(connect_body(10_000))) == b""
        node.wait_for_log("one more than the 20 that are allowed")
        assert kept.connected
    eventually(lambda: node.require_status().raw["groups"][0]["door"]["connections"] == 1, "room is made")
    with RawClient(node.config.listen.zookeeper) as late:
        assert late.open_session(10_000) == 10_000


@pytest.mark.usefixtures("others_unaffected")
def test_a_client_that_never_reads_its_replies_costs_bounded_memory(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    setter = cluster.client([node])
    setter.create("/large", b"x" * 900_000)
    limit_bytes = node.config.limits.max_unread_bytes
    before_bytes = node.resident_bytes()
    peak_bytes = [0]
    request = frame(get_data_body(1, "/large"))

    with RawClient(node.config.listen.zookeeper, receive_buffer_bytes=4096) as deaf:
        assert deaf.open_session(2_000) == 2_000
        # Two thousand replies of 900 kB each, none of which is read.
        deaf.socket.settimeout(1)
        sent = 0
        try:
            for _ in range(100):
                deaf.socket.sendall(request * 20)
                sent += 20
                peak_bytes[0] = max(peak_bytes[0], node.resident_bytes() - before_bytes)
        except (TimeoutError, ConnectionError):
            pass
        # Not being read, the client is not heard either: its session expires, and then it has to go.
        node.wait_for_log("did not read its last replies")
        peak_bytes[0] = max(peak_bytes[0], node.resident_bytes() - before_bytes)
    print(f"{sent} requests of a client that reads nothing took {peak_bytes[0] / MIB:.1f} MiB")
    assert peak_bytes[0] < 8 * limit_bytes
