"""Snapshots of the store: exact, and written in slices while changes go on.

A snapshot is of the moment at which it was begun.  From then on the tree keeps the first
pre-image of every znode that is changed or deleted, in an overlay by path.  The walk goes
through the live tree and writes what it finds, except

- znodes created since: their czxid is above the snapshot's;
- znodes whose path is in the overlay: they may have changed.

After the walk the overlay is written.  So every znode of that moment is written: one that
the walk did not reach was deleted, and hence is in the overlay; one that it found
untouched is as it was.  One changed after the walk had passed is written twice, equal both
times.

A slice is one msgpack array.  Families name their parent by path, and may come before it
(a parent in the overlay comes last), so the loader makes empty placeholders and demands
at the end that all are filled and that the count of znodes is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Annotated, Final, TypeAlias

import msgspec

from quorate.services.zookeeper.acls import AclCache
from quorate.services.zookeeper.protocol import STAT
from quorate.services.zookeeper.session import Session
from quorate.services.zookeeper.tree import NO_CHILDREN, Preimage, Tree, Znode

FORMAT_VERSION: Final = 1

_NODES_PER_SLICE: Final = 2000
"""Visited in one step; about two milliseconds."""
_DATA_BYTES_PER_SLICE: Final = 128 << 10
"""A slice ends with the znode that passes this, so one with more data is a slice of its own."""
_SESSIONS_PER_SLICE: Final = 1000

_OWNER: Final = slice(44, 52)
_NO_OWNER: Final = bytes(8)

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Head(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first slice."""

    format_version: int
    zxid: int
    time_ms: int
    node_count: int
    session_count: int


class Sessions(msgspec.Struct, frozen=True, array_like=True, tag=2):
    sessions: list[Session]


class Nodes(msgspec.Struct, frozen=True, array_like=True):
    """Some znodes, column by column; what `names` are relative to is said by whoever holds this."""

    names: list[bytes]
    data_buffers: list[bytes]
    stats: list[bytes]
    acls: list[_Count]
    """Indexes into the slice's table."""


