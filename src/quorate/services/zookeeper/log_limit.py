"""At most so many log lines of one kind in one interval, so that a bad client cannot fill a disk with them."""

from __future__ import annotations


class LogLimiter:
    """Counts lines by kind; kinds are constants of the program, never text of a client.  Times in milliseconds."""

    __slots__ = ("_interval_ms", "_lines", "_windows")

    def __init__(self, interval_ms: int = 1_000, lines: int = 10) -> None:
        self._interval_ms = interval_ms
        self._lines = lines
        self._windows: dict[str, tuple[int, int]] = {}
        """Kind -> (start of its interval, lines asked for since)."""

    def allow(self, kind: str, now_ms: int) -> int | None:
        """None where the line must not be written, else how many of its kind were dropped before it."""
        start_ms, asked = self._windows.get(kind, (now_ms, 0))
        if now_ms - start_ms >= self._interval_ms:
            self._windows[kind] = (now_ms, 1)
            return max(0, asked - self._lines)
        self._windows[kind] = (start_ms, asked + 1)
        return 0 if asked < self._lines else None
