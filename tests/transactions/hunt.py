"""A process with one mutant in it: `python -m tests.transactions.hunt NAME SEEDS`.

Prints the first seed of the shop that finds it, and what was seen; or nothing.
"""

from __future__ import annotations

import sys

from tests.mutants import apply
from tests.transactions.mutants import MUTANTS


def hunt(name: str, seeds: int) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    apply.apply(mutant)
    from tests.transactions import shop  # not before the mutant is in place

    apply.check_applied(mutant)
    for seed in range(seeds):
        try:
            shop.run(seed)
        except Exception as error:
            # Most that are no Violation are assertions of the code under test.
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}")
            return


if __name__ == "__main__":
    hunt(sys.argv[1], int(sys.argv[2]))
