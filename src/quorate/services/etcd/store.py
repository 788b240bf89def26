"""The replicated state of the etcd service: keys with their history, and leases.

Pure and deterministic: `apply` reads nothing but the store, the commands and the time.

Commands carry clients' requests as they came, so they are decoded here; the door has checked them.  What fails changes
nothing, and what changes nothing takes no revision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from struct import error as struct_error
from typing import Final

from google.protobuf.message import DecodeError

from quorate.services.etcd import commands as command
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.answer_room import ANSWER_ROOM_BYTES, AnswerRoom, AnswerTooLarge
from quorate.services.etcd.encoding import integer_field, read_two_fields, varint
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.keyspace import Keyspace
from quorate.services.etcd.lease_table import (
    LEASE_OVERHEAD_BYTES,
    MAX_TTL_S,
    MIN_TTL_S,
    Lease,
    LeaseChange,
)
from quorate.services.etcd.reading import end_of, read_range, revision_error
from quorate.services.etcd.results import Result
from quorate.services.etcd.snapshot import FORMAT_VERSION, Head, Loaded, SnapshotLoader, SnapshotWriter
from quorate.services.etcd.sweeping import Sweep
from quorate.services.etcd.transactions import (
    Run,
    compared_keys,
    delete_range,
    find_error,
    is_read_only,
    plan,
    previous_fields,
    put_bytes,
)
from quorate.services.etcd.versions import VERSION_OVERHEAD_BYTES, Version, encode_key_value

MAX_COMPARED_KEYS: Final = 1_000_000
"""By the compares of one transaction over ranges: each key takes about a microsecond, and nobody else is served."""

Handler = Callable[[bytes], Result]
"""(command) -> result.  Raises DecodeError or struct.error before anything is changed."""


class Compacted(Exception):
    """The history that was asked for is gone up to `revision`."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"revisions before {revision} were compacted")
        self.revision = revision


