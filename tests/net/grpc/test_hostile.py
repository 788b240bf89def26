"""Clients that do what they must not, or nothing at all: what they cost is bounded, and nobody else notices.

All but the last on the simulated loop, where a minute of silence takes no time.  The clients are made of HTTP/2 by
hand, so that they can leave out what a good one does.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorate.net.grpc import server, server_connection
from quorate.net.grpc.calls import ServerOptions
from quorate.net.grpc.client import Channel
from quorate.net.grpc.framing import encode_message
from quorate.net.grpc.lingering import MAX_LINGERING
from quorate.net.grpc.server import GrpcServer
from quorate.net.grpc.server_connection import ServerConnection
from quorate.net.http2 import frames
from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import Connection, Role
from quorate.net.http2.events import (
    DataReceived,
    Event,
    PingAcknowledged,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from quorate.net.http2.headers import encode
from quorate.net.http2.limits import Limits
from quorate.simulation.scheduler import Simulation
from tests.net.grpc.echo import HOST, LIMIT_S, EchoService, ServerThread
from tests.simulation.loops import Recorder

SERVER, GOOD, BAD = "10.0.0.1", "10.0.0.2", "10.0.0.3"
PORT = 2379
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = bytes(3) + b"\x04" + bytes(5)


def head(method: str, *more: tuple[str, str]) -> bytes:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", f"/test.Echo/{method}"), (":authority", "a")]
    return encode([*fields, ("te", "trailers"), ("content-type", "application/grpc"), *more])


class World:
    """A server on a machine of its own."""

    def __init__(self, options: ServerOptions | None = None) -> None:
        self.simulation = Simulation(0)
        self.service = EchoService()
        self.server = GrpcServer(self.service.methods(), options or ServerOptions())
        self.simulation.run(self.simulation.boot(SERVER), self.server.start(SERVER, PORT))
        self.good = self.simulation.boot(GOOD)
        self.bad = self.simulation.boot(BAD)

    def misbehave(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run this on the bad client's machine, and see that a good one is served before, behind and meanwhile."""

        async def all_of_it() -> None:
            await work()

        good = self.simulation.start(self.good, self._ask_politely())
        self.simulation.run(self.bad, all_of_it())
        self.simulation.run(self.good, self._ask())
        assert not good.done()

    async def _ask(self) -> None:
        client = Channel(SERVER, PORT)
        await client.connect()
        assert await client.unary("/test.Echo/Echo", b"still there?", timeout_s=1) == b"still there?"
        await client.close()

    async def _ask_politely(self) -> None:
        """A call every second, and no answer later than another."""
        while True:
            await self._ask()
            await asyncio.sleep(1)

    @property
    def connection(self) -> ServerConnection:
        """The server's end of the bad client's connection."""
        (found,) = (one for one in self.server._open if one.peer.startswith(BAD))
        return found

    def is_cut_off(self) -> bool:
        return not any(one.peer.startswith(BAD) for one in self.server._open)

    def told(self) -> list[str]:
        return [self.service.told.get()[0] for _ in range(self.service.told.qsize())]


