"""The ZooKeeper door of one node: connections, sessions and watches around a replicated store.

Turns.  Everything that connections want of the world in one turn of the loop is done at its
end, in `_turn`: connections that may go on parse on, all commands are submitted in one
call, and every socket is written once.  `applied` delivers the watch events and replies of a
batch, result by result, before any later read is answered: so a client hears of a change
before it can see it.  This rests on the group calling `applied` in the same call in which
the store applied the batch.

Sessions (DESIGN.md section 7).  Each door knows which sessions it heard from and tells the
leader's door; the leader's door keeps the session clock, confirms touches only while a
quorum has followed it within the margin, an election timeout, and proposes expiry.  A ping
is answered once its touch is confirmed.  A new leader adds that margin to every session's
timeout, so a confirmation by its predecessor is never cut short.  Its clock starts when its
store holds all that was committed before: a session whose expiry is among that is not
vouched for, and one that a snapshot is about to bring is not missed.

Who does not get an answer.  Where the outcome of a write is unknown, or no leader takes it,
its connection is closed; the client sees ConnectionLoss, as with ZooKeeper.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from quorate.consensus.replica import Leadership, NodeId
from quorate.services.interface import DoorConfig, Group, Refused
from quorate.services.keepalive import touches
from quorate.services.keepalive.clock import KeepAliveClock
from quorate.services.zookeeper import commands, four_letter
from quorate.services.zookeeper.connection import REPLY_HEAD, REPLY_HEADER_BYTES, Connection, Phase, Stall, Write
from quorate.services.zookeeper.counters import Counters
from quorate.services.zookeeper.errors import REFUSED_CODES, ErrorCode
from quorate.services.zookeeper.log_limit import LogLimiter
from quorate.services.zookeeper.protocol import PASSWORD_BYTES, ConnectRequest
from quorate.services.zookeeper.requests import encode_event
from quorate.services.zookeeper.store import Store
from quorate.services.zookeeper.tree import EventItem, Result
from quorate.services.zookeeper.watches import Watches

LOG: Final = logging.getLogger("quorate.zookeeper")

MIN_SESSION_TIMEOUT_MS: Final = 1_000
"""ZooKeeper's default is 4,000.  Leaders change faster here, and a client that asks for less waits less."""
MAX_SESSION_TIMEOUT_MS: Final = 40_000
HANDSHAKE_MS: Final = 10_000
LEAVING_MS: Final = 5_000
"""A connection that should close is cut off after this, should its client not read what is left."""
TICK_MS: Final = 50
"""How far ticks are apart, as `Door.tick` says."""
PAUSE_MS: Final = 2 * TICK_MS
"""Ticks further apart than this mean that the process stood still, and clients could not be heard."""
LONG_PAUSE_MS: Final = 1_000
"""A pause that is worth a line in the log."""
EXPIRE_AGAIN_MS: Final = 1_000
GUARD_INTERVAL_MS: Final = 500


class Opening:
    """The waiter of a session's creation or attachment."""

    __slots__ = ("connection", "password", "session", "with_flag")

    def __init__(self, connection: Connection, session: int, password: bytes, with_flag: bool) -> None:
        self.connection = connection
        self.session = session
        self.password = password
        self.with_flag = with_flag


class Expiry:
    """The waiter of a session's expiry."""

    __slots__ = ("session",)

    def __init__(self, session: int) -> None:
        self.session = session


Waiter = Write | Opening | Expiry


