"""Header blocks: what we send is made once and stateless, what we receive is decoded by `hpack` and cached."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from quorate.net.http2.codes import ErrorCode, Violation
from quorate.net.http2.limits import Limits

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
"""RFC 9110's token without upper case (RFC 9113, section 8.2.1)."""
_BAD_VALUE = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z").search
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,15}").fullmatch
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":status"})
_OF_A_CONNECTION = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
"""Connection-specific fields are malformed in HTTP/2 (section 8.2.2)."""
_FIELD_OVERHEAD_BYTES = 32
_MAX_CACHED_BLOCKS = 256
_MAX_CACHED_BYTES = 256 << 10
_MAX_SIZE_UPDATES = 2
"""More than two at a block's head are forbidden (RFC 7541, section 4.2), and would be work for one byte each."""


class Headers:
    """One decoded header block.  Never changed; equal only to itself, hashed by identity.

    A peer that repeats a request's headers gets the same object again, so what is derived from it can be kept in
    `derived` (the layer above's alone; it lives as long as the object).
    """

    __slots__ = (
        *("authority", "content_length", "derived", "fields", "method", "path", "scheme", "status"),
        *("is_request", "is_response", "is_trailers", "list_bytes"),
    )

    method: str
    """Pseudo-headers; "" where absent."""
    scheme: str
    authority: str
    path: str
    status: str
    fields: tuple[tuple[str, str], ...]
    """All others in order, names in lower case, values decoded as ISO 8859-1 (one character a byte)."""
    content_length: int
    """-1 where absent."""
    list_bytes: int
    """The size of the list, as SETTINGS_MAX_HEADER_LIST_SIZE counts it."""
    is_request: bool
    """It is well formed as a request's headers; the other two alike (RFC 9113, section 8)."""
    is_response: bool
    is_trailers: bool
    derived: object

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        pseudo: dict[bytes, bytes] = {}
        fields: list[tuple[str, str]] = []
        lengths: set[bytes] = set()
        is_well_formed = True
        size = 0
        for name, value in raw:
            size += len(name) + len(value) + _FIELD_OVERHEAD_BYTES
            if name[:1] == b":":
                is_well_formed &= name in _PSEUDO and name not in pseudo and not fields
                pseudo[name] = value
            else:
                is_well_formed &= _NAME(name) is not None and name not in _OF_A_CONNECTION
                is_well_formed &= name != b"te" or value.lower() == b"trailers"
                if name == b"content-length":
                    lengths.add(value)
                fields.append((name.decode("latin-1"), value.decode("latin-1")))
            is_well_formed &= _BAD_VALUE(value) is None
        self.content_length = -1
        for length in lengths:
            is_well_formed &= len(lengths) == 1 and _CONTENT_LENGTH(length) is not None
            self.content_length = int(length) if is_well_formed else -1
        self.fields = tuple(fields)
        self.list_bytes = size
        self.derived = None
        self.method = pseudo.get(b":method", b"").decode("latin-1")
        self.scheme = pseudo.get(b":scheme", b"").decode("latin-1")
        self.authority = pseudo.get(b":authority", b"").decode("latin-1")
        self.path = pseudo.get(b":path", b"").decode("latin-1")
        self.status = pseudo.get(b":status", b"").decode("latin-1")
        # CONNECT has neither scheme nor path; nothing here tunnels, so it is refused like any request without them.
        is_whole = bool(self.method and self.scheme and self.path) and b":status" not in pseudo
        self.is_request = is_well_formed and is_whole
        self.is_response = is_well_formed and pseudo.keys() == {b":status"} and _is_status(self.status)
        self.is_trailers = is_well_formed and not pseudo


def _is_status(text: str) -> bool:
    """Three digits; 101 does not exist in HTTP/2 (section 8.6)."""
    return len(text) == 3 and text.isascii() and text.isdigit() and text[0] != "0" and text != "101"


class _Table(HeaderTable):
    """HPACK's table, which tells whether it was added to."""

    def __init__(self) -> None:
        super().__init__()
        self.additions = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.additions += 1
        super().add(name, value)


class BlockDecoder:
    """Decodes a connection's blocks.  `cached` holds those that read the dynamic table as it is and left it so."""

    def __init__(self, limits: Limits) -> None:
        # A list somewhat too long costs its stream (the layer above looks at `Headers.list_bytes`); here is where
        # decoding stops, and with it the connection.
        self._decoder = Decoder(max_header_list_size=2 * limits.max_header_list_bytes)
        self._table = self._decoder.header_table = _Table()
        self._cached_bytes = 0
        self.cached: dict[bytes, Headers] = {}

    def decode(self, block: bytes) -> Headers:
        """Raises Violation."""
        headers = self.cached.get(block)
        if headers is not None:
            return headers
        has_size_update = _has_size_update(block)
        additions = self._table.additions
        try:
            raw = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "header list too long") from error
        except HPACKError as error:
            raise Violation(ErrorCode.COMPRESSION_ERROR, "header block cannot be decoded") from error
        headers = Headers(raw)
        if has_size_update or self._table.additions != additions:
            self._forget()
        else:
            if len(self.cached) >= _MAX_CACHED_BLOCKS or self._cached_bytes > _MAX_CACHED_BYTES:
                self._forget()
            self.cached[block] = headers
            self._cached_bytes += len(block) + headers.list_bytes
        return headers

    def _forget(self) -> None:
        self.cached.clear()
        self._cached_bytes = 0


def _has_size_update(block: bytes) -> bool:
    """Whether the block begins with changes of the table's size.  Raises Violation where those are too many."""
    position = count = 0
    while position < len(block) and block[position] & 0xE0 == 0x20:
        count += 1
        if count > _MAX_SIZE_UPDATES:
            raise Violation(ErrorCode.COMPRESSION_ERROR, "too many changes of the table's size in a block")
        if block[position] & 0x1F == 0x1F:
            position += 1
            while position < len(block) and block[position] & 0x80:
                position += 1
        position += 1
    return count > 0


def encode(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A header block that any peer can decode at any time: static table and literals without indexing only.

    Values are sent as ISO 8859-1.  Pseudo-headers must come first.
    """
    block = bytearray()
    for name_text, value_text in pairs:
        name, value = name_text.encode("ascii"), value_text.encode("latin-1")
        assert _NAME(name.removeprefix(b":")) and not _BAD_VALUE(value), f"{name_text!r} cannot be sent"
        first_index, indexes = HeaderTable.STATIC_TABLE_MAPPING.get(name, (0, {}))
        if value in indexes:
            field = encode_integer(indexes[value], 7)
            field[0] |= 0x80
            block += field
            continue
        block += encode_integer(first_index, 4)
        if not first_index:
            block += encode_integer(len(name), 7) + name
        block += encode_integer(len(value), 7) + value
    return bytes(block)
