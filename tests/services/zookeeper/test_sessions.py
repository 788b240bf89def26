"""Sessions through the door: opening, resuming, moving, expiring, and who may vouch for them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from quorate.services.interface import Refused
from quorate.services.zookeeper.door import MAX_SESSION_TIMEOUT_MS, MIN_SESSION_TIMEOUT_MS
from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.jute import pack_buffer
from quorate.services.zookeeper.protocol import PING_XID, ConnectRequest, Create, Op, PathAndWatch
from tests.services.zookeeper.harness import Cluster, on_simulated_loop
from tests.services.zookeeper.raw import Raw

EXISTS_ROOT = PathAndWatch(b"/", False).encode()
MARGIN_MS = 400
LONG_MARGIN_MS = 6_000


async def ping(raw: Raw) -> None:
    raw.send(PING_XID, Op.PING)
    xid, _, code, record = await raw.reply()
    assert (xid, code, record) == (PING_XID, 0, b"")


@pytest.mark.parametrize(
    ("asked_ms", "granted_ms"), [(1, MIN_SESSION_TIMEOUT_MS), (5_000, 5_000), (10**9, MAX_SESSION_TIMEOUT_MS)]
)
def test_the_timeout_is_negotiated(asked_ms: int, granted_ms: int) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0], asked_ms)
            assert raw.timeout_ms == granted_ms
            assert raw.session > 0
            assert len(raw.password) == 16
            assert raw.password != bytes(16)

    on_simulated_loop(work)


def test_a_session_moves_to_another_node_with_its_password() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            first = await Raw.open(cluster.endpoints[0])
            await first.call(1, Op.CREATE, Create(b"/e", b"", flags=1).encode())
            second = await Raw.open(cluster.endpoints[1], 20_000, first.session, first.password)
            assert (second.session, second.password, second.timeout_ms) == (first.session, first.password, 20_000)
            assert (await second.call(1, Op.EXISTS, PathAndWatch(b"/e", False).encode()))[0] == 0
            # The former owner refuses the next request, and hangs up.
            first.send(2, Op.EXISTS, EXISTS_ROOT)
            # Without a zxid: the client would ask its next server for the events after it only.
            assert await first.reply() == (2, 0, ErrorCode.SESSION_MOVED, b"")
            assert await first.is_closed()
            assert (await second.call(2, Op.EXISTS, EXISTS_ROOT))[0] == 0

    on_simulated_loop(work)


def test_a_session_that_comes_back_to_its_node_leaves_its_old_connection() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            first = await Raw.open(cluster.endpoints[0])
            second = await Raw.open(cluster.endpoints[0], 10_000, first.session, first.password)
            assert second.session == first.session
            # Whether it asks or not.
            assert await first.is_closed(within_seconds=10)
            assert (await second.call(2, Op.EXISTS, EXISTS_ROOT))[0] == 0

    on_simulated_loop(work)


def test_writes_under_way_when_a_session_moves_are_refused_by_the_store() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            first = await Raw.open(cluster.endpoints[0])
            cluster.hold()
            second = await Raw.dial(cluster.endpoints[1])
            second.send_frame(ConnectRequest(0, 10_000, first.session, first.password).encode())
            await asyncio.sleep(0.1)
            first.send_create(1, b"/late")
            await asyncio.sleep(0.1)
            cluster.release()
            assert (await first.reply())[:3] == (1, 0, ErrorCode.SESSION_MOVED)
            assert cluster.nodes[1].store.tree.get(b"/late") is None

    on_simulated_loop(work)


@pytest.mark.parametrize("outcome", ["applied", "refused"])
def test_a_former_owner_answers_its_writes_under_way_before_it_refuses_what_follows(outcome: str) -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            first = await Raw.open(cluster.endpoints[0])
            cluster.hold()
            first.send_create(1, b"/late")
            await asyncio.sleep(0.1)
            under_way = cluster._take()
            second = await Raw.dial(cluster.endpoints[1])
            second.send_frame(ConnectRequest(0, 10_000, first.session, first.password).encode())
            await asyncio.sleep(0.1)
            cluster.release()
            assert len(await second.frame()) == 37
            first.send(2, Op.EXISTS, EXISTS_ROOT)
            assert await first.is_silent()
            cluster._log[:0] = under_way
            if outcome == "applied":
                cluster.release()
            else:
                cluster.refuse(Refused.DISK_FULL)
            replies = [(await first.reply())[:3] for _ in range(2)]
            assert replies == [
                (1, 0, ErrorCode.SESSION_MOVED if outcome == "applied" else ErrorCode.SYSTEM_ERROR),
                (2, 0, ErrorCode.SESSION_MOVED),
            ]
            assert await first.is_closed()

    on_simulated_loop(work)


@pytest.mark.parametrize("wrong", ["password", "session"])
def test_a_wrong_password_or_session_is_told_that_it_has_expired(wrong: str) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            first = await Raw.open(cluster.endpoints[0])
            session = first.session + (wrong == "session")
            password = b"x" * 16 if wrong == "password" else first.password
            other = await Raw.open(cluster.endpoints[0], 10_000, session, password)
            assert (other.session, other.timeout_ms, other.password) == (0, 0, bytes(16))
            assert await other.is_closed()
            assert (await first.call(1, Op.EXISTS, EXISTS_ROOT))[0] == 0

    on_simulated_loop(work)


def test_a_client_that_has_seen_more_than_this_node_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.dial(cluster.endpoints[0])
            raw.send_frame(ConnectRequest(0x1234, 10_000, 0, bytes(16)).encode())
            assert await raw.is_closed()
        assert "has seen zxid 0x1234, our last zxid is 0x0" in caplog.text

    on_simulated_loop(work)


def test_a_client_that_has_seen_what_is_just_being_applied_is_let_in_behind_the_barrier() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            writer = await Raw.open(cluster.endpoints[0])
            cluster.hold()
            writer.send_create(1, b"/a")
            await asyncio.sleep(0.1)
            late = await Raw.dial(cluster.endpoints[0])
            late.send_frame(ConnectRequest(2, 10_000, 0, bytes(16)).encode())
            assert await late.is_silent()
            cluster.release()
            assert len(await late.frame()) == 37

    on_simulated_loop(work)


def test_closing_a_session_answers_deletes_its_ephemerals_and_hangs_up() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            raw.cork()
            raw.send_create(1, b"/e", flags=1)
            raw.send(2, Op.CLOSE_SESSION)
            raw.send_get(3, b"/")
            raw.uncork()
            assert [(await raw.reply())[0] for _ in range(2)] == [1, 2]
            assert await raw.is_closed()
            assert cluster.nodes[2].store.tree.get(b"/e") is None
            assert not cluster.nodes[2].store.sessions

    on_simulated_loop(work)


@pytest.mark.parametrize("node", [0, 1])
def test_a_silent_session_expires_after_its_timeout_and_its_connection_is_closed(node: int) -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            raw = await Raw.open(cluster.endpoints[node], 2_000)
            await raw.call(1, Op.CREATE, Create(b"/e", b"", flags=1).encode())
            started = cluster.loop.time()
            assert await raw.is_closed()
            assert 1.9 < cluster.loop.time() - started < 2.3
            assert cluster.nodes[1].store.tree.get(b"/e") is None

    on_simulated_loop(work)


@pytest.mark.parametrize("node", [0, 1])
def test_pings_or_any_other_request_keep_a_session(node: int) -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            pinging = await Raw.open(cluster.endpoints[node], 2_000)
            reading = await Raw.open(cluster.endpoints[node], 2_000)
            for _ in range(10):
                await asyncio.sleep(1)
                await ping(pinging)
                assert (await reading.call(1, Op.EXISTS, EXISTS_ROOT))[0] == 0
            assert len(cluster.nodes[1].store.sessions) == 2

    on_simulated_loop(work)


@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize("margin_ms", [MARGIN_MS, LONG_MARGIN_MS])
def test_a_ping_is_not_answered_while_the_leader_has_no_quorum(node: int, margin_ms: int) -> None:
    async def work() -> None:
        async with Cluster(2, margin_ms=margin_ms) as cluster:
            raw = await Raw.open(cluster.endpoints[node], 10_000)
            cluster.contact_age_ms = margin_ms + 1
            raw.send(PING_XID, Op.PING)
            assert await raw.is_silent(2)
            cluster.contact_age_ms = margin_ms
            assert (await raw.reply())[0] == PING_XID
            assert await raw.is_silent()

    on_simulated_loop(work)


def test_a_ping_is_answered_in_the_turn_of_the_loop_and_not_with_the_tick() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            raw = await Raw.open(cluster.endpoints[1], 10_000)
            for _ in range(20):
                started = cluster.loop.time()
                await ping(raw)
                assert cluster.loop.time() - started < 0.01

    on_simulated_loop(work)


def test_a_ping_whose_note_was_lost_is_reported_again() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            raw = await Raw.open(cluster.endpoints[1], 10_000)
            cluster.silenced.add(2)
            raw.send(PING_XID, Op.PING)
            assert await raw.is_silent(1)
            cluster.silenced.clear()
            assert (await raw.reply())[0] == PING_XID

    on_simulated_loop(work)


def test_a_node_that_no_leader_vouches_for_hangs_up_on_its_clients(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            raw = await Raw.open(cluster.endpoints[1], 4_000)
            cluster.silenced.add(2)
            for _ in range(6):
                assert (await raw.call(1, Op.EXISTS, EXISTS_ROOT))[0] == 0
                await asyncio.sleep(0.5)
            cluster.hold()  # so that the expiry by the leader is not what closes it
            raw.send(2, Op.EXISTS, EXISTS_ROOT)
            assert await raw.is_closed()
        assert "no leader has confirmed their sessions" in caplog.text

    on_simulated_loop(work)


def test_no_ping_is_answered_once_expiry_was_proposed() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            raw = await Raw.open(cluster.endpoints[1], 2_000)
            cluster.hold()
            await asyncio.sleep(2.2)
            raw.send(PING_XID, Op.PING)
            assert await raw.is_silent(1)
            cluster.release()
            assert await raw.is_closed()

    on_simulated_loop(work)


def test_an_attach_that_is_ahead_of_the_expiry_in_the_log_saves_the_session() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            raw = await Raw.open(cluster.endpoints[1], 2_000)
            await asyncio.sleep(1.9)
            cluster.hold()
            again = await Raw.dial(cluster.endpoints[0])
            again.send_frame(ConnectRequest(0, 2_000, raw.session, raw.password).encode())
            await asyncio.sleep(1)
            cluster.release()
            assert len(await again.frame()) == 37
            await ping(again)
            await asyncio.sleep(1.5)
            await ping(again)
            assert raw.session in cluster.nodes[1].store.sessions

    on_simulated_loop(work)


def test_an_expiry_whose_outcome_is_unknown_is_proposed_again() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            raw = await Raw.open(cluster.endpoints[1], 2_000)
            cluster.hold()
            await asyncio.sleep(2.2)
            cluster.lose()
            cluster.release()
            raw.send(PING_XID, Op.PING)
            assert await raw.is_silent(0.5)
            assert await raw.is_closed()

    on_simulated_loop(work)


@pytest.mark.parametrize("margin_ms", [MARGIN_MS, LONG_MARGIN_MS])
def test_a_new_leader_gives_every_session_its_whole_timeout_and_the_margin(margin_ms: int) -> None:
    async def work() -> None:
        async with Cluster(2, margin_ms=margin_ms) as cluster:
            raw = await Raw.open(cluster.endpoints[1], 2_000)
            await asyncio.sleep(1.9)
            cluster.lead(2)
            started = cluster.loop.time()
            assert await raw.is_closed(within_seconds=20)
            whole_s = 2.0 + margin_ms / 1000
            assert whole_s <= cluster.loop.time() - started < whole_s + 0.2

    on_simulated_loop(work)


def test_a_new_leader_vouches_for_nobody_before_it_has_applied_what_the_former_one_decided() -> None:
    """The expiry of a session may be committed and not applied yet: a ping answered now would promise too much."""

    async def work() -> None:
        async with Cluster(2) as cluster:
            raw = await Raw.open(cluster.endpoints[1], 2_000)
            cluster.hold()
            cluster.expire(raw.session)
            cluster.lead(2)
            raw.send(PING_XID, Op.PING)
            assert await raw.is_silent(1)
            cluster.release()
            assert await raw.is_closed()
            assert raw.session not in cluster.nodes[2].store.sessions

    on_simulated_loop(work)


def test_a_leader_whose_store_is_replaced_keeps_the_clock_of_the_new_sessions() -> None:
    async def work() -> None:
        async with Cluster(2, margin_ms=MARGIN_MS) as cluster:
            raw = await Raw.open(cluster.endpoints[1], 2_000)
            await asyncio.sleep(1.9)
            # A store that comes with a session of which no door was ever told.
            sessions = cluster.nodes[1].store.sessions
            unheard = msgspec.structs.replace(sessions[raw.session], session_id=0x77)
            for node in cluster.nodes.values():
                node.store.sessions[unheard.session_id] = unheard
            cluster.nodes[1].door.restored()
            restored = cluster.loop.time()
            while sessions:
                await asyncio.sleep(0.01)
                assert cluster.loop.time() - restored < 5
            assert 2.0 + MARGIN_MS / 1000 <= cluster.loop.time() - restored < 2.6

    on_simulated_loop(work)


def test_nobody_expires_without_a_leader() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            await Raw.open(cluster.endpoints[1], 1_000)
            cluster.lead(None)
            await asyncio.sleep(30)
            assert len(cluster.nodes[1].store.sessions) == 1

    on_simulated_loop(work)


@pytest.mark.parametrize("still_s", [0.3, 0.95, 5])
def test_a_leader_that_stood_still_blames_nobody(still_s: float) -> None:
    async def work() -> None:
        async with Cluster(1) as cluster:
            raw = await Raw.open(cluster.endpoints[0], 1_000)
            # The last that is heard of it before the process stands still, and is silent for a while.
            await asyncio.sleep(0.9)
            cluster._ticker.cancel()
            # What the client sends meanwhile stays in the socket, and the tick is the first that runs again.
            await asyncio.sleep(still_s)
            cluster._tick()
            await ping(raw)

    on_simulated_loop(work)


def test_a_leader_that_is_always_late_still_ends_sessions() -> None:
    async def work() -> None:
        async with Cluster(1) as cluster:
            await Raw.open(cluster.endpoints[0], 1_000)
            cluster._ticker.cancel()
            for _ in range(30):
                await asyncio.sleep(0.15)
                cluster._tick()
                cluster._ticker.cancel()
            assert not cluster.nodes[1].store.sessions

    on_simulated_loop(work)


def test_a_lost_or_refused_opening_closes_the_connection() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            cluster.hold()
            raw = await Raw.dial(cluster.endpoints[0])
            raw.send_frame(ConnectRequest(0, 10_000, 0, bytes(16)).encode())
            await asyncio.sleep(0.1)
            cluster.lose()
            assert await raw.is_closed()

    on_simulated_loop(work)


def test_requests_sent_before_the_session_is_there_are_served_behind_it() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.dial(cluster.endpoints[0])
            raw.cork()
            raw.send_frame(ConnectRequest(0, 10_000, 0, bytes(16)).encode())
            raw.send_create(1, b"/a")
            raw.send(2, Op.SYNC, pack_buffer(b"/"))
            raw.uncork()
            assert len(await raw.frame()) == 37
            assert [(await raw.reply())[0] for _ in range(2)] == [1, 2]

    on_simulated_loop(work)


def test_a_store_replaced_by_a_snapshot_closes_all_connections() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            cluster.nodes[1].door.restored()
            assert await raw.is_closed()
            again = await Raw.open(cluster.endpoints[0], 10_000, raw.session, raw.password)
            assert again.session == raw.session

    on_simulated_loop(work)


def test_a_stopped_door_answers_what_it_can_and_hangs_up() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            raw.cork()
            for number in range(100):
                raw.send_get(number, b"/")
            raw.uncork()
            await asyncio.sleep(0.01)
            await cluster.nodes[1].door.stop()
            assert [(await raw.reply())[0] for _ in range(100)] == list(range(100))
            assert await raw.is_closed()

    on_simulated_loop(work)
