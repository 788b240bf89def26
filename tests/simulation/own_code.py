"""What users write: state machines and clients, right ones and wrong ones."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn

from examples.simulate_counter import Counter

from quorate.client.zookeeper import ZooKeeperClient
from quorate.client.zookeeper_errors import NodeExists, ZooKeeperError
from quorate.simulation.own import ClientWorld, OutcomeUnknown, Refused, Simulate, StateMachineClient


class Failed(Exception):
    """What a test is told."""


def simulate() -> Simulate:
    """As the fixture, but it can be seen to fail."""

    def fail(text: str) -> NoReturn:
        raise Failed(text)

    return Simulate(fail, "pytest here --simulate-seed {}".format)


class Register:
    """`write x` and `read`; also `cas old new`."""

    def __init__(self) -> None:
        self.value = "null"

    def apply(self, command: bytes, time_ms: int) -> bytes:
        match command.decode().split():
            case ["write", value]:
                self.value = value
            case ["cas", old, new]:
                if self.value != old:
                    return b"false"
                self.value = new
            case _:
                return self.value.encode()
        return b"true"

    def snapshot(self) -> bytes:
        return self.value.encode()

    def restore(self, data: bytes) -> None:
        self.value = data.decode()


class OwnRandomness(Counter):
    """Still answers with a number: a client that cannot read its answer may fail before another replica applies."""

    def apply(self, command: bytes, time_ms: int) -> bytes:
        super().apply(command, time_ms)
        return str(random.getrandbits(64)).encode()


class OwnClock(Counter):
    """The difference shows in no result, only in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.changed_at_s = 0.0

    def apply(self, command: bytes, time_ms: int) -> bytes:
        self.changed_at_s = time.perf_counter()
        return super().apply(command, time_ms)

    def snapshot(self) -> bytes:
        return f"{self.value} {self.changed_at_s}".encode()

    def restore(self, data: bytes) -> None:
        value, changed_at_s = data.split()
        self.value, self.changed_at_s = int(value), float(changed_at_s)


