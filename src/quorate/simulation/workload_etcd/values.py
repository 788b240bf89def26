"""What clients do with keys: registers, keys that come and go, transactions, ranges now and in the past, compaction."""

from __future__ import annotations

from typing import Final

from quorate.services.etcd.etcd_pb2 import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from quorate.simulation.workload_etcd.client import KEYS, LEASED, REGISTERS, Client, end_of

PREFIXES: Final = (REGISTERS, KEYS, LEASED)
COMPARE_NUMBERS: Final = (Compare.VERSION, Compare.CREATE, Compare.MOD)
SORT_TARGETS: Final = (
    RangeRequest.KEY,
    RangeRequest.VERSION,
    RangeRequest.CREATE,
    RangeRequest.MOD,
    RangeRequest.VALUE,
)
RESULTS: Final = (Compare.EQUAL, Compare.GREATER, Compare.LESS, Compare.NOT_EQUAL)


def put_of(request: PutRequest) -> RequestOp:
    return RequestOp(request_put=request)


def read_of(key: bytes, range_end: bytes = b"") -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=key, range_end=range_end))


def delete_of(key: bytes, range_end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=range_end, prev_kv=True))


async def use_register(client: Client) -> None:
    key = client.some_register()
    chance = client.random.random()
    if chance < 0.3:
        await client.etcd.do(RangeRequest(key=key), is_register=True)
    elif chance < 0.4:
        await client.etcd.do(RangeRequest(key=key, serializable=True))
    elif chance < 0.7:
        await client.etcd.do(PutRequest(key=key, value=client.new_value(), prev_kv=chance < 0.5), is_register=True)
    elif chance < 0.75:
        await client.etcd.do(DeleteRangeRequest(key=key, prev_kv=chance < 0.73), is_register=True)
    else:
        await _compare_and_set(client, key, serializable=chance < 0.85)


async def _compare_and_set(client: Client, key: bytes, *, serializable: bool) -> None:
    read = await client.etcd.do(RangeRequest(key=key, serializable=serializable), is_register=not serializable)
    if not isinstance(read.response, RangeResponse):
        return
    if read.response.kvs:
        compare = Compare(key=key, target=Compare.VALUE, value=read.response.kvs[0].value)
    else:
        compare = Compare(key=key, target=Compare.CREATE, create_revision=0)
    put = PutRequest(key=key, value=client.new_value(), prev_kv=True)
    success = [put_of(put), read_of(key)]
    await client.etcd.do(TxnRequest(compare=[compare], success=success, failure=[read_of(key)]), is_register=True)


async def use_key(client: Client) -> None:
    key = client.some_key()
    chance = client.random.random()
    if chance < 0.3:
        await client.etcd.do(PutRequest(key=key, value=client.new_value(), prev_kv=chance < 0.15))
    elif chance < 0.4:
        kept = {"ignore_lease": True} if chance < 0.35 else {"ignore_value": True}
        value = client.new_value() if chance < 0.35 else b""
        await client.etcd.do(PutRequest(key=key, value=value, prev_kv=chance < 0.37, **kept))
    elif chance < 0.6:
        await client.etcd.do(DeleteRangeRequest(key=key, prev_kv=chance < 0.5))
    elif chance < 0.66:
        await client.etcd.do(DeleteRangeRequest(key=KEYS, range_end=end_of(KEYS), prev_kv=chance < 0.63))
    elif chance < 0.75:
        create = Compare(key=key, target=Compare.VERSION, version=0)
        put = PutRequest(key=key, value=client.new_value())
        await client.etcd.do(TxnRequest(compare=[create], success=[put_of(put)], failure=[read_of(key)]))
    else:
        await client.etcd.do(RangeRequest(key=key, serializable=chance < 0.85))


