"""Looks for mutants with many processes: each has one mutant in it and runs a few seeds.

All mutants get their first seeds before any gets its next ones, so that most are found soon and all processes are
busy to the end.  The seed that counts is the lowest that finds the mutant, whichever process was the fastest.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from tests.mutants.campaign import Finding

HANG = "hang"
STDERR_TAIL_BYTES = 2000
TOLD_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Chunk:
    """Seeds that one process runs, one after the other."""

    first: int
    count: int


@dataclass(slots=True)
class Quarry:
    """A mutant that is being looked for."""

    name: str
    chunks: Sequence[Chunk]
    finding: Finding | None = None
    """With the lowest seed so far."""
    broken: str | None = None
    """Why it could not be looked for."""
    runs: int = 0

    def is_settled_before(self, seed: int) -> bool:
        """Whether nothing that this seed or a later one comes to could change the outcome."""
        return self.broken is not None or (self.finding is not None and self.finding.seed < seed)

    def found(self, finding: Finding) -> None:
        if self.finding is None or finding.seed < self.finding.seed:
            self.finding = finding


@dataclass(slots=True)
class Hunt:
    """`command` gives a worker's command line; `limit_s` is the real time that one seed may take; see the module."""

    quarries: Sequence[Quarry]
    command: Callable[[str, Chunk], Sequence[str]]
    limit_s: float
    report: Callable[[str], None]
    _tasks: deque[tuple[Quarry, Chunk]] = field(default_factory=deque)
    _running: list[tuple[Quarry, Chunk, Process]] = field(default_factory=list)

    async def run(self, jobs: int) -> None:
        rounds: Iterable[tuple[tuple[Quarry, Chunk] | None, ...]] = zip_longest(
            *([(quarry, chunk) for chunk in quarry.chunks] for quarry in self.quarries)
        )
        self._tasks.extend(task for task in chain.from_iterable(rounds) if task is not None)
        async with asyncio.TaskGroup() as group:
            for _ in range(jobs):
                group.create_task(self._work())

    async def _work(self) -> None:
        while self._tasks:
            quarry, chunk = self._tasks.popleft()
            if not quarry.is_settled_before(chunk.first):
                await self._run(quarry, chunk)

    async def _run(self, quarry: Quarry, chunk: Chunk) -> None:
        with tempfile.TemporaryFile() as errors:
            process = await asyncio.create_subprocess_exec(
                *self.command(quarry.name, chunk), stdin=DEVNULL, stdout=PIPE, stderr=errors
            )
            entry = (quarry, chunk, process)
            self._running.append(entry)
            try:
                complete = await self._listen(quarry, chunk, process)
                code = await process.wait()
            finally:
                self._running.remove(entry)
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if not complete and not quarry.is_settled_before(chunk.first):
                errors.seek(0)
                quarry.broken = f"its process ended with {code}: {errors.read()[-STDERR_TAIL_BYTES:].decode().strip()}"
                self.report(f"{quarry.name}: {quarry.broken}")
        if complete and quarry.finding is None:
            self.report(f"{quarry.name}: {quarry.runs} seeds without a finding")

    async def _listen(self, quarry: Quarry, chunk: Chunk, process: Process) -> bool:
        """Take down what the worker says.  False where it ended too early."""
        assert process.stdout is not None
        for seed in range(chunk.first, chunk.first + chunk.count):
            try:
                async with asyncio.timeout(self.limit_s):
                    line = await process.stdout.readline()
            except TimeoutError:
                process.kill()
                self._found(quarry, Finding(seed, HANG, f"no end after {self.limit_s:.0f} s of real time"))
                return True
            if not line:
                return False
            said = json.loads(line)
            assert said["seed"] == seed, (quarry.name, seed, said)
            quarry.runs += 1
            if "check" in said:
                self._found(quarry, Finding(seed, said["check"], said["text"]))
                return True
        return True

    def _found(self, quarry: Quarry, finding: Finding) -> None:
        quarry.found(finding)
        self.report(f"{quarry.name}: found by seed {finding.seed}, {finding.check}: {finding.text[:TOLD_CHARACTERS]}")
        for other, chunk, process in self._running:
            if other is quarry and chunk.first > finding.seed and process.returncode is None:
                process.kill()
