"""The supervisor with small programs in the place of nodes."""

from __future__ import annotations

import asyncio
import functools
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import ParamSpec

import pytest

from quorate.cli.supervisor import NodeCommand, Supervisor, tail

Parameters = ParamSpec("Parameters")


def on_a_loop(test: Callable[Parameters, Coroutine[None, None, None]]) -> Callable[Parameters, None]:
    @functools.wraps(test)
    def run(*arguments: Parameters.args, **named: Parameters.kwargs) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class Reports:
    """Collects what a supervisor says and lets a test wait for it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = asyncio.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self._news.set()

    async def wait_for(self, words: str) -> str:
        async with asyncio.timeout(20):
            while not any(words in line for line in self.lines):
                self._news.clear()
                await self._news.wait()
        return next(line for line in self.lines if words in line)


def commands(tmp_path: Path, programs: Sequence[str]) -> list[NodeCommand]:
    # The supervisor adds its own arguments, which `python -c` leaves to the program.
    return [
        NodeCommand(node, (sys.executable, "-c", program), tmp_path / f"{node}.log")
        for node, program in enumerate(programs)
    ]


class Starts:
    """A named pipe into which programs write a byte once they are under way."""

    def __init__(self, folder: Path) -> None:
        path = folder / "starts"
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.say = f"open({str(path)!r}, 'w').write('x')"
        """The statement with which a program says so."""

    async def wait_for(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            while count:
                readable = asyncio.Event()
                loop.add_reader(self._descriptor, readable.set)
                await readable.wait()
                loop.remove_reader(self._descriptor)
                count -= len(os.read(self._descriptor, count))


def obedient(starts: Starts) -> str:
    return f"import signal; {starts.say}; signal.pause()"


def stubborn(starts: Starts) -> str:
    return f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {starts.say}\nwhile True: signal.pause()"


@on_a_loop
async def test_stop_ends_every_node(tmp_path: Path) -> None:
    reports = Reports()
    starts = Starts(tmp_path)
    supervisor = Supervisor(commands(tmp_path, [obedient(starts)] * 3), True, reports)
    running = asyncio.create_task(supervisor.run())
    await starts.wait_for(3)
    ids = [supervisor.process_id(node) for node in range(3)]
    supervisor.stop()
    assert await running is True
    assert reports.lines == []
    for process_id in ids:
        assert process_id is not None
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


@on_a_loop
async def test_a_killed_node_is_reported_and_starts_again(tmp_path: Path) -> None:
    reports = Reports()
    starts = Starts(tmp_path)
    supervisor = Supervisor(commands(tmp_path, [obedient(starts)]), True, reports)
    running = asyncio.create_task(supervisor.run())
    await starts.wait_for(1)
    first = supervisor.process_id(0)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    line = await reports.wait_for("runs again")
    assert line == f"node 0 runs again (process {supervisor.process_id(0)})"
    assert reports.lines[0] == f"node 0 (process {first}) was ended by SIGKILL; starting it again in 0.25 s"
    supervisor.stop()
    assert await running


@on_a_loop
async def test_a_failing_node_is_explained_by_its_log_and_waits_longer_each_time(tmp_path: Path) -> None:
    reports = Reports()
    supervisor = Supervisor(commands(tmp_path, ["raise SystemExit('no luck')"]), True, reports)
    running = asyncio.create_task(supervisor.run())
    await reports.wait_for("again in 0.5 s")
    supervisor.stop()
    assert await running
    assert "ended with exit code 1; starting it again in 0.25 s\n  no luck\n" in reports.lines[0]


@pytest.mark.parametrize(("code", "words"), [(74, "its data is damaged"), (78, "its configuration is wrong")])
@on_a_loop
async def test_a_node_that_cannot_be_helped_stays_down(tmp_path: Path, code: int, words: str) -> None:
    reports = Reports()
    supervisor = Supervisor(commands(tmp_path, [f"raise SystemExit({code})"]), True, reports)
    assert await supervisor.run() is False
    assert len(reports.lines) == 1
    assert words in reports.lines[0]


@on_a_loop
async def test_no_restart_leaves_a_node_as_it_is(tmp_path: Path) -> None:
    reports = Reports()
    supervisor = Supervisor(commands(tmp_path, ["raise SystemExit(1)"]), False, reports)
    assert await supervisor.run() is False
    assert "(--no-restart)" in reports.lines[0]


@on_a_loop
async def test_a_node_that_does_not_stop_is_killed_by_a_second_stop(tmp_path: Path) -> None:
    starts = Starts(tmp_path)
    supervisor = Supervisor(commands(tmp_path, [stubborn(starts)]), True, Reports())
    running = asyncio.create_task(supervisor.run())
    await starts.wait_for(1)
    supervisor.stop()
    await asyncio.sleep(0)
    supervisor.stop()
    assert await running is False


@on_a_loop
async def test_a_node_that_does_not_stop_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.cli.supervisor.STOP_GRACE_S", 0.1)
    starts = Starts(tmp_path)
    reports = Reports()
    supervisor = Supervisor(commands(tmp_path, [stubborn(starts)]), True, reports)
    running = asyncio.create_task(supervisor.run())
    await starts.wait_for(1)
    supervisor.stop()
    assert await running is False
    assert reports.lines == ["node 0 did not stop within 0.1 s; killing it"]


def test_nodes_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    """The pipe as the real `quorate node` watches it, without the node."""
    node = (
        "import sys, threading, signal; from quorate.cli.node import _stop_with; "
        "threading.Thread(target=_stop_with, args=(int(sys.argv[2]),), daemon=True).start(); "
        "print('here', flush=True); signal.pause()"
    )
    program = f"""
import asyncio, sys
from pathlib import Path
from quorate.cli.supervisor import NodeCommand, Supervisor, tail

async def main():
    log = Path({str(tmp_path / "node.log")!r})
    supervisor = Supervisor([NodeCommand(0, (sys.executable, "-c", {node!r}), log)], True, print)
    running = asyncio.create_task(supervisor.run())
    while not (log.exists() and tail(log, 1)):
        await asyncio.sleep(0.01)
    print(supervisor.process_id(0), flush=True)
    await running

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        node_id = int(supervisor.stdout.readline())
        watched = os.pidfd_open(node_id)
        try:
            supervisor.kill()
            with selectors.DefaultSelector() as selector:
                selector.register(watched, selectors.EVENT_READ)
                assert selector.select(timeout=10), "the node outlived its supervisor"
        finally:
            os.close(watched)


def test_tail(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(1000)))
    assert tail(file, 2) == ["line 998 \ufffd", "line 999 \ufffd"]
    file.write_bytes(b"")
    assert tail(file, 2) == []
