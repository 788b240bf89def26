"""What a call of etcd's API can come to, other than its answer.

EtcdClientError
  NotDone           the request certainly was not done, and will not be
    ClientClosed
  OutcomeUnknown    it may have been done, or may yet be: only the caller can know whether to ask again.  With `error`
                    ANSWER_TOO_LARGE it was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from quorate.net.grpc.client import NotSentError
from quorate.net.grpc.status import Code, GrpcError
from quorate.services.etcd.errors import EtcdError


class EtcdClientError(Exception):
    """`error` is etcd's own, where the words are one of those."""

    def __init__(self, message: str, error: EtcdError | None = None) -> None:
        super().__init__(message)
        self.error = error


class NotDone(EtcdClientError):
    """Certainly not done."""


class ClientClosed(NotDone):
    """The client was closed before it asked."""


class OutcomeUnknown(EtcdClientError):
    """Perhaps done."""


DOUBTFUL: Final = frozenset(
    {
        EtcdError.ANSWER_TOO_LARGE,  # it was done
        EtcdError.LEADER_CHANGED,
        EtcdError.STOPPED,  # etcd says so of what is under way, too
        EtcdError.TIMEOUT,
        EtcdError.TIMEOUT_LEADER_FAILED,
        EtcdError.TIMEOUT_CONNECTION_LOST,
    }
)
"""Words of a member that gives up waiting for what may have been proposed, or its answer.  All others refuse."""
_BY_STATUS: Final[Mapping[tuple[Code, str], EtcdError]] = MappingProxyType({error.value: error for error in EtcdError})
_TROUBLED: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})


def error_for(error: GrpcError, what: str) -> EtcdClientError:
    """The client's error for how a call has ended."""
    known = _BY_STATUS.get((error.code, error.message))
    text = f"{what}: {error.message}"
    certain = isinstance(error, NotSentError) or (known is not None and known not in DOUBTFUL)
    return NotDone(text, known) if certain else OutcomeUnknown(text, known)


def is_in_trouble(error: GrpcError) -> bool:
    """Another member may know better."""
    return error.code in _TROUBLED
