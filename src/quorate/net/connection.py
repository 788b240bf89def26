"""What both directions of a peer connection have in common: bytes in, frames up."""

from __future__ import annotations

import asyncio
import enum
from typing import Any, Protocol, cast

import msgspec

from quorate.net.frames import HEADER_BYTES, FrameDecoder, FrameError
from quorate.net.handshake import HandshakeRefused

HANDSHAKE_FRAME_BYTES = 4096
HANDSHAKE_TIMEOUT_S = 5.0
SILENCE_LIMIT_S = 5.0
"""A connection whose other end sends no keep-alives, or does not answer them, for this long is half-open: cut it."""


class Direction(enum.Enum):
    """Of the two connections between two nodes, as one of them sees it."""

    OUTGOING = "we speak on it"
    INCOMING = "the peer speaks on it"


class LinkEvents(Protocol):
    """What a node wants to hear from its links."""

    def received(self, peer: int, items: list[Any]) -> None:
        """One frame's items, in order."""
        ...

    def burst_ended(self, peer: int) -> None:
        """All whole frames that have come in so far were handed up."""
        ...

    def connected(self, peer: int) -> None:
        """Messages to the peer can be sent now."""
        ...

    def accepted(self, peer: int) -> None:
        """The peer was let in, and speaks to this node from now on."""
        ...

    def lost(self, peer: int, direction: Direction) -> None:
        """An established connection with the peer ended."""
        ...


class FramedConnection(asyncio.Protocol):
    """Common part of both directions: bytes in, frames up, and a bound on silence."""

    def __init__(self, max_frame_bytes: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.decoder = FrameDecoder(HANDSHAKE_FRAME_BYTES)
        self.max_frame_bytes = max_frame_bytes
        self.last_heard_s = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.last_heard_s = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self.last_heard_s = asyncio.get_running_loop().time()
        try:
            for body in self.decoder.feed(data):
                if self.transport is None:
                    return
                self.frame_received(body)
            self.frames_ended()
        except (FrameError, msgspec.DecodeError, UnicodeDecodeError, HandshakeRefused) as error:
            # Of a text that is none msgspec says so by the second last.
            self.failed(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    def abort(self) -> None:
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()

    def frames_ended(self) -> None:
        """All whole frames of what came in were received."""

    def frame_received(self, body: bytes) -> None:
        raise AssertionError("each direction says what it does with a frame")

    def failed(self, error: Exception) -> None:
        raise AssertionError("each direction says how it fails")


async def read_frame(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    """The next frame that is not a keep-alive.  Raises FrameError where it is larger, EOFError, OSError."""
    while True:
        length = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
        if length > max_bytes:
            raise FrameError(f"an answer of {length} bytes was announced, at most {max_bytes} are expected")
        if length:
            return await reader.readexactly(length)
