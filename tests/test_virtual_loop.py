"""The virtual loop: time, order, streams, flow control, and the death of one machine among several."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.virtual_loop import UnhandledError, VirtualLoop

SERVER = "10.0.0.1"
CLIENT = "10.0.0.2"
PORT = 2181


class Recorder(asyncio.Protocol):
    """Keeps everything that its transport tells it."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = bytearray()
        self.events: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.buffer = bytearray(3)
        self.received = bytearray()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.buffer[:nbytes]


async def connect(
    loop: VirtualLoop, server_factory: Callable[[], asyncio.BaseProtocol] = Recorder
) -> tuple[Recorder, Any]:
    """(the client's protocol on CLIENT, the server's on SERVER)."""
    accepted: asyncio.Future[Any] = loop.create_future()

    def accept() -> asyncio.BaseProtocol:
        protocol = server_factory()
        accepted.set_result(protocol)
        return protocol

    with loop.machine(SERVER):
        await loop.create_server(accept, SERVER, PORT)
    with loop.machine(CLIENT):
        _, client = await loop.create_connection(Recorder, SERVER, PORT)
    return client, await accepted


def test_clock_jumps_to_the_next_timer_without_sleeping() -> None:
    loop = VirtualLoop()
    started = time.monotonic()
    loop.run_until_complete(asyncio.sleep(3600))
    assert 3600 <= loop.time() < 3600.001
    assert time.monotonic() - started < 1


def test_timers_run_in_order_of_time_then_of_creation() -> None:
    loop = VirtualLoop()
    order: list[str] = []
    loop.call_later(2, order.append, "late")
    loop.call_later(1, order.append, "first")
    loop.call_at(1, order.append, "second")
    loop.call_later(1.5, order.append, "cancelled").cancel()
    loop.call_soon(order.append, "soon")
    loop.run_until_complete(asyncio.sleep(3))
    assert order == ["soon", "first", "second", "late"]


def test_spinning_code_does_not_stop_the_clock() -> None:
    loop = VirtualLoop()

    async def spin() -> None:
        async with asyncio.timeout(0.01):
            while True:  # noqa: ASYNC110 (that is the case)
                await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        loop.run_until_complete(spin())


def test_deadlock_is_reported() -> None:
    loop = VirtualLoop()
    with pytest.raises(RuntimeError, match="deadlock"):
        loop.run_until_complete(loop.create_future())


def test_unhandled_errors_end_the_run() -> None:
    loop = VirtualLoop()
    loop.call_later(1, lambda: 1 // 0)
    with pytest.raises(UnhandledError) as caught:
        loop.run_until_complete(asyncio.sleep(2))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_exception_handlers_belong_to_machines() -> None:
    loop = VirtualLoop()
    seen: list[str] = []
    for host in (SERVER, CLIENT):
        with loop.machine(host):
            loop.set_exception_handler(lambda _, context, host=host: seen.append(host))  # type: ignore[misc]
    with loop.machine(SERVER):
        loop.call_later(1, lambda: 1 // 0)
    loop.run_until_complete(asyncio.sleep(2))
    assert seen == [SERVER]


def test_executor_takes_virtual_time_and_passes_errors() -> None:
    loop = VirtualLoop()

    async def run() -> None:
        before = loop.time()
        assert await asyncio.to_thread(lambda: 7) == 7
        assert loop.time() - before >= 1e-4
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)

    loop.run_until_complete(run())


def test_streams_echo_and_end() -> None:
    loop = VirtualLoop()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def run() -> None:
        with loop.machine(SERVER):
            server = await asyncio.start_server(echo, "localhost", 0)
        host, port = server.sockets[0].getsockname()
        assert host == SERVER
        with loop.machine(CLIENT):
            reader, writer = await asyncio.open_connection(SERVER, port)
        assert writer.get_extra_info("peername") == (SERVER, port)
        assert writer.get_extra_info("sockname")[0] == CLIENT
        writer.writelines([b"hello\n", b"you\n"])
        writer.write_eof()
        assert await reader.read() == b"HELLO\nYOU\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(SERVER, port)

    loop.run_until_complete(run())


def test_nobody_listens_or_address_is_taken_or_foreign() -> None:
    loop = VirtualLoop()

    async def run() -> None:
        with loop.machine(SERVER):
            await loop.create_server(Recorder, "0.0.0.0", PORT)
            with pytest.raises(OSError, match="in use"):
                await loop.create_server(Recorder, SERVER, PORT)
            with pytest.raises(OSError, match="not an address"):
                await loop.create_server(Recorder, CLIENT, PORT)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, CLIENT, PORT)

    loop.run_until_complete(run())


def test_a_chunk_takes_its_delay_and_overtakes_none() -> None:
    loop = VirtualLoop(delay_seconds=(0.5, 1.0))

    async def run() -> None:
        client, server = await connect(loop)
        for number in range(10):
            client.transport.write(b"%d" % number)
        await asyncio.sleep(0.49)
        assert not server.received
        await asyncio.sleep(0.52)
        assert server.received == b"0123456789"

    loop.run_until_complete(run())


def test_buffered_protocol_gets_all_bytes() -> None:
    loop = VirtualLoop()

    async def run() -> None:
        client, server = await connect(loop, Buffered)
        client.transport.write(b"0123456789")
        await asyncio.sleep(1)
        assert server.received == b"0123456789"

    loop.run_until_complete(run())


