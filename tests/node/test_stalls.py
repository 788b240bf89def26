"""When a node says that it stalls, and when it hands over for it.  Times are scripts; T is 400 ms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from quorate.node.loop_watch import LoopWatch
from quorate.node.metrics import Metrics
from quorate.node.stalls import (
    AFTER_ELECTION_MS,
    AFTER_HAND_OVER_MS,
    MAX_AFTER_HAND_OVER_MS,
    WINDOW_MS,
    HandOver,
    Stall,
    StallDetector,
)

TICK_MS = 50


class Script:
    """A detector and the time.  Lines that it wants logged gather in `lines`."""

    def __init__(self) -> None:
        self.metrics = Metrics(["zookeeper"])
        self.stalls = StallDetector(400, self.metrics)
        self.now_ms = 1_000
        self.lines: list[str] = []
        self.tick()

    def tick(self) -> None:
        self.lines += self.stalls.tick(self.now_ms)

    def turn_for(self, duration_ms: int) -> None:
        """The loop turns, with ticks on time."""
        for _ in range(duration_ms // TICK_MS):
            self.now_ms += TICK_MS
            self.tick()

    def stop_for(self, stop_ms: int) -> None:
        """The loop stands still; then the watch's timer rings, and the node's tick comes."""
        self.now_ms += stop_ms
        self.stalls.loop_stopped(self.now_ms, stop_ms)
        self.tick()

    def sync_inline(self, duration_ms: int) -> None:
        self.now_ms += duration_ms
        self.stalls.sync_ended(self.now_ms, duration_ms)
        if duration_ms >= 50:
            self.stalls.loop_stopped(self.now_ms, duration_ms)
        self.tick()

    def sync_aside(self, duration_ms: int) -> None:
        self.stalls.sync_began(self.now_ms)
        self.turn_for(duration_ms)
        self.stalls.sync_ended(self.now_ms, duration_ms)
        self.tick()

    def asked(self, others_go_on: bool = True) -> HandOver | None:
        return self.stalls.should_hand_over(self.now_ms, others_go_on)

    def stop_twice(self) -> None:
        self.stop_for(300)
        self.turn_for(1_000)
        self.stop_for(300)


# --- what is logged ---------------------------------------------------------------------------


def test_a_stop_of_the_loop_is_one_line() -> None:
    script = Script()
    script.stop_for(312)
    assert script.lines == ["the loop stood still for 312 ms"]
    script.turn_for(20_000)
    assert len(script.lines) == 1


def test_short_stops_are_counted_and_not_told() -> None:
    script = Script()
    script.stop_for(60)
    assert script.lines == []
    assert script.metrics.loop_stall.count == 1


def test_further_stops_wait_and_are_summed_up() -> None:
    script = Script()
    for stop_ms in (312, 200, 1_800, 110):
        script.stop_for(stop_ms)
        script.turn_for(1_000)
    assert len(script.lines) == 1
    script.turn_for(10_000)
    assert script.lines[1:] == ["the loop stood still 3 times since the last such line, 1.8 s at the longest"]


def test_a_slow_inline_sync_is_the_disks_and_not_the_loops() -> None:
    script = Script()
    script.sync_inline(1_800)
    assert script.lines == ["the disk took 1.8 s for one sync of the log"]
    assert (script.metrics.slow_syncs, script.metrics.loop_stall.count, script.metrics.log_sync.count) == (1, 1, 1)


def test_what_the_loop_did_beside_a_slow_inline_sync_is_its_own() -> None:
    script = Script()
    script.stalls.sync_ended(script.now_ms, 150)
    script.stop_for(900)
    assert script.lines == ["the loop stood still for 900 ms", "the disk took 150 ms for one sync of the log"]


def test_a_slow_inline_sync_does_not_excuse_a_later_stop() -> None:
    script = Script()
    script.stalls.sync_ended(script.now_ms, 400)  # no stop told: the watch is off, or was late
    script.turn_for(1_000)
    script.stop_for(400)
    assert "the loop stood still for 400 ms" in script.lines


def test_a_sync_that_hangs_is_told_of_once_before_it_ends() -> None:
    script = Script()
    script.stalls.sync_began(script.now_ms)
    script.turn_for(5_000)
    assert script.lines == ["the disk has not finished a sync of the log that began 1.0 s ago"]
    script.stalls.sync_ended(script.now_ms, 5_000)
    script.tick()
    assert script.lines[1:] == ["the disk took 5.0 s for one sync of the log"]


def test_slow_syncs_are_summed_up() -> None:
    script = Script()
    for _ in range(4):
        script.sync_aside(150)
    script.turn_for(10_000)
    assert script.lines == [
        "the disk took 150 ms for one sync of the log",
        "the disk was slow in 3 syncs of the log since the last such line, 150 ms for the slowest",
    ]


def test_a_loop_that_stood_still_does_not_make_the_disk_slow() -> None:
    """The completion of a sync aside waited for the loop, whichever the loop tells first."""
    for watch_first in (True, False):
        script = Script()
        script.stalls.sync_began(script.now_ms)
        script.turn_for(50)
        script.now_ms += 900
        if watch_first:
            script.stalls.loop_stopped(script.now_ms, 900)
        script.tick()
        assert script.asked() is None
        script.stalls.sync_ended(script.now_ms, 950)
        if not watch_first:
            script.stalls.loop_stopped(script.now_ms, 900)
        script.turn_for(50)
        assert not any("for 950 ms" in line or "disk took 9" in line for line in script.lines), script.lines
        assert script.asked() is None


# --- the loop -----------------------------------------------------------------------------------


def test_one_stop_however_long_is_no_reason() -> None:
    script = Script()
    script.stop_for(9_000)
    assert script.asked() is None
    script.turn_for(30_000)
    assert script.asked() is None


def test_two_dangerous_stops_within_the_window_are() -> None:
    script = Script()
    script.stop_twice()
    wanted = script.asked()
    assert wanted == HandOver(Stall.LOOP, "the loop stood still 2 times in 10 s, 300 ms at the longest")
    # Whatever the disks do.
    assert script.asked(others_go_on=False) == wanted


def test_stops_below_half_the_election_timeout_are_not() -> None:
    script = Script()
    for _ in range(20):
        script.stop_for(190)
        script.turn_for(200)
    assert script.asked() is None


def test_stops_that_are_far_apart_are_not() -> None:
    script = Script()
    for _ in range(3):
        script.stop_for(300)
        script.turn_for(WINDOW_MS)
        assert script.asked() is None


def test_two_dangerous_inline_syncs_are_the_disks_fault() -> None:
    script = Script()
    for _ in range(2):
        script.sync_inline(300)
        script.turn_for(500)
    wanted = script.asked(others_go_on=False)
    assert wanted is not None and wanted.stall is Stall.DISK


# --- the disk -----------------------------------------------------------------------------------


def test_a_sync_under_way_for_too_long_is_a_reason_while_others_go_on() -> None:
    script = Script()
    script.stalls.sync_began(script.now_ms)
    script.turn_for(200)
    assert script.asked() is None
    script.turn_for(50)
    assert script.asked() == HandOver(Stall.DISK, "the disk has not finished a sync of the log after 250 ms")
    assert script.asked(others_go_on=False) is None
    script.stalls.sync_ended(script.now_ms, 250)
    assert script.asked() is None


def test_many_slow_syncs_are_a_reason() -> None:
    script, syncs, wanted = Script(), 0, None
    while wanted is None:
        syncs += 1
        script.stalls.sync_began(script.now_ms)
        script.turn_for(150)
        if (wanted := script.asked()) is not None:
            break
        script.stalls.sync_ended(script.now_ms, 150)
        script.turn_for(50)
    # 34 of 150 ms are more than half of 10 s.
    assert (wanted.stall, syncs) == (Stall.DISK, 35)
    assert wanted.text == "the disk spent 5.1 s of 10 s on 34 slow syncs of the log"
    assert script.asked(others_go_on=False) is None


def test_some_slow_syncs_are_not() -> None:
    script = Script()
    for _ in range(100):
        script.sync_aside(150)
        script.turn_for(200)
        script.stalls.sync_began(script.now_ms)
        assert script.asked() is None
        script.stalls.sync_ended(script.now_ms, 0)


# --- no circles ---------------------------------------------------------------------------------


def test_a_new_leader_keeps_the_leadership_for_a_while() -> None:
    script = Script()
    script.stalls.leadership_gained(script.now_ms)
    script.stop_twice()
    assert script.asked() is None
    while script.now_ms < 1_000 + AFTER_ELECTION_MS:
        script.stop_twice()
    assert script.asked() is not None


def quiet_times() -> Iterator[int]:
    """How long a node on which everything is slow keeps quiet after each time it has handed over."""
    script = Script()
    while True:
        script.stop_twice()
        if script.asked() is not None:
            script.stalls.handed_over(script.now_ms)
            handed_over_ms = script.now_ms
            while script.asked() is None:
                script.stop_twice()
            yield script.now_ms - handed_over_ms


def test_each_hand_over_is_followed_by_a_longer_quiet() -> None:
    quiet = quiet_times()
    for wanted_ms in (30_000, 60_000, 120_000, 240_000, 480_000, MAX_AFTER_HAND_OVER_MS, MAX_AFTER_HAND_OVER_MS):
        assert wanted_ms <= next(quiet) < wanted_ms + 5_000


def test_a_long_good_time_makes_the_quiet_shorter_again() -> None:
    script = Script()
    for _ in range(3):
        script.stalls.handed_over(script.now_ms)
    script.turn_for(10 * MAX_AFTER_HAND_OVER_MS)
    script.stalls.handed_over(script.now_ms)
    script.turn_for(AFTER_HAND_OVER_MS - 2_000)
    script.stop_twice()
    assert script.asked() is None
    script.turn_for(2_000)
    assert script.asked() is not None


def test_what_led_to_a_hand_over_counts_once() -> None:
    script = Script()
    script.stop_twice()
    script.stalls.handed_over(script.now_ms)
    script.stop_for(AFTER_HAND_OVER_MS)
    assert script.asked() is None


# --- the watch ----------------------------------------------------------------------------------


def test_the_watch_tells_of_a_stop_of_a_real_loop() -> None:
    stops: list[float] = []

    async def stand_still() -> None:
        loop = asyncio.get_running_loop()
        watch = LoopWatch(stops.append)
        watch.start()
        await asyncio.sleep(0.02)
        until_s = loop.time() + 0.12
        while loop.time() < until_s:
            pass
        await asyncio.sleep(0.02)
        watch.stop()
        assert watch.longest_stop_ms == max(stops)

    asyncio.run(stand_still())
    assert max(stops) >= 100
