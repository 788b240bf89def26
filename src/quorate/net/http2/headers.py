"""Header blocks: what we send is made once and stateless, what we receive is decoded by `hpack` and cached."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from hpack import HPACKError, OversizedHeaderListError
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from quorate.net.http2.codes import ErrorCode, Violation
from quorate.net.http2.fields import FIELD_OVERHEAD_BYTES, Field, FieldDecoder, list_bytes
from quorate.net.http2.limits import Limits

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
"""RFC 9110's token without upper case (RFC 9113, section 8.2.1)."""
_BAD_VALUE = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z").search
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,15}").fullmatch
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":status"})
_OF_A_CONNECTION = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
"""Connection-specific fields are malformed in HTTP/2 (section 8.2.2)."""
_TIMEOUT = b"grpc-timeout"
_MAX_REMEMBERED = 256
_MAX_REMEMBERED_BYTES = 256 << 10


class Headers:
    """One decoded header block.  Never changed; equal only to itself, hashed by identity.

    A peer that repeats a request's headers gets the same object again, so what is derived from it can be kept in
    `derived` (the layer above's alone; it lives as long as the object).  Clients that send `grpc-timeout` name another
    one with each request: see `untimed`.
    """

    __slots__ = (
        *("authority", "content_length", "derived", "fields", "method", "path", "scheme", "status"),
        *("is_request", "is_response", "is_trailers", "list_bytes", "timeout", "untimed"),
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
    timeout: str | None
    """Of `grpc-timeout`, the last if there are several."""
    untimed: Headers | None
    """The same headers without their one `grpc-timeout`: an object that all have in common which differ only there.
    None where there is no such field, or something is unusual about it."""
    derived: object

    def __init__(self, raw: list[Field]) -> None:
        pseudo: dict[bytes, bytes] = {}
        fields: list[tuple[str, str]] = []
        lengths: set[bytes] = set()
        is_well_formed = True
        self.timeout = None
        for name, value in raw:
            if name[:1] == b":":
                is_well_formed &= name in _PSEUDO and name not in pseudo and not fields
                pseudo[name] = value
            else:
                is_well_formed &= _NAME(name) is not None and name not in _OF_A_CONNECTION
                is_well_formed &= name != b"te" or value.lower() == b"trailers"
                if name == b"content-length":
                    lengths.add(value)
                elif name == _TIMEOUT:
                    self.timeout = value.decode("latin-1")
                fields.append((name.decode("latin-1"), value.decode("latin-1")))
            is_well_formed &= _BAD_VALUE(value) is None
        self.content_length = -1
        for length in lengths:
            is_well_formed &= len(lengths) == 1 and _CONTENT_LENGTH(length) is not None
            self.content_length = int(length) if is_well_formed else -1
        self.fields = tuple(fields)
        self.list_bytes = list_bytes(raw)
        self.untimed = None
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


def _timed(untimed: Headers, place: int, timeout: bytes) -> Headers:
    """As `Headers` of the same list with this `grpc-timeout` at `place` of `fields`, at a fraction of the price: one
    well-formed field makes no difference elsewhere."""
    headers = Headers.__new__(Headers)
    headers.method = untimed.method
    headers.scheme = untimed.scheme
    headers.authority = untimed.authority
    headers.path = untimed.path
    headers.status = untimed.status
    headers.content_length = untimed.content_length
    headers.is_request = untimed.is_request
    headers.is_response = untimed.is_response
    headers.is_trailers = untimed.is_trailers
    headers.list_bytes = untimed.list_bytes + len(_TIMEOUT) + len(timeout) + FIELD_OVERHEAD_BYTES
    headers.timeout = text = timeout.decode("latin-1")
    fields = list(untimed.fields)
    fields.insert(place, ("grpc-timeout", text))
    headers.fields = tuple(fields)
    headers.untimed = untimed
    headers.derived = None
    return headers


def _is_status(text: str) -> bool:
    """Three digits; 101 does not exist in HTTP/2 (section 8.6)."""
    return len(text) == 3 and text.isascii() and text.isdigit() and text[0] != "0" and text != "101"


K = TypeVar("K", bytes, tuple[Field, ...])


class _Memory(dict[K, Headers]):
    """Headers by what they came as; when it is full it starts anew."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def keep(self, key: K, headers: Headers, size: int) -> None:
        if len(self) >= _MAX_REMEMBERED or self._bytes > _MAX_REMEMBERED_BYTES:
            self.forget()
        self[key] = headers
        self._bytes += size

    def forget(self) -> None:
        self.clear()
        self._bytes = 0


class BlockDecoder:
    """Decodes a connection's blocks.  `cached` holds those that read the dynamic table as it is and left it so."""

    def __init__(self, limits: Limits) -> None:
        # A list somewhat too long costs its stream (the layer above looks at `Headers.list_bytes`); here is where
        # decoding stops, and with it the connection.
        self._max_list_bytes = 2 * limits.max_header_list_bytes
        self._decoder = FieldDecoder(self._max_list_bytes)
        self._lists: _Memory[tuple[Field, ...]] = _Memory()
        self.cached: _Memory[bytes] = _Memory()

    def decode(self, block: bytes) -> Headers:
        """Raises Violation."""
        headers = self.cached.get(block)
        if headers is not None:
            return headers
        decoder = self._decoder
        changes = decoder.table_changes
        try:
            fields, last_literal = decoder.decode(block)
        except OversizedHeaderListError as error:
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "header list too long") from error
        except HPACKError as error:
            raise Violation(ErrorCode.COMPRESSION_ERROR, "header block cannot be decoded") from error
        if last_literal >= 0 and fields[last_literal][0] == _TIMEOUT:
            headers = self._of_timed_list(fields, last_literal)
        else:
            headers = self._of_list(fields)
        if headers.list_bytes > self._max_list_bytes:
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "header list too long")
        if decoder.table_changes != changes:
            self.cached.forget()
        else:
            self.cached.keep(block, headers, len(block) + headers.list_bytes)
        return headers

    def _of_list(self, fields: list[Field]) -> Headers:
        """Raises Violation."""
        key = tuple(fields)
        headers = self._lists.get(key)
        if headers is None:
            # Seen before any work is put into it: indexes may stand for much.
            if list_bytes(fields) > self._max_list_bytes:
                raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "header list too long")
            headers = Headers(fields)
            self._lists.keep(key, headers, headers.list_bytes)
        return headers

    def _of_timed_list(self, fields: list[Field], place: int) -> Headers:
        """Raises Violation."""
        timeout = fields.pop(place)[1]
        untimed = self._of_list(fields)
        pseudo = len(fields) - len(untimed.fields)
        if untimed.is_request and untimed.timeout is None and place >= pseudo and _BAD_VALUE(timeout) is None:
            return _timed(untimed, place - pseudo, timeout)
        fields.insert(place, (_TIMEOUT, timeout))
        return self._of_list(fields)


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
