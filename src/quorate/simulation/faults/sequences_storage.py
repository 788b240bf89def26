"""Sequences of faults that hurt what lies between a node's memory and its disk, and what a snapshot replaces."""

from __future__ import annotations

import math
from random import Random

from quorate.simulation.faults.base import FaultSequence, Setting
from quorate.simulation.plan import Injection


def _some_nodes(random: Random, bout: Setting) -> str:
    """By number, so that several faults mean the same ones."""
    return random.choice([bout.node(random), bout.node(random), "all"])


def _even_by_size(random: Random, low: float, high: float) -> float:
    return math.exp(random.uniform(math.log(low), math.log(high)))


def _power_loss_while_syncs_are_slow(random: Random, bout: Setting) -> list[Injection]:
    """Slow enough to be made aside, while the node goes on: much is under way that is not durable yet."""
    target = _some_nodes(random, bout)
    lost_at_s = bout.begin_s + random.uniform(0.8, 2.0)
    down_s = random.uniform(0.2, bout.end_s - lost_at_s)
    return [
        Injection(
            "slow-disk", bout.begin_s, lost_at_s - bout.begin_s + 0.1, target, _even_by_size(random, 0.012, 0.12)
        ),
        Injection("power-loss", lost_at_s, down_s, target),
    ]


def _leaders_lost_while_syncs_are_slow(random: Random, bout: Setting) -> list[Injection]:
    """What clients ask for gathers behind a sync, and what they asked for before is under way to a leader who goes."""
    length_s = bout.end_s - bout.begin_s
    found = [Injection("slow-disk", bout.begin_s, length_s, "all", _even_by_size(random, 0.02, 0.15))]
    at_s = bout.begin_s + random.uniform(0.6, 1.2)
    while at_s < bout.end_s - 0.5:
        fault = random.choice(["crash", "partition-isolation"])
        found.append(Injection(fault, at_s, random.uniform(0.1, 0.5), "leader"))
        at_s += random.uniform(1.2, 2.0)
    return found


def _snapshot_on_a_slow_disk(random: Random, bout: Setting) -> list[Injection]:
    """It takes long; much is written beside it; and the node dies before it is there, or has to live on it."""
    target = _some_nodes(random, bout)
    longest_s = _even_by_size(random, 0.02, 0.3)
    taken_at_s = bout.begin_s + random.uniform(0.1, 0.5)
    crash_at_s = taken_at_s + random.uniform(0.0, 5 * longest_s)
    fault = random.choice(["crash", "power-loss"])
    return [
        Injection("slow-disk", bout.begin_s, crash_at_s - bout.begin_s + 0.1, target, longest_s),
        Injection("snapshot", taken_at_s, 0.0, target),
        Injection(fault, crash_at_s, random.uniform(0.1, bout.end_s - crash_at_s), target),
    ]


def _power_loss_amid_the_names_of_a_snapshot(random: Random, bout: Setting) -> list[Injection]:
    """It appears, is renamed, the one before it goes, and the log's segments that it stands for."""
    target = random.choice([bout.victim(random), "majority", "all"])
    for_s = random.uniform(0.5, bout.end_s - bout.begin_s)
    return [
        Injection("power-loss-amid-names", bout.begin_s, for_s, target, float(random.randint(1, 6))),
        Injection("snapshot", bout.begin_s + 0.001, 0.0, "all"),
    ]


def _short_absence_behind_a_snapshot(random: Random, bout: Setting) -> list[Injection]:
    """A node is away from its peers too long for its log, and not too long for its clients, who stay."""
    away_s = random.uniform(2.0, 4.0)
    taken_s = sorted(away_s - random.uniform(0.05, 0.8) for _ in range(2))
    return [
        Injection("partition-isolation", bout.begin_s, away_s, random.choice(["follower", "follower", "leader"])),
        *(Injection("snapshot", bout.begin_s + at_s, 0.0, "all") for at_s in taken_s),
    ]


def _one_node_is_slow(random: Random, bout: Setting) -> list[Injection]:
    """The others are not: what went through it arrives after what was asked for later, elsewhere."""
    target = bout.node(random)
    for_s = bout.end_s - bout.begin_s
    return [
        Injection("delay", bout.begin_s, for_s, target, _even_by_size(random, 30.0, 200.0)),
        Injection("slow-disk", bout.begin_s, for_s, target, _even_by_size(random, 0.03, 0.3)),
    ]


STORAGE_SEQUENCES: tuple[FaultSequence, ...] = (
    FaultSequence(frozenset({"slow-disk", "power-loss"}), (2.5, 4.0), _power_loss_while_syncs_are_slow),
    FaultSequence(
        frozenset({"slow-disk", "crash", "partition-isolation"}), (3.0, 6.0), _leaders_lost_while_syncs_are_slow
    ),
    FaultSequence(frozenset({"slow-disk", "snapshot", "crash", "power-loss"}), (2.5, 4.0), _snapshot_on_a_slow_disk),
    FaultSequence(
        frozenset({"snapshot", "power-loss-amid-names"}), (1.0, 3.0), _power_loss_amid_the_names_of_a_snapshot
    ),
    FaultSequence(frozenset({"snapshot", "partition-isolation"}), (4.0, 6.0), _short_absence_behind_a_snapshot),
    FaultSequence(frozenset({"delay", "slow-disk"}), (3.0, 6.0), _one_node_is_slow),
)
