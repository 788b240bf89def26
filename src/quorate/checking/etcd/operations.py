"""The calls that are linearizable, as operations of a key-value store (`quorate.checking.models.KV`).

A witness that does not rest on what servers say of revisions.
"""

from __future__ import annotations

from collections.abc import Iterator

from quorate.checking.etcd.records import Call, History
from quorate.checking.history import JsonValue, Operation
from quorate.services.etcd.etcd_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)


def operations(history: History) -> list[Operation]:
    """Of the calls that belong to a process: writes of one key, and linearizable reads of one as it is now.

    A transaction is an operation on each key that it puts or deletes on success, each as a process of its own: one key
    at a time is looked at.  On a key that it compares (its value; or that it is not there), it is a compare-and-set
    from that; on others it is a write, or nothing where it failed.  A read without an answer says nothing.
    """
    found: list[Operation] = []
    for line, call in enumerate(history.calls, 1):
        if call.process and call.error is None:
            found.extend(_operations(call, line))
    return found


def _operations(call: Call, line: int) -> Iterator[Operation]:
    request, response = call.request, call.response
    if isinstance(request, RangeRequest):
        if isinstance(response, RangeResponse):
            value = response.kvs[0].value.decode() if response.kvs else None
            yield _operation(call, line, "get", request.key, None, value)
    elif isinstance(request, PutRequest):
        yield _operation(call, line, "put", request.key, request.value.decode(), None)
    elif isinstance(request, DeleteRangeRequest):
        deleted = isinstance(response, DeleteRangeResponse) and response.deleted > 0
        yield _operation(call, line, "delete", request.key, None, deleted)
    elif isinstance(request, TxnRequest):
        succeeded = response.succeeded if isinstance(response, TxnResponse) else None
        compared = {compare.key: compare for compare in request.compare}
        for number, op in enumerate(request.success):
            yield from _part(call, op, compared, succeeded, (line, number))


def _part(
    call: Call, op: RequestOp, compared: dict[bytes, Compare], succeeded: bool | None, place: tuple[int, int]
) -> Iterator[Operation]:
    """`succeeded` is None where that is unknown."""
    line, number = place
    if not op.HasField("request_put"):
        return
    key, value = op.request_put.key, op.request_put.value.decode()
    compare = compared.get(key)
    if compare is not None:
        old = compare.value.decode() if compare.target == Compare.VALUE else None
        yield _operation(call, line, "cas", key, [old, value], bool(succeeded), number)
    elif succeeded is not False:
        yield _operation(call, line, "put", key, value, None, number)


def _operation(
    call: Call, line: int, f: str, key: bytes, argument: JsonValue, result: JsonValue, number: int | None = None
) -> Operation:
    process = call.process if number is None else f"{call.process}/{number}"
    return Operation(process, f, key.decode(), argument, result, call.invoked_at, call.returned_at, line)
