"""A request's bytes become its message, or the client hears that they cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from quorate.net.grpc.calls import Call
from quorate.net.grpc.status import Code

UnaryHandler: TypeAlias = Callable[[Call, bytes], None]
"""`quorate.net.grpc.calls.Unary.handle`."""

M = TypeVar("M", bound=Message)


def decode(kind: type[M], call: Call, message: bytes) -> M | None:
    """None where the bytes are not such a message: then the call has failed, with the status that grpc-go gives."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        call.fail(Code.INTERNAL, f"grpc: error unmarshalling request: {error}")
        return None
