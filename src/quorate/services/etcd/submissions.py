"""Commands of this node on their way to the log: gathered for one turn of the loop, submitted together, answered.

Every command is answered once: with its result, or with the reason why there is none.

- Refused (no leader for long, a full disk, the node stops): it was not and will not be done.
- Lost (the leader changed, or the connection to it ended): it may have been done.  etcd lets the client wait until the
  request times out and then says why, so these words are what a client is told here too, only sooner.  No client of
  etcd takes them for "not done": `clientv3` repeats no write that has reached a server.
- Timed out: it may have been done, or may yet be.

While the group is congested commands wait here, and beyond MAX_HELD_BYTES they are refused with etcd's own word for a
cluster that cannot keep up, TOO_MANY_REQUESTS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from quorate.consensus.replica import Leadership
from quorate.services.etcd.errors import REFUSED, EtcdError
from quorate.services.etcd.header import HeaderWriter
from quorate.services.etcd.proposing import Proposal, Waiter
from quorate.services.etcd.results import Result
from quorate.services.interface import Group, Refused

MAX_HELD_BYTES: Final = 8 << 20
"""Commands that wait while the group is congested; it holds as many bytes itself."""
COMMAND_OVERHEAD_BYTES: Final = 1 << 10
"""Charged for each held command beside its bytes: its call and its stream."""


class _Submitted:
    """Commands submitted in one turn."""

    __slots__ = ("deadline_ms", "left", "waiters")

    def __init__(self, waiters: Sequence[Waiter], deadline_ms: int) -> None:
        self.waiters = waiters
        self.left = len(waiters)
        """How many of the last of them are still to come back; the group answers in the order of submission."""
        self.deadline_ms = deadline_ms


class Submissions:
    """`proposing.Proposer`, and this door's half of the group's promises to it."""

    def __init__(
        self,
        group: Group,
        header: HeaderWriter,
        max_command_bytes: int,
        timeout_ms: int,
        schedule: Callable[[], None],
    ) -> None:
        self._group = group
        self._header = header
        self._max_command_bytes = max_command_bytes
        self._timeout_ms = timeout_ms
        self._schedule = schedule
        """Have `submit` called at the end of the turn."""
        self._commands: list[bytes] = []
        self._waiters: list[Waiter] = []
        """One for each of `_commands`."""
        self._under_way: deque[_Submitted] = deque()
        self._congested = False
        self._held_bytes = 0
        self._held_since_ms = 0
        self._leadership = group.leadership
        self.count = 0
        """Commands taken so far."""

    def propose(self, command: bytes, waiter: Waiter) -> None:
        if len(command) > self._max_command_bytes:
            _fail(waiter, EtcdError.REQUEST_TOO_LARGE)
            return
        if self._congested:
            if self._held_bytes > MAX_HELD_BYTES:
                _fail(waiter, EtcdError.TOO_MANY_REQUESTS)
                return
            self._hold(len(command))
        elif not self._commands:
            self._schedule()
        self.count += 1
        self._commands.append(command)
        self._waiters.append(waiter)

    def _hold(self, size_bytes: int) -> None:
        if not self._commands:
            self._held_since_ms = self._group.now_ms()
        self._held_bytes += size_bytes + COMMAND_OVERHEAD_BYTES

    def submit(self) -> None:
        """At the end of a turn: all that came in it."""
        if not self._commands or self._congested:
            return
        commands, self._commands = self._commands, []
        waiters, self._waiters = self._waiters, []
        self._under_way.append(_Submitted(waiters, self._group.now_ms() + self._timeout_ms))
        self._group.submit(commands, waiters)
        self._congested = self._group.congested()

    def relieved(self) -> None:
        """The group takes commands again.  Whose client has given up meanwhile is not done."""
        self._congested = False
        self._held_bytes = 0
        held = zip(self._commands, self._waiters, strict=True)
        wanted = [(command, waiter) for command, waiter in held if isinstance(waiter, Proposal) or not waiter.is_over]
        self._commands = [command for command, _ in wanted]
        self._waiters = [waiter for _, waiter in wanted]
        self._schedule()

    # --- answers -------------------------------------------------------------------------------

    def applied(self, results: Sequence[Result], waiters: Sequence[Waiter]) -> None:
        write_header = self._header.write
        for result, waiter in zip(results, waiters, strict=True):
            if isinstance(waiter, Proposal):
                waiter.applied(result)
                continue
            revision, body, error = result
            if error is None:
                waiter.reply(write_header(revision) + body)
            else:
                waiter.fail(*error.value)
        self._came_back(len(waiters))

    def _came_back(self, count: int) -> None:
        under_way = self._under_way
        while count:
            first = under_way[0]
            if first.left > count:
                first.left -= count
                return
            count -= first.left
            under_way.popleft()

    def refused(self, waiters: Sequence[Waiter], why: Refused) -> None:
        self._end(waiters, REFUSED[why])

    def lost(self, waiters: Sequence[Waiter]) -> None:
        # The door is told of a new leadership only after the group has given up what was under way in the old one.
        changed = self._group.leadership != self._leadership
        self._end(waiters, EtcdError.TIMEOUT_LEADER_FAILED if changed else EtcdError.TIMEOUT_CONNECTION_LOST)

    def leadership_changed(self, leadership: Leadership) -> None:
        self._leadership = leadership

    def _end(self, waiters: Sequence[Waiter], error: EtcdError) -> None:
        """These get no result.  They need not be the first that are under way."""
        gone = {id(waiter) for waiter in waiters}
        kept: deque[_Submitted] = deque()
        for submitted in self._under_way:
            left = [waiter for waiter in submitted.waiters[-submitted.left :] if id(waiter) not in gone]
            if left:
                kept.append(_Submitted(left, submitted.deadline_ms))
        self._under_way = kept
        for waiter in waiters:
            _fail(waiter, error)

    def tick(self, now_ms: int) -> None:
        """Calls that have waited too long are told so; a `Proposal` waits for its outcome."""
        for submitted in self._under_way:
            if submitted.deadline_ms > now_ms:
                break
            submitted.deadline_ms += self._timeout_ms
            _time_out(submitted.waiters[-submitted.left :])
        if self._congested and self._commands and now_ms >= self._held_since_ms + self._timeout_ms:
            self._held_since_ms = now_ms
            _time_out(self._waiters)

    def outstanding(self) -> int:
        return len(self._commands) + sum(submitted.left for submitted in self._under_way)


def _time_out(waiters: Sequence[Waiter]) -> None:
    for waiter in waiters:
        if not isinstance(waiter, Proposal):
            _fail(waiter, EtcdError.TIMEOUT)


def _fail(waiter: Waiter, error: EtcdError) -> None:
    if isinstance(waiter, Proposal):
        waiter.failed(error)
    else:
        waiter.fail(error.code, error.message)
