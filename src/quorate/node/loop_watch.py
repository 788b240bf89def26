"""How long the event loop stands still: nothing else says as plainly that a node cannot keep its promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

INTERVAL_S: Final = 0.005
STALL_MS: Final = 50.0
"""A stop from here on is told: what is shorter a busy node has all the time, and nobody notices."""


class LoopWatch:
    """Measures how much later than asked a short timer comes."""

    def __init__(self, on_stall: Callable[[float], None]) -> None:
        """`on_stall(stop_ms)` is called, on the loop, after each stop of at least STALL_MS."""
        self.longest_stop_ms = 0.0
        self._on_stall = on_stall
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._arm()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def reset(self) -> None:
        self.longest_stop_ms = 0.0

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + INTERVAL_S
        self._handle = loop.call_at(due_s, self._rang, due_s)

    def _rang(self, due_s: float) -> None:
        stop_ms = (asyncio.get_running_loop().time() - due_s) * 1000
        self.longest_stop_ms = max(self.longest_stop_ms, stop_ms)
        self._arm()
        if stop_ms >= STALL_MS:
            self._on_stall(stop_ms)
