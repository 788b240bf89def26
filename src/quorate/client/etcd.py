"""A small asyncio client of etcd's v3 API, for Quorate and for etcd itself.

It keeps one connection at a time to one of its members, and goes on to the next when that is lost, does not answer, or
says that it cannot.  Watches go on by themselves where they were.  What it never does is to send a request twice: a
call whose answer did not come raises OutcomeUnknown, and only the caller can know whether asking again is safe.  Calls
made while there is no connection wait for one, as long as a call may take.

Requests and answers are etcd's messages (`quorate.services.etcd.etcd_pb2`), as its API reference has them:

    async with EtcdClient(["127.0.0.1:2379"], Random()) as client:
        await client.put(PutRequest(key=b"greeting", value=b"hello"))
        answer = await client.range(RangeRequest(key=b"greeting"))
        watch = client.watch(WatchCreateRequest(key=b"greeting", start_revision=answer.header.revision + 1))
        async for response in watch:
            print(response.events)

It runs on any asyncio loop, reads time from the loop alone and takes its randomness from the caller, so it also runs on
a simulated loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from quorate.client.etcd_errors import ClientClosed, EtcdClientError, NotDone, OutcomeUnknown, error_for, is_in_trouble
from quorate.client.etcd_leases import KeepAlives
from quorate.client.etcd_watches import Watch, Watches
from quorate.consensus.replica import RandomSource
from quorate.net.grpc.client import Channel, NotSentError
from quorate.net.grpc.status import GrpcError
from quorate.services.etcd.etcd_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
)

LOG: Final = logging.getLogger("quorate.client.etcd")

CONNECT_LIMIT_S: Final = 2.0
RETRY_DELAY_MS: Final = 100
"""Between two rounds through the members, and before a stream is opened again: as long again by chance."""


class _Link:
    """A connection while it is the present one."""

    def __init__(self, channel: Channel, member: str) -> None:
        self.channel = channel
        self.member = member
        self.dropped = asyncio.Event()
        """Not to be used any more."""


class EtcdClient:
    """`endpoints` are "host:port", one or more; a call takes at most `timeout_s` seconds.

    Every call raises NotDone, with etcd's error where a member refused it, or OutcomeUnknown; of what only reads,
    both mean that there is no answer.
    """

    def __init__(self, endpoints: Sequence[str], random: RandomSource, timeout_s: float = 7.0) -> None:
        if not endpoints:
            raise ValueError("endpoints: expected at least one host:port")
        self._members = [_host_and_port(endpoint) for endpoint in endpoints]
        self._random = random
        self._timeout_s = timeout_s
        self.connections = 0
        """So far: while a call waits for its answer this does not change, unless the call fails."""
        self.member = ""
        """host:port of the newest connection."""
        self._watches = Watches()
        self._keep_alives = KeepAlives()
        self._link: _Link | None = None
        self._linked = asyncio.Event()
        """Set while there is a link."""
        self._may_connect = asyncio.Event()
        self._may_connect.set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect.  Calls may be made at once: they wait."""
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(_report)

    async def close(self) -> None:
        """Calls under way end with OutcomeUnknown, and watches end."""
        self._closed = True
        self._watches.close()
        self._linked.set()  # whoever waits for a connection is told
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __aenter__(self) -> EtcdClient:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def drop_connection(self) -> None:
        """Cut the connection, and go on to the next member."""
        if self._link is not None:
            self._leave(self._link, "the caller dropped the connection")

    def suspend(self) -> None:
        """Cut the connection and look for no other before `resume`, as if the process stood still; calls wait."""
        self._may_connect.clear()
        self.drop_connection()

    def resume(self) -> None:
        self._may_connect.set()

    # --- keys --------------------------------------------------------------------------------

    async def range(self, request: RangeRequest) -> RangeResponse:
        return RangeResponse.FromString(await self._call("KV/Range", request.SerializeToString()))

    async def put(self, request: PutRequest) -> PutResponse:
        return PutResponse.FromString(await self._call("KV/Put", request.SerializeToString()))

    async def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        return DeleteRangeResponse.FromString(await self._call("KV/DeleteRange", request.SerializeToString()))

    async def txn(self, request: TxnRequest) -> TxnResponse:
        return TxnResponse.FromString(await self._call("KV/Txn", request.SerializeToString()))

    async def compact(self, request: CompactionRequest) -> CompactionResponse:
        return CompactionResponse.FromString(await self._call("KV/Compact", request.SerializeToString()))

    # --- watches -----------------------------------------------------------------------------

    def watch(self, request: WatchCreateRequest) -> Watch:
        """Begins as soon as there is a connection.  `watch_id` is the client's own affair."""
        return self._watches.add(request)

    def request_progress(self) -> None:
        """All watches are told how far they are, as soon as they are up to date; nobody is without a connection."""
        self._watches.request_progress()

    # --- leases ------------------------------------------------------------------------------

    async def lease_grant(self, request: LeaseGrantRequest) -> LeaseGrantResponse:
        """The server draws the ID where the request has none."""
        return LeaseGrantResponse.FromString(await self._call("Lease/LeaseGrant", request.SerializeToString()))

    async def lease_revoke(self, request: LeaseRevokeRequest) -> LeaseRevokeResponse:
        return LeaseRevokeResponse.FromString(await self._call("Lease/LeaseRevoke", request.SerializeToString()))

    async def lease_time_to_live(self, request: LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse:
        """Its TTL is -1 where there is no such lease."""
        answer = await self._call("Lease/LeaseTimeToLive", request.SerializeToString())
        return LeaseTimeToLiveResponse.FromString(answer)

    async def lease_leases(self, request: LeaseLeasesRequest) -> LeaseLeasesResponse:
        return LeaseLeasesResponse.FromString(await self._call("Lease/LeaseLeases", request.SerializeToString()))

    async def keep_alive(self, lease: int) -> LeaseKeepAliveResponse:
        """Once: the lease lasts for the answer's TTL from when this was called.  TTL 0: there is no such lease."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._keep_alives.send(lease)
        except TimeoutError:
            self._leave_present("a keep-alive was not answered")
            raise OutcomeUnknown(f"keep-alive of lease {lease:x}: no answer within {self._timeout_s:g} s") from None

    # --- requests ----------------------------------------------------------------------------

    async def _call(self, method: str, message: bytes) -> bytes:
        until_s = asyncio.get_running_loop().time() + self._timeout_s
        link = await self._connected(method)
        left_s = max(until_s - asyncio.get_running_loop().time(), 0.0)
        try:
            return await link.channel.unary(f"/etcdserverpb.{method}", message, left_s)
        except GrpcError as error:
            if is_in_trouble(error):
                self._leave(link, error.message)
            raise error_for(error, method) from error

    async def _connected(self, what: str) -> _Link:
        """Raises NotDone where there is no connection in time."""
        try:
            async with asyncio.timeout(self._timeout_s):
                while self._link is None and not self._closed:
                    await self._linked.wait()
        except TimeoutError:
            raise NotDone(f"{what}: no connection within {self._timeout_s:g} s") from None
        if self._closed or self._link is None:
            raise ClientClosed(f"{what}: the client is closed")
        return self._link

    def _leave_present(self, why: str) -> None:
        if self._link is not None:
            self._leave(self._link, why)

    def _leave(self, link: _Link, why: str) -> None:
        """The next member may do better."""
        if not link.dropped.is_set():
            LOG.info("leaving %s: %s", link.member, why)
            link.dropped.set()
            if self._link is link:
                self._link = None
                self._linked.clear()

    # --- connections -------------------------------------------------------------------------

    async def _run(self) -> None:
        """Connect, serve, and connect again, until the client is closed."""
        members = _shuffled(self._members, self._random)
        while True:
            for host, port in members:
                await self._may_connect.wait()
                await self._use(host, port)
            await asyncio.sleep(self._retry_delay_s())

    def _retry_delay_s(self) -> float:
        return (RETRY_DELAY_MS + self._random.randrange(0, RETRY_DELAY_MS)) / 1000

    async def _use(self, host: str, port: int) -> None:
        """One member, for as long as that goes well."""
        channel = Channel(host, port)
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await channel.connect()
        except (NotSentError, TimeoutError) as error:
            LOG.info("no connection to %s:%d: %s", host, port, error)
            return
        if not self._may_connect.is_set():
            await channel.close()
            return
        link = _Link(channel, f"{host}:{port}")
        self.connections += 1
        self.member = link.member
        self._link = link
        self._linked.set()
        streams = [
            asyncio.ensure_future(self._keep_stream(link, serve))
            for serve in (self._watches.serve, self._keep_alives.serve)
        ]
        try:
            await link.dropped.wait()
        finally:
            self._leave(link, "the client was closed")
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            await channel.close()

    async def _keep_stream(self, link: _Link, serve: Callable[[Channel], Awaitable[None]]) -> None:
        """Open it again where it ends, as long as the member is not in trouble."""
        while True:
            try:
                await serve(link.channel)
            except GrpcError as error:
                if is_in_trouble(error):
                    self._leave(link, error.message)
                    return
                LOG.info("a stream to %s ended: %s", link.member, error)
            await asyncio.sleep(self._retry_delay_s())


def _report(task: asyncio.Task[None]) -> None:
    """It ends by being cancelled; anything else is a bug, which must not wait for whoever asks."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        task.get_loop().call_exception_handler({"message": "the etcd client failed", "exception": error, "task": task})


def _host_and_port(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"endpoint {endpoint!r}: expected host:port")
    return host.strip("[]"), int(port)


def _shuffled(members: Sequence[tuple[str, int]], random: RandomSource) -> list[tuple[str, int]]:
    """So that not all clients begin with the same member."""
    start = random.randrange(0, len(members))
    return [*members[start:], *members[:start]]


__all__ = ["ClientClosed", "EtcdClient", "EtcdClientError", "NotDone", "OutcomeUnknown", "Watch"]
