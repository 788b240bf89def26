"""What a door does with each operation: forward it to the group, or answer it from this node's store.

`LOCAL` has a function for every operation that is answered here.  Each takes the connection,
the request's xid and a Reader at the record, and returns the reply's record, or None where
it replies by itself.  A failure that the client is told of is `RequestFailed`; a record that
cannot be decoded is JuteError.

Source: `FinalRequestProcessor` of ZooKeeper 3.8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.jute import Reader, pack_buffer, pack_strings
from quorate.services.zookeeper.protocol import (
    MULTI_END,
    MULTI_HEADER,
    STAT,
    AuthPacket,
    Op,
    PathAndMode,
    PathAndWatch,
    SetWatches,
    WatcherEvent,
)
from quorate.services.zookeeper.tree import Znode
from quorate.services.zookeeper.watches import WatchKind

if TYPE_CHECKING:
    from quorate.services.zookeeper.connection import Connection

FORWARDED: Final = frozenset(
    int(op) for op in (Op.CREATE, Op.CREATE2, Op.DELETE, Op.SET_DATA, Op.SET_ACL, Op.MULTI, Op.CLOSE_SESSION)
)
"""Operations that become commands as they stand."""

_INT: Final = Struct(">i")
_EVENT_HEAD: Final = Struct(">iiqi")


class RequestFailed(Exception):
    """The request was understood and cannot be done; `code` goes into the reply."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


Handler = Callable[["Connection", int, Reader], bytes | None]


def encode_event(event_type: int, path: bytes) -> bytes:
    """The whole frame of a watch event."""
    record = WatcherEvent(event_type, path).encode()
    return _EVENT_HEAD.pack(16 + len(record), -1, -1, 0) + record


def _exists(connection: Connection, xid: int, reader: Reader) -> bytes:
    request = PathAndWatch.decode(reader)
    if b"\0" in request.path:
        raise RequestFailed(ErrorCode.BAD_ARGUMENTS)
    door = connection.door
    if request.watch:
        door.watches.watch_data(request.path, connection)
    znode = door.store.tree.get(request.path)
    if znode is None:
        raise RequestFailed(ErrorCode.NO_NODE)
    return znode.stat


def _get_data(connection: Connection, xid: int, reader: Reader) -> bytes:
    request = PathAndWatch.decode(reader)
    znode = _find(connection, request.path)
    if request.watch:
        connection.door.watches.watch_data(request.path, connection)
    return znode.data_buffer + znode.stat


def _get_children(connection: Connection, xid: int, reader: Reader) -> bytes:
    return _children_and_znode(connection, reader)[0]


def _get_children2(connection: Connection, xid: int, reader: Reader) -> bytes:
    children, znode = _children_and_znode(connection, reader)
    return children + znode.stat


def _children_and_znode(connection: Connection, reader: Reader) -> tuple[bytes, Znode]:
    request = PathAndWatch.decode(reader)
    znode = _find(connection, request.path)
    if request.watch:
        connection.door.watches.watch_children(request.path, connection)
    return pack_strings(znode.children), znode


def _find(connection: Connection, path: bytes) -> Znode:
    znode = connection.door.store.tree.get(path)
    if znode is None:
        raise RequestFailed(ErrorCode.NO_NODE)
    return znode


def _get_acl(connection: Connection, xid: int, reader: Reader) -> bytes:
    znode = _find(connection, reader.string("path"))
    return znode.acl + znode.stat


def _multi_read(connection: Connection, xid: int, reader: Reader) -> bytes:
    """Each part answers or fails by itself."""
    parts: list[bytes] = []
    while True:
        op = reader.int32("type")
        done = reader.boolean("done")
        reader.int32("err")
        if done:
            parts.append(MULTI_END)
            return b"".join(parts)
        request = PathAndWatch.decode(reader)
        if op not in (Op.GET_DATA, Op.GET_CHILDREN):
            raise RequestFailed(ErrorCode.MARSHALLING_ERROR)
        znode = connection.door.store.tree.get(request.path)
        if znode is None:
            code = int(ErrorCode.NO_NODE)
            parts.append(MULTI_HEADER.pack(Op.ERROR, False, code) + _INT.pack(code))
        elif op == Op.GET_DATA:
            parts.append(MULTI_HEADER.pack(op, False, 0) + znode.data_buffer + znode.stat)
        else:
            parts.append(MULTI_HEADER.pack(op, False, 0) + pack_strings(znode.children))


