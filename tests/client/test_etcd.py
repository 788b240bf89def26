"""Our client of etcd's API, against etcd itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from quorate.client.etcd import ClientClosed, EtcdClient, NotDone, OutcomeUnknown, Watch
from quorate.client.etcd_errors import error_for
from quorate.net.grpc.client import NotSentError
from quorate.net.grpc.status import Code, GrpcError
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from tests.services.etcd.peer import Etcd, require_etcd

LIMIT_S = 30


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    require_etcd()
    with Etcd(tmp_path_factory.mktemp("etcd"), nodes=3) as peer:
        yield peer


async def events(watch: Watch, count: int) -> list[tuple[int, bytes]]:
    """(revision, value) of so many events."""
    seen: list[tuple[int, bytes]] = []
    async for response in watch:
        seen += [(event.kv.mod_revision, event.kv.value) for event in response.events]
        if len(seen) >= count:
            return seen
    raise AssertionError(f"the watch ended after {seen}")


async def created(watch: Watch) -> None:
    async for response in watch:
        if response.created:
            return


def test_keys_transactions_and_compaction(etcd: Etcd) -> None:
    async def use() -> None:
        async with EtcdClient(etcd.endpoints, Random(1)) as client:
            put = await client.put(pb.PutRequest(key=b"k", value=b"1"))
            again = await client.put(pb.PutRequest(key=b"k", value=b"2", prev_kv=True))
            assert again.prev_kv.value == b"1"
            found = await client.range(pb.RangeRequest(key=b"k", revision=put.header.revision))
            assert [item.value for item in found.kvs] == [b"1"]
            await client.compact(pb.CompactionRequest(revision=again.header.revision))
            with pytest.raises(NotDone) as raised:
                await client.range(pb.RangeRequest(key=b"k", revision=put.header.revision))
            assert raised.value.error is EtcdError.COMPACTED
            compare = pb.Compare(key=b"k", target=pb.Compare.VALUE, value=b"2")
            delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"k"))
            done = await client.txn(pb.TxnRequest(compare=[compare], success=[delete]))
            assert (done.succeeded, done.responses[0].response_delete_range.deleted) == (True, 1)
            assert (await client.delete_range(pb.DeleteRangeRequest(key=b"k"))).deleted == 0

    asyncio.run(asyncio.wait_for(use(), LIMIT_S))


def test_a_watch_goes_on_where_it_was_at_the_next_member(etcd: Etcd) -> None:
    async def use() -> None:
        async with EtcdClient(etcd.endpoints, Random(2)) as client:
            watch = client.watch(pb.WatchCreateRequest(key=b"w"))
            await created(watch)
            members = set()
            for value in (b"1", b"2", b"3"):
                put = await client.put(pb.PutRequest(key=b"w", value=value))
                assert await events(watch, 1) == [(put.header.revision, value)]
                members.add(client.member)
                client.suspend()
                async with EtcdClient(etcd.endpoints, Random(3)) as other:
                    meanwhile = await other.put(pb.PutRequest(key=b"w", value=value + b"!"))
                client.resume()
                assert await events(watch, 1) == [(meanwhile.header.revision, value + b"!")]
            assert len(members) == 3
            watch.cancel()
            assert [response.canceled async for response in watch] == [True]

    asyncio.run(asyncio.wait_for(use(), LIMIT_S))


def test_progress_and_several_watches_on_one_stream(etcd: Etcd) -> None:
    async def use() -> None:
        async with EtcdClient(etcd.endpoints, Random(4)) as client:
            watches = [client.watch(pb.WatchCreateRequest(key=key)) for key in (b"a", b"b")]
            for watch in watches:
                await created(watch)
            put = await client.put(pb.PutRequest(key=b"other", value=b""))
            while min(watch.next_revision for watch in watches) <= put.header.revision:
                client.request_progress()
                for watch in watches:
                    assert not (await anext(watch)).events
            await client.put(pb.PutRequest(key=b"b", value=b"1"))
            assert len(await events(watches[1], 1)) == 1

    asyncio.run(asyncio.wait_for(use(), LIMIT_S))


def test_a_watch_that_a_compaction_overtook_ends(etcd: Etcd) -> None:
    async def use() -> None:
        async with EtcdClient(etcd.endpoints, Random(5)) as client:
            first = await client.put(pb.PutRequest(key=b"c", value=b"1"))
            last = await client.put(pb.PutRequest(key=b"c", value=b"2"))
            await client.compact(pb.CompactionRequest(revision=last.header.revision))
            watch = client.watch(pb.WatchCreateRequest(key=b"c", start_revision=first.header.revision))
            *_, end = [response async for response in watch]
            assert (end.canceled, end.compact_revision) == (True, last.header.revision)
            assert watch.is_over

    asyncio.run(asyncio.wait_for(use(), LIMIT_S))


def test_leases(etcd: Etcd) -> None:
    async def use() -> None:
        async with EtcdClient(etcd.endpoints, Random(6)) as client:
            lease = (await client.lease_grant(pb.LeaseGrantRequest(TTL=60))).ID
            await client.put(pb.PutRequest(key=b"l", value=b"1", lease=lease))
            answers = await asyncio.gather(*(client.keep_alive(lease) for _ in range(3)))
            assert [answer.TTL for answer in answers] == [60, 60, 60]
            left = await client.lease_time_to_live(pb.LeaseTimeToLiveRequest(ID=lease, keys=True))
            assert (left.grantedTTL, list(left.keys)) == (60, [b"l"])
            listed = await client.lease_leases(pb.LeaseLeasesRequest())
            assert lease in [status.ID for status in listed.leases]
            client.drop_connection()
            await client.lease_revoke(pb.LeaseRevokeRequest(ID=lease))
            assert (await client.keep_alive(lease)).TTL == 0
            with pytest.raises(NotDone) as raised:
                await client.put(pb.PutRequest(key=b"l", value=b"1", lease=lease))
            assert raised.value.error is EtcdError.LEASE_NOT_FOUND

    asyncio.run(asyncio.wait_for(use(), LIMIT_S))


def test_what_is_cut_off_is_unknown_and_what_did_not_leave_is_not_done(etcd: Etcd) -> None:
    async def use() -> None:
        client = EtcdClient(etcd.endpoints, Random(7), timeout_s=0.2)
        client.suspend()
        client.start()
        with pytest.raises(NotDone):
            await client.put(pb.PutRequest(key=b"k", value=b"1"))
        client.resume()
        await client.range(pb.RangeRequest(key=b"k"))
        while True:
            put = asyncio.ensure_future(client.put(pb.PutRequest(key=b"k", value=b"1")))
            await asyncio.sleep(0)
            client.drop_connection()
            try:
                await put  # on a busy machine the answer may be there before the cut
            except OutcomeUnknown:
                break
            await client.range(pb.RangeRequest(key=b"k"))
        watch = client.watch(pb.WatchCreateRequest(key=b"k"))
        await client.close()
        assert [response async for response in watch] == []
        with pytest.raises(ClientClosed):
            await client.range(pb.RangeRequest(key=b"k"))
        with pytest.raises(ClientClosed):
            client.watch(pb.WatchCreateRequest(key=b"k"))

    asyncio.run(asyncio.wait_for(use(), LIMIT_S))


@pytest.mark.parametrize(
    ("error", "certain"),
    [
        (GrpcError(*EtcdError.NO_LEADER.value), True),
        (GrpcError(*EtcdError.LEASE_NOT_FOUND.value), True),
        (GrpcError(*EtcdError.TIMEOUT_LEADER_FAILED.value), False),
        (GrpcError(*EtcdError.STOPPED.value), False),
        (GrpcError(*EtcdError.ANSWER_TOO_LARGE.value), False),
        (GrpcError(Code.UNAVAILABLE, "the connection was lost"), False),
        (GrpcError(Code.UNKNOWN, "etcdserver: no leader"), False),
        (NotSentError(Code.UNAVAILABLE, "no connection"), True),
    ],
)
def test_only_what_surely_was_not_done_is_called_so(error: GrpcError, certain: bool) -> None:
    assert isinstance(error_for(error, "put"), NotDone) is certain
