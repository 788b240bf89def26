"""Calls that record what they are answered, for the parts of the door that need no server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from google.protobuf.message import Message

from quorate.net.grpc.calls import Call, StreamHandler
from quorate.net.grpc.status import Code

M = TypeVar("M", bound=Message)


class RecordedCall:
    """`quorate.net.grpc.calls.Call`: the client's side says when it reads."""

    def __init__(self) -> None:
        self.path = ""
        self.metadata: Mapping[str, str] = {}
        self.peer = "test"
        self.deadline_s: float | None = None
        self.sent: list[bytes] = []
        self.failure: tuple[Code, str] | None = None
        self.finished = False
        self.reads = True
        """False: what is sent waits."""
        self.unsent = 0
        self.most_unsent = 0
        self.handler: StreamHandler | None = None
        """Told when the client reads again, or where the call fails."""

    @property
    def is_over(self) -> bool:
        return self.finished or self.failure is not None

    def reply(self, message: bytes) -> None:
        self.send(message)
        self.finish()

    def fail(self, code: Code, message: str) -> None:
        if not self.is_over:
            self.failure = (code, message)
            if self.handler is not None:
                self.handler.closed()

    def send(self, message: bytes) -> None:
        if not self.is_over:
            self.sent.append(message)
            if not self.reads:
                self.unsent += len(message)
                self.most_unsent = max(self.most_unsent, self.unsent)

    def finish(self) -> None:
        self.finished = True

    def unsent_bytes(self) -> int:
        return self.unsent

    def must_wait(self, resume: Callable[[Call], None]) -> bool:
        return False

    def read_all(self) -> None:
        """The client has read what was sent; it does not read on where `reads` is False."""
        self.unsent = 0
        if self.handler is not None:
            self.handler.writable()

    def take(self, kind: type[M]) -> list[M]:
        """What was sent since the last time."""
        sent, self.sent = self.sent, []
        return [kind.FromString(message) for message in sent]
