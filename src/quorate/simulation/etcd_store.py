"""The etcd store under observation.

The door reads the store directly, so what watches is the store itself: a subclass that does what its parent does and
looks at the outcome.  Checked, beside the agreement of all replicas:

    revision order      revisions never go back, and a batch takes at most one for each of its commands; nor does what
                        was compacted go back, or beyond the present
    time order          the time that batches are applied with never goes back, over a snapshot neither
    attached keys       a key is in the list of the lease that its version names, and in no other; that lease is there
    state machine agreement   also of a store that was loaded from a snapshot: it is what the store was, from
                        which the snapshot was made

Not every command takes a revision, so an observed store counts commands, and its snapshots carry that number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from struct import Struct
from typing import Final
from zlib import crc32

from quorate.consensus.replica import NodeId
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.options import EtcdOptions
from quorate.services.etcd.results import Result
from quorate.services.etcd.service import make_service
from quorate.services.etcd.snapshot import Loaded, SnapshotLoader, SnapshotWriter
from quorate.services.etcd.store import Store
from quorate.services.interface import Service, SnapshotSlices, StoreLoader
from quorate.simulation.store_agreement import StoreAgreement

VERSIONS_PER_SLICE: Final = 8
"""A simulated store is small; its snapshots shall have many slices, so that writes come in between."""
OPTIONS: Final = EtcdOptions(watch_progress_interval_ms=1_000, watch_step=5)
"""etcd's ten minutes are more than a run lasts; and who catches up shall take many steps although there is little."""
_COUNT: Final = Struct(">q")
_EVERYTHING: Final = pb.RangeRequest(key=b"\0", range_end=b"\0")


def observed_etcd(agreement: StoreAgreement, node: NodeId) -> Service:
    """The service for one node; the agreement is that of its group."""
    service = make_service(OPTIONS)
    return replace(service, create_store=lambda: ObservedStore(agreement, node))


class FinelySlicedStore(Store):
    """A store whose snapshots take many slices although it is small, so that writes come between them."""

    def snapshot(self) -> SnapshotWriter:
        writer = super().snapshot()
        writer.versions_per_slice = VERSIONS_PER_SLICE
        return writer


class ObservedStore(FinelySlicedStore):
    """An etcd store that tells what it came to."""

    def __init__(self, agreement: StoreAgreement, node: NodeId) -> None:
        super().__init__(OPTIONS.quota_bytes)
        self.commands = 0
        """Applied so far."""
        self._agreement = agreement
        self._node = node

    def apply(self, commands: Sequence[bytes], time_ms: int) -> list[Result]:
        revision, compacted = self.revision, self.compacted_revision
        if time_ms < self.time_ms:
            self._blame("time order", f"time goes back, from {self.time_ms} to {time_ms} ms")
        results = super().apply(commands, time_ms)
        self.commands += len(commands)
        self._check_revisions(revision, compacted, len(commands))
        if commands:
            # Not `hash`, which differs from process to process.
            checksum = crc32(repr((commands, time_ms, results)).encode())
            self._agreement.applied(self._node, self.commands, checksum)
        return results

    def _check_revisions(self, revision: int, compacted: int, commands: int) -> None:
        if not revision <= self.revision <= revision + commands:
            self._blame("revision order", f"{commands} commands led from revision {revision} to {self.revision}")
        if not compacted <= self.compacted_revision <= self.revision:
            self._blame("revision order", f"compacted to {self.compacted_revision}, from {compacted}")

    def snapshot(self) -> SnapshotSlices:  # type: ignore[override]
        self.look()
        return _CountedSlices(_COUNT.pack(self.commands), super().snapshot())

    def restore(self) -> StoreLoader:  # type: ignore[override]
        return _CountedLoader(super().restore(), self._loaded)

    def _install(self, loaded: Loaded) -> None:
        if loaded.revision < self.revision:
            self._blame("revision order", f"a snapshot takes it from revision {self.revision} to {loaded.revision}")
        super()._install(loaded)

    def _loaded(self, commands: int) -> None:
        self.commands = commands
        self.look()

    def look(self) -> None:
        """Check the whole state, and that it agrees with the others'.  Takes about 2 us for each version."""
        self._check_leases()
        self._agreement.is_at(self._node, self.commands, crc32(self.digest().encode()))

    def _check_leases(self) -> None:
        found = pb.RangeResponse.FromString(self.range(_EVERYTHING).body)
        attached = {(item.lease, item.key) for item in found.kvs if item.lease}
        listed = {(number, key) for number, lease in self.leases.items() for key in lease.keys}
        if attached != listed:
            self._blame(
                "attached keys",
                f"only versions say {sorted(attached - listed)}, {sorted(listed - attached)} only leases",
            )

    def _blame(self, check: str, text: str) -> None:
        self._agreement.violated(check, f"node {self._node} at revision {self.revision}: {text}")


class _CountedSlices:
    """A snapshot's slices behind one with the number of commands applied."""

    def __init__(self, count: bytes, slices: SnapshotWriter) -> None:
        self._count = count
        self._slices = slices

    def __iter__(self) -> Iterator[bytes]:
        yield self._count
        yield from self._slices

    def close(self) -> None:
        self._slices.close()


class _CountedLoader:
    def __init__(self, loader: SnapshotLoader, loaded: Callable[[int], None]) -> None:
        self._loader = loader
        self._loaded = loaded
        self._count: int | None = None

    def feed(self, slice_: bytes) -> None:
        if self._count is None:
            if len(slice_) != _COUNT.size:
                raise ValueError(f"snapshot: expected the number of commands, found {len(slice_)} bytes")
            (self._count,) = _COUNT.unpack(slice_)
        else:
            self._loader.feed(slice_)

    def finish(self) -> None:
        self._loader.finish()
        if self._count is not None:
            self._loaded(self._count)