class ForgetsInSnapshot(Counter):
    """Its snapshot is not the whole state: what a restored one does is another thing."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def apply(self, command: bytes, time_ms: int) -> bytes:
        self.calls += 1
        super().apply(command, time_ms)
        return str(self.calls).encode()


class RestoresOnTop(Counter):
    """Takes the snapshot for something to be added to what is there."""

    def restore(self, data: bytes) -> None:
        self.value += int(data) + 1


class KeepsWhatWasThere(Counter):
    """Right for a new one, wrong for one that was something else before."""

    def __init__(self) -> None:
        super().__init__()
        self.odd: list[int] = []

    def apply(self, command: bytes, time_ms: int) -> bytes:
        result = super().apply(command, time_ms)
        if self.value % 2 and self.value not in self.odd:
            self.odd.append(self.value)
        return result

    def snapshot(self) -> bytes:
        return " ".join(map(str, [self.value, *self.odd])).encode()

    def restore(self, data: bytes) -> None:
        self.value, *odd = map(int, data.split())
        self.odd += odd


class Breaks(Counter):
    def apply(self, command: bytes, time_ms: int) -> bytes:
        if self.value == 7:
            raise ZeroDivisionError("seven")
        return super().apply(command, time_ms)


class Text(Counter):
    def apply(self, command: bytes, time_ms: int) -> bytes:
        return "no bytes"  # type: ignore[return-value]


# --- clients -----------------------------------------------------------------------------------


async def increment_again_and_again(world: ClientWorld) -> None:
    """Wrong: an increment of which nobody knows whether it was done is done again."""
    async with StateMachineClient(world.servers, world.random, timeout_s=0.5) as counter:
        while not world.stopping:
            with world.history.operation("increment") as operation:
                done = False
                while not done:
                    try:
                        operation.ok(int(await counter.call(b"increment")))
                        done = True
                    except (Refused, OutcomeUnknown):
                        await asyncio.sleep(0.05)
            await asyncio.sleep(world.random.uniform(0.0, 0.1))


async def use_register(world: ClientWorld) -> None:
    """Reads, writes, compares and sets one register, as the model of that name wants to hear of it."""
    async with StateMachineClient(world.servers, world.random) as register:
        while not world.stopping:
            old, new = world.random.randrange(5), world.random.randrange(5)
            with suppress(Refused, OutcomeUnknown):
                await _use_register(world, register, world.random.choice(["read", "write", "cas"]), old, new)
            await asyncio.sleep(world.random.uniform(0.0, 0.2))


async def _use_register(world: ClientWorld, register: StateMachineClient, kind: str, old: int, new: int) -> None:
    if kind == "read":
        with world.history.operation("read") as operation:
            value = await register.call(b"read")
            operation.ok(None if value == b"null" else int(value))
    elif kind == "write":
        with world.history.operation("write", new) as operation:
            await register.call(b"write %d" % new)
            operation.ok()
    else:
        with world.history.operation("cas", [old, new]) as operation:
            operation.ok(await register.call(b"cas %d %d" % (old, new)) == b"true")


async def read_from_cache(world: ClientWorld) -> None:
    """Wrong: believes that nobody else writes."""
    async with StateMachineClient(world.servers, world.random) as register:
        cached: int | None = None
        while not world.stopping:
            value = world.random.randrange(1000)
            try:
                if world.random.random() < 0.5:
                    with world.history.operation("write", value) as operation:
                        await register.call(b"write %d" % value)
                        operation.ok()
                        cached = value
                elif cached is not None:
                    with world.history.operation("read") as operation:
                        await asyncio.sleep(0.001)
                        operation.ok(cached)
            except (Refused, OutcomeUnknown):
                pass
            await asyncio.sleep(world.random.uniform(0.0, 0.2))


# --- clients of ZooKeeper ----------------------------------------------------------------------

AnyClient = Callable[[ClientWorld], Coroutine[Any, Any, None]]
Acquire = Callable[[ZooKeeperClient], Coroutine[Any, Any, bool]]


async def acquire(client: ZooKeeperClient) -> bool:
    try:
        await client.create("/lock", ephemeral=True)
    except NodeExists:
        return False
    return True


async def acquire_after_a_look(client: ZooKeeperClient) -> bool:
    """Wrong: between the look and the creation another client does the same."""
    if await client.exists("/lock") is not None:
        return False
    with suppress(NodeExists):
        await client.create("/lock", ephemeral=True)
    return True


def count_under(lock: Acquire) -> Callable[[ClientWorld], Coroutine[Any, Any, None]]:
    """A client that increments /counter while it holds the lock."""

    async def client(world: ClientWorld) -> None:
        while not world.stopping:
            try:
                async with ZooKeeperClient(world.servers, world.random, timeout_ms=2_000) as zookeeper:
                    while not world.stopping:
                        await _count_once(world, zookeeper, lock)
                        await asyncio.sleep(world.random.uniform(0.0, 0.1))
            except ZooKeeperError:
                await asyncio.sleep(0.1)

    return client


async def _count_once(world: ClientWorld, zookeeper: ZooKeeperClient, lock: Acquire) -> None:
    with suppress(NodeExists):
        await zookeeper.create("/counter", b"0")
    if not await lock(zookeeper):
        # Where all goes well, another one has it.
        world.coverage["lock was taken"] += 1
        return
    with world.history.operation("increment") as operation:
        value, _ = await zookeeper.get("/counter")
        await zookeeper.set("/counter", b"%d" % (int(value) + 1))
        operation.ok(int(value) + 1)
    await zookeeper.delete("/lock")
    world.coverage["locks released"] += 1


async def read_zookeeper(world: ClientWorld) -> None:
    async with ZooKeeperClient(world.servers, world.random) as zookeeper:
        with world.history.operation("read") as operation:
            await zookeeper.sync("/counter")
            operation.ok(int((await zookeeper.get("/counter"))[0]))
