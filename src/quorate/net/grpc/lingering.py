"""Streams of calls that are answered, and whose clients still send.

RFC 9113 (section 8.1) lets a server reset such a stream, but curl for one then does not show the answer.  So the client
may end it itself; it gets no more credit for it, and none for many of its kind.
"""

from __future__ import annotations

from typing import Final

from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import Connection

MAX_LINGERING: Final = 100


class Lingering:
    """Those of one connection."""

    __slots__ = ("_http2", "_is_leaving", "_streams")

    def __init__(self, http2: Connection) -> None:
        self._http2 = http2
        self._streams: dict[int, None] = {}
        self._is_leaving = False

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream_id: int) -> None:
        self._streams[stream_id] = None
        if self._is_leaving:
            self._reset(stream_id)
        elif len(self._streams) > MAX_LINGERING:
            self._reset(next(iter(self._streams)))

    def ended(self, stream_id: int) -> None:
        """By the client, if it is one of these."""
        self._streams.pop(stream_id, None)

    def leave(self) -> None:
        """End all, and from now on each at once."""
        self._is_leaving = True
        for stream_id in list(self._streams):
            self._reset(stream_id)

    def _reset(self, stream_id: int) -> None:
        del self._streams[stream_id]
        # A reset drops what is queued.
        if not self._http2.queued_bytes(stream_id):
            self._http2.reset(stream_id, ErrorCode.NO_ERROR)
