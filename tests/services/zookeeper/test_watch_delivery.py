"""Watch events on the wire: before any reply that shows the change, once, and not lost by a reconnection."""

from __future__ import annotations

from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.protocol import Delete, EventType, Op, PathAndMode, PathAndWatch, SetWatches
from tests.services.zookeeper.harness import Cluster, on_simulated_loop
from tests.services.zookeeper.raw import Raw, data_of


def test_the_event_comes_before_the_reply_of_the_write_and_of_any_read_that_shows_it() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            writer = await Raw.open(cluster.endpoints[0])
            watcher = await Raw.open(cluster.endpoints[1])
            writer.send_create(1, b"/a", b"0")
            await writer.reply()
            for number in range(1, 30):
                watcher.send_get(1, b"/a", watch=True)
                assert data_of((await watcher.reply())[3]) == b"%d" % (number - 1)
                writer.send_get(2, b"/a", watch=True)
                await writer.reply()
                watcher.cork()
                for xid in range(2, 50):
                    watcher.send_get(xid, b"/a")
                watcher.uncork()
                writer.send_set(3, b"/a", b"%d" % number)
                assert await writer.event() == (EventType.DATA_CHANGED, b"/a")
                assert (await writer.reply())[0] == 3
                told = False
                for _ in range(49):
                    xid, _, _, record = await watcher.reply()
                    if xid == -1:
                        told = True
                    else:
                        assert data_of(record) == (b"%d" % number if told else b"%d" % (number - 1))
                assert told

    on_simulated_loop(work)


def test_exists_on_a_missing_node_watches_its_creation() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            assert (await raw.call(1, Op.EXISTS, PathAndWatch(b"/a", True).encode()))[0] == ErrorCode.NO_NODE
            raw.send_create(2, b"/a")
            assert await raw.event() == (EventType.CREATED, b"/a")
            assert (await raw.reply())[0] == 2
            raw.send(3, Op.DELETE, Delete(b"/a").encode())
            assert (await raw.reply())[0] == 3

    on_simulated_loop(work)


def test_get_data_of_a_missing_node_watches_nothing() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            for op in (Op.GET_DATA, Op.GET_CHILDREN, Op.GET_CHILDREN2):
                assert (await raw.call(1, op, PathAndWatch(b"/a", True).encode()))[0] == ErrorCode.NO_NODE
            assert cluster.nodes[1].door.summary()["watches"] == 0

    on_simulated_loop(work)


def test_child_watches_and_deletion() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            raw.send_create(1, b"/a")
            await raw.reply()
            await raw.call(2, Op.GET_CHILDREN2, PathAndWatch(b"/a", True).encode())
            raw.send_create(3, b"/a/b")
            assert await raw.event() == (EventType.CHILDREN_CHANGED, b"/a")
            await raw.reply()
            await raw.call(4, Op.GET_CHILDREN, PathAndWatch(b"/a/b", True).encode())
            await raw.call(5, Op.GET_DATA, PathAndWatch(b"/a/b", True).encode())
            await raw.call(6, Op.GET_CHILDREN, PathAndWatch(b"/a", True).encode())
            raw.send(7, Op.DELETE, Delete(b"/a/b").encode())
            assert await raw.event() == (EventType.DELETED, b"/a/b")
            assert await raw.event() == (EventType.CHILDREN_CHANGED, b"/a")
            assert (await raw.reply())[0] == 7

    on_simulated_loop(work)


def test_the_end_of_a_session_tells_the_watchers_of_its_ephemerals() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            owner = await Raw.open(cluster.endpoints[0], 1_000)
            owner.send_create(1, b"/lock", flags=1)
            await owner.reply()
            waiter = await Raw.open(cluster.endpoints[1])
            await waiter.call(1, Op.EXISTS, PathAndWatch(b"/lock", True).encode())
            owner.writer.transport.abort()
            assert await waiter.event() == (EventType.DELETED, b"/lock")

    on_simulated_loop(work)


