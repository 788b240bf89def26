"""Commands of this node on their way to the log: gathered for one turn of the loop, submitted together, answered.

Every command is answered once: with its result, or with the reason why there is none.

- Refused (no leader for long, a full disk, the node stops): it was not and will not be done.
- Lost (the leader changed, or the connection to it ended): it may have been done.  etcd lets the client wait until the
  request times out and then says why, so these words are what a client is told here too, only sooner.  No client of
  etcd takes them for "not done": `clientv3` repeats no write that has reached a server.
- Timed out: it may have been done, or may yet be.

The group is given a piece of about PIECE_BYTES at a time.  Once it is congested the rest waits here, and beyond
MAX_HELD_BYTES commands are refused with etcd's own word for a cluster that cannot keep up, TOO_MANY_REQUESTS.  Clients
that send requests as large as they are on the wire do not come to that: the gRPC server stops reading from them before.
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

PIECE_BYTES: Final = 1 << 20
"""As much as the group puts into one entry: larger ones would stop the loop, also of followers, for too long."""
MAX_HELD_BYTES: Final = 128 << 20
"""Commands that wait while the group is congested; it holds 8 MiB itself."""
COMMAND_OVERHEAD_BYTES: Final = 1 << 10
"""Charged for each held command beside its bytes: its call and its stream."""
_NEVER_MS: Final = 1 << 62


class _Submitted:
    """Commands submitted in one turn."""

    __slots__ = ("deadline_ms", "left", "waiters")

    def __init__(self, waiters: Sequence[Waiter], deadline_ms: int) -> None:
        self.waiters = waiters
        self.left = len(waiters)
        """How many of the last of them are still to come back; the group answers in the order of submission."""
        self.deadline_ms = deadline_ms


class _Held:
    """A piece that waits for the group."""

    __slots__ = ("commands", "deadline_ms", "size_bytes", "waiters")

    def __init__(self, commands: Sequence[bytes], waiters: Sequence[Waiter], deadline_ms: int) -> None:
        self.commands = commands
        self.waiters = waiters
        self.deadline_ms = deadline_ms
        self.size_bytes = _size(commands)

    def drop_over(self) -> int:
        """Forget commands whose clients were answered or have given up: they are not done.  How many bytes they had."""
        before_bytes = self.size_bytes
        pairs = zip(self.commands, self.waiters, strict=True)
        wanted = [(command, waiter) for command, waiter in pairs if isinstance(waiter, Proposal) or not waiter.is_over]
        self.commands = [command for command, _ in wanted]
        self.waiters = [waiter for _, waiter in wanted]
        self.size_bytes = _size(self.commands)
        return before_bytes - self.size_bytes


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
        self._new_bytes = 0
        """Of `_commands`."""
        self._held: deque[_Held] = deque()
        self._under_way: deque[_Submitted] = deque()
        self._congested = False
        self._held_bytes = 0
        self._has_stopped = False
        self._leadership = group.leadership
        self.count = 0
        """Commands taken so far."""

    def propose(self, command: bytes, waiter: Waiter) -> None:
        size_bytes = len(command)
        if size_bytes > self._max_command_bytes:
            _fail(waiter, EtcdError.REQUEST_TOO_LARGE)
            return
        if self._new_bytes + self._held_bytes > MAX_HELD_BYTES:
            _fail(waiter, EtcdError.TOO_MANY_REQUESTS)
            return
        if self._has_stopped:
            _fail(waiter, EtcdError.STOPPED)
            return
        if not self._commands:
            self._schedule()
        self.count += 1
        self._new_bytes += size_bytes
        self._commands.append(command)
        self._waiters.append(waiter)

    def submit(self) -> None:
        """At the end of a turn: what came in it, and what was held, as far as the group takes it."""
        if self._commands:
            commands, self._commands = self._commands, []
            waiters, self._waiters = self._waiters, []
            new_bytes, self._new_bytes = self._new_bytes, 0
            deadline_ms = self._group.now_ms() + self._timeout_ms
            if new_bytes <= PIECE_BYTES and not self._held and not self._congested:
                self._hand_over(commands, waiters, deadline_ms)
                return
            self._hold(commands, waiters, deadline_ms)
        while self._held and not self._congested:
            held = self._held.popleft()
            self._held_bytes -= held.size_bytes
            held.drop_over()
            if held.commands:
                self._hand_over(held.commands, held.waiters, held.deadline_ms)

    def _hand_over(self, commands: Sequence[bytes], waiters: Sequence[Waiter], deadline_ms: int) -> None:
        self._under_way.append(_Submitted(waiters, deadline_ms))
        self._group.submit(commands, waiters)
        self._congested = self._group.congested()

    def _hold(self, commands: Sequence[bytes], waiters: Sequence[Waiter], deadline_ms: int) -> None:
        """Cut it into pieces."""
        start = size_bytes = 0
        for end, command in enumerate(commands, 1):
            size_bytes += len(command)
            if size_bytes >= PIECE_BYTES or end == len(commands):
                held = _Held(commands[start:end], waiters[start:end], deadline_ms)
                self._held.append(held)
                self._held_bytes += held.size_bytes
                start, size_bytes = end, 0

    def relieved(self) -> None:
        """The group takes commands again."""
        self._congested = False
        if self._held:
            self._schedule()

    def stop(self) -> None:
        """The node stops: the group was not given these, and gets no more."""
        self._has_stopped = True
        waiters = [waiter for held in self._held for waiter in held.waiters] + self._waiters
        self._held.clear()
        self._commands, self._waiters = [], []
        self._new_bytes = self._held_bytes = 0
        for waiter in waiters:
            _fail(waiter, EtcdError.STOPPED)

    # --- answers -------------------------------------------------------------------------------

    def applied(self, results: Sequence[Result], waiters: Sequence[Waiter]) -> None:
        write_header = self._header.write
        for result, waiter in zip(results, waiters, strict=True):
            if isinstance(waiter, Proposal):
                waiter.applied(result)
                continue
            if result.error is None:
                waiter.reply(write_header(result.revision) + result.body)
            else:
                waiter.fail(*result.error.value)
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
            if submitted.deadline_ms <= now_ms:
                submitted.deadline_ms = _NEVER_MS
                _time_out(submitted.waiters[-submitted.left :])
        for held in self._held:
            if held.deadline_ms <= now_ms:
                held.deadline_ms = _NEVER_MS
                _time_out(held.waiters)
                self._held_bytes -= held.drop_over()

    def outstanding(self) -> int:
        held = sum(len(held.waiters) for held in self._held)
        return len(self._commands) + held + sum(submitted.left for submitted in self._under_way)


def _size(commands: Sequence[bytes]) -> int:
    return sum(map(len, commands)) + COMMAND_OVERHEAD_BYTES * len(commands)


def _time_out(waiters: Sequence[Waiter]) -> None:
    for waiter in waiters:
        if not isinstance(waiter, Proposal):
            _fail(waiter, EtcdError.TIMEOUT)


def _fail(waiter: Waiter, error: EtcdError) -> None:
    if isinstance(waiter, Proposal):
        waiter.failed(error)
    else:
        waiter.fail(error.code, error.message)
