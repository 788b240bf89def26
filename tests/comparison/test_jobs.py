"""All trials of a comparison."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from quorate.comparison.commits import CommitFigures, CommitSize
from quorate.comparison.crashes import Crash, CrashFigures
from quorate.comparison.jobs import Choice, Task, TaskFailed, compare, gather, perform, tasks_of
from quorate.comparison.partitions import PartitionFigures, partitions_of
from quorate.comparison.profiles import PROFILES, VARIANTS

TINY = Choice(("rack",), ("raft",), 3, commits=CommitSize(3, 20), crashes=1)


def test_every_variant_meets_every_network_crash_and_partition() -> None:
    choice = Choice(nodes=5)
    tasks = tasks_of(choice)
    assert len(set(tasks)) == len(tasks)
    expected = 1 + len(PROFILES) * (1 + len(Crash)) + len(partitions_of(5))
    assert Counter(task.variant for task in tasks) == dict.fromkeys(VARIANTS, expected)


def test_figures_go_where_they_belong() -> None:
    tasks = [Task(TINY, "raft", "rack", crash=Crash.PROCESS), Task(TINY, "raft", "rack", partition=0)]
    tasks += [Task(TINY, "raft", "steps"), Task(TINY, "raft", "rack")]
    found = gather([(task, perform(task)) for task in tasks])
    assert isinstance(found.crashes["rack"][Crash.PROCESS.value]["raft"], CrashFigures)
    assert isinstance(found.partitions[partitions_of(3)[0].name]["raft"], PartitionFigures)
    assert isinstance(found.commits["rack"]["raft"], CommitFigures)
    assert found.steps["raft"].quorum_round_trip_ms == pytest.approx(100)


def test_a_trial_that_fails_is_named() -> None:
    with pytest.raises(TaskFailed, match=r"(?s)raft on nonsense, \w+.*KeyError"):
        compare(replace(TINY, profiles=("nonsense",), variants=("raft",)), lambda done, tasks: None, processes=1)
