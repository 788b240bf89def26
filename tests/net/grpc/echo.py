"""A service that answers what it is asked, in every kind of call, and a server of it in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import queue
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from quorate.net.grpc.calls import Call, Method, ServerOptions, Streaming, Unary
from quorate.net.grpc.server import GrpcServer
from quorate.net.grpc.status import Code

T = TypeVar("T")
HOST = "127.0.0.1"
LIMIT_S = 30.0
"""Of any wait: a test that reaches it has failed."""


class EchoService:
    """Methods of `test.Echo`; `told` has what its handlers were told, for tests to wait for."""

    def __init__(self) -> None:
        self.told: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.kept: list[Call] = []
        """Calls of Keep, not answered yet."""

    def methods(self) -> dict[str, Method]:
        unary = {"Echo": self.echo, "Later": self.later, "Metadata": self.metadata, "Fail": self.fail}
        unary["Large"] = self.large
        streaming: dict[str, Callable[[Call, EchoService], _Stream]] = {
            "Join": _Join,
            "Repeat": _Repeat,
            "Bidi": _Bidi,
            "Flood": _Flood,
            "Heedless": _Heedless,
        }
        methods: dict[str, Method] = {f"/test.Echo/{name}": Unary(handle) for name, handle in unary.items()}
        methods["/test.Echo/Keep"] = Unary(self.keep)
        for name, make in streaming.items():
            methods[f"/test.Echo/{name}"] = Streaming(lambda call, make=make: make(call, self))  # type: ignore[misc]
        return methods

    def echo(self, call: Call, message: bytes) -> None:
        call.reply(message)

    def later(self, call: Call, message: bytes) -> None:
        asyncio.get_running_loop().call_later(0.01, call.reply, message)

    def metadata(self, call: Call, message: bytes) -> None:
        call.reply(json.dumps(dict(call.metadata)).encode())

    def fail(self, call: Call, message: bytes) -> None:
        code, _, text = message.decode("utf-8", "replace").partition(" ")
        call.fail(Code(int(code)) if code.isdecimal() and 0 < int(code) <= 16 else Code.INVALID_ARGUMENT, text)

    def large(self, call: Call, message: bytes) -> None:
        """Answered a turn later, by a million bytes, and no sooner than the client has read others."""
        asyncio.get_running_loop().call_soon(self._answer_large, call)

    def _answer_large(self, call: Call) -> None:
        if not call.must_wait(self._answer_large):
            call.reply(bytes(1_000_000))

    def keep(self, call: Call, message: bytes) -> None:
        self.kept.append(call)
        self.told.put(("kept", message))
        self._look_at(call)

    def _look_at(self, call: Call) -> None:
        """A unary method is not told of the end of a call; it looks when it wants to know."""
        if call.is_over:
            self.told.put(("over", b""))
        else:
            asyncio.get_running_loop().call_later(0.01, self._look_at, call)

    def wait_for(self, what: str) -> bytes:
        """Skip what was told until this; raises queue.Empty where it does not come."""
        while True:
            name, message = self.told.get(timeout=LIMIT_S)
            if name == what:
                return message


class _Stream:
    """Ends its answer when the client has ended the request."""

    def __init__(self, call: Call, service: EchoService) -> None:
        self.call = call
        self.service = service
        self.closings = 0
        service.told.put(("opened", b""))

    def message(self, message: bytes) -> None:
        assert not self.closings, "nothing is told of a call that is over"
        self.take(message)

    def take(self, message: bytes) -> None:
        raise AssertionError("each method says what it does with a message")

    def half_closed(self) -> None:
        assert not self.closings, "nothing is told of a call that is over"
        self.end()

    def end(self) -> None:
        self.call.finish()

    def writable(self) -> None:
        self.service.told.put(("writable", b""))

    def closed(self) -> None:
        self.closings += 1
        assert self.closings == 1
        assert self.call.is_over
        self.service.told.put(("closed", type(self).__name__.encode()))


class _Join(_Stream):
    """One answer of all messages."""

    def __init__(self, call: Call, service: EchoService) -> None:
        super().__init__(call, service)
        self.messages: list[bytes] = []

    def take(self, message: bytes) -> None:
        self.messages.append(message)

    def end(self) -> None:
        self.call.reply(b"".join(self.messages))


class _Repeat(_Stream):
    """`b"3 x"` is answered by three messages of x."""

    def take(self, message: bytes) -> None:
        count, _, what = message.partition(b" ")
        if count.isdigit():
            for _ in range(int(count)):
                self.call.send(what)
        else:
            self.call.fail(Code.INVALID_ARGUMENT, "how often?")


class _Bidi(_Stream):
    def take(self, message: bytes) -> None:
        if message == b"fail":
            self.call.fail(Code.ABORTED, "as you say")
        else:
            self.call.send(message)


class _Flood(_Stream):
    """Any number of messages of 10,000 bytes, as long as the client reads them."""

    def __init__(self, call: Call, service: EchoService) -> None:
        super().__init__(call, service)
        self.left = 0
        self.most_unsent_bytes = 0

    def take(self, message: bytes) -> None:
        if message.isdigit():
            self.left = int(message)
            self._go_on()
        else:
            self.call.fail(Code.INVALID_ARGUMENT, "how many?")

    def end(self) -> None:
        """It ends when all is sent."""

    def writable(self) -> None:
        super().writable()
        self._go_on()

    def _go_on(self) -> None:
        while self.left and not self.call.is_over:
            if self.call.unsent_bytes() > ServerOptions().low_water_bytes:
                self.service.told.put(("full", str(self.call.unsent_bytes()).encode()))
                return
            self.left -= 1
            self.call.send(bytes(10_000))
        if not self.call.is_over:
            self.call.finish()


class _Heedless(_Stream):
    """Answers each message by one of 100,000 bytes, whether the client reads them or not."""

    def take(self, message: bytes) -> None:
        self.call.send(bytes(100_000))


class ServerThread:
    """A server of the echo service on a loop in a thread: blocking clients need one."""

    def __init__(
        self,
        options: ServerOptions | None = None,
        tls: ssl.SSLContext | None = None,
        *,
        service: EchoService | None = None,
        on_uvloop: bool = False,
    ) -> None:
        self.service = service or EchoService()
        self.port = 0
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop() if on_uvloop else asyncio.new_event_loop()
        self.errors: list[str] = []
        """What went wrong on the loop."""
        self._options = options or ServerOptions()
        self._tls = tls
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ServerThread:
        self.loop.set_exception_handler(lambda _, context: self.errors.append(str(context)))
        self._thread.start()
        self.do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT_S)
        self.loop.close()
        assert not self.errors

    async def _start(self) -> None:
        self.server = GrpcServer(self.service.methods(), self._options)
        await self.server.start(HOST, 0, self._tls)
        self.port = self.server.port

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(LIMIT_S)

    def call(self, function: Callable[[], T]) -> T:
        """Call it on the server's loop."""

        async def work() -> T:
            return function()

        return self.do(work())

    @property
    def target(self) -> str:
        return f"{HOST}:{self.port}"
