"""What a gRPC server and the service behind it say to each other.

No call is a coroutine: a handler is called with bytes and answers now or later, from the loop's thread, by the
methods of its `Call`.  So a batch of requests costs no tasks, and a batch of replies leaves in one write: what is
answered in one turn of the loop is written at the turn's end.  A handler may answer from inside of its own call.

    methods = {
        "/etcdserverpb.KV/Put": Unary(door.put),                  # door.put(call, message)
        "/etcdserverpb.Watch/Watch": Streaming(door.open_watch),  # door.open_watch(call) -> StreamHandler
    }
    server = GrpcServer(methods, ServerOptions())
    await server.start(host, port)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from quorate.net.grpc.status import Code


class Call(Protocol):
    """One RPC as the service sees it.  Answers of a call that is over (cancelled, connection lost) are dropped.

    The server ends a call whose deadline has passed with DEADLINE_EXCEEDED by itself.
    """

    @property
    def metadata(self) -> Mapping[str, str]:
        """The request's headers but for HTTP/2's own, names in lower case; several of one name joined by ", "."""
        ...

    @property
    def is_over(self) -> bool: ...

    def reply(self, message: bytes) -> None:
        """Answer a unary call: one message, then OK."""
        ...

    def fail(self, code: Code, message: str) -> None:
        """End any call with an error."""
        ...

    def send(self, message: bytes) -> None:
        """One message of a streamed answer."""
        ...

    def finish(self) -> None:
        """End a streamed answer with OK."""
        ...

    def unsent_bytes(self) -> int:
        """What was sent and waits: for the client's window of HTTP/2, or because its socket is full."""
        ...

    def must_wait(self, resume: Callable[[Call], None]) -> bool:
        """Of a unary call that is answered later: whether more than `max_unread_bytes` are unsent on its connection.

        If so, `resume(call)` is called once the client has read: ask again then.  It is not if the call ends before.
        """
        ...


class StreamHandler(Protocol):
    """What a call with a streamed request wants to hear."""

    def message(self, message: bytes) -> None:
        """One message of the client's."""
        ...

    def half_closed(self) -> None:
        """The client will send no more.  The answer may go on."""
        ...

    def writable(self) -> None:
        """All is sent after `Call.unsent_bytes`, when last asked, was more than `ServerOptions.low_water_bytes`."""
        ...

    def closed(self) -> None:
        """The call is over, however that came; called exactly once."""
        ...


@dataclass(frozen=True, slots=True)
class Unary:
    """`handle(call, message)`: it answers with `Call.reply` or `Call.fail`, now or later."""

    handle: Callable[[Call, bytes], None]


@dataclass(frozen=True, slots=True)
class Streaming:
    """Any method with a streamed request or answer.  `open(call)` is called when the headers have come."""

    open: Callable[[Call], StreamHandler]


Method: TypeAlias = Unary | Streaming


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a server tolerates.  Sizes in bytes, times in seconds."""

    max_message_bytes: int = 2 << 20
    """A larger one ends its call with RESOURCE_EXHAUSTED, in grpc-go's words."""
    max_connections: int = 10_000
    max_streams: int = 1_000
    """At a time, on one connection."""
    low_water_bytes: int = 64 << 10
    """A streamed answer that has this much unsent should pause until `StreamHandler.writable`."""
    max_unread_bytes: int = 4 << 20
    """With more than this unsent, further requests of a connection wait.  A connection is closed where services have
    streamed so much to its calls beyond the low-water mark."""
    handshake_s: float = 10.0
    """From connecting (and TLS) to the end of HTTP/2's preface."""
    drain_s: float = 5.0
    """How long `stop` waits for unary calls under way after GOAWAY."""
