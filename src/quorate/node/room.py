"""Room on the disks of a cluster: who has none, and whether writes can still be taken.

A node whose disk is full says so to its peers, because a leader must not take a write that
no quorum has room for: its client would wait for as long as the disks stay full.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from quorate.consensus.replica import NodeId
from quorate.net.links import Links
from quorate.node.wire import Room
from quorate.quorums import AtLeast, Quorum
from quorate.storage.log import Log

_log = logging.getLogger(__name__)

CLUSTER_GROUP = 0
"""The group number of messages that concern no service's group."""
ALLOCATE_INTERVAL_MS = 1000


class DiskRoom:
    """What this node knows of free space, its own and its peers'."""

    def __init__(self, log: Log, links: Links, schedule: Callable[[], None]) -> None:
        self._log = log
        self._links = links
        self._voters: tuple[NodeId, ...] = ()
        self._deciding: tuple[Quorum | AtLeast, ...] = ()
        self._schedule = schedule
        self._reported = False
        self._full_peers: set[NodeId] = set()
        self._quorum_full = False
        self._next_allocate_ms = 0

    def own_full(self) -> bool:
        """This node's log has no room for entries."""
        return self._log.full

    def refuses_writes(self) -> bool:
        """No write should be taken: there is no room here, or not on enough disks for a quorum."""
        return self._log.full or self._quorum_full

    def takes(self, payload_bytes: int) -> bool:
        """With a full log: whether entries of this size, from a leader, can still be made durable here.

        Twice the payload is more than its records take.  What a leader had sent before it
        could know is mostly still taken.
        """
        return 2 * payload_bytes <= max(0, self._log.room_bytes())

    def tick(self, now_ms: int) -> bool:
        """Look for room where there is none; tell the peers.  True where the own disk has just become full."""
        if self._log.full and now_ms >= self._next_allocate_ms:
            self._next_allocate_ms = now_ms + ALLOCATE_INTERVAL_MS
            self._log.try_allocate()
            # Told again and again, because a peer forgets it with any connection that ends.
            self._tell()
        if self._log.full is self._reported:
            return False
        self._reported = self._log.full
        self._tell()
        if self._reported:
            _log.error(
                "the disk is full: no write is taken until there is room for another segment of the log (%s)",
                self._log.why_full,
            )
        else:
            _log.info("the disk has room again: writes go on")
        return self._reported

    def hear(self, peer: NodeId, full: bool) -> None:
        if full:
            self._full_peers.add(peer)
        else:
            self._full_peers.discard(peer)
        self._judge()

    def ask_voters(self, voters: Iterable[NodeId], deciding: Iterable[Quorum | AtLeast]) -> None:
        """From now on these nodes' disks decide whether writes can be taken: those of quorums of every group."""
        self._voters, self._deciding = tuple(voters), tuple(deciding)
        self._judge()

    def _judge(self) -> None:
        roomy = [node for node in self._voters if node not in self._full_peers]
        self._quorum_full = not all(quorum.is_quorum(roomy) for quorum in self._deciding)

    def _tell(self) -> None:
        for link in self._links.by_peer.values():
            link.queue((CLUSTER_GROUP, Room(self._log.full)))
        self._schedule()
