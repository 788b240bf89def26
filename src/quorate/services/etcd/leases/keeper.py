"""Leases: granted, kept alive, ended.  The promises are those of DESIGN.md section 7, kept as for ZooKeeper's sessions.

A lease ends through the log, when it is revoked or when the leader's door has proposed its expiry.  The leader's door
keeps the clock (`keepalive.clock`).  Every other door reports which leases it heard from, by notes, and answers a
client only when the leader's has confirmed that it began their time anew.  It confirms only while a quorum has followed
it within the margin, and never once it has proposed the expiry.  A new leader's clock starts behind a barrier, when its
store holds all leases that there are, and gives each its whole TTL and the margin on top, so that no confirmation of
its predecessor is cut short.  A process that stood still could hear nobody, and its leases get that much longer.
An expiry names the lease's generation: it cannot end another that was granted under the same id meanwhile.

The shortest TTL is the store's MIN_TTL_S, etcd's, and not the one second that our shorter elections would allow: what
works here should work there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Final

from quorate.consensus.replica import Leadership, NodeId
from quorate.net.grpc.calls import Call, StreamHandler
from quorate.services.etcd import commands
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.encoding import bytes_field, integer_field
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.header import HeaderWriter
from quorate.services.etcd.leases import notes
from quorate.services.etcd.leases.keepalive import KeepAliveStream, KeepAliveStreams
from quorate.services.etcd.leases.remaining import RemainingTimes
from quorate.services.etcd.proposing import Proposal, Proposer
from quorate.services.etcd.reads import Reads
from quorate.services.etcd.requests import decode
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Store
from quorate.services.interface import Group
from quorate.services.keepalive import touches
from quorate.services.keepalive.clock import KeepAliveClock

LOG: Final = logging.getLogger("quorate.etcd")

TICK_MS: Final = 50
"""How far ticks are apart, as `Door.tick` says."""
PAUSE_MS: Final = 2 * TICK_MS
"""Ticks further apart than this mean that the process stood still, and clients could not be heard."""
EXPIRE_AGAIN_MS: Final = 1_000
EXPIRIES_PER_TICK: Final = 500
"""Where very many leases end at once, other writes come between."""


class Expiry(Proposal):
    """The waiter of a lease's expiry."""

    __slots__ = ("_keeper", "_lease")

    def __init__(self, keeper: LeaseKeeper, lease: int) -> None:
        self._keeper = keeper
        self._lease = lease

    def applied(self, result: Result) -> None:
        """Nothing: what came of it is among the store's `lease_changes`."""

    def failed(self, error: EtcdError) -> None:
        self._keeper.expire_again(self._lease)


