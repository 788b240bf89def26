"""`make mutants`: every deliberate bug must be found by the default campaign.

Before the hunt the code as it is must pass a few seeds, and after it every seed that found a mutant: else it was
not the mutant that was found.  Ends with 1 where a mutant survived or could not be looked for, or the code as it is
failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tests.mutants.catalogue import MUTANTS
from tests.mutants.hunt import Chunk, Hunt, Quarry
from tests.mutants.table import markdown_table, text_table
from tests.mutants.worker import CONTROL

CHUNK_SEEDS: Final = 10
CONTROL_SEEDS: Final = 4
LIMIT_S: Final = 180.0
"""Of real time, for one seed, which takes a few seconds: a mutant that takes so long turns in circles."""


def chunks_of(seeds: int) -> list[Chunk]:
    return [Chunk(first, min(CHUNK_SEEDS, seeds - first)) for first in range(0, seeds, CHUNK_SEEDS)]


def report(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def hunt(quarries: Sequence[Quarry], jobs: int, duration_s: float | None) -> None:
    def command(name: str, chunk: Chunk) -> list[str]:
        duration = [] if duration_s is None else [str(duration_s)]
        return [sys.executable, "-m", "tests.mutants.worker", name, str(chunk.first), str(chunk.count), *duration]

    asyncio.run(Hunt(quarries, command, LIMIT_S, report).run(jobs))


def control(seeds: Mapping[str, Iterable[int]], jobs: int, duration_s: float | None) -> bool:
    """Whether the code as it is passes, by campaign; each seed by itself, so that all that fail are named."""
    quarries = [Quarry(CONTROL + campaign, [Chunk(seed, 1)]) for campaign, own in seeds.items() for seed in own]
    hunt(quarries, jobs, duration_s)
    return all(quarry.finding is None and quarry.broken is None for quarry in quarries)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds may be needed (default: 300)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(MUTANTS), help="these mutants alone")
    parser.add_argument("--duration", type=float, metavar="S", help="simulated seconds of each run")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    jobs, duration_s = options.jobs, options.duration
    names = options.only or list(MUTANTS)
    campaigns = dict.fromkeys(MUTANTS[name].campaign for name in names)
    first = range(min(CONTROL_SEEDS, options.seeds))
    if not control(dict.fromkeys(campaigns, first), jobs, duration_s):
        report("the code as it is fails: mend that first")
        return 1
    quarries = [Quarry(name, chunks_of(options.seeds)) for name in names]
    hunt(quarries, jobs, duration_s)
    catching: dict[str, set[int]] = {campaign: set() for campaign in campaigns}
    for quarry in quarries:
        if quarry.finding is not None:
            catching[MUTANTS[quarry.name].campaign].add(quarry.finding.seed)
    passes = control({campaign: sorted(seeds) for campaign, seeds in catching.items()}, jobs, duration_s)
    print(markdown_table(quarries) if options.markdown else text_table(quarries))
    survivors = [quarry.name for quarry in quarries if quarry.finding is None]
    print(f"\n{len(quarries) - len(survivors)} of {len(quarries)} mutants found")
    if survivors:
        print(f"not found: {', '.join(survivors)}")
    if not passes:
        print("the code as it is fails with seeds that found mutants: what they found may not be the mutant")
    return 1 if survivors or not passes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