class Families(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Children of some parents.  A parent may come again with more children."""

    acl_table: list[bytes]
    families: list[tuple[bytes, Nodes]]
    """(path of the parent, children); the root's path is empty here."""


class Preimages(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Znodes out of the overlay, named by whole paths."""

    acl_table: list[bytes]
    nodes: Nodes


_Slice: TypeAlias = Head | Sessions | Families | Preimages


class _SliceBuilder:
    """Gathers znodes until a slice is full."""

    __slots__ = ("_acl_indexes", "_encode", "_families", "_nodes_per_slice", "data_bytes", "visited")

    def __init__(self, nodes_per_slice: int) -> None:
        self._nodes_per_slice = nodes_per_slice
        self._encode = msgspec.msgpack.Encoder().encode
        self._clear()

    def _clear(self) -> None:
        self._families: list[tuple[bytes, Nodes]] = []
        self._acl_indexes: dict[bytes, int] = {}
        self.visited = 0
        self.data_bytes = 0

    def family(self, parent_path: bytes) -> Nodes:
        nodes = Nodes([], [], [], [])
        self._families.append((parent_path, nodes))
        return nodes

    def add(self, nodes: Nodes, name: bytes, image: Preimage) -> None:
        data_buffer, stat, acl = image
        nodes.names.append(name)
        nodes.data_buffers.append(data_buffer)
        nodes.stats.append(stat)
        nodes.acls.append(self._acl_indexes.setdefault(acl, len(self._acl_indexes)))
        self.data_bytes += len(data_buffer)

    def full(self) -> bool:
        return self.visited >= self._nodes_per_slice or self.data_bytes >= _DATA_BYTES_PER_SLICE

    def take(self) -> bytes:
        slice_ = self._encode(Families(list(self._acl_indexes), self._families))
        self._clear()
        return slice_

    def take_preimages(self, nodes: Nodes) -> bytes:
        slice_ = self._encode(Preimages(list(self._acl_indexes), nodes))
        self._clear()
        return slice_


class SnapshotWriter:
    """The slices of a snapshot of the moment at which this was made.  `close` it unless it is exhausted."""

    def __init__(self, tree: Tree, sessions: list[Session], zxid: int, time_ms: int) -> None:
        self.nodes_per_slice = _NODES_PER_SLICE
        """Where the tree is small, fewer make a snapshot of many slices; set it before the first is taken."""
        self._tree = tree
        self._sessions = sessions
        self._zxid_bytes = zxid.to_bytes(8, "big")
        tree.start_overlay(zxid)
        # Nobody's child, so the walk would not write it.
        tree.keep_root()
        head = Head(FORMAT_VERSION, zxid, time_ms, tree.node_count, len(sessions))
        self._slices = self._write(head)
        self._walking = True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._slices)

    def close(self) -> None:
        """Abandon the snapshot."""
        self._slices = iter(())
        self._end_walk()

    def _end_walk(self) -> dict[bytes, Preimage]:
        if not self._walking:
            return {}
        self._walking = False
        return self._tree.stop_overlay()

    def _write(self, head: Head) -> Iterator[bytes]:
        encode = msgspec.msgpack.Encoder().encode
        yield encode(head)
        for start in range(0, len(self._sessions), _SESSIONS_PER_SLICE):
            yield encode(Sessions(self._sessions[start : start + _SESSIONS_PER_SLICE]))
        yield from self._write_tree()
        yield from _write_preimages(self._end_walk(), self.nodes_per_slice)

    def _write_tree(self) -> Iterator[bytes]:
        overlay = self._tree.overlay
        assert overlay is not None
        builder = _SliceBuilder(self.nodes_per_slice)
        parents = [(b"", self._tree.root)]
        while parents:
            path, parent = parents.pop()
            prefix = path + b"/"
            nodes = builder.family(path)
            # Only the names: between slices children come and go, and what a name stands for is looked up when
            # its turn comes.  Names that are missed here are of newer znodes.
            for name in list(parent.children):
                builder.visited += 1
                child = parent.children.get(name)
                if child is not None and child.stat[:8] <= self._zxid_bytes:
                    child_path = prefix + name
                    if child.children:
                        parents.append((child_path, child))
                    if child_path not in overlay:
                        builder.add(nodes, name, (child.data_buffer, child.stat, child.acl))
                if builder.full():
                    yield builder.take()
                    nodes = builder.family(path)
        yield builder.take()


def _write_preimages(overlay: dict[bytes, Preimage], nodes_per_slice: int) -> Iterator[bytes]:
    builder = _SliceBuilder(nodes_per_slice)
    nodes = Nodes([], [], [], [])
    for path, image in overlay.items():
        builder.visited += 1
        builder.add(nodes, path, image)
        if builder.full():
            yield builder.take_preimages(nodes)
            nodes = Nodes([], [], [], [])
    yield builder.take_preimages(nodes)


class Loaded(msgspec.Struct, frozen=True):
    """The state that a snapshot held."""

    root: Znode
    node_count: int
    ephemerals: dict[int, set[bytes]]
    sessions: dict[int, Session]
    zxid: int
    time_ms: int


class SnapshotLoader:
    """Builds the state from slices; `install` gets it at the end."""

    def __init__(self, acls: AclCache, install: Callable[[Loaded], None]) -> None:
        self._acls = acls
        self._install = install
        self._decode = msgspec.msgpack.Decoder(_Slice).decode
        self._head: Head | None = None
        self._top = _placeholder()
        self._filled_count = 0
        self._placeholder_count = 0
        self._ephemerals: dict[int, set[bytes]] = {}
        self._sessions: dict[int, Session] = {}

    def feed(self, slice_: bytes) -> None:
        """Raises ValueError where the bytes are not a slice of such a snapshot."""
        try:
            part = self._decode(slice_)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a slice of a ZooKeeper snapshot: {error}") from error
        if isinstance(part, Head):
            if part.format_version != FORMAT_VERSION or self._head is not None:
                raise ValueError(f"snapshot: expected one head of format {FORMAT_VERSION}, found {part}")
            self._head = part
        elif self._head is None:
            raise ValueError(f"snapshot: expected the head first, found {type(part).__name__}")
        elif isinstance(part, Sessions):
            self._sessions.update((session.session_id, session) for session in part.sessions)
        elif isinstance(part, Families):
            for parent_path, nodes in part.families:
                # A slice may end between a parent and its first child that is written.
                if nodes.names:
                    self._add_family(self._find(parent_path), parent_path + b"/", nodes, part.acl_table)
        else:
            self._add_preimages(part)

    def finish(self) -> None:
        """Raises ValueError where slices are missing."""
        head = self._head
        if head is None:
            raise ValueError("snapshot: its head is missing")
        if self._filled_count != head.node_count or self._placeholder_count:
            found = f"{self._filled_count} and {self._placeholder_count} known only by their children"
            raise ValueError(f"snapshot: expected {head.node_count} znodes, found {found}")
        if len(self._sessions) != head.session_count:
            raise ValueError(f"snapshot: expected {head.session_count} sessions, found {len(self._sessions)}")
        root = self._top.children[b""]
        self._install(Loaded(root, head.node_count, self._ephemerals, self._sessions, head.zxid, head.time_ms))

    def _find(self, path: bytes) -> Znode:
        """The znode at a path (the root's is empty), made with its parents as placeholders where it is not there."""
        node = self._top
        for name in path.split(b"/"):
            child = node.children.get(name)
            if child is None:
                child = _placeholder()
                _adopt(node, name, child)
                self._placeholder_count += 1
            node = child
        return node

    def _add_family(self, parent: Znode, prefix: bytes, nodes: Nodes, acl_table: list[bytes]) -> None:
        names = nodes.names
        made = self._make(nodes, acl_table)
        if parent.children.keys().isdisjoint(names):
            if parent.children is NO_CHILDREN:
                parent.children = {}
            before = len(parent.children)
            parent.children.update(zip(names, made, strict=True))
            self._filled_count += len(names)
            if len(parent.children) - before != len(names):
                raise ValueError(f"snapshot: {prefix!r} has two children of one name")
        else:
            for name, node in zip(names, made, strict=True):
                self._fill(parent, name, node)
        for name, stat in zip(names, nodes.stats, strict=True):
            if stat[_OWNER] != _NO_OWNER:
                self._note_ephemeral(prefix + name, stat)

    def _add_preimages(self, part: Preimages) -> None:
        made = self._make(part.nodes, part.acl_table)
        for path, node in zip(part.nodes.names, made, strict=True):
            if path == b"/":
                self._fill(self._top, b"", node)
                continue
            parent_path, _, name = path.rpartition(b"/")
            self._fill(self._find(parent_path), name, node)
            if node.stat[_OWNER] != _NO_OWNER:
                self._note_ephemeral(path, node.stat)

    def _make(self, nodes: Nodes, acl_table: list[bytes]) -> list[Znode]:
        if set(map(len, nodes.stats)) - {STAT.size}:
            raise ValueError(f"snapshot: a stat is not {STAT.size} bytes long")
        acls = list(map(self._acls.share, acl_table))
        if nodes.acls and max(nodes.acls) >= len(acls):
            raise ValueError("snapshot: an ACL is not in its slice's table")
        if not len(nodes.names) == len(nodes.data_buffers) == len(nodes.stats) == len(nodes.acls):
            raise ValueError("snapshot: columns of a slice differ in length")
        return list(map(Znode, nodes.data_buffers, nodes.stats, repeat(NO_CHILDREN), map(acls.__getitem__, nodes.acls)))

    def _fill(self, parent: Znode, name: bytes, node: Znode) -> None:
        """Put a znode where there is none, a placeholder, or the same znode from before."""
        present = parent.children.get(name)
        if present is None:
            _adopt(parent, name, node)
            self._filled_count += 1
            return
        if present.stat:
            if (present.data_buffer, present.stat, present.acl) != (node.data_buffer, node.stat, node.acl):
                raise ValueError(f"snapshot: a znode named {name!r} comes twice, with differences")
            return
        self._placeholder_count -= 1
        self._filled_count += 1
        present.data_buffer, present.stat, present.acl = node.data_buffer, node.stat, node.acl

    def _note_ephemeral(self, path: bytes, stat: bytes) -> None:
        owner = int.from_bytes(stat[_OWNER], "big", signed=True)
        self._ephemerals.setdefault(owner, set()).add(path)


def _placeholder() -> Znode:
    return Znode(b"", b"", NO_CHILDREN, b"")


def _adopt(parent: Znode, name: bytes, child: Znode) -> None:
    if parent.children is NO_CHILDREN:
        parent.children = {}
    parent.children[name] = child