def _sync(connection: Connection, xid: int, reader: Reader) -> None:
    connection.sync(xid, pack_buffer(reader.string("path")))


def _auth(connection: Connection, xid: int, reader: Reader) -> bytes | None:
    """Identities are taken down for whoAmI; nothing is enforced yet."""
    packet = AuthPacket.decode(reader)
    if packet.scheme == b"digest" and b":" in packet.auth:
        connection.identities.append((b"digest", packet.auth.partition(b":")[0]))
        return b""
    connection.door.log_once(
        "auth", "closing %s: authentication scheme %r is not supported", connection.peer, packet.scheme
    )
    connection.reply(xid, ErrorCode.AUTH_FAILED)
    connection.close()
    return None


def _who_am_i(connection: Connection, xid: int, reader: Reader) -> bytes:
    identities = [(b"ip", connection.peer.rpartition(":")[0].encode()), *connection.identities]
    return _INT.pack(len(identities)) + b"".join(
        [pack_buffer(scheme) + pack_buffer(user) for scheme, user in identities]
    )


def _set_watches(connection: Connection, xid: int, reader: Reader) -> bytes:
    return _set_watches_again(connection, SetWatches.decode(reader, Op.SET_WATCHES))


def _set_watches2(connection: Connection, xid: int, reader: Reader) -> bytes:
    return _set_watches_again(connection, SetWatches.decode(reader, Op.SET_WATCHES2))


def _set_watches_again(connection: Connection, request: SetWatches) -> bytes:
    """What the client missed is sent before the reply."""
    if request.persistent or request.persistent_recursive:
        raise RequestFailed(ErrorCode.UNIMPLEMENTED)
    door = connection.door
    find = door.store.tree.get

    def zxids_of(path: bytes) -> tuple[int, int] | None:
        znode = find(path)
        if znode is None:
            return None
        fields = STAT.unpack(znode.stat)
        return fields[1], fields[10]

    missed = door.watches.set_again(
        connection, request.relative_zxid, zxids_of, request.data, request.exist, request.child
    )
    connection.out += [encode_event(event_type, path) for event_type, path in missed]
    return b""


def _check_watches(connection: Connection, xid: int, reader: Reader) -> bytes:
    request = PathAndMode.decode(reader)
    if not connection.door.watches.has(_kind_of(request), request.path, connection):
        raise RequestFailed(ErrorCode.NO_WATCHER)
    return b""


def _remove_watches(connection: Connection, xid: int, reader: Reader) -> bytes:
    request = PathAndMode.decode(reader)
    if not connection.door.watches.remove(_kind_of(request), request.path, connection):
        raise RequestFailed(ErrorCode.NO_WATCHER)
    return b""


def _kind_of(request: PathAndMode) -> WatchKind:
    """4 and 5 are the persistent kinds, which nobody can have set here."""
    if request.mode in (4, 5):
        raise RequestFailed(ErrorCode.NO_WATCHER)
    if request.mode not in (1, 2, 3):
        raise RequestFailed(ErrorCode.BAD_ARGUMENTS)
    return WatchKind(request.mode)


def _get_ephemerals(connection: Connection, xid: int, reader: Reader) -> bytes:
    prefix = (reader.buffer("prefixPath") or b"").strip()
    paths = connection.door.store.tree.ephemerals.get(connection.session, ())
    return pack_strings([path for path in sorted(paths) if prefix in (b"", b"/") or path.startswith(prefix)])


LOCAL: Final[Mapping[int, Handler]] = MappingProxyType(
    {
        int(op): handler
        for op, handler in {
            Op.EXISTS: _exists,
            Op.GET_DATA: _get_data,
            Op.GET_ACL: _get_acl,
            Op.GET_CHILDREN: _get_children,
            Op.GET_CHILDREN2: _get_children2,
            Op.SYNC: _sync,
            Op.MULTI_READ: _multi_read,
            Op.CHECK_WATCHES: _check_watches,
            Op.REMOVE_WATCHES: _remove_watches,
            Op.AUTH: _auth,
            Op.SET_WATCHES: _set_watches,
            Op.SET_WATCHES2: _set_watches2,
            Op.GET_EPHEMERALS: _get_ephemerals,
            Op.WHO_AM_I: _who_am_i,
        }.items()
    }
)
"""Operations answered from this node's store.  Ping is none of them: the leader answers it."""
