"""The runner, with workers that only say what a real one would."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping

from tests.mutants.hunt import HANG, Chunk, Hunt, Quarry
from tests.mutants.table import rows

FAKE_WORKER = """
import json, select, sys
at, first, count = map(int, sys.argv[1:])
for seed in range(first, first + count):
    if seed == at - 1000:
        select.select([], [], [])  # for ever
    if seed == at - 2000:
        sys.exit("no such module")
    if seed >= at:
        print(json.dumps({"seed": seed, "check": "election safety", "text": "two leaders"}))
        break
    print(json.dumps({"seed": seed}), flush=True)
"""
"""Its first argument is the seed from which on it finds something; 1000 more: it hangs there; 2000 more: it fails."""
NEVER = 900


def hunt(found_at: Mapping[str, int], chunks: list[Chunk], jobs: int, limit_s: float = 60.0) -> dict[str, Quarry]:
    def command(name: str, chunk: Chunk) -> list[str]:
        return [sys.executable, "-I", "-c", FAKE_WORKER, str(found_at[name]), str(chunk.first), str(chunk.count)]

    quarries = [Quarry(name, chunks) for name in found_at]
    asyncio.run(Hunt(quarries, command, limit_s, lambda _: None).run(jobs))
    return {quarry.name: quarry for quarry in quarries}


def test_the_lowest_seed_counts_however_many_processes_look() -> None:
    chunks = [Chunk(0, 3), Chunk(3, 3), Chunk(6, 2)]
    for jobs in (1, 4):
        quarries = hunt({"soon": 0, "late": 4, "last": 7, "never": NEVER}, chunks, jobs)
        assert [row[1:] for row in rows(list(quarries.values()))] == [
            ("1", "election safety"),
            ("5", "election safety"),
            ("8", "election safety"),
            ("> 8", "survived"),
        ]


def test_one_that_was_found_is_not_looked_for_any_more() -> None:
    quarry = hunt({"soon": 1}, [Chunk(0, 2), Chunk(2, 2), Chunk(4, 2)], 1)["soon"]
    assert quarry.runs == 2


def test_a_run_without_end_is_a_finding() -> None:
    finding = hunt({"stuck": 1000}, [Chunk(0, 2)], 1, limit_s=0.2)["stuck"].finding
    assert finding is not None and (finding.seed, finding.check) == (0, HANG)


def test_a_worker_that_fails_has_found_nothing() -> None:
    quarry = hunt({"bad": 2001}, [Chunk(0, 2), Chunk(2, 2)], 1)["bad"]
    assert quarry.finding is None
    assert quarry.broken is not None and "no such module" in quarry.broken
    assert rows([quarry]) == [("bad", "-", "could not be looked for")]