async def use_range(client: Client) -> None:
    """Of many keys, with all that a range may ask for, now or in the past."""
    random = client.random
    prefix = random.choice(PREFIXES)
    request = RangeRequest(key=prefix, range_end=end_of(prefix), serializable=random.random() < 0.4)
    if random.random() < 0.2:
        request.key = request.range_end = b"\0"
    if random.random() < 0.5:
        request.revision = client.some_past_revision()
    chance = random.random()
    if chance < 0.1:
        request.count_only = True
    elif chance < 0.3:
        request.keys_only = True
    if random.random() < 0.3:
        request.limit = random.randrange(1, 4)
    if random.random() < 0.4:
        request.sort_order = random.choice((RangeRequest.ASCEND, RangeRequest.DESCEND))
        request.sort_target = random.choice(SORT_TARGETS)
    if random.random() < 0.2:
        request.min_mod_revision = client.some_past_revision()
    if random.random() < 0.1:
        request.max_create_revision = client.some_past_revision()
    await client.etcd.do(request)


async def read_the_past(client: Client) -> None:
    """One key, as it was, where it can just still be read, and a little further back and ahead."""
    chance = client.random.random()
    compacted = max(client.world.compacted_revision, 1)
    if chance < 0.5:
        revision = compacted + client.random.randrange(0, 3)
    elif chance < 0.6:
        revision = max(1, compacted - client.random.randrange(1, 5))
    elif chance < 0.65:
        revision = client.world.chronicled_revision + client.random.randrange(1, 1000)
    else:
        revision = client.some_past_revision()
    key = client.random.choice((client.some_register(), client.some_key(), client.some_leased_key()))
    await client.etcd.do(RangeRequest(key=key, revision=revision, serializable=client.random.random() < 0.3))


async def use_several(client: Client) -> None:
    """A transaction that writes registers, and with a bit of luck holds in all that it compares."""
    random = client.random
    registers = client.world.options.registers()
    chosen = random.sample(registers, min(len(registers), random.randrange(1, 4)))
    success = [put_of(PutRequest(key=key, value=client.new_value())) for key in chosen]
    compare = []
    if random.random() < 0.7:
        target = random.choice(COMPARE_NUMBERS)
        compare = [_compare_number(client, client.some_key(), target)]
    success.append(read_of(REGISTERS, end_of(REGISTERS)))
    failure = [read_of(client.some_key())]
    await client.etcd.do(TxnRequest(compare=compare, success=success, failure=failure), is_register=True)


async def use_nested(client: Client) -> None:
    """Transactions within one another, on keys that come and go; their comparisons are made before any of it."""
    random = client.random
    keys = client.world.options.keys_that_come_and_go()
    outer, inner = random.sample(keys, 2) if len(keys) > 1 else (keys[0], client.some_leased_key())
    nested = TxnRequest(
        compare=[Compare(key=outer, target=Compare.VERSION, version=0, result=random.choice(RESULTS))],
        success=[put_of(PutRequest(key=inner, value=client.new_value())), read_of(KEYS, end_of(KEYS))],
        failure=[delete_of(inner), read_of(inner)],
    )
    request = TxnRequest(
        compare=[_compare_number(client, KEYS, random.choice(COMPARE_NUMBERS), end_of(KEYS))],
        success=[put_of(PutRequest(key=outer, value=client.new_value())), RequestOp(request_txn=nested)],
        failure=[delete_of(outer), RequestOp(request_txn=nested), read_of(KEYS, end_of(KEYS))],
    )
    await client.etcd.do(request)


def _compare_number(client: Client, key: bytes, target: Compare.CompareTarget, range_end: bytes = b"") -> Compare:
    """With one that holds for some and not for others."""
    compare = Compare(key=key, range_end=range_end, target=target, result=client.random.choice(RESULTS))
    number = client.random.randrange(4)
    if number == 3 and target != Compare.VERSION:
        number = client.some_past_revision()
    if target == Compare.VERSION:
        compare.version = number
    elif target == Compare.CREATE:
        compare.create_revision = number
    else:
        compare.mod_revision = number
    return compare


async def compact(client: Client) -> None:
    """Never what no chronicler has seen, and at times what cannot be."""
    world = client.world
    chance = client.random.random()
    if chance < 0.5:
        revision = world.chronicled_revision
    elif chance < 0.9:
        revision = client.some_past_revision()
    elif chance < 0.95:
        revision = world.compacted_revision
    else:
        revision = world.chronicled_revision + 100_000
    if revision <= 1:
        return
    if revision <= world.chronicled_revision:
        world.compacted_revision = max(world.compacted_revision, revision)
    await client.etcd.do(CompactionRequest(revision=revision, physical=client.random.random() < 0.3))
