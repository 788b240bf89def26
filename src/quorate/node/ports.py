"""What a group needs from the node around it, and the node from a group: their seam."""

from __future__ import annotations

from typing import Protocol

from quorate.consensus.replica import Event, Message, NodeId, SendSnapshot


class GroupHost(Protocol):
    """The node as one of its groups sees it."""

    def now_ms(self) -> int:
        """The loop's clock in whole milliseconds."""
        ...

    def wall_ms(self) -> int: ...

    def step(self, group_id: int, event: Event) -> None:
        """Feed an event to the group's replica and see to its effects."""
        ...

    def schedule(self) -> None:
        """See to it that a flush follows in this turn of the loop."""
        ...

    def send(self, group_id: int, to: NodeId, message: Message) -> bool:
        """Send with the next flush.  False where the peer is not connected: nothing will be sent."""
        ...

    def send_snapshot(self, group_id: int, wanted: SendSnapshot) -> None:
        """Start to send the group's newest snapshot; the replica hears of the end by `SnapshotSent`."""
        ...

    def install_snapshot(self, group_id: int, position: int) -> None:
        """Load the group's snapshot of `position` into its store, then call `Group.installed`."""
        ...

    def disk_full(self) -> bool: ...