def test_watches_set_again_elsewhere_tell_what_was_missed_before_their_reply() -> None:
    async def work() -> None:
        async with Cluster(2) as cluster:
            other = await Raw.open(cluster.endpoints[0])
            for number, path in enumerate((b"/same", b"/changed", b"/gone", b"/parent")):
                other.send_create(number, path)
                await other.reply()
            raw = await Raw.open(cluster.endpoints[0])
            raw.send_get(1, b"/same", watch=True)
            _, seen_zxid, _, _ = await raw.reply()
            raw.writer.transport.abort()
            other.send_set(5, b"/changed", b"x")
            other.send(6, Op.DELETE, Delete(b"/gone").encode())
            other.send_create(7, b"/parent/child")
            other.send_create(8, b"/new")
            for _ in range(4):
                await other.reply()
            again = await Raw.open(cluster.endpoints[1], 10_000, raw.session, raw.password, seen_zxid)
            record = SetWatches(
                seen_zxid, [b"/same", b"/changed", b"/gone"], [b"/new", b"/absent"], [b"/parent", b"/same"]
            )
            again.send(-8, Op.SET_WATCHES, record.encode(Op.SET_WATCHES))
            assert [await again.event() for _ in range(4)] == [
                (EventType.DATA_CHANGED, b"/changed"),
                (EventType.DELETED, b"/gone"),
                (EventType.CREATED, b"/new"),
                (EventType.CHILDREN_CHANGED, b"/parent"),
            ]
            xid, _, code, _ = await again.reply()
            assert (xid, code) == (-8, 0)
            other.send_set(9, b"/same", b"x")
            assert await again.event() == (EventType.DATA_CHANGED, b"/same")

    on_simulated_loop(work)


def test_set_watches_2_works_unless_it_asks_for_persistent_watches() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            plain = SetWatches(0, [], [b"/a"], [])
            assert await raw.call(-8, Op.SET_WATCHES2, plain.encode(Op.SET_WATCHES2)) == (0, b"")
            persistent = SetWatches(0, [], [], [], [b"/a"], [])
            code, _ = await raw.call(-8, Op.SET_WATCHES2, persistent.encode(Op.SET_WATCHES2))
            assert code == ErrorCode.UNIMPLEMENTED
            raw.send_create(1, b"/a")
            assert await raw.event() == (EventType.CREATED, b"/a")

    on_simulated_loop(work)


def test_watches_can_be_looked_up_and_taken_back() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            await raw.call(1, Op.GET_DATA, PathAndWatch(b"/", True).encode())
            assert (await raw.call(2, Op.CHECK_WATCHES, PathAndMode(b"/", 2).encode()))[0] == 0
            assert (await raw.call(3, Op.CHECK_WATCHES, PathAndMode(b"/", 1).encode()))[0] == ErrorCode.NO_WATCHER
            assert (await raw.call(4, Op.REMOVE_WATCHES, PathAndMode(b"/", 3).encode()))[0] == 0
            assert (await raw.call(5, Op.REMOVE_WATCHES, PathAndMode(b"/", 3).encode()))[0] == ErrorCode.NO_WATCHER
            assert (await raw.call(6, Op.REMOVE_WATCHES, PathAndMode(b"/", 4).encode()))[0] == ErrorCode.NO_WATCHER
            assert (await raw.call(7, Op.REMOVE_WATCHES, PathAndMode(b"/", 9).encode()))[0] == ErrorCode.BAD_ARGUMENTS

    on_simulated_loop(work)


def test_a_closed_connection_takes_its_watches_with_it() -> None:
    async def work() -> None:
        async with Cluster() as cluster:
            raw = await Raw.open(cluster.endpoints[0])
            await raw.call(1, Op.GET_DATA, PathAndWatch(b"/", True).encode())
            assert cluster.nodes[1].door.summary()["watches"] == 1
            raw.writer.transport.abort()
            other = await Raw.open(cluster.endpoints[0])
            await other.call(1, Op.EXISTS, PathAndWatch(b"/", False).encode())
            assert cluster.nodes[1].door.summary()["watches"] == 0

    on_simulated_loop(work)
