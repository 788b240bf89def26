"""The one place that knows how the default campaign is run.

Nothing of it is imported before it is needed: a mutant must be in place by then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_TEXT = 4000
"""Characters of what is told about a finding: it travels as one line."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What went wrong in the run of a seed."""

    seed: int
    check: str
    text: str


def load() -> None:
    """Import everything that a run needs: an error here is no finding."""
    import quorate.simulation.run  # noqa: F401


def run(service: str, seed: int, duration_s: float | None) -> Finding | None:
    """One run of a service's default campaign; None where all is well.

    An exception that is no violation is a finding too.
    """
    from quorate.simulation.run import Options, run_seed

    options = Options(service=service)
    if duration_s is not None:
        options = replace(options, duration_s=duration_s)
    try:
        violation = run_seed(seed, options).violation
    except Exception as error:
        # Most are assertions of the code under test.
        return Finding(seed, f"error {type(error).__name__}", str(error)[:MAX_TEXT])
    return None if violation is None else Finding(seed, violation.check, violation.text[:MAX_TEXT])
