"""Requests and replies: order, header fields, limits, and what a bad client gets."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from quorate.services.interface import Refused
from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.jute import NULL, Reader, pack_buffer
from quorate.services.zookeeper.protocol import (
    MULTI_END,
    MULTI_HEADER,
    REQUEST_HEADER,
    AuthPacket,
    ConnectRequest,
    Create,
    Op,
    PathAndMode,
    PathAndWatch,
)
from quorate.services.zookeeper.tree import NO_CHILDREN, Znode
from tests.services.zookeeper.harness import Cluster, on_simulated_loop
from tests.services.zookeeper.raw import Raw, data_of


def on_asyncio(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def on_uvloop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(work())


@pytest.mark.parametrize("run", [on_asyncio, on_uvloop, on_simulated_loop])
def test_a_pipeline_of_reads_and_writes_is_answered_in_order_each_seeing_what_came_before(
    run: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
) -> None:
    async def work() -> None:
        async with Cluster(3) as cluster:
            raw = await Raw.open(cluster.endpoints[1])
            raw.send_create(1, b"/a", b"0")
            for number in range(1, 50):
                raw.send_set(2 * number, b"/a", b"%d" % number)
                raw.send_get(2 * number + 1, b"/a")
            xid, zxid, code, _ = await raw.reply()
            assert (xid, code) == (1, 0)
            for number in range(1, 50):
                set_xid, set_zxid, set_code, _ = await raw.reply()
                get_xid, get_zxid, get_code, record = await raw.reply()
                assert (set_xid, set_code) == (2 * number, 0)
                assert (get_xid, get_code, data_of(record)) == (2 * number + 1, 0, b"%d" % number)
                assert zxid < set_zxid <= get_zxid
                zxid = set_zxid

    run(work)


def test_pipelined_writes_are_submitted_in_one_batch() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            before = cluster.nodes[1].group.submissions
            raw.cork()
            for number in range(1, 101):
                raw.send_create(number, b"/n%d" % number)
            raw.uncork()
            for number in range(1, 101):
                assert (await raw.reply())[0] == number
            assert cluster.nodes[1].group.submissions == before + 1

    on_simulated_loop(work)


def test_an_unknown_operation_is_unimplemented_in_its_place_and_the_connection_lives_on() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            raw.send_create(1, b"/a")
            raw.send(2, 999, b"whatever")
            raw.send(3, Op.ADD_WATCH, PathAndMode(b"/a", 0).encode())
            raw.send(4, Op.CHECK, pack_buffer(b"/a") + struct.pack(">i", -1))
            raw.send_get(5, b"/a")
            replies = [await raw.reply() for _ in range(5)]
            assert [(xid, code) for xid, _, code, _ in replies] == [(1, 0), (2, -6), (3, -6), (4, -6), (5, 0)]

    on_simulated_loop(work)


def test_a_record_that_is_none_is_a_marshalling_error_and_the_connection_lives_on() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            for op in (Op.EXISTS, Op.GET_DATA, Op.SET_DATA, Op.CREATE, Op.MULTI, Op.SET_WATCHES, Op.GET_CHILDREN2):
                assert await raw.call(1, op, b"\0\0\0\x63") == (ErrorCode.MARSHALLING_ERROR, b"")
            code, _ = await raw.call(2, Op.GET_DATA, PathAndWatch(b"/", False).encode())
            assert code == 0

    on_simulated_loop(work)


def test_reads_of_every_kind() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            await raw.call(1, Op.CREATE, _create(b"/a", b"data", flags=1))
            code, stat = await raw.call(2, Op.EXISTS, PathAndWatch(b"/a", False).encode())
            assert (code, len(stat)) == (0, 68)
            assert await raw.call(3, Op.GET_DATA, PathAndWatch(b"/a", False).encode()) == (
                0,
                pack_buffer(b"data") + stat,
            )
            # Longer than its fields: newer clients may append to a record.
            assert (await raw.call(3, Op.GET_DATA, PathAndWatch(b"/a", False).encode() + b"more"))[1][-68:] == stat
            code, children = await raw.call(4, Op.GET_CHILDREN, PathAndWatch(b"/", False).encode())
            assert sorted(Reader(children).strings("children")) == [b"a", b"zookeeper"]
            code, children2 = await raw.call(5, Op.GET_CHILDREN2, PathAndWatch(b"/", False).encode())
            assert children2[:-68] == children
            code, acl = await raw.call(6, Op.GET_ACL, pack_buffer(b"/a"))
            assert acl[-68:] == stat
            code, mine = await raw.call(7, Op.GET_EPHEMERALS, pack_buffer(b"/"))
            assert Reader(mine).strings("ephemerals") == [b"/a"]
            code, mine = await raw.call(7, Op.GET_EPHEMERALS, pack_buffer(b"/b"))
            assert Reader(mine).strings("ephemerals") == []
            for op in (Op.EXISTS, Op.GET_DATA, Op.GET_CHILDREN, Op.GET_CHILDREN2):
                assert await raw.call(8, op, PathAndWatch(b"/none", False).encode()) == (ErrorCode.NO_NODE, b"")
            assert await raw.call(9, Op.GET_ACL, pack_buffer(b"/none")) == (ErrorCode.NO_NODE, b"")

    on_simulated_loop(work)


def test_multi_read_answers_each_part() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            await raw.call(1, Op.CREATE, _create(b"/a", b"data"))
            parts = [(Op.GET_DATA, b"/a"), (Op.GET_DATA, b"/none"), (Op.GET_CHILDREN, b"/zookeeper")]
            record = b"".join(
                MULTI_HEADER.pack(op, False, -1) + PathAndWatch(path, False).encode() for op, path in parts
            )
            code, body = await raw.call(2, Op.MULTI_READ, record + MULTI_END)
            assert code == 0
            reader = Reader(body)
            assert MULTI_HEADER.unpack_from(body, reader.at) == (Op.GET_DATA, False, 0)
            reader.at += MULTI_HEADER.size
            assert reader.buffer("data") == b"data"
            reader.at += 68
            assert MULTI_HEADER.unpack_from(body, reader.at) == (Op.ERROR, False, ErrorCode.NO_NODE)
            reader.at += MULTI_HEADER.size
            assert reader.int32("err") == ErrorCode.NO_NODE
            assert MULTI_HEADER.unpack_from(body, reader.at) == (Op.GET_CHILDREN, False, 0)
            reader.at += MULTI_HEADER.size
            assert sorted(reader.strings("children")) == [b"config", b"quota"]
            assert body[reader.at :] == MULTI_END

    on_simulated_loop(work)


def test_null_data_comes_back_as_null() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            await raw.call(1, Op.CREATE, _create(b"/a", None))
            _, body = await raw.call(2, Op.GET_DATA, PathAndWatch(b"/a", False).encode())
            assert body[:4] == NULL

    on_simulated_loop(work)


def test_auth_by_digest_is_taken_down_and_another_scheme_ends_the_connection() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            assert await raw.call(-4, Op.AUTH, AuthPacket(b"digest", b"ann:secret").encode()) == (0, b"")
            code, who = await raw.call(1, Op.WHO_AM_I)
            assert code == 0
            assert who.endswith(pack_buffer(b"digest") + pack_buffer(b"ann"))
            assert await raw.call(-4, Op.AUTH, AuthPacket(b"kerberos", b"x").encode()) == (ErrorCode.AUTH_FAILED, b"")
            assert await raw.is_closed()

    on_simulated_loop(work)


def test_sync_waits_for_the_barrier_and_holds_back_what_follows() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            cluster.hold()
            raw.send(1, Op.SYNC, pack_buffer(b"/a"))
            raw.send_get(2, b"/")
            assert await raw.is_silent()
            cluster.release()
            xid, _, code, record = await raw.reply()
            assert (xid, code, record) == (1, 0, pack_buffer(b"/a"))
            assert (await raw.reply())[0] == 2

    on_simulated_loop(work)


def test_a_sync_that_no_leader_answers_ends_the_connection() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            cluster.lead(None)
            raw.send(1, Op.SYNC, pack_buffer(b"/a"))
            assert await raw.is_closed()

    on_simulated_loop(work)


# --- outcomes that nobody knows, and refusals -------------------------------------------------


def test_lost_writes_end_their_connections_and_no_others(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            writer = await Raw.open(cluster.endpoints[0])
            reader = await Raw.open(cluster.endpoints[0])
            cluster.hold()
            writer.cork()
            writer.send_create(1, b"/a")
            writer.send_create(2, b"/b")
            writer.uncork()
            await asyncio.sleep(0.1)
            cluster.lose()
            cluster.release()
            assert await writer.is_closed()
            code, _ = await reader.call(1, Op.GET_DATA, PathAndWatch(b"/", False).encode())
            assert code == 0
        assert "closing 1 connections: the outcome of 2 requests is unknown" in caplog.text

    on_simulated_loop(work)


@pytest.mark.parametrize("outcome", ["lost", "refused"])
@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_write_that_came_in_the_turn_in_which_an_earlier_one_was_lost_is_never_submitted(
    outcome: str, hangs_up: bool
) -> None:
    """Else the later write would be done and the earlier one not: a gap in the order of one client."""

    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            other = await Raw.open(cluster.endpoints[0])
            door = cluster.nodes[1].door
            connection, bystander = (
                next(c for c in door._connections if c.session == client.session) for client in (raw, other)
            )
            cluster.hold()
            raw.send_create(1, b"/earlier")
            await asyncio.sleep(0.1)
            # All in one turn of the loop, as when a socket and the link to the leader are heard in the same poll.
            connection.data_received(_create_frame(2, b"/later"))
            bystander.data_received(_create_frame(1, b"/other"))
            if hangs_up:
                connection.connection_lost(None)
            if outcome == "lost":
                cluster.lose()
            else:
                cluster.refuse(Refused.NO_LEADER)
            connection.data_received(_create_frame(3, b"/after"))
            cluster.release()
            assert (await other.reply())[:3:2] == (1, 0)
            await asyncio.sleep(0.1)
            find = cluster.nodes[1].store.tree.get
            assert [find(path) for path in (b"/earlier", b"/later", b"/after")] == [None] * 3
            assert len(door._connections) == 1

    on_simulated_loop(work)


def test_the_writes_of_a_client_that_hangs_up_behind_them_are_done() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            (connection,) = cluster.nodes[1].door._connections
            connection.data_received(_create_frame(1, b"/a"))
            connection.connection_lost(None)
            raw.close()
            await asyncio.sleep(0.1)
            assert cluster.nodes[1].store.tree.get(b"/a") is not None

    on_simulated_loop(work)


@pytest.mark.parametrize("why", [Refused.NO_LEADER, Refused.STOPPING])
def test_a_write_that_no_leader_takes_ends_the_connection(why: Refused) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            cluster.hold()
            raw.send_create(1, b"/a")
            await asyncio.sleep(0.1)
            cluster.refuse(why)
            assert await raw.is_closed()

    on_simulated_loop(work)


def test_a_write_refused_for_a_full_disk_is_answered_in_its_place() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            cluster.hold()
            raw.send_create(1, b"/a")
            await asyncio.sleep(0.1)
            waiting = cluster._take()
            raw.send_create(2, b"/b")
            await asyncio.sleep(0.1)
            cluster.refuse(Refused.DISK_FULL)
            raw.send_get(3, b"/b")
            assert await raw.is_silent()
            cluster._log[:0] = waiting
            cluster.release()
            replies = [await raw.reply() for _ in range(3)]
            assert [(xid, code) for xid, _, code, _ in replies] == [
                (1, 0),
                (2, ErrorCode.SYSTEM_ERROR),
                (3, ErrorCode.NO_NODE),
            ]

    on_simulated_loop(work)


# --- limits --------------------------------------------------------------------------------------


def test_an_oversized_frame_ends_the_connection_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Cluster(max_frame_bytes=10_000) as cluster:
            other = await Raw.open(cluster.endpoints[0])
            raw = await Raw.open(cluster.endpoints[0])
            assert (await raw.call(1, Op.CREATE, _create(b"/a", bytes(9_000))))[0] == 0
            raw.send_create(2, b"/b", bytes(10_000))
            assert await raw.is_closed()
            assert (await other.call(1, Op.EXISTS, PathAndWatch(b"/b", False).encode()))[0] == ErrorCode.NO_NODE
        assert "the limit is 10000" in caplog.text

    on_simulated_loop(work)


@pytest.mark.parametrize("head", [struct.pack(">i", -1), struct.pack(">i", 0), struct.pack(">i", 7) + bytes(7)])
def test_a_frame_that_cannot_be_a_request_ends_the_connection(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            raw.send_bytes(head)
            assert await raw.is_closed()
        assert "a request has at least 8" in caplog.text

    on_simulated_loop(work)


@pytest.mark.parametrize(
    ("opening", "line"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "neither a connect request nor a four-letter word"),
        (b"kill", "neither a connect request nor a four-letter word"),
        (struct.pack(">i", -5) + bytes(40), "a frame of -5 bytes"),
        (struct.pack(">i", 3) + bytes(40), "a frame of 3 bytes"),
        (b"\x7f\xff\xff\xff" + bytes(40), "cannot be a connect request"),
        (struct.pack(">i", 44) + bytes(24) + struct.pack(">i", 999) + bytes(16), "cannot be decoded"),
    ],
)
def test_a_wrong_opening_ends_the_connection_with_a_line(
    opening: bytes, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.dial(cluster.endpoints[0])
            raw.send_bytes(opening)
            assert await raw.is_closed()
        assert line in caplog.text

    on_simulated_loop(work)


def test_a_handshake_may_come_byte_by_byte_and_must_come_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            slow = await Raw.dial(cluster.endpoints[0])
            request = ConnectRequest(0, 5_000, 0, bytes(16), has_read_only=False).encode()
            for byte in struct.pack(">i", len(request)) + request:
                slow.send_bytes(bytes([byte]))
                await asyncio.sleep(0.01)
            # A client that does not send the readOnly flag does not get it back.
            assert len(await slow.frame()) == 36
            idle = await Raw.dial(cluster.endpoints[0])
            idle.send_bytes(request[:3])
            started = asyncio.get_running_loop().time()
            assert await idle.is_closed(within_seconds=20)
            assert 9.9 < asyncio.get_running_loop().time() - started < 10.5
        assert "did not open a session in time" in caplog.text

    on_simulated_loop(work)


def test_one_connection_too_many_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Cluster(max_connections=2) as cluster:
            kept = [await Raw.open(cluster.endpoints[0]) for _ in range(2)]
            refused = await Raw.dial(cluster.endpoints[0])
            assert await refused.is_closed()
            kept[0].close()
            await asyncio.sleep(0.1)
            await Raw.open(cluster.endpoints[0])
            assert (await kept[1].call(1, Op.EXISTS, PathAndWatch(b"/", False).encode()))[0] == 0
        assert "one more than the 2 that are allowed" in caplog.text

    on_simulated_loop(work)


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    async def work() -> None:
        async with Cluster(max_requests_in_flight=10) as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            cluster.hold()
            for number in range(1, 101):
                raw.send_create(number, b"/n%d" % number)
            await asyncio.sleep(0.1)
            assert cluster.nodes[1].door.summary()["outstanding"] == 10
            cluster.release()
            for number in range(1, 101):
                assert (await raw.reply())[0] == number

    on_simulated_loop(work)


def test_a_client_that_sends_while_its_writes_wait_is_not_read_without_bound() -> None:
    async def work() -> None:
        async with Cluster(max_requests_in_flight=10) as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            cluster.hold()
            for number in range(1, 2_001):
                raw.send_create(number, b"/n%d" % number, bytes(1_000))
            await asyncio.sleep(0.5)
            (connection,) = cluster.nodes[1].door._connections
            assert not connection.reading
            assert len(connection.backlog) < 1 << 20
            cluster.release()
            for number in range(1, 2_001):
                assert (await raw.reply())[0] == number
            assert connection.reading

    on_simulated_loop(work)


def test_a_congested_group_is_not_fed_and_relief_lets_it_go_on() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            cluster.congest(1, True)
            raw.send_create(1, b"/a")
            assert (await raw.reply())[0] == 1
            raw.send_create(2, b"/b")
            assert await raw.is_silent()
            cluster.congest(1, False)
            assert (await raw.reply())[0] == 2

    on_simulated_loop(work)


def test_a_client_that_reads_nothing_is_not_read_from_and_holds_little_memory() -> None:
    """It asks for far more than the socket's buffers hold: the door stops reading from it and lets it be."""

    async def work() -> None:
        async with Cluster(max_unread_bytes=4 << 20) as cluster:
            other = await Raw.open(cluster.endpoints[0])
            await other.call(1, Op.CREATE, _create(b"/big", bytes(1_000_000)))
            raw = await Raw.open(cluster.endpoints[0])
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for number in range(2_000):
                raw.send_get(number, b"/big")
            await asyncio.sleep(0.3)
            door = cluster.nodes[1].door
            stuck = next(c for c in door._connections if c.session == raw.session)
            assert stuck.transport.get_write_buffer_size() <= 4 << 20
            assert not stuck.reading
            assert (await other.call(2, Op.EXISTS, PathAndWatch(b"/big", False).encode()))[0] == 0

    on_asyncio(work)


