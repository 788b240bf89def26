"""All clients of a run, the world they share, and the last look at what they leave behind.

workload = Workload(servers, WorkloadOptions(seed=7), lambda: simulation.now_s)
for number, client_machine in enumerate(machines):
    simulation.start(client_machine, workload.run_client(number))
...
workload.stop()            # and wait for the clients
simulation.run(machine, workload.inspect())
workload.findings()
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from quorate.checking.etcd.operations import operations
from quorate.checking.etcd.promise import findings
from quorate.checking.etcd.records import EVERYTHING, Finding, History
from quorate.checking.history import Operation
from quorate.services.etcd.etcd_pb2 import (
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    RangeRequest,
    RangeResponse,
    WatchCreateRequest,
)
from quorate.simulation.workload_etcd.client import Client, Resource, WorkloadOptions, World
from quorate.simulation.workload_etcd.connections import break_off, move, stand_still
from quorate.simulation.workload_etcd.leases import use_lease
from quorate.simulation.workload_etcd.locks import use_lock
from quorate.simulation.workload_etcd.recorder import Note, Recorder
from quorate.simulation.workload_etcd.values import (
    compact,
    read_the_past,
    use_key,
    use_nested,
    use_range,
    use_register,
    use_several,
)
from quorate.simulation.workload_etcd.watching import ask_for_progress, chronicle, look_at_watches, reach, use_watch

Activity = Callable[[Client], Awaitable[None]]

EVERYBODY: Final[Mapping[Activity, float]] = MappingProxyType(
    {
        use_register: 8.0,
        use_key: 4.0,
        use_range: 2.0,
        read_the_past: 1.0,
        use_several: 1.0,
        use_nested: 1.0,
        compact: 0.3,
        use_watch: 1.0,
        ask_for_progress: 0.3,
        use_lease: 0.3,
        use_lock: 0.2,
        move: 0.15,
        stand_still: 0.05,
        break_off: 0.1,
    }
)
"""How often each client does what, in proportion."""
ROLES: Final[Sequence[Mapping[Activity, float]]] = (
    MappingProxyType({use_register: 6.0, use_several: 2.0}),
    MappingProxyType({use_key: 6.0, use_nested: 2.0}),
    MappingProxyType({use_lock: 3.0}),
    MappingProxyType({use_lease: 4.0}),
    MappingProxyType({use_watch: 4.0, ask_for_progress: 2.0, move: 1.0, stand_still: 0.5}),
    MappingProxyType({use_range: 4.0, read_the_past: 3.0, compact: 1.0}),
)
"""What some clients do more often: each has one role, and they are dealt out so that none is missing for long."""
VANISH_LIMIT_S: Final = 20.0
"""For leases that were left, in a cluster that is well: far longer than any TTL."""


class Workload:
    """`now_s` is true time.  The findings are there once all clients have ended."""

    def __init__(
        self, servers: Sequence[str], options: WorkloadOptions, now_s: Callable[[], float], note: Note | None = None
    ) -> None:
        self.recorder = Recorder(now_s, note)
        self.world = World(servers, options, self.recorder, Resource(self.recorder))
        self.clients = [Client(self.world, number) for number in range(options.clients)]

    # --- the run -----------------------------------------------------------------------------

    def stop(self) -> None:
        """Tell the clients to end, each as soon as its present activity is over."""
        self.world.stopping = True

    def is_stopping(self) -> bool:
        return self.world.stopping

    async def run_client(self, number: int) -> None:
        """One client's life, on its own machine."""
        client = self.clients[number]
        client.etcd.start()
        if number in self.world.options.chroniclers:
            chronicler = asyncio.ensure_future(chronicle(self.world, client.etcd))
            chronicler.add_done_callback(_raise_on)
        activities, weights = self._role(number)
        while client.may_go_on():
            await client.random.choices(activities, weights)[0](client)
            await client.pace()
        await look_at_watches(client)
        await client.etcd.close()

    def completed(self) -> list[int]:
        """For each client how many of its calls were answered: where this stands still there is no progress."""
        return [client.etcd.completed for client in self.clients]

    async def inspect(self) -> None:
        """When all clients have ended: see all leases end, read everything, and be told of all that was done."""
        client = Client(self.world, len(self.clients))
        client.etcd.start()
        # Nobody compacts any more.
        live = client.etcd.watch(
            WatchCreateRequest(key=EVERYTHING, range_end=EVERYTHING, start_revision=self.world.chronicled_revision + 1)
        )
        await self._see_leases_end(client)
        read = None
        while read is None or not isinstance(read.response, RangeResponse):
            read = await client.etcd.do(RangeRequest(key=EVERYTHING, range_end=EVERYTHING))
        for key in self.world.options.registers():
            await client.etcd.do(RangeRequest(key=key), is_register=True)
        await reach(self.world, client.etcd, live, read.revision)
        await client.etcd.close()

    async def _see_leases_end(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        give_up_at_s = loop.time() + VANISH_LIMIT_S
        while True:
            listed = await client.etcd.do(LeaseLeasesRequest())
            keys = await client.etcd.do(RangeRequest(key=EVERYTHING, range_end=EVERYTHING))
            if isinstance(listed.response, LeaseLeasesResponse) and isinstance(keys.response, RangeResponse):
                leases = [status.ID for status in listed.response.leases]
                left = [item.key for item in keys.response.kvs if item.lease]
                if not leases and not left:
                    return
                if loop.time() > give_up_at_s:
                    text = f"leases {leases} and their keys {left} are still there {VANISH_LIMIT_S:.0f} s after the end"
                    self.recorder.late.append(Finding("leases", text, self.recorder.now_s(), client.name))
                    return
            await asyncio.sleep(1.0)

    def _role(self, number: int) -> tuple[list[Activity], list[float]]:
        role = ROLES[(number + self.world.options.seed) % len(ROLES)]
        weights = {activity: weight + role.get(activity, 0.0) for activity, weight in EVERYBODY.items()}
        return list(weights), list(weights.values())

    # --- what came of it ---------------------------------------------------------------------

    @property
    def history(self) -> History:
        return self.recorder.history

    def findings(self) -> list[Finding]:
        """What contradicts the promise of etcd's API."""
        return [*self.recorder.late, *findings(self.history)]

    def operations(self) -> list[Operation]:
        """What must be linearizable, as operations of `quorate.checking.models.KV`."""
        return operations(self.history)

    def coverage(self) -> Counter[str]:
        """How often each kind of call was answered, and what else happened."""
        return self.recorder.coverage


def _raise_on(task: asyncio.Task[None]) -> None:
    """Let the simulation hear of it."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        task.get_loop().call_exception_handler({"message": "the chronicler failed", "exception": error})
