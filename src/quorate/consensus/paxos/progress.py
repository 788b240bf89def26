"""What a leader believes about one peer's slots, and how much it may send.

PROBE      what the peer lacks is being found out, and whether it takes entries at all: one
           message, repeated no faster than heartbeats are due.
REPLICATE  it is known: entries are sent as they come, before earlier ones are acknowledged.
SNAPSHOT   the peer needs entries that are gone: nothing is sent until its snapshot went over.

        missing, connection lost        took an entry, or lacks none
    REPLICATE -----------------------> PROBE ----------------> REPLICATE
                    too far behind  |    ^  sent, or failed
                                    +-> SNAPSHOT --+

That a peer answers heartbeats is not enough to leave PROBE: a node whose disk is full loses
what carries entries.  What is found lost closes the window, which leaves single entries, and
what the peer takes opens it again, so what can be lost next is in proportion to what was
taken since.
"""

from __future__ import annotations

import enum
from collections import deque


class Flow(enum.Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """The peer holds every slot through `accepted_position`, durably; `next_position` is sent next."""

    __slots__ = (
        "_sent",
        "accepted_position",
        "accepted_round",
        "ahead",
        "bytes_in_flight",
        "commit_told",
        "flow",
        "max_bytes_in_flight",
        "next_position",
        "peer",
        "probe_due",
        "retry_ms",
        "sent_position",
        "window_bytes",
    )

    def __init__(self, peer: int, next_position: int, max_bytes_in_flight: int) -> None:
        self.peer = peer
        self.flow = Flow.PROBE
        self.accepted_position = 0
        self.accepted_round = 0
        """The newest round that came back with an acceptance: what answers an earlier one is old."""
        self.ahead: set[int] = set()
        """Slots after `accepted_position` that the peer accepted all the same."""
        self.next_position = next_position
        self.sent_position = next_position - 1
        """The last slot that was sent, or that the peer is asked about."""
        self.probe_due = False
        """In PROBE: entries may be sent again, as soon as the peer is heard from."""
        self.commit_told = 0
        """The commit position that the last message to the peer let it reach."""
        self.bytes_in_flight = 0
        self.max_bytes_in_flight = max_bytes_in_flight
        self.window_bytes = max_bytes_in_flight
        """How many bytes may be in flight, and in one message; a message of one entry always may."""
        self.retry_ms: int | None = None
        """In SNAPSHOT, where the transfer failed: when to try another, should the peer be heard from."""
        self._sent: deque[tuple[int, int, int]] = deque()
        """(first position, last position, bytes) of each message with entries that is not acknowledged."""

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

    def sent(self, first_position: int, last_position: int, size: int) -> None:
        """Entries are on their way.

        In REPLICATE what follows is sent without waiting; in PROBE this takes the place of
        the probe before.
        """
        assert self.flow is not Flow.SNAPSHOT and last_position >= self.next_position
        if self.flow is Flow.PROBE:
            self._forget_sent()
            self.probe_due = False
            self.next_position = first_position
        else:
            self.next_position = last_position + 1
        self.sent_position = max(self.sent_position, last_position)
        self._sent.append((first_position, last_position, size))
        self.bytes_in_flight += size

    def has_room(self) -> bool:
        """In REPLICATE: whether another message may be sent now."""
        return not self._sent or self.bytes_in_flight < self.window_bytes

    def accepted(self, first_position: int, last_position: int, answered_round: int, end_position: int) -> bool:
        """The peer vouches for these slots; whether that was news.  Answers may be late and out of order.

        `end_position` is the end of the leader's log.
        """
        news = self._note(first_position, last_position)
        if news:
            self.accepted_round = max(self.accepted_round, answered_round)
            self._acknowledge()
        if self.flow is Flow.PROBE and self.accepted_position >= self.next_position - 1:
            took_entry = self.holds(self.next_position)
            if took_entry or self.next_position > end_position:
                self.flow = Flow.REPLICATE
                self._forget_sent()  # all that is not acknowledged is sent anew
        if self.next_position <= self.accepted_position:
            self.next_position = self.accepted_position + 1
        self.sent_position = max(self.sent_position, self.next_position - 1)
        return news

    def holds(self, position: int) -> bool:
        return position <= self.accepted_position or position in self.ahead

    def _note(self, first_position: int, last_position: int) -> bool:
        if last_position <= self.accepted_position:
            return False
        if first_position > self.accepted_position + 1:
            known = len(self.ahead)
            self.ahead.update(range(first_position, last_position + 1))
            return len(self.ahead) > known
        self.accepted_position = last_position
        if self.ahead:
            while self.accepted_position + 1 in self.ahead:
                self.accepted_position += 1
            self.ahead = {position for position in self.ahead if position > self.accepted_position}
        return True

    def _acknowledge(self) -> None:
        sent, reach = self._sent, self.accepted_position
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
        if first_position <= self.accepted_position:
            self.accepted_position = first_position - 1
            self.ahead.clear()
        self.probe(first_position)

    def agreed(self) -> None:
        """In PROBE the peer lacks nothing before: the last probe, if any, was lost or is slow."""
        assert self.flow is Flow.PROBE
        if self._sent:
            self.window_bytes = 0

    def probe(self, next_position: int) -> None:
        """Find out what the peer lacks from here on; whatever was in flight counts as lost."""
        self.flow = Flow.PROBE
        self.next_position = next_position
        self.sent_position = next_position - 1
        self.commit_told = 0
        self._forget_sent()

    def _forget_sent(self) -> None:
        self._sent.clear()
        self.bytes_in_flight = 0

    def resume(self) -> None:
        """The snapshot is in place there: go on behind it."""
        assert self.flow is Flow.SNAPSHOT
        self.flow = Flow.REPLICATE
        self.next_position = self.accepted_position + 1
        self.sent_position = self.accepted_position

    def await_snapshot(self) -> None:
        self.retry_ms = None
        self.probe(self.accepted_position + 1)
        self.flow = Flow.SNAPSHOT
