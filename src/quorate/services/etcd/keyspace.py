"""Keys and their versions: the index by key and the history, changed together.

The index is 256 dicts, not one: the longest stop that one of them makes when it grows is short at a million keys too.
They hold the latest version of each key; only keys that have several have a list of the older ones, in dicts of their
own.  So the garbage collector does not track the first kind, which holds nothing that it tracks, however large it is.

Keys that are there and keys that are gone, of which only history is left, stand in two sorted sets; so ranges of the
present need not look at what is gone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final, TypeVar
from zlib import crc32

from quorate.services.etcd.history import History
from quorate.services.etcd.lease_table import LEASE_OVERHEAD_BYTES, Lease
from quorate.services.etcd.sizes import Sizes
from quorate.services.etcd.sorted_keys import SortedKeys
from quorate.services.etcd.versions import VERSION_OVERHEAD_BYTES, Version, tombstone

SHARDS: Final = 256
_MASK: Final = SHARDS - 1
_V = TypeVar("_V")
_mod_revision: Final = attrgetter("mod_revision")


class Keyspace:
    """Changes take the revision that they belong to; what is forbidden was found before."""

    __slots__ = ("_older", "_older_removals", "_removals", "history", "leases", "live", "shards", "sizes", "tombs")

    def __init__(self, revision: int = 1) -> None:
        self.shards: Final[list[dict[bytes, Version]]] = [{} for _ in range(SHARDS)]
        """By `crc32(key)`: the latest version of each key, also a tombstone."""
        self._older: Final[list[dict[bytes, list[Version]]]] = [{} for _ in range(SHARDS)]
        """Those before the latest, where there are any."""
        self._removals = [0] * SHARDS
        """Keys that were taken out of each of `shards` since it was made."""
        self._older_removals = [0] * SHARDS
        self.live: Final = SortedKeys()
        self.tombs: Final = SortedKeys()
        """Keys whose latest version is a tombstone."""
        self.history: Final = History()
        self.leases: Final[dict[int, Lease]] = {}
        self.sizes: Final = Sizes(revision)

    # --- reads ---

    def latest(self, key: bytes) -> Version | None:
        """What the key is now; None where it is not there."""
        version = self.shards[crc32(key) & _MASK].get(key)
        return version if version is not None and version.version else None

    def at(self, key: bytes, revision: int) -> Version | None:
        """What the key was at a revision that is not compacted; None where it was not there."""
        number = crc32(key) & _MASK
        version = self.shards[number].get(key)
        if version is None:
            return None
        if version.mod_revision > revision:
            older = self._older[number].get(key, ())
            place = bisect_right(older, revision, key=_mod_revision)
            if place == 0:
                return None
            version = older[place - 1]
        return version if version.version else None

    def known(self, start: bytes, end: bytes | None) -> list[bytes]:
        """Keys of a range that are there or were at some revision, sorted."""
        keys = self.live.take(start, end, len(self.live))
        if len(self.tombs):
            keys += self.tombs.take(start, end, len(self.tombs))
            keys.sort()
        return keys

    def remembered(self, from_revision: int, compacted_revision: int) -> Iterator[Version]:
        """The history from a revision on without what was compacted, whether it is swept or not."""
        versions = self.history.since(from_revision)
        if from_revision > compacted_revision:
            return versions
        return (
            version
            for version in versions
            if version.mod_revision > compacted_revision or self.at(version.key, compacted_revision) is version
        )

    # --- changes ---

    def put(self, key: bytes, value: bytes, lease: int, revision: int) -> None:
        self.history.append(self._change(key, value, lease, revision))

    def put_all(self, puts: Sequence[tuple[bytes, bytes]], revision: int) -> None:
        """(key, value) each, without leases.  The first takes `revision`, and every other one the next after it."""
        shards, older_shards = self.shards, self._older
        sizes = self.sizes
        versions: list[Version] = []
        ends: list[int] = []
        size = forgettable = 0
        before = sizes.forgettable
        for key, value in puts:
            number = crc32(key) & _MASK
            shard = shards[number]
            latest = shard.get(key)
            if latest is None or not latest.version or latest.lease:
                version = self._change(key, value, 0, revision)
                before = sizes.forgettable
            else:
                # What `_change` does with a key that is there: most puts are such.
                key = latest.key
                shard[key] = version = Version(key, value, latest.create_revision, revision, latest.version + 1, 0)
                older = older_shards[number].get(key)
                if older is None:
                    older_shards[number][key] = [latest]
                else:
                    older.append(latest)
                overhead = VERSION_OVERHEAD_BYTES + len(key)
                size += overhead + len(value)
                forgettable += overhead + len(latest.value)
            versions.append(version)
            ends.append(before + forgettable)
            revision += 1
        sizes.add(size, forgettable)
        sizes.end_revisions(ends)
        self.history.extend(versions)

    def _change(self, key: bytes, value: bytes, lease: int, revision: int) -> Version:
        """All of a put but for the history."""
        number = crc32(key) & _MASK
        shard = self.shards[number]
        latest = shard.get(key)
        if latest is None:
            version = Version(key, value, revision, revision, 1, lease)
            self.live.add(key)
            forgettable = 0
        else:
            # One object for the key, in all its versions.
            key = latest.key
            count = latest.version
            if count:
                version = Version(key, value, latest.create_revision, revision, count + 1, lease)
                forgettable = VERSION_OVERHEAD_BYTES + len(key) + len(latest.value)
                if latest.lease:
                    self.leases[latest.lease].keys.discard(key)
            else:
                version = Version(key, value, revision, revision, 1, lease)
                forgettable = 0
                self.tombs.remove(key)
                self.live.add(key)
            self._retire(number, latest)
        shard[key] = version
        self.sizes.add(VERSION_OVERHEAD_BYTES + len(key) + len(value), forgettable)
        if lease:
            self.leases[lease].keys.add(key)
        return version

    def _retire(self, number: int, latest: Version) -> None:
        """Another version is going to be the latest."""
        older = self._older[number].get(latest.key)
        if older is None:
            self._older[number][latest.key] = [latest]
        else:
            older.append(latest)

    def delete(self, keys: list[bytes], revision: int) -> list[Version]:
        """Of keys that are there, in their order; what they were.  Many cost less than one by one."""
        self.live.remove_all(keys)
        shards, older_shards = self.shards, self._older
        deleted: list[Version] = []
        tombstones: list[Version] = []
        size = forgettable = 0
        for key in keys:
            number = crc32(key) & _MASK
            shard = shards[number]
            latest = shard[key]
            key = latest.key  # one object, in all its versions
            shard[key] = gone = tombstone(key, revision)
            older = older_shards[number].get(key)
            if older is None:
                older_shards[number][key] = [latest]
            else:
                older.append(latest)
            if latest.lease:
                self.leases[latest.lease].keys.discard(key)
            size += len(key)
            forgettable += len(latest.value)
            deleted.append(latest)
            tombstones.append(gone)
        size += VERSION_OVERHEAD_BYTES * len(keys)
        self.tombs.add_all([gone.key for gone in tombstones])
        # The predecessors, and the tombstones themselves.
        self.sizes.add(size, forgettable + 2 * size)
        self.history.extend(tombstones)
        return deleted

    def load(self, version: Version) -> None:
        """The next change of a history that is built anew; sizes and leases are the caller's."""
        key, create_revision, mod_revision = version.key, version.create_revision, version.mod_revision
        number = crc32(key) & _MASK
        latest = self.shards[number].get(key)
        if latest is not None:
            key = latest.key
            self._retire(number, latest)
        if create_revision == mod_revision:
            create_revision = mod_revision  # one object for both
        version = Version(key, version.value, create_revision, mod_revision, version.version, version.lease)
        self.shards[number][key] = version
        before = None if latest is None else self._set_of(latest)
        now = self._set_of(version)
        if before is not now:
            if before is not None:
                before.remove(key)
            now.add(key)
        self.history.append(version)

    def _set_of(self, latest: Version) -> SortedKeys:
        return self.live if latest.version else self.tombs

    def add_lease(self, lease: Lease) -> None:
        self.leases[lease.lease_id] = lease
        self.sizes.add(LEASE_OVERHEAD_BYTES, 0)

    def remove_lease(self, lease: Lease) -> None:
        """Of one whose keys were deleted."""
        assert not lease.keys
        del self.leases[lease.lease_id]
        self.sizes.add(-LEASE_OVERHEAD_BYTES, 0)

    # --- forgetting ---

    def trim(self, key: bytes, compacted_revision: int) -> tuple[Version | None, list[Version]]:
        """Forget what a compaction lets go of one key, in the index; the history is the caller's.

        (the earliest version that is kept, those that were forgotten)
        """
        number = crc32(key) & _MASK
        latest = self.shards[number].get(key)
        if latest is None:
            return None, []
        older = self._older[number].get(key)
        if latest.mod_revision <= compacted_revision:
            forgotten = older or []
            if older is not None:
                self._remove(self._older, self._older_removals, number, key)
            if latest.version:
                return latest, forgotten
            self.tombs.remove(key)
            self._remove(self.shards, self._removals, number, key)
            return None, [*forgotten, latest]
        if older is None:
            return latest, []
        count = bisect_right(older, compacted_revision, key=_mod_revision)
        if count and older[count - 1].version:
            count -= 1
        if not count:
            return older[0], []
        forgotten = older[:count]
        if count == len(older):
            self._remove(self._older, self._older_removals, number, key)
            return latest, forgotten
        del older[:count]
        return older[0], forgotten

    def _remove(self, dicts: list[dict[bytes, _V]], removals: list[int], number: int, key: bytes) -> None:
        shard = dicts[number]
        del shard[key]
        removals[number] += 1
        if removals[number] > len(shard) + 64:
            # A dict keeps the room of what was in it; this one has its own size.
            dicts[number] = dict(shard)
            removals[number] = 0
