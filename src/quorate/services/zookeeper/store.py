"""The replicated state of the ZooKeeper service: a tree of znodes and a table of sessions.

Pure and deterministic: `apply` reads nothing but the store, the commands and the time.

Every command, also one that fails, takes the next zxid; a multi is one zxid, and so is
the end of a session with the deletion of all its ephemeral znodes.

A session's owner is the node that its client is connected to, and its generation the
zxid at which it came there.  A command made under another generation is answered
SESSION_MOVED and does nothing: once a client has attached elsewhere, what it had sent
through its former node can no longer take effect behind its back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Final

from quorate.services.zookeeper.acls import AclCache
from quorate.services.zookeeper.commands import (
    ATTACH,
    COMMAND_HEADER,
    EXPIRE,
    SESSION_ENDED,
    SESSION_OPENED,
    pack_session_reply,
    session_event,
)
from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.jute import JuteError, Reader
from quorate.services.zookeeper.multi import apply_multi, read_multi
from quorate.services.zookeeper.protocol import PASSWORD_BYTES, Op
from quorate.services.zookeeper.session import Session
from quorate.services.zookeeper.snapshot import Loaded, SnapshotLoader, SnapshotWriter
from quorate.services.zookeeper.tree import EventItem, Result, Tree, Znode, refusal

_unpack_int: Final = Struct(">i").unpack_from
_unpack_header: Final = COMMAND_HEADER.unpack_from
_BODY: Final = COMMAND_HEADER.size
_PATH: Final = _BODY + 4


Handler = Callable[[bytes, int, int], Result]
"""(command, session id, zxid) -> result.  The session is known to be there and to be of the right generation."""


class Store:
    """The state machine.  Reads go to `tree`, `sessions`, `zxid` and `time_ms` directly."""

    def __init__(self, first_zxid: int = 0) -> None:
        self.tree: Final = Tree()
        self.sessions: dict[int, Session] = {}
        self.zxid = first_zxid
        """Of the last command applied."""
        self.time_ms = 0
        """Of the last batch applied: Unix milliseconds."""
        self.acls: Final = AclCache()
        self._handlers: Final[dict[int, Handler]] = {
            Op.CREATE: self._create,
            Op.CREATE2: self._create2,
            Op.DELETE: self._delete,
            Op.SET_DATA: self._set_data,
            Op.SET_ACL: self._set_acl,
            Op.MULTI: self._multi,
            Op.CLOSE_SESSION: self._end_session,
            EXPIRE: self._end_session,
        }
        """What needs a session of the generation named in the header."""

    def apply(self, commands: Sequence[bytes], time_ms: int) -> list[Result]:
        """Apply one batch; a Result for each command (see tree.Result).  Never raises for what is in a command."""
        self.time_ms = time_ms
        results: list[Result] = []
        handlers = self._handlers
        sessions = self.sessions
        for command in commands:
            self.zxid = zxid = self.zxid + 1
            try:
                session_id, generation, op = _unpack_header(command)
            except struct_error:
                results.append(refusal(ErrorCode.MARSHALLING_ERROR, zxid))
                continue
            handler = handlers.get(op)
            if handler is None:
                results.append(self._open_session(command, session_id, op, zxid))
                continue
            session = sessions.get(session_id)
            if session is None:
                results.append(refusal(ErrorCode.SESSION_EXPIRED, zxid))
            elif session.generation != generation:
                # With no zxid: a client takes what it is shown for what it has seen, and nobody watches for it here.
                results.append(refusal(ErrorCode.SESSION_MOVED, 0))
            else:
                try:
                    results.append(handler(command, session_id, zxid))
                except JuteError:
                    # Raised while decoding, so before anything was changed.
                    results.append(refusal(ErrorCode.MARSHALLING_ERROR, zxid))
        return results

    # --- writes -------------------------------------------------------------------------------

    def _set_data(self, command: bytes, session_id: int, zxid: int) -> Result:
        try:
            path_end = _PATH + _unpack_int(command, _BODY)[0]
            if path_end < _PATH:
                raise JuteError("path: expected a string, found null")
            data_size = _unpack_int(command, path_end)[0]
            if data_size < -1:
                raise JuteError(f"length of data: expected -1 or more, found {data_size}")
            data_end = path_end + 4 + data_size if data_size > 0 else path_end + 4
            version = _unpack_int(command, data_end)[0]
        except struct_error as error:
            raise JuteError("setData: bytes are missing") from error
        return self.tree.set_data(command[_PATH:path_end], command[path_end:data_end], version, zxid, self.time_ms)

    def _create(self, command: bytes, session_id: int, zxid: int) -> Result:
        return self._create_any(command, session_id, zxid, False)

    def _create2(self, command: bytes, session_id: int, zxid: int) -> Result:
        return self._create_any(command, session_id, zxid, True)

    def _create_any(self, command: bytes, session_id: int, zxid: int, with_stat: bool) -> Result:
        try:
            path_end = _PATH + _unpack_int(command, _BODY)[0]
            if path_end < _PATH:
                raise JuteError("path: expected a string, found null")
            data_size = _unpack_int(command, path_end)[0]
            if data_size < -1:
                raise JuteError(f"length of data: expected -1 or more, found {data_size}")
        except struct_error as error:
            raise JuteError("create: bytes are missing") from error
        data_end = path_end + 4 + data_size if data_size > 0 else path_end + 4
        # The bytes between data and flags are a list that was seen before, nearly always.
        acl = self.acls.known(command[data_end:-4])
        if acl is not None:
            flags = _unpack_int(command, len(command) - 4)[0]
        else:
            if data_end > len(command):
                raise JuteError(f"data: expected {data_size} bytes, found fewer")
            reader = Reader(command, data_end)
            acl = self.acls.read(reader)
            flags = reader.int32("flags")
        return self.tree.create(
            command[_PATH:path_end],
            command[path_end:data_end],
            acl,
            flags,
            session_id,
            zxid,
            self.time_ms,
            with_stat,
        )

    def _delete(self, command: bytes, session_id: int, zxid: int) -> Result:
        reader = Reader(command, _BODY)
        path = reader.string("path")
        return self.tree.delete(path, reader.int32("version"), zxid)

    def _set_acl(self, command: bytes, session_id: int, zxid: int) -> Result:
        reader = Reader(command, _BODY)
        path = reader.string("path")
        acl = self.acls.read(reader)
        return self.tree.set_acl(path, acl, reader.int32("version"), zxid)

    def _multi(self, command: bytes, session_id: int, zxid: int) -> Result:
        items = read_multi(Reader(command, _BODY), self.acls)
        return apply_multi(self.tree, items, session_id, zxid, self.time_ms)

    # --- sessions -----------------------------------------------------------------------------

    def _open_session(self, command: bytes, session_id: int, op: int, zxid: int) -> Result:
        """Operations that need no owner of the session: it is made or changed here."""
        reader = Reader(command, _BODY)
        try:
            if op == Op.CREATE_SESSION:
                timeout_ms = reader.int32("timeout")
                password = reader.buffer("password")
                return self._create_session(session_id, timeout_ms, password, reader.int32("owner"), zxid)
            if op == ATTACH:
                password = reader.buffer("password")
                timeout_ms = reader.int32("timeout")
                return self._attach(session_id, password, timeout_ms, reader.int32("owner"), zxid)
        except JuteError:
            return refusal(ErrorCode.MARSHALLING_ERROR, zxid)
        return refusal(ErrorCode.UNIMPLEMENTED, zxid)

    def _create_session(
        self, session_id: int, timeout_ms: int, password: bytes | None, owner: int, zxid: int
    ) -> Result:
        # Id 0 is a client that has no session, and an ephemeral owner of 0 is none.
        if session_id == 0 or session_id in self.sessions or password is None or len(password) != PASSWORD_BYTES:
            return refusal(ErrorCode.BAD_ARGUMENTS, zxid)
        self.sessions[session_id] = Session(session_id, timeout_ms, password, owner, zxid)
        return (0, zxid, pack_session_reply(timeout_ms, zxid), (session_event(SESSION_OPENED, session_id),))

    def _attach(self, session_id: int, password: bytes | None, timeout_ms: int, owner: int, zxid: int) -> Result:
        session = self.sessions.get(session_id)
        if session is None:
            return refusal(ErrorCode.SESSION_EXPIRED, zxid)
        if session.password != password:
            return refusal(ErrorCode.AUTH_FAILED, zxid)
        self.sessions[session_id] = Session(session_id, timeout_ms, password, owner, zxid)
        return (0, zxid, pack_session_reply(timeout_ms, zxid), (session_event(SESSION_OPENED, session_id),))

    def _end_session(self, command: bytes, session_id: int, zxid: int) -> Result:
        """Close and expire: forget the session and delete its ephemeral znodes, in the order of their paths."""
        del self.sessions[session_id]
        events: list[EventItem] = []
        for path in sorted(self.tree.ephemerals.get(session_id, ())):
            result = self.tree.delete(path, -1, zxid)
            assert result[0] == ErrorCode.OK, f"ephemeral {path!r} could not be deleted: {result[0]}"
            events.extend(result[3])
        events.append(session_event(SESSION_ENDED, session_id))
        return (0, zxid, b"", tuple(events))

    # --- the whole state ----------------------------------------------------------------------

    def snapshot(self) -> SnapshotWriter:
        """The state as of this call, in slices.  At most one is open at a time; close it or exhaust it."""
        return SnapshotWriter(self.tree, list(self.sessions.values()), self.zxid, self.time_ms)

    def restore(self) -> SnapshotLoader:
        """Start to replace the state.  Until `finish` returns the old state is held beside the new."""
        return SnapshotLoader(self.acls, self._install)

    def _install(self, loaded: Loaded) -> None:
        self.tree.replace(loaded.root, loaded.node_count, loaded.ephemerals)
        self.sessions.clear()
        self.sessions.update(loaded.sessions)
        self.zxid = loaded.zxid
        self.time_ms = loaded.time_ms

    def summary(self) -> dict[str, int]:
        """Counts for status and metrics."""
        return {
            "zxid": self.zxid,
            "znodes": self.tree.node_count,
            "sessions": len(self.sessions),
            "ephemerals": sum(map(len, self.tree.ephemerals.values())),
        }

    def digest(self) -> str:
        """A SHA-256 over the whole state, in an order of its own: equal stores have equal digests.  Slow."""
        total = hashlib.sha256(repr((self.zxid, self.time_ms)).encode())
        for session_id in sorted(self.sessions):
            total.update(repr(self.sessions[session_id]).encode())
        for session_id in sorted(self.tree.ephemerals):
            total.update(repr((session_id, sorted(self.tree.ephemerals[session_id]))).encode())
        for path, node in self._walk():
            total.update(repr((path, node.data_buffer, node.stat, node.acl)).encode())
        return total.hexdigest()

    def _walk(self) -> Iterator[tuple[bytes, Znode]]:
        waiting = [(b"", self.tree.root)]
        while waiting:
            path, node = waiting.pop()
            yield path, node
            waiting.extend((path + b"/" + name, node.children[name]) for name in sorted(node.children, reverse=True))
