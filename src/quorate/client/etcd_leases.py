"""Keep-alives of a client: one stream for all of its leases."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from quorate.client.etcd_errors import OutcomeUnknown
from quorate.client.etcd_watches import REQUIRE_LEADER
from quorate.net.grpc.client import Channel, ClientStream
from quorate.services.etcd.etcd_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse

PATH: Final = "/etcdserverpb.Lease/LeaseKeepAlive"


class KeepAlives:
    """Sends them over the present connection; those that are not answered by its end are lost."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[asyncio.Future[LeaseKeepAliveResponse]]] = {}
        """By lease; the server answers those of one lease in their order."""
        self._stream: ClientStream | None = None
        self._wanted = asyncio.Event()

    async def send(self, lease: int) -> LeaseKeepAliveResponse:
        """Its TTL is 0 where there is no such lease.  Raises OutcomeUnknown where no answer came."""
        future: asyncio.Future[LeaseKeepAliveResponse] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lease, deque()).append(future)
        self._wanted.set()
        self._send(lease)
        # Who gives up waiting leaves it in its place: the answer that comes is not that of the next one.
        return await future

    def _send(self, lease: int) -> None:
        if self._stream is not None:
            self._stream.send(LeaseKeepAliveRequest(ID=lease).SerializeToString())

    async def serve(self, channel: Channel) -> None:
        """Over a connection, as soon as there is anything to send, until the stream ends.  Raises GrpcError."""
        await self._wanted.wait()
        self._stream = channel.stream(PATH, REQUIRE_LEADER)
        try:
            for lease, waiting in self._waiting.items():
                for _ in waiting:
                    self._send(lease)
            async for message in self._stream:
                self._came(LeaseKeepAliveResponse.FromString(message))
        finally:
            self._stream.cancel()
            self._stream = None
            for lease in list(self._waiting):
                self._lose(lease)
            # Nothing is sent again: whoever waited knows that it may not have been heard.
            self._wanted.clear()

    def _came(self, response: LeaseKeepAliveResponse) -> None:
        waiting = self._waiting.get(response.ID)
        if not waiting:
            return
        future = waiting.popleft()
        if not waiting:
            del self._waiting[response.ID]
        if not future.done():
            future.set_result(response)

    def _lose(self, lease: int) -> None:
        for future in self._waiting.pop(lease, ()):
            if not future.done():
                future.set_exception(OutcomeUnknown(f"keep-alive of lease {lease:x}: the connection was lost"))
