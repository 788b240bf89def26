"""ZooKeeper's client protocol: operation codes, headers and records, as ZooKeeper 3.8 has them on the wire.

Every frame is an int length and so many bytes.  A connection opens with a ConnectRequest
and its ConnectResponse, without headers; after that a request is a RequestHeader and its
record, a reply a ReplyHeader and, unless `err` is set, its record.

Records that both ends need have `encode` and a `decode` that takes a Reader and raises
JuteError.  Hot paths may use `struct` directly.

Source: zookeeper-jute/src/main/resources/zookeeper.jute, ZooDefs.java, MultiOperationRecord.java.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

import msgspec

from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.jute import JuteError, Reader, pack_buffer, pack_strings


class Op(IntEnum):
    """The `type` field of a request header."""

    ERROR = -1
    CLOSE_SESSION = -11
    CREATE_SESSION = -10
    NOTIFICATION = 0
    CREATE = 1
    DELETE = 2
    EXISTS = 3
    GET_DATA = 4
    SET_DATA = 5
    GET_ACL = 6
    SET_ACL = 7
    GET_CHILDREN = 8
    SYNC = 9
    PING = 11
    GET_CHILDREN2 = 12
    CHECK = 13
    MULTI = 14
    CREATE2 = 15
    RECONFIG = 16
    CHECK_WATCHES = 17
    REMOVE_WATCHES = 18
    CREATE_CONTAINER = 19
    DELETE_CONTAINER = 20
    CREATE_TTL = 21
    MULTI_READ = 22
    AUTH = 100
    SET_WATCHES = 101
    SASL = 102
    GET_EPHEMERALS = 103
    GET_ALL_CHILDREN_NUMBER = 104
    SET_WATCHES2 = 105
    ADD_WATCH = 106
    WHO_AM_I = 107


class EventType(IntEnum):
    """The `type` field of a watcher event."""

    NONE = -1
    CREATED = 1
    DELETED = 2
    DATA_CHANGED = 3
    CHILDREN_CHANGED = 4


# Special xids: a client numbers its requests from 1.
NOTIFICATION_XID: Final = -1
PING_XID: Final = -2
AUTH_XID: Final = -4
SET_WATCHES_XID: Final = -8

STATE_SYNC_CONNECTED: Final = 3
"""The only `state` a server puts into a watcher event."""

PASSWORD_BYTES: Final = 16

REQUEST_HEADER: Final = Struct(">ii")
"""xid, operation."""
REPLY_HEADER: Final = Struct(">iqi")
"""xid, zxid, error code."""
MULTI_HEADER: Final = Struct(">i?i")
"""operation, whether this is the end, error code."""
MULTI_END: Final = MULTI_HEADER.pack(-1, True, -1)
STAT: Final = Struct(">qqqqiiiqiiq")
"""czxid, mzxid, ctime, mtime, version, cversion, aversion, ephemeralOwner, dataLength, numChildren, pzxid."""

_INT: Final = Struct(">i")
_CONNECT_REQUEST: Final = Struct(">iqiq")
_CONNECT_RESPONSE: Final = Struct(">iiq")


class ConnectRequest(msgspec.Struct, frozen=True):
    """A client's first frame.  Session id 0 asks for a new session.  Timeout in milliseconds."""

    last_zxid_seen: int
    timeout_ms: int
    session_id: int
    password: bytes
    read_only: bool = False
    has_read_only: bool = True
    """Clients before 3.4 do not send the flag and do not expect it back."""
    protocol_version: int = 0

    def encode(self) -> bytes:
        flag = bytes([self.read_only]) if self.has_read_only else b""
        head = _CONNECT_REQUEST.pack(self.protocol_version, self.last_zxid_seen, self.timeout_ms, self.session_id)
        return head + pack_buffer(self.password) + flag

    @classmethod
    def decode(cls, reader: Reader) -> ConnectRequest:
        version = reader.int32("protocolVersion")
        last_zxid_seen = reader.int64("lastZxidSeen")
        timeout_ms = reader.int32("timeOut")
        session_id = reader.int64("sessionId")
        password = reader.buffer("passwd") or b""
        has_read_only = reader.left() > 0
        read_only = has_read_only and reader.boolean("readOnly")
        return cls(last_zxid_seen, timeout_ms, session_id, password, read_only, has_read_only, version)


