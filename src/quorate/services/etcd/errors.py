"""The errors of the etcd service, each with the code and the very words that etcd's clients compare.

Source: etcd's `api/v3rpc/rpctypes/error.go`; ANSWER_TOO_LARGE and TOO_MUCH_TO_COMPARE are our own.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from quorate.net.grpc.status import Code
from quorate.services.interface import Refused


class EtcdError(enum.Enum):
    """Why a request was not done, or not answered."""

    MALFORMED = (Code.INTERNAL, "grpc: error unmarshalling request")
    EMPTY_KEY = (Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
    KEY_NOT_FOUND = (Code.INVALID_ARGUMENT, "etcdserver: key not found")
    VALUE_PROVIDED = (Code.INVALID_ARGUMENT, "etcdserver: value is provided")
    LEASE_PROVIDED = (Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
    TOO_MANY_OPS = (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
    DUPLICATE_KEY = (Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
    INVALID_SORT_OPTION = (Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
    COMPACTED = (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
    FUTURE_REVISION = (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
    NO_SPACE = (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    LEASE_NOT_FOUND = (Code.NOT_FOUND, "etcdserver: requested lease not found")
    LEASE_EXISTS = (Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
    LEASE_TTL_TOO_LARGE = (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
    REQUEST_TOO_LARGE = (Code.INVALID_ARGUMENT, "etcdserver: request is too large")
    TOO_MANY_REQUESTS = (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
    TOO_MUCH_TO_COMPARE = (Code.RESOURCE_EXHAUSTED, "etcdserver: the compares of the transaction cover too many keys")
    ANSWER_TOO_LARGE = (
        Code.RESOURCE_EXHAUSTED,
        "etcdserver: the request was done, but its answer is too large to be given",
    )
    NO_LEADER = (Code.UNAVAILABLE, "etcdserver: no leader")
    LEADER_CHANGED = (Code.UNAVAILABLE, "etcdserver: leader changed")
    STOPPED = (Code.UNAVAILABLE, "etcdserver: server stopped")
    TIMEOUT = (Code.UNAVAILABLE, "etcdserver: request timed out")
    TIMEOUT_LEADER_FAILED = (
        Code.UNAVAILABLE,
        "etcdserver: request timed out, possibly due to previous leader failure",
    )
    TIMEOUT_CONNECTION_LOST = (Code.UNAVAILABLE, "etcdserver: request timed out, possibly due to connection lost")

    @property
    def code(self) -> Code:
        return self.value[0]

    @property
    def message(self) -> str:
        return self.value[1]


REFUSED: Final[Mapping[Refused, EtcdError]] = MappingProxyType(
    {
        Refused.NO_LEADER: EtcdError.NO_LEADER,
        Refused.DISK_FULL: EtcdError.NO_SPACE,
        Refused.STOPPING: EtcdError.STOPPED,
    }
)
"""What a client is told of a command that certainly was not applied."""
