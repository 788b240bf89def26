"""What clients were told about their writes, and whether what is found later agrees with it.

A write is *acknowledged*, or its outcome is *unknown* because the connection was lost.  An
acknowledged write must be there for good.  An unknown one is there or not, but in its place:
a write never overtakes an earlier one of its session, nor comes about after a later one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Found:
    """A znode as it is read at the end."""

    number: int
    version: int
    mzxid: int


@dataclass(slots=True)
class Attempt:
    """One setData of a value that holds `number`.  Version and mzxid stay None where nobody acknowledged it."""

    number: int
    version: int | None = None
    mzxid: int | None = None


@dataclass(slots=True)
class SetHistory:
    """All sets of one znode, in the order in which its only writer issued them.

    The znode was created with number 0, so that its version is 0 before the first set.
    """

    path: str
    attempts: list[Attempt] = field(default_factory=list)

    def begin(self) -> Attempt:
        attempt = Attempt(len(self.attempts) + 1)
        self.attempts.append(attempt)
        return attempt

    def acknowledged(self) -> int:
        return sum(attempt.version is not None for attempt in self.attempts)

    def unknown(self) -> int:
        return len(self.attempts) - self.acknowledged()

    def problems(self, found: Found) -> Iterator[str]:
        """Everything that contradicts what the writer was told."""
        number = version = mzxid = 0
        unknown = 0
        for attempt in self.attempts:
            if attempt.version is None or attempt.mzxid is None:
                unknown += 1
                continue
            if not version + 1 <= attempt.version <= version + 1 + unknown:
                yield (
                    f"{self.path}: set {attempt.number} was acknowledged as version {attempt.version}, "
                    f"after version {version} and {unknown} sets of unknown outcome"
                )
            if attempt.mzxid <= mzxid:
                yield f"{self.path}: set {attempt.number} has zxid {attempt.mzxid:#x}, after zxid {mzxid:#x}"
            number, version, mzxid = attempt.number, attempt.version, attempt.mzxid
            unknown = 0
        if found.number < number:
            yield f"{self.path}: set {number} was acknowledged and is lost; found is set {found.number}"
        elif found.number == number:
            if number and (found.version, found.mzxid) != (version, mzxid):
                yield (
                    f"{self.path}: set {number} was acknowledged as version {version}, zxid {mzxid:#x}; "
                    f"found is version {found.version}, zxid {found.mzxid:#x}"
                )
        elif found.number > len(self.attempts):
            yield f"{self.path}: set {found.number} is found, which nobody made"
        elif not version + 1 <= found.version <= version + unknown:
            yield (
                f"{self.path}: found is version {found.version}, "
                f"after version {version} and {unknown} sets of unknown outcome"
            )


@dataclass(slots=True)
class CreateHistory:
    """Sequential znodes created under one parent; the data of each says which attempt made it."""

    parent: str
    attempts: int = 0
    acknowledged: dict[str, int] = field(default_factory=dict)
    """Path -> number of the attempt."""

    def unknown(self) -> int:
        return self.attempts - len(self.acknowledged)

    def problems(self, found: dict[str, int]) -> Iterator[str]:
        """`found` maps the path of each child to the number in its data."""
        for path, number in self.acknowledged.items():
            if path not in found:
                yield f"{path}: its creation was acknowledged, and it is lost"
            elif found[path] != number:
                yield f"{path}: was created by attempt {number}, and holds {found[path]}"
        numbers = sorted(found.values())
        if len(set(numbers)) != len(numbers):
            twice = sorted({number for number in numbers if numbers.count(number) > 1})
            yield f"{self.parent}: attempts {twice} created more than one znode each"
        foreign = [number for number in numbers if not 1 <= number <= self.attempts]
        if foreign:
            yield f"{self.parent}: holds {foreign}, which nobody wrote"