class ConnectResponse(msgspec.Struct, frozen=True):
    """A server's first frame.  Timeout 0 and session id 0 say that the session has expired."""

    timeout_ms: int
    session_id: int
    password: bytes
    read_only: bool | None = False
    """None leaves the flag out."""
    protocol_version: int = 0

    def encode(self) -> bytes:
        flag = b"" if self.read_only is None else bytes([self.read_only])
        head = _CONNECT_RESPONSE.pack(self.protocol_version, self.timeout_ms, self.session_id)
        return head + pack_buffer(self.password) + flag

    @classmethod
    def decode(cls, reader: Reader) -> ConnectResponse:
        version = reader.int32("protocolVersion")
        timeout_ms = reader.int32("timeOut")
        session_id = reader.int64("sessionId")
        password = reader.buffer("passwd") or b""
        read_only = reader.boolean("readOnly") if reader.left() else None
        return cls(timeout_ms, session_id, password, read_only, version)


class WatcherEvent(msgspec.Struct, frozen=True):
    """Sent under a reply header of xid -1, zxid -1, error 0."""

    event_type: int
    path: bytes
    state: int = STATE_SYNC_CONNECTED

    def encode(self) -> bytes:
        return _INT.pack(self.event_type) + _INT.pack(self.state) + pack_buffer(self.path)

    @classmethod
    def decode(cls, reader: Reader) -> WatcherEvent:
        event_type = reader.int32("type")
        state = reader.int32("state")
        return cls(event_type, reader.string("path"), state)


