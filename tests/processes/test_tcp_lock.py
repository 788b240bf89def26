"""examples/tcp_lock as real processes: many clients, a node that is killed, and the lines that they speak."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from examples.tcp_lock.demo import Demo

pytestmark = pytest.mark.processes


def logs(folder: Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(folder.glob("*.log")))


def test_never_two_hold_the_lock_and_everybody_gets_it_though_the_leader_is_killed(tmp_path: Path) -> None:
    report = asyncio.run(asyncio.wait_for(Demo(tmp_path, 12, 3, 1.0, "paxos").run(), 120))
    assert report.killed >= 0
    assert (report.done, report.printer.uses >= 36) == (12, True), logs(tmp_path)
    assert (report.printer.at_once, report.printer.refused) == (0, 0), logs(tmp_path)
    assert "Traceback" not in logs(tmp_path)


class Talk:
    """One connection, line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, server: str) -> Talk:
        host, _, port = server.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def say(self, line: str, answer: str) -> None:
        self.writer.write(f"{line}\n".encode())
        await self.hear(answer)

    async def hear(self, *lines: str) -> None:
        for line in lines:
            assert (await self.reader.readline()).decode() == f"{line}\n"

    async def hear_the_end(self) -> None:
        assert await self.reader.read() == b""
        self.writer.close()


def watched(talk: Talk) -> bool:
    """The server's kernel has a timer for signs of life from this client; none while it sends."""
    ports = [f"{talk.writer.get_extra_info(name)[1]:04X}" for name in ("peername", "sockname")]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any([row[1][-4:], row[2][-4:]] == ports and row[5].startswith("02:") for row in rows)


async def talk(demo: Demo) -> None:
    for node in range(3):
        await demo.start(node)
    await demo.leader()
    ann, bob, eve = [await Talk.to(server) for server in demo.servers]
    await ann.say("LOCK door", "GRANTED door 1")
    await bob.say("LOCK door", "QUEUED door 1")
    await eve.say("LOCK door", "QUEUED door 2")
    await eve.say("LOCK gate", "GRANTED gate 2")
    await bob.say("LOCK door", "ERROR AlreadyAsked door")
    await bob.say("UNLOCK gate", "ERROR NotAsked gate")
    await bob.say("OPEN door", "ERROR expected LOCK name, UNLOCK name or LEADER")
    await bob.say("LOCK tür", "ERROR expected ASCII")
    await bob.say("UNLOCK door", "RELEASED door")
    await eve.hear("QUEUED door 1")
    await bob.say("LOCK door", "QUEUED door 2")
    while not watched(ann):  # noqa: ASYNC110 - only the kernel knows
        await asyncio.sleep(0.01)
    ann.writer.close()  # her locks are free at once
    await eve.hear("GRANTED door 3")
    await bob.hear("QUEUED door 1")
    await bob.say("x" * 1000, "LOST door")
    await bob.hear("ERROR closing: a line has at most 300 bytes")
    await bob.hear_the_end()
    demo.processes[2].terminate()  # in order: whoever is connected there is told
    await eve.hear("LOST door", "LOST gate", "ERROR closing: this node stops")
    await eve.hear_the_end()
    # A second SIGTERM, from the demo's end, could come when it has closed its loop and is not gone yet.
    assert await demo.processes[2].wait() == 0
    ann = await Talk.to(demo.servers[0])
    ann.writer.write(b"LOCK gate\n")
    assert (await ann.reader.readline()).startswith(b"GRANTED gate ")
    ann.writer.close()


def test_the_lines_that_are_spoken(tmp_path: Path) -> None:
    demo = Demo(tmp_path, 0, 0, 5.0, "raft")

    async def ended(work: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.wait_for(work, 60)
        finally:
            await demo.stop()

    asyncio.run(ended(talk(demo)))
    assert "Traceback" not in logs(tmp_path)
    assert {process.returncode for process in demo.processes.values()} == {0}, logs(tmp_path)
