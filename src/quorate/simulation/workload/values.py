"""What clients do with data: registers, keys that come and go, several at once, in bursts, watched, in sequence."""

from __future__ import annotations

import asyncio

from quorate.checking.zookeeper.records import Call, Kind, Part, WatchKind
from quorate.simulation.workload.client import EPHEMERALS, KEYS, OWN, SEQUENCE, Client
from quorate.simulation.workload.session import RecordedSession

MOST_WATCHES = 6
"""Of one session at a time."""
STAY_S = (1.0, 5.0)
MOST_IN_BURST = 8
BURST_GAPS_S = (0.003, 0.003, 0.03)
MOST_IN_SEQUENCE = 5
"""Sequential nodes of one client at a time."""


async def use_register(client: Client, session: RecordedSession) -> None:
    path = client.some_register()
    chance = client.random.random()
    if chance < 0.3:
        await session.get(path, synced=True)
    elif chance < 0.45:
        await session.get(path)
    elif chance < 0.75:
        await session.set(path, client.new_value())
    else:
        read = await session.get(path, synced=chance < 0.85)
        if read.is_done() and not session.is_over():
            await session.set(path, client.new_value(), expected_version=read.version, expected_value=read.value)


async def use_key(client: Client, session: RecordedSession) -> None:
    path = client.some_key()
    chance = client.random.random()
    if chance < 0.3:
        await session.create(path, client.new_value(), is_key=True)
    elif chance < 0.5:
        await session.delete(path, is_key=True)
    elif chance < 0.65:
        await session.set(path, client.new_value())
    elif chance < 0.85:
        await session.get(path, synced=True)
    elif chance < 0.93:
        await session.exists(path)
    else:
        await session.children(KEYS, synced=chance < 0.96)


async def use_several(client: Client, session: RecordedSession) -> None:
    """A multi that sets registers, and may fail for a key that is there or is not, or for a version."""
    registers = client.world.options.registers()
    chosen = client.random.sample(registers, min(len(registers), client.random.randrange(2, 4)))
    parts = [Part(Kind.SET, path, client.new_value()) for path in chosen]
    chance = client.random.random()
    if chance < 0.25:
        parts.append(Part(Kind.CREATE, client.some_key(), client.new_value()))
    elif chance < 0.5:
        parts.append(Part(Kind.DELETE, client.some_key()))
    elif chance < 0.75:
        read = await session.get(chosen[0])
        if session.is_over() or not read.is_done():
            return
        parts.append(Part(Kind.CHECK, chosen[0], version=read.version + (1 if chance < 0.7 else 0)))
    await session.multi(parts)


async def use_burst(client: Client, session: RecordedSession) -> None:
    """Sets of a node of the session's own, sent without waiting for answers, and a read behind them."""
    if not session.own_path:
        created = await session.create(f"{OWN}/{session.number}", client.new_value())
        if not created.is_done() or session.is_over():
            return
        session.own_path = created.path
    else:
        # What became of the last one, if its connection was lost.
        await session.get(session.own_path)
        if session.is_over():
            return
    longest_gap_s = client.random.choice(BURST_GAPS_S)
    sent: list[asyncio.Task[Call]] = []
    for _ in range(client.random.randrange(2, MOST_IN_BURST)):
        # Some together, some a little later: one segment may be lost with what was under way, and the next not.
        if client.random.random() < 0.5:
            await asyncio.sleep(client.random.uniform(0.0, longest_gap_s))
        sent.append(asyncio.ensure_future(session.set(session.own_path, client.new_value())))
    await asyncio.gather(*sent, session.get(session.own_path))


async def use_watch(client: Client, session: RecordedSession) -> None:
    if len(session.watches) >= MOST_WATCHES:
        await session.sync()
        return
    chance = client.random.random()
    key = client.some_key()
    if chance < 0.25:
        await session.get(client.some_register(), watch=True)
    elif chance < 0.7:
        children = chance >= 0.6
        if any(
            live.record.path == key and (live.record.kind is WatchKind.CHILD) != children for live in session.watches
        ):
            # Of a node that went while its client was away, ZooKeeper tells once for each kind of watch on it.
            await session.sync()
        elif children:
            # Nothing is ever made under a key: what such a watch tells is that the key itself went.
            await session.children(key, watch=True)
        elif chance < 0.4:
            await session.get(key, watch=True)
        else:
            await session.exists(key, watch=True)
    elif chance < 0.8 and client.world.ephemerals:
        known = client.random.choice(client.world.ephemerals)
        await session.exists(known.path, watch=True)
    else:
        await session.children(KEYS if chance < 0.9 else EPHEMERALS, watch=True)


async def stay_watching(client: Client, session: RecordedSession) -> None:
    """Watch what changes once, write nothing for a while, and read what the server itself knows.

    So a session stays with a server that has lost its leader, as one that asks for writes does not.  And what is missed
    is not hidden by an event of the next change.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + client.random.uniform(*STAY_S)
    known = client.world.in_sequence
    paths = client.random.sample(known, min(len(known), MOST_WATCHES))
    while client.may_go_on() and not session.is_over() and loop.time() < until_s:
        if paths and len(session.watches) < MOST_WATCHES:
            await session.get(paths.pop(), watch=True)
        else:
            await session.get(client.some_register())
        await client.pace()


async def use_sequence(client: Client, session: RecordedSession) -> None:
    created = await session.create(f"{SEQUENCE}/{client.name}-", client.new_value(), sequential=True)
    if created.is_done():
        client.in_sequence.append(created.path)
        client.world.in_sequence.append(created.path)
    if len(client.in_sequence) > MOST_IN_SEQUENCE and not session.is_over():
        oldest = client.in_sequence.pop(0)
        client.world.in_sequence.remove(oldest)
        await session.delete(oldest)
