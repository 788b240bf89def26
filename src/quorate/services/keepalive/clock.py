"""When ids run out of time: the leader's book of deadlines, with the time passed in.

An *id* is a session's or a lease's.  Only the door beside the leader keeps a clock.  A deadline
is local and soft: an id ends when an expiry command is applied from the log, never because this
clock says so.  What the clock guarantees is the other direction: it never names an id as due
before the full timeout has passed since its last touch, and from the moment it has named one it
refuses further touches (`touch` is False), so that no keep-alive is confirmed for an id whose
expiry may already be on its way (DESIGN.md section 7).

A touch only writes the new deadline.  The heap holds, for each id, one valid entry with
a deadline that was true once; an entry that comes up too early goes back with the current
deadline.  So a touch costs one dictionary write, and an id passes through the heap
about once per timeout, however often it is touched.

A process that stood still heard nobody, and `excuse` moves all deadlines.  It turns the clock
back instead of touching each: inside, times are those of the caller less all that was excused.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class KeepAliveClock:
    """Deadlines of all ids.  Times in milliseconds of one monotonic clock."""

    __slots__ = ("_deadline_ms", "_excused_ms", "_heap", "_queued_ms", "_timeout_ms")

    def __init__(self) -> None:
        self._timeout_ms: dict[int, int] = {}
        self._deadline_ms: dict[int, int] = {}
        """Ids that may be touched; one whose expiry was proposed is in `_timeout_ms` alone."""
        self._heap: list[tuple[int, int]] = []
        self._queued_ms: dict[int, int] = {}
        """Time of each id's one valid heap entry; entries of other times are leftovers."""
        self._excused_ms = 0

    def __len__(self) -> int:
        return len(self._timeout_ms)

    def start(self, timeouts_ms: Iterable[tuple[int, int]], now_ms: int, grace_ms: int) -> None:
        """Forget everything; every (id, timeout) gets its whole timeout from now, and the grace on top.

        The grace is what a former leader may have granted in keep-alives after its last
        contact with a quorum.
        """
        self._excused_ms = 0
        self._timeout_ms = dict(timeouts_ms)
        self._deadline_ms = {id_: now_ms + timeout_ms + grace_ms for id_, timeout_ms in self._timeout_ms.items()}
        self._queued_ms = dict(self._deadline_ms)
        self._heap = [(deadline_ms, id_) for id_, deadline_ms in self._deadline_ms.items()]
        heapq.heapify(self._heap)

    def add(self, id_: int, timeout_ms: int, now_ms: int) -> None:
        """An id is new, or has a new owner: its timeout begins now."""
        deadline_ms = now_ms - self._excused_ms + timeout_ms
        self._timeout_ms[id_] = timeout_ms
        self._deadline_ms[id_] = deadline_ms
        if self._queued_ms.get(id_, deadline_ms + 1) > deadline_ms:
            self._queue(id_, deadline_ms)

    def touch(self, id_: int, now_ms: int) -> bool:
        """Its client was heard from.  False where it is unknown or its expiry was proposed."""
        if id_ not in self._deadline_ms:
            return False
        self._deadline_ms[id_] = now_ms - self._excused_ms + self._timeout_ms[id_]
        return True

    def remove(self, id_: int) -> None:
        """It has ended; no error where it is unknown."""
        self._timeout_ms.pop(id_, None)
        self._deadline_ms.pop(id_, None)
        self._queued_ms.pop(id_, None)

    def due(self, now_ms: int) -> list[int]:
        """Ids whose time is over, earliest first.  Each is named once and cannot be touched any more."""
        now_ms -= self._excused_ms
        heap = self._heap
        named: list[int] = []
        while heap and heap[0][0] <= now_ms:
            at_ms, id_ = heapq.heappop(heap)
            if self._queued_ms.get(id_) != at_ms:
                continue
            deadline_ms = self._deadline_ms.get(id_)
            if deadline_ms is not None and deadline_ms > now_ms:
                self._queue(id_, deadline_ms)
            else:
                del self._queued_ms[id_]
                self._deadline_ms.pop(id_, None)
                named.append(id_)
        return named

    def propose_again(self, id_: int, at_ms: int) -> None:
        """The proposal to expire it came to nothing, or nobody knows: name it again at `at_ms`.

        It cannot be touched meanwhile: the first proposal may still be on its way.
        """
        if self.is_ending(id_):
            self._queue(id_, at_ms - self._excused_ms)

    def excuse(self, pause_ms: int) -> None:
        """Nobody could be heard for the last `pause_ms`, through no fault of theirs: all deadlines move by it.

        An id that was touched in that time after all may be named so much too late, never too early.
        """
        self._excused_ms += pause_ms

    def remaining_ms(self, id_: int, now_ms: int) -> int | None:
        """Until it is due: 0 where its expiry was proposed, None where it is unknown."""
        if id_ not in self._timeout_ms:
            return None
        deadline_ms = self._deadline_ms.get(id_)
        return 0 if deadline_ms is None else max(0, deadline_ms - (now_ms - self._excused_ms))

    def is_ending(self, id_: int) -> bool:
        """True from when `due` named it until it is removed or added anew."""
        return id_ in self._timeout_ms and id_ not in self._deadline_ms

    def _queue(self, id_: int, at_ms: int) -> None:
        self._queued_ms[id_] = at_ms
        heapq.heappush(self._heap, (at_ms, id_))