class Store:
    """The state machine, and what its doors read of it.

    A door may read at any time between two calls of `apply`.
    """

    def __init__(self, quota_bytes: int = 2 << 30) -> None:
        self.quota_bytes: Final = quota_bytes
        self.revision = 1
        """Of the last change.  1 is the empty store's."""
        self.compacted_revision = -1
        """Reads before it are refused; -1 where nothing was ever compacted, as in etcd."""
        self.time_ms = 0
        """Of the last batch applied: Unix milliseconds."""
        self.lease_changes: list[LeaseChange] = []
        """What the last call of `apply` granted and ended, in its order; empty after a restore (look at `leases`)."""
        self._room = AnswerRoom(ANSWER_ROOM_BYTES)
        """Of the last batch."""
        self._lease_generation = 0
        """Grants so far."""
        self._keyspace = Keyspace()
        self._sweep = Sweep(self._keyspace)
        self._snapshot_open = False
        self._handlers: Final[dict[bytes, Handler]] = {
            command.PUT: self._put,
            command.DELETE_RANGE: self._delete_range,
            command.TXN: self._txn,
            command.COMPACT: self._compact,
            command.GRANT: self._grant,
            command.REVOKE: self._revoke,
            command.EXPIRE: self._expire,
        }

    # --- the replicated state machine (services.interface.Store) ------------------------------

    def apply(self, commands: Sequence[bytes], time_ms: int) -> list[Result]:
        """Apply one batch; a Result for each command.  Never raises for what is in a command."""
        self.time_ms = time_ms
        self.lease_changes = []
        self._room = AnswerRoom(ANSWER_ROOM_BYTES)
        handlers = self._handlers
        results: list[Result] = []
        puts: list[tuple[bytes, bytes]] = []
        """Key and value of plain puts in a row, which are done together."""
        for entry in commands:
            kind = entry[:1]
            if kind == command.PUT:
                plain = read_two_fields(entry, 1)
                if plain is not None:
                    puts.append(plain)
                    continue
            if puts:
                results += self._put_all(puts)
                puts = []
            handler = handlers.get(kind)
            if handler is None:
                results.append(self._refuse(EtcdError.MALFORMED))
                continue
            try:
                results.append(handler(entry))
            except (DecodeError, struct_error):
                results.append(self._refuse(EtcdError.MALFORMED))
        if puts:
            results += self._put_all(puts)
        return results

    def snapshot(self) -> SnapshotWriter:
        """See services.interface.Store.  Nothing is swept until it is closed or exhausted."""
        assert not self._snapshot_open, "one snapshot at a time"
        self._snapshot_open = True
        head = Head(
            FORMAT_VERSION,
            self.revision,
            self.compacted_revision,
            self.time_ms,
            self._lease_generation,
            self.size_bytes,
            len(self.leases),
            self._keyspace.history.count,
            self._sweep.revision,
            self._sweep.kept,
        )
        return SnapshotWriter(head, self._keyspace, self._snapshot_closed)

    def _snapshot_closed(self) -> None:
        self._snapshot_open = False

    def restore(self) -> SnapshotLoader:
        return SnapshotLoader(self._install)

    def _install(self, loaded: Loaded) -> None:
        self.revision = loaded.revision
        self.compacted_revision = loaded.compacted_revision
        self.time_ms = loaded.time_ms
        self.lease_changes = []
        self._lease_generation = loaded.lease_generation
        self._keyspace = loaded.keyspace
        self._sweep = loaded.sweep

    def summary(self) -> dict[str, int]:
        return {
            "keys": len(self._keyspace.live),
            "versions": self._keyspace.history.count,
            "revision": self.revision,
            "compacted_revision": self.compacted_revision,
            "size_bytes": self.size_bytes,
            "leases": len(self.leases),
        }

    # --- reads --------------------------------------------------------------------------------

    @property
    def leases(self) -> Mapping[int, Lease]:
        """By id."""
        return self._keyspace.leases

    @property
    def size_bytes(self) -> int:
        """Keys, values and their overhead, with their history, as the quota counts: the same on every replica."""
        return self._keyspace.sizes.total

    def get(self, key: bytes) -> Result:
        """As `range` of one key at present and with no options: the fast way for the commonest read."""
        version = self._keyspace.latest(key)
        if version is None:
            return Result(self.revision, b"")
        encoded = encode_key_value(version)
        return Result(self.revision, b"\x12%b%b\x20\x01" % (varint(len(encoded)), encoded))

    def keys(self, key: bytes, range_end: bytes, limit: int | None = None) -> list[bytes]:
        """The keys of a range (`range_end` not empty) that are there now, in their order; the first `limit` of them."""
        live = self._keyspace.live
        return live.take(key, end_of(range_end), len(live) if limit is None else limit)

    def range(self, request: pb.RangeRequest) -> Result:
        """The present or an older revision.  COMPACTED, FUTURE_REVISION, or a body."""
        error = revision_error(request.revision, self.revision, self.compacted_revision)
        if error is not None:
            return self._refuse(error)
        return Result(self.revision, b"".join(read_range(self._keyspace, request, self.revision)))

    def txn(self, request: pb.TxnRequest) -> Result:
        """A transaction that only reads (`transactions.is_read_only`); needs no consensus but a barrier."""
        assert is_read_only(request)
        return self._transact(request, AnswerRoom(ANSWER_ROOM_BYTES))

    def _transact(self, request: pb.TxnRequest, room: AnswerRoom) -> Result:
        if compared_keys(self._keyspace, request) > MAX_COMPARED_KEYS:
            return self._refuse(EtcdError.TOO_MUCH_TO_COMPARE)
        way = plan(self._keyspace, request)
        if isinstance(way, EtcdError):
            return self._refuse(way)
        error = find_error(self._keyspace, way, self.revision, self.compacted_revision)
        if error is not None:
            return self._refuse(error)
        room.begin()
        run = Run(self._keyspace, self.revision, room)
        body = run.run(way)
        if run.revision != self.revision:
            self._end_revision()
        if body is None:
            room.give_back()
            return self._refuse(EtcdError.ANSWER_TOO_LARGE)
        return Result(self.revision, body)

    def changes(self, from_revision: int) -> Iterator[Version]:
        """The history from a revision on, by (revision, number within it), up to the present.

        Cheap to begin anywhere.  To go on after a call of `apply` or `sweep`, begin anew.  At the compacted revision
        itself, only what is still to be read at it.  Raises Compacted where `from_revision` is before it: at once,
        not only when the first is asked for.
        """
        if from_revision < self.compacted_revision:
            raise Compacted(self.compacted_revision)
        return self._keyspace.remembered(from_revision, self.compacted_revision)

    def just_applied(self, from_revision: int) -> Iterator[Version]:
        """As `changes`, right after the `apply` that made these revisions: also what it has compacted itself."""
        return self._keyspace.history.since(from_revision)

    def at(self, key: bytes, revision: int) -> Version | None:
        """What a key was at a revision; None where it was not there.  Raises Compacted."""
        if revision < self.compacted_revision:
            raise Compacted(self.compacted_revision)
        return self._keyspace.at(key, revision)

    def version_before(self, version: Version) -> Version | None:
        """What the key was at the revision before the version's: `prev_kv` of an event.  None also where compacted."""
        revision = version.mod_revision - 1
        return self._keyspace.at(version.key, revision) if revision >= self.compacted_revision else None

    # --- upkeep -------------------------------------------------------------------------------

    def sweep(self, max_versions: int) -> bool:
        """Give back memory of what compactions forgot: a step of so many versions.  True while there is more.

        Nobody can tell how far it is.  Does nothing (and says False) while a snapshot is open.
        """
        return not self._snapshot_open and self._sweep.step(max_versions, self.compacted_revision)

    def digest(self) -> str:
        """A SHA-256 over the whole state, sweeping aside: equal stores have equal digests.  Slow."""
        head = (self.revision, self.compacted_revision, self.time_ms, self._lease_generation, self.size_bytes)
        total = hashlib.sha256(repr(head).encode())
        for lease_id, lease in sorted(self.leases.items()):
            total.update(repr((lease_id, lease.ttl_s, lease.generation, sorted(lease.keys))).encode())
        for version in self._keyspace.remembered(0, self.compacted_revision):
            total.update(repr(version).encode())
        return total.hexdigest()

    # --- keys ---------------------------------------------------------------------------------

    def _refuse(self, error: EtcdError) -> Result:
        return Result(self.revision, b"", error)

    def _lacks_space(self, more_bytes: int) -> bool:
        return self._keyspace.sizes.total + more_bytes >= self.quota_bytes

    def _end_revision(self) -> None:
        """Something was changed: the revision that it belongs to becomes the present."""
        self._keyspace.sizes.end_revision()
        self.revision += 1

    def _put_all(self, puts: Sequence[tuple[bytes, bytes]]) -> list[Result]:
        """Each is a change of its own.  Most of all commands come this way, and much together."""
        size_bytes = sum(map(len, chain.from_iterable(puts))) + VERSION_OVERHEAD_BYTES * len(puts)
        if self._lacks_space(size_bytes):
            if len(puts) > 1:
                return [result for put in puts for result in self._put_all((put,))]
            return [self._refuse(EtcdError.NO_SPACE)]
        first = self.revision + 1
        self._keyspace.put_all(puts, first)
        self.revision += len(puts)
        return [Result(revision, b"") for revision in range(first, self.revision + 1)]

    def _put(self, entry: bytes) -> Result:
        """One with options, or of an unusual form."""
        request = pb.PutRequest.FromString(entry[1:])
        key, value, lease = request.key, request.value, request.lease
        keyspace = self._keyspace
        if self._lacks_space(VERSION_OVERHEAD_BYTES + len(key) + len(value)):
            return self._refuse(EtcdError.NO_SPACE)
        if lease and lease not in keyspace.leases:
            return self._refuse(EtcdError.LEASE_NOT_FOUND)
        before = None
        if request.prev_kv or request.ignore_value or request.ignore_lease:
            before = keyspace.latest(key)
            if before is None:
                if request.ignore_value or request.ignore_lease:
                    return self._refuse(EtcdError.KEY_NOT_FOUND)
            else:
                value = before.value if request.ignore_value else value
                lease = before.lease if request.ignore_lease else lease
        keyspace.put(key, value, lease, self.revision + 1)
        self._end_revision()
        return self._answer(b"", 2, [before] if before is not None and request.prev_kv else [])

    def _delete_range(self, entry: bytes) -> Result:
        request = pb.DeleteRangeRequest.FromString(entry[1:])
        deleted = delete_range(self._keyspace, request, self.revision + 1)
        if deleted:
            self._end_revision()
        return self._answer(integer_field(2, len(deleted)), 3, deleted if request.prev_kv else [])

    def _answer(self, fields: bytes, number: int, previous: list[Version]) -> Result:
        """With what was there before the change, in fields of this number."""
        self._room.begin()
        try:
            return Result(self.revision, fields + b"".join(previous_fields(number, previous, self._room)))
        except AnswerTooLarge:
            self._room.give_back()
            return self._refuse(EtcdError.ANSWER_TOO_LARGE)

    def _txn(self, entry: bytes) -> Result:
        request = pb.TxnRequest.FromString(entry[1:])
        cost_bytes = put_bytes(request)
        if cost_bytes and self._lacks_space(cost_bytes):
            return self._refuse(EtcdError.NO_SPACE)
        return self._transact(request, self._room)

    def _compact(self, entry: bytes) -> Result:
        revision = pb.CompactionRequest.FromString(entry[1:]).revision
        if revision <= self.compacted_revision:
            return self._refuse(EtcdError.COMPACTED)
        if revision > self.revision:
            return self._refuse(EtcdError.FUTURE_REVISION)
        self.compacted_revision = revision
        self._keyspace.sizes.compact(revision)
        return Result(self.revision, b"")

    # --- leases -------------------------------------------------------------------------------

    def _grant(self, entry: bytes) -> Result:
        lease_id, ttl_s = command.GRANT_BODY.unpack(entry[1:])
        if self._lacks_space(LEASE_OVERHEAD_BYTES):
            return self._refuse(EtcdError.NO_SPACE)
        if not lease_id:
            return self._refuse(EtcdError.LEASE_NOT_FOUND)
        if ttl_s > MAX_TTL_S:
            return self._refuse(EtcdError.LEASE_TTL_TOO_LARGE)
        if lease_id in self.leases:
            return self._refuse(EtcdError.LEASE_EXISTS)
        self._lease_generation += 1
        lease = Lease(lease_id, max(ttl_s, MIN_TTL_S), self._lease_generation)
        self._keyspace.add_lease(lease)
        self.lease_changes.append(LeaseChange(lease, True))
        return Result(self.revision, integer_field(2, lease_id) + integer_field(3, lease.ttl_s))

    def _revoke(self, entry: bytes) -> Result:
        (lease_id,) = command.REVOKE_BODY.unpack(entry[1:])
        lease = self.leases.get(lease_id)
        if lease is None:
            return self._refuse(EtcdError.LEASE_NOT_FOUND)
        return self._end_lease(lease)

    def _expire(self, entry: bytes) -> Result:
        lease_id, generation = command.EXPIRE_BODY.unpack(entry[1:])
        lease = self.leases.get(lease_id)
        if lease is None or lease.generation != generation:
            return Result(self.revision, b"")
        return self._end_lease(lease)

    def _end_lease(self, lease: Lease) -> Result:
        keyspace = self._keyspace
        keys = sorted(lease.keys)
        keyspace.delete(keys, self.revision + 1)
        if keys:
            self._end_revision()
        keyspace.remove_lease(lease)
        self.lease_changes.append(LeaseChange(lease, False))
        return Result(self.revision, b"")
