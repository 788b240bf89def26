"""The way out: output, the peer's windows, and what waits for them (RFC 9113, section 5.2 and 6.9)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from quorate.net.http2 import frames

_MAX_SENT_FRAME_BYTES = 64 << 10
"""However large a frame the peer takes: a longer one saves nothing, and holds up all other streams."""
_FULL_FRAME_BYTES = 1_024
"""A DATA frame of this size, or with which a queue ends, is not one that tiny windows of the peer's have cut off."""


class Stream(msgspec.Struct, gc=False):
    """A stream that is not over.  It is, when both ends have ended it and nothing is queued, or one has reset it."""

    id: int
    send_window: int
    receive_window: int
    is_remote_open: bool
    is_local_open: bool = True
    """The layer above has not ended it; its end may still be queued."""
    consumed: int = 0
    """Bytes worked off that the peer has not been told of."""
    content_length: int = -1
    received: int = 0
    has_response: bool = False
    """Client: the final response's headers have come."""
    queue: bytearray | None = None
    trailers: bytes | None = None
    """To be sent behind the queue, with END_STREAM."""

    @property
    def is_over(self) -> bool:
        return not (self.is_local_open or self.is_remote_open or self.queue)


class ResponseForm:
    """What whole responses have in common that differ in their data only: made once, sent with each of them.

    A response is three frames, and between its parts stands the stream's id:

        start of HEADERS | headers and start of DATA | data and start of HEADERS | trailers
    """

    __slots__ = ("before_trailers", "headers", "start", "trailers", "until_short_data")

    def __init__(self, headers: bytes, trailers: bytes) -> None:
        """Header blocks (`headers.encode`)."""
        assert max(len(headers), len(trailers)) <= frames.DEFAULT_FRAME_BYTES, "what any peer takes in one frame"
        self.headers: Final = headers
        self.trailers: Final = trailers
        self.start: Final = frames.start_of(len(headers), frames.HEADERS, frames.END_HEADERS)
        self.before_trailers: Final = frames.start_of(
            len(trailers), frames.HEADERS, frames.END_HEADERS | frames.END_STREAM
        )
        self.until_short_data: Final = tuple(map(self.until_data, range(frames.SHORT)))
        """By the size of the data."""

    def until_data(self, size: int) -> bytes:
        return self.headers + frames.start_of(size, frames.DATA, 0)


class Sender:
    """Output of one connection.  Invariant: a stream is in `_ready` if it has queued data and its window is open,
    so that only the connection's window holds it up; then that is shut.
    """

    def __init__(self) -> None:
        self.chunks: list[bytes | bytearray] = []
        self.window = frames.DEFAULT_WINDOW_BYTES
        self.initial_window = frames.DEFAULT_WINDOW_BYTES
        self.max_frame_bytes = frames.DEFAULT_FRAME_BYTES
        self.queued_total = 0
        self.useful_frames = 0
        """DATA frames sent that a peer may well answer with frames of control."""
        self.must_shrink_table = False
        """The peer's decoder wants to hear, in the next block, that we don't use its dynamic table."""
        self._has_shrunk_table = False
        self._ready: dict[int, Stream] = {}

    def set_max_frame_bytes(self, size: int) -> None:
        self.max_frame_bytes = min(size, _MAX_SENT_FRAME_BYTES)

    def set_table_bytes(self, size: int) -> None:
        """RFC 7541, section 4.2: who is told of a smaller table must say in its next block that it has shrunk it.
        We shrink it to nothing, once and for all."""
        if size < 4_096 and not self._has_shrunk_table:
            self.must_shrink_table = True

    def send_headers(self, stream: Stream, block: bytes, end_stream: bool) -> None:
        if stream.queue:
            assert end_stream, "headers behind data are trailers"
            stream.trailers = block
            return
        if self.must_shrink_table:
            self.must_shrink_table = False
            self._has_shrunk_table = True
            block = b"\x20" + block
        self.chunks.append(frames.header_frames(stream.id, block, end_stream, self.max_frame_bytes))

    def send_data(self, stream: Stream, data: bytes, end_stream: bool) -> None:
        """The caller marks the stream as ended before."""
        if stream.queue:
            stream.queue += data
            self.queued_total += len(data)
            return
        size = len(data)
        allowed = min(size, self.window, stream.send_window)  # may be below zero
        position = 0
        while position < allowed or (size == 0 and end_stream):
            part = data[position : min(position + self.max_frame_bytes, allowed)]
            position += len(part)
            is_end = end_stream and position == size
            self.chunks += (frames.HEAD.pack(len(part) << 8, is_end, stream.id), part)
            self.useful_frames += 1
            if is_end:
                break
        self.window -= position
        stream.send_window -= position
        if position < size:
            stream.queue = bytearray(data[position:])
            self.queued_total += size - position
            if stream.send_window > 0:
                self._ready[stream.id] = stream

    def open_connection(self, increment: int) -> list[Stream]:
        """The connection's window grows.  The streams whose queue ended thereby."""
        self.window += increment
        return self._send_ready()

    def open_stream(self, stream: Stream, increment: int) -> list[Stream]:
        """A stream's window grows.  The stream, if its queue ended thereby."""
        stream.send_window += increment
        if stream.queue and stream.send_window > 0:
            self._ready[stream.id] = stream
            return self._send_ready()
        return []

    def change_initial_window(self, size: int, streams: Iterable[Stream]) -> list[Stream]:
        """Section 6.9.2: windows of open streams move by the difference, also below zero."""
        difference = size - self.initial_window
        self.initial_window = size
        for stream in streams:
            stream.send_window += difference
            if stream.queue and stream.send_window > 0:
                self._ready[stream.id] = stream
            else:
                self._ready.pop(stream.id, None)
        return self._send_ready()

    def drop(self, stream: Stream) -> None:
        """The stream was reset: what it has queued goes with it."""
        if stream.queue:
            self.queued_total -= len(stream.queue)
            stream.queue = None
            self._ready.pop(stream.id, None)

    def _send_ready(self) -> list[Stream]:
        """A frame of each ready stream in turn, while the connection's window lasts."""
        drained = []
        while self.window > 0 and self._ready:
            stream = self._ready.pop(next(iter(self._ready)))
            queue = stream.queue
            assert queue and stream.send_window > 0
            part = queue[: min(self.window, stream.send_window, self.max_frame_bytes)]
            size = len(part)
            del queue[:size]
            self.window -= size
            stream.send_window -= size
            self.queued_total -= size
            is_end = not (queue or stream.is_local_open or stream.trailers is not None)
            self.chunks += (frames.HEAD.pack(size << 8, is_end, stream.id), part)
            if not queue or size >= _FULL_FRAME_BYTES:
                self.useful_frames += 1
            if queue:
                if stream.send_window > 0:
                    self._ready[stream.id] = stream
                continue
            stream.queue = None
            drained.append(stream)
            if stream.trailers is not None:
                self.send_headers(stream, stream.trailers, end_stream=True)
        return drained
