"""One client's life: one activity after another, at a pace, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from quorate.checking.etcd.records import Hold, Use
from quorate.simulation.workload_etcd.recorder import LiveWatch, RecordedClient, Recorder

REGISTERS: Final = b"registers/"
KEYS: Final = b"keys/"
LEASED: Final = b"leased/"
LOCKS: Final = (b"locks/a/", b"locks/b/")
GUARDED: Final = b"guarded/"
MOST_LEASED: Final = 8
"""Keys that come under leases: few, so that they go from one to another."""
NUMBER_OF_LEASE: Final = 1 << 40
"""Leases whose id a client chooses: it, times this, and a count; the server draws others at random."""


def end_of(prefix: bytes) -> bytes:
    """The end of the range of all keys with a prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """How much there is to do.  Each client has its own random numbers, drawn from the seed."""

    seed: int
    clients: int = 10
    operations_per_s: float = 100.0
    """Of all clients together, while they are not kept waiting."""
    keys: int = 10
    """Half of them are registers, for which there is a second check; all come and go."""
    max_operations: int | None = None
    """Of each client."""
    chroniclers: frozenset[int] = frozenset({0, 1})
    """Clients that watch the whole keyspace from the first revision on."""

    def registers(self) -> list[bytes]:
        return [REGISTERS + b"%d" % number for number in range(max(1, self.keys // 2))]

    def keys_that_come_and_go(self) -> list[bytes]:
        return [KEYS + b"%d" % number for number in range(max(1, self.keys - self.keys // 2))]


class Resource:
    """What the locks guard outside of the cluster.  It takes no token below one that it has seen."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._highest: dict[bytes, int] = {}

    def use(self, hold: Hold) -> bool:
        """Whether it took the holder's token."""
        accepted = hold.token >= self._highest.get(hold.lock, 0)
        if accepted:
            self._highest[hold.lock] = hold.token
        self._recorder.history.uses.append(Use(hold.lock, hold.client, hold.token, self._recorder.now_s(), accepted))
        self._recorder.coverage["fenced uses accepted" if accepted else "fenced uses refused"] += 1
        return accepted


@dataclass(slots=True)
class World:
    """What all clients of a run share.  No asyncio in it: each client has a loop of its own."""

    servers: Sequence[str]
    options: WorkloadOptions
    recorder: Recorder
    resource: Resource
    chronicled_revision: int = 0
    """Up to here some chronicler was told of everything, so up to here nobody needs the past."""
    compacted_revision: int = 0
    """Up to here somebody has tried to compact."""
    leases: dict[int, None] = field(default_factory=dict)
    """Those that were granted, as far as it is known, in order."""
    stopping: bool = False


class Client:
    """What it does is in the modules of the activities."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"client-{number}"
        self.random = Random(f"{world.options.seed}/{self.name}")
        self.etcd = RecordedClient(world.recorder, self.name, world.servers, self.random)
        self.watches: list[LiveWatch] = []
        """Those that are not over, as far as it is known."""
        self._values = 0
        self._leases = 0
        self._gap_s = world.options.clients / world.options.operations_per_s
        self._next_at_s = 0.0
        self._paced_calls = 0

    # --- pace --------------------------------------------------------------------------------

    def may_go_on(self) -> bool:
        most = self.world.options.max_operations
        return not self.world.stopping and (most is None or self.etcd.calls < most)

    async def pace(self) -> None:
        """Wait until as much time has passed as the calls since the last time were worth."""
        now_s = asyncio.get_running_loop().time()
        worth_s = max(self.etcd.calls - self._paced_calls, 1) * self._gap_s * self.random.uniform(0.5, 1.5)
        self._paced_calls = self.etcd.calls
        # After a standstill nobody makes up for what was not done.
        self._next_at_s = max(self._next_at_s + worth_s, now_s - 1.0)
        if self._next_at_s > now_s:
            await asyncio.sleep(min(self._next_at_s - now_s, 2 * worth_s))

    # --- small things that activities need -----------------------------------------------------

    def new_value(self) -> bytes:
        """Unlike any other that is ever written."""
        self._values += 1
        return f"{self.name}.{self._values}".encode()

    def new_lease(self) -> int:
        """An id of its own, or 0: the server is to draw one."""
        self._leases += 1
        return 0 if self.random.random() < 0.5 else (self.number + 1) * NUMBER_OF_LEASE + self._leases

    def some_register(self) -> bytes:
        return self.random.choice(self.world.options.registers())

    def some_key(self) -> bytes:
        return self.random.choice(self.world.options.keys_that_come_and_go())

    def some_leased_key(self) -> bytes:
        return LEASED + b"%d" % self.random.randrange(MOST_LEASED)

    def some_past_revision(self) -> int:
        """Mostly one that can still be read."""
        latest = max(self.world.chronicled_revision, 1)
        return self.random.randrange(min(max(self.world.compacted_revision, 1), latest), latest + 1)
