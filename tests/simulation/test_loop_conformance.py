"""asyncio's loop, uvloop and the simulated loop do the same, so that no code comes to depend on a difference.

Where the real two differ from each other, the test says so and asks only for what both promise.  Connections are in
test_connection_conformance.py, streams in test_stream_conformance.py; what the simulated loop does not do at all is in
test_scheduler.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from typing import Any

import pytest
import uvloop

from tests.simulation.loops import BuildLoop, is_simulated, is_uvloop, on_every_loop, run

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- callbacks -------------------------------------------------------------------------------


@on_every_loop
def test_callbacks_run_in_order_and_what_they_call_soon_runs_in_the_next_turn(build: BuildLoop) -> None:
    async def work() -> None:
        loop, order = asyncio.get_running_loop(), list[str]()

        def first() -> None:
            order.append("first")
            loop.call_soon(order.append, "of the next turn")

        loop.call_soon(first)
        loop.call_soon(order.append, "second")
        loop.call_soon_threadsafe(order.append, "third")
        assert order == []
        await turns(1)
        assert order == ["first", "second", "third"]
        await turns(1)
        assert order == ["first", "second", "third", "of the next turn"]

    run(build, work())


@on_every_loop
def test_tasks_take_turns(build: BuildLoop) -> None:
    async def work() -> None:
        order = list[str]()

        async def count(name: str) -> None:
            for number in range(3):
                order.append(f"{name}{number}")
                await asyncio.sleep(0)

        await asyncio.gather(count("a"), count("b"))
        assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]

    run(build, work())


@on_every_loop
def test_timers_run_in_order_of_their_times_and_cancelled_ones_do_not(build: BuildLoop) -> None:
    async def work() -> None:
        loop, order = asyncio.get_running_loop(), list[str]()
        now = loop.time()
        loop.call_later(0.012, order.append, "late")
        loop.call_at(now + 0.003, order.append, "first")
        loop.call_at(now + 0.007, order.append, "second")
        cancelled = loop.call_later(0.005, order.append, "cancelled")
        cancelled.cancel()
        soon = loop.call_soon(order.append, "cancelled")
        soon.cancel()
        assert cancelled.cancelled() and soon.cancelled()
        await asyncio.sleep(0.02)
        assert order == ["first", "second", "late"]

    run(build, work())


@on_every_loop
def test_a_timer_may_cancel_another_that_is_due_too(build: BuildLoop) -> None:
    async def work() -> None:
        loop, order = asyncio.get_running_loop(), list[str]()
        other = loop.call_later(0.004, order.append, "cancelled")
        loop.call_later(0.002, other.cancel)
        await asyncio.sleep(0.008)
        assert order == []

    run(build, work())


@on_every_loop
def test_timers_of_the_same_time_all_run(build: BuildLoop) -> None:
    async def work() -> None:
        loop, order = asyncio.get_running_loop(), list[int]()
        when = loop.time() + 0.002
        for number in range(7):
            loop.call_at(when, order.append, number)
        await asyncio.sleep(0.006)
        # asyncio keeps them in a heap by time alone, which is not stable; uvloop rounds each to its milliseconds.
        assert sorted(order) == list(range(7))
        if is_simulated():
            assert order == sorted(order)

    run(build, work())


@on_every_loop
def test_a_timer_of_no_delay_runs_soon_but_not_at_once(build: BuildLoop) -> None:
    async def work() -> None:
        loop, order = asyncio.get_running_loop(), list[str]()
        loop.call_later(0, order.append, "timer")
        loop.call_soon(order.append, "soon")
        loop.call_later(-1, order.append, "overdue")
        assert order == []
        await asyncio.sleep(0.005)
        # uvloop takes the first for a call_soon, asyncio and the simulated loop for a timer that is due.
        assert sorted(order) == ["overdue", "soon", "timer"]
        if not is_uvloop():
            assert order[0] == "soon"

    run(build, work())


@on_every_loop
def test_time_never_goes_back_and_no_timer_is_early(build: BuildLoop) -> None:
    async def work() -> None:
        loop, early = asyncio.get_running_loop(), list[float]()
        # uvloop counts whole milliseconds and rounds.
        tolerance = 0.002 if is_uvloop() else 1e-8

        def check(when: float) -> None:
            if loop.time() < when - tolerance:
                early.append(when - loop.time())

        before = loop.time()
        for number in range(20):
            loop.call_later(number * 0.0007, check, before + number * 0.0007)
        last = before
        while last < before + 0.02:
            await asyncio.sleep(0)
            assert loop.time() >= last
            last = loop.time()
        assert early == []

    run(build, work())


@on_every_loop
def test_a_spinning_task_starves_no_timer(build: BuildLoop) -> None:
    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                while True:  # noqa: ASYNC110 (that is the case)
                    await asyncio.sleep(0)

    run(build, work())


# --- context ---------------------------------------------------------------------------------


@on_every_loop
def test_callbacks_timers_and_tasks_keep_the_context_in_which_they_were_made(build: BuildLoop) -> None:
    async def work() -> None:
        loop, seen = asyncio.get_running_loop(), list[tuple[str, str]]()

        def look(name: str) -> None:
            seen.append((name, VARIABLE.get()))
            VARIABLE.set("changed by a callback")

        async def look_later(name: str) -> None:
            await asyncio.sleep(0.002)
            look(name)

        VARIABLE.set("before")
        other = contextvars.copy_context()
        other.run(VARIABLE.set, "other")
        loop.call_soon(look, "soon")
        loop.call_later(0.001, look, "timer")
        future: asyncio.Future[None] = loop.create_future()
        future.add_done_callback(lambda _: look("future"))
        tasks = [loop.create_task(look_later("task")), loop.create_task(look_later("other task"), context=other)]
        loop.call_soon(look, "other soon", context=other.copy())
        VARIABLE.set("after")
        future.set_result(None)
        await asyncio.wait(tasks)
        assert dict(seen) == {
            "soon": "before",
            "timer": "before",
            "future": "before",
            "task": "before",
            "other task": "other",
            "other soon": "other",
        }
        assert VARIABLE.get() == "after"

    run(build, work())


# --- tasks and what waits --------------------------------------------------------------------


@on_every_loop
def test_cancellation_reaches_a_task_where_it_waits_and_can_be_refused_once(build: BuildLoop) -> None:
    async def work() -> None:
        heard = list[str]()

        async def stubborn() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append("cancelled")
            await asyncio.sleep(0.001)
            return "went on"

        task = asyncio.create_task(stubborn(), name="stubborn")
        assert task.get_name() == "stubborn" and task in asyncio.all_tasks()
        await turns(1)
        task.cancel()
        assert await task == "went on"
        assert heard == ["cancelled"]

        never_began = asyncio.create_task(stubborn())
        never_began.cancel("no more")
        with pytest.raises(asyncio.CancelledError):
            await never_began
        assert heard == ["cancelled"]

    run(build, work())


@on_every_loop
def test_limits_of_time(build: BuildLoop) -> None:
    async def work() -> None:
        loop, ended = asyncio.get_running_loop(), list[str]()

        async def slow() -> str:
            try:
                await asyncio.sleep(5)
            finally:
                ended.append("slow")
            return "never"

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(), 0.003)
        assert ended == ["slow"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.003):
                await slow()
        assert ended == ["slow", "slow"]
        async with asyncio.timeout(5) as limit:
            limit.reschedule(loop.time() + 20)
            assert await asyncio.wait_for(asyncio.sleep(0.001, "in time"), 5) == "in time"
        assert not limit.expired()

    run(build, work())


@on_every_loop
def test_a_shielded_task_outlives_who_waits_for_it(build: BuildLoop) -> None:
    async def work() -> None:
        go_on = asyncio.Event()
        inner = asyncio.create_task(go_on.wait())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.001)
        assert not inner.done()
        go_on.set()
        assert await inner

    run(build, work())


@on_every_loop
def test_gather_and_groups_end_together(build: BuildLoop) -> None:
    async def work() -> None:
        ended = list[str]()

        async def wait(name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        async def fail() -> None:
            await asyncio.sleep(0.001)
            raise LookupError("on purpose")

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(wait("a"))
                group.create_task(wait("b"))
                group.create_task(fail())
        assert [type(error) for error in caught.value.exceptions] == [LookupError]
        # In no order: a group keeps its tasks in a set.
        assert sorted(ended) == ["a", "b"]
        results = await asyncio.gather(fail(), asyncio.sleep(0.002, "fine"), return_exceptions=True)
        assert (type(results[0]), results[1]) == (LookupError, "fine")
        done, pending = await asyncio.wait(
            [asyncio.create_task(asyncio.sleep(delay_s, delay_s)) for delay_s in (0.001, 9)],
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert [task.result() for task in done] == [0.001] and len(pending) == 1
        pending.pop().cancel()

    run(build, work())


@on_every_loop
def test_queues_locks_and_conditions_wake_in_the_order_of_waiting(build: BuildLoop) -> None:
    async def work() -> None:
        order = list[object]()
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        semaphore, condition, event = asyncio.Semaphore(1), asyncio.Condition(), asyncio.Event()

        async def take(name: str) -> None:
            order.append((name, await queue.get()))

        async def hold(name: str) -> None:
            async with semaphore:
                await asyncio.sleep(0.001)
                order.append(name)

        async def notified(name: str) -> None:
            async with condition:
                await condition.wait()
                order.append(name)

        takers = [asyncio.create_task(take(name)) for name in "ab"]
        for number in range(2):
            await queue.put(number)
        await asyncio.gather(*takers)
        await asyncio.gather(*map(hold, "cd"))
        waiting = [asyncio.create_task(notified(name)) for name in "efg"]
        await turns(2)
        async with condition:
            condition.notify(2)
        await asyncio.wait(waiting[:2])
        assert order == [("a", 0), ("b", 1), "c", "d", "e", "f"]
        waiting[2].cancel()
        asyncio.get_running_loop().call_later(0.001, event.set)
        assert await event.wait()

    run(build, work())


# --- errors ----------------------------------------------------------------------------------


@on_every_loop
def test_what_nobody_handles_goes_to_the_exception_handler(build: BuildLoop) -> None:
    async def work() -> None:
        loop, told = asyncio.get_running_loop(), list[dict[str, Any]]()
        loop.set_exception_handler(lambda _, context: told.append(context))
        assert loop.get_exception_handler() is not None
        after = list[str]()
        loop.call_soon(lambda: 1 // 0)
        loop.call_soon(after.append, "goes on")
        empty = dict[str, int]()
        loop.call_later(0.001, lambda: empty["missing"])

        async def fail() -> None:
            raise LookupError("never retrieved")

        task = asyncio.create_task(fail())
        await asyncio.sleep(0.003)
        assert task.done() and after == ["goes on"]
        assert [type(context["exception"]) for context in told] == [ZeroDivisionError, KeyError]
        del task
        gc.collect()
        assert type(told[2]["exception"]) is LookupError
        assert "never retrieved" in told[2]["message"]
        loop.call_exception_handler({"message": "of our own"})
        assert told[3]["message"] == "of our own"

    run(build, work())


# --- the executor ----------------------------------------------------------------------------


@on_every_loop
def test_the_executor_gives_results_and_errors_back(build: BuildLoop) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)
        VARIABLE.set("carried along")
        assert await asyncio.to_thread(VARIABLE.get) == "carried along"
        assert await asyncio.gather(*(asyncio.to_thread(pow, 2, number) for number in range(5))) == [1, 2, 4, 8, 16]

    run(build, work())


@on_every_loop
def test_a_function_in_the_executor_does_not_run_on_the_loop(build: BuildLoop) -> None:
    async def work() -> None:
        ran = list[str]()
        future = asyncio.get_running_loop().run_in_executor(None, ran.append, "aside")
        if is_simulated():
            assert ran == [], "it takes its time, as a thread does"
        await future
        assert ran == ["aside"]
        with pytest.raises(RuntimeError, match="no running event loop"):
            await asyncio.to_thread(asyncio.get_running_loop)

    run(build, work())


@on_every_loop
def test_a_result_from_the_executor_that_nobody_waits_for_any_more_is_dropped(build: BuildLoop) -> None:
    async def work() -> None:
        go = threading.Event()
        if is_simulated():
            go.set()  # no threads here, so nothing may block
        future = asyncio.get_running_loop().run_in_executor(None, go.wait, 5)
        future.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await future
        await asyncio.to_thread(int)

    run(build, work())


# --- life of a loop --------------------------------------------------------------------------


@on_every_loop
def test_a_loop_runs_again_and_again_and_what_is_under_way_waits_meanwhile(build: BuildLoop) -> None:
    with asyncio.Runner(loop_factory=build) as runner:
        loop = runner.get_loop()
        assert not loop.is_running() and not loop.is_closed()
        task = loop.create_task(asyncio.sleep(0.004, "whole"))
        with pytest.raises(LookupError):
            runner.run(raising(LookupError("passed on")))
        assert not task.done()

        async def wait() -> str:
            assert asyncio.get_running_loop() is loop and loop.is_running()
            return await task

        assert runner.run(wait()) == "whole"
    assert loop.is_closed()


async def raising(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error


@on_every_loop
def test_stopping_a_loop_finishes_the_turn(build: BuildLoop) -> None:
    with asyncio.Runner(loop_factory=build) as runner:
        loop, order = runner.get_loop(), list[str]()

        def stop() -> None:
            loop.stop()
            loop.call_soon(order.append, "next turn")

        loop.call_soon(stop)
        loop.call_soon(order.append, "same turn")
        loop.run_forever()
        # uvloop goes through one more turn.
        assert order[0] == "same turn" and (order == ["same turn"] or isinstance(loop, uvloop.Loop))
        with pytest.raises(RuntimeError, match="stopped before Future completed"):
            loop.call_soon(loop.stop)
            loop.run_until_complete(loop.create_future())
        assert order == ["same turn", "next turn"]
        loop.call_soon(order.append, "before it began")
        loop.stop()
        loop.run_forever()
        assert order[2:] == ["before it began"]


@on_every_loop
def test_leaving_a_runner_cancels_what_is_left(build: BuildLoop) -> None:
    ended = list[str]()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            ended.append("tidied up")

    async def work() -> asyncio.Task[None]:
        task = asyncio.create_task(wait())
        await turns(1)
        return task

    with asyncio.Runner(loop_factory=build) as runner:
        task = runner.run(work())
        assert not task.done()
    assert task.cancelled() and ended == ["tidied up"]


@on_every_loop
def test_a_loop_neither_runs_within_another_nor_closes_while_it_runs(build: BuildLoop) -> None:
    async def work() -> None:
        loop, waiting = asyncio.get_running_loop(), asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="running"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match="running"):
            loop.close()
        await waiting

    run(build, work())


@on_every_loop
def test_a_closed_loop_takes_nothing_more(build: BuildLoop) -> None:
    loop = build()
    ran = list[str]()
    loop.call_soon(ran.append, "never")
    loop.close()
    loop.close()
    future: asyncio.Future[None] = asyncio.Future(loop=loop)
    for use in (
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.run_in_executor(None, print),
        lambda: loop.run_until_complete(future),
        loop.run_forever,
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            use()
    assert loop.is_closed() and ran == []
