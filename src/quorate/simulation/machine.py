"""One life of one simulated host: its processor's time, its clocks, its loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quorate.simulation.loop import SimulatedLoop
    from quorate.simulation.scheduler import Simulation
    from quorate.simulation.sockets import SimulatedTransport

EPOCH_MS = 1_800_000_000_000
"""Unix time at true time 0, in milliseconds."""
CLOCK_READ_S = 5e-6
"""What a look at the precise clock takes, so that code which waits within a turn for it to move on gets on."""


class MachineLost(BaseException):
    """Raised out of a simulated operation in the middle of which the machine died.

    No Exception, so that the code of a node does not take it for an error that it could handle.  What it
    still does on the way up reaches neither disk nor network.
    """


class Machine:
    """A restarted host is a new Machine.  Times in seconds; `true` is the simulation's time, `local` this machine's."""

    def __init__(
        self, simulation: Simulation, host: str, name: str, build_loop: Callable[[Machine], SimulatedLoop]
    ) -> None:
        self.simulation = simulation
        self.host = host
        self.name = name
        self.alive = True
        self.transports: dict[SimulatedTransport, None] = {}
        self.next_port = 40_000
        self.spent_s = 0.0
        """Time that the running turn has taken so far: operations that make their caller wait."""
        self.busy_until_s = 0.0
        self.paused_until_s = 0.0
        self.wall_jump_ms = 0
        self.on_death: Callable[[], None] | None = None
        """Called when the machine dies of itself (`die`), before anything else happens."""
        self._clock_rate = 1.0
        self._true_base_s = simulation.now_s
        # No two machines have been up for equally long.
        self._local_base_s = simulation.random.uniform(0.0, 1000.0)
        self.loop = build_loop(self)

    # --- clocks ------------------------------------------------------------------------------

    def true_s(self) -> float:
        """True time, within a turn too: it moves on with what the turn spends."""
        return self.simulation.now_s + self.spent_s

    def local_s(self) -> float:
        """The monotonic clock.  It runs at its own rate."""
        return self._local_base_s + (self.simulation.now_s + self.spent_s - self._true_base_s) * self._clock_rate

    def true_of(self, local_s: float) -> float:
        """The true time at which the monotonic clock will show `local_s`, if its rate stays."""
        return self._true_base_s + (local_s - self._local_base_s) / self._clock_rate

    def clock(self) -> float:
        """The monotonic clock for durations within a turn (`Environment.clock`)."""
        self.spent_s += CLOCK_READ_S
        return self.local_s()

    def wall_ms(self) -> int:
        """Unix time as this machine believes it."""
        return EPOCH_MS + self.wall_jump_ms + int(self.local_s() * 1000)

    def set_clock_rate(self, rate: float) -> None:
        """From now on the clocks run `rate` times as fast as true time."""
        self._local_base_s, self._true_base_s = self.local_s(), self.true_s()
        self._clock_rate = rate
        self.loop.arm()

    # --- processor ---------------------------------------------------------------------------

    def spend(self, duration_s: float) -> None:
        """The running code is made to wait this long."""
        self.spent_s += duration_s

    def pause(self) -> None:
        """SIGSTOP: nothing runs; the kernel goes on receiving."""
        self.paused_until_s = math.inf

    def resume(self) -> None:
        self.paused_until_s = self.simulation.now_s
        self.loop.arm()

    def die(self) -> None:
        """Lose power now, in the middle of what the machine is doing.  Raises MachineLost."""
        if self.alive:
            self.simulation.kill(self.host, power_loss=True)
            if self.on_death is not None:
                self.on_death()
        raise MachineLost(self.host)
