"""A node's eye on itself: it counts, says where disk or loop stall, and lets others lead before they must find out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from quorate.consensus.replica import Leadership, NodeId, Role
from quorate.net.links import Links
from quorate.node.group import ReplicatedGroup
from quorate.node.handover import hand_over
from quorate.node.loop_watch import LoopWatch
from quorate.node.metrics import Metrics
from quorate.node.ports import GroupHost
from quorate.node.stalls import HandOver, StallDetector

_log = logging.getLogger(__name__)


class SelfWatch:
    """Metrics, stalls, and the hand-overs that follow from them or are asked for."""

    def __init__(self, services: Sequence[str], election_timeout_ms: int, now_ms: Callable[[], int]) -> None:
        self.metrics = Metrics(services)
        self.stalls = StallDetector(election_timeout_ms, self.metrics)
        self.loop = LoopWatch(lambda stop_ms: self.stalls.loop_stopped(now_ms(), stop_ms))
        self._now_ms = now_ms
        self._handing_over = False

    def led(self, service: str, before: Leadership, after: Leadership) -> None:
        """A group's leadership changed (`GroupHost.led`)."""
        self.metrics.leadership_changed(service, before, after)
        if after.role is Role.LEADER and before.role is not Role.LEADER:
            self.stalls.leadership_gained(self._now_ms())

    def tick(self, now_ms: int, led: Sequence[ReplicatedGroup]) -> HandOver | None:
        """Say what stalls.  Returns why others should lead these groups; None where not, or where they are asked to."""
        for line in self.stalls.tick(now_ms):
            _log.warning("%s", line)
        if not led or self._handing_over:
            return None
        wanted = self.stalls.should_hand_over(now_ms, any(group.others_are_ahead() for group in led))
        self._handing_over = wanted is not None
        return wanted

    async def hand_all_over(
        self, wanted: HandOver, led: Sequence[ReplicatedGroup], host: GroupHost, links: Links, limit_ms: int
    ) -> None:
        """Carry out what `tick` wanted."""
        try:
            for group in led:
                await self.hand_over(group, host, links, wanted.stall.value, wanted.text, None, limit_ms)
        finally:
            self._handing_over = False
            self.stalls.handed_over(self._now_ms())

    async def hand_over(
        self,
        group: ReplicatedGroup,
        host: GroupHost,
        links: Links,
        kind: str,
        reason: str,
        target: NodeId | None,
        limit_ms: int,
    ) -> str | None:
        """Hand over, and count it.  `kind` is one of `metrics.HANDOVER_REASONS`, `reason` is for the log."""
        problem = await hand_over(group, host, links, reason, target, limit_ms)
        if problem is None:
            self.metrics.handed_over(kind)
        return problem
