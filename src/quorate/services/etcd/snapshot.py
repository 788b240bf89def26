"""Snapshots of the store: exact, and written in slices while changes go on.

Versions do not change, and while a snapshot is open nothing is swept: so the history up to a revision is all that there
was at that revision, however much is appended to it meanwhile.  What a sweep had not yet reached is written with it,
and where the sweep was.  The index, sizes, and what hangs on leases follow from the history.

A slice is one msgpack array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Final, TypeAlias

import msgspec

from quorate.services.etcd.history import History
from quorate.services.etcd.keyspace import Keyspace
from quorate.services.etcd.lease_table import Lease
from quorate.services.etcd.replay import Replay
from quorate.services.etcd.sweeping import Sweep
from quorate.services.etcd.versions import Version

FORMAT_VERSION: Final = 1

_VERSIONS_PER_SLICE: Final = 2000
"""About two milliseconds' work."""
_DATA_BYTES_PER_SLICE: Final = 128 << 10
"""A slice ends with the version that passes this."""
_LEASES_PER_SLICE: Final = 2000

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Head(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The first slice."""

    format_version: int
    revision: Annotated[int, msgspec.Meta(ge=1)]
    compacted_revision: Annotated[int, msgspec.Meta(ge=-1)]
    time_ms: int
    lease_generation: _Count
    size_bytes: _Count
    lease_count: _Count
    version_count: _Count
    swept_revision: _Count
    """`Sweep.revision` and `Sweep.kept`."""
    swept_kept: _Count


class Leases(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    leases: list[tuple[int, int, int]]
    """(id, TTL in seconds, generation)"""


class Versions(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """A part of the history, which goes on where the slice before ended."""

    versions: list[Version]


_Slice: TypeAlias = Head | Leases | Versions


class SnapshotWriter:
    """The slices of a snapshot of the moment at which this was made.  `close` it unless it is exhausted."""

    def __init__(self, head: Head, keyspace: Keyspace, on_closed: Callable[[], None]) -> None:
        self.versions_per_slice = _VERSIONS_PER_SLICE
        """Where there is little, fewer make a snapshot of many slices; set it before the first is taken."""
        self._on_closed = on_closed
        self._open = True
        leases = [(lease.lease_id, lease.ttl_s, lease.generation) for lease in keyspace.leases.values()]
        self._slices = self._write(head, leases, keyspace.history)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._slices)

    def close(self) -> None:
        """Abandon the snapshot."""
        self._slices = iter(())
        if self._open:
            self._open = False
            self._on_closed()

    def _write(self, head: Head, leases: list[tuple[int, int, int]], history: History) -> Iterator[bytes]:
        encode = msgspec.msgpack.Encoder().encode
        yield encode(head)
        for start in range(0, len(leases), _LEASES_PER_SLICE):
            yield encode(Leases(leases[start : start + _LEASES_PER_SLICE]))
        gathered: list[Version] = []
        data_bytes = 0
        for version in islice(history.since(0), head.version_count):
            gathered.append(version)
            data_bytes += len(version.key) + len(version.value)
            if len(gathered) >= self.versions_per_slice or data_bytes >= _DATA_BYTES_PER_SLICE:
                yield encode(Versions(gathered))
                gathered = []
                data_bytes = 0
        if gathered:
            yield encode(Versions(gathered))
        self.close()


@dataclass(frozen=True, slots=True)
class Loaded:
    """The state that a snapshot held."""

    revision: int
    compacted_revision: int
    time_ms: int
    lease_generation: int
    keyspace: Keyspace
    sweep: Sweep


class SnapshotLoader:
    """Builds the state from slices; `install` gets it at the end."""

    def __init__(self, install: Callable[[Loaded], None]) -> None:
        self._install = install
        self._decode = msgspec.msgpack.Decoder(_Slice).decode
        self._head: Head | None = None
        self._replay = Replay(Keyspace(), 1, -1)
        self._version_count = 0

    def feed(self, slice_: bytes) -> None:
        """Raises ValueError where the bytes are not a slice of such a snapshot."""
        try:
            part = self._decode(slice_)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a slice of a snapshot of the etcd service: {error}") from error
        if isinstance(part, Head):
            self._begin(part)
        elif self._head is None:
            raise ValueError(f"snapshot: expected the head first, found {type(part).__name__}")
        elif isinstance(part, Leases):
            for lease_id, ttl_s, generation in part.leases:
                if not 1 <= generation <= self._head.lease_generation:
                    raise ValueError(f"snapshot: lease {lease_id:x} has a generation that was not given: {generation}")
                self._replay.add_lease(Lease(lease_id, ttl_s, generation))
        else:
            for version in part.versions:
                self._replay.add(version)
            self._version_count += len(part.versions)

    def _begin(self, head: Head) -> None:
        if head.format_version != FORMAT_VERSION or self._head is not None:
            raise ValueError(f"snapshot: expected one head of format {FORMAT_VERSION}, found {head}")
        if not head.swept_revision <= max(head.compacted_revision, 0) <= head.revision:
            raise ValueError(f"snapshot: swept, compacted and present revision are out of order: {head}")
        self._head = head
        self._replay = Replay(Keyspace(max(head.compacted_revision, 1)), head.revision, head.compacted_revision)

    def finish(self) -> None:
        """Raises ValueError where slices are missing."""
        head = self._head
        if head is None:
            raise ValueError("snapshot: its head is missing")
        keyspace = self._replay.finish()
        found = (self._version_count, len(keyspace.leases), keyspace.sizes.total)
        expected = (head.version_count, head.lease_count, head.size_bytes)
        if found != expected:
            raise ValueError(f"snapshot: expected {expected} (versions, leases, bytes), found {found}")
        passed = list(islice(keyspace.history.since(head.swept_revision), head.swept_kept))
        if len(passed) != head.swept_kept or any(version.mod_revision != head.swept_revision for version in passed):
            raise ValueError(f"snapshot: not {head.swept_kept} versions of revision {head.swept_revision} were kept")
        sweep = Sweep(keyspace, head.swept_revision, head.swept_kept)
        self._install(
            Loaded(head.revision, head.compacted_revision, head.time_ms, head.lease_generation, keyspace, sweep)
        )
