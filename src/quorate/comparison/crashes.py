"""How long there is no leader after a crash of the leader, and how much standing for election led nowhere."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from quorate.comparison.stage import Setting, Stage, in_peace, stage

ALIKE_SPREAD = 0.01
"""Election timeouts differ by at most a hundredth, so that all nodes that lost the leader stand at nearly one time."""
LIMIT_S = 60.0
"""Where no leader was found for so long, timeouts are as usual from then on: alike, they may split votes for ever."""
PAUSE_S = (1.0, 2.0)
"""Between two crashes: a leader finds out about its round trips, and where in its heartbeats it is hit is chance."""


class Crash(enum.Enum):
    """How the leader is lost."""

    PROCESS = "process killed"
    """Its kernel closes its connections, so the others know at once."""
    MACHINE = "power lost"
    """Nothing is heard any more: the others wait for an election timeout."""
    ALIKE = "power lost, timeouts alike"
    """And the timeouts hardly differ: the nodes that wait stand all at once, and compete."""


@dataclass(frozen=True, slots=True)
class CrashFigures:
    """Of one variant on one profile after crashes of one kind, in their order."""

    kind: str
    without_leader_s: tuple[float, ...]
    """From each crash to when the next leader could take writes; LIMIT_S where that took longer."""
    lost_candidacies: tuple[int, ...]
    """Terms, ballots or epochs that some node stood in, and that nobody came to lead."""
    election_messages: tuple[int, ...]
    """All that was said to find the next leader."""

    @property
    def median_s(self) -> float:
        return statistics.median(self.without_leader_s)

    @property
    def worst_s(self) -> float:
        return max(self.without_leader_s)


@in_peace
def measure_crashes(setting: Setting, crash: Crash, trials: int) -> CrashFigures:
    """So many crashes of whoever leads, one after the other, each node back and whole again before the next."""
    with stage(setting) as on:
        random = Random(f"{setting.seed}/crashes")
        found = [_crash_once(on, crash, random) for _ in range(trials)]
    without_leader_s, lost, messages = zip(*found, strict=True)
    return CrashFigures(crash.value, without_leader_s, lost, messages)


def _crash_once(on: Stage, crash: Crash, random: Random) -> tuple[float, int, int]:
    ledger = on.ledger
    ledger.timeout_spread = ALIKE_SPREAD if crash is Crash.ALIKE else 1.0
    leader = on.leader()
    on.pass_time(random.uniform(*PAUSE_S))
    stood_before, led_before, messages = set(ledger.candidacies), len(ledger.led), ledger.election_messages
    crashed_s = on.simulation.now_s
    on.cluster.kill(leader, power_loss=crash is not Crash.PROCESS)
    on.wait_for(lambda: len(ledger.led) > led_before or on.simulation.now_s >= crashed_s + LIMIT_S)
    lost = _lost(on, stood_before)
    spent = ledger.election_messages - messages
    ledger.timeout_spread = 1.0
    on.wait_for(lambda: len(ledger.led) > led_before)
    without_leader_s = min(ledger.led[led_before].at_s - crashed_s, LIMIT_S)
    on.cluster.start(leader)
    on.wait_for(on.is_whole)
    return without_leader_s, lost, spent


def _lost(on: Stage, stood_before: set[tuple[int, int]]) -> int:
    led = {(led.node, led.generation) for led in on.ledger.led}
    return len([stood for stood in on.ledger.candidacies if stood not in stood_before and stood not in led])


def mean(values: Sequence[int]) -> float:
    return statistics.fmean(values)
