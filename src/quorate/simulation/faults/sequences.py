"""Faults in an order and at distances that hurt, which random dates would seldom hit."""

from __future__ import annotations

from random import Random

from quorate.simulation.faults.base import FaultSequence, Setting
from quorate.simulation.faults.sequences_members import MEMBER_SEQUENCES
from quorate.simulation.faults.sequences_storage import STORAGE_SEQUENCES
from quorate.simulation.plan import Injection


def _isolated_leader_then_crash(random: Random, bout: Setting) -> list[Injection]:
    """A leader that is cut off goes on taking writes; when it is back, the one that took its place dies."""
    cut_s = random.uniform(1.0, 2.5)
    crash_at_s = bout.begin_s + cut_s + random.uniform(0.0, 0.3)
    return [
        Injection("partition-isolation", bout.begin_s, cut_s, "leader"),
        Injection("crash", crash_at_s, bout.end_s - crash_at_s, "leader"),
    ]


def _paused_leader_then_power_loss(random: Random, bout: Setting) -> list[Injection]:
    """A leader wakes up deposed, and the new one loses its power just then."""
    pause_s = random.uniform(0.6, 2.5)
    lost_at_s = bout.begin_s + pause_s + random.uniform(-0.1, 0.3)
    return [
        Injection("pause", bout.begin_s, pause_s, "leader"),
        Injection("power-loss", lost_at_s, bout.end_s - lost_at_s, random.choice(["leader", "majority"])),
    ]


def _power_loss_of_many_amid_writes(random: Random, bout: Setting) -> list[Injection]:
    """Each is in the middle of writing what the others acknowledge."""
    target = random.choice(["majority", "all"])
    for_s = random.uniform(0.5, bout.end_s - bout.begin_s)
    return [Injection("power-loss-in-operation", bout.begin_s, for_s, target, float(random.randrange(8)))]


def _crash_while_catching_up(random: Random, bout: Setting) -> list[Injection]:
    """A follower is away until the log is compacted beyond it, and dies when the snapshot is on its way to it."""
    follower = bout.node(random)
    back_s = bout.end_s - random.uniform(2.0, 3.0)
    away = random.choice(["crash", "partition-isolation"])
    fault = random.choice(["crash", "power-loss", "power-loss-in-operation", "power-loss-in-operation"])
    amount = 0.0
    crash_at_s = back_s + random.uniform(0.02, 0.2)
    if fault == "power-loss-in-operation":
        # A start takes about a dozen operations, a snapshot that arrives and is installed another dozen.
        amount = float(random.randrange(40))
        crash_at_s = back_s + 0.001
    snapshot_times_s = [random.uniform(bout.begin_s + 2, back_s) for _ in range(3)]
    return [
        Injection(away, bout.begin_s, back_s - bout.begin_s, follower),
        *(Injection("snapshot", at_s, 0.0, "all") for at_s in [*snapshot_times_s, back_s - 0.1]),
        Injection(fault, crash_at_s, bout.end_s - crash_at_s, follower, amount),
    ]


def _power_loss_around_a_snapshot(random: Random, bout: Setting) -> list[Injection]:
    """While it is written, when it is renamed, and when the log that it stands for is deleted."""
    target = random.choice(["leader", "majority", "all"])
    at_s = bout.begin_s + random.choice([0.0, 0.0, random.uniform(0.0, 0.05)])
    for_s = bout.end_s - at_s
    return [
        Injection("snapshot", bout.begin_s, 0.0, "all"),
        Injection("power-loss-in-operation", at_s, for_s, target, float(random.randrange(25))),
    ]


def _crash_upon_crash(random: Random, bout: Setting) -> list[Injection]:
    """A node dies again and again while it starts."""
    node = random.choice([bout.node(random), "all"])
    found = []
    at_s = bout.begin_s
    while at_s < bout.end_s - 0.3:
        fault = random.choice(["crash", "power-loss", "power-loss-in-operation"])
        for_s = random.uniform(0.02, 0.2)
        amount = float(random.randrange(30)) if fault == "power-loss-in-operation" else 0.0
        found.append(Injection(fault, at_s, for_s, node, amount))
        at_s += for_s + random.choice([random.uniform(0.0, 0.01), random.uniform(0.0, 0.5)])
    return found


