"""The tree of znodes, and the five ways to change or check one of them.

Shape.  Each znode has a dict of its own children, so no dict grows with the whole tree:
resizing one huge dict would stop the loop.  A znode's stat is kept as its 68 bytes on the
wire, its data as the jute buffer (length and bytes): getData is answered by joining the
two.  A mutation repacks the stat, which costs less than eleven integers per znode would
cost in memory.  Znodes are invisible to the garbage collector: they hold no cycles, and
dicts that hold only such objects are not tracked either, so a full collection does not
walk a million znodes.

Counters.  ZooKeeper keeps the count of creates under a parent, which numbers sequential
children, and shows `cversion = 2 * creates - numChildren` (creates plus deletes).  Kept
here is the shown one; the count of creates follows from it while it is below 2**31.

Every change is of one zxid, which a caller hands in, and returns a Result.  The order of
checks is that of ZooKeeper's PrepRequestProcessor, since it decides which error a client
sees.  Two records can be kept while changes go on: `undo`, for a multi that may fail, and
`overlay`, the first pre-images since a snapshot was begun.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from struct import Struct
from types import MappingProxyType
from typing import Final, TypeAlias, cast

import msgspec

from quorate.services.zookeeper.acls import OPEN_ACL, READ_ONLY_ACL
from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.paths import is_name, is_path
from quorate.services.zookeeper.protocol import STAT, EventType

EventItem: TypeAlias = tuple[int, bytes]
"""(EventType, path)."""
Result: TypeAlias = tuple[int, int, bytes, tuple[EventItem, ...]]
"""(error code, zxid, reply body as on the wire, events in the order in which ZooKeeper triggers watches).

Plain tuples of plain values: one is made for every write.
"""

Preimage: TypeAlias = tuple[bytes, bytes, bytes]
"""(data buffer, stat, acl) of a znode."""

EPHEMERAL: Final = 1
SEQUENTIAL: Final = 2

_OK: Final = int(ErrorCode.OK)
_CREATED: Final = int(EventType.CREATED)
_DELETED: Final = int(EventType.DELETED)
_DATA_CHANGED: Final = int(EventType.DATA_CHANGED)
_CHILDREN_CHANGED: Final = int(EventType.CHILDREN_CHANGED)

_INT: Final = Struct(">i")
_pack_stat: Final = STAT.pack
_unpack_stat: Final = STAT.unpack
_INT32_MOST: Final = 2**31 - 1
_EMPTY_BUFFER: Final = _INT.pack(0)
_NO_EVENTS: Final[tuple[EventItem, ...]] = ()
_KEPT_PATHS: Final = frozenset((b"/", b"/zookeeper", b"/zookeeper/quota", b"/zookeeper/config"))


class Znode(msgspec.Struct, gc=False):
    """`data_buffer + stat` is the body of a getData reply, `acl + stat` that of getACL."""

    data_buffer: bytes
    """The data as a jute buffer: 4 bytes of length (-1 for null) and the bytes."""
    stat: bytes
    """The 68 bytes of `protocol.STAT`."""
    children: dict[bytes, Znode]
    """By name; NO_CHILDREN where there are none."""
    acl: bytes
    """A jute vector of ACL, shared between znodes."""


NO_CHILDREN: Final = cast("dict[bytes, Znode]", MappingProxyType({}))
"""Shared by all leaves, and read-only: a leaf gets a dict of its own with its first child."""


def refusal(code: ErrorCode, zxid: int) -> Result:
    """The result of a command that changed nothing."""
    return (int(code), zxid, b"", _NO_EVENTS)


def next_counter(value: int) -> int:
    """A version's successor: a 32-bit integer that wraps and leaves out -1, which as an argument means any version."""
    if value == _INT32_MOST:
        return -_INT32_MOST - 1
    return 0 if value == -2 else value + 1


