"""ZooKeeper's error codes, and the one table from our errors to them.

Source: KeeperException.Code of ZooKeeper 3.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from quorate.services.interface import Refused


class ErrorCode(IntEnum):
    """The `err` field of a reply header."""

    OK = 0
    SYSTEM_ERROR = -1
    RUNTIME_INCONSISTENCY = -2
    DATA_INCONSISTENCY = -3
    CONNECTION_LOSS = -4
    MARSHALLING_ERROR = -5
    UNIMPLEMENTED = -6
    OPERATION_TIMEOUT = -7
    BAD_ARGUMENTS = -8
    NEW_CONFIG_NO_QUORUM = -13
    RECONFIG_IN_PROGRESS = -14
    API_ERROR = -100
    NO_NODE = -101
    NO_AUTH = -102
    BAD_VERSION = -103
    NO_CHILDREN_FOR_EPHEMERALS = -108
    NODE_EXISTS = -110
    NOT_EMPTY = -111
    SESSION_EXPIRED = -112
    INVALID_CALLBACK = -113
    INVALID_ACL = -114
    AUTH_FAILED = -115
    SESSION_MOVED = -118
    NOT_READ_ONLY = -119
    EPHEMERAL_ON_LOCAL_SESSION = -120
    NO_WATCHER = -121
    REQUEST_TIMEOUT = -122
    RECONFIG_DISABLED = -123
    SESSION_CLOSED_REQUIRE_SASL_AUTH = -124
    QUOTA_EXCEEDED = -125
    THROTTLED_OP = -127


REFUSED_CODES: Final[Mapping[Refused, ErrorCode | None]] = MappingProxyType(
    {
        # None: close the connection.  The client sees ConnectionLoss and looks for another server, which is
        # what ZooKeeper does when it loses its quorum or stops.
        Refused.NO_LEADER: None,
        Refused.STOPPING: None,
        # Certainly not done, and the connection is sound.  A full disk stops ZooKeeper.  Here reads go on, so the
        # write gets an error that no recipe mistakes for something it knows.
        Refused.DISK_FULL: ErrorCode.SYSTEM_ERROR,
    }
)
"""What a refused command's client gets; None where its connection is closed without an answer."""
