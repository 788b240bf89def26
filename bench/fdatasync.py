"""How should a node wait for its disk: on the loop, in a thread, or in a process of its own?

    python bench/fdatasync.py [--folder DIR] [--seconds S] [--rounds N] [--block-bytes N]

A node commits as fast as it can: one block, one fdatasync, the next block.  Meanwhile its
loop is *saturated* (an endless supply of 10 µs callbacks, 50 a turn, as from clients that
never pause) or *idle*.  Printed are commits and their latency, the callbacks that got done
beside them, and the longest time that the loop did not turn: a heartbeat waits as long.
The slow disk is the same one with 20 ms added to every sync.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

FILE_BYTES = 64 << 20
CALLBACKS_PER_TURN = 50
SLOW_S = 0.020


@dataclass(frozen=True)
class Way:
    """One way to sync, and the interpreter's switch interval for it."""

    name: str
    switch_interval_s: float = 0.005


WAYS = (
    Way("inline"),
    Way("thread"),
    Way("thread, switch interval 0.5 ms", 0.0005),
    Way("thread, switch interval 0.05 ms", 0.00005),
    Way("process"),
)


@dataclass
class Result:
    """What one run came to."""

    commits_per_s: float
    latencies_s: list[float]
    callbacks_per_s: float
    longest_gap_s: float

    def row(self, name: str) -> str:
        ordered = sorted(self.latencies_s)
        p99 = ordered[int(len(ordered) * 0.99)]
        return (
            f"| {name} | {self.commits_per_s:,.0f} | {statistics.median(ordered) * 1000:.2f} | {p99 * 1000:.2f} "
            f"| {self.callbacks_per_s:,.0f} | {self.longest_gap_s * 1000:.1f} |"
        )


class Load:
    """Keeps the loop busy, or only watches how it turns."""

    def __init__(self, saturated: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._saturated = saturated
        self._last_turn_s = time.perf_counter()
        self.callbacks = 0
        self.longest_gap_s = 0.0
        self.stopped = False
        self._turn()

    def _turn(self) -> None:
        now_s = time.perf_counter()
        self.longest_gap_s = max(self.longest_gap_s, now_s - self._last_turn_s)
        self._last_turn_s = now_s
        if self.stopped:
            return
        if self._saturated:
            for _ in range(CALLBACKS_PER_TURN):
                self._loop.call_soon(self._work)
            self._loop.call_soon(self._turn)
        else:
            self._loop.call_later(0.001, self._turn)

    def _work(self) -> None:
        """About 10 µs of what a request costs: small objects, dictionaries, bytes."""
        table = {}
        for number in range(55):
            table[number] = (number, b"value")
        self.callbacks += 1


class SyncProcess:
    """A child that shares the file and syncs it on request: one byte there, one byte back."""

    def __init__(self, descriptor: int, extra_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._pid = os.fork()
        if self._pid == 0:
            self._ours.close()
            while theirs.recv(1):
                sync(descriptor, extra_s)
                theirs.send(b"d")
            os._exit(0)
        theirs.close()
        self._waiting: asyncio.Future[None] | None = None
        self._loop.add_reader(self._ours, self._done)

    async def sync(self) -> None:
        self._waiting = self._loop.create_future()
        self._ours.send(b"s")
        await self._waiting

    def close(self) -> None:
        self._loop.remove_reader(self._ours)
        self._ours.close()
        os.waitpid(self._pid, 0)

    def _done(self) -> None:
        self._ours.recv(1)
        assert self._waiting is not None
        self._waiting.set_result(None)


def sync(descriptor: int, extra_s: float) -> None:
    os.fdatasync(descriptor)
    if extra_s:
        time.sleep(extra_s)


async def measure(way: Way, descriptor: int, seconds: float, block: bytes, saturated: bool, extra_s: float) -> Result:
    loop = asyncio.get_running_loop()
    process = SyncProcess(descriptor, extra_s) if way.name == "process" else None

    async def inline() -> None:
        sync(descriptor, extra_s)
        # The acknowledgements leave, and the loop turns, before the next commit.
        await asyncio.sleep(0)

    async def in_thread() -> None:
        await loop.run_in_executor(None, sync, descriptor, extra_s)

    wait: Callable[[], Awaitable[None]] = inline if way.name == "inline" else process.sync if process else in_thread
    await wait()
    load = Load(saturated)
    latencies_s = []
    offset = 0
    began_s = time.perf_counter()
    while (now_s := time.perf_counter()) < began_s + seconds:
        os.pwrite(descriptor, block, offset)
        offset = (offset + len(block)) % (FILE_BYTES - len(block))
        await wait()
        latencies_s.append(time.perf_counter() - now_s)
    elapsed_s = time.perf_counter() - began_s
    load.stopped = True
    if process is not None:
        process.close()
    return Result(len(latencies_s) / elapsed_s, latencies_s, load.callbacks / elapsed_s, load.longest_gap_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (a new temporary folder)")
    parser.add_argument("--seconds", type=float, default=2.0, help="per run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the middle one is printed (%(default)s)")
    parser.add_argument("--block-bytes", type=int, default=20_000, help="per commit (%(default)s)")
    options = parser.parse_args()
    try:
        import uvloop

        loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        loop_factory = asyncio.new_event_loop
    with tempfile.TemporaryFile(dir=options.folder) as file:
        descriptor = file.fileno()
        os.pwrite(descriptor, bytes(FILE_BYTES), 0)
        os.fsync(descriptor)
        print(f"{options.block_bytes} bytes a commit; {loop_factory.__module__}; Python {sys.version.split()[0]}")
        for saturated in (True, False):
            for extra_s in (0.0, SLOW_S):
                disk = f"slow disk (+{SLOW_S * 1000:.0f} ms)" if extra_s else "this disk"
                print(f"\n{'saturated' if saturated else 'idle'} loop, {disk}\n")
                print("| way | commits/s | median ms | p99 ms | callbacks/s | longest stop ms |")
                print("| --- | ---: | ---: | ---: | ---: | ---: |")
                results: dict[str, list[Result]] = {way.name: [] for way in WAYS}
                for _ in range(options.rounds):
                    for way in WAYS:
                        sys.setswitchinterval(way.switch_interval_s)
                        block = os.urandom(options.block_bytes)
                        with asyncio.Runner(loop_factory=loop_factory) as runner:
                            work = measure(way, descriptor, options.seconds, block, saturated, extra_s)
                            results[way.name].append(runner.run(work))
                for name, found in results.items():
                    middle = sorted(found, key=lambda result: result.commits_per_s)[len(found) // 2]
                    print(middle.row(name), flush=True)


if __name__ == "__main__":
    main()