def test_a_reader_that_pauses_makes_the_writer_pause() -> None:
    loop = VirtualLoop()

    async def run() -> None:
        client, server = await connect(loop)
        server.transport.pause_reading()
        for _ in range(10):
            client.transport.write(bytes(20_000))
        await asyncio.sleep(1)
        assert not server.received
        assert client.events == ["pause"]
        assert client.transport.get_write_buffer_size() == 200_000 - 65_536
        client.transport.close()
        await asyncio.sleep(1)
        assert not client.lost.done(), "close waits for what was written"
        server.transport.resume_reading()
        assert await client.lost is None
        assert client.events == ["pause", "resume"]
        assert await server.lost is None
        assert len(server.received) == 200_000
        assert server.events == ["eof"]

    loop.run_until_complete(run())


def test_abort_resets_the_other_end() -> None:
    loop = VirtualLoop()

    async def run() -> None:
        client, server = await connect(loop)
        client.transport.abort()
        assert await client.lost is None
        assert isinstance(await server.lost, ConnectionResetError)

    loop.run_until_complete(run())


def test_bytes_that_reach_a_closed_end_are_answered_by_a_reset() -> None:
    loop = VirtualLoop()

    async def run() -> None:
        client, server = await connect(loop)
        server.eof_received = lambda: True  # stays half open
        client.transport.close()
        await asyncio.sleep(1)
        assert not server.transport.is_closing()
        server.transport.write(b"too late")
        assert isinstance(await server.lost, ConnectionResetError)
        assert not client.received

    loop.run_until_complete(run())


def test_kill_resets_connections_and_runs_nothing_more() -> None:
    loop = VirtualLoop()
    ran: list[str] = []

    async def stubborn() -> None:
        try:
            while True:
                await asyncio.sleep(0.1)
                ran.append("beat")
        finally:
            ran.append("finally")

    async def run() -> None:
        client, server = await connect(loop)
        with loop.machine(SERVER):
            asyncio.create_task(stubborn())  # noqa: RUF006 (the loop keeps it)
            loop.call_later(5, ran.append, "timer")
        await asyncio.sleep(0.35)
        server.transport.write(b"last words")
        loop.kill(SERVER)
        server.transport.write(b" of a ghost")
        server.transport.abort()
        assert isinstance(await client.lost, ConnectionResetError)
        assert client.received == b"last words"
        await asyncio.sleep(10)
        gc.collect()
        assert ran == ["beat"] * 3
        assert not server.lost.done()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, SERVER, PORT)
        client.transport.write(b"ignored")
        again, _ = await connect(loop)  # the host restarts
        again.transport.close()
        assert await again.lost is None

    loop.run_until_complete(run())
    assert ran == ["beat"] * 3


def test_a_killed_task_that_only_waits_is_not_collected() -> None:
    loop = VirtualLoop()
    ran: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ran.append("finally")

    async def run() -> None:
        with loop.machine(SERVER):
            asyncio.create_task(wait())  # noqa: RUF006 (the loop keeps it)
        await asyncio.sleep(1)
        loop.kill(SERVER)
        gc.collect()
        assert not ran

    loop.run_until_complete(run())


def test_a_writer_that_does_not_read_learns_of_the_reset_too() -> None:
    loop = VirtualLoop()

    async def run() -> None:
        client, _ = await connect(loop)
        client.transport.pause_reading()
        loop.kill(SERVER)
        await asyncio.sleep(1)
        assert not client.lost.done()
        client.transport.write(b"anyone?")
        assert isinstance(await client.lost, ConnectionResetError)

    loop.run_until_complete(run())


def test_partition_holds_bytes_and_connects_until_healed() -> None:
    loop = VirtualLoop()

    async def run() -> None:
        client, server = await connect(loop)
        loop.partition(SERVER, CLIENT)
        client.transport.write(b"held")
        with loop.machine(CLIENT):
            connecting = asyncio.create_task(connect_again())
        await asyncio.sleep(10)
        assert not server.received and not connecting.done()
        loop.heal()
        await connecting
        assert server.received == b"held"

    async def connect_again() -> None:
        await asyncio.open_connection(SERVER, PORT + 1)

    async def serve() -> None:
        with loop.machine(SERVER):
            await loop.create_server(Recorder, SERVER, PORT + 1)

    loop.run_until_complete(serve())
    loop.run_until_complete(run())


def trace(seed: int) -> list[tuple[float, bytes]]:
    """What a server hears of three chattering clients, and when."""
    loop = VirtualLoop(seed)
    heard: list[tuple[float, bytes]] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append((loop.time(), line))
        writer.close()

    async def talk(name: int) -> None:
        _, writer = await asyncio.open_connection(SERVER, PORT)
        for number in range(20):
            writer.write(b"%d %d\n" % (name, number))
            await asyncio.sleep(loop.random.random() / 1000)
        writer.close()

    async def run() -> None:
        with loop.machine(SERVER):
            await asyncio.start_server(listen, SERVER, PORT)
        async with asyncio.TaskGroup() as group:
            for name in range(3):
                with loop.machine(f"10.0.1.{name}"):
                    group.create_task(talk(name))
        await asyncio.sleep(1)

    loop.run_until_complete(run())
    return heard


def test_a_seed_decides_everything_and_order_holds_per_connection() -> None:
    assert trace(1) == trace(1)
    assert trace(1) != trace(2)
    for name in range(3):
        own = [line for _, line in trace(3) if line.startswith(b"%d " % name)]
        assert own == [b"%d %d\n" % (name, number) for number in range(20)]
