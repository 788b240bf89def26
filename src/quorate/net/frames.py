"""Frames: a 4-byte big-endian length and that many bytes, which are one msgpack value.

The empty frame is a keep-alive.  A frame that announces more than the limit is an error at
once, before anything of it is gathered, so that no peer can make a node hold memory.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

_LENGTH = struct.Struct(">I")
HEADER_BYTES = _LENGTH.size
KEEP_ALIVE = _LENGTH.pack(0)


class FrameError(ValueError):
    """Bytes that are no frame: the connection that they came on cannot be used any longer."""


class FrameEncoder:
    """Turns values into frames, reusing one msgpack encoder."""

    def __init__(self) -> None:
        self._encode_into = msgspec.msgpack.Encoder().encode_into

    def encode(self, value: Any) -> bytearray:
        frame = bytearray(64)
        self._encode_into(value, frame, HEADER_BYTES)
        _LENGTH.pack_into(frame, 0, len(frame) - HEADER_BYTES)
        return frame


class FrameDecoder:
    """Cuts received bytes into frame bodies.

    `max_frame_bytes` bounds one body; it may be raised once a peer has shown who it is.
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._wanted = HEADER_BYTES

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies completed by `data`, in order.  Raises FrameError on an oversized frame."""
        buffer = self._buffer
        buffer += data
        available = len(buffer)
        if available < self._wanted:
            return []
        bodies = []
        start = 0
        while True:
            if available - start < HEADER_BYTES:
                self._wanted = HEADER_BYTES
                break
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > self.max_frame_bytes:
                raise FrameError(f"a frame of {length} bytes was announced, at most {self.max_frame_bytes} are allowed")
            end = start + HEADER_BYTES + length
            if end > available:
                self._wanted = HEADER_BYTES + length
                break
            bodies.append(bytes(buffer[start + HEADER_BYTES : end]))
            start = end
        del buffer[:start]
        return bodies
