"""The one place that knows how the default campaigns are run.

There is one for each protocol and service, named "zab/zookeeper" and so on, and one for two-phase commit.
Nothing of them is imported before it is needed: a mutant must be in place by then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from quorate.simulation.violation import Violation

SHOP: Final = "two_phase_commit/shop"
"""Its runs are those of `tests.transactions.shop`."""
MAX_TEXT = 4000
"""Characters of what is told about a finding: it travels as one line."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What went wrong in the run of a seed."""

    seed: int
    check: str
    text: str


def load(campaign: str) -> None:
    """Import everything that a run needs: an error here is no finding."""
    if campaign == SHOP:
        import tests.transactions.shop  # noqa: F401
    else:
        import quorate.simulation.run  # noqa: F401


def run(campaign: str, seed: int, duration_s: float | None) -> Finding | None:
    """One run of a default campaign; None where all is well.

    An exception that is no violation is a finding too.
    """
    from quorate.simulation.violation import Violation

    try:
        violation = _run_shop(seed) if campaign == SHOP else _simulate(campaign, seed, duration_s)
    except Violation as raised:
        violation = raised
    except Exception as error:
        # Most are assertions of the code under test.
        return Finding(seed, f"error {type(error).__name__}", str(error)[:MAX_TEXT])
    return None if violation is None else Finding(seed, violation.check, violation.text[:MAX_TEXT])


def _simulate(campaign: str, seed: int, duration_s: float | None) -> Violation | None:
    from quorate.simulation.run import Options, run_seed

    protocol, service = campaign.split("/")
    options = Options(protocol=protocol, service=service)
    if duration_s is not None:
        options = replace(options, duration_s=duration_s)
    return run_seed(seed, options).violation


def _run_shop(seed: int) -> Violation | None:
    from tests.transactions import shop

    shop.run(seed)
    return None
