"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """In the source of `module`, `before` gives way to `after`.  `before` stands there exactly once."""

    module: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug.  `name` says what is done wrong; `breaks` which promise falls with it, and when."""

    name: str
    breaks: str
    changes: tuple[Change, ...]
    service: str = "zookeeper"
    protocol: str = "raft"

    @property
    def campaign(self) -> str:
        """Whose default campaign is to find it."""
        return f"{self.protocol}/{self.service}"

    def modules(self) -> dict[str, None]:
        """What is changed, in order, each once."""
        return dict.fromkeys(change.module for change in self.changes)
