"""Frames as bytes: their types and flags, and those that are made from a few numbers (RFC 9113, sections 4 and 6)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

SETTINGS_HEADER_TABLE_SIZE = 0x1
SETTINGS_ENABLE_PUSH = 0x2
SETTINGS_MAX_CONCURRENT_STREAMS = 0x3
SETTINGS_INITIAL_WINDOW_SIZE = 0x4
SETTINGS_MAX_FRAME_SIZE = 0x5
SETTINGS_MAX_HEADER_LIST_SIZE = 0x6

DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_FRAME_BYTES = 16_384
MAX_FRAME_BYTES = (1 << 24) - 1
MAX_WINDOW_BYTES = (1 << 31) - 1
MAX_STREAM_ID = (1 << 31) - 1

HEAD = struct.Struct(">IBI")
"""A frame's first 9 bytes: length << 8 | type, flags, stream id (its top bit is reserved)."""
HEAD_BYTES = HEAD.size
UINT32 = struct.Struct(">I")
SHORT = 256
"""For DATA shorter than this the head is made already, all but the stream id: most answers are."""
SETTING = struct.Struct(">HI")
_WINDOW_UPDATE = struct.Struct(">IBII")
_GOAWAY = struct.Struct(">IBIII")


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    payload = b"".join(SETTING.pack(name, value) for name, value in values)
    return HEAD.pack(len(payload) << 8 | SETTINGS, 0, 0) + payload


SETTINGS_ACK = HEAD.pack(SETTINGS, ACK, 0)


def start_of(size: int, kind: int, flags: int) -> bytes:
    """A frame's first bytes, up to the stream id."""
    return HEAD.pack(size << 8 | kind, flags, 0)[:5]


def ping(payload: bytes, flags: int = 0) -> bytes:
    return HEAD.pack(8 << 8 | PING, flags, 0) + payload


def rst_stream(stream_id: int, code: int) -> bytes:
    return HEAD.pack(4 << 8 | RST_STREAM, 0, stream_id) + UINT32.pack(code)


def window_update(stream_id: int, increment: int) -> bytes:
    return _WINDOW_UPDATE.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    return _GOAWAY.pack((8 + len(debug)) << 8 | GOAWAY, 0, 0, last_stream_id, code) + debug


def header_frames(stream_id: int, block: bytes, end_stream: bool, max_frame_bytes: int) -> bytes:
    """HEADERS, and CONTINUATION where the block is longer than a frame."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame_bytes:
        return HEAD.pack(len(block) << 8 | HEADERS, flags | END_HEADERS, stream_id) + block
    parts = [HEAD.pack(max_frame_bytes << 8 | HEADERS, flags, stream_id), block[:max_frame_bytes]]
    for start in range(max_frame_bytes, len(block), max_frame_bytes):
        part = block[start : start + max_frame_bytes]
        is_last = start + max_frame_bytes >= len(block)
        parts += (HEAD.pack(len(part) << 8 | CONTINUATION, END_HEADERS if is_last else 0, stream_id), part)
    return b"".join(parts)
