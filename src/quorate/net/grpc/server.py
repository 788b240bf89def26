"""A gRPC server on asyncio: it listens, keeps its connections, and flushes them at the end of each turn of the loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

from quorate.net.grpc.calls import Method, ServerOptions
from quorate.net.grpc.deadlines import Deadlines
from quorate.net.grpc.server_call import ServerCall
from quorate.net.grpc.server_connection import ServerConnection
from quorate.net.http2.limits import Limits

BACKLOG: Final = 1024
LOOK_AFTER_S: Final = 10.0
MAX_HELD_BYTES: Final = 32 << 20
"""Requests of all connections that are not answered, before clients that send large ones get no more credit."""
MAX_INFLATED_BYTES: Final = 4 << 20
"""Compressed messages in one turn of the loop, as they are without: some 20 ms.  A kilobyte may become a megabyte."""
CLOSING_S: Final = 1.0
"""How long a client that was told of the server's end has to take its last answers."""


class Counters:
    """Since the start, for metrics."""

    __slots__ = (
        "calls",
        "calls_failed",
        "calls_refused",
        "connections",
        "connections_cut",
        "connections_failed",
        "connections_refused",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.connections_refused = 0
        """There were too many."""
        self.connections_failed = 0
        """Their clients broke the rules of HTTP/2."""
        self.connections_cut = 0
        """No HTTP/2 in time, silent for too long, or answers not read."""
        self.calls = 0
        self.calls_refused = 0
        """Of no method of ours, or not gRPC."""
        self.calls_failed = 0
        """Ended with another status than OK, refused ones apart."""


class GrpcServer:
    """Serves `methods`, `/package.Service/Method` -> what handles it.

    The loop may be asyncio's, uvloop's or the simulated one.
    """

    def __init__(self, methods: Mapping[str, Method], options: ServerOptions) -> None:
        self.methods = methods
        self.services = frozenset(path.split("/")[1] for path in methods)
        self.options = options
        self.limits = Limits(max_streams=options.max_streams)
        self.counters = Counters()
        self.deadlines: Deadlines[ServerCall]
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server | None = None
        self._open: dict[ServerConnection, None] = {}
        """No set, whose order is that of addresses in memory: a simulated run is the same every time."""
        self._scheduled: list[ServerConnection] = []
        self._starved: dict[ServerConnection, None] = {}
        """To be given credit when less is held."""
        self._held_bytes = 0
        """Of unary calls that are not answered, as of each connection's last flush."""
        self.inflated_bytes = 0
        """In this turn."""
        self._looking: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event
        self._is_stopping = False

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Raises OSError where the address cannot be listened on.  Without `tls`: HTTP/2 with prior knowledge."""
        self._loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(_expire)
        self._empty = asyncio.Event()
        timeout_s = None if tls is None else self.options.handshake_s
        self._server = await self._loop.create_server(
            lambda: ServerConnection(self), host, port, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=timeout_s
        )
        self._looking = self._loop.call_later(LOOK_AFTER_S, self._look_after)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def connections(self) -> int:
        return len(self._open)

    async def stop(self) -> None:
        """Say GOAWAY, wait for unary calls under way up to `drain_s`, end what is left with UNAVAILABLE."""
        if self._server is None:
            return
        self._is_stopping = True
        self._server.close()
        assert self._looking is not None
        self._looking.cancel()
        for connection in list(self._open):
            connection.go_away()
        if not await self._emptied(self.options.drain_s):
            for connection in list(self._open):
                connection.end_calls()
            if not await self._emptied(CLOSING_S):
                for connection in list(self._open):
                    connection.abort()
                await self._emptied(CLOSING_S)
        self.deadlines.close()

    async def _emptied(self, limit_s: float) -> bool:
        """Wait for the last connection's end; False where it does not come in time."""
        if self._open:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), limit_s)
            except TimeoutError:
                return False
        return True

    # --- its connections' side -----------------------------------------------------------------

    def admit(self, connection: ServerConnection) -> bool:
        """False where there are too many, or the server has stopped listening since."""
        if self._is_stopping:
            return False
        if len(self._open) >= self.options.max_connections:
            self.counters.connections_refused += 1
            return False
        self.counters.connections += 1
        self._open[connection] = None
        return True

    def dismiss(self, connection: ServerConnection) -> None:
        """No effect where it was not admitted."""
        self._open.pop(connection, None)
        self._starved.pop(connection, None)
        if not self._open:
            self._empty.set()

    def schedule(self, connection: ServerConnection) -> None:
        """Flush it at the end of this turn; it is not scheduled yet."""
        connection.is_scheduled = True
        if not self._scheduled:
            self._loop.call_soon(self._flush)
        self._scheduled.append(connection)

    def hold(self, more_bytes: int) -> None:
        """A connection holds so much more, or less, than when it last said so."""
        self._held_bytes += more_bytes
        if self._starved and not self.holds_too_much:
            starved, self._starved = self._starved, {}
            for connection in starved:
                if not connection.is_scheduled:
                    self.schedule(connection)

    @property
    def holds_too_much(self) -> bool:
        return self._held_bytes > MAX_HELD_BYTES

    @property
    def is_full(self) -> bool:
        """Nothing should be decompressed now."""
        return self.holds_too_much or self.inflated_bytes > MAX_INFLATED_BYTES

    def starve(self, connection: ServerConnection) -> None:
        """Flush it when there is room."""
        self._starved[connection] = None

    def _flush(self) -> None:
        connections, self._scheduled = self._scheduled, []
        self.inflated_bytes = 0
        flushed = 0
        try:
            for connection in connections:
                flushed += 1
                connection.flush()
        finally:
            # A service's mistake with one client must not silence the others.
            for connection in connections[flushed:]:
                self.schedule(connection)

    def _look_after(self) -> None:
        now_s = self._loop.time()
        for connection in list(self._open):
            connection.look_after(now_s)
        self._looking = self._loop.call_later(LOOK_AFTER_S, self._look_after)


def _expire(call: ServerCall) -> None:
    if call.connection is not None:
        call.connection.expire(call)
