"""The cluster group's door: no clients and no sockets, only the node that it stands in.

The node asks with `submit`, and hears of every change through `changed`.  That is said
before the answer to the command that made the change, so whoever was answered finds the
node up to date.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from quorate.consensus.replica import Leadership, NodeId
from quorate.services.cluster.commands import AnyCommand, encode
from quorate.services.cluster.store import ClusterStore, Outcome
from quorate.services.interface import DoorConfig, Group, Refused

Waiter: TypeAlias = "asyncio.Future[Outcome]"


class ChangeRefused(Exception):
    """The group did nothing with the command, and never will."""

    def __init__(self, why: Refused) -> None:
        self.why = why
        super().__init__(f"the change was not made: {why.value}")


class OutcomeUnknown(Exception):
    """The command may have been applied, or may yet be."""

    def __init__(self) -> None:
        super().__init__("whether the change was made is unknown: the leader was lost meanwhile; look at the members")


class ClusterDoor:
    """`quorate.services.interface.Door`."""

    def __init__(self, store: ClusterStore, group: Group, config: DoorConfig | None = None) -> None:
        self.store = store
        self.group = group
        self.changed: list[Callable[[], None]] = []
        """Called, each with nothing, after a batch that changed the state and after the state was replaced."""
        self.leadership = group.leadership
        """Who leads the cluster group, as this node sees it."""
        self._waiting = 0

    def submit(self, command: AnyCommand) -> asyncio.Future[Outcome]:
        """Have a command decided.  Its future has the Outcome, or raises ChangeRefused or OutcomeUnknown.

        An Outcome with a problem means that the members forbid the change.  Cancelling the
        future does not take the command back.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting += 1
        self.group.submit([encode(command)], [future])
        return future

    # --- services.interface.Door -------------------------------------------------------------

    async def start(self) -> None:
        """There is nothing to listen on."""

    async def stop(self) -> None:
        """By now the group has answered, refused or lost every command."""

    def applied(self, results: Sequence[Outcome], waiters: Sequence[Waiter] | None) -> None:
        if any(result.changed for result in results):
            self._tell()
        if waiters is not None:
            for result, waiter in zip(results, waiters, strict=True):
                self._waiting -= 1
                if not waiter.done():
                    waiter.set_result(result)

    def refused(self, waiters: Sequence[Waiter], why: Refused) -> None:
        for waiter in waiters:
            self._fail(waiter, ChangeRefused(why))

    def lost(self, waiters: Sequence[Waiter]) -> None:
        for waiter in waiters:
            self._fail(waiter, OutcomeUnknown())

    def restored(self) -> None:
        self._tell()

    def relieved(self) -> None:
        """Commands are few: nobody was asked to stop."""

    def leadership_changed(self, leadership: Leadership) -> None:
        self.leadership = leadership

    def told(self, sender: NodeId, note: bytes) -> None:
        raise ValueError("the cluster group's door sends no notes")

    def tick(self, now_ms: int) -> None:
        """Nothing here depends on time."""

    def summary(self) -> dict[str, int]:
        return {"outstanding": self._waiting}

    # --- inside ------------------------------------------------------------------------------

    def _tell(self) -> None:
        for callback in tuple(self.changed):
            callback()

    def _fail(self, waiter: Waiter, error: Exception) -> None:
        self._waiting -= 1
        if not waiter.done():
            waiter.set_exception(error)
            # Whoever submitted it may not wait for the answer; that is no error of the loop's.
            waiter.exception()
