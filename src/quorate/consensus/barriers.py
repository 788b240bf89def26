"""Linearizable reads without a log entry (thesis section 6.4), batched.

A leader numbers its heartbeat *rounds*.  Each message to a peer carries the newest round
and the peer's answer echoes it.  Once a quorum has echoed round r, no other leader had
been elected when r began: one of that quorum would have had to vote for it before, and
would have answered with a higher term.

A barrier therefore rides on a round that begins after it arrived, at the commit position
of that moment.  Barriers that arrive while barriers are out on a round share the next
one, so under load there is one round per round trip however many barriers there are.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from quorate.consensus.replica import NodeId


@dataclass(frozen=True, slots=True)
class Barrier:
    """`node` asked; `asker` is that node's random mark, None where the leader's own node asked."""

    barrier_id: int
    node: NodeId
    asker: int | None


@dataclass(frozen=True, slots=True)
class _Ride:
    round: int
    position: int
    barriers: list[Barrier]


class Rounds:
    """A leader's heartbeat rounds and the barriers that wait for them."""

    def __init__(self) -> None:
        self.current = 0
        self.contact_ms: int | None = None
        """When the newest round that a quorum has answered began."""
        self._started: deque[tuple[int, int]] = deque()
        self._waiting: list[Barrier] = []
        self._rides: deque[_Ride] = deque()

    def wait(self, barrier: Barrier) -> None:
        self._waiting.append(barrier)

    def wants_round(self) -> bool:
        """Barriers wait and none are out on a round: the next may begin at once."""
        return bool(self._waiting) and not self._rides

    def begin(self, now_ms: int, barrier_position: int | None) -> int:
        """Begin a round and return its number.

        `barrier_position` is what reads must see, None before the opening entry is
        committed: barriers then go on waiting.
        """
        self.current += 1
        self._started.append((self.current, now_ms))
        if barrier_position is not None and self._waiting:
            self._rides.append(_Ride(self.current, barrier_position, self._waiting))
            self._waiting = []
        return self.current

    def confirm(self, quorum_round: int) -> list[tuple[Barrier, int]]:
        """A quorum has answered `quorum_round`: the barriers that this lets pass, with their positions."""
        while self._started and self._started[0][0] <= quorum_round:
            self.contact_ms = self._started.popleft()[1]
        passed: list[tuple[Barrier, int]] = []
        while self._rides and self._rides[0].round <= quorum_round:
            ride = self._rides.popleft()
            passed.extend([(barrier, ride.position) for barrier in ride.barriers])
        return passed

    def fail_all(self) -> list[Barrier]:
        """This leadership is over: every barrier that has not passed."""
        failed = [barrier for ride in self._rides for barrier in ride.barriers] + self._waiting
        self._rides.clear()
        self._waiting = []
        return failed


class ForwardedBarriers:
    """A follower's barriers on their way to the leader and back."""

    def __init__(self) -> None:
        self._expiry_ms: dict[int, int] = {}
        """By barrier id, oldest first: all wait equally long."""
        self.next_expiry_ms: int | None = None
        """No barrier expires before this.  It may be early, since answers do not move it."""

    def add(self, barrier_id: int, expiry_ms: int) -> None:
        self._expiry_ms[barrier_id] = expiry_ms
        if self.next_expiry_ms is None:
            self.next_expiry_ms = expiry_ms

    def take(self, barrier_id: int) -> bool:
        """An answer came: whether it was still waited for."""
        return self._expiry_ms.pop(barrier_id, None) is not None

    def take_expired(self, now_ms: int) -> list[int]:
        expired: list[int] = []
        self.next_expiry_ms = None
        for barrier_id, expiry_ms in self._expiry_ms.items():
            if expiry_ms > now_ms:
                self.next_expiry_ms = expiry_ms
                break
            expired.append(barrier_id)
        for barrier_id in expired:
            del self._expiry_ms[barrier_id]
        return expired

    def take_all(self) -> list[int]:
        everything = list(self._expiry_ms)
        self._expiry_ms.clear()
        self.next_expiry_ms = None
        return everything
