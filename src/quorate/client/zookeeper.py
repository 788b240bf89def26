"""A small asyncio client of ZooKeeper's protocol, for Quorate and for ZooKeeper itself.

It keeps one session over as many connections as it takes: when a connection is lost it
tries its servers in turn, resumes the session and sets its watches again.  Calls are
pipelined; each answers in the order of the calls.

What it never does is to send a request twice.  A call whose connection was lost before the
answer raises ConnectionLoss, and only the caller can know whether doing it again is safe.
Calls made while there is no connection wait for the next one, in order.

It runs on any asyncio loop, reads time from the loop alone and takes its randomness from
the caller, so it also runs on a simulated loop.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from quorate.client.zookeeper_errors import (
    ClientClosed,
    ConnectionLoss,
    MultiFailed,
    NoNode,
    SessionExpired,
    ZooKeeperError,
    error_for,
)
from quorate.client.zookeeper_link import Link, Request
from quorate.client.zookeeper_watches import Watcher, WatchEvent, WatchList
from quorate.consensus.replica import RandomSource
from quorate.services.zookeeper.jute import Reader, pack_buffer
from quorate.services.zookeeper.protocol import (
    ANYONE,
    AccessRule,
    Check,
    ConnectRequest,
    Create,
    Delete,
    MultiItem,
    MultiResult,
    Op,
    PathAndWatch,
    SetACL,
    SetData,
    Stat,
    WatcherEvent,
    pack_multi,
    read_acl,
    read_multi_results,
)

LOG: Final = logging.getLogger("quorate.client.zookeeper")

_EPHEMERAL: Final = 1
_SEQUENTIAL: Final = 2
RETRY_DELAY_MS: Final = 100
"""Between two rounds through the servers: as long again by chance, so that clients do not come all at once."""


class State(enum.Enum):
    CONNECTING = "looking for a server"
    CONNECTED = "connected"
    EXPIRED = "the session has expired"
    CLOSED = "closed"


class Transaction:
    """Operations for one `multi`, in order.  Paths are text, as everywhere in the client."""

    def __init__(self) -> None:
        self.items: list[MultiItem] = []

    def create(
        self,
        path: str,
        data: bytes = b"",
        *,
        ephemeral: bool = False,
        sequential: bool = False,
        acl: Sequence[AccessRule] = ANYONE,
    ) -> Transaction:
        self.items.append(Create(path.encode(), data, tuple(acl), _flags(ephemeral, sequential)))
        return self

    def delete(self, path: str, version: int = -1) -> Transaction:
        self.items.append(Delete(path.encode(), version))
        return self

    def set(self, path: str, data: bytes, version: int = -1) -> Transaction:
        self.items.append(SetData(path.encode(), data, version))
        return self

    def check(self, path: str, version: int) -> Transaction:
        self.items.append(Check(path.encode(), version))
        return self


class ZooKeeperClient:
    """One session.  `hosts` are "host:port"; `timeout_ms` is asked for, the server may grant another.

    Every call may raise ConnectionLoss, SessionExpired or ClientClosed besides what its
    docstring names; see `zookeeper_errors`.  A `version` of -1 means any.  A watch is
    called once, with a WatchEvent, on the loop.
    """

    def __init__(self, hosts: Sequence[str], random: RandomSource, timeout_ms: int = 10_000) -> None:
        if not hosts:
            raise ValueError("hosts: expected at least one host:port")
        self._hosts = [_host_and_port(host) for host in hosts]
        self._random = random
        self._asked_timeout_ms = timeout_ms
        self.timeout_ms = timeout_ms
        self.session_id = 0
        self.password = bytes(16)
        self.last_zxid = 0
        self.state = State.CONNECTING
        self.vouched_at_s: float | None = None
        """When the newest of the answered pings was sent, in the loop's time: the session lasts a timeout from then."""
        self.server = ""
        """host:port of the newest connection."""
        self.connections = 0
        """Of this session so far.  Calls made while there is none go over the next."""
        self.arrivals = 0
        """Answers and events read so far, over all connections: a watch is called while its event is the newest."""
        self.answer_zxid = 0
        self.answer_arrival = 0
        """Of the answer (also an error of the server's) that the running task got last, the zxid in its header and
        its number among the arrivals; to be read before the next await."""
        self.unasked_events = 0
        """Events for which no watch was waiting."""
        self.broken_connections = 0
        """Connections that were given up because the server sent what is not ZooKeeper's protocol."""
        self._watches = WatchList()
        self._unsent: deque[Request] = deque()
        self._xid = 0
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._may_connect = asyncio.Event()
        self._may_connect.set()
        self._changed = asyncio.Event()
        """Set, and replaced, whenever `state` changes."""

    # --- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Return once connected.  Tries until then: bound it with asyncio.timeout."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._run_ended)
        await self.wait_for(State.CONNECTED)

    async def wait_for(self, *states: State) -> State:
        """Return when one of `states` is reached.  Raises SessionExpired or ClientClosed where none can be."""
        while self.state not in states:
            if self.state is State.EXPIRED:
                raise SessionExpired(f"session 0x{self.session_id:x}")
            if self.state is State.CLOSED:
                raise ClientClosed("the client is closed")
            await self._changed.wait()
        return self.state

    async def close(self) -> bool:
        """End the session, and with it its ephemeral nodes; where there is no connection, it is left to expire.

        True where the server has confirmed it.
        """
        confirmed = False
        if self._link is not None and self.state is State.CONNECTED:
            try:
                async with asyncio.timeout(self.timeout_ms / 3000):
                    await self._call(Op.CLOSE_SESSION, b"", "close")
                confirmed = True
            except (ZooKeeperError, TimeoutError) as error:
                LOG.info("session 0x%x was not closed in an orderly way: %s", self.session_id, error)
        self.abandon()
        if self._task is not None:
            await asyncio.wait([self._task])
        return confirmed

    def abandon(self) -> None:
        """Stop at once, without a word to the server: the session lives on until it expires."""
        self._end(State.CLOSED, ClientClosed("the client was closed"))
        if self._link is not None:
            self._link.abort("the client was closed")
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> ZooKeeperClient:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def drop_connection(self) -> None:
        """Cut the connection; the client resumes its session on the next server."""
        if self._link is not None:
            self._link.abort("the caller dropped the connection")

    def suspend(self) -> None:
        """Cut the connection and look for no other before `resume`, as if the process stood still; calls wait.

        Where that takes longer than the session's timeout, the session expires.
        """
        self._may_connect.clear()
        self.drop_connection()

    def resume(self) -> None:
        self._may_connect.set()

    # --- calls ------------------------------------------------------------------------------

    async def create(
        self,
        path: str,
        data: bytes = b"",
        *,
        ephemeral: bool = False,
        sequential: bool = False,
        acl: Sequence[AccessRule] = ANYONE,
    ) -> str:
        """The path made.  Raises NodeExists, NoNode (of the parent), NoChildrenForEphemerals, InvalidACL."""
        record = Create(path.encode(), data, tuple(acl), _flags(ephemeral, sequential)).encode()
        body = await self._call(Op.CREATE, record, f"create {path}")
        return Reader(body).string("path").decode()

    async def create2(
        self,
        path: str,
        data: bytes = b"",
        *,
        ephemeral: bool = False,
        sequential: bool = False,
        acl: Sequence[AccessRule] = ANYONE,
    ) -> tuple[str, Stat]:
        """As create; also the new node's stat."""
        record = Create(path.encode(), data, tuple(acl), _flags(ephemeral, sequential)).encode()
        reader = Reader(await self._call(Op.CREATE2, record, f"create2 {path}"))
        return reader.string("path").decode(), Stat.decode(reader)

    async def delete(self, path: str, version: int = -1) -> None:
        """Raises NoNode, BadVersion, NotEmpty."""
        await self._call(Op.DELETE, Delete(path.encode(), version).encode(), f"delete {path}")

    async def set(self, path: str, data: bytes, version: int = -1) -> Stat:
        """Raises NoNode, BadVersion."""
        body = await self._call(Op.SET_DATA, SetData(path.encode(), data, version).encode(), f"set {path}")
        return Stat.decode(Reader(body))

    async def exists(self, path: str, watch: Watcher | None = None) -> Stat | None:
        """The stat, or None; the watch fires on creation, deletion and change of data."""
        try:
            body = await self._read(Op.EXISTS, path, watch)
        except NoNode:
            return None
        return Stat.decode(Reader(body))

    async def get(self, path: str, watch: Watcher | None = None) -> tuple[bytes, Stat]:
        """Data (null reads as empty) and stat.  Raises NoNode."""
        reader = Reader(await self._read(Op.GET_DATA, path, watch))
        return reader.buffer("data") or b"", Stat.decode(reader)

    async def get_children(self, path: str, watch: Watcher | None = None) -> list[str]:
        """Names, in no order.  Raises NoNode."""
        reader = Reader(await self._read(Op.GET_CHILDREN, path, watch))
        return [name.decode() for name in reader.strings("children")]

    async def get_children2(self, path: str, watch: Watcher | None = None) -> tuple[list[str], Stat]:
        """Names, in no order, and stat.  Raises NoNode."""
        reader = Reader(await self._read(Op.GET_CHILDREN2, path, watch))
        names = [name.decode() for name in reader.strings("children")]
        return names, Stat.decode(reader)

    async def sync(self, path: str = "/") -> None:
        """Afterwards reads see everything that was committed anywhere before this call."""
        await self._call(Op.SYNC, pack_buffer(path.encode()), f"sync {path}")

    async def multi(self, transaction: Transaction) -> list[MultiResult]:
        """Do all of it, or raise MultiFailed and do nothing."""
        body = await self._call(Op.MULTI, pack_multi(tuple(transaction.items)), "multi")
        results = read_multi_results(Reader(body))
        if any(result.error for result in results):
            raise MultiFailed(results)
        return results

    async def get_acl(self, path: str) -> tuple[tuple[AccessRule, ...], Stat]:
        """Raises NoNode."""
        reader = Reader(await self._call(Op.GET_ACL, pack_buffer(path.encode()), f"get_acl {path}"))
        return read_acl(reader), Stat.decode(reader)

    async def set_acl(self, path: str, acl: Sequence[AccessRule], version: int = -1) -> Stat:
        """Raises NoNode, BadVersion (of the ACL's version), InvalidACL."""
        record = SetACL(path.encode(), tuple(acl), version).encode()
        return Stat.decode(Reader(await self._call(Op.SET_ACL, record, f"set_acl {path}")))

    # --- requests -------------------------------------------------------------------------------

    async def _read(self, op: Op, path: str, watch: Watcher | None) -> bytes:
        record = PathAndWatch(path.encode(), watch is not None).encode()
        on_done: Callable[[int], None] | None = None
        if watch is not None:
            on_done = self._watches.registration(op, path, watch)
        return await self._call(op, record, f"{op.name.lower()} {path}", on_done)

    async def _call(self, op: Op, record: bytes, what: str, on_done: Callable[[int], None] | None = None) -> bytes:
        """Send and wait.  `on_done(code)` runs before any later event can arrive."""
        future: asyncio.Future[tuple[int, int, int, bytes]] = asyncio.get_running_loop().create_future()

        def on_reply(code: int, zxid: int, body: bytes) -> None:
            self.arrivals += 1
            if on_done is not None:
                on_done(code)
            if not future.done():
                future.set_result((code, zxid, self.arrivals, body))

        def on_loss(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        self._send(Request(op, record, on_reply, on_loss))
        # Nothing runs between here and the caller's own next step, however many calls are under way.
        code, self.answer_zxid, self.answer_arrival, body = await future
        if code:
            raise error_for(code, what)
        return body

    def _send(self, request: Request) -> None:
        if self.state is State.EXPIRED:
            request.on_loss(SessionExpired(f"session 0x{self.session_id:x}"))
        elif self.state is State.CLOSED:
            request.on_loss(ClientClosed("the client is closed"))
        elif self.state is State.CONNECTED and self._link is not None:
            self._link.send(request, self._next_xid())
        else:
            self._unsent.append(request)

    def _next_xid(self) -> int:
        self._xid = self._xid % (2**31 - 1) + 1
        return self._xid

    # --- connections ----------------------------------------------------------------------------

    async def _run(self) -> None:
        """Connect, serve, and connect again, until the session ends."""
        hosts = _shuffled(self._hosts, self._random)
        while self.state is State.CONNECTING:
            for host, port in hosts:
                await self._may_connect.wait()
                link = await self._connect(host, port)
                if link is not None and self._may_connect.is_set():
                    await self._keep(link)
                elif link is not None:
                    link.abort("the client was suspended meanwhile")
                if self.state is not State.CONNECTING:
                    return
            await asyncio.sleep((RETRY_DELAY_MS + self._random.randrange(0, RETRY_DELAY_MS)) / 1000)

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        """The loop's exception handler hears of a bug of ours; waiting calls fail instead of hanging."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(State.CLOSED, ClientClosed(f"the client failed: {error!r}"))
            task.get_loop().call_exception_handler({"message": "ZooKeeper client failed", "exception": error})

    async def _connect(self, host: str, port: int) -> Link | None:
        """A link whose session is good, or None; a session that has expired ends the client."""
        loop = asyncio.get_running_loop()
        connect = ConnectRequest(self.last_zxid, self._asked_timeout_ms, self.session_id, self.password)
        link = Link(loop, connect, self._on_event, self._on_zxid, self._on_vouched, self._on_lost)
        try:
            async with asyncio.timeout(max(self.timeout_ms / 1000 / len(self._hosts), 0.2)):
                await loop.create_connection(lambda: link, host, port)
                greeting = await link.greeting
        except (OSError, TimeoutError, ConnectionLoss) as error:
            LOG.debug("cannot connect to %s:%d: %s", host, port, error)
            link.abort("no session in time")
            return None
        if greeting.session_id == 0 or greeting.timeout_ms <= 0:
            link.abort("the session has expired")
            self._end(State.EXPIRED, SessionExpired(f"session 0x{self.session_id:x}"))
            return None
        self.session_id = greeting.session_id
        self.password = greeting.password
        self.timeout_ms = greeting.timeout_ms
        self.server = f"{host}:{port}"
        return link

    async def _keep(self, link: Link) -> None:
        """Serve over this link until it is lost."""
        if link.lost.done():
            return
        self._link = link
        self.connections += 1
        watches = self._watches.again(self.last_zxid)
        if watches is not None:
            link.send_watches(Request(Op.SET_WATCHES, watches, lambda code, zxid, body: None, lambda error: None))
        self._become(State.CONNECTED)
        while self._unsent:
            link.send(self._unsent.popleft(), self._next_xid())
        LOG.debug("connection lost: %s", await self._ping_until_lost(link))

    async def _ping_until_lost(self, link: Link) -> str:
        """Ping whenever a third of the timeout went without a request; give up after two thirds without a word."""
        loop = asyncio.get_running_loop()
        third_s = self.timeout_ms / 3000
        while not link.lost.done():
            now = loop.time()
            if now - link.heard_at >= 2 * third_s:
                link.abort(f"the server was silent for {2 * third_s:.3f} s")
                return await link.lost
            if now - link.sent_at >= third_s:
                link.ping()
            wait_s = min(link.sent_at + third_s, link.heard_at + 2 * third_s) - now
            await asyncio.wait([link.lost], timeout=max(wait_s, 0.001))
        return link.lost.result()

    def _on_lost(self, link: Link) -> None:
        """Called before anybody hears of a lost request: whoever then calls again waits for the next connection."""
        self.broken_connections += link.is_broken
        if link is self._link:
            self._link = None
            if self.state is State.CONNECTED:
                self._become(State.CONNECTING)

    def _on_zxid(self, zxid: int) -> None:
        self.last_zxid = max(self.last_zxid, zxid)

    def _on_vouched(self, sent_at_s: float) -> None:
        self.vouched_at_s = sent_at_s

    def _on_event(self, event: WatcherEvent) -> None:
        self.arrivals += 1
        path = event.path.decode()
        watchers = self._watches.fire(event.event_type, path)
        if not watchers:
            self.unasked_events += 1
        for watcher in watchers:
            self._tell(watcher, WatchEvent(event.event_type, path))

    def _tell(self, watcher: Watcher, event: WatchEvent) -> None:
        """A watcher that raises is the caller's bug; replies behind its event must still be read."""
        try:
            watcher(event)
        except Exception:
            LOG.exception("the watch of %s raised", event.path)

    def _become(self, state: State) -> None:
        self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _end(self, state: State, error: ZooKeeperError) -> None:
        """The session is over for this client: nothing that waits will come."""
        if self.state in (State.EXPIRED, State.CLOSED):
            return
        self._become(state)
        while self._unsent:
            self._unsent.popleft().on_loss(error)
        for watcher, path in self._watches.give_up():
            self._tell(watcher, WatchEvent(WatchEvent.SESSION_ENDED, path))


def _flags(ephemeral: bool, sequential: bool) -> int:
    return (_EPHEMERAL if ephemeral else 0) | (_SEQUENTIAL if sequential else 0)


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"hosts: expected host:port, found {text!r}")
    return host.strip("[]"), int(port)


def _shuffled(hosts: Iterable[tuple[str, int]], random: RandomSource) -> list[tuple[str, int]]:
    """In an order of chance, so that clients spread over the servers."""
    rest = list(hosts)
    return [rest.pop(random.randrange(0, len(rest))) for _ in range(len(rest))]
