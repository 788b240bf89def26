"""Bytes to frames: the preface, frames that come in pieces, header blocks of several frames (RFC 9113, section 4)."""

from __future__ import annotations

from typing import Protocol

from quorate.net.http2 import frames
from quorate.net.http2.codes import ErrorCode, Violation
from quorate.net.http2.limits import Limits


class FrameHandler(Protocol):
    """Who is told of frames.  Payloads of HEADERS come without padding and priority fields, those of DATA as they are;
    every other frame is one of control.  All may raise Violation."""

    def on_block(self, block: bytes, stream_id: int, end_stream: bool, data: bytes, position: int) -> int:
        """A whole header block, which ends at `data[position]`.  Returns how far `data` is read: there, or beyond the
        next frame where the handler has taken that along."""
        ...

    def on_data(self, payload: bytes, flags: int, stream_id: int) -> None: ...

    def on_control(self, kind: int, payload: bytes, flags: int, stream_id: int) -> None: ...


class FrameReader:
    """Gathers what came of a frame until it is whole, and of a header block likewise, within the limits."""

    def __init__(self, limits: Limits, is_server: bool) -> None:
        self._limits = limits
        self._partial = bytearray()
        self._wanted_bytes = frames.HEAD_BYTES
        self._must_read_preface = is_server
        self._must_be_settings = True

        # The header block that is not complete: then only its CONTINUATION may come.
        self._block: bytearray | None = None
        self._block_frames = 0
        self._block_stream_id = 0
        self._block_ends_stream = False

    def read(self, data: bytes, handler: FrameHandler) -> None:
        """Handle all frames that `data` completes.  Raises Violation; then the reader is of no use any more."""
        # What is gathered is looked at only when it has grown to what it lacked, so that its bytes are copied
        # twice however small the pieces are.
        if self._partial:
            self._partial += data
            if len(self._partial) < self._wanted_bytes and not self._must_read_preface:
                return
            data = bytes(self._partial)
            self._partial.clear()
        position = 0
        if self._must_read_preface:
            if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
                raise Violation(ErrorCode.PROTOCOL_ERROR, "not HTTP/2")
            if len(data) < len(frames.PREFACE):
                self._partial += data
                return
            self._must_read_preface = False
            position = len(frames.PREFACE)
        position = self._read_frames(data, position, handler)
        if position < len(data):
            self._partial += data[position:]

    def _read_frames(self, data: bytes, position: int, handler: FrameHandler) -> int:
        """Handle all whole frames; where the first that is not whole begins."""
        end = len(data)
        unpack = frames.HEAD.unpack_from
        too_long = (self._limits.max_frame_bytes + 1) << 8
        while end - position >= frames.HEAD_BYTES:
            head, flags, stream_id = unpack(data, position)
            if head >= too_long:
                raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {head >> 8} bytes")
            start = position + frames.HEAD_BYTES
            stop = start + (head >> 8)
            if stop > end:
                self._wanted_bytes = stop - position
                return position
            kind = head & 0xFF
            stream_id &= frames.MAX_STREAM_ID  # the top bit is reserved
            if self._block is not None or self._must_be_settings:
                self._check_expected(kind, flags, stream_id)
            if kind == frames.HEADERS:
                if flags == frames.END_HEADERS:
                    # The hot path: a request whose body follows.
                    position = handler.on_block(data[start:stop], stream_id, False, data, stop)
                else:
                    position = self._on_headers(data, start, stop, flags, stream_id, handler)
            elif kind == frames.DATA:
                handler.on_data(data[start:stop], flags, stream_id)
                position = stop
            elif kind == frames.CONTINUATION:
                position = self._on_continuation(data, start, stop, flags, handler)
            else:
                handler.on_control(kind, data[start:stop], flags, stream_id)
                position = stop
        self._wanted_bytes = frames.HEAD_BYTES
        return position

    def _check_expected(self, kind: int, flags: int, stream_id: int) -> None:
        """Two times there is only one frame that may come."""
        if self._must_be_settings:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise Violation(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
            self._must_be_settings = False
        elif kind != frames.CONTINUATION or stream_id != self._block_stream_id:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "a header block was broken off")

    def _on_headers(self, data: bytes, start: int, stop: int, flags: int, stream_id: int, handler: FrameHandler) -> int:
        following = stop
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            start, stop = without_extras(data, start, stop, flags)
        end_stream = flags & frames.END_STREAM != 0
        if flags & frames.END_HEADERS:
            return handler.on_block(data[start:stop], stream_id, end_stream, data, following)
        self._block = bytearray(data[start:stop])
        self._block_frames = 1
        self._block_stream_id = stream_id
        self._block_ends_stream = end_stream
        return following

    def _on_continuation(self, data: bytes, start: int, stop: int, flags: int, handler: FrameHandler) -> int:
        if self._block is None:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of no header block")
        self._block += data[start:stop]
        self._block_frames += 1
        limits = self._limits
        if len(self._block) > limits.max_block_bytes or self._block_frames > limits.max_block_frames:
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "header block too long")
        if not flags & frames.END_HEADERS:
            return stop
        block = bytes(self._block)
        self._block = None
        return handler.on_block(block, self._block_stream_id, self._block_ends_stream, data, stop)


def without_extras(data: bytes, start: int, stop: int, flags: int) -> tuple[int, int]:
    """Where the content of a frame begins and ends: without padding, its length and the priority fields."""
    if flags & frames.PADDED:
        padding = data[start] if start < stop else 0
        start += 1
        stop -= padding
    if flags & frames.HAS_PRIORITY:
        start += 5
    if start > stop:
        raise Violation(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return start, stop
