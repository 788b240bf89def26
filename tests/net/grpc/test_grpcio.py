"""The server as Google's own client for Python sees it (gRPC's C core)."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc
import pytest

from quorate.net.grpc.calls import ServerOptions
from quorate.net.grpc.status import Code
from tests.net.grpc.echo import LIMIT_S, ServerThread

ECHO = "/test.Echo/Echo"
KEEP = "/test.Echo/Keep"


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerThread]:
    with ServerThread(ServerOptions(drain_s=1.0), on_uvloop=request.param == "uvloop") as running:
        yield running


def channel(server: ServerThread, **options: Any) -> AbstractContextManager[Any]:
    """Not typed: grpcio's stubs know no calls that take and give bytes as they are."""
    return grpc.insecure_channel(server.target, options=list(options.items()))


def aio_channel(server: ServerThread) -> Any:
    return grpc.aio.insecure_channel(server.target)


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return error.code(), error.details()


def test_calls_of_every_kind(server: ServerThread) -> None:
    with channel(server) as client:
        assert client.unary_unary(ECHO)(b"hello", timeout=LIMIT_S) == b"hello"
        assert client.unary_unary(ECHO)(b"", timeout=LIMIT_S) == b""
        assert client.unary_unary("/test.Echo/Later")(b"later", timeout=LIMIT_S) == b"later"
        assert list(client.unary_stream("/test.Echo/Repeat")(b"3 x", timeout=LIMIT_S)) == [b"x"] * 3
        assert list(client.unary_stream("/test.Echo/Repeat")(b"0 x", timeout=LIMIT_S)) == []
        words = [b"one", b"", b"three"]
        assert client.stream_unary("/test.Echo/Join")(iter(words), timeout=LIMIT_S) == b"onethree"
        assert list(client.stream_stream("/test.Echo/Bidi")(iter(words), timeout=LIMIT_S)) == words


def test_a_conversation_in_turns(server: ServerThread) -> None:
    """Each question is asked when the answer to the one before is there."""
    questions: queue.Queue[bytes | None] = queue.Queue()
    with channel(server) as client:
        call = client.stream_stream("/test.Echo/Bidi")(iter(questions.get, None), timeout=LIMIT_S)
        for number in range(5):
            questions.put(b"%d" % number)
            assert next(call) == b"%d" % number
        questions.put(None)
        assert list(call) == []
        assert call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("path", "message", "expected"),
    [
        ("/test.Echo/Fail", "9 etcdserver: 100 % schön\n".encode(), "FAILED_PRECONDITION etcdserver: 100 % schön\n"),
        ("/test.Echo/Fail", b"14 ", "UNAVAILABLE "),
        ("/test.Echo/Nothing", b"", "UNIMPLEMENTED unknown method Nothing for service test.Echo"),
        ("/test.Nobody/Echo", b"", "UNIMPLEMENTED unknown service test.Nobody"),
    ],
)
def test_errors_arrive_with_code_and_words(server: ServerThread, path: str, message: bytes, expected: str) -> None:
    with channel(server) as client:
        code, details = failure(lambda: client.unary_unary(path)(message, timeout=LIMIT_S))
        assert f"{code.name} {details}" == expected


def test_an_error_behind_messages(server: ServerThread) -> None:
    with channel(server) as client:
        call = client.stream_stream("/test.Echo/Bidi")(iter([b"1", b"fail", b"2"]), timeout=LIMIT_S)
        assert next(call) == b"1"
        assert failure(lambda: next(call)) == (grpc.StatusCode.ABORTED, "as you say")


def test_metadata_reaches_the_service_and_binary_metadata_does_not(server: ServerThread) -> None:
    with channel(server) as client:
        sent = (("token", "a"), ("hasleader", "true"), ("token", "b"), ("trace-bin", b"\x00\x01"))
        answer = client.unary_unary("/test.Echo/Metadata")(b"", metadata=sent, timeout=LIMIT_S)
        metadata = json.loads(answer)
        assert metadata["token"] == "a, b"
        assert metadata["hasleader"] == "true"
        assert "grpc-python" in metadata["user-agent"]
        assert not {"trace-bin", "te", ":path"} & metadata.keys()


