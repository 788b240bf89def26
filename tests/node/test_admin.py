"""The admin listener: what its pages say, and what it does with bad requests and slow clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.node.admin import (
    DRAIN_TIMEOUT_S,
    MAX_BODY_BYTES,
    MAX_CONNECTIONS,
    AdminListener,
    AdminPages,
    Answer,
    BadRequest,
    Body,
    Reply,
    Stream,
    json_answer,
    observing_pages,
)
from quorate.node.health import MAX_LAG_ENTRIES, health, livez, readyz
from quorate.simulation.scheduler import Simulation
from tests.node.status_documents import FORMING, group, member, status
from tests.node.whole_nodes import WholeNodes

T = TypeVar("T")
PORT = 4181


class Backup:
    """Chunks without end, or until they fail; knows how many were taken and whether it was closed."""

    def __init__(self, chunks: int | None = None, error: Exception | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.taken = 0
        self.closed = False

    async def __call__(self) -> AsyncIterator[bytes]:
        try:
            while self.chunks is None or self.taken < self.chunks:
                self.taken += 1
                assert self.taken < 5_000, "nobody holds it back"
                yield bytes([65 + self.taken % 26]) * 10_000
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def decide(body: Body) -> Answer:
    """An action that takes its time, as one that waits for consensus."""
    await asyncio.sleep(2)
    if body is None or "change" not in body:
        raise BadRequest('"change" is missing')
    return json_answer({"done": body["change"]})


def fail(body: Body) -> Answer:
    raise RuntimeError("a bug")


async def fail_later(body: Body) -> Answer:
    await asyncio.sleep(1)
    raise RuntimeError("a bug")


def pages(backup: Backup | None = None, **changes: Any) -> AdminPages:
    backup = backup or Backup(3)
    return AdminPages(
        {
            **observing_pages(lambda: status(**changes), lambda: b"quorate_up 1\n"),
            ("POST", "/members"): decide,
            ("POST", "/snapshot"): lambda _: json_answer({"started": [1]}),
            ("POST", "/fail"): fail,
            ("POST", "/fail-later"): fail_later,
            ("GET", "/backup"): lambda _: Stream("application/octet-stream", backup()),
        }
    )


def answer(method: str, path: str, body: bytes = b"", **changes: Any) -> tuple[HTTPStatus, str]:
    reply = pages(**changes).answer(method, path, body)
    assert isinstance(reply, Answer)
    return reply.status, reply.body.decode()


# --- pages ------------------------------------------------------------------------------------


def test_status_is_json() -> None:
    code, body = answer("GET", "/status")
    assert code == HTTPStatus.OK
    assert json.loads(body) == status()


def test_members_are_a_part_of_the_status() -> None:
    told = json.loads(answer("GET", "/members")[1])
    assert told.keys() == {"cluster", "cluster_id", "version", "under_way", "members"}
    assert (told["version"], told["under_way"], told["members"][3]["voter"]) == (4, {"1": 3}, False)


def test_metrics_are_prometheus_text() -> None:
    reply = pages().answer("GET", "/metrics")
    assert isinstance(reply, Answer)
    assert (reply.content_type, reply.body) == ("text/plain; version=0.0.4; charset=utf-8", b"quorate_up 1\n")


def test_what_is_not_there_is_said_with_what_is() -> None:
    code, body = answer("GET", "/stats")
    assert code == HTTPStatus.NOT_FOUND and "/metrics" in body and "/backup" in body
    assert answer("GET", "/snapshot") == (HTTPStatus.METHOD_NOT_ALLOWED, "/snapshot takes POST\n")
    assert answer("POST", "/status") == (HTTPStatus.METHOD_NOT_ALLOWED, "/status takes GET\n")
    assert answer("DELETE", "/members") == (HTTPStatus.METHOD_NOT_ALLOWED, "/members takes GET or POST\n")
    assert json.loads(answer("POST", "/snapshot")[1]) == {"started": [1]}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"change=add", "not JSON"),
        (b'{"change": "add"', "not JSON"),
        (b'{"change": "\xff"}', "not JSON"),
        (b'["add"]', "not an object"),
        (b"null", "not an object"),
        (b"[" * 30_000, "not JSON"),
    ],
)
def test_a_body_that_is_garbage_is_told(body: bytes, problem: str) -> None:
    code, text = answer("POST", "/members", body)
    assert code == HTTPStatus.BAD_REQUEST
    assert problem in json.loads(text)["problem"]


# --- health -----------------------------------------------------------------------------------


def test_a_healthy_node() -> None:
    for path in ("/health", "/livez", "/readyz"):
        assert answer("GET", path)[0] == HTTPStatus.OK
    assert json.loads(answer("GET", "/readyz")[1]) == {"ready": True, "reasons": []}


@pytest.mark.parametrize(
    ("changes", "healthy", "ready", "why"),
    [
        ({"groups": [group(role="follower", leader=None)]}, False, False, "zookeeper: no leader is known"),
        ({"groups": [group(), group("cluster", role="follower", leader=None)]}, False, True, ""),
        ({"log_full": True}, False, False, "the disk is full: writes are refused"),
        (FORMING, False, False, "the node is forming: node 2 (127.0.0.1:3183) has not been met yet"),
        ({"state": "joining"}, False, False, "the node is joining"),
        ({"groups": [group(ready=False)]}, True, False, "zookeeper: this node leads and is not ready yet"),
        ({"groups": [group(role="follower", leader=1, ready=False)]}, True, True, ""),
        (
            {"members": [member(0, refilling=True), member(1)]},
            True,
            False,
            "the node lost its data and is being refilled from its peers",
        ),
        ({"members": [member(0), member(1, refilling=True)]}, True, True, ""),
        (
            {"groups": [group(commit_position=MAX_LAG_ENTRIES + 11, applied_position=10)]},
            True,
            False,
            "zookeeper: 10001 committed entries are not applied yet",
        ),
        ({"groups": [group(commit_position=MAX_LAG_ENTRIES + 10, applied_position=10)]}, True, True, ""),
    ],
)
def test_what_makes_a_node_unhealthy_or_unready(changes: dict[str, Any], healthy: bool, ready: bool, why: str) -> None:
    document = status(**changes)
    assert health(document)[0] == healthy
    assert readyz(document) == (ready, {"ready": ready, "reasons": [why] if why else []})
    # To start such a node again would help nobody.
    assert livez(document)[0]


def test_a_node_that_failed_is_not_alive() -> None:
    document = status(failure="LogSyncFailed: EIO")
    assert livez(document) == (False, {"live": False, "reasons": ["LogSyncFailed: EIO"]})
    assert not readyz(document)[0] and not health(document)[0]


def test_a_real_nodes_status_has_all_that_the_pages_ask_for() -> None:
    cluster = WholeNodes(1)
    cluster.start_all()
    cluster.pass_time(2.0)  # the cluster's own group has its own election
    address = cluster.nodes[0].config.listen.admin

    async def get(path: str) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        return await reader.read()

    for path in ("/livez", "/readyz", "/health", "/members", "/metrics"):
        assert cluster.run(get(path)).startswith(b"HTTP/1.1 200 OK"), path
    assert json.loads(content(cluster.run(get("/members"))))["members"][0]["voter"]
    page = content(cluster.run(get("/metrics"))).decode()
    assert 'quorate_is_leader{service="zookeeper"} 1.0' in page
    assert 'quorate_elections_total{outcome="won",service="cluster"} 1.0' in page
    assert "process_" not in page


# --- over sockets -----------------------------------------------------------------------------


def over_network(served: AdminPages, client: Callable[[AdminListener], Awaitable[T]]) -> T:
    """Run a client on the listener's machine, on a simulated network with a simulated clock."""
    simulation = Simulation()

    async def exchange() -> T:
        listener = AdminListener(served)
        await listener.start("127.0.0.1", PORT)
        try:
            return await client(listener)
        finally:
            await listener.stop()

    return simulation.run(simulation.boot("10.0.0.1"), exchange())