class Tree:
    """All znodes of a store.  The object stays the same for the store's life; `replace` changes what it holds."""

    __slots__ = ("_overlay_zxid", "_recording", "_top", "ephemerals", "node_count", "overlay", "undo")

    def __init__(self) -> None:
        quota = Znode(_EMPTY_BUFFER, _pack_stat(*[0] * 11), NO_CHILDREN, OPEN_ACL)
        config = Znode(_EMPTY_BUFFER, _pack_stat(0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0), NO_CHILDREN, READ_ONLY_ACL)
        system = Znode(
            _EMPTY_BUFFER,
            _pack_stat(0, 0, 0, 0, 0, -2, 0, 0, 0, 2, 0),
            {b"quota": quota, b"config": config},
            OPEN_ACL,
        )
        root = Znode(_EMPTY_BUFFER, _pack_stat(0, 0, 0, 0, 0, -1, 0, 0, 0, 1, 0), {b"zookeeper": system}, OPEN_ACL)
        self._top = Znode(b"", b"", {b"": root}, b"")
        """Above the root, so that b"/a".split(b"/") = [b"", b"a"] is the way from here to /a."""
        self.node_count = 4
        self.ephemerals: dict[int, set[bytes]] = {}
        """Paths by session id; no empty sets.  Whoever goes through one does so sorted."""
        self.undo: list[Callable[[], None]] | None = None
        self.overlay: dict[bytes, Preimage] | None = None
        self._overlay_zxid = b""
        self._recording = False

    @property
    def root(self) -> Znode:
        return self._top.children[b""]

    def get(self, path: bytes) -> Znode | None:
        """The znode at `path`.  The empty path means the root, as in ZooKeeper."""
        node = self._top
        try:
            for name in path.split(b"/"):
                node = node.children[name]
        except KeyError:
            return self.root if path == b"/" else None
        return node

    def replace(self, root: Znode, node_count: int, ephemerals: dict[int, set[bytes]]) -> None:
        """Hold another tree instead."""
        assert not self._recording
        self._top.children[b""] = root
        self.node_count = node_count
        self.ephemerals = ephemerals

    # --- records of what was ------------------------------------------------------------------

    def start_undo(self) -> None:
        self.undo = []
        self._recording = True

    def stop_undo(self, *, take_back: bool) -> None:
        """Forget the record, or use it: the tree is then as it was at start_undo."""
        assert self.undo is not None
        undo, self.undo = self.undo, None
        self._recording = self.overlay is not None
        if take_back:
            for step in reversed(undo):
                step()

    def start_overlay(self, zxid: int) -> None:
        """From now on keep the first pre-image of every znode that is there now (so with a czxid up to `zxid`)."""
        assert self.overlay is None and self.undo is None
        self.overlay = {}
        self._overlay_zxid = zxid.to_bytes(8, "big")
        self._recording = True

    def stop_overlay(self) -> dict[bytes, Preimage]:
        """Stop keeping them; what was kept, by path."""
        assert self.overlay is not None and self.undo is None
        overlay, self.overlay = self.overlay, None
        self._recording = False
        return overlay

    def keep_root(self) -> None:
        """Put the root's pre-image into the overlay now."""
        self._record(b"/", self.root)

    def _record(self, path: bytes, node: Znode) -> None:
        """Called before a znode's fields change or it is deleted, while `_recording`."""
        image = (node.data_buffer, node.stat, node.acl)
        if self.undo is not None:
            self.undo.append(partial(_put_back, node, image))
        overlay = self.overlay
        # A path in the overlay may since have been deleted and created again: its czxid tells.
        if overlay is not None and path not in overlay and node.stat[:8] <= self._overlay_zxid:
            overlay[path] = image

    # --- the changes --------------------------------------------------------------------------

    def create(
        self,
        path: bytes,
        data_buffer: bytes,
        acl: bytes | None,
        flags: int,
        session_id: int,
        zxid: int,
        time_ms: int,
        with_stat: bool,
    ) -> Result:
        """`acl` is None where it was invalid.  The body is the path made, for create2 (`with_stat`) then its stat."""
        slash = path.rfind(b"/")
        if flags & ~3 or slash < 0 or acl is None:
            return _refuse_create(path, flags, acl, zxid)
        parent_path = path[:slash]
        parent = self._top
        try:
            for part in parent_path.split(b"/"):
                parent = parent.children[part]
        except KeyError:
            # `//x`: to ZooKeeper the parent is the root, and then the path is found to be wrong.
            wrong = b"\0" in path or parent_path == b"/"
            return refusal(ErrorCode.BAD_ARGUMENTS if wrong else ErrorCode.NO_NODE, zxid)
        czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, size, count, _ = _unpack_stat(parent.stat)
        creates = ((cversion + count) & 0xFFFFFFFF) >> 1
        if flags & SEQUENTIAL:
            path += b"%010d" % creates
        name = path[slash + 1 :]
        if not (name.isalnum() or is_name(name)):
            return refusal(ErrorCode.NODE_EXISTS if path == b"/" else ErrorCode.BAD_ARGUMENTS, zxid)
        siblings = parent.children
        if name in siblings:
            return refusal(ErrorCode.NODE_EXISTS, zxid)
        if owner:
            return refusal(ErrorCode.NO_CHILDREN_FOR_EPHEMERALS, zxid)
        # At the end of its range the count of creates stays, as in ZooKeeper: numbers never start again.
        cversion += 1 if creates < _INT32_MOST else -1
        if cversion > _INT32_MOST:
            cversion -= 2**32
        parent_stat = _pack_stat(czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, size, count + 1, zxid)
        new_owner = session_id if flags & EPHEMERAL else 0
        stat = _pack_stat(zxid, zxid, time_ms, time_ms, 0, 0, 0, new_owner, len(data_buffer) - 4, 0, zxid)
        parent_path = parent_path or b"/"
        if self._recording:
            self._record(parent_path, parent)
            if self.undo is not None:
                self.undo.append(partial(self._detach, parent, name, path, new_owner))
        self._attach(parent, name, Znode(data_buffer, stat, NO_CHILDREN, acl), path, new_owner)
        parent.stat = parent_stat
        body = _INT.pack(len(path)) + path
        events = ((_CREATED, path), (_CHILDREN_CHANGED, parent_path))
        return (_OK, zxid, body + stat if with_stat else body, events)

    def delete(self, path: bytes, expected_version: int, zxid: int) -> Result:
        """The body is empty."""
        slash = path.rfind(b"/")
        if slash < 0 or path in _KEPT_PATHS:
            return refusal(ErrorCode.BAD_ARGUMENTS, zxid)
        parent_path = path[:slash]
        name = path[slash + 1 :]
        parent = self._top
        try:
            for part in parent_path.split(b"/"):
                parent = parent.children[part]
            node = parent.children[name]
        except KeyError:
            return refusal(ErrorCode.BAD_ARGUMENTS if b"\0" in path else ErrorCode.NO_NODE, zxid)
        _, _, _, _, version, _, _, owner, _, count, _ = _unpack_stat(node.stat)
        if expected_version not in (-1, version):
            return refusal(ErrorCode.BAD_VERSION, zxid)
        if count:
            return refusal(ErrorCode.NOT_EMPTY, zxid)
        parent_path = parent_path or b"/"
        if self._recording:
            self._record(path, node)
            self._record(parent_path, parent)
            if self.undo is not None:
                self.undo.append(partial(self._attach, parent, name, node, path, owner))
        self._detach(parent, name, path, owner)
        czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, size, count, _ = _unpack_stat(parent.stat)
        cversion = cversion + 1 if cversion < _INT32_MOST else -_INT32_MOST - 1
        parent.stat = _pack_stat(czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, size, count - 1, zxid)
        return (_OK, zxid, b"", ((_DELETED, path), (_CHILDREN_CHANGED, parent_path)))

    def set_data(self, path: bytes, data_buffer: bytes, expected_version: int, zxid: int, time_ms: int) -> Result:
        """The body is the new stat."""
        node = self.get(path)
        if node is None or not path:
            return refusal(_not_found(path), zxid)
        czxid, _, ctime, _, version, cversion, aversion, owner, _, count, pzxid = _unpack_stat(node.stat)
        if expected_version != version and expected_version != -1:
            return refusal(ErrorCode.BAD_VERSION, zxid)
        version = version + 1 if 0 <= version < _INT32_MOST else next_counter(version)
        size = len(data_buffer) - 4
        stat = _pack_stat(czxid, zxid, ctime, time_ms, version, cversion, aversion, owner, size, count, pzxid)
        if self._recording:
            self._record(path, node)
        node.data_buffer = data_buffer
        node.stat = stat
        return (_OK, zxid, stat, ((_DATA_CHANGED, path),))

    def set_acl(self, path: bytes, acl: bytes | None, expected_version: int, zxid: int) -> Result:
        """`acl` is None where it was invalid.  The body is the new stat."""
        node = self.get(path)
        if node is None or not path:
            code = _not_found(path)
            return refusal(ErrorCode.INVALID_ACL if acl is None and code is ErrorCode.NO_NODE else code, zxid)
        if acl is None:
            return refusal(ErrorCode.INVALID_ACL, zxid)
        fields = list(_unpack_stat(node.stat))
        aversion = fields[6]
        if expected_version not in (-1, aversion):
            return refusal(ErrorCode.BAD_VERSION, zxid)
        fields[6] = next_counter(aversion)
        if self._recording:
            self._record(path, node)
        node.acl = acl
        node.stat = _pack_stat(*fields)
        return (_OK, zxid, node.stat, _NO_EVENTS)

    def check(self, path: bytes, expected_version: int, zxid: int) -> Result:
        """Changes nothing; the body is empty."""
        node = self.get(path)
        if node is None or not path:
            return refusal(_not_found(path), zxid)
        if expected_version not in (-1, _unpack_stat(node.stat)[4]):
            return refusal(ErrorCode.BAD_VERSION, zxid)
        return (_OK, zxid, b"", _NO_EVENTS)

    # --- one edge of the tree: used forwards by the changes, backwards by undo ----------------

    def _attach(self, parent: Znode, name: bytes, node: Znode, path: bytes, owner: int) -> None:
        if parent.children is NO_CHILDREN:
            parent.children = {name: node}
        else:
            parent.children[name] = node
        self.node_count += 1
        if owner:
            self.ephemerals.setdefault(owner, set()).add(path)

    def _detach(self, parent: Znode, name: bytes, path: bytes, owner: int) -> None:
        children = parent.children
        del children[name]
        if not children:
            # Gives the memory of a dict that was large back, too.
            parent.children = NO_CHILDREN
        self.node_count -= 1
        if owner:
            owned = self.ephemerals[owner]
            owned.remove(path)
            if not owned:
                del self.ephemerals[owner]


def _put_back(node: Znode, image: Preimage) -> None:
    node.data_buffer, node.stat, node.acl = image


def _not_found(path: bytes) -> ErrorCode:
    return ErrorCode.NO_NODE if is_path(path) else ErrorCode.BAD_ARGUMENTS


def _refuse_create(path: bytes, flags: int, acl: bytes | None, zxid: int) -> Result:
    if flags & ~3:
        # 4 is a container, 5 and 6 have a time to live.
        return refusal(ErrorCode.UNIMPLEMENTED if flags in (4, 5, 6) else ErrorCode.BAD_ARGUMENTS, zxid)
    if b"/" not in path or b"\0" in path:
        return refusal(ErrorCode.BAD_ARGUMENTS, zxid)
    assert acl is None
    return refusal(ErrorCode.INVALID_ACL, zxid)
