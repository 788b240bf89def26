"""One seeded scheduler for all machines of a simulated world: the agenda, true time, and the digest of a run.

Everything that happens is an item on one agenda, ordered by true time and, within one instant, by the order in
which it was put there: a machine's turn, the arrival of bytes, the end of a disk operation, a fault.  Nothing is
drawn but from generators that follow from the seed, so the same seed gives the same run, byte for byte; `digest`
says so in a few characters.

    simulation = Simulation(seed=7)
    server = simulation.boot("10.0.0.1")
    client = simulation.boot("10.0.1.1")
    simulation.start(server, serve())
    answer = simulation.run(client, ask("10.0.0.1"))
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from quorate.simulation.loop import SimulatedLoop
from quorate.simulation.machine import Machine
from quorate.simulation.network import Network

if TYPE_CHECKING:
    from quorate.simulation.trace import Trace

T = TypeVar("T")
DIGEST_BATCH = 1024
"""Steps that are gathered before they go into the digest: hashing one by one costs more than the steps."""


class UnhandledError(Exception):
    """Code on some machine raised and nobody handled it; the cause is attached."""


class Deadlock(Exception):
    """Somebody waits and nothing can ever happen again."""


class Simulation:
    """See the module's head.  `now_s` is true time in seconds from 0; each machine has its own idea of it."""

    def __init__(self, seed: int | str = 0) -> None:
        self.seed = seed
        self.random = Random(f"{seed}/scheduler")
        self.now_s = 0.0
        self.trace: Trace | None = None
        """Where set, what happens is recorded in it.  That never changes the run."""
        self.machines: dict[str, Machine] = {}
        """Those that run, by host."""
        self.powered: dict[str, None] = {}
        """Hosts that have power, whether or not anything runs on them."""
        self.network = Network(self)
        self.on_unhandled: Callable[[Machine, dict[str, Any]], None] | None = None
        """Told of what nobody handled, instead of `UnhandledError` ending the run."""
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = 0
        self._horizon_s = math.inf
        self._entered: SimulatedLoop | None = None
        self._graveyard: list[Machine] = []
        self._error: Exception | None = None
        self._hash = hashlib.blake2b(digest_size=16)
        self._steps: list[tuple[object, ...]] = []

    # --- machines ----------------------------------------------------------------------------

    def boot(self, host: str, name: str = "") -> Machine:
        """Switch a machine on; one that was killed before comes back with a new loop and nothing in memory."""
        assert host not in self.machines, f"{host} runs already"
        machine = Machine(self, host, name or host, SimulatedLoop)
        self.machines[host] = machine
        self.powered[host] = None
        self.network.booted(host)
        return machine

    def kill(self, host: str, *, power_loss: bool = False) -> None:
        """SIGKILL to all that runs on `host`: no code of it runs again, not even a `finally`.

        The other ends of its connections see a reset; after a loss of power they see nothing
        until they send something and the host is up again.
        """
        machine = self.machines.pop(host)
        machine.alive = False
        if power_loss:
            self.go_dark(host)
        self.network.killed(machine, silent=power_loss)
        # Its suspended tasks are kept until the whole world is collected, because collecting them runs `finally`.
        self._graveyard.append(machine)

    def go_dark(self, host: str) -> None:
        """A host without power does not even refuse a connection, as the kernel of one does whose process is gone."""
        self.powered.pop(host, None)

    # --- time --------------------------------------------------------------------------------

    def at(self, when_s: float, callback: Callable[..., None], *args: Any) -> None:
        """Call `callback` at a true time.  It is no code of any machine and takes no time."""
        self._numbers += 1
        heapq.heappush(self._agenda, (when_s, self._numbers, callback, args))

    def after(self, delay_s: float, callback: Callable[..., None], *args: Any) -> None:
        self.at(self.now_s + delay_s, callback, *args)

    def step(self) -> None:
        """Let the next thing happen.  Raises Deadlock, UnhandledError, and whatever a callback of `at` raises."""
        try:
            self._step()
        finally:
            self.leave()

    def _step(self) -> None:
        if not self._agenda:
            raise Deadlock(f"at {self.now_s:.6f} s: no machine and no message has anything left to do")
        when_s, _, callback, args = heapq.heappop(self._agenda)
        if when_s > self.now_s:
            self.now_s = when_s
        callback(*args)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def step_while(self, wanted: Callable[[], bool]) -> None:
        """Make steps as long as `wanted` is true.  Raises what `step` raises."""
        step = self._step
        try:
            while wanted():
                step()
        finally:
            self.leave()

    def pass_until(self, when_s: float) -> None:
        """Let everything happen that happens up to a true time."""
        agenda, step = self._agenda, self._step
        self._horizon_s = when_s
        try:
            while agenda and agenda[0][0] <= when_s:
                step()
        finally:
            self._horizon_s = math.inf
            self.leave()
        self.now_s = max(self.now_s, when_s)

    def enter(self, loop: SimulatedLoop) -> None:
        """From now on asyncio takes this loop for the running one.

        It stays so until another takes its turn, because telling asyncio costs a system call.
        """
        if self._entered is not loop:
            asyncio._set_running_loop(loop)
            self._entered = loop

    def leave(self) -> None:
        """No loop is running: the simulation stands still, or something happens outside of all machines."""
        if self._entered is not None:
            asyncio._set_running_loop(None)
            self._entered = None

    def turning(self) -> Machine | None:
        """The machine whose turn it is at this moment."""
        return self._entered.machine if self._entered is not None and self._entered.is_running() else None

    def is_next(self, when_s: float) -> bool:
        """Nothing on the agenda comes before this time, and it is not beyond where the world is to stop."""
        return when_s <= self._horizon_s and self._error is None and (not self._agenda or when_s < self._agenda[0][0])

    def start(self, machine: Machine, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Start a task on a machine from outside of it."""
        return machine.loop.create_task(work, name=name)

    def run(self, machine: Machine, work: Coroutine[Any, Any, T]) -> T:
        """Let time pass until `work`, done on `machine`, is finished; its result."""
        task = self.start(machine, work)
        self.step_while(lambda: not task.done())
        return task.result()

    # --- what a run comes to -----------------------------------------------------------------

    def mix(self, *what: object) -> None:
        """Put something that happened into the digest: numbers, bytes or text, whose repr is the same everywhere."""
        self._steps.append(what)
        if len(self._steps) >= DIGEST_BATCH:
            self._settle_digest()

    def digest(self) -> str:
        """Equal for equal runs."""
        self._settle_digest()
        return self._hash.hexdigest()

    def _settle_digest(self) -> None:
        self._hash.update(repr(self._steps).encode())
        self._steps.clear()

    def unhandled(self, machine: Machine, context: dict[str, Any]) -> None:
        """A machine's loop was told of an exception that nobody handles."""
        if self.on_unhandled is not None:
            self.on_unhandled(machine, context)
            return
        error = UnhandledError(f"{machine.name} at {self.now_s:.6f} s: {context.get('message')}")
        error.__cause__ = context.get("exception")
        self.stop(error)

    def stop(self, error: Exception) -> None:
        """Let the step that is going on be the last: whoever makes the steps gets this error, the first of all."""
        if self._error is None:
            self._error = error
