"""Failure detection that knows its own machine: is it this node that stalls, and should another lead?

A follower finds out that its leader is gone by waiting for an election timeout, and
meanwhile nobody is served.  A leader that stalls knows earlier, and a hand-over costs a few
milliseconds.  But a leader that hands over too readily is as bad: on a machine on which
everything is slow the leadership would go round in circles.  So, with T for the election
timeout (300 ms by default):

    what                         from      because
    a stop of the loop counts    50 ms     (`loop_watch.STALL_MS`) shorter ones a busy node has all the time
    slow: logged                 T/4       no peer is near to giving up, but clients notice
    dangerous: hand over         T/2       one such stop and one lost heartbeat, and a follower stands

*The loop.*  A leader whose loop stood still is back when it can know of it, so one stop
says nothing about the next one: a virtual machine was moved, a process was scheduled out.
Two dangerous stops within 10 s say that there may be a third and longer one.

*The disk.*  A sync that is made aside does not stop the heartbeats, so a hanging disk is
never found out by the followers: the leader keeps leading, badly.  It hands over where one
sync is under way for longer than T/2, or where slow syncs took more than half of the last
10 s; both only while another voter holds durably what this node is still writing.  Where
all disks are slow alike (three nodes on one machine, one shared device) nobody is better,
so nobody hands over.

*Circles.*  Nothing is handed over within 10 s of becoming leader, nor within 30 s of the last
time.  Each further hand-over doubles that, up to 10 minutes; as long without a reason to hand
over halves it again.

Nothing here does I/O: all times are milliseconds of one clock that never goes back, and are handed in.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Final

from quorate.node.metrics import Metrics

WINDOW_MS: Final = 10_000
"""How far back stops and slow syncs count."""
REPORT_INTERVAL_MS: Final = 10_000
"""At most one line a kind of stall in this time; the first one is told at once."""
LONG_SYNC_MS: Final = 1_000
"""A sync that is under way for this long is told of before it ends: it may never end."""
AFTER_ELECTION_MS: Final = 10_000
AFTER_HAND_OVER_MS: Final = 30_000
MAX_AFTER_HAND_OVER_MS: Final = 600_000
TICK_CREDIT_MS: Final = 100.0
"""At most this much of the time between two ticks counts as the disk's: the rest the loop itself stood still."""
INLINE_SLACK_MS: Final = 50.0
"""A stop of the loop is told this late, at most, after the inline sync that made it."""


class Stall(enum.Enum):
    """What stalls.  The values are those of the metrics' `reason` label."""

    LOOP = "loop"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class HandOver:
    """Why another node should lead."""

    stall: Stall
    text: str
    """For the log."""


class _Episodes:
    """Stalls of one kind since the last line about them."""

    def __init__(self) -> None:
        self._count = 0
        self._longest_ms = 0.0
        self._told_ms: float | None = None

    def add(self, stall_ms: float) -> None:
        self._count += 1
        self._longest_ms = max(self._longest_ms, stall_ms)

    def take(self, now_ms: float) -> tuple[int, float] | None:
        """(how many, the longest in ms), where there are some and it is time to tell of them."""
        if not self._count or (self._told_ms is not None and now_ms - self._told_ms < REPORT_INTERVAL_MS):
            return None
        found = self._count, self._longest_ms
        self._count, self._longest_ms, self._told_ms = 0, 0.0, now_ms
        return found


