"""One RPC on the server: the `Call` that a service holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from quorate.net.grpc.calls import Call, StreamHandler
from quorate.net.grpc.framing import MessageDecoder
from quorate.net.grpc.request import RequestHead
from quorate.net.grpc.status import Code

if TYPE_CHECKING:
    from quorate.net.grpc.server_connection import ServerConnection


class ServerCall:
    """See `quorate.net.grpc.calls.Call`.  Its connection makes it, keeps it while it is not over, and writes for it."""

    __slots__ = (
        "connection",
        "deadline_s",
        "decoder",
        "excess_bytes",
        "half_closed",
        "handler",
        "head",
        "held_bytes",
        "holds_back",
        "is_dispatched",
        "message",
        "metadata",
        "path",
        "peer",
        "responding",
        "stream_id",
        "unsent_streamed_bytes",
    )

    def __init__(self, connection: ServerConnection, stream_id: int, head: RequestHead) -> None:
        self.connection: ServerConnection | None = connection
        """None once the call is over."""
        self.stream_id = stream_id
        self.head = head
        self.path: str = head.path
        self.metadata: Mapping[str, str] = head.metadata
        self.peer: str = connection.peer
        self.deadline_s: float | None = None
        self.decoder: MessageDecoder | None = None
        self.half_closed = False
        """The client has sent all."""
        self.responding = False
        """The response's headers are sent."""

        # Of a unary method.
        self.message: bytes | None = None
        """The request, where it came in parts or must wait."""
        self.held_bytes = 0
        """The request's size."""
        self.is_dispatched = False
        """The service has the request."""

        # Of a streaming method.
        self.handler: StreamHandler | None = None
        self.unsent_streamed_bytes = 0
        """As of the connection's last flush, and all that was sent since."""
        self.excess_bytes = 0
        """Sent while more than the low-water mark was unsent."""
        self.holds_back = False
        """The service has seen that too much is unsent: it is owed a `writable`."""

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
