"""Linearizable reads: one barrier for all that came in a turn of the loop, then this node's store.

A barrier that fails says nothing about the cluster but that its leader changed or cannot be reached just now, and a
read can be repeated without harm.  So the reads behind it wait for the next leader, as long as a request may take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from quorate.net.grpc.calls import Call
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.header import HeaderWriter
from quorate.services.etcd.results import Result
from quorate.services.interface import Group

ANSWER_BYTES: Final = 1 << 20
"""Answers of one turn of the loop, about.  The rest is read in later turns: heartbeats and writes come between."""
MAX_WAITING_BYTES: Final = 16 << 20
"""Requests that wait for a barrier, before more are refused."""
READ_OVERHEAD_BYTES: Final = 1 << 10
"""Charged for each read beside its request: its call and its stream."""

Read: TypeAlias = tuple[Call, Any, Callable[[Any], Result], int]
"""Whom to answer, the request, what reads it from the store, and what it is charged."""


class _Round:
    """Reads behind one barrier."""

    __slots__ = ("deadline_ms", "reads")

    def __init__(self, reads: Sequence[Read], deadline_ms: int) -> None:
        self.reads = reads
        """None are left where it has timed out."""
        self.deadline_ms = deadline_ms


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
        self._ready: list[Read] = []
        """Their barrier has passed; what is left of a turn that answered enough."""
        self._waiting_bytes = 0
        self.count = 0
        """Reads answered or refused so far."""

    def add(self, call: Call, request: Any, read: Callable[[Any], Result], size_bytes: int) -> None:
        """Read linearizably.  `size_bytes` is the request's."""
        if self._waiting_bytes > MAX_WAITING_BYTES:
            call.fail(*EtcdError.TOO_MANY_REQUESTS.value)
            return
        if not self._new:
            self._schedule()
        charged = size_bytes + READ_OVERHEAD_BYTES
        self._waiting_bytes += charged
        self._new.append((call, request, read, charged))

    def answer(self, call: Call, result: Result) -> int:
        """Answer with what was read; the number of bytes."""
        self.count += 1
        revision, body, error = result
        if error is None:
            call.reply(self._header.write(revision) + body)
        else:
            call.fail(*error.value)
        return len(body)

    def submit(self) -> None:
        """At the end of a turn: a barrier for all that came in it, and more of what may be answered."""
        if self._ready:
            ready, self._ready = self._ready, []
            self._answer_all(ready)
        if self._new:
            reads, self._new = self._new, []
            self._ask(_Round(reads, self._group.now_ms() + self._timeout_ms))

    def _ask(self, round_: _Round) -> None:
        self._asked[round_] = None
        self._group.barrier(partial(self._came, round_))

    def _came(self, round_: _Round, passed: bool) -> None:
        del self._asked[round_]
        if passed:
            self._answer_all(round_.reads)
        elif round_.reads:
            self._failed.append(round_)

    def _answer_all(self, reads: Sequence[Read]) -> None:
        room_bytes = ANSWER_BYTES
        for at, (call, request, read, charged) in enumerate(reads):
            if room_bytes <= 0:
                if not self._ready:
                    self._schedule()
                self._ready.extend(reads[at:])
                return
            self._waiting_bytes -= charged
            if not call.is_over:
                room_bytes -= self.answer(call, read(request))

    def retry(self) -> None:
        """There may be a leader again."""
        if self._group.leadership.leader is not None:
            failed, self._failed = self._failed, []
            for round_ in failed:
                self._ask(round_)

    def tick(self, now_ms: int) -> None:
        for round_ in [*self._asked, *self._failed]:
            if round_.deadline_ms <= now_ms:
                self._end(round_, EtcdError.TIMEOUT)
        self._failed = [round_ for round_ in self._failed if round_.reads]
        self.retry()

    def stop(self) -> None:
        """The node stops: nothing more is answered."""
        rounds = [*self._asked, *self._failed, _Round(self._new, 0), _Round(self._ready, 0)]
        self._new, self._ready, self._failed = [], [], []
        for round_ in rounds:
            self._end(round_, EtcdError.STOPPED)

    def _end(self, round_: _Round, error: EtcdError) -> None:
        reads, round_.reads = round_.reads, ()
        for call, _, _, charged in reads:
            self._waiting_bytes -= charged
            call.fail(*error.value)

    def outstanding(self) -> int:
        rounds = [*self._asked, *self._failed]
        return len(self._new) + len(self._ready) + sum(len(round_.reads) for round_ in rounds)
