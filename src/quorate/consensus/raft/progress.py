"""What a leader believes about one peer's log, and how much it may send.

PROBE      the place where the logs agree is being looked for: one message, then wait.
REPLICATE  it is known: entries are sent as they come, before earlier ones are acknowledged.
SNAPSHOT   the peer needs entries that are gone: nothing is sent until its snapshot went over.

        rejected, connection lost              acknowledged
    REPLICATE -----------------------> PROBE ----------------> REPLICATE
                    too far behind  |    ^  sent, or failed
                                    +-> SNAPSHOT --+
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
    """The peer's log agrees with ours and is durable through `match_position`; `next_position` is sent next."""

    __slots__ = (
        "_sent",
        "bytes_in_flight",
        "commit_told",
        "flow",
        "match_position",
        "next_position",
        "peer",
        "retry_ms",
    )

    def __init__(self, peer: NodeId, next_position: int) -> None:
        self.peer = peer
        self.flow = Flow.PROBE
        self.match_position = 0
        self.next_position = next_position
        self.commit_told = 0
        """The commit position that the last message to the peer let it reach."""
        self.bytes_in_flight = 0
        self.retry_ms: int | None = None
        """In SNAPSHOT, where the transfer failed: when to try another, should the peer be heard from."""
        self._sent: deque[tuple[int, int]] = deque()
        """(last position, bytes) of each message with entries that is not acknowledged."""

    def sent(self, last_position: int, size: int) -> None:
        """Entries through `last_position` are on their way: go on behind them without waiting."""
        assert self.flow is Flow.REPLICATE and last_position >= self.next_position
        self._sent.append((last_position, size))
        self.bytes_in_flight += size
        self.next_position = last_position + 1

    def acknowledged(self, match_position: int) -> bool:
        """The peer vouches for `match_position`; whether that was news.  Acks may be late and out of order."""
        news = match_position > self.match_position
        if news:
            self.match_position = match_position
            while self._sent and self._sent[0][0] <= match_position:
                self.bytes_in_flight -= self._sent.popleft()[1]
        if self.next_position <= match_position + 1 and self.flow is Flow.PROBE:
            self.flow = Flow.REPLICATE
        if self.next_position <= match_position:
            self.next_position = match_position + 1
        return news

    def probe(self, next_position: int) -> None:
        """Look for agreement just before `next_position`; whatever was in flight counts as lost."""
        assert next_position > self.match_position
        self.flow = Flow.PROBE
        self.next_position = next_position
        self.commit_told = 0
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