class LeaseKeeper:
    """The Lease service of one door."""

    def __init__(
        self,
        store: Store,
        group: Group,
        proposer: Proposer,
        reads: Reads,
        header: HeaderWriter,
        margin_ms: int,
        timeout_ms: int,
    ) -> None:
        self._store = store
        self._group = group
        self._proposer = proposer
        self._reads = reads
        self._margin_ms = margin_ms
        """A leader confirms only if it surely led so short a time ago; every new one grants this much more."""
        self._streams = KeepAliveStreams(store, group, header, timeout_ms, self._schedule_report)
        self._touches = self._streams.touches
        self._remaining = RemainingTimes(store, group, reads, timeout_ms, self._remaining_here)
        self._clock: KeepAliveClock | None = None
        """Only while this node is the ready leader, and its store holds all that was committed before."""
        self._led_generation: int | None = None
        """The generation that this node leads and is ready in: the clock's, also while it is not there yet."""
        self._due: deque[int] = deque()
        """Leases that the clock has named, and whose expiry is to be proposed."""
        self._report_is_due = False
        self._last_tick_ms = group.now_ms()

    def count(self) -> int:
        """Leases that this node's clock watches over: none where it does not lead."""
        return 0 if self._clock is None else len(self._clock)

    # --- calls ---

    def grant(self, call: Call, message: bytes) -> None:
        request = decode(pb.LeaseGrantRequest, call, message)
        if request is None:
            return
        lease = request.ID
        while lease == 0 or (request.ID == 0 and lease in self._store.leases):
            lease = self._group.random.randrange(1, 1 << 63)
        self._proposer.propose(commands.grant(lease, request.TTL), call)

    def revoke(self, call: Call, message: bytes) -> None:
        request = decode(pb.LeaseRevokeRequest, call, message)
        if request is not None:
            self._proposer.propose(commands.revoke(request.ID), call)

    def time_to_live(self, call: Call, message: bytes) -> None:
        request = decode(pb.LeaseTimeToLiveRequest, call, message)
        if request is not None:
            self._remaining.answer(call, request)

    def leases(self, call: Call, message: bytes) -> None:
        """In the order in which they were granted."""
        if decode(pb.LeaseLeasesRequest, call, message) is not None:
            self._reads.add(call, None, self._list, len(message))

    def _list(self, _: None) -> Result:
        statuses = (bytes_field(2, integer_field(1, lease)) for lease in self._store.leases)
        return Result(self._store.revision, b"".join(statuses))

    def open_keep_alive(self, call: Call) -> StreamHandler:
        return KeepAliveStream(self._streams, call)

    # --- what the door says ---

    def applied(self) -> None:
        """The store has applied a batch."""
        now_ms = self._group.now_ms()
        for lease, granted in self._store.lease_changes:
            if granted:
                if self._clock is not None:
                    self._clock.add(lease.lease_id, lease.ttl_s * 1_000, now_ms)
            else:
                if self._clock is not None:
                    self._clock.remove(lease.lease_id)
                self._streams.ended(lease.lease_id)

    def restored(self) -> None:
        if self._clock is not None:
            self._start_clock()
        self._streams.restored()

    def leadership_changed(self, leadership: Leadership) -> None:
        leads = leadership.ready and leadership.leader == self._group.node_id
        generation = leadership.generation if leads else None
        if generation != self._led_generation:
            self._led_generation = generation
            self._clock = None
            if generation is not None:
                self._group.barrier(partial(self._start_clock_in, generation))

    def _start_clock_in(self, generation: int, passed: bool) -> None:
        # A barrier fails where the leadership is over; the next one asks for another.
        if passed and generation == self._led_generation:
            self._start_clock()

    def _start_clock(self) -> None:
        self._clock = KeepAliveClock()
        self._due.clear()
        timeouts_ms = [(lease.lease_id, lease.ttl_s * 1_000) for lease in self._store.leases.values()]
        self._clock.start(timeouts_ms, self._group.now_ms(), self._margin_ms)

    def tick(self, now_ms: int) -> None:
        pause_ms = now_ms - self._last_tick_ms
        self._last_tick_ms = now_ms
        self._report(now_ms)
        if self._clock is not None:
            if pause_ms > PAUSE_MS:
                # Less the usual distance, so that a process that is always late still ends leases.
                self._clock.excuse(pause_ms - TICK_MS)
            self._propose_expiries(self._clock, now_ms)
        self._streams.tick(now_ms)
        self._remaining.tick(now_ms)

    # --- expiry ---

    def _propose_expiries(self, clock: KeepAliveClock, now_ms: int) -> None:
        self._due += clock.due(now_ms)
        for _ in range(min(len(self._due), EXPIRIES_PER_TICK)):
            lease = self._due.popleft()
            known = self._store.leases.get(lease)
            # It may have been revoked since, and even granted anew.
            if known is not None and clock.is_ending(lease):
                LOG.info("lease %x was not heard from for %d s: proposing its expiry", lease, known.ttl_s)
                self._proposer.propose(commands.expire(lease, known.generation), Expiry(self, lease))

    def expire_again(self, lease: int) -> None:
        if self._clock is not None:
            self._clock.propose_again(lease, self._group.now_ms() + EXPIRE_AGAIN_MS)

    # --- keeping alive ---

    def _may_confirm(self, now_ms: int) -> bool:
        contact_ms = self._group.quorum_contact_ms()
        return contact_ms is not None and now_ms - contact_ms <= self._margin_ms

    def _schedule_report(self) -> None:
        if not self._report_is_due:
            self._report_is_due = True
            asyncio.get_running_loop().call_soon(self._report_now)

    def _report_now(self) -> None:
        self._report_is_due = False
        self._report(self._group.now_ms())

    def _report(self, now_ms: int) -> None:
        """To the clock where it is here, else to the leader's door; without a leader all waits."""
        leader = self._group.leadership.leader
        if self._clock is not None:
            clock = self._clock
            taken = [lease for lease in self._touches.take() if clock.touch(lease, now_ms)]
            if self._may_confirm(now_ms):
                self._streams.confirmed(self._touches.confirm_here(taken))
        elif leader is not None and leader != self._group.node_id:
            note = self._touches.note()
            if note is not None:
                self._group.tell(leader, note[1])

    def told(self, sender: NodeId, note: bytes) -> None:
        """A note from another door.  Raises ValueError where it cannot be decoded."""
        if notes.is_about_time(note):
            self._told_of_time(sender, notes.decode(note))
            return
        read = touches.decode(note)
        if isinstance(read, touches.Confirmed):
            self._streams.confirmed(self._touches.confirm(read))
        elif self._clock is not None:
            number, leases = read
            now_ms = self._group.now_ms()
            clock = self._clock
            refused = [lease for lease in leases if not clock.touch(lease, now_ms)]
            if self._may_confirm(now_ms):
                self._group.tell(sender, touches.encode_confirmed(number, refused))

    # --- what remains ---

    def _remaining_here(self, lease: int) -> int | None:
        """None where this node does not keep the clock, or others may by now."""
        now_ms = self._group.now_ms()
        if self._clock is None or not self._may_confirm(now_ms):
            return None
        remaining_ms = self._clock.remaining_ms(lease, now_ms)
        return notes.UNKNOWN if remaining_ms is None else remaining_ms

    def _told_of_time(self, sender: NodeId, read: notes.Asked | notes.Told) -> None:
        if isinstance(read, notes.Told):
            self._remaining.told(read)
            return
        remaining_ms = self._remaining_here(read.lease)
        if remaining_ms is not None:
            self._group.tell(sender, notes.encode_told(read.number, remaining_ms))
