"""gRPC's messages in a stream of bytes: a flag (compressed or not), four bytes of length, the message.

Source: "gRPC over HTTP2" of grpc/grpc, under "Requests" (Length-Prefixed-Message).  Frames of HTTP/2 begin and end
anywhere in a message.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import Final

from quorate.net.grpc.status import Code, GrpcError

PREFIX: Final = Struct(">BI")
PREFIX_BYTES: Final = PREFIX.size
_SHORT_PREFIXES: Final = tuple(PREFIX.pack(0, size) for size in range(256))
"""Most answers are as short."""
IDENTITY: Final = "identity"
GZIP: Final = "gzip"
ENCODINGS: Final = (IDENTITY, GZIP)
_GZIP_WINDOW_BITS: Final = 31  # zlib's largest window, and gzip's header and trailer


def encode_message(message: bytes) -> bytes:
    """With its prefix, not compressed."""
    size = len(message)
    if size < len(_SHORT_PREFIXES):
        return _SHORT_PREFIXES[size] + message
    return PREFIX.pack(0, size) + message


class MessageDecoder:
    """The messages in one direction of a call."""

    __slots__ = ("_buffer", "_encoding", "_max_message_bytes", "_needed_bytes")

    def __init__(self, max_message_bytes: int, encoding: str = IDENTITY) -> None:
        """`encoding` is one of `ENCODINGS`, the call's grpc-encoding."""
        assert encoding in ENCODINGS
        self._max_message_bytes = max_message_bytes
        self._encoding = encoding
        self._buffer = bytearray()
        self._needed_bytes = PREFIX_BYTES

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes.

        Raises GrpcError: RESOURCE_EXHAUSTED for a message that is larger than allowed (as soon as its prefix is
        there), INTERNAL for a prefix that is none and for damaged gzip.  The call is over then.
        """
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._needed_bytes:
            return []
        messages = []
        at, size = 0, len(buffer)
        while size - at >= PREFIX_BYTES:
            length = int.from_bytes(buffer[at + 1 : at + PREFIX_BYTES], "big")
            flag = buffer[at]
            if flag > 1:
                raise GrpcError(Code.INTERNAL, f"grpc: received unexpected payload format {flag}")
            if length > self._max_message_bytes:
                raise too_large(length, self._max_message_bytes)
            end = at + PREFIX_BYTES + length
            if end > size:
                self._needed_bytes = end - at
                break
            message = bytes(buffer[at + PREFIX_BYTES : end])
            messages.append(self._decompress(message) if flag else message)
            at = end
        else:
            self._needed_bytes = PREFIX_BYTES
        del buffer[:at]
        return messages

    @property
    def buffered_bytes(self) -> int:
        """Of a message that has not come whole."""
        return len(self._buffer)

    def _decompress(self, message: bytes) -> bytes:
        if self._encoding == IDENTITY:
            words = "grpc: compressed flag set with identity or empty encoding"
            raise GrpcError(Code.INTERNAL, words)
        limit_bytes = self._max_message_bytes
        inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            plain = inflater.decompress(message, limit_bytes + 1)
        except zlib.error as error:
            raise GrpcError(Code.INTERNAL, f"grpc: failed to decompress the received message {error}") from error
        if len(plain) > limit_bytes:
            raise too_large(len(plain), limit_bytes)
        if not inflater.eof:
            raise GrpcError(Code.INTERNAL, "grpc: failed to decompress the received message: unexpected EOF")
        return plain


def too_large(length: int, limit_bytes: int) -> GrpcError:
    """In grpc-go's words."""
    return GrpcError(Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({length} vs. {limit_bytes})")
