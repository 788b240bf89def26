"""All trials of a comparison as tasks, which worker processes can carry out in any order, and what came of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from quorate.comparison.commits import CommitFigures, CommitSize, measure_commits
from quorate.comparison.crashes import Crash, CrashFigures, measure_crashes
from quorate.comparison.partitions import Partition, PartitionFigures, measure_partition, partitions_of
from quorate.comparison.profiles import PROFILES, STEPS, VARIANTS, variant_of
from quorate.comparison.stage import Setting
from quorate.simulation.workers import Lost, Workers

TASK_LIMIT_S: Final = 300.0
"""Of real time; each takes some seconds."""
LOOK_S: Final = 0.1

Figures: TypeAlias = CommitFigures | CrashFigures | PartitionFigures


@dataclass(frozen=True, slots=True)
class Choice:
    """What is compared, and how much of it."""

    profiles: tuple[str, ...] = tuple(PROFILES)
    variants: tuple[str, ...] = tuple(VARIANTS)
    nodes: int = 5
    seed: int = 0
    commits: CommitSize = field(default_factory=CommitSize)
    crashes: int = 15
    """Of each kind."""


@dataclass(frozen=True, slots=True)
class Task:
    """One trial.  Exactly one of `crash` and `partition` is set, or none: then it is of commits."""

    choice: Choice
    variant: str
    profile: str
    """`STEPS.name`, or a name in PROFILES."""
    crash: Crash | None = None
    partition: int | None = None
    """Index in `partitions`."""


@dataclass(slots=True)
class Found:
    """All figures.  Each by variant, within what is named first."""

    steps: dict[str, CommitFigures] = field(default_factory=dict)
    commits: dict[str, dict[str, CommitFigures]] = field(default_factory=dict)
    """By profile."""
    crashes: dict[str, dict[str, dict[str, CrashFigures]]] = field(default_factory=dict)
    """By profile and kind of crash."""
    partitions: dict[str, dict[str, PartitionFigures]] = field(default_factory=dict)
    """By partition."""


class TaskFailed(Exception):
    """A trial did not come to its end; the text says which, and why."""


def tasks_of(choice: Choice) -> list[Task]:
    """In the order in which figures are shown."""
    tasks = [Task(choice, variant, STEPS.name) for variant in choice.variants]
    tasks += [Task(choice, variant, profile) for profile in choice.profiles for variant in choice.variants]
    tasks += [
        Task(choice, variant, profile, crash=crash)
        for profile in choice.profiles
        for crash in Crash
        for variant in choice.variants
    ]
    tasks += [
        Task(choice, variant, PARTED_ON, partition=number)
        for number in range(len(partitions(choice)))
        for variant in choice.variants
    ]
    return tasks


def partitions(choice: Choice) -> list[Partition]:
    """Sizes of quorums that were given are meant for `choice.nodes`, so with them none of a cluster of another size."""
    given = any(variant_of(name).given_sizes is not None for name in choice.variants)
    return [of for of in partitions_of(choice.nodes) if not given or of.nodes in (None, choice.nodes)]


PARTED_ON: Final = "rack"
"""Who can write does not depend on how far apart nodes are."""


def perform(task: Task) -> Figures:
    """The same task gives the same figures, in any process."""
    choice = task.choice
    profile = STEPS if task.profile == STEPS.name else PROFILES[task.profile]
    # The same seed for all variants: they meet the same delays as far as they do the same.
    setting = Setting(variant_of(task.variant), choice.nodes, profile, f"{choice.seed}/{profile.name}")
    if task.crash is not None:
        return measure_crashes(setting, task.crash, choice.crashes)
    if task.partition is not None:
        partition = partitions(choice)[task.partition]
        nodes = partition.nodes or choice.nodes
        return measure_partition(Setting(setting.variant, nodes, profile, setting.seed), partition)
    return measure_commits(setting, choice.commits)


def compare(choice: Choice, progress: Callable[[int, int], None], processes: int = 0) -> Found:
    """Carry all trials out, on so many processes (0: as many as there are processors).  Raises TaskFailed.

    `progress` is told how many are done, of how many.
    """
    tasks = tasks_of(choice)
    done: dict[Task, Figures] = {}
    # Those that take longest first, so that no process is left alone with one at the end.
    waiting = sorted(tasks, key=_is_long)
    with Workers(processes or os.cpu_count() or 1, perform) as workers:
        while len(done) < len(tasks):
            for worker in workers.idle:
                if waiting:
                    workers.begin(worker, waiting.pop(), TASK_LIMIT_S)
            for _, task, result in workers.wait(LOOK_S):
                if isinstance(result, Lost):
                    raise TaskFailed(f"{_name(task)}: {result.text}")
                done[task] = result
            progress(len(done), len(tasks))
    return gather((task, done[task]) for task in tasks)


def _is_long(task: Task) -> bool:
    return task.profile in ("continents", STEPS.name)


def _name(task: Task) -> str:
    what = task.crash.value if task.crash is not None else "commits"
    if task.partition is not None:
        what = partitions(task.choice)[task.partition].name
    return f"{task.variant} on {task.profile}, {what}"


def gather(results: Iterator[tuple[Task, Figures]] | Sequence[tuple[Task, Figures]]) -> Found:
    found = Found()
    for task, figures in results:
        if isinstance(figures, CrashFigures):
            by_kind = found.crashes.setdefault(task.profile, {}).setdefault(figures.kind, {})
            by_kind[task.variant] = figures
        elif isinstance(figures, PartitionFigures):
            found.partitions.setdefault(figures.partition, {})[task.variant] = figures
        elif task.profile == STEPS.name:
            found.steps[task.variant] = figures
        else:
            found.commits.setdefault(task.profile, {})[task.variant] = figures
    return found
