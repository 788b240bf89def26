"""Locks: claims under leases, each waiting for the one in front; what a holder writes, it writes if its claim is there.

Source: etcd's `concurrency` recipes.
"""

from __future__ import annotations

import asyncio
from typing import Final

from quorate.checking.etcd.records import Hold
from quorate.services.etcd.etcd_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
)
from quorate.simulation.workload_etcd.client import GUARDED, LOCKS, Client, end_of
from quorate.simulation.workload_etcd.leases import LiveLease, grant
from quorate.simulation.workload_etcd.values import put_of, read_of, use_register

WAIT_S: Final = 6.0
"""After so long a client gives its claim up."""
FREEZE_CHANCE: Final = 0.15
"""How often a holder stands still for longer than its lease lasts, and then goes on as if nothing had been."""


async def use_lock(client: Client) -> None:
    lock = client.random.choice(LOCKS)
    lease = await grant(client)
    if lease is None:
        return
    claim = lock + b"%x" % lease.number
    absent = Compare(key=claim, target=Compare.CREATE, create_revision=0)
    put = PutRequest(key=claim, value=client.new_value(), lease=lease.number)
    claimed = await client.etcd.do(TxnRequest(compare=[absent], success=[put_of(put)], failure=[read_of(claim)]))
    if isinstance(claimed.response, TxnResponse) and claimed.response.succeeded:
        hold = await _acquire(client, lease, lock, claim, claimed.revision)
        if hold is not None:
            client.world.recorder.history.holds.append(hold)
            client.world.recorder.coverage["locks acquired"] += 1
            await _work(client, lease, hold)
    await _release(client, lease, claim)


async def _acquire(client: Client, lease: LiveLease, lock: bytes, claim: bytes, token: int) -> Hold | None:
    """Wait until the claim is the oldest.  None where that takes too long, or the claim is gone."""
    loop = asyncio.get_running_loop()
    give_up_at_s = loop.time() + WAIT_S
    oldest_first = RangeRequest(
        key=lock, range_end=end_of(lock), sort_target=RangeRequest.CREATE, sort_order=RangeRequest.ASCEND
    )
    while loop.time() < give_up_at_s and client.may_go_on() and not lease.is_over:
        listed = await client.etcd.do(oldest_first)
        if not isinstance(listed.response, RangeResponse):
            continue
        line = [item.key for item in listed.response.kvs]
        if claim not in line:
            return None
        place = line.index(claim)
        if place == 0:
            return Hold(lock, claim, client.name, token, listed.revision, client.world.recorder.now_s())
        await _wait_for_end(client, lease, line[place - 1], listed.revision + 1, give_up_at_s)
    return None


async def _wait_for_end(client: Client, lease: LiveLease, key: bytes, start: int, give_up_at_s: float) -> None:
    """Of the claim in front."""
    loop = asyncio.get_running_loop()
    request = WatchCreateRequest(key=key, start_revision=start, filters=[WatchCreateRequest.NOPUT])
    live = client.etcd.watch(request)
    try:
        while loop.time() < give_up_at_s and client.may_go_on() and not lease.is_over and not live.is_over:
            if any(delivery.response.events for delivery in live.record.deliveries):
                return
            await use_register(client)
            await client.pace()
    finally:
        live.cancel()


async def _work(client: Client, lease: LiveLease, hold: Hold) -> None:
    for _ in range(client.random.randrange(1, 4)):
        if not client.world.resource.use(hold) or not await _write(client, hold):
            break
        await client.pace()
    if client.random.random() < FREEZE_CHANCE:
        lease.leave()
        client.etcd.etcd.suspend()
        await asyncio.sleep(lease.ttl_s + client.random.uniform(1.0, 4.0))
        client.world.resource.use(hold)
        client.etcd.etcd.resume()
        await _write(client, hold)


async def _write(client: Client, hold: Hold) -> bool:
    """What the lock guards within the cluster: done only if the claim is still there."""
    key = GUARDED + hold.lock
    fence = Compare(key=hold.claim, target=Compare.CREATE, create_revision=hold.token)
    put = put_of(PutRequest(key=key, value=client.new_value(), prev_kv=True))
    written = await client.etcd.do(TxnRequest(compare=[fence], success=[put], failure=[read_of(key)]))
    if not isinstance(written.response, TxnResponse):
        return False
    done = written.response.succeeded
    client.world.recorder.coverage["fenced writes done" if done else "fenced writes refused"] += 1
    return done


async def _release(client: Client, lease: LiveLease, claim: bytes) -> None:
    """By its own deletion, or with its lease."""
    if client.random.random() < 0.5:
        await client.etcd.do(DeleteRangeRequest(key=claim))
        lease.leave()
    else:
        await lease.revoke()
