"""Bugs in the etcd store: its versions, transactions, leases, snapshots."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_KEYSPACE: Final = "quorate.services.etcd.keyspace"
_SNAPSHOT: Final = "quorate.services.etcd.snapshot"
_STORE: Final = "quorate.services.etcd.store"
_TRANSACTIONS: Final = "quorate.services.etcd.transactions"


def _etcd(name: str, breaks: str, *changes: Change) -> Mutant:
    return Mutant(name, breaks, changes, "etcd")


MUTANTS: Final = (
    _etcd(
        "compaction_forgets_live_version",
        "a compaction keeps what every key was at its revision: of a key that was changed at that very one it does not",
        Change(
            _KEYSPACE,
            "if count and older[count - 1].version:",
            "if count and older[count - 1].version and older[count - 1].mod_revision != compacted_revision:",
        ),
    ),
    _etcd(
        "old_read_sees_later_version",
        "a read at a revision is of the state as of that one: it sees the change behind it",
        Change(
            _KEYSPACE,
            "        if version.mod_revision > revision:",
            "        if version.mod_revision > revision + 1:",
        ),
    ),
    _etcd(
        "previous_version_skips_one",
        "prev_kv is what the key was right before: of a key that changes twice in a row it is what it was before that",
        Change(_STORE, "revision = version.mod_revision - 1", "revision = version.mod_revision - 2"),
    ),
    _etcd(
        "delete_takes_no_revision",
        "every change has a revision of its own: a deletion shares that of the next change",
        Change(
            _STORE,
            """        if deleted:
            self._end_revision()
        return""",
            "        return",
        ),
    ),
    _etcd(
        "empty_delete_takes_revision",
        "what changes nothing takes no revision: a deletion that found nothing does, and nobody hears of it",
        Change(
            _STORE,
            """        if deleted:
            self._end_revision()
        return""",
            """        self._end_revision()
        return""",
        ),
    ),
    _etcd(
        "txn_reads_state_before_it",
        "a transaction sees its own writes: reads in it are of the state before",
        Change(
            _TRANSACTIONS,
            "body = read_range(self._keyspace, step, self.revision, self._room)",
            """step.revision = step.revision or self._next_revision - 1
            body = read_range(self._keyspace, step, self._next_revision, self._room)""",
        ),
    ),
    _etcd(
        "txn_compares_any_key_of_range",
        "a transaction is done if all of its comparisons hold: of a range it is enough that one key's does",
        Change(
            _TRANSACTIONS,
            "return all(_compare(compare, version) for version in versions)",
            "return any(_compare(compare, version) for version in versions)",
        ),
    ),
    _etcd(
        "version_goes_on_after_deletion",
        "a key that was deleted begins anew: it goes on with the create revision that it had",
        Change(
            _KEYSPACE,
            """                version = Version(key, value, revision, revision, 1, lease)
                forgettable = 0
""",
            """                version = Version(key, value, revision - 1, revision, 1, lease)
                forgettable = 0
""",
        ),
    ),
    _etcd(
        "puts_in_a_row_share_create_revision",
        "a key that a put makes is made at that put's revision: of several in a row, at the first one's",
        Change(
            _KEYSPACE,
            "version = self._change(key, value, 0, revision)",
            "version = self._change(key, value, 0, revision - len(versions))",
        ),
    ),
    _etcd(
        "put_in_a_row_stays_with_lease",
        "a put without a lease takes its key off the one that it hung on: of several in a row, it goes with it still",
        Change(_KEYSPACE, "not latest.version or latest.lease:", "not latest.version:"),
    ),
    _etcd(
        "key_stays_with_former_lease",
        "a key hangs on the lease that it was last put under: it goes with the one before as well",
        Change(
            _KEYSPACE,
            "                if latest.lease:\n                    self",
            "                if latest.lease and not lease:\n                    self",
        ),
    ),
    _etcd(
        "end_of_lease_leaves_key",
        "a lease takes all of its keys with it: one of several stays",
        Change(
            _STORE,
            "keys = sorted(lease.keys)",
            "keys = sorted(lease.keys)[: max(1, len(lease.keys) - 1)]",
        ),
        Change(_KEYSPACE, "        assert not lease.keys\n", ""),
    ),
    _etcd(
        "restore_forgets_lease_generation",
        "replicas are the same: who restored a snapshot counts leases from where it stood before",
        Change(_STORE, "        self._lease_generation = loaded.lease_generation\n", ""),
    ),
    _etcd(
        "restore_forgets_compacted_revision",
        "what was compacted is refused: who restored a snapshot answers with what is left of it",
        Change(_STORE, "        self.compacted_revision = loaded.compacted_revision\n", ""),
    ),
    _etcd(
        "snapshot_goes_on_with_history",
        "a snapshot is of one position: what is appended while it is written gets into it, and is applied again",
        Change(_SNAPSHOT, "islice(history.since(0), head.version_count)", "history.since(0)"),
        Change(_SNAPSHOT, "from itertools import islice\n", ""),
        Change(_SNAPSHOT, "expected = (head.version_count,", "expected = (self._version_count,"),
    ),
)