class Stat(msgspec.Struct, frozen=True):
    """A znode's counters as a client sees them.  Times in Unix milliseconds, `data_length` in bytes."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int
    pzxid: int

    def encode(self) -> bytes:
        return STAT.pack(*msgspec.structs.astuple(self))

    @classmethod
    def decode(cls, reader: Reader) -> Stat:
        at = reader.at
        if reader.left() < STAT.size:
            raise JuteError(f"stat: expected {STAT.size} bytes at offset {at}, found {reader.left()}")
        reader.at = at + STAT.size
        return cls(*STAT.unpack_from(reader.data, at))


class AccessRule(msgspec.Struct, frozen=True):
    """One ACL entry: what (a mask of read 1, write 2, create 4, delete 8, admin 16) may be done by whom."""

    permissions: int
    scheme: bytes
    identity: bytes

    def encode(self) -> bytes:
        return _INT.pack(self.permissions) + pack_buffer(self.scheme) + pack_buffer(self.identity)

    @classmethod
    def decode(cls, reader: Reader) -> AccessRule:
        permissions = reader.int32("perms")
        scheme = reader.string("scheme")
        return cls(permissions, scheme, reader.string("id"))


ANYONE: Final = (AccessRule(31, b"world", b"anyone"),)


def pack_acl(rules: tuple[AccessRule, ...]) -> bytes:
    """A vector of ACL."""
    return _INT.pack(len(rules)) + b"".join([rule.encode() for rule in rules])


def read_acl(reader: Reader) -> tuple[AccessRule, ...]:
    """A vector of ACL; null is read as empty.  Raises JuteError."""
    return tuple([AccessRule.decode(reader) for _ in range(reader.count("acl", 12))])


class Create(msgspec.Struct, frozen=True):
    """create and create2; `flags` is 1 for ephemeral plus 2 for sequential."""

    path: bytes
    data: bytes | None
    acl: tuple[AccessRule, ...] = ANYONE
    flags: int = 0
    op: Op = Op.CREATE

    def encode(self) -> bytes:
        return pack_buffer(self.path) + pack_buffer(self.data) + pack_acl(self.acl) + _INT.pack(self.flags)


class Delete(msgspec.Struct, frozen=True):
    path: bytes
    version: int = -1
    op: Op = Op.DELETE

    def encode(self) -> bytes:
        return pack_buffer(self.path) + _INT.pack(self.version)


class SetData(msgspec.Struct, frozen=True):
    path: bytes
    data: bytes | None
    version: int = -1
    op: Op = Op.SET_DATA

    def encode(self) -> bytes:
        return pack_buffer(self.path) + pack_buffer(self.data) + _INT.pack(self.version)


class Check(msgspec.Struct, frozen=True):
    """Only inside a multi: fail unless the znode is there and has this version."""

    path: bytes
    version: int
    op: Op = Op.CHECK

    def encode(self) -> bytes:
        return pack_buffer(self.path) + _INT.pack(self.version)


class SetACL(msgspec.Struct, frozen=True):
    path: bytes
    acl: tuple[AccessRule, ...]
    version: int = -1
    op: Op = Op.SET_ACL

    def encode(self) -> bytes:
        return pack_buffer(self.path) + pack_acl(self.acl) + _INT.pack(self.version)


class PathAndWatch(msgspec.Struct, frozen=True):
    """exists, getData, getChildren and getChildren2."""

    path: bytes
    watch: bool

    def encode(self) -> bytes:
        return pack_buffer(self.path) + bytes([self.watch])

    @classmethod
    def decode(cls, reader: Reader) -> PathAndWatch:
        path = reader.string("path")
        return cls(path, reader.boolean("watch"))


class SetWatches(msgspec.Struct, frozen=True):
    """What a client watched before it reconnected; the persistent lists only in setWatches2."""

    relative_zxid: int
    data: list[bytes]
    exist: list[bytes]
    child: list[bytes]
    persistent: list[bytes] = []
    persistent_recursive: list[bytes] = []

    def encode(self, op: Op) -> bytes:
        lists = [self.data, self.exist, self.child]
        if op is Op.SET_WATCHES2:
            lists += [self.persistent, self.persistent_recursive]
        return self.relative_zxid.to_bytes(8, "big", signed=True) + b"".join([pack_strings(paths) for paths in lists])

    @classmethod
    def decode(cls, reader: Reader, op: Op) -> SetWatches:
        relative_zxid = reader.int64("relativeZxid")
        data = reader.strings("dataWatches")
        exist = reader.strings("existWatches")
        child = reader.strings("childWatches")
        if op is not Op.SET_WATCHES2:
            return cls(relative_zxid, data, exist, child)
        persistent = reader.strings("persistentWatches")
        recursive = reader.strings("persistentRecursiveWatches")
        return cls(relative_zxid, data, exist, child, persistent, recursive)


class AuthPacket(msgspec.Struct, frozen=True):
    scheme: bytes
    auth: bytes
    auth_type: int = 0

    def encode(self) -> bytes:
        return _INT.pack(self.auth_type) + pack_buffer(self.scheme) + pack_buffer(self.auth)

    @classmethod
    def decode(cls, reader: Reader) -> AuthPacket:
        auth_type = reader.int32("type")
        scheme = reader.string("scheme")
        return cls(scheme, reader.buffer("auth") or b"", auth_type)


class PathAndMode(msgspec.Struct, frozen=True):
    """addWatch (mode: 0 persistent, 1 recursive), checkWatches and removeWatches (mode: which kind of watch)."""

    path: bytes
    mode: int

    def encode(self) -> bytes:
        return pack_buffer(self.path) + _INT.pack(self.mode)

    @classmethod
    def decode(cls, reader: Reader) -> PathAndMode:
        path = reader.string("path")
        return cls(path, reader.int32("mode"))


MultiItem = Create | Delete | SetData | Check


def pack_multi(items: tuple[MultiItem, ...]) -> bytes:
    """The record of a multi request."""
    parts = []
    for item in items:
        parts.append(MULTI_HEADER.pack(item.op, False, -1))
        parts.append(item.encode())
    parts.append(MULTI_END)
    return b"".join(parts)


class MultiResult(msgspec.Struct, frozen=True):
    """What one operation of a multi gave: `path` for creates, `stat` for create2 and setData."""

    op: Op
    error: int = ErrorCode.OK
    path: bytes | None = None
    stat: Stat | None = None


def read_multi_results(reader: Reader) -> list[MultiResult]:
    """The record of a multi reply.  Raises JuteError."""
    results: list[MultiResult] = []
    while True:
        number = reader.int32("type")
        done = reader.boolean("done")
        reader.int32("err")
        if done:
            return results
        match number:
            case Op.CREATE:
                results.append(MultiResult(Op.CREATE, path=reader.string("path")))
            case Op.CREATE2:
                path = reader.string("path")
                results.append(MultiResult(Op.CREATE2, path=path, stat=Stat.decode(reader)))
            case Op.SET_DATA:
                results.append(MultiResult(Op.SET_DATA, stat=Stat.decode(reader)))
            case Op.DELETE | Op.CHECK:
                results.append(MultiResult(Op(number)))
            case Op.ERROR:
                results.append(MultiResult(Op.ERROR, reader.int32("err")))
            case _:
                raise JuteError(f"type of a multi result: expected create, create2, ..., found {number}")
