"""LeaseTimeToLive: how long a lease has still to live is known by the leader's clock alone.

So the leader's door is asked first, by a note that is repeated until there is an answer, then this node's store, behind
a barrier: whether the lease is there, and its keys.  A lease that the leader did not know and that is there then was
granted in between, so its time has just begun.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from quorate.consensus.replica import NodeId
from quorate.net.grpc.calls import Call
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.encoding import bytes_field, integer_field
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.leases.notes import UNKNOWN, Told, encode_asked
from quorate.services.etcd.reads import Reads
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Store
from quorate.services.interface import Group

ASK_AGAIN_MS: Final = 200


class Question(NamedTuple):
    """A call that waits for the leader's answer."""

    call: Call
    request: pb.LeaseTimeToLiveRequest
    deadline_ms: int


class RemainingTimes:
    """Answers these calls.  `local` is this node's own clock: what remains of a lease, None where it cannot say."""

    def __init__(
        self, store: Store, group: Group, reads: Reads, timeout_ms: int, local: Callable[[int], int | None]
    ) -> None:
        self._store = store
        self._group = group
        self._reads = reads
        self._timeout_ms = timeout_ms
        self._local = local
        self._questions: dict[int, Question] = {}
        self._last_number = 0
        self._ask_again_at_ms = 0

    def answer(self, call: Call, request: pb.LeaseTimeToLiveRequest) -> None:
        question = Question(call, request, self._group.now_ms() + self._timeout_ms)
        remaining_ms = self._local(request.ID)
        if remaining_ms is not None:
            self._read(question, remaining_ms)
            return
        self._last_number += 1
        self._questions[self._last_number] = question
        self._ask(self._last_number, question)

    def _ask(self, number: int, question: Question) -> None:
        leader: NodeId | None = self._group.leadership.leader
        if leader is not None and leader != self._group.node_id:
            self._group.tell(leader, encode_asked(number, question.request.ID))

    def told(self, told: Told) -> None:
        question = self._questions.pop(told.number, None)
        if question is not None:
            self._read(question, told.remaining_ms)

    def tick(self, now_ms: int) -> None:
        if not self._questions or now_ms < self._ask_again_at_ms:
            return
        self._ask_again_at_ms = now_ms + ASK_AGAIN_MS
        for number, question in list(self._questions.items()):
            remaining_ms = self._local(question.request.ID)
            if question.deadline_ms <= now_ms:
                del self._questions[number]
                without = self._group.leadership.leader is None
                question.call.fail(*(EtcdError.NO_LEADER if without else EtcdError.TIMEOUT).value)
            elif question.call.is_over:
                del self._questions[number]
            elif remaining_ms is not None:
                del self._questions[number]
                self._read(question, remaining_ms)
            else:
                self._ask(number, question)

    def _read(self, question: Question, remaining_ms: int) -> None:
        request = question.request
        self._reads.add(question.call, (request, remaining_ms), self._result, request.ByteSize())

    def _result(self, asked: tuple[pb.LeaseTimeToLiveRequest, int]) -> Result:
        request, remaining_ms = asked
        lease = self._store.leases.get(request.ID)
        body = integer_field(2, request.ID)
        if lease is None:
            return Result(self._store.revision, body + integer_field(3, -1))
        # More than its TTL remains for what a new leader gives on top.
        remaining_s = lease.ttl_s if remaining_ms == UNKNOWN else min(remaining_ms // 1_000, lease.ttl_s)
        body += integer_field(3, remaining_s) + integer_field(4, lease.ttl_s)
        if request.keys:
            body += b"".join(bytes_field(5, key) for key in sorted(lease.keys))
        return Result(self._store.revision, body)