class StallDetector:
    """Feed it what the loop and the disk do; `tick` it about every 50 ms.  It counts for `Metrics`, too.

    `sync_ended` of a fast sync is all that the hot path pays: a bisection and a comparison.
    """

    def __init__(self, election_timeout_ms: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self.slow_ms: Final = election_timeout_ms / 4
        self.dangerous_ms: Final = election_timeout_ms / 2
        self._tick_ms: float | None = None
        self._stops: deque[tuple[float, float, Stall]] = deque()
        """(when it ended, how long, what did it) of the dangerous stops in the window."""
        self._slow: deque[tuple[float, float]] = deque()
        """(when it ended, how long) of the slow syncs in the window."""
        self._loop_episodes = _Episodes()
        self._disk_episodes = _Episodes()
        self._aside = False
        self._aside_ms = 0.0
        """How long the sync that is under way aside has taken by the last tick, stops of the loop left out."""
        self._aside_since_ms = 0.0
        self._aside_told = False
        self._inline: tuple[float, float] | None = None
        """(when it was noted, how long) of the last slow inline sync, until the stop that it made is told."""
        self._quiet_until_ms = 0.0
        self._after_hand_over_ms = AFTER_HAND_OVER_MS
        self._reason_seen_ms: float | None = None

    # --- what happens ------------------------------------------------------------------------

    def loop_stopped(self, now_ms: float, stop_ms: float) -> None:
        """The loop stood still for `stop_ms` until now (`LoopWatch` tells it)."""
        self._metrics.loop_stall.observe(stop_ms / 1000)
        inline, self._inline = self._inline, None
        disk_ms = 0.0
        if inline is not None and now_ms - inline[0] <= stop_ms + INLINE_SLACK_MS:
            disk_ms = inline[1]
        stall = Stall.LOOP if stop_ms - disk_ms >= self.slow_ms else Stall.DISK
        # What the disk did is told as the disk's, but to the followers the leader was silent all the same.
        if stall is Stall.LOOP:
            self._loop_episodes.add(stop_ms)
        if stop_ms >= self.dangerous_ms:
            self._stops.append((now_ms, stop_ms, stall))

    def sync_began(self, now_ms: float) -> None:
        """A sync is made aside: the loop goes on turning."""
        self._aside = True
        self._aside_ms = 0.0
        self._aside_since_ms = now_ms
        self._aside_told = False

    def sync_ended(self, now_ms: float, duration_ms: float) -> None:
        """A sync returned, after `duration_ms` by the clock."""
        self._metrics.log_sync.observe(duration_ms / 1000)
        if self._aside:
            self._aside = False
            # By the ticks: a completion that waited for a loop that stood still says nothing about the disk.
            duration_ms = min(duration_ms, self._aside_ms + self._since_tick_ms(now_ms))
            if duration_ms >= self.slow_ms:
                self._slow_sync(now_ms, duration_ms)
        elif duration_ms >= self.slow_ms:
            self._inline = (now_ms, duration_ms)
            self._slow_sync(now_ms, duration_ms)

    def leadership_gained(self, now_ms: float) -> None:
        """This node has begun to lead a group."""
        self._quiet_until_ms = max(self._quiet_until_ms, now_ms + AFTER_ELECTION_MS)

    def handed_over(self, now_ms: float) -> None:
        """This node has tried to hand over what it leads because of `should_hand_over`, with success or without."""
        self._quiet_until_ms = now_ms + self._after_hand_over_ms
        self._after_hand_over_ms = min(2 * self._after_hand_over_ms, MAX_AFTER_HAND_OVER_MS)
        self._reason_seen_ms = now_ms

    def tick(self, now_ms: float) -> list[str]:
        """Time passes.  Returns what to log, as warnings."""
        if self._aside:
            self._aside_ms += self._since_tick_ms(now_ms)
        self._tick_ms = now_ms
        while self._stops and now_ms - self._stops[0][0] > WINDOW_MS:
            self._stops.popleft()
        while self._slow and now_ms - self._slow[0][0] > WINDOW_MS:
            self._slow.popleft()
        if self._stops or self._slow:
            self._reason_seen_ms = now_ms
        elif self._reason_seen_ms is not None and now_ms - self._reason_seen_ms > self._after_hand_over_ms:
            self._reason_seen_ms = now_ms
            self._after_hand_over_ms = max(self._after_hand_over_ms // 2, AFTER_HAND_OVER_MS)
        return self._lines(now_ms)

    # --- what follows from it ----------------------------------------------------------------

    def should_hand_over(self, now_ms: float, others_go_on: bool) -> HandOver | None:
        """Ask it after `tick`, where this node leads.

        `others_go_on`: another voter holds durably some entry that this node has not made
        durable yet, in a group that this node leads.  None: lead on.
        """
        if now_ms < self._quiet_until_ms:
            return None
        window = f"{WINDOW_MS // 1000} s"
        if len(self._stops) >= 2:
            longest_ms = max(stop_ms for _, stop_ms, _ in self._stops)
            stall = Stall.LOOP if any(stall is Stall.LOOP for _, _, stall in self._stops) else Stall.DISK
            why = "" if stall is Stall.LOOP else ", for the disk each time"
            times = f"{len(self._stops)} times in {window}, {show_ms(longest_ms)} at the longest{why}"
            return HandOver(stall, f"the loop stood still {times}")
        if not (self._aside and others_go_on):
            return None
        if self._aside_ms > self.dangerous_ms:
            return HandOver(Stall.DISK, f"the disk has not finished a sync of the log after {show_ms(self._aside_ms)}")
        busy_ms = sum(duration_ms for _, duration_ms in self._slow)
        if busy_ms > WINDOW_MS / 2:
            syncs = f"{len(self._slow)} slow syncs of the log"
            return HandOver(Stall.DISK, f"the disk spent {show_ms(busy_ms)} of {window} on {syncs}")
        return None

    # --- inside ------------------------------------------------------------------------------

    def _since_tick_ms(self, now_ms: float) -> float:
        since_ms = self._aside_since_ms if self._tick_ms is None else max(self._tick_ms, self._aside_since_ms)
        return min(max(0.0, now_ms - since_ms), TICK_CREDIT_MS)

    def _slow_sync(self, now_ms: float, duration_ms: float) -> None:
        self._metrics.slow_syncs += 1
        self._disk_episodes.add(duration_ms)
        self._slow.append((now_ms, duration_ms))

    def _lines(self, now_ms: float) -> list[str]:
        lines = []
        if (stops := self._loop_episodes.take(now_ms)) is not None:
            count, longest_ms = stops
            many = f"{count} times since the last such line, {show_ms(longest_ms)} at the longest"
            lines.append(f"the loop stood still {f'for {show_ms(longest_ms)}' if count == 1 else many}")
        if (syncs := self._disk_episodes.take(now_ms)) is not None:
            count, longest_ms = syncs
            if count == 1:
                lines.append(f"the disk took {show_ms(longest_ms)} for one sync of the log")
            else:
                lines.append(
                    f"the disk was slow in {count} syncs of the log since the last such line, "
                    f"{show_ms(longest_ms)} for the slowest"
                )
        if self._aside and not self._aside_told and self._aside_ms >= LONG_SYNC_MS:
            self._aside_told = True
            lines.append(f"the disk has not finished a sync of the log that began {show_ms(self._aside_ms)} ago")
        return lines


def show_ms(duration_ms: float) -> str:
    """`312 ms`, `1.8 s`."""
    return f"{duration_ms:.0f} ms" if duration_ms < 1000 else f"{duration_ms / 1000:.1f} s"
