"""The shop from many seeds; and with a bug in it, which the same seeds find."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.two_phase_commit import MUTANTS
from tests.transactions.shop import CLIMATES, Climate, run

ROOT = Path(__file__).parents[2]
SEEDS = 300

EVER = ("committed", "aborted after a promise", "begun", "told", "audits", "refused")


@pytest.mark.parametrize("climate", CLIMATES, ids=lambda climate: climate.name)
def test_all_or_nothing_whatever_happens(climate: Climate) -> None:
    counts: Counter[str] = Counter()
    for seed in range(CLIMATES.index(climate), SEEDS + len(CLIMATES), len(CLIMATES)):
        counts += run(seed).counts
    # A run in which nothing happens would check nothing.
    expected = {*EVER}
    expected |= {"lost"} if climate.loss else set()
    expected |= {"repeated"} if climate.repetition else set()
    expected |= {"late"} if climate.lateness else set()
    if climate.crash:
        expected |= {"crashed with unsynced records", "restarted in doubt", "restarted with commits"}
    expected |= {"taken over", "fenced"} if climate.take_over else set()
    assert {name for name in expected if counts[name] < 5} == set()


def test_the_same_seed_runs_the_same_way() -> None:
    for seed in range(len(CLIMATES)):
        first, second = run(seed), run(seed)
        assert first.counts == second.counts
        assert [host.log for host in first.world.hosts.values()] == [host.log for host in second.world.hosts.values()]


def test_there_are_enough_mutants_and_no_two_of_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 8


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_seeds_find_the_bug(mutant: Mutant) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants.worker", mutant.name, "0", str(SEEDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "check" in done.stdout, f"{SEEDS} seeds found nothing: {mutant.breaks}"
