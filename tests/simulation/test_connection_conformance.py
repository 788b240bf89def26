"""Servers and connections do the same on asyncio's loop, uvloop and the simulated loop.

Where the real two differ from each other, or the kernel may do one thing or another, the test says so and asks only for
what all promise.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
from random import Random
from typing import Any

import pytest

from tests.simulation.loops import (
    LOCAL,
    BuildLoop,
    Recorder,
    connect,
    is_uvloop,
    on_every_loop,
    port_of,
    run,
)

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")
RESETS = (ConnectionResetError, BrokenPipeError)


class Buffered(asyncio.BufferedProtocol):
    """Reads into a buffer of a few bytes."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = bytearray()
        self.hints = list[int]()
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(7)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        self.hints.append(sizehint)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert nbytes > 0
        self.received += self._buffer[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)

    @property
    def lost(self) -> bool:
        return self.ended.done()


# --- the order of calls ----------------------------------------------------------------------


@on_every_loop
def test_a_protocol_is_told_of_its_connection_in_order_and_of_its_end_once_and_last(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        assert pair.client.told == ["made"]
        pair.client.transport.write(b"hello")
        await pair.accepted.until_received(5)
        pair.accepted.transport.write(b"you")
        await pair.client.until_received(3)
        pair.client.transport.close()
        assert pair.client.transport.is_closing()
        assert not pair.client.lost, "it is told in a later turn"
        await pair.client.until_lost()
        await pair.accepted.until_lost()
        pair.client.transport.close()
        pair.client.transport.abort()
        await asyncio.sleep(0.005)
        assert pair.client.told == ["made", b"you", ("lost", None)]
        assert pair.accepted.told == ["made", b"hello", "eof", ("lost", None)]
        pair.close()

    run(build, work())


@on_every_loop
def test_a_buffered_protocol_gets_all_bytes(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect(Buffered)
        data = Random(1).randbytes(1000)
        pair.client.transport.write(data)
        pair.client.transport.close()
        assert await pair.accepted.ended is None
        assert pair.accepted.received == data
        pair.close()

    run(build, work())


@on_every_loop
def test_half_a_connection_may_be_closed_and_the_other_half_goes_on(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        pair.accepted.stays_half_open = True
        assert pair.client.transport.can_write_eof()
        pair.client.transport.write(b"question")
        pair.client.transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            pair.client.transport.write(b"too late")
        await pair.accepted.until(lambda: "eof" in pair.accepted.told)
        assert pair.accepted.told == ["made", b"question", "eof"]
        assert not pair.client.transport.is_closing()
        pair.accepted.transport.write(b"answer")
        await pair.client.until_received(6)
        pair.accepted.transport.close()
        await pair.client.until_lost()
        await pair.accepted.until_lost()
        assert pair.client.told == ["made", b"answer", "eof", ("lost", None)]
        assert pair.accepted.told == ["made", b"question", "eof", ("lost", None)]
        pair.close()

    run(build, work())


@on_every_loop
def test_a_protocol_may_be_replaced(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        first, second = pair.accepted, Recorder()
        assert first.transport.get_protocol() is first
        first.transport.set_protocol(second)
        second.told.append("replaced")
        pair.client.transport.write(b"hello")
        await second.until_received(5)
        pair.client.transport.close()
        await second.until_lost()
        assert first.told == ["made"]
        assert second.told == ["replaced", b"hello", "eof", ("lost", None)]
        pair.close()

    run(build, work())


@on_every_loop
def test_an_error_in_a_protocol_ends_its_connection_and_is_told(build: BuildLoop) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise LookupError("on purpose")

    async def work() -> None:
        told = list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        pair = await connect(Failing)
        pair.client.transport.write(b"hello")
        await pair.accepted.until_lost()
        await pair.client.until_lost()
        assert pair.accepted.told == ["made", b"hello", ("lost", LookupError)]
        assert [type(context["exception"]) for context in told] == [LookupError]
        pair.close()

    run(build, work())


@on_every_loop
def test_protocols_run_in_the_context_of_their_server_and_of_who_connected(build: BuildLoop) -> None:
    seen = list[tuple[str, str]]()

    class Looking(Recorder):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.append((f"{self.name} made", VARIABLE.get()))
            VARIABLE.set("set by a protocol")
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            value = VARIABLE.get()
            # Whether one call sees what an earlier one of the same protocol set is different on the real loops.
            seen.append((f"{self.name} data", VARIABLE.get() if value != "set by a protocol" else self.name))
            super().data_received(data)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        VARIABLE.set("server")
        made: asyncio.Future[Looking] = loop.create_future()

        def accept() -> Looking:
            protocol = Looking("server")
            made.set_result(protocol)
            return protocol

        server = await loop.create_server(accept, LOCAL, 0)
        VARIABLE.set("client")
        _, client = await loop.create_connection(lambda: Looking("client"), LOCAL, port_of(server))
        assert VARIABLE.get() == "client", "what a protocol sets stays with it"
        VARIABLE.set("later")
        client.transport.write(b"hello")
        accepted = await made
        await accepted.until_received(5)
        accepted.transport.write(b"you")
        await client.until_received(3)
        assert sorted(seen) == [(name, name.split()[0]) for name in sorted(dict(seen))]
        assert len(seen) == 4
        for protocol in (client, accepted):
            protocol.transport.abort()
        server.close()

    run(build, work())


# --- the end of connections ------------------------------------------------------------------


@on_every_loop
def test_closing_sends_what_was_written_and_nothing_after_it(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        data = Random(2).randbytes(3_000_000)
        pair.client.transport.write(data)
        pair.client.transport.close()
        await pair.accepted.until_lost()
        await pair.client.until_lost()
        assert pair.accepted.received == data
        assert pair.accepted.told[-2:] == ["eof", ("lost", None)]
        assert pair.client.told[-1] == ("lost", None)
        pair.close()

    run(build, work())


@on_every_loop
def test_what_is_written_to_a_transport_that_closes_is_dropped(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        pair.client.transport.write(b"before")
        pair.client.transport.close()
        pair.client.transport.write(b"after")
        await pair.accepted.until_lost()
        assert pair.accepted.received == b"before"
        pair.close()

    run(build, work())


@on_every_loop
def test_a_closing_transport_hands_nothing_more_to_its_protocol(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        pair.accepted.transport.pause_reading()
        pair.client.stays_half_open = True
        pair.client.transport.write(b"unread")
        await asyncio.sleep(0.01)
        pair.accepted.transport.close()
        await pair.accepted.until_lost()
        # The kernel answers unread bytes with a reset; on the simulated loop it comes behind the end.
        await pair.client.until_lost()
        assert pair.accepted.told == ["made", ("lost", None)]
        assert pair.client.told[-1] == ("lost", ConnectionResetError)
        pair.close()

    run(build, work())


@on_every_loop
def test_aborting_ends_a_connection_at_once(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        pair.accepted.transport.pause_reading()
        pair.client.transport.write(b"unread")
        await asyncio.sleep(0.01)
        pair.accepted.transport.abort()
        assert not pair.accepted.lost, "it is told in a later turn"
        await pair.accepted.until_lost()
        await pair.client.until_lost()
        assert pair.accepted.told == ["made", ("lost", None)]
        # With nothing left unread Linux sends an orderly end instead; the simulated one is always as hard as this.
        assert pair.client.told == ["made", ("lost", ConnectionResetError)]
        pair.close()

    run(build, work())


@on_every_loop
def test_writing_to_an_end_that_is_closed_brings_a_reset(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        pair.accepted.stays_half_open = True
        pair.client.transport.close()
        await pair.accepted.until(lambda: "eof" in pair.accepted.told)
        await pair.client.until_lost()
        while not pair.accepted.lost:
            pair.accepted.transport.write(b"anyone?")
            await asyncio.sleep(0.001)
        (_, error) = pair.accepted.told[-1]
        assert error in RESETS
        pair.close()

    run(build, work())


# --- flow control ----------------------------------------------------------------------------


@on_every_loop
def test_a_paused_reader_is_handed_nothing_and_then_everything(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        transport = pair.accepted.transport
        assert transport.is_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        pair.client.transport.write(b"held")
        await asyncio.sleep(0.01)
        assert pair.accepted.told == ["made"]
        transport.resume_reading()
        await pair.accepted.until_received(4)
        transport.pause_reading()
        pair.client.transport.write(b" back")
        pair.client.transport.close()
        await asyncio.sleep(0.01)
        assert pair.accepted.told == ["made", b"held"]
        transport.resume_reading()
        await pair.accepted.until_lost()
        assert pair.accepted.told == ["made", b"held back", "eof", ("lost", None)]
        pair.close()

    run(build, work())


@on_every_loop
def test_a_reader_that_stands_still_makes_the_writer_pause(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        writer, reader = pair.client, pair.accepted
        writer.transport.set_write_buffer_limits(high=50_000, low=10_000)
        assert writer.transport.get_write_buffer_size() == 0
        reader.transport.pause_reading()
        data = Random(3).randbytes(100_000)
        sent = bytearray()
        while writer.told[-1] != "pause":
            # What the kernels hold does not count, however much that is.
            writer.transport.write(data)
            sent += data
            await asyncio.sleep(0)
        assert writer.transport.get_write_buffer_size() > 50_000
        writer.transport.close()
        await asyncio.sleep(0.01)
        assert writer.told == ["made", "pause"], "closing waits for what was written"
        reader.transport.resume_reading()
        await writer.until_lost()
        await reader.until_lost()
        assert writer.told == ["made", "pause", "resume", ("lost", None)]
        assert writer.resumed_at_bytes[0] <= 10_000
        assert reader.received == sent
        pair.close()

    run(build, work())


@on_every_loop
def test_pauses_and_resumes_alternate_and_nothing_is_lost_in_a_large_transfer(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        data = Random(4).randbytes(10_000_000)
        writer, position = pair.client, 0
        while position < len(data):
            size = min(len(data) - position, 60_000)
            writer.transport.write(memoryview(data)[position : position + size])
            position += size
            await writer.until(lambda: writer.told[-1] != "pause")
        writer.transport.close()
        await pair.accepted.until_lost()
        await writer.until_lost()
        assert pair.accepted.received == data
        flow = [what for what in writer.told if what in ("pause", "resume")]
        assert max(writer.resumed_at_bytes) <= 16_384
        assert flow and flow == ["pause", "resume"] * (len(flow) // 2)
        pair.close()

    run(build, work())


@on_every_loop
def test_without_a_write_buffer_every_byte_beyond_the_kernels_pauses_the_writer(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        pair.client.transport.set_write_buffer_limits(high=0)
        pair.accepted.transport.pause_reading()
        while pair.client.told[-1] != "pause":
            pair.client.transport.write(bytes(40_000))
            await asyncio.sleep(0)
        pair.accepted.transport.resume_reading()
        await pair.client.until(lambda: pair.client.told[-1] == "resume")
        with pytest.raises(ValueError, match="high"):
            pair.client.transport.set_write_buffer_limits(high=1, low=2)
        pair.close()

    run(build, work())


@on_every_loop
def test_what_is_written_may_change_afterwards(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        data = bytearray(b"hello")
        pair.client.transport.write(data)
        data[:] = b"wrong"
        pair.client.transport.write(memoryview(b"-you-")[1:4])
        pair.client.transport.write(b"")
        pair.client.transport.writelines([b"!", bytearray(b"?")])
        await pair.accepted.until_received(10)
        assert pair.accepted.received == b"helloyou!?"
        with pytest.raises(TypeError):
            pair.client.transport.write("text")
        pair.close()

    run(build, work())


# --- servers ---------------------------------------------------------------------------------


@on_every_loop
def test_addresses_are_those_of_the_two_ends(build: BuildLoop) -> None:
    async def work() -> None:
        pair = await connect()
        client, accepted = pair.client.transport, pair.accepted.transport
        assert client.get_extra_info("peername") == accepted.get_extra_info("sockname")
        assert client.get_extra_info("sockname") == accepted.get_extra_info("peername")
        assert client.get_extra_info("peername") == pair.server.sockets[0].getsockname()
        assert client.get_extra_info("sockname")[1] not in (0, pair.port)
        assert client.get_extra_info("nothing") is None
        assert client.get_extra_info("nothing", "default") == "default"
        pair.close()

    run(build, work())


@on_every_loop
def test_port_zero_is_a_port_of_its_own(build: BuildLoop) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(Recorder, LOCAL, 0) for _ in range(3)]
        ports = {port_of(server) for server in servers}
        assert len(ports) == 3 and 0 not in ports
        with pytest.raises(OSError) as caught:
            await loop.create_server(Recorder, LOCAL, port_of(servers[0]))
        assert caught.value.errno == errno.EADDRINUSE
        servers[0].close()
        await servers[0].wait_closed()
        with pytest.raises(OSError):
            await loop.create_server(Recorder, LOCAL, port_of(servers[1]))
        for server in servers:
            server.close()

    run(build, work())


@on_every_loop
def test_nobody_listens(build: BuildLoop) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, LOCAL, 0)
        port = port_of(server)
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.create_connection(Recorder, LOCAL, port)
        assert caught.value.errno == errno.ECONNREFUSED
        with pytest.raises(OSError):
            await asyncio.open_connection(LOCAL, port)

    run(build, work())


@on_every_loop
def test_a_server_serves_once_it_is_told_to_and_until_it_is_closed(build: BuildLoop) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        made = list[Recorder]()

        def accept() -> Recorder:
            made.append(Recorder())
            return made[-1]

        server = await loop.create_server(accept, LOCAL, 0, start_serving=False)
        port = port_of(server)
        assert not server.is_serving() and server.get_loop() is loop
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, LOCAL, port)
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        _, client = await loop.create_connection(Recorder, LOCAL, port)
        client.transport.write(b"hello")
        while not made or made[0].transport is None:  # noqa: ASYNC110 (a turn or two)
            await asyncio.sleep(0)
        server.close()
        server.close()
        assert not server.is_serving()
        assert list(server.sockets) == []
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, LOCAL, port)
        await made[0].until_received(5)
        made[0].transport.write(b"goes on")
        await client.until_received(7)
        client.transport.abort()
        made[0].transport.abort()

    run(build, work())


@on_every_loop
def test_serving_forever_ends_with_its_task(build: BuildLoop) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, LOCAL, 0, start_serving=False)
        serving = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0.002)
        assert server.is_serving()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not server.is_serving()

        async with await loop.create_server(Recorder, LOCAL, 0) as another:
            port = port_of(another)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, LOCAL, port)

    run(build, work())


@on_every_loop
def test_who_gives_up_connecting_leaves_nothing_behind(build: BuildLoop) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, LOCAL, 0)
        made = list[Recorder]()

        def build_protocol() -> Recorder:
            made.append(Recorder())
            return made[-1]

        given_up = 0
        for turns in range(60):
            made.clear()
            connecting = asyncio.create_task(loop.create_connection(build_protocol, LOCAL, port_of(server)))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            try:
                transport, _ = await connecting
            except asyncio.CancelledError:
                given_up += 1
            else:
                transport.abort()
            await asyncio.sleep(0.002)
            # uvloop forgets a connection that is given up in the very turn in which it is made.
            if not is_uvloop():
                assert all(protocol.told in ([], ["made", ("lost", None)]) for protocol in made)
        assert 0 < given_up < 60
        server.close()

    run(build, work())
