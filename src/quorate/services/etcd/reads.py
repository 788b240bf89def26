"""Reads: linearizable ones behind one barrier for all that came in a turn of the loop, then from this node's store.

A barrier that fails says nothing about the cluster but that its leader changed or cannot be reached just now, and a
read can be repeated without harm.  So the reads behind it wait for the next leader, as long as a request may take.

The way of a read: `_new` until the end of its turn; `_asked` (or `_failed`) until a barrier has passed; `_ready` where
a turn has answered enough; `_unread` while its client should first read what it was answered; `_large` where it is
read in pieces, one after the other, so that only one of them is held half done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from quorate.net.grpc.calls import Call
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.header import HeaderWriter
from quorate.services.etcd.reading_in_pieces import PIECE_KEYS, RangeInPieces
from quorate.services.etcd.results import Result
from quorate.services.interface import Group

ANSWER_BYTES: Final = 1 << 20
"""Answers of one turn of the loop, about.  The rest is read in later turns: heartbeats and writes come between."""
MAX_WAITING_BYTES: Final = 16 << 20
"""Requests that wait for a barrier or for their client, before more are refused."""
READ_OVERHEAD_BYTES: Final = 1 << 10
"""Charged for each read beside its request: its call and its stream."""

Reader: TypeAlias = Callable[[Any], "Result | RangeInPieces"]
Read: TypeAlias = tuple[Call, Any, Reader, int]
"""Whom to answer, the request, what reads it from the store, and what it is charged."""


class _Round:
    """Reads behind one barrier."""

    __slots__ = ("deadline_ms", "reads")

    def __init__(self, reads: Sequence[Read], deadline_ms: int) -> None:
        self.reads = reads
        """None are left where it has timed out."""
        self.deadline_ms = deadline_ms


class _Large:
    """A read in pieces."""

    __slots__ = ("deadline_ms", "has_begun", "range", "read")

    def __init__(self, read: Read, range_: RangeInPieces, deadline_ms: int) -> None:
        self.read = read
        self.range = range_
        self.deadline_ms = deadline_ms
        self.has_begun = False


class Reads:
    """Answers reads, at once or behind a barrier."""

    def __init__(self, group: Group, header: HeaderWriter, timeout_ms: int, schedule: Callable[[], None]) -> None:
        self._group = group
        self._header = header
        self._timeout_ms = timeout_ms
        self._schedule = schedule
        """Have `submit` called at the end of the turn."""
        self._new: list[Read] = []
        self._asked: dict[_Round, None] = {}
        self._failed: list[_Round] = []
        """Their barrier failed; another one follows."""
        self._ready: deque[_Round] = deque()
        """Their barrier has passed; what is left of turns that answered enough."""
        self._unread: dict[Call, tuple[Read, int]] = {}
        """(read, deadline in ms) whose clients have much to read yet."""
        self._large: deque[_Large] = deque()
        self._waiting_bytes = 0
        self.count = 0
        """Reads answered or refused so far."""

    def add(self, call: Call, request: Any, read: Reader, size_bytes: int) -> None:
        """Read linearizably.  `size_bytes` is the request's."""
        if self._is_full(call):
            return
        if not self._new:
            self._schedule()
        charged = size_bytes + READ_OVERHEAD_BYTES
        self._waiting_bytes += charged
        self._new.append((call, request, read, charged))

    def add_serializable(self, call: Call, request: Any, read: Reader, size_bytes: int) -> None:
        """Read what this node has: at once, unless that takes long."""
        result = read(request)
        if not isinstance(result, RangeInPieces):
            self._answer(call, result)
        elif not self._is_full(call):
            charged = size_bytes + READ_OVERHEAD_BYTES
            self._waiting_bytes += charged
            self._cut((call, request, read, charged), result, self._group.now_ms() + self._timeout_ms)

    def _is_full(self, call: Call) -> bool:
        """If so the call has failed."""
        if self._waiting_bytes > MAX_WAITING_BYTES:
            call.fail(*EtcdError.TOO_MANY_REQUESTS.value)
            return True
        return False

    def _answer(self, call: Call, result: Result) -> int:
        """Answer with what was read; the number of bytes."""
        self.count += 1
        if result.error is None:
            call.reply(self._header.write(result.revision) + result.body)
        else:
            call.fail(*result.error.value)
        return len(result.body)

    def submit(self) -> None:
        """At the end of a turn: a barrier for all that came in it, and more of what may be answered."""
        if self._ready:
            ready, self._ready = self._ready, deque()
            self._answer_all(ready)
        if self._large:
            self._read_piece()
        if self._new:
            reads, self._new = self._new, []
            self._ask(_Round(reads, self._group.now_ms() + self._timeout_ms))

    def _ask(self, round_: _Round) -> None:
        self._asked[round_] = None
        self._group.barrier(partial(self._came, round_))

    def _came(self, round_: _Round, passed: bool) -> None:
        del self._asked[round_]
        if passed:
            self._answer_all(deque((round_,)))
        elif round_.reads:
            self._failed.append(round_)

    def _answer_all(self, rounds: deque[_Round]) -> None:
        room_bytes = ANSWER_BYTES
        while rounds:
            round_ = rounds.popleft()
            for at, each in enumerate(round_.reads):
                if room_bytes <= 0:
                    rounds.appendleft(_Round(round_.reads[at:], round_.deadline_ms))
                    self._later(rounds)
                    return
                call, request, read, charged = each
                if call.is_over:
                    self._waiting_bytes -= charged
                elif call.must_wait(self._resume):
                    self._unread[call] = (each, round_.deadline_ms)
                elif isinstance(result := read(request), RangeInPieces):
                    self._cut(each, result, round_.deadline_ms)
                else:
                    self._waiting_bytes -= charged
                    room_bytes -= self._answer(call, result)

    def _later(self, rounds: deque[_Round]) -> None:
        self._ready.extend(rounds)
        self._schedule()

    def _resume(self, call: Call) -> None:
        """Its client has read."""
        unread = self._unread.pop(call, None)
        if unread is not None:
            read, deadline_ms = unread
            self._later(deque((_Round((read,), deadline_ms),)))

    # --- large ranges --------------------------------------------------------------------------

    def _cut(self, read: Read, range_: RangeInPieces, deadline_ms: int) -> None:
        self._large.append(_Large(read, range_, deadline_ms))
        self._schedule()

    def _read_piece(self) -> None:
        """As much as one turn may take."""
        room_keys = PIECE_KEYS
        while self._large and room_keys > 0:
            large = self._large[0]
            call, _, _, charged = large.read
            if call.is_over:
                self._waiting_bytes -= charged
            elif not large.has_begun and call.must_wait(self._resume):
                self._unread[call] = (large.read, large.deadline_ms)
            else:
                large.has_begun = True
                room_keys -= large.range.step(room_keys)
                if large.range.result is None:
                    break
                self._waiting_bytes -= charged
                self._answer(call, large.range.result)
            self._large.popleft()
        if self._large:
            self._schedule()

    # --- time, and ends ------------------------------------------------------------------------

    def retry(self) -> None:
        """There may be a leader again."""
        if self._group.leadership.leader is not None:
            failed, self._failed = self._failed, []
            for round_ in failed:
                self._ask(round_)

    def tick(self, now_ms: int) -> None:
        for round_ in [*self._asked, *self._failed, *self._ready]:
            if round_.deadline_ms <= now_ms:
                self._end(round_, EtcdError.TIMEOUT)
        self._failed = [round_ for round_ in self._failed if round_.reads]
        for large in self._large:
            # Once it is over `_read_piece` drops it.
            if large.deadline_ms <= now_ms:
                large.read[0].fail(*EtcdError.TIMEOUT.value)
        for call, (read, deadline_ms) in list(self._unread.items()):
            if call.is_over or deadline_ms <= now_ms:
                del self._unread[call]
                self._end(_Round((read,), deadline_ms), EtcdError.TIMEOUT)
        self.retry()

    def stop(self) -> None:
        """The node stops: nothing more is answered."""
        single = [*self._new, *(read for read, _ in self._unread.values()), *(large.read for large in self._large)]
        rounds = [*self._asked, *self._failed, *self._ready, _Round(single, 0)]
        self._new, self._failed = [], []
        self._unread.clear()
        self._ready.clear()
        self._large.clear()
        for round_ in rounds:
            self._end(round_, EtcdError.STOPPED)

    def _end(self, round_: _Round, error: EtcdError) -> None:
        reads, round_.reads = round_.reads, ()
        for call, _, _, charged in reads:
            self._waiting_bytes -= charged
            call.fail(*error.value)

    def outstanding(self) -> int:
        rounds = [*self._asked, *self._failed, *self._ready]
        return len(self._new) + len(self._unread) + len(self._large) + sum(len(round_.reads) for round_ in rounds)
