"""The table that the hunt comes to, as text or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tests.mutants.catalogue import MUTANTS
from tests.mutants.hunt import Quarry

Row = tuple[str, str, str]


def rows(quarries: Sequence[Quarry]) -> list[Row]:
    """(mutant, seeds needed, check)"""
    found: list[Row] = []
    for quarry in quarries:
        if quarry.broken is not None:
            found.append((quarry.name, "-", "could not be looked for"))
        elif quarry.finding is None:
            found.append((quarry.name, f"> {quarry.runs}", "survived"))
        else:
            found.append((quarry.name, str(quarry.finding.seed + 1), quarry.finding.check))
    return found


def text_table(quarries: Sequence[Quarry]) -> str:
    table = [("mutant", "seeds", "caught by"), *rows(quarries)]
    name_width = max(len(name) for name, _, _ in table)
    return "\n".join(f"{name:<{name_width}}  {seeds:>6}  {check}" for name, seeds, check in table)


def markdown_table(quarries: Sequence[Quarry]) -> str:
    lines = ["| mutant | what it breaks | seeds | caught by |", "| --- | --- | ---: | --- |"]
    lines += [f"| `{name}` | {MUTANTS[name].breaks} | {seeds} | {check} |" for name, seeds, check in rows(quarries)]
    return "\n".join(lines)
