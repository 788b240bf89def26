"""The deadlines of calls, in simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.net.grpc.deadlines import MAX_SPARE_SLOTS, Deadlines
from quorate.simulation.scheduler import Simulation


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    simulation = Simulation()
    simulation.run(simulation.boot("10.0.0.1"), work())


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=30))
def test_each_that_is_not_removed_expires_once_and_not_before_its_time(plan: list[tuple[float, bool]]) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        expired: list[tuple[int, float]] = []
        deadlines = Deadlines[int](lambda item: expired.append((item, loop.time())))
        start_s = loop.time()
        for item, (delay_s, _) in enumerate(plan):
            deadlines.add(item, start_s + delay_s)
        for item, (delay_s, stays) in enumerate(plan):
            if not stays:
                deadlines.remove(item, start_s + delay_s)
        await asyncio.sleep(3)
        assert sorted(item for item, _ in expired) == [item for item, (_, stays) in enumerate(plan) if stays]
        for item, at_s in expired:
            assert 0 <= at_s - start_s - plan[item][0] < 0.05

    run(work)


def test_an_earlier_deadline_that_comes_later_is_heard_first() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        expired: list[str] = []
        deadlines = Deadlines[str](expired.append)
        now_s = loop.time()
        deadlines.add("late", now_s + 2)
        deadlines.add("early", now_s + 1)
        await asyncio.sleep(1.5)
        assert expired == ["early"]
        deadlines.close()
        await asyncio.sleep(1)
        assert expired == ["early"]

    run(work)


def test_calls_that_ended_long_before_their_deadlines_leave_nothing() -> None:
    async def work() -> None:
        now_s = asyncio.get_running_loop().time()
        deadlines = Deadlines[int](lambda _: pytest.fail("it was removed"))
        for item in range(10_000):
            deadlines.add(item, now_s + 1000 + item)
            deadlines.remove(item, now_s + 1000 + item)
        assert len(deadlines._order) <= 2 * MAX_SPARE_SLOTS
        assert not deadlines._slots
        deadlines.close()

    run(work)
