"""The calls of the KV service: checked, then proposed or read."""

from __future__ import annotations

from collections.abc import Mapping

from quorate.net.grpc.calls import Call
from quorate.services.etcd import checks, commands, reading_in_pieces
from quorate.services.etcd.encoding import read_two_fields
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.etcd_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from quorate.services.etcd.proposing import Proposer
from quorate.services.etcd.reading_in_pieces import RangeInPieces
from quorate.services.etcd.reads import Reads
from quorate.services.etcd.requests import UnaryHandler, decode
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Store
from quorate.services.etcd.transactions import is_read_only

_KEY_FIELD = 0x0A


class KeyCalls:
    """Handlers of unary methods: `handle(call, message)`."""

    def __init__(self, store: Store, proposer: Proposer, reads: Reads, max_txn_ops: int) -> None:
        self._store = store
        self._proposer = proposer
        self._reads = reads
        self._max_txn_ops = max_txn_ops

    def methods(self) -> Mapping[str, UnaryHandler]:
        return {
            "/etcdserverpb.KV/Range": self.range,
            "/etcdserverpb.KV/Put": self.put,
            "/etcdserverpb.KV/DeleteRange": self.delete_range,
            "/etcdserverpb.KV/Txn": self.txn,
            "/etcdserverpb.KV/Compact": self.compact,
        }

    def put(self, call: Call, message: bytes) -> None:
        plain = read_two_fields(message, 0)
        if plain is not None and plain[0]:
            # A key and a value, and nothing else: there is nothing to check.
            self._proposer.propose(commands.PUT + message, call)
            return
        request = decode(PutRequest, call, message)
        if request is not None and _passes(call, checks.check_put(request)):
            self._proposer.propose(commands.PUT + message, call)

    def delete_range(self, call: Call, message: bytes) -> None:
        request = decode(DeleteRangeRequest, call, message)
        if request is not None and _passes(call, checks.check_delete_range(request)):
            self._proposer.propose(commands.DELETE_RANGE + message, call)

    def compact(self, call: Call, message: bytes) -> None:
        if decode(CompactionRequest, call, message) is not None:
            self._proposer.propose(commands.COMPACT + message, call)

    def range(self, call: Call, message: bytes) -> None:
        size_bytes = len(message)
        if 2 < size_bytes < 130 and message[0] == _KEY_FIELD and message[1] == size_bytes - 2:
            # Nothing but a key of at most 127 bytes: the commonest read needs no decoding.
            self._reads.add(call, message[2:], self._store.get, size_bytes)
            return
        request = decode(RangeRequest, call, message)
        if request is None or not _passes(call, checks.check_range(request)):
            return
        add = self._reads.add_serializable if request.serializable else self._reads.add
        add(call, request, self._read, size_bytes)

    def _read(self, request: RangeRequest) -> Result | RangeInPieces:
        return reading_in_pieces.read(self._store, request)

    def txn(self, call: Call, message: bytes) -> None:
        request = decode(TxnRequest, call, message)
        if request is None or not _passes(call, checks.check_txn(request, self._max_txn_ops)):
            return
        if not is_read_only(request):
            self._proposer.propose(commands.TXN + message, call)
        else:
            add = self._reads.add_serializable if checks.is_serializable(request) else self._reads.add
            add(call, request, self._store.txn, len(message))


def _passes(call: Call, error: EtcdError | None) -> bool:
    if error is None:
        return True
    call.fail(*error.value)
    return False
