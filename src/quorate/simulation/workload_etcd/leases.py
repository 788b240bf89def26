"""What clients do with leases: kept alive for a while, with keys under them, then left, revoked, or forgotten."""

from __future__ import annotations

import asyncio
from typing import Final

from quorate.services.etcd.etcd_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    TxnRequest,
)
from quorate.simulation.workload_etcd.client import Client
from quorate.simulation.workload_etcd.values import put_of, use_register

TTLS_S: Final = (2, 5)
MOST_UNDER_WAY: Final = 12
"""Keep-alives of one lease that wait for their answers."""
LATE_S: Final = (-0.005, 0.055)
"""When a client comes back that let its lease's time pass: about when the leader, which looks now and then, sees it."""
LATE_GAP_S: Final = 0.01
LIVES_S: Final = (0.5, 8.0)
"""How long a lease is kept alive."""


class LiveLease:
    """A lease that is kept alive by its client, as long as that can."""

    def __init__(self, client: Client, number: int, ttl_s: int) -> None:
        self.number = number
        self.ttl_s = ttl_s
        self.is_over = False
        """The server said so."""
        self._client = client
        self._task = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        """As `clientv3` does, whether the last one was answered or not."""
        under_way: set[asyncio.Task[None]] = set()
        while not self.is_over:
            if len(under_way) < MOST_UNDER_WAY:
                beat = asyncio.ensure_future(self._beat())
                under_way.add(beat)
                beat.add_done_callback(under_way.discard)
            await asyncio.sleep(self.ttl_s / 3)

    async def _beat(self) -> None:
        answer = await self._client.etcd.keep_alive(self.number)
        if answer is not None and answer.ttl_s <= 0:
            self.is_over = True

    async def come_late(self) -> None:
        """Leave it, and come back when its time is just about over."""
        self.leave()
        await self._beat()
        await asyncio.sleep(self.ttl_s + self._client.random.uniform(*LATE_S))
        beats = []
        for _ in range(MOST_UNDER_WAY):
            beats.append(asyncio.ensure_future(self._beat()))
            await asyncio.sleep(self._client.random.uniform(0.0, LATE_GAP_S))
        await asyncio.gather(*beats)

    def leave(self) -> None:
        """It ends when its time is over."""
        self._task.cancel()

    async def revoke(self) -> None:
        self.leave()
        await self._client.etcd.do(LeaseRevokeRequest(ID=self.number))


async def grant(client: Client) -> LiveLease | None:
    """None where it was not granted, as far as it is known."""
    call = await client.etcd.do(LeaseGrantRequest(TTL=client.random.randrange(*TTLS_S), ID=client.new_lease()))
    if not isinstance(call.response, LeaseGrantResponse):
        return None
    client.world.leases[call.response.ID] = None
    return LiveLease(client, call.response.ID, call.response.TTL)


async def use_lease(client: Client) -> None:
    """One lease's life."""
    random = client.random
    lease = await grant(client)
    if lease is None:
        return
    loop = asyncio.get_running_loop()
    until_s = loop.time() + random.uniform(*LIVES_S)
    while loop.time() < until_s and client.may_go_on() and not lease.is_over:
        await _use_leased_key(client, lease)
        await client.pace()
        if random.random() < 0.5:
            await use_register(client)
            await client.pace()
    end = random.random()
    if end < 0.4:
        await lease.revoke()
    elif end < 0.6 and client.may_go_on():
        await lease.come_late()
    else:
        lease.leave()
    client.world.recorder.coverage["leases revoked" if end < 0.4 else "leases left"] += 1


async def _use_leased_key(client: Client, lease: LiveLease) -> None:
    key = client.some_leased_key()
    value = client.new_value()
    chance = client.random.random()
    if chance < 0.5:
        await client.etcd.do(PutRequest(key=key, value=value, lease=lease.number, prev_kv=chance < 0.2))
    elif chance < 0.6:
        other = client.some_leased_key()
        puts = [PutRequest(key=name, value=value, lease=lease.number) for name in dict.fromkeys((key, other))]
        await client.etcd.do(TxnRequest(success=[put_of(put) for put in puts]))
    elif chance < 0.7:
        await client.etcd.do(PutRequest(key=key, value=value))
    elif chance < 0.75:
        await client.etcd.do(PutRequest(key=key, value=value, ignore_lease=True))
    elif chance < 0.8:
        await client.etcd.do(PutRequest(key=key, lease=lease.number, ignore_value=True))
    elif chance < 0.9:
        await client.etcd.do(LeaseTimeToLiveRequest(ID=lease.number, keys=True))
    else:
        await _look_at_another(client)


async def _look_at_another(client: Client) -> None:
    """A lease of anybody's, maybe long over."""
    known = list(client.world.leases)[-20:]
    chance = client.random.random()
    if chance < 0.3 or not known:
        await client.etcd.do(LeaseLeasesRequest())
        return
    number = client.random.choice(known)
    if chance < 0.6:
        await client.etcd.do(LeaseTimeToLiveRequest(ID=number, keys=True))
    elif chance < 0.8:
        await client.etcd.do(PutRequest(key=client.some_leased_key(), value=client.new_value(), lease=number))
    elif chance < 0.9:
        await client.etcd.keep_alive(number)
    else:
        await client.etcd.do(LeaseRevokeRequest(ID=number))
