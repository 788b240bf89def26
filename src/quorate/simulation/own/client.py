"""The client of a replicated state machine.

It never sends a command twice.  Whether doing something again is safe only its caller can know, so a call whose
outcome is unknown says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, cast

from quorate.consensus.replica import RandomSource
from quorate.simulation.own.wire import REPLY_HEAD, BadFrame, Frames, Status, encode_request
from quorate.statemachine.errors import OutcomeUnknown, Refused

CONNECT_LIMIT_S: Final = 1.0
"""For one server.  Then the next one is tried."""


class StateMachineClient:
    """`servers` are "host:port".  Calls may run side by side; their commands are sent in the order of the calls.

    After a refusal, a lost connection or `timeout_s` without an answer the next server in turn is used.  Reads no
    clock but the loop's.
    """

    def __init__(self, servers: Sequence[str], random: RandomSource, timeout_s: float = 2.0) -> None:
        if not servers:
            raise ValueError("servers: expected at least one host:port")
        self._servers = [_address(server) for server in servers]
        self._next = random.randrange(0, len(servers))
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._request_id = 0

    async def call(self, command: bytes) -> bytes:
        """What the state machine answers to the command.

        Raises Refused: it is certainly not done (no server can be reached, or the cluster has no leader).
        Raises OutcomeUnknown: it may have been done, or may yet be.
        """
        link = await self._connected()
        self._request_id += 1
        answer = link.send(self._request_id, command)
        try:
            async with asyncio.timeout(self._timeout_s):
                status, result = await answer
        except TimeoutError:
            self._leave(link)
            raise OutcomeUnknown(f"no answer within {self._timeout_s:g} s") from None
        if status is Status.REFUSED:
            self._leave(link)
            raise Refused(result.decode(errors="replace"))
        if status is Status.UNKNOWN:
            self._leave(link)
            raise OutcomeUnknown("the server lost sight of the command")
        return result

    def close(self) -> None:
        """The outcome of calls under way is unknown."""
        if self._link is not None:
            self._link.transport.abort()
            self._link = None

    async def __aenter__(self) -> StateMachineClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    async def _connected(self) -> _Link:
        """Raises Refused where every server was tried once in vain."""
        async with self._connecting:
            if self._link is not None and self._link.is_open:
                return self._link
            loop = asyncio.get_running_loop()
            for _ in self._servers:
                host, port = self._servers[self._next]
                self._next = (self._next + 1) % len(self._servers)
                try:
                    async with asyncio.timeout(CONNECT_LIMIT_S):
                        _, link = await loop.create_connection(_Link, host, port)
                except (OSError, TimeoutError):
                    continue
                self._link = link
                return link
        raise Refused("no server can be reached")

    def _leave(self, link: _Link) -> None:
        """Send nothing more there; what is under way may still be answered."""
        link.retire()
        if self._link is link:
            self._link = None


class _Link(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.is_open = False
        self._frames = Frames(REPLY_HEAD)
        self._waiting: dict[int, asyncio.Future[tuple[Status, bytes]]] = {}
        self._retired = False

    def send(self, request_id: int, command: bytes) -> asyncio.Future[tuple[Status, bytes]]:
        answer: asyncio.Future[tuple[Status, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        answer.add_done_callback(lambda _: self._done(request_id))
        self.transport.write(encode_request(request_id, command))
        return answer

    def retire(self) -> None:
        """Close once nothing is under way."""
        self._retired = True
        if not self._waiting:
            self.transport.close()

    def _done(self, request_id: int) -> None:
        del self._waiting[request_id]
        if self._retired and not self._waiting:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        try:
            while (body := self._frames.take()) is not None:
                request_id, status = REPLY_HEAD.unpack_from(body)
                answer = self._waiting.get(request_id)
                if answer is not None and not answer.done():
                    answer.set_result((Status(status), body[REPLY_HEAD.size :]))
        except (BadFrame, ValueError):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(OutcomeUnknown("the connection was lost"))


def _address(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host, int(port)
