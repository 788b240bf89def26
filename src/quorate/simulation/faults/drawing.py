"""What goes wrong in a run, drawn from its seed.

Runs differ in kind, not only in their dates (Groce and others, "Swarm Testing", ISSTA 2012): a fault that is
left out lets others do what they could not do beside it.  So each seed draws its own faults, and how
often each comes.  They come in bouts; between two bouts nothing new goes wrong and the cluster
recovers, because without progress there is nothing that could be lost.

Some accidents are sequences of faults whose dates hang together, which random dates would seldom
hit.  `sequences` has those; they are drawn where all of their parts are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from quorate.simulation.faults import FAULTS
from quorate.simulation.faults.base import Setting
from quorate.simulation.faults.sequences import SEQUENCES
from quorate.simulation.plan import Injection

FIRST_BOUT_S = (0.2, 4.0)
BOUT_S = (1.0, 8.0)
QUIET_S = (1.5, 6.0)
PACES = (0.4, 0.7, 1.0, 2.0)
"""What the quiet is multiplied with: one of them for a whole run."""
COUNTS = (1, 2, 3, 5, 8)
"""Most faults in a bout: one of them for a whole run."""
SINGLE_SHARE, ALL_SHARE = 0.15, 0.15
"""Of the seeds: those with one fault only, and those with all of them."""
SEQUENCE_SHARE = 0.35
"""Of the bouts."""
MILD_SHARE = 0.3
"""Of the faults that can bear it: how often they go on for the whole run, mildly."""


def draw_injections(seed: int | str, setting: Setting, names: Sequence[str]) -> tuple[Injection, ...]:
    """The faults of a run, in the order of their beginnings.  `setting` spans the safety phase."""
    random = Random(f"{seed}/faults")
    wanted = [name for name in FAULTS if name in names]
    if not wanted or setting.end_s <= setting.begin_s:
        return ()
    chosen = _choose(random, wanted)
    weights = {name: 0.05 + random.random() ** 2 for name in chosen}
    per_bout, pace = random.choice(COUNTS), random.choice(PACES)
    found = _draw_mild(random, setting, chosen)
    sequences = [
        sequence
        for sequence in SEQUENCES
        if len(chosen) > 1 and sequence.parts <= set(wanted) and sequence.suits(setting)
    ]
    at_s = setting.begin_s + random.uniform(*FIRST_BOUT_S)
    while at_s < setting.end_s - BOUT_S[0]:
        sequence = random.choice(sequences) if sequences and random.random() < SEQUENCE_SHARE else None
        length_s = random.uniform(*(sequence.length_s if sequence is not None else BOUT_S))
        bout = replace(setting, begin_s=at_s, end_s=min(at_s + length_s, setting.end_s))
        if sequence is None:
            found += _draw_bout(random, bout, chosen, weights, random.randint(1, per_bout))
        elif bout.end_s - bout.begin_s >= sequence.length_s[0]:
            found += sequence.draw(random, bout)
        at_s = bout.end_s + pace * random.uniform(*QUIET_S)
    return tuple(sorted(found, key=lambda injection: injection.at_s))


def _choose(random: Random, wanted: list[str]) -> list[str]:
    kind = random.random()
    if kind < SINGLE_SHARE:
        return [random.choice(wanted)]
    if kind < SINGLE_SHARE + ALL_SHARE:
        return wanted
    share = random.uniform(0.15, 0.75)
    return [name for name in wanted if random.random() < share] or [random.choice(wanted)]


def _draw_mild(random: Random, setting: Setting, chosen: list[str]) -> list[Injection]:
    found = []
    for name in chosen:
        amounts = FAULTS[name].mild
        if amounts is not None and random.random() < MILD_SHARE:
            at_s = setting.begin_s
            found.append(Injection(name, at_s, setting.end_s - at_s, "all", random.uniform(*amounts)))
    return found


def _draw_bout(
    random: Random, bout: Setting, names: list[str], weights: dict[str, float], count: int
) -> list[Injection]:
    if not names:
        return []
    drawn = random.choices(names, [weights[name] for name in names], k=count)
    return [injection for name in drawn for injection in FAULTS[name].draw(random, bout)]
