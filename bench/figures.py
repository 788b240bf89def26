"""Measured numbers with their targets, and how much memory a process has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster import BenchmarkError

MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """One measured number of one node, with the target that it must not pass, where it has one."""

    node: int
    what: str
    value: float
    unit: str
    target: float | None = None

    def __str__(self) -> str:
        verdict = ""
        if self.target is not None:
            verdict = f"  target {self.target:g}: {'met' if self.value <= self.target else 'MISSED'}"
        return f"node {self.node}  {self.what:<58} {self.value:>10,.1f} {self.unit:<6}{verdict}"


class Report:
    """Prints each figure as it comes and keeps it."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        print(figure, flush=True)


def memory_mib(process_id: int, field: str = "VmRSS") -> float:
    """A field of /proc/PID/status in MiB: VmRSS is resident now, VmHWM its peak."""
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise BenchmarkError(f"/proc/{process_id}/status has no {field}")
