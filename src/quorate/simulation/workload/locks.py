"""Locks: ephemeral sequential claims, each waiting for the one in front, and a resource that takes fencing tokens.

Source: the lock recipe of ZooKeeper's documentation ("ZooKeeper Recipes and Solutions").
"""

from __future__ import annotations

import asyncio
from typing import Final

from quorate.checking.zookeeper.records import Hold
from quorate.simulation.workload.client import LOCKS, Client
from quorate.simulation.workload.session import RecordedSession
from quorate.simulation.workload.values import use_register

WAIT_S: Final = 6.0
"""After so long a client gives its claim up."""
FREEZE_CHANCE: Final = 0.12
"""How often a holder stands still for longer than its session lasts, and then goes on as if nothing had been."""


async def use_lock(client: Client, session: RecordedSession) -> None:
    lock = client.random.choice(LOCKS)
    claim = await session.create(f"{lock}/{client.new_value()}-", None, ephemeral=True, sequential=True)
    if claim.is_unknown():
        # A claim that nobody knows of would block the lock for as long as the session lives.
        session.leave()
        return
    if not claim.is_done():
        return
    hold = await _acquire(client, session, lock, claim.path, claim.czxid)
    if hold is None:
        await _withdraw(session, claim.path, None)
        return
    client.world.recorder.history.holds.append(hold)
    client.world.recorder.coverage["locks acquired"] += 1
    await _work(client, session, hold)


async def _acquire(client: Client, session: RecordedSession, lock: str, claim: str, token: int) -> Hold | None:
    """Wait until the claim is first in line.  None where that takes too long, or the claim is gone."""
    loop = asyncio.get_running_loop()
    give_up_at_s = loop.time() + WAIT_S
    name = claim.rpartition("/")[2]
    while loop.time() < give_up_at_s and client.may_go_on() and not session.is_over():
        listed = await session.children(lock)
        if not listed.is_done():
            continue
        line = sorted(listed.children, key=_number)
        if name not in line:
            return None
        place = line.index(name)
        if place == 0:
            return Hold(lock, claim, session.number, token, listed.zxid, client.world.recorder.now_s())
        seen = await session.exists(f"{lock}/{line[place - 1]}", watch=True)
        if not seen.is_done():
            continue
        live = next((live for live in session.watches if live.record.path == seen.path), None)
        while live is not None and not live.woken.is_set() and loop.time() < give_up_at_s and client.may_go_on():
            if session.is_over():
                return None
            await use_register(client, session)
            await client.pace()
    return None


async def _work(client: Client, session: RecordedSession, hold: Hold) -> None:
    resource = client.world.resource
    for _ in range(client.random.randrange(1, 4)):
        if not resource.use(hold):
            break
        await client.pace()
    if client.random.random() < FREEZE_CHANCE:
        session.zk.suspend()
        await asyncio.sleep(session.record.timeout_ms / 1000 + client.random.uniform(1.0, 3.0))
        resource.use(hold)
        session.zk.resume()
    await _withdraw(session, hold.claim, hold)


async def _withdraw(session: RecordedSession, claim: str, hold: Hold | None) -> None:
    """Delete the claim; where that cannot be done the session must go, and the claim with it."""
    for _ in range(3):
        if session.is_over():
            return
        deleted = await session.delete(claim)
        if hold is not None and (hold.release is None or deleted.is_done()):
            hold.release = deleted
        if not deleted.is_unknown():
            return
    session.leave()


def _number(name: str) -> str:
    return name[-10:]
