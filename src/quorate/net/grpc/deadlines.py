"""The deadlines of calls under way: one timer for all, and nothing to do for the most, which end long before.

Deadlines are rounded up to slots of 10 ms.  A call enters and leaves its slot's dict in constant time; only the slots
stand in a heap.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")
SLOTS_PER_S: Final = 100
MAX_SPARE_SLOTS: Final = 256


class Deadlines(Generic[T]):
    """Calls `expired(item)` for each item whose deadline has passed and that was not removed."""

    def __init__(self, expired: Callable[[T], None]) -> None:
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, dict[T, None]] = {}
        self._order: list[int] = []
        """Heap of the keys of `_slots`, and of some whose slots are empty and gone."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = 0

    def add(self, item: T, deadline_s: float) -> None:
        """`deadline_s` in the loop's time."""
        slot = int(deadline_s * SLOTS_PER_S) + 1
        items = self._slots.get(slot)
        if items is None:
            self._slots[slot] = items = {}
            heapq.heappush(self._order, slot)
            if self._timer is None or slot < self._timer_slot:
                self._arm()
        items[item] = None

    def remove(self, item: T, deadline_s: float) -> None:
        """No effect where it has expired."""
        slot = int(deadline_s * SLOTS_PER_S) + 1
        items = self._slots.get(slot)
        if items is None:
            return
        items.pop(item, None)
        if not items:
            del self._slots[slot]
            # A client may name deadlines that are years away, a different one for each call.
            if len(self._order) > 2 * len(self._slots) + MAX_SPARE_SLOTS:
                self._order = list(self._slots)
                heapq.heapify(self._order)

    def close(self) -> None:
        self._slots.clear()
        self._order.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_slot = self._order[0]
        self._timer = self._loop.call_at(self._timer_slot / SLOTS_PER_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        while self._order and self._order[0] / SLOTS_PER_S <= now_s:
            for item in self._slots.pop(heapq.heappop(self._order), ()):
                self._expired(item)
        if self._order and self._timer is None:
            self._arm()
