"""What was known when: from the revisions that answers and watches showed, at what time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from quorate.checking.etcd.records import History
from quorate.checking.etcd.texts import is_change


class Evidence:
    """Whatever any member shows, it has applied, and what is applied anywhere is committed."""

    def __init__(self, history: History) -> None:
        self._times: list[float] = []
        self._revisions: list[int] = []
        """Beside `_times`; both grow."""
        highest = 0
        for at, revision in sorted(_shown(history)):
            if revision > highest:
                highest = revision
                self._times.append(at)
                self._revisions.append(revision)
        self.latest = highest
        """The highest revision that was ever shown."""
        claims = sorted((call.invoked_at, call.revision) for call in history.calls if is_change(call))
        self._claim_times = [at for at, _ in claims]
        self._lowest_later: list[int] = []
        """Beside `_claim_times`: the lowest revision of that change and all that were asked for later."""
        lowest = highest + 1
        for _, revision in reversed(claims):
            lowest = min(lowest, revision)
            self._lowest_later.append(lowest)
        self._lowest_later.reverse()

    def before(self, time: float) -> int:
        """The highest revision that had been shown to anybody before a time; what is asked for then is not older."""
        place = bisect_left(self._times, time)
        return self._revisions[place - 1] if place else 0

    def first_seen(self, revision: int) -> float:
        """When it was known for sure that a revision had come."""
        return self._times[bisect_left(self._revisions, revision)]

    def until(self, time: float) -> int:
        """The highest revision that may have come by a time: not one that was asked for later."""
        place = bisect_left(self._claim_times, time)
        return self._lowest_later[place] - 1 if place < len(self._lowest_later) else self.latest


def _shown(history: History) -> Iterator[tuple[float, int]]:
    for call in history.calls:
        if call.response is not None and call.returned_at is not None:
            yield call.returned_at, call.revision
    for keep_alive in history.keep_alives:
        yield keep_alive.returned_at, keep_alive.revision
    for watch in history.watches:
        for delivery in watch.deliveries:
            response = delivery.response
            last = response.events[-1].kv.mod_revision if response.events else 0
            yield delivery.at, max(response.header.revision, last)
