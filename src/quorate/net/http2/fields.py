"""HPACK (RFC 7541): a header block and the dynamic table give fields.

`hpack` is the decoder.  What honest clients send with every request is read here first, over `hpack`'s own table, at a
fraction of its price: indexes, and literals of short strings.  From the first field on that is anything else, be it
rare or wrong, the block is left to `hpack`.  So limits and errors are its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from hpack import Decoder, HPACKDecodingError, HPACKError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Field: TypeAlias = tuple[bytes, bytes]
"""Name and value."""

FIELD_OVERHEAD_BYTES: Final = 32
_STATIC: Final = HeaderTable.STATIC_TABLE
_FIRST_DYNAMIC: Final = len(_STATIC) + 1
_SHORT_BLOCK_BYTES: Final = 1024
"""A longer one, whose indexes might stand for megabytes, is `hpack`'s, which adds up the list's size as it goes."""
_MAX_SIZE_UPDATES: Final = 2
"""More than two at a block's head are forbidden (RFC 7541, section 4.2), and would be work for one byte each."""


def list_bytes(fields: Iterable[Field]) -> int:
    """As SETTINGS_MAX_HEADER_LIST_SIZE counts it."""
    return sum(len(name) + len(value) + FIELD_OVERHEAD_BYTES for name, value in fields)


class _Table(HeaderTable):
    """HPACK's table, which tells whether it was added to."""

    def __init__(self) -> None:
        super().__init__()
        self.additions = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.additions += 1
        super().add(name, value)


class FieldDecoder:
    """Decodes a connection's blocks, one after the other."""

    def __init__(self, max_list_bytes: int) -> None:
        self._max_list_bytes = max_list_bytes
        self._table = _Table()
        self._decoder = Decoder()
        self._decoder.header_table = self._table
        self._resizings = 0

    @property
    def table_changes(self) -> int:
        """Grows whenever the same block may come to mean something else."""
        return self._table.additions + self._resizings

    def decode(self, block: bytes) -> tuple[list[Field], int]:
        """The fields, and which of them is the last that came as a literal (-1 if unknown or none).

        Raises HPACKError; of a list that is too long OversizedHeaderListError, or the caller has to see it.
        """
        fields: list[Field] = []
        last_literal = -1
        start, end = 0, len(block)
        if end > _SHORT_BLOCK_BYTES:
            return self._leave_to_hpack(block, start, fields), -1
        table = self._table
        dynamic = table.dynamic_entries
        try:
            while start < end:
                first = block[start]
                position = start + 1
                if first >= 0x80:
                    index, most = first & 0x7F, 0x7F
                elif first >= 0x40:
                    index, most = first & 0x3F, 0x3F
                elif first < 0x20:
                    index, most = first & 0x0F, 0x0F
                else:
                    break
                if index == most:
                    more = block[position]
                    position += 1
                    if more >= 0x80:
                        break
                    index += more
                if first >= 0x80:
                    if not index:
                        break
                    fields.append(dynamic[index - _FIRST_DYNAMIC] if index >= _FIRST_DYNAMIC else _STATIC[index - 1])
                    start = position
                    continue
                if index:
                    name = (dynamic[index - _FIRST_DYNAMIC] if index >= _FIRST_DYNAMIC else _STATIC[index - 1])[0]
                else:
                    name, position = _read_string(block, position)
                value, position = _read_string(block, position)
                last_literal = len(fields)
                fields.append((name, value))
                if first >= 0x40:
                    table.add(name, value)
                start = position
            else:
                return fields, last_literal
        except (IndexError, HPACKError):
            pass  # `hpack` will say what is wrong
        return self._leave_to_hpack(block, start, fields), -1

    def _leave_to_hpack(self, block: bytes, start: int, fields: list[Field]) -> list[Field]:
        """`fields`, those before `start`, and all from there on."""
        size = list_bytes(fields)
        if size > self._max_list_bytes:
            raise OversizedHeaderListError(f"a header list of more than {self._max_list_bytes} bytes")
        if block[start] & 0xE0 == 0x20:
            if fields:
                raise HPACKDecodingError("a change of the table's size within the block")
            _check_size_updates(block)
            self._resizings += 1
        self._decoder.max_header_list_size = self._max_list_bytes - size
        rest = self._decoder.decode(block[start:], raw=True)
        return fields + [(bytes(name), bytes(value)) for name, value in rest]


def _read_string(block: bytes, position: int) -> tuple[bytes, int]:
    """A string that begins at `position`, and where it ends.  Raises IndexError where it is none, or 254 bytes long or
    longer, and HPACKError."""
    first = block[position]
    position += 1
    size = first & 0x7F
    if size == 0x7F:
        more = block[position]
        if more >= 0x80:
            raise IndexError
        size += more
        position += 1
    end = position + size
    if end > len(block):
        raise IndexError
    return decode_huffman(block[position:end]) if first >= 0x80 else block[position:end], end


def _check_size_updates(block: bytes) -> None:
    """Raises HPACKDecodingError where a block begins with too many changes of the table's size."""
    position = count = 0
    while position < len(block) and block[position] & 0xE0 == 0x20:
        count += 1
        if count > _MAX_SIZE_UPDATES:
            raise HPACKDecodingError("too many changes of the table's size in a block")
        if block[position] & 0x1F == 0x1F:
            position += 1
            while position < len(block) and block[position] & 0x80:
                position += 1
        position += 1
