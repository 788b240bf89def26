"""How a client talks to the door of a state machine: frames of four bytes of length and a body.

    request   id (8 bytes), command
    reply     id (8 bytes), status (1 byte), result; where the command was refused, the reason as text

Replies come in any order; the id, which the client chooses, says which request is meant.  Numbers are big-endian and
unsigned.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from struct import Struct
from typing import Final

LENGTH: Final = Struct(">I")
REQUEST_HEAD: Final = Struct(">Q")
REPLY_HEAD: Final = Struct(">QB")


class Status(enum.IntEnum):
    DONE = 0
    REFUSED = 1
    """The command certainly was not applied, and never will be."""
    UNKNOWN = 2
    """It may have been applied, or may yet be."""


class BadFrame(ValueError):
    """The other end does not speak this protocol."""


def encode_request(request_id: int, command: bytes) -> bytes:
    return LENGTH.pack(REQUEST_HEAD.size + len(command)) + REQUEST_HEAD.pack(request_id) + command


def encode_reply(request_id: int, status: Status, result: bytes) -> bytes:
    return LENGTH.pack(REPLY_HEAD.size + len(result)) + REPLY_HEAD.pack(request_id, status) + result


class Frames:
    """Cuts a stream into the bodies of its frames.

    What was fed lies here until somebody takes it, so whoever does not take stops reading from the socket.
    """

    def __init__(self, head: Struct, max_frame_bytes: int | None = None) -> None:
        self._buffer = bytearray()
        self._least_bytes = head.size
        self._max_frame_bytes = max_frame_bytes

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> bytes | None:
        """The next whole body, or None.  Raises BadFrame."""
        buffer = self._buffer
        if len(buffer) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(buffer)
        if length < self._least_bytes:
            raise BadFrame(f"a frame of {length} bytes: expected at least {self._least_bytes}")
        if self._max_frame_bytes is not None and length > self._max_frame_bytes:
            raise BadFrame(f"a frame of {length} bytes: the limit is {self._max_frame_bytes}")
        end = LENGTH.size + length
        if len(buffer) < end:
            return None
        body = bytes(buffer[LENGTH.size : end])
        del buffer[:end]
        return body


def describe(data: bytes, from_client: bool) -> str:
    """Bytes on the wire in a few words, for traces."""
    return ", ".join(_labels(data, from_client))


def _labels(data: bytes, from_client: bool) -> Iterator[str]:
    head = REQUEST_HEAD if from_client else REPLY_HEAD
    frames = Frames(head)
    frames.feed(data)
    try:
        while (body := frames.take()) is not None:
            if from_client:
                (request_id,) = head.unpack_from(body)
                yield f"call #{request_id} {body[head.size :]!r}"
            else:
                request_id, status = head.unpack_from(body)
                yield f"{Status(status).name.lower()} #{request_id} {body[head.size :]!r}"
    except ValueError:
        # The middle of something larger.
        yield f"{len(data)} bytes"