@pytest.mark.parametrize("run", [on_asyncio, on_uvloop])
def test_a_client_that_reads_gets_a_reply_far_beyond_the_limit(
    run: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
) -> None:
    async def work() -> None:
        async with Cluster(max_unread_bytes=100_000) as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            await raw.call(1, Op.CREATE, _create(b"/p"))
            raw.send(2, Op.GET_CHILDREN, PathAndWatch(b"/", True).encode())
            await raw.reply()
            _bear_children(cluster, b"/p", 10_000)
            raw.send(3, Op.GET_CHILDREN, PathAndWatch(b"/p", False).encode())
            await asyncio.sleep(0.1)
            # What comes behind the large reply while it is being read is no reason either.
            other = await Raw.open(cluster.endpoints[0])
            await other.call(1, Op.CREATE, _create(b"/q"))
            await asyncio.sleep(0.1)
            assert len((await raw.reply())[3]) > 10_000_000
            assert await raw.event() == (4, b"/")

    run(work)


@pytest.mark.parametrize("run", [on_asyncio, on_uvloop])
def test_what_gathers_beyond_the_limit_for_a_client_that_does_not_read_closes_it(
    run: Callable[[Callable[[], Coroutine[Any, Any, None]]], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with Cluster(max_unread_bytes=100_000) as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            other = await Raw.open(cluster.endpoints[0])
            await other.call(1, Op.CREATE, _create(b"/p"))
            paths = [b"/" + b"%03d" % number * 66 for number in range(700)]
            for number, path in enumerate(paths):
                await raw.call(number, Op.EXISTS, PathAndWatch(path, True).encode())
            _bear_children(cluster, b"/p", 10_000)
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
            raw.send(1, Op.GET_CHILDREN, PathAndWatch(b"/p", False).encode())
            await asyncio.sleep(0.1)
            door = cluster.nodes[1].door
            for number, path in enumerate(paths):
                assert (await other.call(number, Op.CREATE, _create(path)))[0] == 0
                if number == 300:
                    assert any(c.session == raw.session for c in door._connections)
            await asyncio.sleep(0.1)
            assert all(c.session != raw.session for c in door._connections)
        assert "bytes of replies" in caplog.text

    run(work)


def test_two_thousand_idle_connections_do_not_disturb_a_busy_one() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            idle = [await Raw.dial(cluster.endpoints[0]) for _ in range(2_000)]
            raw = await Raw.open(cluster.endpoints[0])
            for number in range(100):
                assert (await raw.call(number, Op.EXISTS, PathAndWatch(b"/", False).encode()))[0] == 0
            assert cluster.nodes[1].door.summary()["connections"] == 2_001
            for connection in idle:
                connection.writer.transport.abort()

    on_asyncio(work)


def test_bad_clients_cannot_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            for _ in range(200):
                raw = await Raw.dial(cluster.endpoints[0])
                raw.send_bytes(b"\0\0\0\0")
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)

    with caplog.at_level(logging.WARNING):
        on_simulated_loop(work)
    assert 1 <= len(caplog.records) <= 30


def _create(path: bytes, data: bytes | None = b"", flags: int = 0) -> bytes:
    return Create(path, data, flags=flags).encode()


def _create_frame(xid: int, path: bytes) -> bytes:
    frame = REQUEST_HEADER.pack(xid, Op.CREATE) + _create(path)
    return struct.pack(">i", len(frame)) + frame


def _bear_children(cluster: Cluster, path: bytes, count: int) -> None:
    """Give a node children with names of 1,000 bytes, without the time that it takes to create them."""
    leaf = Znode(NULL, bytes(68), NO_CHILDREN, b"")
    parent = cluster.nodes[1].store.tree.get(path)
    assert parent is not None
    parent.children = {b"%01000d" % number: leaf for number in range(count)}
