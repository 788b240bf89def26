"""asyncio's streams do the same on asyncio's loop, uvloop and the simulated loop."""

from __future__ import annotations

import asyncio

import pytest

from tests.simulation.loops import LOCAL, BuildLoop, is_simulated, on_every_loop, port_of, run


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lines in capitals, until the end."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@on_every_loop
def test_streams_echo_and_end(build: BuildLoop) -> None:
    async def work() -> None:
        server = await asyncio.start_server(answer, "localhost" if is_simulated() else LOCAL, 0)
        reader, writer = await asyncio.open_connection(LOCAL, port_of(server))
        assert writer.get_extra_info("peername") == server.sockets[0].getsockname()
        writer.writelines([b"hello\n", b"you\n"])
        await writer.drain()
        assert await reader.readuntil(b"LO") == b"HELLO"
        assert await reader.readexactly(1) == b"\n"
        writer.write(b"the rest")
        writer.write_eof()
        assert await reader.read() == b"YOU\nTHE REST"
        assert reader.at_eof()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(build, work())


@on_every_loop
def test_streams_say_what_is_missing(build: BuildLoop) -> None:
    async def work() -> None:
        server = await asyncio.start_server(answer, LOCAL, 0, limit=100)
        reader, writer = await asyncio.open_connection(LOCAL, port_of(server), limit=100)
        writer.write(b"some")
        writer.write_eof()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(10)
        assert (caught.value.partial, caught.value.expected) == (b"SOME", 10)
        writer.close()
        await writer.wait_closed()
        reader, writer = await asyncio.open_connection(LOCAL, port_of(server), limit=3)
        writer.write(b"a long line\n")
        with pytest.raises(asyncio.LimitOverrunError):
            await reader.readuntil(b"\n")
        writer.write_eof()
        assert await reader.read() == b"A LONG LINE\n"
        writer.close()
        await writer.wait_closed()
        server.close()

    run(build, work())


@on_every_loop
def test_draining_waits_for_a_slow_reader_and_fails_with_the_connection(build: BuildLoop) -> None:
    async def work() -> None:
        taken: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

        async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            taken.set_result(writer)

        server = await asyncio.start_server(take, LOCAL, 0)
        _, writer = await asyncio.open_connection(LOCAL, port_of(server))

        async def write_for_ever() -> None:
            while True:
                writer.write(bytes(100_000))
                await writer.drain()

        other = await taken
        writing = asyncio.create_task(write_for_ever())
        await asyncio.wait([writing], timeout=0.02)
        assert not writing.done()
        held = writer.transport.get_write_buffer_size()
        assert 0 < held < 200_000
        other.transport.abort()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await writing
        server.close()

    run(build, work())
