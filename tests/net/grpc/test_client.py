"""Our own client and server with each other, on every loop that they must run on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from quorate.net.grpc.calls import Call, Method, ServerOptions, StreamHandler, Streaming, Unary
from quorate.net.grpc.client import Channel, NotSentError
from quorate.net.grpc.server import GrpcServer
from quorate.net.grpc.server_connection import ServerConnection
from quorate.net.grpc.status import Code, GrpcError
from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import Connection, Role
from quorate.net.http2.events import RequestReceived
from quorate.net.http2.headers import encode
from quorate.net.http2.limits import Limits
from quorate.net.http2.sending import ResponseForm
from quorate.simulation.scheduler import Simulation
from tests.net.grpc.echo import EchoService
from tests.simulation.loops import LOCAL, BuildLoop, on_every_loop, run

ECHO = "/test.Echo/Echo"
KEEP = "/test.Echo/Keep"
BIDI = "/test.Echo/Bidi"


class Pair:
    """A server of the echo service, and a client of it, on one loop."""

    def __init__(self, options: ServerOptions | None = None) -> None:
        self.service = EchoService()
        self.server = GrpcServer(self.service.methods(), options or ServerOptions(drain_s=1))
        self.client: Channel

    async def start(self) -> None:
        await self.server.start(LOCAL, 0)
        self.client = Channel(LOCAL, self.server.port)
        await self.client.connect()

    async def told(self, what: str) -> None:
        """Wait until the service's handlers were told this."""
        told = self.service.told
        await until(lambda: not told.empty() and told.get()[0] == what)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (it is no event's)
        await asyncio.sleep(0.001)


@asynccontextmanager
async def pair(options: ServerOptions | None = None) -> AsyncIterator[Pair]:
    made = Pair(options)
    await made.start()
    yield made
    await made.client.close()
    await made.server.stop()
    assert made.server.connections() == 0


async def failure(client: Channel, path: str, message: bytes, timeout_s: float | None = None) -> GrpcError:
    with pytest.raises(GrpcError) as raised:
        await client.unary(path, message, timeout_s)
    return raised.value


@on_every_loop
def test_calls_of_every_kind(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair() as both:
            client = both.client
            assert await client.unary(ECHO, b"hello") == b"hello"
            assert await client.unary("/test.Echo/Later", b"later", timeout_s=5) == b"later"

            join = client.stream("/test.Echo/Join")
            for word in (b"one", b"", b"two"):
                join.send(word)
            join.half_close()
            assert [message async for message in join] == [b"onetwo"]

            repeat = client.stream("/test.Echo/Repeat")
            repeat.send_last(b"3 x")
            assert [message async for message in repeat] == [b"x"] * 3

            bidi = client.stream(BIDI)
            for number in range(10):
                bidi.send(b"%d" % number)
                assert await bidi.receive() == b"%d" % number
            bidi.half_close()
            assert await bidi.receive() is None
            assert await bidi.receive() is None
            (connection,) = both.server._open
            assert not connection._lingering, "all of these ended their requests themselves"

    run(build, work())


@on_every_loop
def test_errors_carry_code_and_words(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair() as both:
            error = await failure(both.client, "/test.Echo/Fail", "11 schön 100 %".encode())
            assert (error.code, error.message) == (Code.OUT_OF_RANGE, "schön 100 %")
            assert not isinstance(error, NotSentError)
            stream = both.client.stream(BIDI)
            stream.send(b"1")
            stream.send(b"fail")
            stream.send(b"nobody hears this")
            assert await stream.receive() == b"1"
            with pytest.raises(GrpcError, match="ABORTED: as you say"):
                await stream.receive()

    run(build, work())


@on_every_loop
def test_metadata_and_timeout_reach_the_service(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair() as both:
            answer = await both.client.unary("/test.Echo/Metadata", b"", 5.0, [("token", "secret"), ("token", "b")])
            metadata = json.loads(answer)
            assert metadata["token"] == "secret, b"
            assert metadata["grpc-timeout"].endswith(("u", "m"))
            assert not both.server.deadlines._slots, "nothing of it is kept until its deadline"

    run(build, work())


@on_every_loop
def test_a_deadline_ends_the_call_on_both_sides(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair() as both:
            error = await failure(both.client, KEEP, b"", timeout_s=0.1)
            assert error.code is Code.DEADLINE_EXCEEDED
            assert not isinstance(error, NotSentError)
            await both.told("over")
            assert both.service.kept[0].is_over

    run(build, work())


@on_every_loop
def test_the_server_enforces_a_deadline_by_itself(build: BuildLoop) -> None:
    """The client names it in its metadata only, and would wait for ever."""

    async def work() -> None:
        async with pair() as both:
            with pytest.raises(GrpcError, match="DEADLINE_EXCEEDED: context deadline exceeded"):
                await both.client.unary(KEEP, b"", metadata=[("grpc-timeout", "50m")])
            await both.told("over")
            stream = both.client.stream(BIDI, metadata=[("grpc-timeout", "50m")])
            stream.send(b"1")
            assert await stream.receive() == b"1"
            with pytest.raises(GrpcError, match="DEADLINE_EXCEEDED"):
                await stream.receive()
            await both.told("closed")
            with pytest.raises(GrpcError, match="INTERNAL: malformed grpc-timeout"):
                await both.client.unary(ECHO, b"", metadata=[("grpc-timeout", "soon")])

    run(build, work())


@on_every_loop
def test_a_cancelled_task_cancels_its_call(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair() as both:
            task = asyncio.ensure_future(both.client.unary(KEEP, b""))
            await both.told("kept")
            task.cancel()
            await both.told("over")
            stream = both.client.stream(BIDI)
            stream.send(b"1")
            assert await stream.receive() == b"1"
            stream.cancel()
            with pytest.raises(GrpcError, match="CANCELLED"):
                await stream.receive()
            await both.told("closed")
            (connection,) = both.server._open
            assert not connection._lingering

    run(build, work())


@on_every_loop
def test_more_bytes_than_a_connections_window_in_small_requests(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair() as both:
            message = bytes(15_000)
            for _ in range(7):
                answers = await asyncio.gather(*(both.client.unary(ECHO, message, 20) for _ in range(100)))
                assert answers == [message] * 100

    run(build, work())


@on_every_loop
def test_calls_beyond_the_servers_limit_wait_or_end_unsent(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair(ServerOptions(max_streams=2, drain_s=1)) as both:
            answers = await asyncio.gather(*(both.client.unary(ECHO, b"%d" % number) for number in range(20)))
            assert answers == [b"%d" % number for number in range(20)]
            streams = [both.client.stream(BIDI) for _ in range(2)]
            with pytest.raises(NotSentError, match="UNAVAILABLE"):
                both.client.stream(BIDI)
            error = await failure(both.client, ECHO, b"", timeout_s=0.05)
            assert isinstance(error, NotSentError)
            assert error.code is Code.DEADLINE_EXCEEDED
            waiting = asyncio.ensure_future(both.client.unary(ECHO, b"waits"))
            await asyncio.sleep(0)
            streams[0].cancel()
            assert await waiting == b"waits"

    run(build, work())


@on_every_loop
def test_who_is_refused_knows_that_nothing_was_sent(build: BuildLoop) -> None:
    async def work() -> None:
        client = Channel(LOCAL, 1)
        with pytest.raises(NotSentError, match="UNAVAILABLE: no connection to"):
            await client.connect()
        assert isinstance(await failure(client, ECHO, b""), NotSentError)

    run(build, work())


@on_every_loop
def test_a_lost_connection_leaves_the_outcome_open_and_can_be_made_again(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair(ServerOptions(drain_s=0.01)) as both:
            client = both.client
            call = asyncio.ensure_future(client.unary(KEEP, b""))
            stream = client.stream(BIDI)
            await both.told("kept")
            for connection in list(both.server._open):
                connection.abort()
            for lost in (call, stream.receive()):
                with pytest.raises(GrpcError) as raised:
                    await lost
                assert raised.value.code is Code.UNAVAILABLE
                assert not isinstance(raised.value, NotSentError)
            await both.told("over")
            assert not client.is_connected
            assert isinstance(await failure(client, ECHO, b""), NotSentError)
            await client.connect()
            assert await client.unary(ECHO, b"again") == b"again"

    run(build, work())


@on_every_loop
def test_a_server_that_stops_lets_calls_under_way_end(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair(ServerOptions(drain_s=10)) as both:
            call = asyncio.ensure_future(both.client.unary(KEEP, b""))
            await both.told("kept")
            stopping = asyncio.ensure_future(both.server.stop())
            await until(lambda: not both.client.is_connected)
            assert isinstance(await failure(both.client, ECHO, b""), NotSentError)
            both.service.kept[0].reply(b"at last")
            assert await call == b"at last"
            await stopping

    run(build, work())


@on_every_loop
def test_a_server_that_stops_waits_for_no_stream(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair(ServerOptions(drain_s=1000)) as both:
            streams = [both.client.stream(path) for path in (BIDI, BIDI, "/test.Echo/Flood")]
            streams[0].send(b"1")
            assert await streams[0].receive() == b"1"
            await both.server.stop()
            for stream in streams:
                with pytest.raises(GrpcError, match="UNAVAILABLE: the server is stopping"):
                    await stream.receive()
            assert both.service.told.queue.count(("closed", b"_Bidi")) == 2

    run(build, work())


@on_every_loop
def test_large_messages_both_ways(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair(ServerOptions(max_message_bytes=8 << 20, max_unread_bytes=1 << 20)) as both:
            message = bytes(range(256)) * (5 << 12)
            assert await both.client.unary(ECHO, message) == message
            stream = both.client.stream(BIDI)
            for _ in range(3):
                stream.send(message)
                assert await stream.receive() == message
            stream.cancel()

    run(build, work())


@on_every_loop
def test_a_client_that_does_not_receive_holds_the_service_back_until_it_does(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair() as both:
            stream = both.client.stream("/test.Echo/Flood")
            stream.send_last(b"3000")
            await both.told("full")
            assert await both.client.unary(ECHO, b"others go on") == b"others go on"
            sizes = [len(message) async for message in stream]
            assert sizes == [10_000] * 3000

    run(build, work())


@on_every_loop
def test_all_answers_of_a_turn_leave_in_one_write(build: BuildLoop) -> None:
    """Calls that wait for the same thing, as those of one batch do."""

    async def work() -> None:
        waiting: list[Call] = []
        server = GrpcServer({"/a.B/C": Unary(lambda call, _: waiting.append(call))}, ServerOptions(drain_s=1))
        await server.start(LOCAL, 0)
        client = Channel(LOCAL, server.port)
        await client.connect()
        calls = [asyncio.ensure_future(client.unary("/a.B/C", b"")) for _ in range(50)]
        await until(lambda: len(waiting) == 50)
        (connection,) = server._open
        transport = connection._transport
        assert transport is not None
        written: list[int] = []
        connection._transport = Spy(transport, written)  # type: ignore[assignment]
        for call in waiting:
            call.reply(b"x")
        assert await asyncio.gather(*calls) == [b"x"] * 50
        assert len(written) == 1
        connection._transport = transport
        await client.close()
        await server.stop()

    run(build, work())


class Trap(StreamHandler):
    """A service with a mistake."""

    def message(self, message: bytes) -> None: ...

    def half_closed(self) -> None: ...

    def writable(self) -> None:
        raise ZeroDivisionError("a mistake")

    def closed(self) -> None: ...


def test_a_services_mistake_with_one_client_leaves_the_others_alone() -> None:
    async def work() -> None:
        mistakes: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: mistakes.append(context["exception"]))
        waiting: dict[str, Call] = {}

        def trap(call: Call) -> StreamHandler:
            waiting["trap"] = call
            return Trap()

        methods: dict[str, Method] = {
            "/a.B/Trap": Streaming(trap),
            "/a.B/C": Unary(lambda call, _: waiting.update(good=call)),
        }
        server = GrpcServer(methods, ServerOptions(drain_s=1))
        await server.start(LOCAL, 0)
        clients = [Channel(LOCAL, server.port) for _ in range(2)]
        for client in clients:
            await client.connect()
        clients[0].stream("/a.B/Trap")
        answer = asyncio.ensure_future(clients[1].unary("/a.B/C", b""))
        await until(lambda: len(waiting) == 2)
        waiting["trap"].send(bytes(100_000))
        assert waiting["trap"].unsent_bytes() > 100_000
        waiting["good"].reply(b"unharmed")
        assert await answer == b"unharmed"
        assert [str(mistake) for mistake in mistakes] == ["a mistake"]
        for client in clients:
            await client.close()
        await server.stop()

    asyncio.run(work())


class Spy:
    """Counts the writes to a transport."""

    def __init__(self, transport: asyncio.Transport, written: list[int]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(len(data))
        self._transport.write(data)


@on_every_loop
def test_what_arrives_for_calls_that_were_cancelled_uses_up_no_window(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair() as both:
            for _ in range(30):
                stream = both.client.stream("/test.Echo/Flood")
                stream.send_last(b"1000")
                assert await stream.receive() == bytes(10_000)
                stream.cancel()
            assert await both.client.unary(ECHO, bytes(2_000_000), 20) == bytes(2_000_000)

    run(build, work())


def test_a_connection_that_is_ready_when_the_server_has_stopped_is_not_taken() -> None:
    """As one whose TLS handshake took its time."""

    async def work() -> None:
        async with pair() as both:
            await both.server.stop()
            assert not both.server.admit(ServerConnection(both.server))

    asyncio.run(work())


# --- servers that are none of ours -----------------------------------------------------------


class RudeServer(asyncio.Protocol):
    """Answers every call with the same steps."""

    def __init__(self, steps: Callable[[Connection, int], None]) -> None:
        self.http2 = Connection(Role.SERVER, Limits())
        self.steps = steps
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self.http2.take_output())

    def data_received(self, data: bytes) -> None:
        for event in self.http2.receive(data, 0.0):
            if isinstance(event, RequestReceived):
                self.steps(self.http2, event.stream_id)
        self.transport.write(self.http2.take_output())


OK_HEADERS = encode([(":status", "200"), ("content-type", "application/grpc")])
OK_STATUS = encode([("grpc-status", "0")])
MESSAGE = b"\0\0\0\0\1x"


def answers(data: bytes, trailers: bytes = OK_STATUS, headers: bytes = OK_HEADERS) -> Callable[[Connection, int], None]:
    return lambda http2, stream_id: http2.send_response(stream_id, ResponseForm(headers, trailers), data)


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        pytest.param(answers(MESSAGE[:3]), "INTERNAL: the answer ended amid a message", id="half a message"),
        pytest.param(answers(b""), "INTERNAL", id="no message"),
        pytest.param(answers(MESSAGE * 2), "INTERNAL", id="two messages"),
        pytest.param(answers(b"\7\0\0\0\0"), "INTERNAL", id="no message of gRPC's"),
        pytest.param(answers(MESSAGE, encode([("server", "rude")])), "INTERNAL", id="no status"),
        pytest.param(answers(MESSAGE, encode([("grpc-status", "what")])), "UNKNOWN", id="no status of gRPC's"),
        pytest.param(answers(b"<html>", headers=encode([(":status", "200")])), "UNKNOWN", id="a web page"),
        pytest.param(answers(b"<html>", headers=encode([(":status", "503")])), "UNAVAILABLE", id="a proxy's 503"),
        pytest.param(lambda http2, stream_id: http2.reset(stream_id, ErrorCode.CANCEL), "CANCELLED", id="CANCEL"),
        pytest.param(
            lambda http2, stream_id: http2.reset(stream_id, ErrorCode.REFUSED_STREAM), "not sent", id="REFUSED_STREAM"
        ),
    ],
)
def test_answers_that_are_none_are_errors(steps: Callable[[Connection, int], None], error: str) -> None:
    async def work() -> None:
        rude = await asyncio.get_running_loop().create_server(lambda: RudeServer(steps), LOCAL, 0)
        client = Channel(LOCAL, rude.sockets[0].getsockname()[1])
        await client.connect()
        raised = await failure(client, ECHO, b"", timeout_s=10)
        words = f"not sent: {raised}" if isinstance(raised, NotSentError) else str(raised)
        assert words.startswith(error)
        await client.close()
        rude.close()

    asyncio.run(work())


def test_a_server_that_speaks_something_else_is_no_server() -> None:
    class Chatter(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def work() -> None:
        server = await asyncio.get_running_loop().create_server(Chatter, LOCAL, 0)
        with pytest.raises(NotSentError):
            await Channel(LOCAL, server.sockets[0].getsockname()[1]).connect()
        server.close()

    asyncio.run(work())


# --- simulated -------------------------------------------------------------------------------


def simulated_run(seed: int) -> tuple[list[str], str]:
    """A server and two clients on machines of their own, whose network breaks: what was seen, and the trace's sum."""
    simulation = Simulation(seed)
    seen: list[str] = []
    service = EchoService()

    async def serve() -> None:
        server = GrpcServer(service.methods(), ServerOptions())
        await server.start("10.0.0.1", 2379)

    async def ask(name: str) -> None:
        loop = asyncio.get_running_loop()
        client = Channel("10.0.0.1", 2379)
        for number in range(40):
            try:
                await client.connect()
                answer = await client.unary("/test.Echo/Later", b"%d" % number, timeout_s=0.5)
                seen.append(f"{loop.time():.9f} {name} {answer.decode()}")
            except GrpcError as error:
                seen.append(f"{loop.time():.9f} {name} {error}")
            await asyncio.sleep(0.1)
        await client.close()

    simulation.run(simulation.boot("10.0.0.1"), serve())
    tasks = [simulation.start(simulation.boot(host), ask(host)) for host in ("10.0.0.2", "10.0.0.3")]
    simulation.after(1, simulation.network.cut, "10.0.0.1", "10.0.0.2")
    simulation.after(3, simulation.network.mend, "10.0.0.1", "10.0.0.2")
    simulation.step_while(lambda: not all(task.done() for task in tasks))
    return seen, simulation.digest()


def test_a_server_whose_machine_is_gone_is_given_up() -> None:
    simulation = Simulation()

    async def serve() -> None:
        await GrpcServer(EchoService().methods(), ServerOptions()).start("10.0.0.1", 2379)

    async def watch() -> None:
        client = Channel("10.0.0.1", 2379)
        await client.connect()
        stream = client.stream(BIDI)
        stream.send(b"1")
        assert await stream.receive() == b"1"
        # Long silence is no loss as long as pings are answered.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.receive(), 100)
        simulation.kill("10.0.0.1", power_loss=True)
        with pytest.raises(GrpcError, match="UNAVAILABLE"):
            await asyncio.wait_for(stream.receive(), 25)

    simulation.run(simulation.boot("10.0.0.1"), serve())
    simulation.run(simulation.boot("10.0.0.2"), watch())


@on_every_loop
def test_who_connects_twice_at_once_gets_one_connection(build: BuildLoop) -> None:
    async def work() -> None:
        async with pair() as both:
            await both.client.close()
            await until(lambda: both.server.connections() == 0)
            await asyncio.gather(both.client.connect(), both.client.connect())
            assert both.server.connections() == 1

    run(build, work())


def test_a_simulated_run_is_the_same_every_time() -> None:
    first, again, other = simulated_run(1), simulated_run(1), simulated_run(2)
    assert first == again
    assert first != other
    assert any("DEADLINE_EXCEEDED" in line for line in first[0])
    assert first[0][-1].endswith(" 39")
