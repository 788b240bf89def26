"""What the etcd service can be told.  The defaults are etcd's."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

ADMIN_METHOD: Final = "/quorate.Node/Admin"
"""Not etcd's: the answer is host:port of the node's admin listener, as text, so that any port finds the cluster."""


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """Sizes in bytes, times in milliseconds."""

    quota_bytes: int = 2 << 30
    """Writes are refused with NOSPACE when keys and values, with their history, take more than this."""
    max_txn_ops: int = 128
    """Operations in one branch of a transaction, counted with those nested in it."""
    max_request_bytes: int = 3 << 19
    """The largest command: 1.5 MiB."""
    request_timeout_ms: int = 5_000
    """How long a request waits for its answer, and two election timeouts more."""
    watch_progress_interval_ms: int = 600_000
    """A watch that asked for it is told of progress after this long without events."""
    watch_step: int = 2_000
    """A step of catching up: so many changes looked at, and events for one watch each.  About a millisecond."""
    tls: ssl.SSLContext | None = None
    """None: clients speak in the clear."""
