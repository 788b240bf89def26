"""All clients of a run, the world they share, and the last look at what they leave behind.

    workload = Workload(servers, WorkloadOptions(seed=7), lambda: simulation.now_s)
    for number, client_machine in enumerate(machines):
        simulation.start(client_machine, workload.run_client(number))
    ...
    workload.stop()            # and wait for the clients
    simulation.run(machine, workload.inspect())
    workload.findings()

A client whose machine was killed may be run again on another one; it goes on as a new client would.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from quorate.checking.history import Operation
from quorate.checking.zookeeper.operations import operations
from quorate.checking.zookeeper.promise import findings
from quorate.checking.zookeeper.records import Finding, History
from quorate.simulation.workload.client import (
    EPHEMERALS,
    FOLDERS,
    LOCKS,
    Client,
    Resource,
    WorkloadOptions,
    World,
)
from quorate.simulation.workload.connections import (
    end_in_a_hurry,
    end_session,
    move,
    rest,
    stand_still,
    use_short_session,
)
from quorate.simulation.workload.ephemerals import note_those_gone, use_ephemeral
from quorate.simulation.workload.locks import use_lock
from quorate.simulation.workload.session import Note, RecordedSession, Recorder
from quorate.simulation.workload.values import (
    stay_watching,
    use_burst,
    use_key,
    use_register,
    use_sequence,
    use_several,
    use_watch,
)

Activity = Callable[[Client, RecordedSession], Awaitable[None]]

EVERYBODY: Final[Mapping[Activity, float]] = MappingProxyType(
    {
        use_register: 8.0,
        use_key: 5.0,
        use_several: 1.0,
        use_burst: 1.0,
        use_watch: 1.5,
        stay_watching: 0.08,
        use_sequence: 0.5,
        use_ephemeral: 1.0,
        use_lock: 0.2,
        move: 0.15,
        rest: 0.03,
        stand_still: 0.03,
        end_session: 0.08,
        end_in_a_hurry: 0.12,
        use_short_session: 0.05,
    }
)
"""How often each client does what, in proportion."""
ROLES: Final[Sequence[Mapping[Activity, float]]] = (
    MappingProxyType({use_register: 6.0, use_several: 2.0}),
    MappingProxyType({use_key: 6.0, use_watch: 2.0}),
    MappingProxyType({use_lock: 4.0}),
    MappingProxyType({use_ephemeral: 8.0, end_session: 0.4, end_in_a_hurry: 1.0, rest: 0.3, use_short_session: 0.6}),
    MappingProxyType({use_watch: 4.0, stay_watching: 1.0, move: 1.0}),
    MappingProxyType({use_burst: 3.0, use_sequence: 3.0, move: 0.5}),
)
"""What some clients do more often: each has one role, and they are dealt out so that none is missing for long."""
PREPARE_LIMIT_S: Final = 5.0
"""If the client that makes what must be there is not done after so long, another one begins, too."""
VANISH_LIMIT_S: Final = 20.0
"""For sessions that were left, in a cluster that is well: far longer than any timeout."""


class Workload:
    """`now_s` is true time.  The findings are there once all clients have ended."""

    def __init__(
        self, servers: Sequence[str], options: WorkloadOptions, now_s: Callable[[], float], note: Note | None = None
    ) -> None:
        self.recorder = Recorder(now_s, note)
        self.world = World(servers, options, self.recorder, Resource(self.recorder))
        self.clients = [Client(self.world, number) for number in range(options.clients)]
        self._late: list[Finding] = []

    # --- the run -----------------------------------------------------------------------------

    def stop(self) -> None:
        """Tell the clients to end, each as soon as its present activity is over."""
        self.world.stopping = True

    async def run_client(self, number: int) -> None:
        """One client's life, on its own machine.  Ends with its session closed."""
        client = self.clients[number]
        client.forget_session()
        activities, weights = self._role(number)
        while client.may_go_on():
            session = await client.ensure_session()
            if session is not None:
                if self.world.prepared:
                    activity = client.random.choices(activities, weights)[0]
                    await activity(client, session)
                elif self.world.prepare_again_at_s <= self.recorder.now_s():
                    self.world.prepare_again_at_s = self.recorder.now_s() + PREPARE_LIMIT_S
                    self.world.prepared = await _prepare(client, session)
            await client.pace()
        if client.session is not None and not client.session.is_over():
            await client.look_at_watched(client.session)
            await client.session.close()
        client.forget_session()

    def is_stopping(self) -> bool:
        return self.world.stopping

    def completed(self) -> list[int]:
        """For each client how many of its calls were answered: where this stands still there is no progress."""
        return [client.calls_completed() for client in self.clients]

    async def inspect(self) -> None:
        """When all clients have ended: read everything once more, and see ephemerals of ended sessions go."""
        client = Client(self.world, len(self.clients))
        session = None
        while session is None:
            session = await client.ensure_session()
        for path in [*self.world.options.registers(), *self.world.options.keys_that_come_and_go()]:
            await session.get(path, synced=True)
        loop = asyncio.get_running_loop()
        give_up_at_s = loop.time() + VANISH_LIMIT_S
        left: list[str] = []
        while not session.is_over():
            left = []
            for folder in (EPHEMERALS, *LOCKS):
                listed = await session.children(folder, synced=True)
                left += [f"{folder}/{name}" for name in listed.children]
                if listed.is_done() and folder == EPHEMERALS:
                    note_those_gone(client, listed)
            if not left or loop.time() > give_up_at_s:
                break
            await asyncio.sleep(1.0)
        for path in left:
            text = f"{path} is still there {VANISH_LIMIT_S} s after all clients have ended their sessions"
            self._late.append(Finding("ephemerals", text, self.recorder.now_s()))
        await session.close()

    def _role(self, number: int) -> tuple[list[Activity], list[float]]:
        role = ROLES[(number + self.world.options.seed) % len(ROLES)]
        weights = {activity: weight + role.get(activity, 0.0) for activity, weight in EVERYBODY.items()}
        return list(weights), list(weights.values())

    # --- what came of it ---------------------------------------------------------------------

    @property
    def history(self) -> History:
        return self.recorder.history

    def findings(self) -> list[Finding]:
        """What contradicts ZooKeeper's promise."""
        return [*self._late, *findings(self.history)]

    def operations(self) -> list[Operation]:
        """What must be linearizable, as operations of `quorate.checking.models.KV`."""
        return operations(self.history)

    def coverage(self) -> Counter[str]:
        """How often each kind of call was answered, and what else happened."""
        return self.recorder.coverage


async def _prepare(client: Client, session: RecordedSession) -> bool:
    """Make what must be there; False where that is to be tried again."""
    for path in FOLDERS:
        await session.create(path, None)
    for path in client.world.options.registers():
        await session.create(path, client.new_value(), is_key=True)
    for path in [*FOLDERS, *client.world.options.registers()]:
        if session.is_over() or not (await session.exists(path)).is_done():
            return False
    return True
