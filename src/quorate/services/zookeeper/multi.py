"""multi: several operations under one zxid, all or none.

Source: MultiOperationRecord and MultiResponse of ZooKeeper 3.8.  A multi that fails is
answered without an error in the header; its body has an error for each operation: 0 for
those before the one that failed, RUNTIME_INCONSISTENCY for those after it.
"""

from __future__ import annotations

from typing import TypeAlias

from quorate.services.zookeeper.acls import AclCache
from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.jute import JuteError, Reader, pack_buffer
from quorate.services.zookeeper.protocol import MULTI_END, MULTI_HEADER, Op
from quorate.services.zookeeper.tree import EventItem, Result, Tree, refusal

Item: TypeAlias = tuple[int, bytes, bytes, bytes | None, int]
"""(operation, path, data buffer, acl, flags or version); what an operation has not is empty."""


def read_multi(reader: Reader, acls: AclCache) -> list[Item]:
    """The operations of a multi request.  Raises JuteError."""
    items: list[Item] = []
    while True:
        op = reader.int32("type")
        done = reader.boolean("done")
        reader.int32("err")
        if done:
            return items
        items.append(_read_item(op, reader, acls))


def _read_item(op: int, reader: Reader, acls: AclCache) -> Item:
    if op in (Op.CREATE, Op.CREATE2, Op.CREATE_CONTAINER, Op.CREATE_TTL):
        path = reader.string("path")
        data_buffer = pack_buffer(reader.buffer("data"))
        acl = acls.read(reader)
        flags = reader.int32("flags")
        if op == Op.CREATE_TTL:
            reader.int64("ttl")
        return (op, path, data_buffer, acl, flags)
    if op == Op.DELETE or op == Op.CHECK:
        path = reader.string("path")
        return (op, path, b"", None, reader.int32("version"))
    if op == Op.SET_DATA:
        path = reader.string("path")
        data_buffer = pack_buffer(reader.buffer("data"))
        return (op, path, data_buffer, None, reader.int32("version"))
    raise JuteError(f"operation in a multi: expected create, create2, delete, setData or check, found {op}")


def apply_multi(tree: Tree, items: list[Item], session_id: int, zxid: int, time_ms: int) -> Result:
    """Do all, or none and say which failed."""
    results: list[Result] = []
    tree.start_undo()
    for item in items:
        results.append(_apply_item(tree, item, session_id, zxid, time_ms))
        if results[-1][0]:
            break
    failed = bool(results) and results[-1][0] != ErrorCode.OK
    tree.stop_undo(take_back=failed)
    if failed:
        codes = [0] * (len(results) - 1) + [results[-1][0]]
        codes += [int(ErrorCode.RUNTIME_INCONSISTENCY)] * (len(items) - len(codes))
        body = b"".join(
            [MULTI_HEADER.pack(Op.ERROR, False, code) + code.to_bytes(4, "big", signed=True) for code in codes]
        )
        return (0, zxid, body + MULTI_END, ())
    parts: list[bytes] = []
    events: list[EventItem] = []
    for item, result in zip(items, results, strict=True):
        parts.append(MULTI_HEADER.pack(item[0], False, 0))
        parts.append(result[2])
        events.extend(result[3])
    parts.append(MULTI_END)
    return (0, zxid, b"".join(parts), tuple(events))


def _apply_item(tree: Tree, item: Item, session_id: int, zxid: int, time_ms: int) -> Result:
    op, path, data_buffer, acl, number = item
    if op == Op.CREATE or op == Op.CREATE2:
        return tree.create(path, data_buffer, acl, number, session_id, zxid, time_ms, op == Op.CREATE2)
    if op == Op.DELETE:
        return tree.delete(path, number, zxid)
    if op == Op.SET_DATA:
        return tree.set_data(path, data_buffer, number, zxid, time_ms)
    if op == Op.CHECK:
        return tree.check(path, number, zxid)
    return refusal(ErrorCode.UNIMPLEMENTED, zxid)
