"""What a door counts for srvr, stat and mntr."""

from __future__ import annotations


class Counters:
    """Requests and events since the start, and the latency of a sample of the writes, in milliseconds.

    Commands of a door are answered in the order in which they were submitted, so the
    latency of one is known without a time in each: note how many had been submitted and
    when, and look again when so many are answered.  One is measured at a time.
    """

    __slots__ = (
        "_answered",
        "_probe_ms",
        "_probe_number",
        "_submitted",
        "events",
        "latency_max_ms",
        "latency_min_ms",
        "latency_samples",
        "latency_sum_ms",
        "requests",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.events = 0
        self.latency_min_ms = 0
        self.latency_max_ms = 0
        self.latency_sum_ms = 0
        self.latency_samples = 0
        self._submitted = 0
        self._answered = 0
        self._probe_number = 0
        self._probe_ms = 0

    def submitted(self, count: int, now_ms: int) -> None:
        self._submitted += count
        if self._probe_number <= self._answered:
            self._probe_number = self._submitted
            self._probe_ms = now_ms

    def answered(self, count: int, now_ms: int) -> None:
        """Applied, refused or lost."""
        before = self._answered
        self._answered = before + count
        if before < self._probe_number <= self._answered:
            latency_ms = now_ms - self._probe_ms
            first = self.latency_samples == 0
            self.latency_min_ms = latency_ms if first else min(latency_ms, self.latency_min_ms)
            self.latency_max_ms = max(latency_ms, self.latency_max_ms)
            self.latency_sum_ms += latency_ms
            self.latency_samples += 1

    def latency_average_ms(self) -> float:
        return self.latency_sum_ms / self.latency_samples if self.latency_samples else 0.0
