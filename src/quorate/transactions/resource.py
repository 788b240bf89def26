"""What a participant guards: values by key, which operations read and write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Unacceptable(Exception):
    """The operation cannot be done on the present values, or at all: the participant votes no with this reason."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operation would do to the present values."""

    reads: frozenset[str] = frozenset()
    """Keys whose values the plan rests on, written ones or not.  They are locked with `writes`."""
    writes: Mapping[str, bytes | None] = field(default_factory=dict)
    """New value by key; None deletes."""
    result: bytes = b""


class Resource(Protocol):
    """Deterministic: the same operations on the same values give the same plans.  Only committed writes come in."""

    def plan(self, operation: bytes) -> Plan:
        """Changes nothing.  Raises Unacceptable, and nothing else whatever the bytes."""
        ...

    def apply(self, writes: Mapping[str, bytes | None]) -> None: ...
