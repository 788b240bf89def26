"""What a ZooKeeper client's call may raise.

ZooKeeperError
├── ConnectionLoss           the connection went before the answer: a write may have been done or not
├── SessionExpired           the session is over; its ephemeral nodes are gone
├── SessionMoved             the session is served through another connection
├── ClientClosed             `close` was called
├── NoNode, NodeExists, BadVersion, NotEmpty, NoChildrenForEphemerals
├── BadArguments, InvalidACL, AuthFailed, NoAuth, NoWatcher, Unimplemented
├── Throttled                the cluster cannot keep up: certainly not done, may be made again
├── MultiFailed              a multi was not done; it names what each of its operations came to
└── ServerError              any other code: `code` has it
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import ClassVar, Final

from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.protocol import MultiResult


class ZooKeeperError(Exception):
    """Base of all.  `code` is ZooKeeper's error code, 0 where the server sent none."""

    code: int = 0


class ClientClosed(ZooKeeperError):
    pass


class ServerError(ZooKeeperError):
    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"{what}: error {code}")
        self.code = code


class _Coded(ZooKeeperError):
    """An error with a code of its own."""

    own_code: ClassVar[ErrorCode]

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.code = self.own_code


class ConnectionLoss(_Coded):
    own_code = ErrorCode.CONNECTION_LOSS


class SessionExpired(_Coded):
    own_code = ErrorCode.SESSION_EXPIRED


class SessionMoved(_Coded):
    own_code = ErrorCode.SESSION_MOVED


class NoNode(_Coded):
    own_code = ErrorCode.NO_NODE


class NodeExists(_Coded):
    own_code = ErrorCode.NODE_EXISTS


class BadVersion(_Coded):
    own_code = ErrorCode.BAD_VERSION


class NotEmpty(_Coded):
    own_code = ErrorCode.NOT_EMPTY


class NoChildrenForEphemerals(_Coded):
    own_code = ErrorCode.NO_CHILDREN_FOR_EPHEMERALS


class BadArguments(_Coded):
    own_code = ErrorCode.BAD_ARGUMENTS


class InvalidACL(_Coded):
    own_code = ErrorCode.INVALID_ACL


class AuthFailed(_Coded):
    own_code = ErrorCode.AUTH_FAILED


class NoAuth(_Coded):
    own_code = ErrorCode.NO_AUTH


class NoWatcher(_Coded):
    own_code = ErrorCode.NO_WATCHER


class Unimplemented(_Coded):
    own_code = ErrorCode.UNIMPLEMENTED


class Throttled(_Coded):
    own_code = ErrorCode.OPERATION_TIMEOUT


class MultiFailed(ZooKeeperError):
    """Nothing of the multi was done."""

    def __init__(self, results: Sequence[MultiResult]) -> None:
        errors = [result.error for result in results]
        # Operations before the one that failed have 0, those behind it RUNTIME_INCONSISTENCY.
        self.failed_index = next(index for index, error in enumerate(errors) if error)
        super().__init__(f"operation {self.failed_index} of the multi failed with error {errors[self.failed_index]}")
        self.code = errors[self.failed_index]
        self.results = tuple(results)


_BY_CODE: Final = MappingProxyType({int(error.own_code): error for error in _Coded.__subclasses__()})


def error_for(code: int, what: str) -> ZooKeeperError:
    """The exception for a reply's error code; `what` says which call it was."""
    known = _BY_CODE.get(code)
    return ServerError(code, what) if known is None else known(what)