def ask(raw: bytes, served: AdminPages | None = None, end: bool = False) -> bytes:
    """All that comes back; `end` closes the client's side behind the request."""

    async def client(_: AdminListener) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.write(raw)
        if end:
            writer.write_eof()
        answer = bytearray()
        try:
            while data := await reader.read(65536):
                answer += data
        except ConnectionResetError:
            answer += b"<reset>"
        writer.close()
        return bytes(answer)

    return over_network(served or pages(), client)


def post(path: str, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


def content(raw: bytes) -> bytes:
    """The body, as an HTTP client takes it.  Raises h11.RemoteProtocolError where its end is missing."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    http.send(h11.EndOfMessage())
    http.receive_data(raw)
    http.receive_data(b"")
    body = bytearray()
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA
        if isinstance(event, h11.Data):
            body += event.data
    return bytes(body)


def test_a_request_over_a_socket() -> None:
    assert ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200")
    head = ask(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and head.endswith(b"\r\n\r\n")


def test_an_action_that_takes_time_is_awaited() -> None:
    request = post("/members", b'{"change": "add"}')
    assert json.loads(content(ask(request))) == {"done": "add"}
    assert json.loads(content(ask(request, end=True))) == {"done": "add"}
    assert ask(post("/members", b"{}")).startswith(b"HTTP/1.1 400")


def test_a_handler_that_fails_is_answered_for() -> None:
    for path in ("/fail", "/fail-later"):
        answer = ask(post(path, b""))
        assert answer.startswith(b"HTTP/1.1 500") and b"a bug" not in answer


def test_a_client_that_goes_takes_its_action_along() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def client(_: AdminListener) -> bool:
        _reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.write(post("/wait", b""))
        await started.wait()
        writer.transport.abort()
        await asyncio.wait_for(cancelled.wait(), 5)
        return True

    async def wait(_: Body) -> Reply:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        raise AssertionError

    assert over_network(AdminPages({("POST", "/wait"): wait}), client)


def test_a_backup_is_streamed() -> None:
    answer = ask(b"GET /backup HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"transfer-encoding: chunked" in answer.lower()
    assert content(answer) == b"B" * 10_000 + b"C" * 10_000 + b"D" * 10_000
    old = ask(b"GET /backup HTTP/1.0\r\n\r\n")
    assert old.partition(b"\r\n\r\n")[2] == b"B" * 10_000 + b"C" * 10_000 + b"D" * 10_000
    backup = Backup()
    head = ask(b"HEAD /backup HTTP/1.1\r\nHost: x\r\n\r\n", pages(backup))
    assert head.startswith(b"HTTP/1.1 200") and head.endswith(b"\r\n\r\n") and backup.taken == 0


def test_a_backup_that_fails_is_told_from_a_whole_one() -> None:
    backup = Backup(3, OSError("the disk gave an error"))
    answer = ask(b"GET /backup HTTP/1.1\r\nHost: x\r\n\r\n", pages(backup))
    assert answer.endswith(b"<reset>")
    with pytest.raises(h11.RemoteProtocolError):
        content(answer.removesuffix(b"<reset>"))


def test_a_slow_reader_holds_a_backup_back_and_a_deaf_one_is_cut_off() -> None:
    backup = Backup()

    async def client(_: AdminListener) -> tuple[int, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT, limit=1024)
        writer.write(b"GET /backup HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(DRAIN_TIMEOUT_S / 2)
        early = backup.taken
        while backup.taken < early + 500:
            await reader.read(65536)
        slow = backup.taken
        await asyncio.sleep(2 * DRAIN_TIMEOUT_S)
        return slow, backup.taken

    slow, deaf = over_network(pages(backup), client)
    # What the buffers between the two hold, and no more.
    assert slow < 1000 and deaf - slow < 100
    assert backup.closed


def test_a_client_that_never_reads_its_answer_holds_no_connection() -> None:
    async def client(listener: AdminListener) -> int:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", PORT)
        transport.pause_reading()
        transport.write(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1)
        assert len(listener.connections) == 1
        await asyncio.sleep(DRAIN_TIMEOUT_S)
        return len(listener.connections)

    assert over_network(pages(words="x" * 4_000_000), client) == 0


def test_connections_are_bounded() -> None:
    async def client(_: AdminListener) -> list[bytes]:
        idle = [await asyncio.open_connection("127.0.0.1", PORT) for _ in range(MAX_CONNECTIONS)]
        reader, _writer = await asyncio.open_connection("127.0.0.1", PORT)
        refused = await reader.read()
        idle[0][1].close()
        await asyncio.sleep(1)
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        return [refused, await reader.read()]

    refused, taken = over_network(pages(), client)
    assert refused.startswith(b"HTTP/1.1 503") and taken.startswith(b"HTTP/1.1 200")


def test_bad_requests_and_silence_get_an_answer() -> None:
    assert b"400" in ask(b"nonsense\r\n\r\n")
    assert b"431" in ask(b"GET /status HTTP/1.1\r\nX: " + b"x" * 20_000)
    assert ask(b"").startswith(b"HTTP/1.1 408")
    assert ask(b"POST /members HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").startswith(b"HTTP/1.1 408")
    assert b"413" in ask(post("/members", b" " * (MAX_BODY_BYTES + 1)))


@given(raw=st.binary(min_size=1, max_size=200))
def test_random_bytes_harm_nothing(raw: bytes) -> None:
    answer = ask(raw)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


@given(body=st.binary(max_size=200))
def test_random_bodies_harm_nothing(body: bytes) -> None:
    assert ask(post("/members", body)).startswith((b"HTTP/1.1 400", b"HTTP/1.1 200"))
