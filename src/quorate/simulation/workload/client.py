"""One client's life: a session at a time, one activity after another, at a pace, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from quorate.checking.zookeeper.records import Hold, Session, Use, WatchKind
from quorate.simulation.workload.session import RecordedSession, Recorder

OPEN_LIMIT_S: Final = 10.0
TIMEOUTS_MS: Final = ((2_000, 6_000), (2_000, 6_000), (6_000, 12_000))
"""Of sessions: most are short, so that a run of a minute sees some expire; some bear a server that is cut off."""
REGISTERS: Final = "/registers"
KEYS: Final = "/keys"
LOCKS: Final = ("/locks/a", "/locks/b")
EPHEMERALS: Final = "/ephemerals"
SEQUENCE: Final = "/sequence"
OWN: Final = "/own"
FOLDERS: Final = (REGISTERS, KEYS, "/locks", *LOCKS, EPHEMERALS, SEQUENCE, OWN)


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """How much there is to do.  Each client has its own random numbers, drawn from the seed."""

    seed: int
    clients: int = 10
    operations_per_s: float = 100.0
    """Of all clients together, while they are not kept waiting."""
    keys: int = 10
    """Half of them are registers, which are always there; the other half come and go."""
    max_operations: int | None = None
    """Of each client."""

    def registers(self) -> list[str]:
        return [f"{REGISTERS}/{number}" for number in range(max(1, self.keys // 2))]

    def keys_that_come_and_go(self) -> list[str]:
        return [f"{KEYS}/{number}" for number in range(max(1, self.keys - self.keys // 2))]


@dataclass(slots=True, eq=False)
class Ephemeral:
    """An ephemeral that was created and answered for, for those who look whether it is still there."""

    path: str
    made_zxid: int
    session: Session
    deleted: bool = False
    """Its creator has tried to delete it."""
    seen_gone: bool = False


class Resource:
    """What the locks guard.  It is outside of the cluster, and takes no token below one that it has seen."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._highest: dict[str, int] = {}

    def use(self, hold: Hold) -> bool:
        """Whether it took the holder's token."""
        accepted = hold.token >= self._highest.get(hold.lock, 0)
        if accepted:
            self._highest[hold.lock] = hold.token
        at_s = self._recorder.now_s()
        self._recorder.history.uses.append(Use(hold.lock, hold.session, hold.token, at_s, accepted))
        self._recorder.coverage["fenced uses accepted" if accepted else "fenced uses refused"] += 1
        return accepted


@dataclass(slots=True)
class World:
    """What all clients of a run share.  No asyncio in it: each client has a loop of its own."""

    servers: Sequence[str]
    options: WorkloadOptions
    recorder: Recorder
    resource: Resource
    ephemerals: list[Ephemeral] = field(default_factory=list)
    """Not seen to be gone, and not deleted."""
    in_sequence: list[str] = field(default_factory=list)
    """Sequential nodes whose creation was answered and whose deletion nobody has tried."""
    prepared: bool = False
    """What must be there before anything else is there."""
    prepare_again_at_s: float = 0.0
    stopping: bool = False


class Client:
    """`session` is the current one.  What it does with it is in the modules of the activities."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"client-{number}"
        self.random = Random(f"{world.options.seed}/{self.name}")
        self.session: RecordedSession | None = None
        self.completed = 0
        """Calls answered in former sessions."""
        self.in_sequence: list[str] = []
        """Sequential nodes that it has made and not deleted, oldest first."""
        self._made = 0
        self._values = 0
        self._gap_s = world.options.clients / world.options.operations_per_s
        self._next_at_s = 0.0
        self._paced_calls = 0

    # --- sessions ----------------------------------------------------------------------------

    async def ensure_session(self) -> RecordedSession | None:
        """The current session, or a new one where it is over; None where none can be had for now."""
        if self.session is not None and not self.session.is_over():
            return self.session
        self.forget_session()
        session = self.new_session(self.random.randrange(*self.random.choice(TIMEOUTS_MS)))
        if not await session.open(OPEN_LIMIT_S):
            self._count(session)
            return None
        self.session = session
        return session

    def new_session(self, timeout_ms: int) -> RecordedSession:
        world = self.world
        return RecordedSession(world.recorder, self.name, world.servers, self.random, timeout_ms)

    def forget_session(self) -> None:
        if self.session is not None:
            self._count(self.session)
            self.session = None

    def _count(self, session: RecordedSession) -> None:
        self._made += session.calls
        self.completed += session.completed

    def count_aside(self, session: RecordedSession) -> None:
        """A session that was opened beside the current one is done with."""
        self._count(session)

    def calls_made(self) -> int:
        return self._made + (0 if self.session is None else self.session.calls)

    def calls_completed(self) -> int:
        return self.completed + (0 if self.session is None else self.session.completed)

    # --- pace --------------------------------------------------------------------------------

    def may_go_on(self) -> bool:
        most = self.world.options.max_operations
        return not self.world.stopping and (most is None or self.calls_made() < most)

    async def pace(self) -> None:
        """Wait until as much time has passed as the calls since the last time were worth."""
        now_s = asyncio.get_running_loop().time()
        calls = self.calls_made()
        worth_s = max(calls - self._paced_calls, 1) * self._gap_s * self.random.uniform(0.5, 1.5)
        self._paced_calls = calls
        # After a standstill nobody makes up for what was not done.
        self._next_at_s = max(self._next_at_s + worth_s, now_s - 1.0)
        if self._next_at_s > now_s:
            await asyncio.sleep(min(self._next_at_s - now_s, 2 * worth_s))

    # --- small things that activities need -----------------------------------------------------

    def new_value(self) -> str:
        """Unlike any other that is ever written."""
        self._values += 1
        return f"{self.name}.{self._values}"

    def some_register(self) -> str:
        return self.random.choice(self.world.options.registers())

    def some_key(self) -> str:
        return self.random.choice(self.world.options.keys_that_come_and_go())

    async def look_at_watched(self, session: RecordedSession) -> None:
        """Read what is watched, as it is now: a watch that was lost shows."""
        if session.watches and not session.is_over():
            await session.sync()
        for live in list(session.watches):
            if session.is_over():
                return
            path = live.record.path
            if live.record.kind is WatchKind.CHILD:
                await session.children(path)
            else:
                await session.exists(path)
