"""A process with one mutant in it: `python -m tests.mutants.worker NAME FIRST COUNT [DURATION_S]`.

Runs the seeds FIRST ... until one finds something, at most COUNT, and prints a line of JSON for each: `{"seed": 3}`, or
with what was found.  Anything else that is printed goes to stderr.  NAME may be CONTROL and a campaign: then no mutant
is applied.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from dataclasses import asdict
from typing import Final

from tests.mutants import apply, campaign
from tests.mutants.catalogue import MUTANTS

CONTROL: Final = "unmutated-"
MEMORY_LIMIT_BYTES: Final = 4 << 30
"""An endless loop that keeps what it makes must not take the machine with it."""


def work(name: str, first: int, count: int, duration_s: float | None) -> None:
    results, sys.stdout = sys.stdout, sys.stderr
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    logging.disable()  # what simulated nodes log is for nobody
    mutant = None if name.startswith(CONTROL) else MUTANTS[name]
    chosen = name.removeprefix(CONTROL) if mutant is None else mutant.campaign
    if mutant is not None:
        apply.apply(mutant)
    campaign.load(chosen)
    if mutant is not None:
        apply.check_applied(mutant)
    for seed in range(first, first + count):
        finding = campaign.run(chosen, seed, duration_s)
        print(json.dumps({"seed": seed} if finding is None else asdict(finding)), file=results, flush=True)
        if finding is not None:
            return


if __name__ == "__main__":
    name, first, count, *duration_s = sys.argv[1:]
    work(name, int(first), int(count), float(duration_s[0]) if duration_s else None)