class ZooKeeperDoor:
    """`quorate.services.interface.Door` for ZooKeeper's protocol."""

    def __init__(self, store: Store, group: Group, config: DoorConfig) -> None:
        self.store = store
        self.group = group
        self.config = config
        self.watches: Watches[Connection] = Watches()
        self.touches = touches.Touches()
        self.counters = Counters()
        self.commands: list[bytes] = []
        self.waiters: list[Waiter] = []
        """One for each of `commands`; both go to the group at the end of the turn."""
        self.resumable: list[Connection] = []
        """Connections that may parse on."""
        self._to_flush: list[Connection] = []
        self._turn_is_due = False
        self._connections: dict[Connection, None] = {}
        self._by_session: dict[int, Connection] = {}
        self._handshaking: dict[Connection, int] = {}
        """Connection -> when it came, oldest first."""
        self._leaving: dict[Connection, int] = {}
        """Connection -> when it should be gone, oldest first."""
        self._congested: dict[Connection, None] = {}
        self._broken: dict[Connection, None] = {}
        """Connections that lost a write while `commands` may hold later ones, until these are dropped."""
        self._clock: KeepAliveClock | None = None
        """Only while this node is the ready leader, and its store holds all that was committed before."""
        self._led_generation: int | None = None
        """The generation that this node leads and is ready in: the clock's, also while it is not there yet."""
        self._margin_ms = config.margin_ms
        """A leader confirms touches only if it surely led so short a time ago; every new one grants this much more.

        Confirmations come as seldom as heartbeats, so no shorter margin would do on every setting of the timing.
        """
        self._unconfirmed_since_ms: int | None = None
        """When the oldest report of touches was made that no leader has confirmed."""
        self._last_note = 0
        self._last_tick_ms = group.now_ms()
        self._next_guard_ms = 0
        self._log_limiter = LogLimiter()
        self._server: asyncio.Server | None = None
        self._all_gone: asyncio.Future[None] | None = None

    # --- the node's side: start, stop, tick ------------------------------------------------

    async def start(self) -> None:
        self._last_tick_ms = self.group.now_ms()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), self.config.host, self.config.port, backlog=1024
        )

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        self._turn()
        if self._connections:
            loop = asyncio.get_running_loop()
            self._all_gone = loop.create_future()
            cut_off = loop.call_later(1, self._cut_off)
            await self._all_gone
            cut_off.cancel()

    def _cut_off(self) -> None:
        for connection in list(self._connections):
            connection.transport.abort()

    def tick(self, now_ms: int) -> None:
        pause_ms = now_ms - self._last_tick_ms
        self._last_tick_ms = now_ms
        self._report_touches(now_ms)
        if self._clock is not None:
            if pause_ms > PAUSE_MS:
                # Less the usual distance, so that a process that is always late still ends sessions.
                self._clock.excuse(pause_ms - TICK_MS)
            if pause_ms > LONG_PAUSE_MS:
                self.log_once("pause", "this process stood still for %d ms: sessions get that much longer", pause_ms)
            self._propose_expiries(self._clock, now_ms)
        self._drop_overdue(self._handshaking, now_ms - HANDSHAKE_MS, "did not open a session in time")
        self._drop_overdue(self._leaving, now_ms - LEAVING_MS, "did not read its last replies")
        if now_ms >= self._next_guard_ms:
            self._next_guard_ms = now_ms + GUARD_INTERVAL_MS
            self._drop_unconfirmed(now_ms)

    def summary(self) -> dict[str, int]:
        return {
            "connections": len(self._connections),
            "requests": self.counters.requests,
            "outstanding": self._outstanding(),
            "watches": self.watches.count(),
            "events": self.counters.events,
        }

    # --- turns -----------------------------------------------------------------------------

    def schedule(self, connection: Connection) -> None:
        """Flush this connection, and do whatever else has gathered, at the end of the turn."""
        if not connection.queued:
            connection.queued = True
            self._to_flush.append(connection)
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        if self.resumable:
            resumable, self.resumable = self.resumable, []
            for connection in resumable:
                connection.resume()
        if self._broken:
            self._drop_later_writes()
        if self.commands:
            self._submit()
        if self.touches.urgent:
            self._report_touches(self.group.now_ms())
        to_flush, self._to_flush = self._to_flush, []
        for connection in to_flush:
            connection.flush()

    def _submit(self) -> None:
        batch, self.commands = self.commands, []
        waiters, self.waiters = self.waiters, []
        self.counters.submitted(len(batch), self.group.now_ms())
        self.group.submit(batch, waiters)
        if self.group.congested():
            for waiter in waiters:
                if isinstance(waiter, Write):
                    self._congested[waiter.connection] = None
                    waiter.connection.stall(Stall.CONGESTED)

    def _drop_later_writes(self) -> None:
        """A link may end in the poll that also brought the client's next write: done alone, that would leave a gap."""
        broken, self._broken = self._broken, {}
        kept = [
            (command, waiter)
            for command, waiter in zip(self.commands, self.waiters, strict=True)
            if not (isinstance(waiter, Write) and waiter.connection in broken)
        ]
        self.commands = [command for command, _ in kept]
        self.waiters = [waiter for _, waiter in kept]

    def relieved(self) -> None:
        congested, self._congested = self._congested, {}
        for connection in congested:
            connection.unstall(Stall.CONGESTED)

    # --- results -----------------------------------------------------------------------------

    def applied(self, results: Sequence[Result], waiters: Sequence[Waiter] | None) -> None:
        # Where nobody watches, only the events of sessions matter; one of those stands last among its result's.
        unwatched = self.watches.is_empty()
        if waiters is None:
            for _, zxid, _, events in results:
                if events and not (unwatched and events[-1][0] < commands.SESSION_OPENED):
                    self._publish(zxid, events)
            return
        self.counters.answered(len(waiters), self.group.now_ms())
        pack = REPLY_HEAD.pack
        for (error, zxid, body, events), waiter in zip(results, waiters, strict=True):
            if events and not (unwatched and events[-1][0] < commands.SESSION_OPENED):
                self._publish(zxid, events)
            if not isinstance(waiter, Write):
                self._finish(waiter, error, body)
                continue
            connection = waiter.connection
            in_flight = connection.in_flight
            if not in_flight or in_flight[0] is not waiter:
                assert not connection.is_served(), "a result overtook that of an earlier write of its connection"
                continue
            in_flight.popleft()
            connection.out.append(pack(REPLY_HEADER_BYTES + len(body), waiter.xid, zxid, error))
            if body:
                connection.out.append(body)
            if in_flight:
                if in_flight[0].reply is not None:
                    connection.finish_ready()
            elif connection.stalled:
                connection.unstall(Stall.BEHIND_WRITES)
            if not connection.queued:
                self.schedule(connection)

    def _finish(self, waiter: Opening | Expiry, error: int, body: bytes) -> None:
        if isinstance(waiter, Opening):
            self._finish_opening(waiter, error, body)
        elif self._clock is not None and error == ErrorCode.SESSION_EXPIRED:
            self._clock.remove(waiter.session)

    def refused(self, waiters: Sequence[Waiter], why: Refused) -> None:
        self.counters.answered(len(waiters), self.group.now_ms())
        code = REFUSED_CODES[why]
        closed: dict[Connection, None] = {}
        for waiter in waiters:
            if isinstance(waiter, Expiry):
                self._expire_again(waiter.session)
            elif isinstance(waiter, Write) and code is not None:
                waiter.connection.finish_out_of_turn(waiter, code)
            else:
                closed[waiter.connection] = None
        self._break_off(closed, f"{len(waiters)} requests cannot be served: {why.value}")

    def lost(self, waiters: Sequence[Waiter]) -> None:
        self.counters.answered(len(waiters), self.group.now_ms())
        closed: dict[Connection, None] = {}
        for waiter in waiters:
            if isinstance(waiter, Expiry):
                self._expire_again(waiter.session)
            else:
                closed[waiter.connection] = None
        self._break_off(closed, f"the outcome of {len(waiters)} requests is unknown")

    def _break_off(self, connections: dict[Connection, None], why: str) -> None:
        """A write of each was lost: nothing that came behind it may be done, also where the client hung up since."""
        if self.commands:
            self._broken.update(connections)
        self._close_for(connections, why)

    def restored(self) -> None:
        self._close_for(
            self._connections, "the store was replaced by a snapshot, and their watches have missed what it holds"
        )
        if self._clock is not None:
            self._start_clock()

    def _close_for(self, connections: Iterable[Connection], why: str) -> None:
        """Close now, without the replies that have not been written: they may be the ones that are missing."""
        alive = [connection for connection in connections if connection.phase is not Phase.CLOSED]
        if alive:
            self.log_once("lost", "closing %d connections: %s", len(alive), why)
        for connection in alive:
            connection.abort()

    def _publish(self, zxid: int, events: Sequence[EventItem]) -> None:
        """Tell watchers; follow sessions."""
        for event_type, path in events:
            if event_type == commands.SESSION_OPENED:
                self._session_opened(commands.read_session_event(path), zxid)
            elif event_type == commands.SESSION_ENDED:
                self._session_ended(commands.read_session_event(path))
            else:
                watchers = self.watches.fire(event_type, path)
                if watchers:
                    frame = encode_event(event_type, path)
                    for connection in watchers:
                        connection.out.append(frame)
                        self.counters.events += 1
                        self.schedule(connection)

    # --- connections ---------------------------------------------------------------------------

    def connection_made(self, connection: Connection) -> None:
        self._connections[connection] = None
        if len(self._connections) > self.config.max_connections:
            connection.fail("connections", f"is one more than the {self.config.max_connections} that are allowed")
            return
        self._handshaking[connection] = self.group.now_ms()

    def connection_lost(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._handshaking.pop(connection, None)
        self._leaving.pop(connection, None)
        self._congested.pop(connection, None)
        self.watches.forget(connection)
        if self._by_session.get(connection.session) is connection:
            del self._by_session[connection.session]
            self.touches.forget(connection.session)
        if self._all_gone is not None and not self._connections and not self._all_gone.done():
            self._all_gone.set_result(None)

    def leaving(self, connection: Connection) -> None:
        """It will close by itself; see that it does."""
        self._leaving.setdefault(connection, self.group.now_ms())

    def _drop_overdue(self, since_ms: dict[Connection, int], latest_ms: int, what: str) -> None:
        overdue = []
        for connection, at_ms in since_ms.items():
            if at_ms > latest_ms:
                break
            overdue.append(connection)
        for connection in overdue:
            del since_ms[connection]
            connection.fail("overdue", what)

    def _outstanding(self) -> int:
        return sum(len(connection.in_flight) for connection in self._connections)

    def log_once(self, kind: str, message: str, *values: object) -> None:
        """One log line, unless there were too many of its kind."""
        dropped = self._log_limiter.allow(kind, self.group.now_ms())
        if dropped is None:
            return
        if dropped:
            LOG.warning("%d lines like the next one were left out", dropped)
        LOG.warning(message, *values)

    # --- opening sessions ------------------------------------------------------------------------

    def open_session(self, connection: Connection, request: ConnectRequest) -> None:
        """A connect request came in whole.  The connection is answered when its session is applied here."""
        if request.last_zxid_seen > self.store.zxid:
            self.group.barrier(partial(self._open_after_barrier, connection, request))
        else:
            self._propose_opening(connection, request)

    def _open_after_barrier(self, connection: Connection, request: ConnectRequest, passed: bool) -> None:
        if connection.phase is not Phase.OPENING:
            return
        if request.last_zxid_seen > self.store.zxid:
            connection.fail(
                "zxid", f"has seen zxid 0x{request.last_zxid_seen:x}, our last zxid is 0x{self.store.zxid:x}"
            )
        else:
            self._propose_opening(connection, request)

    def _propose_opening(self, connection: Connection, request: ConnectRequest) -> None:
        timeout_ms = min(max(request.timeout_ms, MIN_SESSION_TIMEOUT_MS), MAX_SESSION_TIMEOUT_MS)
        session, password, node = request.session_id, request.password, self.group.node_id
        if session == 0:
            # The node's number in front keeps the ids of two nodes apart; chance does the rest.
            session = (node & 0x7F) << 56 | self.group.random.randrange(1, 1 << 56)
            password = self.group.random.randrange(0, 1 << 8 * PASSWORD_BYTES).to_bytes(PASSWORD_BYTES, "big")
            command = commands.create_session(session, timeout_ms, password, node)
        else:
            command = commands.attach(session, password, timeout_ms, node)
        self.commands.append(command)
        self.waiters.append(Opening(connection, session, password, request.has_read_only))
        self._schedule_turn()

    def _finish_opening(self, opening: Opening, error: int, body: bytes) -> None:
        connection = opening.connection
        if connection.phase is not Phase.OPENING:
            return
        self._handshaking.pop(connection, None)
        if error in (ErrorCode.SESSION_EXPIRED, ErrorCode.AUTH_FAILED):
            self.log_once(
                "session", "%s asked for session 0x%x: %s", connection.peer, opening.session, ErrorCode(error).name
            )
            connection.reject(opening.with_flag)
        elif error:
            connection.fail("session", f"asked for a session, which could not be made: error {error}")
        else:
            timeout_ms, generation = commands.read_session_reply(body)
            self._by_session[opening.session] = connection
            self.touches.heard[opening.session] = None
            connection.open(opening.session, generation, timeout_ms, opening.password, opening.with_flag)

    # --- following sessions ------------------------------------------------------------------------

    def _session_opened(self, session: int, generation: int) -> None:
        if self._clock is not None:
            known = self.store.sessions.get(session)
            if known is not None:
                self._clock.add(session, known.timeout_ms, self.group.now_ms())
        connection = self._by_session.get(session)
        if connection is not None and connection.generation != generation:
            del self._by_session[session]
            self.touches.forget(session)
            connection.moved()

    def _session_ended(self, session: int) -> None:
        if self._clock is not None:
            self._clock.remove(session)
        self.touches.heard.pop(session, None)
        connection = self._by_session.get(session)
        if connection is not None:
            connection.close()

    def leadership_changed(self, leadership: Leadership) -> None:
        leads = leadership.ready and leadership.leader == self.group.node_id
        generation = leadership.generation if leads else None
        if generation != self._led_generation:
            self._led_generation = generation
            self._clock = None
            if generation is not None:
                self.group.barrier(partial(self._start_clock_in, generation))

    def _start_clock_in(self, generation: int, passed: bool) -> None:
        # A barrier fails where the leadership is over; the next one asks for another.
        if passed and generation == self._led_generation:
            self._start_clock()

    def _start_clock(self) -> None:
        self._clock = KeepAliveClock()
        sessions = [(session.session_id, session.timeout_ms) for session in self.store.sessions.values()]
        self._clock.start(sessions, self.group.now_ms(), self._margin_ms)

    def _propose_expiries(self, clock: KeepAliveClock, now_ms: int) -> None:
        for session in clock.due(now_ms):
            known = self.store.sessions.get(session)
            if known is None:
                clock.remove(session)
                continue
            LOG.info("session 0x%x was not heard from for %d ms: proposing its expiry", session, known.timeout_ms)
            self.commands.append(commands.expire_session(session, known.generation))
            self.waiters.append(Expiry(session))
            self._schedule_turn()

    def _expire_again(self, session: int) -> None:
        if self._clock is not None:
            self._clock.propose_again(session, self.group.now_ms() + EXPIRE_AGAIN_MS)

    # --- touches ---------------------------------------------------------------------------------

    def _may_confirm(self, now_ms: int) -> bool:
        contact_ms = self.group.quorum_contact_ms()
        return contact_ms is not None and now_ms - contact_ms <= self._margin_ms

    def _report_touches(self, now_ms: int) -> None:
        """To the clock where it is here, else to the leader's door; without a leader all waits."""
        leader = self.group.leadership.leader
        if self._clock is not None:
            sessions = self.touches.take()
            taken = [session for session in sessions if self._clock.touch(session, now_ms)]
            if self._may_confirm(now_ms):
                self._unconfirmed_since_ms = None
                self._answer_pings(self.touches.confirm_here(taken))
                return
            if not sessions:
                return
        elif leader is not None and leader != self.group.node_id:
            note = self.touches.note()
            if note is None:
                return
            self._last_note, encoded = note
            self.group.tell(leader, encoded)
        else:
            self.touches.urgent = False
            if not self.touches.has_any():
                return
        if self._unconfirmed_since_ms is None:
            self._unconfirmed_since_ms = now_ms

    def told(self, sender: NodeId, note: bytes) -> None:
        read = touches.decode(note)
        now_ms = self.group.now_ms()
        if isinstance(read, touches.Touched):
            number, sessions = read
            if self._clock is not None:
                refused = [session for session in sessions if not self._clock.touch(session, now_ms)]
                if self._may_confirm(now_ms):
                    self.group.tell(sender, touches.encode_confirmed(number, refused))
        else:
            self._unconfirmed_since_ms = None if read[0] >= self._last_note else now_ms
            self._answer_pings(self.touches.confirm(read))

    def _answer_pings(self, sessions: Iterable[int]) -> None:
        for session in sessions:
            connection = self._by_session.get(session)
            if connection is not None:
                connection.reply_pings()

    def _drop_unconfirmed(self, now_ms: int) -> None:
        """Cut off clients whose sessions may have expired unseen: no leader has vouched for them that long."""
        if self._unconfirmed_since_ms is None:
            return
        unconfirmed_ms = now_ms - self._unconfirmed_since_ms
        overdue = [c for c in self._by_session.values() if unconfirmed_ms > c.timeout_ms]
        self._close_for(overdue, f"no leader has confirmed their sessions for {unconfirmed_ms} ms")

    # --- four-letter words -------------------------------------------------------------------------

    def answer_word(self, connection: Connection, word: bytes) -> None:
        connection.out.append(four_letter.answer(word, self._facts()).encode())
        connection.close()

    def _facts(self) -> four_letter.ServerFacts:
        leadership = self.group.leadership
        alone = len(self.group.describe().get("voters", ())) == 1
        mode = ""
        if leadership.leader is not None:
            mode = "standalone" if alone else "leader" if leadership.leader == self.group.node_id else "follower"
        totals = self.store.summary()
        counters = self.counters
        outstanding = self._outstanding()
        return four_letter.ServerFacts(
            node_id=self.group.node_id,
            host=self.config.host,
            port=self.config.port,
            admin=self.config.admin,
            mode=mode,
            zxid=self.store.zxid,
            znodes=totals["znodes"],
            ephemerals=totals["ephemerals"],
            sessions=totals["sessions"],
            watches=self.watches.count(),
            requests=counters.requests,
            replies=counters.requests - outstanding + counters.events,
            outstanding=outstanding,
            latency_min_ms=counters.latency_min_ms,
            latency_average_ms=counters.latency_average_ms(),
            latency_max_ms=counters.latency_max_ms,
            clients=[
                four_letter.ClientFacts(client.peer, client.received, len(client.in_flight))
                for client in self._connections
            ],
            min_session_timeout_ms=MIN_SESSION_TIMEOUT_MS,
            max_session_timeout_ms=MAX_SESSION_TIMEOUT_MS,
            max_connections=self.config.max_connections,
            max_frame_bytes=self.config.max_frame_bytes,
            max_requests_in_flight=self.config.max_requests_in_flight,
            max_unread_bytes=self.config.max_unread_bytes,
        )