class BadClient(asyncio.Protocol):
    """HTTP/2 without manners: it gives no credit for what it receives, unless `is_consuming`."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.http2 = Connection(Role.CLIENT, limits or Limits())
        self.events: list[Event] = []
        self.received_bytes = 0
        self.not_consumed: list[tuple[int, int]] = []
        self.is_consuming = False
        self.lost = asyncio.Event()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for event in self.http2.receive(data, asyncio.get_running_loop().time()):
            if isinstance(event, DataReceived):
                self.received_bytes += len(event.data)
                self.not_consumed.append((event.stream_id, len(event.data)))
            else:
                self.events.append(event)
        if self.is_consuming:
            self.consume()
        self.write()

    def consume(self) -> None:
        """Give the credit for all that has come, and from now on."""
        self.is_consuming = True
        for stream_id, count in self.not_consumed:
            self.http2.consumed(stream_id, count)
        self.not_consumed.clear()
        self.write()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def write(self) -> None:
        self.transport.write(self.http2.take_output())

    def call(self, method: str, *messages: bytes, half_close: bool = True) -> int:
        stream_id = self.http2.open_stream(head(method), False)
        data = b"".join(map(encode_message, messages))
        self.http2.send_data(stream_id, data, half_close)
        return stream_id

    def statuses(self) -> list[str]:
        return [
            dict(event.headers.fields)["grpc-status"]
            for event in self.events
            if isinstance(event, TrailersReceived) or (isinstance(event, ResponseReceived) and event.end_stream)
        ]


@asynccontextmanager
async def bad_client(limits: Limits | None = None) -> AsyncIterator[BadClient]:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: BadClient(limits), SERVER, PORT)
    client.write()
    await until(lambda: client.http2.has_started)
    yield client
    client.transport.abort()


async def until(condition: Callable[[], bool], limit_s: float = 300.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 (it is no event's)
            await asyncio.sleep(0.01)


async def settle() -> None:
    """Long enough for whatever is under way to arrive and be answered."""
    await asyncio.sleep(1)


# --- silence ---------------------------------------------------------------------------------


def test_a_connection_without_a_word_is_cut_off_in_time() -> None:
    world = World(ServerOptions(handshake_s=3))

    async def work() -> None:
        loop = asyncio.get_running_loop()
        for word in (b"", PREFACE[:10], PREFACE):
            start_s = loop.time()
            _, silent = await loop.create_connection(Recorder, SERVER, PORT)
            silent.transport.write(word)
            await silent.until_lost()
            assert 3 <= loop.time() - start_s < 4

    world.misbehave(work)
    assert world.server.counters.connections_cut == 3


def test_a_client_whose_machine_is_gone_is_given_up() -> None:
    world = World()

    async def work() -> None:
        async with bad_client() as client:
            client.call("Bidi", b"1", half_close=False)
            client.call("Keep", b"1")
            client.write()
            await settle()
            assert not {"closed", "over"} & set(world.told())
            world.simulation.network.cut(BAD, SERVER)
            world.simulation.network.cut(SERVER, BAD)
            await asyncio.sleep(server_connection.SILENCE_LIMIT_S - 5)
            assert not world.is_cut_off()
            await asyncio.sleep(20)
            assert world.is_cut_off()
            assert {"closed", "over"} <= set(world.told())

    world.misbehave(work)


def test_an_idle_client_that_answers_pings_stays() -> None:
    world = World()

    async def work() -> None:
        async with bad_client() as client:
            client.call("Bidi", b"1", half_close=False)
            client.write()
            await asyncio.sleep(600)
            assert not client.lost.is_set()
            assert not world.is_cut_off()

    world.misbehave(work)


# --- clients that do not read ----------------------------------------------------------------


def test_a_client_that_gives_no_credit_is_cut_off_when_a_service_does_not_hold_back() -> None:
    options = ServerOptions()
    world = World(options)

    async def work() -> None:
        async with bad_client() as client:
            stream_id = client.call("Heedless", half_close=False)
            most_bytes = 0
            for _ in range(100):
                client.http2.send_data(stream_id, encode_message(b"more"), False)
                client.write()
                await asyncio.sleep(0.1)
                if client.lost.is_set():
                    break
                most_bytes = max(most_bytes, world.connection._http2.queued_total())
            assert client.lost.is_set()
            assert options.max_unread_bytes < most_bytes < 1.2 * options.max_unread_bytes

    world.misbehave(work)
    assert world.server.counters.connections_cut == 1
    assert "closed" in world.told()


def test_what_a_call_that_is_over_has_not_read_does_not_count() -> None:
    world = World()

    async def work() -> None:
        async with bad_client() as client:
            for _ in range(10):
                stream_id = client.call("Heedless", *[b""] * 20, half_close=False)
                client.write()
                await settle()
                client.http2.reset(stream_id, ErrorCode.CANCEL)
                client.write()
                await settle()
            assert not client.lost.is_set()
            assert world.connection._http2.queued_total() == 0

    world.misbehave(work)


def test_a_service_that_holds_back_has_little_unsent_for_a_client_that_gives_no_credit() -> None:
    world = World()

    async def work() -> None:
        async with bad_client() as client:
            client.call("Flood", b"100000")
            client.write()
            await asyncio.sleep(600)
            assert not client.lost.is_set()
            assert world.connection._http2.queued_total() < 100_000

    world.misbehave(work)


def test_a_client_that_does_not_read_its_socket_is_cut_off_and_costs_little_until_then() -> None:
    world = World()

    async def work() -> None:
        async with bad_client(Limits(stream_window_bytes=1 << 30, connection_window_bytes=1 << 30)) as client:
            client.call("Flood", b"1000000")
            client.call("Heedless", *[b""] * 30)
            client.write()
            client.transport.pause_reading()
            await settle()
            transport: Any = world.connection._transport
            assert world.connection._paused
            assert not transport.is_reading()
            assert transport.get_write_buffer_size() < 4 << 20
            assert world.connection._http2.queued_total() == 0
            await asyncio.sleep(server_connection.SILENCE_LIMIT_S + 20)
            assert world.is_cut_off()
            assert world.told().count("closed") == 2

    world.misbehave(work)


def test_requests_of_a_client_that_takes_no_answers_wait_until_it_does() -> None:
    options = ServerOptions()
    world = World(options)

    async def work() -> None:
        async with bad_client() as client:
            large = bytes(1_500_000)
            for _ in range(20):
                client.call("Echo", large)
            client.write()
            await asyncio.sleep(60)
            assert world.connection._unsent_bytes < options.max_unread_bytes + 2 * len(large)
            assert not client.lost.is_set()
            client.consume()
            await until(lambda: client.statuses() == ["0"] * 20)
            assert client.received_bytes == 20 * (len(large) + 5)

    world.misbehave(work)


def test_answers_that_are_yet_to_be_made_wait_until_those_before_them_were_taken() -> None:
    """All requests have reached the service before the first of them is answered."""
    options = ServerOptions()
    world = World(options)

    async def work() -> None:
        async with bad_client() as client:
            for _ in range(100):
                client.call("Large", b"")
            client.write()
            await settle()
            assert world.connection._unsent_bytes <= options.max_unread_bytes + 1_000_000
            client.consume()
            await until(lambda: client.statuses() == ["0"] * 100)
            assert client.received_bytes == 100 * 1_000_005
            assert not world.connection._waiting

    world.misbehave(work)


def test_answers_that_wait_are_forgotten_with_their_calls() -> None:
    world = World()

    async def work() -> None:
        async with bad_client() as client:
            calls = [client.call("Large", b"") for _ in range(100)]
            client.write()
            await settle()
            assert world.connection._waiting
            for stream_id in calls:
                client.http2.reset(stream_id, ErrorCode.CANCEL)
            client.write()
            await settle()
            assert not world.connection._waiting
            client.consume()
            answered = len(client.statuses())
            client.call("Echo", b"goes on")
            client.write()
            await until(lambda: len(client.statuses()) == answered + 1)

    world.misbehave(work)


# --- clients that ask for too much -----------------------------------------------------------


def test_requests_that_are_not_answered_take_no_more_than_so_much() -> None:
    world = World()

    async def work() -> None:
        async with bad_client() as client:
            client.is_consuming = True
            for _ in range(60):
                client.call("Keep", bytes(1_000_000))
                client.write()
                await settle()
            assert len(world.service.kept) < 60
            held_bytes = world.connection._held_bytes
            bound_bytes = server_connection.MAX_HELD_BYTES + Limits().connection_window_bytes
            assert server_connection.MAX_HELD_BYTES < held_bytes < bound_bytes
            client.http2.ping(b"you hear")
            client.write()
            await settle()
            assert PingAcknowledged(b"you hear") in client.events
            while len(client.statuses()) < 60:
                while world.service.kept:
                    world.service.kept.pop().reply(b"")
                await settle()
            assert world.connection._held_bytes == 0

    world.misbehave(work)


def test_requests_of_many_clients_that_are_not_answered_take_no_more_than_so_much() -> None:
    """As much as all may have, and beyond that what each has credit for."""
    world = World()

    async def work() -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(bad_client()) for _ in range(6)]
            for client in clients:
                client.is_consuming = True
                for _ in range(30):
                    client.call("Keep", bytes(1_000_000))
                client.write()
                await settle()
            held_bytes = world.server._held_bytes
            bound_bytes = server.MAX_HELD_BYTES + len(clients) * Limits().connection_window_bytes
            assert server.MAX_HELD_BYTES < held_bytes < bound_bytes < 6 * server_connection.MAX_HELD_BYTES
            answered = 0
            while answered < 180:
                while world.service.kept:
                    world.service.kept.pop().reply(b"")
                    answered += 1
                await settle()
            assert world.server._held_bytes == 0
            clients[0].call("Keep", bytes(1_000_000))
            clients[0].write()
            await until(lambda: world.server._held_bytes > 0)
        await until(lambda: world.server._held_bytes == 0)

    world.misbehave(work)


def test_few_bytes_that_become_very_many_do_so_some_at_a_time() -> None:
    world = World()
    inflated = []
    flush = world.server._flush

    def look_and_flush() -> None:
        inflated.append(world.server.inflated_bytes)
        flush()

    world.server._flush = look_and_flush  # type: ignore[method-assign]

    async def work() -> None:
        async with bad_client() as client:
            client.is_consuming = True
            large = gzip.compress(bytes(1_500_000), 9)
            packed = b"\x01" + len(large).to_bytes(4, "big") + large
            for method in ("Keep", "Echo"):
                for _ in range(100):
                    stream_id = client.http2.open_stream(head(method, ("grpc-encoding", "gzip")), False)
                    # In two parts, of which the first is not the request.
                    client.http2.send_data(stream_id, packed[:200], False)
                    client.http2.send_data(stream_id, packed[200:], True)
            cancelled = client.http2.open_stream(head("Keep", ("grpc-encoding", "gzip")), False)
            client.http2.send_data(cancelled, packed, True)
            client.http2.reset(cancelled, ErrorCode.CANCEL)
            client.write()
            await settle()
            assert world.connection._held_bytes < server_connection.MAX_HELD_BYTES + 3_000_000
            while len(client.statuses()) < 200:
                while world.service.kept:
                    world.service.kept.pop().reply(b"")
                await settle()
            assert client.statuses() == ["0"] * 200
            assert client.received_bytes == 100 * 1_500_005 + 100 * 5
            assert max(inflated) < server.MAX_INFLATED_BYTES + 3_000_000
            assert not world.connection._withheld

    world.misbehave(work)


def test_beginnings_of_messages_take_no_more_than_so_much() -> None:
    world = World()

    async def work() -> None:
        async with bad_client() as client:
            for _ in range(90):
                stream_id = client.call("Bidi", half_close=False)
                client.http2.send_data(stream_id, encode_message(bytes(1_000_000))[:900_000], False)
                client.write()
            await asyncio.sleep(60)
            assert world.connection._partial_bytes <= server_connection.MAX_PARTIAL_BYTES
            assert "8" in client.statuses()
            assert not client.lost.is_set()

    world.misbehave(work)


def test_who_never_ends_requests_that_are_answered_gets_them_reset_in_the_end() -> None:
    world = World(ServerOptions(max_streams=1000))

    async def work() -> None:
        async with bad_client() as client:
            for _ in range(10):
                for _ in range(90):
                    client.call("Nothing", half_close=False)
                client.write()
                await settle()
            assert client.statuses() == ["12"] * 900
            assert len(world.connection._lingering) == MAX_LINGERING
            assert sum(isinstance(event, StreamReset) for event in client.events) == 800

    world.misbehave(work)


def test_messages_behind_one_that_ended_the_call_are_dropped() -> None:
    """They came in one frame with it; the service asserts that it is told of none."""
    world = World()

    async def work() -> None:
        async with bad_client() as client:
            client.call("Bidi", b"fail", b"more", b"and more")
            client.write()
            await until(lambda: client.statuses() == ["10"])

    world.misbehave(work)


def test_a_client_that_is_gone_amid_everything_leaves_nothing_behind() -> None:
    world = World()

    async def work() -> None:
        async with bad_client() as client:
            for method in ("Keep", "Bidi", "Flood", "Heedless", "Join"):
                stream_id = client.call(method, b"100", half_close=False)
                client.http2.send_data(stream_id, b"\0\0\0", False)
            client.call("Keep", b"1")
            client.write()
            await settle()
            connection = world.connection
        await settle()
        assert world.is_cut_off()
        assert not (connection._calls or connection._sending or connection._starved or connection._deferred)
        assert not (connection._held_bytes or connection._partial_bytes or connection._excess_bytes)
        assert world.told().count("closed") == 4

    world.misbehave(work)


# --- noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="HTTP/1.1"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), id="TLS"),
        pytest.param(b"\x00\x00\x00\x2d" + bytes(45), id="ZooKeeper"),
        pytest.param(PREFACE + b"\xff" * 100, id="no frames"),
        pytest.param(PREFACE + EMPTY_SETTINGS + bytes(100), id="data of no stream"),
    ],
)
def test_noise_is_hung_up_on(noise: bytes) -> None:
    world = World()

    async def work() -> None:
        _, client = await asyncio.get_running_loop().create_connection(Recorder, SERVER, PORT)
        client.transport.write(noise)
        await client.until_lost()

    world.misbehave(work)
    assert world.server.counters.connections_failed == 1


METHODS = ("Echo", "Later", "Keep", "Fail", "Join", "Repeat", "Bidi", "Flood", "Nothing")
MESSAGES = st.one_of(
    st.sampled_from([b"", b"3 x", b"100", b"5 words", b"fail"]).map(encode_message),
    st.binary(max_size=30),
    st.binary(max_size=30).map(encode_message),
)
FIELDS = st.sampled_from(
    [(), (("grpc-timeout", "10m"),), (("grpc-timeout", "0n"),), (("grpc-timeout", "x"),), (("grpc-encoding", "gzip"),)]
)
STREAMS = st.sampled_from([1, 3, 5, 7])


def header_frame(stream_id: int, method: str, fields: tuple[tuple[str, str], ...], end: bool) -> bytes:
    return bytes(frames.header_frames(stream_id, head(method, *fields), end, 16_384))


def data_frame(stream_id: int, data: bytes, end: bool) -> bytes:
    return frames.HEAD.pack(len(data) << 8, int(end), stream_id) + data


FRAMES = st.one_of(
    st.builds(header_frame, STREAMS, st.sampled_from(METHODS), FIELDS, st.booleans()),
    st.builds(data_frame, STREAMS, MESSAGES, st.booleans()),
    st.builds(lambda stream_id, code: frames.rst_stream(stream_id, code), STREAMS, st.integers(0, 13)),
    st.builds(lambda stream_id, by: frames.window_update(stream_id, by), st.just(0) | STREAMS, st.integers(1, 1000)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.lists(st.one_of(FRAMES, FRAMES, FRAMES, st.binary(max_size=20)), max_size=12), max_size=4))
def test_whatever_frames_come_nothing_breaks(turns: list[list[bytes]]) -> None:
    """An exception that nobody handles would end the simulation."""
    world = World()

    async def work() -> None:
        _, client = await asyncio.get_running_loop().create_connection(Recorder, SERVER, PORT)
        client.transport.write(PREFACE + EMPTY_SETTINGS)
        for turn in turns:
            client.transport.write(b"".join(turn))
            await asyncio.sleep(0.1)
        for call in world.service.kept:
            call.reply(b"")
        await settle()
        client.transport.abort()
        await settle()
        told = world.told()
        assert told.count("opened") == told.count("closed")

    world.misbehave(work)


# --- a real socket ---------------------------------------------------------------------------


@pytest.mark.parametrize("on_uvloop", [False, True], ids=["asyncio", "uvloop"])
def test_a_real_socket_that_is_not_read_fills_up_only_so_far_and_all_arrives_in_the_end(on_uvloop: bool) -> None:
    peer = Connection(Role.CLIENT, Limits(stream_window_bytes=1 << 30, connection_window_bytes=1 << 30))
    with (
        ServerThread(ServerOptions(drain_s=1.0), on_uvloop=on_uvloop) as server,
        socket.create_connection((HOST, server.port), LIMIT_S) as client,
    ):
        peer.send_data(peer.open_stream(head("Flood"), False), encode_message(b"3000"), True)
        client.sendall(peer.take_output())
        server.service.wait_for("full")
        (connection,) = server.server._open
        transport: Any = connection._transport
        assert server.call(transport.get_write_buffer_size) < 1 << 20
        received = 0
        while received < 3000 * 10_005:
            events = peer.receive(client.recv(1 << 20), 0.0)
            received += sum(len(event.data) for event in events if isinstance(event, DataReceived))
            client.sendall(peer.take_output())
        server.service.wait_for("closed")
