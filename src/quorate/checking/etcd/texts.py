"""Calls and events in a few words, and what can be told of a call by its answer alone."""

from __future__ import annotations

from collections.abc import Iterable

from quorate.checking.etcd.records import Call, Finding, Request
from quorate.services.etcd.etcd_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    TxnRequest,
    TxnResponse,
)


def is_write(request: Request) -> bool:
    """Whether it may change the keyspace by itself, other than by the end of a lease."""
    return isinstance(request, PutRequest | DeleteRangeRequest | TxnRequest)


def is_change(call: Call) -> bool:
    """It was answered, and the answer says that it changed the keyspace: its revision is its own."""
    response = call.response
    if isinstance(response, TxnResponse):
        return _has_changed(response)
    if isinstance(response, DeleteRangeResponse):
        return response.deleted > 0
    return isinstance(response, PutResponse)


def _has_changed(response: TxnResponse) -> bool:
    return any(
        op.HasField("response_put")
        or (op.HasField("response_delete_range") and op.response_delete_range.deleted > 0)
        or (op.HasField("response_txn") and _has_changed(op.response_txn))
        for op in response.responses
    )


def puts_of(request: Request) -> list[PutRequest]:
    """All that it may put, in both branches of transactions."""
    if isinstance(request, PutRequest):
        return [request]
    if not isinstance(request, TxnRequest):
        return []
    found: list[PutRequest] = []
    for op in [*request.success, *request.failure]:
        if op.HasField("request_put"):
            found.append(op.request_put)
        elif op.HasField("request_txn"):
            found += puts_of(op.request_txn)
    return found


def name_of(key: bytes, range_end: bytes = b"") -> str:
    name = key.decode(errors="backslashreplace")
    return f"{name!r}" if not range_end else f"{name!r}..{range_end.decode(errors='backslashreplace')!r}"


def request_text(request: Request) -> str:
    """What is asked for."""
    match request:
        case RangeRequest():
            how = "serializable " if request.serializable else ""
            at = f" at {request.revision}" if request.revision else ""
            return f"{how}range {name_of(request.key, request.range_end)}{at}"
        case PutRequest():
            lease = f" under lease {request.lease:x}" if request.lease else ""
            return f"put {name_of(request.key)} {request.value.decode(errors='backslashreplace')}{lease}"
        case DeleteRangeRequest():
            return f"delete {name_of(request.key, request.range_end)}"
        case TxnRequest():
            if_, then, else_ = len(request.compare), len(request.success), len(request.failure)
            keys = ", ".join(dict.fromkeys(name_of(put.key) for put in puts_of(request)))
            return f"txn if {if_} then {then} else {else_}" + (f" on {keys}" if keys else "")
        case CompactionRequest():
            return f"compact {request.revision}"
        case LeaseGrantRequest():
            return f"grant {request.ID:x} for {request.TTL} s"
        case LeaseRevokeRequest():
            return f"revoke {request.ID:x}"
        case LeaseLeasesRequest():
            return "leases"
        case _:
            return f"time to live {request.ID:x}"


def call_text(call: Call) -> str:
    return f"{request_text(call.request)} of {call.client}, sent at {call.invoked_at:.6f} s,"


def events_text(events: Iterable[Event]) -> str:
    """Of what happened, what tells one thing from another."""
    words = [
        f"delete {name_of(event.kv.key)}"
        if event.type == Event.DELETE
        else f"put {name_of(event.kv.key)} {event.kv.value.decode(errors='backslashreplace')} "
        f"({event.kv.create_revision}, {event.kv.mod_revision}, {event.kv.version})"
        for event in events
    ]
    return "; ".join(words) or "nothing"


def finding(check: str, call: Call, text: str) -> Finding:
    at = call.invoked_at if call.returned_at is None else call.returned_at
    return Finding(check, f"{call_text(call)} {text}", at, call.client)
