"""Keys and their versions: the index by key and the history, changed together.

The index is 256 dicts, not one: the longest stop that one of them makes when it grows is short at a million keys too.
A key has its version in it, or a list where it has several.  Keys that are there and keys that are gone, of which only
history is left, stand in two sorted sets; so ranges of the present need not look at what is gone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Final
from zlib import crc32

from quorate.services.etcd.history import History
from quorate.services.etcd.lease_table import LEASE_OVERHEAD_BYTES, Lease
from quorate.services.etcd.sizes import Sizes
from quorate.services.etcd.sorted_keys import SortedKeys
from quorate.services.etcd.versions import VERSION_OVERHEAD_BYTES, Version, Versions, size_bytes, tombstone

SHARDS: Final = 256
_MASK: Final = SHARDS - 1
_mod_revision: Final = attrgetter("mod_revision")


class Keyspace:
    """Changes take the revision that they belong to; what is forbidden was found before."""

    __slots__ = ("_forgotten", "history", "leases", "live", "shards", "sizes", "tombs")

    def __init__(self, revision: int = 1) -> None:
        self.shards: Final[list[dict[bytes, Versions]]] = [{} for _ in range(SHARDS)]
        """By `crc32(key)`."""
        self._forgotten = [0] * SHARDS
        """Keys that were taken out of each since it was made: a dict keeps their room."""
        self.live: Final = SortedKeys()
        self.tombs: Final = SortedKeys()
        """Keys whose latest version is a tombstone."""
        self.history: Final = History()
        self.leases: Final[dict[int, Lease]] = {}
        self.sizes: Final = Sizes(revision)

    # --- reads ---

    def latest(self, key: bytes) -> Version | None:
        """What the key is now; None where it is not there."""
        found = self.shards[crc32(key) & _MASK].get(key)
        if found is None:
            return None
        version = found[-1] if type(found) is list else found
        return version if version.version else None

    def at(self, key: bytes, revision: int) -> Version | None:
        """What the key was at a revision that is not compacted; None where it was not there."""
        found = self.shards[crc32(key) & _MASK].get(key)
        if found is None:
            return None
        if type(found) is list:
            place = bisect_right(found, revision, key=_mod_revision)
            if place == 0:
                return None
            version = found[place - 1]
        else:
            version = found
            if version.mod_revision > revision:
                return None
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
        for version in self.history.since(from_revision):
            if version.mod_revision > compacted_revision or self.at(version.key, compacted_revision) is version:
                yield version

    # --- changes ---

    def put(self, key: bytes, value: bytes, lease: int, revision: int) -> None:
        shard = self.shards[crc32(key) & _MASK]
        found = shard.get(key)
        size = VERSION_OVERHEAD_BYTES + len(key) + len(value)
        if found is None:
            shard[key] = version = Version(key, value, revision, revision, 1, lease)
            self.live.add(key)
            self.sizes.add(size, 0)
        else:
            latest = found[-1] if type(found) is list else found
            # The key's bytes are those of the first version: one object for all.
            key = latest.key
            count = latest.version
            if count:
                version = Version(key, value, latest.create_revision, revision, count + 1, lease)
                self.sizes.add(size, VERSION_OVERHEAD_BYTES + len(key) + len(latest.value))
                if latest.lease:
                    self.leases[latest.lease].keys.discard(key)
            else:
                version = Version(key, value, revision, revision, 1, lease)
                self.tombs.remove(key)
                self.live.add(key)
                self.sizes.add(size, 0)
            if type(found) is list:
                found.append(version)
            else:
                shard[key] = [latest, version]
        if lease:
            self.leases[lease].keys.add(key)
        self.history.append(version)

    def delete(self, key: bytes, revision: int) -> None:
        """Of a key that is there."""
        shard = self.shards[crc32(key) & _MASK]
        found = shard[key]
        latest = found[-1] if type(found) is list else found
        gone = tombstone(latest.key, revision)
        if type(found) is list:
            found.append(gone)
        else:
            shard[key] = [latest, gone]
        self.live.remove(key)
        self.tombs.add(gone.key)
        if latest.lease:
            self.leases[latest.lease].keys.discard(key)
        size = size_bytes(gone)
        self.sizes.add(size, size_bytes(latest) + size)
        self.history.append(gone)

    def load(self, version: Version) -> None:
        """The next change of a history that is built anew; sizes and leases are the caller's."""
        key, create_revision, mod_revision = version.key, version.create_revision, version.mod_revision
        shard = self.shards[crc32(key) & _MASK]
        found = shard.get(key)
        latest = found[-1] if type(found) is list else found
        if latest is not None:
            key = latest.key
        if create_revision == mod_revision:
            create_revision = mod_revision  # one object for both
        version = Version(key, version.value, create_revision, mod_revision, version.version, version.lease)
        if latest is None:
            shard[key] = version
        elif type(found) is list:
            found.append(version)
        else:
            shard[key] = [latest, version]
        before = None if latest is None else self._sets(latest)
        now = self._sets(version)
        if before is not now:
            if before is not None:
                before.remove(key)
            now.add(key)
        self.history.append(version)

    def _sets(self, latest: Version) -> SortedKeys:
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
        found = self.shards[number].get(key)
        if found is None:
            return None, []
        if type(found) is not list:
            if found.version or found.mod_revision > compacted_revision:
                return found, []
            self._forget_key(number, key)
            return None, [found]
        count = bisect_right(found, compacted_revision, key=_mod_revision)
        if count and found[count - 1].version:
            count -= 1
        if not count:
            return found[0], []
        forgotten = found[:count]
        left = len(found) - count
        if not left:
            self._forget_key(number, key)
            return None, forgotten
        first = found[count]
        if left == 1:
            self.shards[number][key] = first
        else:
            del found[:count]
        return first, forgotten

    def _forget_key(self, number: int, key: bytes) -> None:
        """Its latest version, a tombstone, is forgotten too."""
        self.tombs.remove(key)
        shard = self.shards[number]
        del shard[key]
        self._forgotten[number] += 1
        if self._forgotten[number] > 2 * len(shard) + 64:
            self.shards[number] = dict(shard)
            self._forgotten[number] = 0
