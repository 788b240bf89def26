"""What a leader believes about one peer's log, and how much it may send.

PROBE      what the peer lacks is being found out, and whether it takes entries there at all: one
           message, repeated no faster than heartbeats are due.
REPLICATE  it is known: entries are sent as they come, before earlier ones are acknowledged.
SNAPSHOT   the peer needs entries that are gone: nothing is sent until its snapshot went over.

            loss, connection lost         took an entry, or lacks none
    REPLICATE -----------------------> PROBE ----------------> REPLICATE
                    too far behind  |    ^  sent, or failed
                                    +-> SNAPSHOT --+

That a peer answers is not enough to leave PROBE.  A node whose disk is full loses what
carries entries and answers heartbeats: it would be sent `max_bytes_in_flight` after
each of them, for nothing.  Nor does one entry that it took prove that it takes the next
megabytes.  So what is found lost closes the window, which leaves single entries, and what
the peer takes opens it again (as TCP's slow start does): what can be lost next is in
proportion to what was taken since.
"""

from __future__ import annotations

import enum
from collections import deque

from quorate.consensus.replica import NodeId


class Flow(enum.Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """The peer holds all of the leader's log through `match_position`, durably; `next_position` is sent next."""

    __slots__ = (
        "_sent",
        "bytes_in_flight",
        "commit_told",
        "flow",
        "match_position",
        "match_round",
        "max_bytes_in_flight",
        "next_position",
        "peer",
        "probe_due",
        "retry_ms",
        "window_bytes",
    )

    def __init__(self, peer: NodeId, next_position: int, max_bytes_in_flight: int) -> None:
        self.peer = peer
        self.flow = Flow.PROBE
        self.match_position = 0
        self.match_round = 0
        """The newest round when the peer vouched for something: a complaint that answers an earlier one is old."""
        self.next_position = next_position
        self.probe_due = False
        """In PROBE: entries may be sent again, as soon as the peer says that it lacks nothing before them."""
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

    def sent(self, first_position: int, last_position: int, size: int) -> None:
        """Entries first ... last are on their way.

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
        self._sent.append((first_position, last_position, size))
        self.bytes_in_flight += size

    def has_room(self) -> bool:
        """In REPLICATE: whether another message may be sent now."""
        return not self._sent or self.bytes_in_flight < self.window_bytes

    def agreed(self) -> None:
        """In PROBE the peer lacks nothing before: the last probe, if any, was lost or is slow."""
        assert self.flow is Flow.PROBE
        if self._sent:
            self.window_bytes = 0

    def probe(self, next_position: int) -> None:
        """Find out what the peer lacks from here on; whatever was in flight counts as lost."""
        assert next_position > self.match_position
        self.flow = Flow.PROBE
        self.next_position = next_position
        self.commit_told = 0
        self._forget_sent()

    def _forget_sent(self) -> None:
        self._sent.clear()
        self.bytes_in_flight = 0

    def resume(self) -> None:
        """The snapshot is in place there: go on behind it."""
        assert self.flow is Flow.SNAPSHOT
        self.flow = Flow.REPLICATE
        self.next_position = self.match_position + 1

    def await_snapshot(self) -> None:
        self.retry_ms = None
        self.probe(self.match_position + 1)
        self.flow = Flow.SNAPSHOT


class LogProgress(Progress):
    """Of a peer whose log has no holes: in PROBE the place is looked for up to which the logs agree."""

    __slots__ = ()

    def acknowledged(self, match_position: int, newest_round: int, last_position: int) -> bool:
        """The peer vouches for `match_position`; whether that was news.  Acks may be late and out of order.

        `newest_round` is the leader's, and `last_position` the end of its log.
        """
        news = match_position > self.match_position
        if news:
            self.match_position = match_position
            self.match_round = newest_round
            while self._sent and self._sent[0][1] <= match_position:
                size = self._sent.popleft()[2]
                self.bytes_in_flight -= size
                self.window_bytes = min(self.window_bytes + size, self.max_bytes_in_flight)
        if self.flow is Flow.PROBE and self.next_position <= match_position + 1:
            took_entry = self.next_position <= match_position
            if took_entry or self.next_position > last_position:
                self.flow = Flow.REPLICATE
                self._forget_sent()  # all behind `match_position` is sent anew
        if self.next_position <= match_position:
            self.next_position = match_position + 1
        return news

    def rejected(self, agreed_position: int) -> None:
        """The logs agree at `agreed_position` at most: probe behind it.  In REPLICATE this shows a loss."""
        if self.flow is Flow.REPLICATE:
            self.window_bytes = 0
        self.probe(max(self.match_position, agreed_position) + 1)