def test_compressed_requests_are_read(server: ServerThread) -> None:
    with channel(server) as client:
        message = bytes(500_000)
        call = client.unary_unary(ECHO)
        assert call(message, compression=grpc.Compression.Gzip, timeout=LIMIT_S) == message
        bidi = client.stream_stream("/test.Echo/Bidi")
        assert list(bidi(iter([message] * 3), compression=grpc.Compression.Gzip, timeout=LIMIT_S)) == [message] * 3


def test_an_unknown_compression_is_refused(server: ServerThread) -> None:
    with channel(server) as client:
        call = client.unary_unary(ECHO)
        code, details = failure(lambda: call(bytes(5000), compression=grpc.Compression.Deflate, timeout=LIMIT_S))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert details == 'grpc: Decompressor is not installed for grpc-encoding "deflate"'


@pytest.mark.parametrize("size", [16_379, 16_380, 65_530, 65_536, 1 << 20, (2 << 20) - 1, 2 << 20])
def test_large_messages_pass_up_to_the_limit(server: ServerThread, size: int) -> None:
    with channel(server) as client:
        message = bytes(range(256)) * (size // 256) + bytes(size % 256)
        assert client.unary_unary(ECHO)(message, timeout=LIMIT_S) == message


def test_a_message_beyond_the_limit_is_refused_in_the_words_of_grpc_go(server: ServerThread) -> None:
    with channel(server) as client:
        code, details = failure(lambda: client.unary_unary(ECHO)(bytes((2 << 20) + 1), timeout=LIMIT_S))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details == "grpc: received message larger than max (2097153 vs. 2097152)"
        assert client.unary_unary(ECHO)(b"goes on", timeout=LIMIT_S) == b"goes on"


def test_a_deadline_ends_the_call_on_both_sides(server: ServerThread) -> None:
    with channel(server) as client:
        code, _ = failure(lambda: client.unary_unary(KEEP)(b"", timeout=0.1))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        server.service.wait_for("over")
        call = client.stream_stream("/test.Echo/Bidi")(iter([b"1"]), timeout=LIMIT_S)
        assert next(call) == b"1"


def test_an_answer_that_comes_after_the_deadline_is_dropped(server: ServerThread) -> None:
    with channel(server) as client:
        failure(lambda: client.unary_unary(KEEP)(b"", timeout=0.1))
        server.service.wait_for("over")
        call = server.service.kept[0]
        server.call(lambda: call.reply(b"too late"))
        server.call(lambda: call.fail(Code.INTERNAL, "too late"))
        assert client.unary_unary(ECHO)(b"goes on", timeout=LIMIT_S) == b"goes on"


def test_cancelling_a_unary_call_tells_the_service(server: ServerThread) -> None:
    with channel(server) as client:
        future = client.unary_unary(KEEP).future(b"")
        server.service.wait_for("kept")
        future.cancel()
        server.service.wait_for("over")
        assert server.service.kept[0].is_over


def test_cancelling_a_stream_tells_the_service(server: ServerThread) -> None:
    with channel(server) as client:
        questions: queue.Queue[bytes | None] = queue.Queue()
        questions.put(b"1")
        call = client.stream_stream("/test.Echo/Bidi")(iter(questions.get, None))
        assert next(call) == b"1"
        call.cancel()
        assert server.service.wait_for("closed") == b"_Bidi"
        questions.put(None)


def test_a_client_that_goes_away_ends_its_calls(server: ServerThread) -> None:
    client: Any = grpc.insecure_channel(server.target)
    future = client.unary_unary(KEEP).future(b"")
    server.service.wait_for("kept")
    client.close()
    server.service.wait_for("over")
    assert future.code() is grpc.StatusCode.CANCELLED
    assert server.service.kept[0].is_over


def test_ten_thousand_calls_on_one_connection(server: ServerThread) -> None:
    async def work() -> None:
        async with aio_channel(server) as client:
            call = client.unary_unary(ECHO)

            async def some(first: int) -> None:
                for number in range(first, first + 100):
                    message = b"%d" % number
                    assert await call(message, timeout=LIMIT_S) == message

            await asyncio.gather(*(some(first) for first in range(0, 10_000, 100)))

    asyncio.run(work())
    assert server.server.counters.calls == 10_000


def test_streams_side_by_side(server: ServerThread) -> None:
    async def work() -> None:
        async with aio_channel(server) as client:

            async def talk(number: int) -> None:
                call = client.stream_stream("/test.Echo/Bidi")()
                for turn in range(20):
                    message = b"%d %d" % (number, turn) * (number + 1)
                    await call.write(message)
                    assert await call.read() == message
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF
                assert await call.code() is grpc.StatusCode.OK

            await asyncio.gather(*(talk(number) for number in range(50)))

    asyncio.run(work())


def test_more_streams_than_allowed_wait_for_their_turn() -> None:
    async def work(server: ServerThread) -> None:
        async with aio_channel(server) as client:
            later = client.unary_unary("/test.Echo/Later")
            answers = await asyncio.gather(*(later(b"%d" % number, timeout=LIMIT_S) for number in range(100)))
            assert answers == [b"%d" % number for number in range(100)]

    with ServerThread(ServerOptions(max_streams=7)) as server:
        asyncio.run(work(server))
        assert server.server.connections() <= 1


def test_a_slow_reader_gets_all_and_the_service_holds_back_meanwhile(server: ServerThread) -> None:
    with channel(server) as client:
        call = client.unary_stream("/test.Echo/Flood")(b"2000", timeout=LIMIT_S)
        first = next(call)
        unsent_bytes = int(server.service.wait_for("full"))
        assert unsent_bytes < 2 * ServerOptions().low_water_bytes
        assert [len(first), *map(len, call)] == [10_000] * 2000
        server.service.wait_for("writable")
        server.service.wait_for("closed")


# --- the server's end ------------------------------------------------------------------------


def test_a_server_that_stops_answers_what_is_under_way_and_takes_nothing_new() -> None:
    with ServerThread(ServerOptions(drain_s=LIMIT_S)) as server, channel(server) as client:
        future = client.unary_unary(KEEP).future(b"last", timeout=LIMIT_S)
        server.service.wait_for("kept")
        stopping = asyncio.run_coroutine_threadsafe(server.server.stop(), server.loop)

        def ask_on() -> None:
            """Calls that were on their way when the client read GOAWAY are answered still."""
            while True:
                client.unary_unary(ECHO)(b"", timeout=LIMIT_S)

        code, _ = failure(ask_on)
        assert code is grpc.StatusCode.UNAVAILABLE
        call = server.service.kept[0]
        server.call(lambda: call.reply(b"answered"))
        assert future.result(LIMIT_S) == b"answered"
        stopping.result(LIMIT_S)
        assert server.server.connections() == 0


def test_calls_that_outlast_the_drain_end_with_unavailable() -> None:
    with ServerThread(ServerOptions(drain_s=0.05)) as server, channel(server) as client:
        future = client.unary_unary(KEEP).future(b"", timeout=LIMIT_S)
        server.service.wait_for("kept")
        server.do(server.server.stop())
        error: Any = future.exception(LIMIT_S)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() == "the server is stopping"
        assert server.server.connections() == 0


def test_connections_beyond_the_limit_are_refused() -> None:
    with ServerThread(ServerOptions(max_connections=1)) as server, channel(server) as client:
        assert client.unary_unary(ECHO)(b"in", timeout=LIMIT_S) == b"in"
        with channel(server, **{"grpc.use_local_subchannel_pool": 1}) as other:
            code, _ = failure(lambda: other.unary_unary(ECHO)(b"out", timeout=LIMIT_S))
            assert code is grpc.StatusCode.UNAVAILABLE
        assert client.unary_unary(ECHO)(b"in", timeout=LIMIT_S) == b"in"
        assert server.server.counters.connections_refused >= 1
