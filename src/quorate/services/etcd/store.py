"""The replicated state of the etcd service: keys with their history, and leases.

Pure and deterministic: `apply` reads nothing but the store, the commands and the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.lease_table import Lease, LeaseChange
from quorate.services.etcd.results import Result
from quorate.services.etcd.versions import Version
from quorate.services.interface import SnapshotSlices, StoreLoader


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
        self.leases: Mapping[int, Lease] = {}
        self.lease_changes: list[LeaseChange] = []
        """What the last call of `apply` granted and ended, in its order; empty after a restore (look at `leases`)."""

    # --- the replicated state machine (services.interface.Store) ---

    def apply(self, commands: Sequence[bytes], time_ms: int) -> list[Result]:
        """Apply one batch; a Result for each command.  Never raises for what is in a command."""
        raise NotImplementedError

    def snapshot(self) -> SnapshotSlices:
        raise NotImplementedError

    def restore(self) -> StoreLoader:
        raise NotImplementedError

    def summary(self) -> dict[str, int]:
        raise NotImplementedError

    # --- reads ---

    def get(self, key: bytes) -> Result:
        """As `range` of one key at present and with no options: the fast way for the commonest read."""
        raise NotImplementedError

    def range(self, request: pb.RangeRequest) -> Result:
        """The present or an older revision.  The result is an error COMPACTED or FUTURE_REVISION, or a body."""
        raise NotImplementedError

    def txn(self, request: pb.TxnRequest) -> Result:
        """A transaction that only reads (`transactions.is_read_only`); needs no consensus but a barrier."""
        raise NotImplementedError

    def changes(self, from_revision: int) -> Iterator[Version]:
        """The history from a revision on, by (revision, number within it), up to the present.

        Cheap to begin anywhere.  To go on after a call of `apply` or `sweep`, begin anew.  At the compacted revision
        itself, only what is still to be read at it.  Raises Compacted where `from_revision` is before it: at once,
        not only when the first is asked for.
        """
        raise NotImplementedError

    def at(self, key: bytes, revision: int) -> Version | None:
        """What a key was at a revision; None where it was not there.  Raises Compacted."""
        raise NotImplementedError

    def version_before(self, version: Version) -> Version | None:
        """What the key was at the revision before the version's: `prev_kv` of an event.  None also where compacted."""
        raise NotImplementedError

    @property
    def size_bytes(self) -> int:
        """Keys, values and their overhead, with their history, as the quota counts: the same on every replica."""
        raise NotImplementedError

    # --- upkeep ---

    def sweep(self, max_versions: int) -> bool:
        """Give back memory of what compactions forgot: a step of so many versions.  True while there is more.

        Nobody can tell how far it is.  Does nothing (and says False) while a snapshot is open.
        """
        raise NotImplementedError

    def digest(self) -> str:
        """A SHA-256 over the whole state, sweeping aside: equal stores have equal digests.  Slow."""
        raise NotImplementedError
