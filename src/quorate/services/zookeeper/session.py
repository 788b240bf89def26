"""What the cluster knows of a client's session."""

from __future__ import annotations

import msgspec


class Session(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Replaced, never changed: a snapshot that is being written may hold it.  Its ephemerals are in Tree.ephemerals."""

    session_id: int
    timeout_ms: int
    password: bytes
    owner: int
    """The node that the client is, or was last, connected to."""
    generation: int
    """The zxid of the create_session or attach that made `owner` the owner."""
