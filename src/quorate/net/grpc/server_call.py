"""One RPC on the server: the `Call` that a service holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from quorate.net.grpc.calls import Call, StreamHandler
from quorate.net.grpc.framing import MessageDecoder
from quorate.net.grpc.request import RequestHead
from quorate.net.grpc.status import Code

if TYPE_CHECKING:
    from quorate.net.grpc.server_connection import ServerConnection


class ServerCall(msgspec.Struct, eq=False):
    """See `quorate.net.grpc.calls.Call`.  Its connection makes it, keeps it while it is not over, and writes for it.

    A Struct, because there is one for every request: it is made in C.
    """

    connection: ServerConnection | None
    """None once the call is over."""
    stream_id: int
    head: RequestHead
    deadline_s: float | None = None
    decoder: MessageDecoder | None = None
    half_closed: bool = False
    """The client has sent all."""
    responding: bool = False
    """The response's headers are sent."""

    # Of a unary method.
    message: bytes | None = None
    """The request, where it came in parts or must wait."""
    held_bytes: int = 0
    """The request's size."""
    is_dispatched: bool = False
    """The service has the request."""

    # Of a streaming method.
    handler: StreamHandler | None = None
    unsent_streamed_bytes: int = 0
    """As of the connection's last flush, and all that was sent since."""
    excess_bytes: int = 0
    """Sent while more than the low-water mark was unsent."""
    holds_back: bool = False
    """The service has seen that too much is unsent: it is owed a `writable`."""

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.head.metadata

    @property
    def is_over(self) -> bool:
        return self.connection is None

    def reply(self, message: bytes) -> None:
        if self.connection is not None:
            self.connection.reply(self, message)

    def fail(self, code: Code, message: str) -> None:
        if self.connection is not None:
            self.connection.fail(self, code, message)

    def send(self, message: bytes) -> None:
        if self.connection is not None:
            self.connection.send(self, message)

    def finish(self) -> None:
        if self.connection is not None:
            self.connection.finish(self)

    def unsent_bytes(self) -> int:
        return 0 if self.connection is None else self.connection.unsent_bytes(self)

    def must_wait(self, resume: Callable[[Call], None]) -> bool:
        return self.connection is not None and self.connection.must_wait(self, resume)
