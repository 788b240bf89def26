"""The leases of a store: what was granted, and which keys hang on it.

No clock is here.  When a lease ends is decided by the leader's door, and comes as a command.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MIN_TTL_S: Final = 2
"""etcd with its usual timing of elections grants no less: it raises what is asked for."""
MAX_TTL_S: Final = 9_000_000_000
LEASE_OVERHEAD_BYTES: Final = 512
"""What a lease counts for in the quota: about 400 bytes in the store, and what the door holds beside it."""


class Lease:
    """A lease that was granted and has not ended."""

    __slots__ = ("generation", "keys", "lease_id", "ttl_s")

    def __init__(self, lease_id: int, ttl_s: int, generation: int) -> None:
        self.lease_id: Final = lease_id
        self.ttl_s: Final = ttl_s
        self.generation: Final = generation
        """Counts the grants of the store: tells it from an earlier one with the same id."""
        self.keys: set[bytes] = set()
        """Keys whose present version names this lease; sort them before they become visible anywhere."""


class LeaseChange(NamedTuple):
    """A lease came or went."""

    lease: Lease
    granted: bool
    """False: revoked or expired."""