def _votes_forgotten(random: Random, bout: Setting) -> list[Injection]:
    """Those who vote lose their power while nobody leads, and are asked again at once."""
    at_s = bout.begin_s + random.uniform(0.3, 1.0)
    found = [Injection("crash", bout.begin_s, min(3.0, bout.end_s - bout.begin_s), "leader")]
    for _ in range(3):
        amount = float(random.randrange(4))
        found.append(Injection("power-loss-in-operation", at_s, 0.15, "all", amount))
        at_s += 0.15 + random.uniform(0.0, 0.4)
    return found


def _one_after_the_other(random: Random, bout: Setting) -> list[Injection]:
    """Leadership goes round: whoever leads is cut off, half heard, with clients on both sides."""
    found = []
    at_s = bout.begin_s
    while at_s < bout.end_s - 1.0:
        for_s = random.uniform(0.5, 1.0)
        fault = random.choice(["partition-isolation", "partition-one-way"])
        found.append(Injection(fault, at_s, for_s, "leader", float(random.random() < 0.5)))
        at_s += for_s * random.uniform(0.5, 1.5)
    return [injection for injection in found if injection.at_s + injection.for_s <= bout.end_s]


def _coups_amid_slow_syncs(random: Random, bout: Setting) -> list[Injection]:
    """Leaders fall before their opening entries, or those of their predecessors, are on any quorum's disks."""
    longest_s = random.choice([0.02, 0.1, 0.3])
    return [
        Injection("coup", bout.begin_s, bout.end_s - bout.begin_s, "", random.choice([0.02, 0.1, 0.5])),
        Injection("slow-disk", bout.begin_s, bout.end_s - bout.begin_s, bout.node(random), longest_s),
        Injection("slow-disk", bout.begin_s, bout.end_s - bout.begin_s, bout.victims(random), longest_s),
    ]


def _proposals_in_pieces(random: Random, bout: Setting) -> list[Injection]:
    """Of what a leader proposes, each follower gets some slots and not others, and the leader cannot hear of it.

    So those who elect its successor may hold a slot, and none of them the one before.
    """
    found = []
    at_s = bout.begin_s
    while at_s + 1.5 <= bout.end_s:
        deaf_s = random.uniform(1.0, 1.5)
        found.append(Injection("message-loss", at_s, random.uniform(0.2, 0.6), "all", random.uniform(0.3, 0.6)))
        found.append(Injection("partition-one-way", at_s, deaf_s, "leader", 1.0))
        at_s += deaf_s + random.uniform(0.5, 1.5)
    return found


SEQUENCES: tuple[FaultSequence, ...] = (
    FaultSequence(frozenset({"partition-isolation", "crash"}), (3.5, 5.0), _isolated_leader_then_crash),
    FaultSequence(frozenset({"pause", "power-loss"}), (3.5, 5.0), _paused_leader_then_power_loss),
    FaultSequence(frozenset({"power-loss-in-operation"}), (1.0, 3.0), _power_loss_of_many_amid_writes),
    FaultSequence(
        frozenset({"crash", "power-loss", "power-loss-in-operation", "partition-isolation", "snapshot"}),
        (8.0, 14.0),
        _crash_while_catching_up,
    ),
    FaultSequence(frozenset({"snapshot", "power-loss-in-operation"}), (1.0, 3.0), _power_loss_around_a_snapshot),
    FaultSequence(frozenset({"crash", "power-loss", "power-loss-in-operation"}), (1.0, 4.0), _crash_upon_crash),
    FaultSequence(frozenset({"crash", "power-loss-in-operation"}), (3.0, 5.0), _votes_forgotten),
    FaultSequence(frozenset({"partition-isolation", "partition-one-way"}), (3.0, 7.0), _one_after_the_other),
    FaultSequence(frozenset({"coup", "slow-disk"}), (2.0, 6.0), _coups_amid_slow_syncs),
    FaultSequence(frozenset({"message-loss", "partition-one-way"}), (3.0, 8.0), _proposals_in_pieces, "paxos"),
    *STORAGE_SEQUENCES,
    *MEMBER_SEQUENCES,
)
