"""The network between simulated machines: delays, loss, cuts and resets of TCP connections.

TCP is what is simulated, not packets: within a connection bytes arrive in order and once, or the connection ends.
So a lost packet shows as the wait for its retransmission, holding up all that comes after it; a cut direction holds
everything back until it is mended.  Loss, duplication and reordering of whole messages, which consensus must
survive too, are made at a replica's mailbox (`quorate.simulation.observation`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from quorate.simulation.machine import Machine
    from quorate.simulation.scheduler import Simulation
    from quorate.simulation.sockets import SimulatedServer, SimulatedTransport

Address: TypeAlias = tuple[str, int]

DELAY_S = (1e-4, 1e-3)
RETRANSMISSION_S = 0.2
"""Linux's shortest retransmission timeout; it doubles with every further loss of the same packet."""
MAX_LOSSES = 6


@dataclass(slots=True)
class Quality:
    """What one direction between two hosts is like, and what is wrong with it."""

    cuts: int = 0
    """Faults that hold everything back; several may overlap."""
    loss: float = 0.0
    """Share of packets that are lost and sent again."""
    delay_factor: float = 1.0
    delay_s: tuple[float, float] = DELAY_S
    """Bounds of how long a packet takes where nothing is wrong: how far apart the two hosts are."""


class Network:
    """Links by direction.  Those without an entry in `qualities` are sound, and as long as `DELAY_S` says."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.random = Random(f"{simulation.seed}/network")
        self.listeners: dict[Address, SimulatedServer] = {}
        self.qualities: dict[tuple[str, str], Quality] = {}
        self.split_share = 0.0
        """Share of reads that find only a part of what has arrived."""
        self.describe: Callable[[Address, Address, bytes], str] | None = None
        """Says in a few words, for the trace, what bytes from one address to another mean."""
        self.meter: Callable[[Address, Address, int], None] | None = None
        """Told from where to where how many bytes are sent."""
        self.connections_reset = 0
        self._ghosts: dict[str, list[SimulatedTransport]] = {}
        """By the host that lost its power: the other ends of its connections, which do not know yet."""

    def quality(self, source: str, target: str) -> Quality:
        """The direction's record, to be changed; made where there is none."""
        return self.qualities.setdefault((source, target), Quality())

    # --- directions --------------------------------------------------------------------------

    def cut(self, source: str, target: str) -> None:
        """Hold everything from `source` to `target` until as many `mend`s as there were cuts."""
        self.quality(source, target).cuts += 1

    def mend(self, source: str, target: str) -> None:
        quality = self.quality(source, target)
        assert quality.cuts > 0, f"{source} to {target} is not cut"
        quality.cuts -= 1
        machine = self._simulation.machines.get(target)
        if quality.cuts == 0 and machine is not None:
            for transport in list(machine.transports):
                if transport.remote[0] == source:
                    transport.retransmit()

    def is_open(self, source: str, target: str) -> bool:
        quality = self.qualities.get((source, target))
        return quality is None or quality.cuts == 0

    def is_open_both_ways(self, host: str, other: str) -> bool:
        return self.is_open(host, other) and self.is_open(other, host)

    def draw_delay_s(self, source: str, target: str) -> float:
        """How long a packet takes now, retransmissions included."""
        quality = self.qualities.get((source, target))
        delay_s = self.random.uniform(*(DELAY_S if quality is None else quality.delay_s))
        if quality is not None:
            delay_s *= quality.delay_factor
            if quality.loss:
                losses = 0
                while losses < MAX_LOSSES and self.random.random() < quality.loss:
                    delay_s += RETRANSMISSION_S * (1 << losses)
                    losses += 1
        return delay_s

    # --- connections -------------------------------------------------------------------------

    def reset(self, host: str, other: str) -> int:
        """End all connections between two hosts with what is under way on them; how many there were."""
        machine = self._simulation.machines.get(host)
        if machine is None:
            return 0
        ends = [transport for transport in machine.transports if transport.remote[0] == other]
        for transport in ends:
            transport.break_off()
        self.connections_reset += len(ends)
        return len(ends)

    def killed(self, machine: Machine, *, silent: bool) -> None:
        """The machine is gone: its servers vanish, and the other ends of its connections see it, or not yet."""
        self.listeners = {at: server for at, server in self.listeners.items() if server.machine is not machine}
        for transport in machine.transports:
            if silent:
                self._ghosts.setdefault(machine.host, []).append(transport.peer)
            else:
                transport.peer.die_with(transport)

    def booted(self, host: str) -> None:
        """A host is back: it answers what is sent to it on connections of its former life with a reset."""
        for transport in self._ghosts.pop(host, []):
            transport.probe()
