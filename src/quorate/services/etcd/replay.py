"""Builds a keyspace from its history, and believes none of it.

Every revision that is not compacted has its changes, in order; each change follows from what its key was before.  Of
revisions that are compacted something is missing rightly: there, only the order is demanded.
"""

from __future__ import annotations

from quorate.services.etcd.keyspace import Keyspace
from quorate.services.etcd.lease_table import MAX_TTL_S, Lease
from quorate.services.etcd.versions import Version, size_bytes


class Replay:
    """Raises ValueError for what cannot be."""

    def __init__(self, keyspace: Keyspace, revision: int, compacted_revision: int) -> None:
        self._keyspace = keyspace
        self._revision = revision
        self._compacted_revision = max(compacted_revision, 1)
        """1 is the empty store's, which has no changes."""
        self._last_revision = 0
        """Of the last change so far."""
        self._missing_leases: dict[bytes, int] = {}
        """Keys whose latest version so far names a lease that there is not; the version must not be the last."""

    def add_lease(self, lease: Lease) -> None:
        if not lease.lease_id or not 1 <= lease.ttl_s <= MAX_TTL_S or lease.lease_id in self._keyspace.leases:
            raise ValueError(f"snapshot: a lease that cannot be, or twice: {lease.lease_id:x} of {lease.ttl_s} s")
        self._keyspace.add_lease(lease)

    def add(self, version: Version) -> None:
        """The next change of the history."""
        keyspace = self._keyspace
        before = keyspace.latest(version.key)
        _check_fields(version)
        revision, last_revision = version.mod_revision, self._last_revision
        is_compacted = revision <= self._compacted_revision
        if is_compacted:
            if revision < last_revision:
                raise _wrong(version, f"it comes after revision {last_revision}")
        else:
            if revision != last_revision:
                self._begin_revision(version)
            _check_succession(version, before)
        size, forgettable = size_bytes(version), 0
        if before is not None:
            forgettable += size_bytes(before)
        if not version.version:
            forgettable += size
        if is_compacted:
            keyspace.sizes.add(size - forgettable, 0)
        else:
            keyspace.sizes.add(size, forgettable)
        self._attach(version, before)
        keyspace.load(version)
        self._last_revision = revision

    def _begin_revision(self, version: Version) -> None:
        if self._last_revision > self._compacted_revision:
            self._keyspace.sizes.end_revision()
        if version.mod_revision != self._reached() + 1:
            raise _wrong(version, f"it comes after revision {self._reached()}")

    def _reached(self) -> int:
        return max(self._last_revision, self._compacted_revision)

    def _attach(self, version: Version, before: Version | None) -> None:
        leases = self._keyspace.leases
        key = version.key
        if before is not None and before.lease:
            if before.lease in leases:
                leases[before.lease].keys.discard(key)
            else:
                del self._missing_leases[key]
        if version.lease:
            if version.lease in leases:
                leases[version.lease].keys.add(key)
            else:
                self._missing_leases[key] = version.lease

    def finish(self) -> Keyspace:
        if self._reached() != self._revision:
            raise ValueError(f"snapshot: expected the history up to {self._revision}, found it up to {self._reached()}")
        for key, lease in self._missing_leases.items():
            raise ValueError(f"snapshot: {key!r} hangs on lease {lease:x}, which is not there")
        if self._last_revision > self._compacted_revision:
            self._keyspace.sizes.end_revision()
        return self._keyspace


def _check_fields(version: Version) -> None:
    if version.version:
        if not (version.version > 0 and 2 <= version.create_revision <= version.mod_revision):
            raise _wrong(version, "its numbers cannot be")
    elif version.value or version.create_revision or version.lease or version.mod_revision < 3:
        raise _wrong(version, "a tombstone has no more than key and revision")


def _check_succession(version: Version, before: Version | None) -> None:
    if before is None:
        if version.version != 1 or version.create_revision != version.mod_revision:
            raise _wrong(version, "its key was not there before")
    elif version.version and (version.version, version.create_revision) != (before.version + 1, before.create_revision):
        raise _wrong(version, f"before it there was {before.version} of revision {before.create_revision}")


def _wrong(version: Version, why: str) -> ValueError:
    return ValueError(f"snapshot: version {version.version} of {version.key!r} at {version.mod_revision}: {why}")
