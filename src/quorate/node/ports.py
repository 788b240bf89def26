"""What a group needs from the node around it: their seam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from quorate.consensus.replica import Effects, Event, Leadership, Message, NodeId


class GroupHost(Protocol):
    """The node as one of its groups sees it."""

    def now_ms(self) -> int:
        """The loop's clock in whole milliseconds."""
        ...

    def wall_ms(self) -> int: ...

    def clock(self) -> float:
        """Seconds that also pass within a turn of the loop, for durations."""
        ...

    def step(self, group_id: int, event: Event) -> Effects:
        """Feed an event to the group's replica; its effects are seen to, and returned to be looked at."""
        ...

    def schedule(self) -> None:
        """See to it that a flush follows in this turn of the loop or the next."""
        ...

    def when_durable(self, done: Callable[[], None]) -> None:
        """Call `done` once every record that was asked for before this call is durable."""
        ...

    def send(self, group_id: int, to: NodeId, message: Message) -> bool:
        """Send with the next flush, which the caller schedules.  False where the peer is not connected: nothing will be
        sent."""
        ...

    def install_snapshot(self, group_id: int, position: int) -> None:
        """Load the group's snapshot of `position` into its store, then call the group's `restored`."""
        ...

    def configured(self) -> None:
        """A group's configuration changed."""
        ...

    def led(self, service: str, before: Leadership, after: Leadership) -> None:
        """A group's leadership, as this node sees it, changed."""
        ...

    def own_disk_full(self) -> bool:
        """True while this node's log has no room for entries."""
        ...

    def refuses_writes(self) -> bool:
        """True while there is no room for writes here, or not on enough disks for a quorum."""
        ...
