"""Commands: what the door proposes and the store applies.

One byte says what it is; the rest is the client's request exactly as it came, so nothing is encoded again.  Commands of
leases have a fixed layout, because what the client left open (the id of a lease) is drawn before they are proposed.

The door has checked each request (`checks`); the store answers with an error what it cannot decode.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

PUT: Final = b"p"
DELETE_RANGE: Final = b"d"
TXN: Final = b"t"
COMPACT: Final = b"c"
GRANT: Final = b"g"
REVOKE: Final = b"r"
EXPIRE: Final = b"e"

GRANT_BODY: Final = Struct(">qq")
"""id, TTL in seconds."""
REVOKE_BODY: Final = Struct(">q")
"""id."""
EXPIRE_BODY: Final = Struct(">qq")
"""id, generation: a lease that was granted anew under the same id is another one."""


def grant(lease: int, ttl_s: int) -> bytes:
    """A new lease.  LEASE_EXISTS where the id is taken."""
    return GRANT + GRANT_BODY.pack(lease, ttl_s)


def revoke(lease: int) -> bytes:
    """The client gives a lease up: its keys are deleted, all in one revision.  LEASE_NOT_FOUND where there is none."""
    return REVOKE + REVOKE_BODY.pack(lease)


def expire(lease: int, generation: int) -> bytes:
    """The leader heard nothing of a lease for its TTL; does nothing where it is gone or is another one by now."""
    return EXPIRE + EXPIRE_BODY.pack(lease, generation)
