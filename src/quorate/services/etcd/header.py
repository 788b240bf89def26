"""The header of every response: which cluster, which member, which revision, which term."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from quorate.services.etcd.encoding import varint

_LOW: Final = tuple(bytes([low]) for low in range(256))
_CLUSTER_ID: Final = b"\x08"
_MEMBER_ID: Final = b"\x10"
_REVISION: Final = b"\x18"
_TERM: Final = b"\x20"
_HEADER: Final = b"\x0a"


def cluster_number(cluster_id: str) -> int:
    """The cluster's id as etcd's clients want it: 64 bits, not 0."""
    return _number(cluster_id)


def member_number(cluster_id: str, node: int) -> int:
    """A member's id: 64 bits, not 0, the same at every door and as long as the cluster lives."""
    return _number(f"{cluster_id}/{node}")


def _number(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8]) or 1


class HeaderWriter:
    """Writes field 1 of a response.  All but the revision is the same for long, so it is kept encoded."""

    def __init__(self, cluster_id: int, member_id: int) -> None:
        self.cluster_id = cluster_id
        self.member_id = member_id
        self.term = 0
        self._start = b""
        self._revision = -1
        self._written = b""
        """For `_revision`: reads of one turn have it in common."""
        self._block = -1
        """The revision's bits above the lowest seven, which `_head` and `_tail` were made for."""
        self._head = b""
        self._tail = b""
        self._more = 0
        self.set_term(0)

    def set_term(self, term: int) -> None:
        self.term = term
        cluster_id, member_id = varint(self.cluster_id), varint(self.member_id)
        self._start = b"".join((_CLUSTER_ID, cluster_id, _MEMBER_ID, member_id, _TERM, varint(term), _REVISION))
        self._block = self._revision = -1

    def write(self, revision: int) -> bytes:
        """The header's bytes, to stand before (or after) the other fields of a response."""
        if revision != self._revision:
            block = revision >> 7
            if block != self._block:
                self._enter(block)
            self._written = self._head + _LOW[revision & 0x7F | self._more] + self._tail
            self._revision = revision
        return self._written

    def _enter(self, block: int) -> None:
        self._block = block
        self._tail = varint(block) if block else b""
        self._more = 0x80 if block else 0
        body_bytes = len(self._start) + 1 + len(self._tail)
        self._head = _HEADER + varint(body_bytes) + self._start
