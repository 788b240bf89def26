"""When to sync inline and when aside.

Inline is the faster way while the disk is fast, and it stops the loop for as long as the
disk takes.  Aside costs a hop through a thread, whose completion waits for its turn on a
busy loop, and lets heartbeats go on while the disk is slow.  Figures in
docs/performance.md, "How to sync".
"""

from __future__ import annotations

from typing import Final

SLOW_MS: Final = 5.0
"""Inline syncs that take longer on the average stop the loop too much."""
FAST_MS: Final = 2.0
_WEIGHT: Final = 0.125
_FIRST_PROBE_AFTER: Final = 32
_MAX_PROBE_AFTER: Final = 4096


class SyncPolicy:
    """Feed it every sync's duration; ask it before every sync.

    While aside, a duration includes the hop and the loop's own delays, so it says little
    of the disk when it is high, and proves a fast disk when it is low.  So now and then
    one sync is made inline as a probe, but never right after an aside sync that took long:
    a disk that hangs is not probed at the price of the heartbeats.
    """

    def __init__(self) -> None:
        self._estimate_ms = 0.0
        self._aside = False
        self._probing = False
        self._probe_after = _FIRST_PROBE_AFTER
        self._until_probe = 0

    @property
    def aside(self) -> bool:
        """True where the next sync should not stop the loop."""
        return self._aside and not self._probing

    @property
    def estimate_ms(self) -> float:
        """Moving average of the syncs' durations."""
        return self._estimate_ms

    def observe(self, duration_ms: float) -> None:
        """The sync that was made as `aside` said took this long."""
        self._estimate_ms += _WEIGHT * (duration_ms - self._estimate_ms)
        if self._probing:
            self._end_probe(duration_ms)
        elif not self._aside:
            if self._estimate_ms > SLOW_MS:
                self._aside = True
                self._until_probe = self._probe_after
        else:
            self._until_probe -= 1
            self._probing = self._until_probe <= 0 and duration_ms < 4 * SLOW_MS

    def _end_probe(self, duration_ms: float) -> None:
        self._probing = False
        if duration_ms < FAST_MS:
            self._aside = False
            self._estimate_ms = duration_ms
            self._probe_after = _FIRST_PROBE_AFTER
        else:
            self._probe_after = min(2 * self._probe_after, _MAX_PROBE_AFTER)
            self._until_probe = self._probe_after
