"""Calls of LeaseKeepAlive: each request is answered once the leader has confirmed it, in the order of its stream.

A request for a lease that this node knows waits for the leader's word, or for the lease to end through the log, which
is answered with TTL 0.  One for a lease that it does not know may be for one that was granted a moment ago on another
node: after a barrier it is known here, or there was none.

Requests for one lease that come while the leader is asked about it wait for the next question together: if each began
a new one, a client that sends without pause would never be answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from google.protobuf.message import DecodeError

from quorate.net.grpc.calls import Call
from quorate.net.grpc.status import Code
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.encoding import integer_field
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.header import HeaderWriter
from quorate.services.etcd.store import Store
from quorate.services.interface import Group
from quorate.services.keepalive.touches import Touches

MAX_UNANSWERED: Final = 10_000
"""Requests of one stream that wait; a client with more is not waiting for its answers."""


class Beat:
    """One request to keep a lease alive."""

    __slots__ = ("deadline_ms", "lease", "revision", "stream", "ttl_s")

    def __init__(self, stream: KeepAliveStream, lease: int, revision: int, deadline_ms: int) -> None:
        self.stream: Final = stream
        self.lease: Final = lease
        self.revision: Final = revision
        """Of the store when it came.  The answer's header shows no later one: the lease may have ended meanwhile."""
        self.deadline_ms: Final = deadline_ms
        self.ttl_s: int | None = None
        """The answer, which waits for those before it."""


class KeepAliveStream:
    """`quorate.net.grpc.calls.StreamHandler`."""

    __slots__ = ("_beats", "_call", "_half_closed", "_streams")

    def __init__(self, streams: KeepAliveStreams, call: Call) -> None:
        self._streams = streams
        self._call = call
        self._beats: deque[Beat] = deque()
        """Not answered yet."""
        self._half_closed = False

    def message(self, message: bytes) -> None:
        try:
            lease = pb.LeaseKeepAliveRequest.FromString(message).ID
        except DecodeError as error:
            self._call.fail(Code.INTERNAL, f"grpc: failed to unmarshal the received message {error}")
            return
        if len(self._beats) >= MAX_UNANSWERED:
            self.fail(EtcdError.TOO_MANY_REQUESTS)
            return
        beat = self._streams.beat(self, lease)
        self._beats.append(beat)
        self._streams.waiting[self] = None
        self._streams.look_up(beat)

    def half_closed(self) -> None:
        self._half_closed = True
        self.answer()

    def writable(self) -> None:
        """Nothing: answers are as many as requests."""

    def closed(self) -> None:
        beats, self._beats = self._beats, deque()
        self._streams.forget(self, beats)

    def fail(self, error: EtcdError) -> None:
        self._call.fail(error.code, error.message)

    def answer(self) -> None:
        """All that can be answered in order."""
        beats = self._beats
        while beats and beats[0].ttl_s is not None:
            beat = beats.popleft()
            header = self._streams.header.write(beat.revision)
            self._call.send(header + integer_field(2, beat.lease) + integer_field(3, beat.ttl_s or 0))
        if not beats:
            self._streams.waiting.pop(self, None)
            if self._half_closed:
                self._call.finish()

    def is_overdue(self, now_ms: int) -> bool:
        return bool(self._beats) and self._beats[0].deadline_ms <= now_ms


