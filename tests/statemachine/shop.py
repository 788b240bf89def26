"""What users write."""

from __future__ import annotations

import quorate


class SoldOut(quorate.CommandError):
    """There is less than was asked for."""


class Stock(quorate.StateMachine):
    """What is in the shop, and when it changed last."""

    items: dict[str, int]
    changed_ms: int

    def __init__(self) -> None:
        self.items = {}
        self.changed_ms = 0

    @quorate.command
    def add(self, item: str, count: int = 1) -> int:
        self.items[item] = self.items.get(item, 0) + count
        self.changed_ms = self.now_ms
        return self.items[item]

    @quorate.command
    def take(self, item: str, count: int) -> int:
        if self.items.get(item, 0) < count:
            raise SoldOut(item, count)
        return self.add(item, -count)

    @quorate.command
    def share(self, item: str, among: int) -> int:
        """Does not think of everything."""
        return self.items[item] // among

    @quorate.command
    def everything(self) -> dict[str, int]:
        return self.items

    def count(self, item: str) -> int:
        return self.items.get(item, 0)
