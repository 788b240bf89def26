"""Keeps the node processes of one machine running, and stops them together.

Every node holds the reading end of one pipe, whose writing end only this process has:
should this process die, however it dies, the nodes see the end of the pipe and stop.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

from quorate.cli.errors import EXIT_DAMAGED_DATA, EXIT_WRONG_CONFIGURATION

STOP_GRACE_S = 10.0
"""How long nodes may take to stop before they are killed."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
STEADY_AFTER_S = 20.0
"""A node that ran this long starts again after the first pause; one that fails sooner waits twice as long."""

LOG_TAIL_LINES = 5


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """How to start one node, and the file that takes its output.

    `arguments` is the whole command line but for `--stop-with-fd FD`, which is added.
    """

    node: int
    arguments: tuple[str, ...]
    log: Path


class NodeProcess:
    """One node: started, watched and started again until it is told to stop or cannot be helped."""

    def __init__(self, command: NodeCommand, pipe: int, restart: bool, report: Callable[[str], None]) -> None:
        self.command = command
        self.process: asyncio.subprocess.Process | None = None
        self.killed = False
        self.retired = False
        """Removed from the cluster: when it ends it is not started again."""
        self._pipe = pipe
        self._restart = restart
        self._report = report

    async def run(self, stopping: asyncio.Event) -> None:
        """Returns once the node is stopped for good."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        starts = 0
        while not stopping.is_set() and not self.retired:
            started_s = loop.time()
            process = await self._start()
            self.process = process
            starts += 1
            if starts > 1:
                self._report(f"node {self.command.node} runs again (process {process.pid})")
            code = await self._wait(process, stopping)
            self.process = None
            if stopping.is_set():
                return
            if loop.time() - started_s >= STEADY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            advice = self._advice(code, pause_s)
            self._report(self._obituary(process.pid, code, advice))
            if not self._restart or self.retired or code in (EXIT_DAMAGED_DATA, EXIT_WRONG_CONFIGURATION):
                return
            await _first_of(stopping.wait(), timeout_s=pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.killed = True
            self.process.kill()

    async def _start(self) -> asyncio.subprocess.Process:
        # A session of its own keeps the terminal's Ctrl-C from the nodes: they are stopped once, by us.
        with self.command.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.command.arguments,
                *("--stop-with-fd", str(self._pipe)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._pipe,),
                start_new_session=True,
            )

    async def _wait(self, process: asyncio.subprocess.Process, stopping: asyncio.Event) -> int:
        ended = asyncio.ensure_future(process.wait())
        await _first_of(ended, stopping.wait())
        if not ended.done():
            process.terminate()
            await _first_of(ended, timeout_s=STOP_GRACE_S)
        if not ended.done():
            self._report(f"node {self.command.node} did not stop within {STOP_GRACE_S:g} s; killing it")
            self.kill()
        return await ended

    def _advice(self, code: int, pause_s: float) -> str:
        if code == EXIT_DAMAGED_DATA:
            return "its data is damaged: see its log; it is not started again"
        if code == EXIT_WRONG_CONFIGURATION:
            return "its configuration is wrong; it is not started again"
        if self.retired:
            return "it is not started again: it was removed from the cluster"
        if not self._restart:
            return "it is not started again (--no-restart)"
        return f"starting it again in {pause_s:g} s"

    def _obituary(self, pid: int, code: int, advice: str) -> str:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = [f"node {self.command.node} (process {pid}) {how}; {advice}"]
        # Whoever kills a node from outside knows why; anything else is explained by its log.
        if code not in (0, -signal.SIGKILL, -signal.SIGTERM):
            lines += [f"  {line}" for line in tail(self.command.log, LOG_TAIL_LINES)]
            lines.append(f"  (from {self.command.log})")
        return "\n".join(lines)


class Supervisor:
    """All nodes of one machine."""

    def __init__(self, commands: Sequence[NodeCommand], restart: bool, report: Callable[[str], None]) -> None:
        self._read_end, self._write_end = os.pipe()
        self.nodes = tuple(NodeProcess(command, self._read_end, restart, report) for command in commands)
        self._report = report
        self._stopping = asyncio.Event()

    async def run(self) -> bool:
        """Returns once every node is stopped for good: True where `stop` was called and none had to be killed."""
        try:
            await asyncio.gather(*(node.run(self._stopping) for node in self.nodes))
        finally:
            os.close(self._write_end)
            os.close(self._read_end)
        return self._stopping.is_set() and not any(node.killed for node in self.nodes)

    def stop(self) -> None:
        """Stop all nodes; called a second time, kill them."""
        if self._stopping.is_set():
            for node in self.nodes:
                node.kill()
        self._stopping.set()

    def retire(self, node: int) -> None:
        """The cluster has removed a node: it ends by itself, and is not started again."""
        process = next(process for process in self.nodes if process.command.node == node)
        if not process.retired:
            process.retired = True
            self._report(f"node {node} was removed from the cluster; it ends and is not started again")

    def process_id(self, node: int) -> int | None:
        """None while the node is not running."""
        process = next(process.process for process in self.nodes if process.command.node == node)
        return process.pid if process is not None else None


def tail(file: Path, lines: int) -> list[str]:
    """The last lines of a text file, whatever is in it."""
    with file.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 200 * lines))
        return log.read().decode("utf-8", "replace").splitlines()[-lines:]


async def _first_of(
    *awaitables: asyncio.Future[int] | Coroutine[None, None, object], timeout_s: float | None = None
) -> None:
    """Wait until one of them is done or the time is up; coroutines are cancelled then, futures are left alone."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task, awaitable in zip(tasks, awaitables, strict=True):
        if task is not awaitable:
            task.cancel()
