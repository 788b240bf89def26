"""A state machine of one's own, replicated and tested under every fault: copy this and put your own code in.

    pip install quorate pytest
    pytest examples/simulate_counter.py
    pytest examples/simulate_counter.py --simulate-seeds 200

Each seed is a cluster of three whole nodes, simulated: crashes, partitions, lost power, bad disks and clocks come as
the seed says.  docs/simulation_own.md explains what a failure looks like, and how to find out more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from quorate.checking.history import Operation
from quorate.simulation.own import ClientWorld, OutcomeUnknown, Refused, Simulate, StateMachineClient


class Counter:
    """What is replicated.  Deterministic: nothing but the state, the command and the time that is handed in."""

    def __init__(self) -> None:
        self.value = 0

    def apply(self, command: bytes, time_ms: int) -> bytes:
        if command == b"increment":
            self.value += 1
        return str(self.value).encode()

    def snapshot(self) -> bytes:
        return str(self.value).encode()

    def restore(self, data: bytes) -> None:
        self.value = int(data)


async def increment(world: ClientWorld) -> None:
    """What each client does, until the run ends."""
    async with StateMachineClient(world.servers, world.random) as counter:
        while not world.stopping:
            try:
                with world.history.operation("increment") as operation:
                    operation.ok(int(await counter.call(b"increment")))
            except Refused:
                pass  # certainly not done: the next round tries again
            except OutcomeUnknown:
                pass  # perhaps done: to do it again would perhaps count twice, so it is left at that
            await asyncio.sleep(world.random.uniform(0.0, 0.1))


async def read_at_the_end(world: ClientWorld) -> None:
    """Once, when all faults are over and all clients have ended."""
    async with StateMachineClient(world.servers, world.random) as counter:
        with world.history.operation("read") as operation:
            operation.ok(int(await counter.call(b"read")))


def counts_each_increment_once(operations: Sequence[Operation]) -> Iterator[str]:
    """What must hold of all that the clients recorded: each text is a violation."""
    done = [each for each in operations if each.f == "increment" and each.returned_at is not None]
    in_doubt = [each for each in operations if each.f == "increment" and each.returned_at is None]
    values = [each.result for each in done]
    if len(set(map(str, values))) < len(values):
        yield f"two increments came to the same value: {values}"
    for read in operations:
        if read.f == "read" and isinstance(read.result, int):
            if read.result < len(done):
                yield f"{len(done)} increments were done, but {read.result} counted"
            if read.result > len(done) + len(in_doubt):
                yield f"{len(done)} increments were done and {len(in_doubt)} perhaps, but {read.result} counted"


def test_counter(simulate: Simulate) -> None:
    coverage = simulate(
        client=increment,
        finish=read_at_the_end,
        check=counts_each_increment_once,
        state_machine=Counter,
        seeds=20,
    )
    # A test that met no trouble has shown nothing.
    assert coverage["increment"] and coverage["unknown outcomes"] and coverage["crashes"]
