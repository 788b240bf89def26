"""Sequences of faults amid changes of the members: what would never hurt by itself, at the worst of times."""

from __future__ import annotations

from random import Random

from quorate.simulation.faults.base import FaultSequence, Setting
from quorate.simulation.plan import Injection

SOON_S = (0.0, 0.02, 0.3)
"""How long after a change somebody goes, at most."""


def _whole(fault: str, bout: Setting, target: str, amount: float = 0.0) -> Injection:
    return Injection(fault, bout.begin_s, bout.end_s - bout.begin_s, target, amount)


def _change(random: Random, bout: Setting) -> Injection:
    fault = random.choice(["add-member", "replace-member", "replace-member", "remove-member"])
    if fault == "add-member":
        return _whole(fault, bout, "", 1.0)
    return _whole(fault, bout, bout.victim(random))


def _leaders_lost_amid_a_change(random: Random, bout: Setting) -> list[Injection]:
    """Whoever leads when two sets of voters decide does not see the end of it."""
    return [
        _change(random, bout),
        _whole("crash-amid-change", bout, "leader", random.choice(SOON_S)),
    ]


def _learner_lost_while_it_is_filled(random: Random, bout: Setting) -> list[Injection]:
    """Again and again, with a part of a snapshot on its disk."""
    wiped = Injection(
        "wipe", bout.begin_s, random.uniform(0.05, 0.5), bout.victim(random), float(random.random() < 0.5)
    )
    first = random.choice([wiped, _whole("add-member", bout, "", 1.0)])
    return [first, _whole("crash-amid-change", bout, "follower", random.choice([0.02, 0.3, 1.0]))]


def _partition_amid_a_change(random: Random, bout: Setting) -> list[Injection]:
    fault = random.choice(["partition-isolation", "partition-one-way"])
    cut_s = random.uniform(0.5, 4.0)
    at_s = random.uniform(bout.begin_s, bout.end_s - cut_s)
    return [_change(random, bout), Injection(fault, at_s, cut_s, bout.victim(random), float(random.random() < 0.5))]


def _one_folder_lost_after_the_other(random: Random, bout: Setting) -> list[Injection]:
    """The second while the first is being filled, where the rest can bear that, or soon after."""
    nodes = random.sample(range(bout.nodes), min(bout.nodes, 3))
    at_s, found = bout.begin_s, []
    for node in nodes:
        fault = random.choice(["wipe", "wipe", "corruption"])
        found.append(Injection(fault, at_s, random.uniform(0.05, 0.5), str(node), 1.0))
        at_s += random.uniform(0.3, 4.0)
    return [injection for injection in found if injection.at_s + injection.for_s <= bout.end_s]


def _votes_of_a_lost_folder(random: Random, bout: Setting) -> list[Injection]:
    """A folder is lost while its node's vote is being counted, and again and again somebody stands."""
    node = bout.node(random)
    found = [Injection("wipe", bout.begin_s, random.uniform(0.02, 0.2), node, 1.0)]
    at_s = bout.begin_s
    while at_s < bout.end_s - 0.6:
        found.append(Injection(random.choice(["crash", "partition-isolation"]), at_s, 0.5, "leader"))
        at_s += random.uniform(0.4, 1.5)
    return found


def _leader_removed(random: Random, bout: Setting) -> list[Injection]:
    """Once there is a voter too many, the leader goes; its successor may be slow, or die."""
    half_s = (bout.end_s - bout.begin_s) / 2
    found = [
        Injection("add-member", bout.begin_s, half_s, "", 1.0),
        Injection("remove-member", bout.begin_s + half_s, half_s, "leader"),
    ]
    if random.random() < 0.5:
        found.append(Injection("crash-amid-change", bout.begin_s + half_s, half_s, "leader", random.choice(SOON_S)))
    return found


def _transfers_in_trouble(random: Random, bout: Setting) -> list[Injection]:
    """Targets that lag, messages that get lost, disks that are slow: some give up, and no write may be lost."""
    return [
        _whole("transfer", bout, "all", random.choice([0.2, 0.6])),
        random.choice(
            [
                _whole("slow-disk", bout, bout.node(random), random.uniform(0.1, 0.5)),
                _whole("message-loss", bout, "all", random.uniform(0.1, 0.5)),
                Injection("partition-isolation", bout.begin_s, 1.0, "follower"),
                Injection("pause", bout.begin_s + 0.5, 1.0, bout.victim(random)),
            ]
        ),
    ]


MEMBER_SEQUENCES: tuple[FaultSequence, ...] = (
    FaultSequence(
        frozenset({"add-member", "replace-member", "remove-member", "crash-amid-change"}),
        (4.0, 9.0),
        _leaders_lost_amid_a_change,
    ),
    FaultSequence(frozenset({"wipe", "add-member", "crash-amid-change"}), (5.0, 9.0), _learner_lost_while_it_is_filled),
    FaultSequence(
        frozenset({"add-member", "replace-member", "remove-member", "partition-isolation", "partition-one-way"}),
        (5.0, 9.0),
        _partition_amid_a_change,
    ),
    FaultSequence(frozenset({"wipe", "corruption"}), (4.0, 9.0), _one_folder_lost_after_the_other),
    FaultSequence(frozenset({"wipe", "crash", "partition-isolation"}), (3.0, 6.0), _votes_of_a_lost_folder),
    FaultSequence(frozenset({"add-member", "remove-member", "crash-amid-change"}), (8.0, 14.0), _leader_removed),
    FaultSequence(
        frozenset({"transfer", "slow-disk", "message-loss", "partition-isolation", "pause"}),
        (2.0, 5.0),
        _transfers_in_trouble,
    ),
)
