"""Drives a store by messages, as a door does."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import Message

from quorate.services.etcd import commands
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Store

KINDS: Final[dict[type[Message], tuple[bytes, type[Message]]]] = {
    pb.PutRequest: (commands.PUT, pb.PutResponse),
    pb.DeleteRangeRequest: (commands.DELETE_RANGE, pb.DeleteRangeResponse),
    pb.TxnRequest: (commands.TXN, pb.TxnResponse),
    pb.CompactionRequest: (commands.COMPACT, pb.CompactionResponse),
}
RESPONSES: Final[dict[bytes, type[Message]]] = {
    **dict(KINDS.values()),
    commands.GRANT: pb.LeaseGrantResponse,
    commands.REVOKE: pb.LeaseRevokeResponse,
    commands.EXPIRE: pb.LeaseRevokeResponse,
}


def command_of(request: Message | bytes) -> bytes:
    if isinstance(request, bytes):
        return request
    return KINDS[type(request)][0] + request.SerializeToString()


def response_of(result: Result, kind: type[Message]) -> Any:
    """The whole response, or the error."""
    if result.error is not None:
        assert result.body == b""
        return result.error
    response: Any = kind.FromString(result.body)
    response.header.revision = result.revision
    return response


def apply(store: Store, request: Message | bytes, time_ms: int = 1) -> Any:
    (result,) = store.apply([command_of(request)], time_ms)
    return response_of(result, RESPONSES[command_of(request)[:1]])


def put(store: Store, key: bytes, value: bytes = b"", **options: Any) -> int:
    """The revision of the put."""
    response = apply(store, pb.PutRequest(key=key, value=value, **options))
    assert not isinstance(response, EtcdError), response
    revision: int = response.header.revision
    return revision


def read(store: Store, key: bytes, range_end: bytes = b"", **options: Any) -> Any:
    return response_of(store.range(pb.RangeRequest(key=key, range_end=range_end, **options)), pb.RangeResponse)


def keys_and_values(store: Store, key: bytes, range_end: bytes = b"", **options: Any) -> list[tuple[bytes, bytes]]:
    return [(kv.key, kv.value) for kv in read(store, key, range_end, **options).kvs]


def sweep(store: Store) -> None:
    while store.sweep(1000):
        pass
