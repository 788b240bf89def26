"""The etcd door of one node: gRPC calls around a replicated store.

Turns.  Handlers are called as requests are read from the sockets.  What they want of the cluster gathers, and goes to
the group once at the end of the turn, in `_turn`: all commands in one submission, all linearizable reads behind one
barrier.  The gRPC server writes what was answered in a turn in one write for each connection.

The parts.  `kv` checks and forwards calls on keys; `submissions` and `reads` bring commands and reads to their answers;
`watching` and `leases` keep what these calls leave behind; `members` and `cluster_calls` tell clients where they are;
`leaders` sees to calls that want a leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from quorate.consensus.replica import Leadership, NodeId
from quorate.net.grpc.calls import Method, ServerOptions, Streaming, Unary
from quorate.net.grpc.server import GrpcServer
from quorate.services.etcd.cluster_calls import ClusterCalls
from quorate.services.etcd.header import HeaderWriter, cluster_number, member_number
from quorate.services.etcd.kv import KeyCalls
from quorate.services.etcd.leaders import LeaderWanted
from quorate.services.etcd.leases import LeaseKeeper
from quorate.services.etcd.members import NOTE, Members
from quorate.services.etcd.options import EtcdOptions
from quorate.services.etcd.proposing import Waiter
from quorate.services.etcd.reads import Reads
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Store
from quorate.services.etcd.submissions import Submissions
from quorate.services.etcd.watching import Watching
from quorate.services.interface import DoorConfig, Group, Refused

GRPC_OVERHEAD_BYTES: Final = 512 << 10
"""gRPC takes messages this much larger than the largest command; what lies between is "request is too large"."""
DRAIN_S: Final = 1.0
"""When the node stops, all that can be answered is; this is for clients that are in the middle of a request."""
SWEEP_VERSIONS: Final = 250
SWEEP_INTERVAL_S: Final = 0.005
"""A step of so many versions so often returns the memory of a million in half a minute.

Tombstones take longest, about 12 us each.
"""


class EtcdDoor:
    """`quorate.services.interface.Door` for etcd's v3 API."""

    def __init__(self, store: Store, group: Group, config: DoorConfig, options: EtcdOptions) -> None:
        self._store = store
        self._config = config
        self._options = options
        self._turn_is_due = False
        self._sweeping: asyncio.TimerHandle | None = None
        cluster, own = config.cluster_id, group.node_id
        self._header = HeaderWriter(cluster_number(cluster), member_number(cluster, own))
        self._header.set_term(group.leadership.generation)
        # As etcd: the option, and two election timeouts.
        timeout_ms = options.request_timeout_ms + config.margin_ms
        self._submissions = Submissions(group, self._header, options.max_request_bytes, timeout_ms, self._schedule_turn)
        self._reads = Reads(group, self._header, timeout_ms, self._schedule_turn)
        self._watching = Watching(store, self._header, options)
        self._leases = LeaseKeeper(
            store, group, self._submissions, self._reads, self._header, config.margin_ms, timeout_ms
        )
        self._leaders = LeaderWanted(group, config.margin_ms // 2)
        self._members = Members(group, config, "http" if options.tls is None else "https")
        self._server = GrpcServer(
            self._methods(group),
            ServerOptions(
                max_message_bytes=options.max_request_bytes + GRPC_OVERHEAD_BYTES,
                max_connections=config.max_connections,
                max_streams=config.max_requests_in_flight,
                max_unread_bytes=config.max_unread_bytes,
                drain_s=DRAIN_S,
            ),
        )

    def _methods(self, group: Group) -> Mapping[str, Method]:
        keys = KeyCalls(self._store, self._submissions, self._reads, self._options.max_txn_ops)
        cluster = ClusterCalls(self._store, group, self._header, self._members, self._config.admin)
        leases = self._leases
        unary = {
            **keys.methods(),
            **cluster.methods(),
            "/etcdserverpb.Lease/LeaseGrant": leases.grant,
            "/etcdserverpb.Lease/LeaseRevoke": leases.revoke,
            "/etcdserverpb.Lease/LeaseTimeToLive": leases.time_to_live,
            "/etcdserverpb.Lease/LeaseLeases": leases.leases,
        }
        streaming = {
            "/etcdserverpb.Watch/Watch": self._watching.open,
            "/etcdserverpb.Lease/LeaseKeepAlive": leases.open_keep_alive,
        }
        guard = self._leaders
        return {
            **{path: Unary(guard.unary(handle)) for path, handle in unary.items()},
            **{path: Streaming(guard.streaming(open_stream)) for path, open_stream in streaming.items()},
        }

    # --- the node's side -----------------------------------------------------------------------

    async def start(self) -> None:
        await self._server.start(self._config.host, self._config.port, self._options.tls)
        self._members.open(self._server.port)

    async def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._submissions.stop()
        self._reads.stop()
        self._leaders.stop()
        await self._server.stop()

    @property
    def port(self) -> int:
        """Where it listens; of interest where the settings leave it to the system."""
        return self._server.port

    def tick(self, now_ms: int) -> None:
        self._submissions.tick(now_ms)
        self._reads.tick(now_ms)
        self._leases.tick(now_ms)
        self._watching.tick(now_ms)
        self._leaders.tick(now_ms)
        self._members.tick(now_ms)
        if self._sweeping is None:
            self._sweep()

    def _sweep(self) -> None:
        """Give back what compactions have forgotten, a step at a time."""
        more = self._store.sweep(SWEEP_VERSIONS)
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_INTERVAL_S, self._sweep) if more else None

    def summary(self) -> dict[str, int]:
        return {
            "connections": self._server.connections(),
            "requests": self._submissions.count + self._reads.count,
            "outstanding": self._submissions.outstanding() + self._reads.outstanding(),
            "watches": self._watching.count(),
            "leases_kept": self._leases.count(),
        }

    # --- turns ---------------------------------------------------------------------------------

    def _schedule_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        self._submissions.submit()
        self._reads.submit()

    # --- the group's side ----------------------------------------------------------------------

    def applied(self, results: Sequence[Result], waiters: Sequence[Waiter] | None) -> None:
        if waiters is not None:
            self._submissions.applied(results, waiters)
        self._watching.advance()
        self._leases.applied()

    def refused(self, waiters: Sequence[Waiter], why: Refused) -> None:
        self._submissions.refused(waiters, why)

    def lost(self, waiters: Sequence[Waiter]) -> None:
        self._submissions.lost(waiters)

    def relieved(self) -> None:
        self._submissions.relieved()

    def restored(self) -> None:
        self._watching.restored()
        self._leases.restored()

    def leadership_changed(self, leadership: Leadership) -> None:
        self._header.set_term(leadership.generation)
        self._submissions.leadership_changed(leadership)
        self._leases.leadership_changed(leadership)
        self._reads.retry()
        self._members.announce()

    def told(self, sender: NodeId, note: bytes) -> None:
        if note[:1] == NOTE:
            self._members.hear(sender, note)
        else:
            self._leases.told(sender, note)
