"""The ZooKeeper store under observation.

The door reads the store's tree, sessions and zxid directly, so what watches is the store
itself: a subclass that does what its parent does and looks at the outcome.  Checked, beside
the agreement of all replicas:

    zxid order          every command takes exactly one
    time order          the time that batches are applied with never goes back, over a snapshot neither
    ephemeral owner     an ephemeral znode's owner is a live session, and the list by which the znode will be
                        deleted with its session names it
    state machine agreement   also of a store that was loaded from a snapshot: it is what the store was, from
                        which the snapshot was made
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from struct import Struct
from typing import Final
from zlib import crc32

import msgspec

from quorate.consensus.replica import NodeId
from quorate.services.interface import Service
from quorate.services.zookeeper.service import ZOOKEEPER
from quorate.services.zookeeper.snapshot import Loaded, SnapshotWriter
from quorate.services.zookeeper.store import Store
from quorate.services.zookeeper.tree import Result
from quorate.simulation.store_agreement import StoreAgreement

_owner_in: Final = Struct(">44xq").unpack_from
"""The ephemeralOwner of `protocol.STAT`."""
_encode: Final = msgspec.msgpack.encode
NODES_PER_SLICE: Final = 8
"""A simulated store is small; its snapshots shall have many slices, so that writes come in between."""


def observed_zookeeper(agreement: StoreAgreement, node: NodeId) -> Service:
    """The service for one node; the agreement is that of its group."""
    return replace(ZOOKEEPER, create_store=lambda: ObservedStore(agreement, node))


class FinelySlicedStore(Store):
    """A store whose snapshots take many slices although it is small, so that writes come between them."""

    def snapshot(self) -> SnapshotWriter:
        writer = super().snapshot()
        writer.nodes_per_slice = NODES_PER_SLICE
        return writer


class ObservedStore(FinelySlicedStore):
    """A ZooKeeper store that tells what it came to."""

    def __init__(self, agreement: StoreAgreement, node: NodeId) -> None:
        super().__init__()
        self._agreement = agreement
        self._node = node

    def apply(self, commands: Sequence[bytes], time_ms: int) -> list[Result]:
        zxid = self.zxid + len(commands)
        if time_ms < self.time_ms:
            text = f"node {self._node}: at zxid {self.zxid} time goes back, from {self.time_ms} to {time_ms} ms"
            self._agreement.violated("time order", text)
        results = super().apply(commands, time_ms)
        if self.zxid != zxid:
            text = f"node {self._node}: {len(commands)} commands led to zxid {self.zxid}, not {zxid}"
            self._agreement.violated("zxid order", text)
        if commands:
            self._agreement.applied(self._node, zxid, crc32(_encode((commands, time_ms, results))))
        if not self.tree.ephemerals.keys() <= self.sessions.keys():
            self._blame_owners()
        return results

    def snapshot(self) -> SnapshotWriter:
        self.look()
        return super().snapshot()

    def _install(self, loaded: Loaded) -> None:
        super()._install(loaded)
        self.look()

    def look(self) -> None:
        """Check the whole state, and that it agrees with the others'.  Takes about 1 us for each znode."""
        self._blame_owners()
        total = crc32(_encode((self.zxid, self.time_ms)))
        for session in self.sessions.values():
            total += crc32(_encode(session))
        owned = 0
        waiting = [(b"", self.tree.root)]
        while waiting:
            path, znode = waiting.pop()
            # A sum does not care in which order the children lie in their dict.
            total += crc32(znode.acl, crc32(znode.stat, crc32(znode.data_buffer, crc32(path))))
            (owner,) = _owner_in(znode.stat)
            if owner:
                owned += 1
                if path not in self.tree.ephemerals.get(owner, ()):
                    self._blame(f"{path!r} is not in the list of its session {owner:#x}")
            for name, child in znode.children.items():
                waiting.append((path + b"/" + name, child))
        listed = sum(map(len, self.tree.ephemerals.values()))
        if listed != owned:
            self._blame(f"{listed} are listed, {owned} are there")
        self._agreement.is_at(self._node, self.zxid, total)

    def _blame_owners(self) -> None:
        for session_id in sorted(self.tree.ephemerals.keys() - self.sessions.keys()):
            self._blame(f"session {session_id:#x} is gone and owns {sorted(self.tree.ephemerals[session_id])}")

    def _blame(self, text: str) -> None:
        self._agreement.violated("ephemeral owner", f"node {self._node} at zxid {self.zxid}: {text}")
