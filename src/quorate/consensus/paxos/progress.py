"""What a leader believes about one peer's slots: some may be accepted behind others that are missing."""

from __future__ import annotations

from quorate.consensus.progress import Flow, Progress
from quorate.consensus.replica import NodeId


class SlotProgress(Progress):
    """The peer holds every slot through `match_position`, and those in `ahead`."""

    __slots__ = ("ahead", "sent_position")

    def __init__(self, peer: NodeId, next_position: int, max_bytes_in_flight: int) -> None:
        super().__init__(peer, next_position, max_bytes_in_flight)
        self.ahead: set[int] = set()
        """Slots after `match_position` that the peer accepted all the same."""
        self.sent_position = next_position - 1
        """The last slot that was sent, or that the peer is asked about."""

    def next_run(self, last_position: int) -> tuple[int, int]:
        """First and last of the slots to send next: those that the peer is not known to hold, side by side."""
        first = self.next_position
        if not self.ahead:
            return first, last_position
        while first in self.ahead:
            first += 1
        last = first
        while last < last_position and last + 1 not in self.ahead:
            last += 1
        return first, min(last, last_position)

    def accepted(self, first_position: int, last_position: int, answered_round: int, end_position: int) -> bool:
        """The peer vouches for these slots; whether that was news.  Answers may be late and out of order.

        `end_position` is the end of the leader's log.
        """
        news = self._note(first_position, last_position)
        if news:
            if answered_round > self.match_round:
                self.match_round = answered_round
            self._acknowledge()
        if self.flow is Flow.PROBE and self.match_position >= self.next_position - 1:
            took_entry = self.holds(self.next_position)
            if took_entry or self.next_position > end_position:
                self.flow = Flow.REPLICATE
                self._forget_sent()  # all that is not acknowledged is sent anew
        if self.next_position <= self.match_position:
            self.next_position = self.match_position + 1
        if self.sent_position < self.next_position - 1:
            self.sent_position = self.next_position - 1
        return news

    def holds(self, position: int) -> bool:
        return position <= self.match_position or position in self.ahead

    def _note(self, first_position: int, last_position: int) -> bool:
        if last_position <= self.match_position:
            return False
        if first_position > self.match_position + 1:
            known = len(self.ahead)
            self.ahead.update(range(first_position, last_position + 1))
            return len(self.ahead) > known
        self.match_position = last_position
        if self.ahead:
            while self.match_position + 1 in self.ahead:
                self.match_position += 1
            self.ahead = {position for position in self.ahead if position > self.match_position}
        return True

    def _acknowledge(self) -> None:
        sent, reach = self._sent, self.match_position
        while sent:
            first, last, size = sent[0]
            if last > reach and not (last in self.ahead and self.holds(first)):
                break
            sent.popleft()
            self.bytes_in_flight -= size
            self.window_bytes = min(self.window_bytes + size, self.max_bytes_in_flight)

    def missing(self, first_position: int) -> None:
        """The peer lacks this slot, which was sent or which it was asked about: go on from there."""
        if self.flow is Flow.REPLICATE or (self._sent and first_position >= self.next_position):
            self.window_bytes = 0
        if first_position <= self.match_position:
            self.match_position = first_position - 1
            self.ahead.clear()
        self.probe(first_position)

    def probe(self, next_position: int) -> None:
        super().probe(next_position)
        self.sent_position = next_position - 1

    def resume(self) -> None:
        super().resume()
        self.sent_position = self.match_position
