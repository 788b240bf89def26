"""The log limiter and the counters: small pure parts of the door."""

from __future__ import annotations

import pytest

from quorate.services.zookeeper.counters import Counters
from quorate.services.zookeeper.log_limit import LogLimiter


def test_the_first_lines_of_an_interval_are_written_and_the_rest_counted() -> None:
    limiter = LogLimiter(interval_ms=1_000, lines=2)
    assert [limiter.allow("a", 0) for _ in range(5)] == [0, 0, None, None, None]
    assert limiter.allow("b", 10) == 0
    assert limiter.allow("a", 999) is None
    assert limiter.allow("a", 1_000) == 4
    assert limiter.allow("a", 1_001) == 0


def test_latency_is_that_of_the_command_that_was_noted() -> None:
    counters = Counters()
    counters.submitted(3, now_ms=100)
    counters.submitted(2, now_ms=150)
    counters.answered(2, now_ms=160)
    assert counters.latency_samples == 0
    counters.answered(1, now_ms=170)
    assert (counters.latency_samples, counters.latency_max_ms) == (1, 70)
    counters.answered(2, now_ms=180)
    counters.submitted(1, now_ms=200)
    counters.answered(1, now_ms=210)
    assert (counters.latency_min_ms, counters.latency_max_ms, counters.latency_average_ms()) == (10, 70, 40)


@pytest.mark.parametrize("count", [0, 1])
def test_no_sample_is_no_latency(count: int) -> None:
    counters = Counters()
    counters.submitted(count, now_ms=0)
    assert counters.latency_average_ms() == 0
