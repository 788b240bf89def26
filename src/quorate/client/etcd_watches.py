"""Watches of a client: each goes on over as many connections as it takes, from the revision after the last it saw."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from quorate.client.etcd_errors import ClientClosed
from quorate.net.grpc.client import Channel, ClientStream
from quorate.services.etcd.etcd_pb2 import (
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)

PATH: Final = "/etcdserverpb.Watch/Watch"
REQUIRE_LEADER: Final = (("hasleader", "true"),)
"""Rather than wait beside a member that knows no leader, try another."""
_NONE: Final = -1
"""The watch id of answers that are about all watches of a stream (progress), or about none (one was refused)."""


class Watch:
    """An asynchronous iterator over all that the server says of one watch, in order.

    A `created` response comes for each connection, others hold events, whole revisions each, or (without any) tell of
    progress; the last is `canceled`.  It ends there, or when the client is closed.
    """

    def __init__(self, watches: Watches, request: WatchCreateRequest) -> None:
        self.request = request
        self.next_revision = request.start_revision
        """It was told of all before this one; 0 while that is open: from now on."""
        self.is_over = False
        self._watches = watches
        self._arrived: deque[WatchResponse] = deque()
        self._woken = asyncio.Event()
        self._part: WatchResponse | None = None
        """The first fragments of a response."""

    def cancel(self) -> None:
        """Ask the server to end it; what was on its way still comes.  Without a connection it ends at once."""
        self._watches.cancel(self)

    def __aiter__(self) -> AsyncIterator[WatchResponse]:
        return self

    async def __anext__(self) -> WatchResponse:
        while not self._arrived:
            if self.is_over:
                raise StopAsyncIteration
            self._woken.clear()
            await self._woken.wait()
        return self._arrived.popleft()

    # --- the stream's side -------------------------------------------------------------------

    def came(self, response: WatchResponse) -> None:
        if self._part is not None:
            self._part.events.extend(response.events)
            self._part.fragment = response.fragment
            response = self._part
        self._part = response if response.fragment else None
        if self._part is not None:
            return
        if response.canceled:
            self.is_over = True
        elif response.events:
            self.next_revision = max(self.next_revision, response.events[-1].kv.mod_revision + 1)
        elif not response.created or not self.next_revision:
            # Progress: all before was told.  Or it has just begun, with what comes next.
            self.next_revision = max(self.next_revision, response.header.revision + 1)
        self._arrived.append(response)
        self._woken.set()

    def connection_lost(self) -> None:
        self._part = None

    def end(self) -> None:
        self.is_over = True
        self._woken.set()


class Watches:
    """All watches of a client, on one stream at a time."""

    def __init__(self) -> None:
        self._open: dict[int, Watch] = {}
        """By the id that they have on every stream."""
        self._created: dict[int, None] = {}
        """Those that the present stream knows."""
        self._cancelling: dict[int, None] = {}
        self._numbers = 0
        self._stream: ClientStream | None = None
        self._wanted = asyncio.Event()
        self._closed = False

    def add(self, request: WatchCreateRequest) -> Watch:
        """Raises ClientClosed."""
        if self._closed:
            raise ClientClosed("the client is closed")
        watch = Watch(self, request)
        self._numbers += 1
        self._open[self._numbers] = watch
        self._create(self._numbers, watch)
        self._wanted.set()
        return watch

    def _create(self, number: int, watch: Watch) -> None:
        if self._stream is not None:
            request = WatchCreateRequest()
            request.CopyFrom(watch.request)
            request.watch_id = number
            request.start_revision = watch.next_revision
            self._stream.send(WatchRequest(create_request=request).SerializeToString())

    def cancel(self, watch: Watch) -> None:
        number = next((number for number, other in self._open.items() if other is watch), None)
        if number is None:
            return
        if self._stream is None:
            del self._open[number]
            watch.end()
        else:
            self._cancelling[number] = None
            request = WatchRequest(cancel_request=WatchCancelRequest(watch_id=number))
            self._stream.send(request.SerializeToString())

    def request_progress(self) -> None:
        """Have the server tell all watches how far they are, as soon as they are up to date."""
        if self._stream is not None:
            self._stream.send(WatchRequest(progress_request=WatchProgressRequest()).SerializeToString())

    async def serve(self, channel: Channel) -> None:
        """Watch over a connection, as soon as there is anything to watch, until the stream ends.  Raises GrpcError."""
        await self._wanted.wait()
        self._stream = channel.stream(PATH, REQUIRE_LEADER)
        try:
            for number, watch in self._open.items():
                self._create(number, watch)
            async for message in self._stream:
                self._came(WatchResponse.FromString(message))
        finally:
            self._stream.cancel()
            self._stream = None
            self._created.clear()
            for number in self._cancelling:
                self._open.pop(number).end()
            self._cancelling.clear()
            for watch in self._open.values():
                watch.connection_lost()

    def _came(self, response: WatchResponse) -> None:
        number = response.watch_id
        if number == _NONE and not response.canceled:
            for created in self._created:
                self._open[created].came(response)
            return
        if number == _NONE:
            # Refused; the server answers in the order of requests.
            number = next((waiting for waiting in self._open if waiting not in self._created), _NONE)
        watch = self._open.get(number)
        if watch is None:
            return
        if response.canceled:
            del self._open[number]
            self._created.pop(number, None)
            self._cancelling.pop(number, None)
        elif response.created:
            self._created[number] = None
        watch.came(response)

    def close(self) -> None:
        self._closed = True
        for watch in self._open.values():
            watch.end()
        self._open.clear()
        self._created.clear()
