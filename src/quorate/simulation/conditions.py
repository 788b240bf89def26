"""What may be wrong with networks, disks and clocks, where several faults may want it at a time.

Each method brings something about and returns what takes it away again.  As long as two
faults want one thing, the worse of the two holds; when the last one ends, all is well again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

from quorate.simulation.cluster import SimulatedCluster
from quorate.simulation.disk import SYNC_S, WRITE_S
from quorate.simulation.machine import Machine
from quorate.simulation.mailbox import MailboxFaults, MailboxRates
from quorate.simulation.scheduler import Simulation

End: TypeAlias = Callable[[], None]
"""Takes away what a fault brought.  A second call does nothing."""


class Claims:
    """One number that several faults want changed: what holds is combined of those that still want it."""

    def __init__(self, combine: Callable[[Iterable[float]], float], apply: Callable[[float], None]) -> None:
        """`combine` of nothing is the value without faults."""
        self._combine = combine
        self._apply = apply
        self._values: dict[int, float] = {}
        self._numbers = 0

    def add(self, value: float) -> End:
        self._numbers += 1
        number = self._numbers
        self._values[number] = value
        self._apply(self._combine(self._values.values()))
        return lambda: self._drop(number)

    def _drop(self, number: int) -> None:
        if self._values.pop(number, None) is not None:
            self._apply(self._combine(self._values.values()))


class Conditions:
    """See the module's head.  Hosts are addresses, nodes are numbers, shares are from 0 to 1."""

    def __init__(self, simulation: Simulation, cluster: SimulatedCluster, mailbox: MailboxFaults | None) -> None:
        self.failed_syncs: set[int] = set()
        """Nodes whose syncs reported errors at some time of their present life."""
        self.was_full: set[int] = set()
        """Nodes whose disks were full at some time of their present life."""
        self._simulation = simulation
        self._cluster = cluster
        self._mailbox = mailbox
        self._claims: dict[tuple[str, ...], Claims] = {}
        self._pauses: Counter[Machine] = Counter()
        self._rates: dict[int, float] = {}
        self._jumps_ms: dict[int, float] = {}

    def started(self, node: int) -> None:
        """A node's machine has just been switched on."""
        disk = self._cluster.disks[node]
        if not disk.failing_syncs:
            self.failed_syncs.discard(node)
        if disk.capacity_bytes is None:
            self.was_full.discard(node)
        self._set_clocks(node)

    # --- network -----------------------------------------------------------------------------

    def lose_packets(self, source: str, target: str, share: float) -> End:
        """Of what goes from one host to another a share is lost, and sent again by TCP."""
        quality = self._simulation.network.quality(source, target)

        def apply(loss: float) -> None:
            quality.loss = loss

        return self._claim(("loss", source, target), _largest_or(0.0), apply, share)

    def delay_packets(self, source: str, target: str, factor: float) -> End:
        """What goes from one host to another takes so many times as long."""
        quality = self._simulation.network.quality(source, target)

        def apply(delay_factor: float) -> None:
            quality.delay_factor = delay_factor

        return self._claim(("delay", source, target), _largest_or(1.0), apply, factor)

    def split_reads(self, share: float) -> End:
        """A share of reads finds only a part of what has arrived."""
        network = self._simulation.network

        def apply(split_share: float) -> None:
            network.split_share = split_share

        return self._claim(("split reads",), _largest_or(0.0), apply, share)

    def cut(self, pairs: Iterable[tuple[str, str]]) -> End:
        """Hold back everything that goes from the first to the second host of each pair."""
        network = self._simulation.network
        cuts = list(pairs)
        for source, target in cuts:
            network.cut(source, target)

        def end() -> None:
            for source, target in cuts:
                network.mend(source, target)
            cuts.clear()

        return end

    # --- consensus messages ------------------------------------------------------------------

    def drop_messages(self, share: float) -> End | None:
        """None where messages are not observed."""
        return self._disturb("dropped", share)

    def duplicate_messages(self, share: float, longest_delay_s: float) -> End | None:
        return _both(self._disturb("duplicated", share), self._disturb("longest_delay_s", longest_delay_s))

    def delay_messages(self, share: float, longest_delay_s: float) -> End | None:
        """So that others overtake them."""
        return _both(self._disturb("delayed", share), self._disturb("longest_delay_s", longest_delay_s))

    def _disturb(self, what: str, amount: float) -> End | None:
        mailbox = self._mailbox
        if mailbox is None:
            return None

        def apply(combined: float) -> None:
            calm = MailboxRates()
            rates = mailbox.rates or calm
            rates = replace(rates, **{what: combined})
            mailbox.rates = None if rates == calm else rates

        return self._claim(("messages", what), _largest_or(0.0), apply, amount)

    # --- machines ----------------------------------------------------------------------------

    def pause(self, host: str) -> End | None:
        """SIGSTOP; None where nothing runs."""
        machine = self._simulation.machines.get(host)
        if machine is None:
            return None
        pauses = self._pauses
        pauses[machine] += 1
        machine.pause()

        def end() -> None:
            pauses[machine] -= 1
            if machine.alive and not pauses[machine]:
                machine.resume()

        return _once(end)

    def skew(self, node: int, rate: float) -> End:
        """A node's clocks run so many times as fast as true time, in its later lives too."""

        def apply(combined: float) -> None:
            self._rates[node] = combined
            self._set_clocks(node)

        return self._claim(("rate", str(node)), math.prod, apply, rate)

    def jump(self, node: int, milliseconds: float) -> End:
        """A node's wall clock is set forward, or back, in its later lives too."""

        def apply(combined: float) -> None:
            self._jumps_ms[node] = combined
            self._set_clocks(node)

        return self._claim(("jump", str(node)), math.fsum, apply, milliseconds)

    def _set_clocks(self, node: int) -> None:
        if self._cluster.is_up(node):
            machine = self._cluster.machine(node)
            machine.wall_jump_ms = int(self._jumps_ms.get(node, 0))
            machine.set_clock_rate(self._rates.get(node, 1.0))

    # --- disks -------------------------------------------------------------------------------

    def slow_syncs(self, node: int, longest_s: float) -> End:
        """A node's syncs take from a quarter of `longest_s` up to all of it.

        Writes take a fiftieth: a kernel makes those wait who write faster than the device takes it.
        """
        disk = self._cluster.disks[node]

        def apply(longest_s: float) -> None:
            disk.sync_s = (longest_s / 4, longest_s) if longest_s else SYNC_S
            disk.write_s = max(WRITE_S, longest_s / 50)

        return self._claim(("slow disk", str(node)), _largest_or(0.0), apply, longest_s)

    def fail_syncs(self, node: int) -> End:
        """A node's syncs report errors."""
        disk = self._cluster.disks[node]
        self.failed_syncs.add(node)

        def apply(failing: float) -> None:
            disk.failing_syncs = bool(failing)

        return self._claim(("failing disk", str(node)), _largest_or(0), apply, 1)

    def fill_disk(self, node: int, room_bytes: float) -> End:
        """Only so much room is left on a node's disk."""
        disk = self._cluster.disks[node]
        self.was_full.add(node)

        def apply(capacity_bytes: float) -> None:
            disk.capacity_bytes = None if capacity_bytes == math.inf else int(capacity_bytes)

        smallest = lambda values: min(values, default=math.inf)  # noqa: E731
        return self._claim(("full disk", str(node)), smallest, apply, disk.used_bytes() + room_bytes)

    # --- inside ------------------------------------------------------------------------------

    def _claim(
        self,
        what: tuple[str, ...],
        combine: Callable[[Iterable[float]], float],
        apply: Callable[[float], None],
        value: float,
    ) -> End:
        if what not in self._claims:
            self._claims[what] = Claims(combine, apply)
        return self._claims[what].add(value)


def _largest_or(calm: float) -> Callable[[Iterable[float]], float]:
    return lambda values: max(values, default=calm)


def _both(first: End | None, second: End | None) -> End | None:
    if first is None or second is None:
        return None
    ends = (first, second)

    def end() -> None:
        for one in ends:
            one()

    return end


def _once(end: End) -> End:
    left = [end]

    def call() -> None:
        if left:
            left.pop()()

    return call