class KeepAliveStreams:
    """All these calls of one door, and what they wait for."""

    def __init__(
        self, store: Store, group: Group, header: HeaderWriter, timeout_ms: int, report: Callable[[], None]
    ) -> None:
        self.header: Final = header
        self.touches: Final = Touches()
        self._store = store
        self._group = group
        self._timeout_ms = timeout_ms
        self._report = report
        """Have `touches` reported at the end of the turn."""
        self.waiting: Final[dict[KeepAliveStream, None]] = {}
        """Streams with requests that are not answered."""
        self._asked: dict[int, list[Beat]] = {}
        """By lease: those that wait for the leader's next confirmation of it."""
        self._next: dict[int, list[Beat]] = {}
        """By lease: those that came while the leader was asked."""
        self._unknown: list[Beat] = []
        """For leases that are not known here: they wait for a barrier."""
        self._barrier_is_asked = False

    def beat(self, stream: KeepAliveStream, lease: int) -> Beat:
        return Beat(stream, lease, self._store.revision, self._group.now_ms() + self._timeout_ms)

    def look_up(self, beat: Beat) -> None:
        if beat.lease in self._store.leases:
            self._ask(beat)
        else:
            self._unknown.append(beat)
            self._ask_for_barrier()

    def forget(self, stream: KeepAliveStream, beats: Iterable[Beat]) -> None:
        """The call is over.  That its leases were heard from stays true."""
        self.waiting.pop(stream, None)
        for lease in {beat.lease: None for beat in beats}:
            for table in (self._asked, self._next):
                left = [beat for beat in table.pop(lease, ()) if beat.stream is not stream]
                if left:
                    table[lease] = left
            if lease not in self._asked:
                self.touches.forget(lease)
                self._ask_again(lease)
        self._unknown = [beat for beat in self._unknown if beat.stream is not stream]

    # --- the leader's word ---

    def _ask(self, beat: Beat) -> None:
        lease = beat.lease
        if lease in self._asked:
            self._next.setdefault(lease, []).append(beat)
            return
        self._asked[lease] = [beat]
        self.touches.heard[lease] = None
        self.touches.ping(lease)
        self._report()

    def _ask_again(self, lease: int) -> None:
        """The question is over: the next one is for all that came meanwhile."""
        beats = self._next.pop(lease, None)
        if beats is not None:
            self._ask(beats[0])
            self._asked[lease] = beats

    def confirmed(self, leases: Iterable[int]) -> None:
        """The leader's clock has begun their time anew."""
        for lease in leases:
            known = self._store.leases.get(lease)
            # One that has ended here meanwhile was answered then.
            if known is not None:
                self._answer(self._asked.pop(lease, ()), known.ttl_s)
                self._ask_again(lease)

    def ended(self, lease: int) -> None:
        """Through the log: whoever wants to keep it alive is too late."""
        self.touches.forget(lease)
        self.touches.heard.pop(lease, None)
        beats = [*self._asked.pop(lease, ()), *self._next.pop(lease, ())]
        self._answer(beats, 0)

    def restored(self) -> None:
        """What has ended in a snapshot has ended."""
        for lease in [*self._asked]:
            if lease not in self._store.leases:
                self.ended(lease)

    @staticmethod
    def _answer(beats: Iterable[Beat], ttl_s: int) -> None:
        for beat in beats:
            beat.ttl_s = ttl_s
            beat.stream.answer()

    # --- barriers ---

    def _ask_for_barrier(self) -> None:
        if not self._barrier_is_asked:
            self._barrier_is_asked = True
            beats, self._unknown = self._unknown, []
            self._group.barrier(lambda passed: self._look_again(beats, passed))

    def _look_again(self, beats: list[Beat], passed: bool) -> None:
        self._barrier_is_asked = False
        # Of those whose call has ended meanwhile nobody hears the answer, and a ping of theirs does no harm.
        if not passed:
            self._unknown += beats  # The next tick asks again.
            return
        for beat in beats:
            if beat.lease in self._store.leases:
                self._ask(beat)
            else:
                self._answer((beat,), 0)
        if self._unknown:
            self._ask_for_barrier()

    # --- time ---

    def tick(self, now_ms: int) -> None:
        if self._unknown:
            self._ask_for_barrier()
        for stream in list(self.waiting):
            if stream.is_overdue(now_ms):
                without = self._group.leadership.leader is None
                stream.fail(EtcdError.NO_LEADER if without else EtcdError.TIMEOUT)
