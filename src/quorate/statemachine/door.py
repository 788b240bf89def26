"""Callers in this process as `quorate.services.interface.Door`: no clients and no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from quorate.consensus.replica import Leadership, NodeId
from quorate.services.interface import Group
from quorate.services.interface import Refused as Why
from quorate.statemachine.errors import OutcomeUnknown, Refused
from quorate.statemachine.store import Failed, Result

Waiter: TypeAlias = "asyncio.Future[Result]"


class CallerDoor:
    """Between the group and those who await its answers.  Reads no state of the store's."""

    def __init__(self, group: Group, changed: Callable[[], None], led: Callable[[Leadership], None]) -> None:
        """`changed` is called after commands were applied or a snapshot was installed, `led` with each leadership."""
        self.group = group
        self._changed = changed
        self._led = led
        self._room = asyncio.Event()
        """Set unless the group is congested."""
        self._room.set()
        self._waiting = 0
        self._barriers: dict[asyncio.Future[bool], None] = {}
        self._stopped = False

    async def submit(self, command: bytes) -> Result:
        """What the store made of it.  Raises the machine's CommandError, Refused or OutcomeUnknown."""
        while self.group.congested() and not self._stopped:
            self._room.clear()
            await self._room.wait()
        if self._stopped:
            raise _refused(Why.STOPPING)
        future: Waiter = asyncio.get_running_loop().create_future()
        self._waiting += 1
        self.group.submit([command], [future])
        return await future

    async def barrier(self) -> bool:
        """True once this node has applied all that was committed anywhere before this call; False where it failed."""
        if self._stopped:
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._barriers[future] = None
        future.add_done_callback(self._barriers.pop)
        self.group.barrier(lambda passed: None if future.done() else future.set_result(passed))
        return await future

    # --- services.interface.Door -------------------------------------------------------------

    async def start(self) -> None:
        """There is nothing to listen on.  The store is restored by now."""
        self._changed()

    async def stop(self) -> None:
        """By now the group has answered, refused or lost every command; barriers it only forgets."""
        self._stopped = True
        self._room.set()
        for barrier in self._barriers:
            if not barrier.done():  # it leaves only in the loop's next turn
                barrier.set_result(False)

    def applied(self, results: Sequence[Result], waiters: Sequence[Waiter] | None) -> None:
        if waiters is not None:
            for result, waiter in zip(results, waiters, strict=True):
                if isinstance(result, Failed):
                    self._fail(waiter, result.error)
                    continue
                self._waiting -= 1
                if not waiter.done():
                    waiter.set_result(result)
        self._changed()

    def refused(self, waiters: Sequence[Waiter], why: Why) -> None:
        for waiter in waiters:
            self._fail(waiter, _refused(why))

    def lost(self, waiters: Sequence[Waiter]) -> None:
        for waiter in waiters:
            self._fail(waiter, OutcomeUnknown("whether it was carried out is unknown: the leader was lost meanwhile"))

    def restored(self) -> None:
        self._changed()

    def relieved(self) -> None:
        self._room.set()

    def leadership_changed(self, leadership: Leadership) -> None:
        self._led(leadership)

    def told(self, sender: NodeId, note: bytes) -> None:
        raise ValueError("the door of callers sends no notes")

    def tick(self, now_ms: int) -> None:
        """Nothing here depends on time."""

    def summary(self) -> dict[str, int]:
        return {"outstanding": self._waiting}

    # --- inside ------------------------------------------------------------------------------

    def _fail(self, waiter: Waiter, error: Exception) -> None:
        self._waiting -= 1
        if not waiter.done():
            waiter.set_exception(error)
            # Whoever submitted it may have stopped waiting; that is no error of the loop's.
            waiter.exception()


def _refused(why: Why) -> Refused:
    return Refused(f"not carried out: {why.value}")
