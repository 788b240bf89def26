"""A large range of the present, read a piece at a time, so that heartbeats and writes come between.

It is exact at one revision: which keys there are is noted when it begins, and versions, which never change, are looked
up at that revision.  A compaction that goes past it makes the range begin anew, once; the next one ends it, COMPACTED.
"""

from __future__ import annotations

from typing import Final

from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.encoding import bytes_field, integer_field
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Compacted, Store
from quorate.services.etcd.versions import encode_key_value, encode_without_value

AT_ONCE_KEYS: Final = 128
"""A range of no more is read at once: some 0.3 ms, unless values are large."""
PIECE_KEYS: Final = 800
"""About 2 ms; noting which keys there are takes 1 ms for 100,000."""
PIECE_BYTES: Final = 1 << 20


class RangeInPieces:
    """A range under way.  What it costs before its first step is its request."""

    def __init__(self, store: Store, request: pb.RangeRequest) -> None:
        self.result: Result | None = None
        """Once all is read."""
        self._store = store
        self._request = request
        self._encode = encode_without_value if request.keys_only else encode_key_value
        self._keys: list[bytes] | None = None
        """All that are in the answer; None where nothing was read yet."""
        self._count = 0
        """Of the whole range, whatever the limit."""
        self._revision = 0
        self._next = 0
        """The first of `_keys` that is still to be read."""
        self._pieces: list[bytes] = []
        self._overtaken = False

    def step(self, max_keys: int) -> int:
        """Read a piece; how many keys it took, at least 1."""
        if self._keys is None:
            self._keys = self._begin()
        keys = self._keys[self._next : self._next + max_keys]
        try:
            taken = self._read(keys)
        except Compacted:
            return self._start_again()
        self._next += taken
        if self._next == len(self._keys):
            fields = (integer_field(3, self._count > len(self._keys)), integer_field(4, self._count))
            self.result = Result(self._revision, b"".join((*self._pieces, *fields)))
        return max(taken, 1)

    def _begin(self) -> list[bytes]:
        store, request = self._store, self._request
        keys = store.keys(request.key, request.range_end)
        self._revision = store.revision
        self._count = len(keys)
        if request.sort_order == pb.RangeRequest.DESCEND:
            keys.reverse()
        if request.limit > 0:
            del keys[request.limit :]
        return keys

    def _read(self, keys: list[bytes]) -> int:
        """Raises Compacted."""
        at, encode, revision = self._store.at, self._encode, self._revision
        fields: list[bytes] = []
        room_bytes = PIECE_BYTES
        for key in keys:
            version = at(key, revision)
            assert version is not None, "it was there at this revision, which is not compacted"
            field = bytes_field(2, encode(version))
            fields.append(field)
            room_bytes -= len(field)
            if room_bytes <= 0:
                break
        self._pieces.append(b"".join(fields))
        return len(fields)

    def _start_again(self) -> int:
        if self._overtaken:
            self.result = Result(self._store.revision, b"", EtcdError.COMPACTED)
        self._overtaken = True
        self._keys = None
        self._next = 0
        self._pieces.clear()
        return 1


def read(store: Store, request: pb.RangeRequest) -> Result | RangeInPieces:
    """As `Store.range`, for a range that may be too large to be read at once."""
    if _can_be_cut(request) and len(store.keys(request.key, request.range_end, AT_ONCE_KEYS + 1)) > AT_ONCE_KEYS:
        return RangeInPieces(store, request)
    return store.range(request)


def _can_be_cut(request: pb.RangeRequest) -> bool:
    """It is of the present, sorted by key if at all, without filters, and may be of many keys."""
    return bool(
        request.range_end
        and request.revision <= 0
        and not 0 < request.limit <= AT_ONCE_KEYS
        and not request.count_only
        and request.sort_target == pb.RangeRequest.KEY
        and not (
            request.min_mod_revision
            or request.max_mod_revision
            or request.min_create_revision
            or request.max_create_revision
        )
    )
