"""Three nodes, many clients that queue for one lock, and a kill -9 in the middle: did two ever hold it at once?

python -m examples.tcp_lock.demo
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from examples.tcp_lock.client import Held, LockClient, LockLost

from quorate.statemachine.embedded import loopback_ports

LOCK = "printer"
NODES = 3


@dataclass
class Printer:
    """What the lock protects.  It looks at who uses it, and refuses a lower token than it has seen."""

    using: dict[int, Held] = field(default_factory=dict)
    token: int = 0
    uses: int = 0
    at_once: int = 0
    """How often somebody came while another still believed to hold the lock."""
    refused: int = 0

    def begin(self, client: int, held: Held) -> None:
        self.at_once += any(not other.is_lost() for other in self.using.values())
        self.refused += held.token <= self.token
        self.token = max(self.token, held.token)
        self.using[client] = held
        self.uses += 1

    def end(self, client: int) -> None:
        del self.using[client]


@dataclass
class Report:
    """What came of it."""

    printer: Printer = field(default_factory=Printer)
    waited_s: list[float] = field(default_factory=list)
    lost: int = 0
    """Places in the queue, or locks, that were lost with their connection and asked for again."""
    killed: int = -1
    done: int = 0
    """Clients that had it as often as they wanted."""


class Demo:
    """Processes of `examples.tcp_lock.server`, and clients of theirs in this process."""

    def __init__(self, folder: Path, clients: int, rounds: int, lease_s: float, protocol: str) -> None:
        self.ports = ExitStack()
        addresses = [f"127.0.0.1:{port}" for port in self.ports.enter_context(loopback_ports(2 * NODES))]
        self.members, self.servers = addresses[:NODES], addresses[NODES:]
        self.folder = folder
        self.clients = clients
        self.rounds = rounds
        self.lease_s = lease_s
        self.protocol = protocol
        self.report = Report()
        self.middle = asyncio.Event()
        self.processes: dict[int, asyncio.subprocess.Process] = {}

    async def start(self, node: int) -> None:
        options = {
            "--node": str(node),
            "--members": ",".join(self.members),
            "--listen": self.servers[node],
            "--data": str(self.folder / f"node-{node}"),
            "--protocol": self.protocol,
            "--lease": str(self.lease_s),
        }
        words = [word for option in options.items() for word in option]
        with self._log(node) as log:
            self.processes[node] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "examples.tcp_lock.server", *words),
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
            )

    def _log(self, node: int) -> BinaryIO:
        return open(self.folder / f"node-{node}.log", "ab")

    async def leader(self) -> int:
        """Wait for one.  Raises RuntimeError where a node has ended."""
        while True:
            for node in self.processes:
                if self.processes[node].returncode is not None:
                    raise RuntimeError(f"node {node} ended with {self.processes[node].returncode}")
                host, _, port = self.servers[node].rpartition(":")
                try:
                    reader, writer = await asyncio.open_connection(host, int(port))
                except OSError:
                    continue
                writer.write(b"LEADER\n")
                answer = (await reader.readline()).decode().split()
                writer.close()
                if answer[:1] == ["LEADER"] and answer[1] != "-":
                    return int(answer[1])
            await asyncio.sleep(0.05)

    async def work(self, number: int) -> None:
        """One client: have the lock so many times, however often it must ask."""
        client, printer, had = LockClient(self.servers), self.report.printer, 0
        asked_s = time.monotonic()
        while had < self.rounds:
            try:
                async with client.lock(LOCK) as held:
                    self.report.waited_s.append(time.monotonic() - asked_s)
                    printer.begin(number, held)
                    if printer.uses * 3 >= self.clients * self.rounds:
                        self.middle.set()
                    try:
                        await asyncio.sleep(0.002)
                    finally:
                        printer.end(number)
                had, asked_s = had + 1, time.monotonic()
            except LockLost:
                self.report.lost += 1
                await asyncio.sleep(0.1)
        await client.close()
        self.report.done += 1

    async def kill_in_the_middle(self) -> None:
        await self.middle.wait()
        node = self.report.killed = await self.leader()
        process = self.processes.pop(node)
        process.kill()
        await process.wait()
        print(f"killed node {node}, which led, after the lock was had {self.report.printer.uses} times", flush=True)
        await asyncio.sleep(self.lease_s)
        await self.start(node)
        print(f"node {node} runs again", flush=True)

    async def run(self) -> Report:
        try:
            await asyncio.gather(*(self.start(node) for node in range(NODES)))
            print(f"node {await self.leader()} leads; {self.clients} clients want the lock", flush=True)
            work = [self.work(number) for number in range(self.clients)]
            await asyncio.gather(self.kill_in_the_middle(), *work)
            return self.report
        finally:
            await self.stop()

    async def stop(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self.processes.values()))
        self.ports.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5, help="how often each wants the lock (default: %(default)s)")
    parser.add_argument("--lease", type=float, default=1.5, help="seconds (default: %(default)s)")
    parser.add_argument("--protocol", default="paxos", choices=("raft", "paxos", "zab"))
    arguments = parser.parse_args()
    if min(arguments.clients, arguments.rounds) < 1:
        parser.error("nobody would want the lock")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tcp-lock-")))
        demo = Demo(folder, arguments.clients, arguments.rounds, arguments.lease, arguments.protocol)
        try:
            report = asyncio.run(demo.run())
        except KeyboardInterrupt:
            raise SystemExit(130) from None
    printer = report.printer
    print(
        f"{report.done} of {arguments.clients} clients had the lock {arguments.rounds} times each; two at once: "
        f"{printer.at_once} times; tokens that were too low: {printer.refused}\n"
        f"{report.lost} places were lost with the node and asked for again; longest wait {max(report.waited_s):.2f} s"
    )
    if report.done < arguments.clients or printer.at_once or printer.refused:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
