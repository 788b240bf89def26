"""Ephemerals: some clients make them, others look whether they are there."""

from __future__ import annotations

from collections.abc import Collection

from quorate.checking.zookeeper.records import NO_NODE, Call
from quorate.simulation.workload.client import EPHEMERALS, Client, Ephemeral
from quorate.simulation.workload.session import RecordedSession

MOST_EPHEMERALS = 4
"""Of one session at a time."""


async def use_ephemeral(client: Client, session: RecordedSession) -> None:
    chance = client.random.random()
    if chance < 0.35:
        own = [known for known in client.world.ephemerals if known.session is session.record]
        if len(own) < MOST_EPHEMERALS:
            await make_ephemeral(client, session)
        else:
            await delete_ephemeral(client, session, client.random.choice(own))
    elif chance < 0.65:
        listed = await session.children(EPHEMERALS, synced=chance < 0.5)
        if listed.is_done():
            note_those_gone(client, listed)
    elif client.world.ephemerals:
        known = client.random.choice(client.world.ephemerals)
        seen = await session.exists(known.path, synced=chance < 0.8)
        if seen.is_judged() and seen.code == NO_NODE and seen.zxid >= known.made_zxid:
            note_gone(client, [known])


async def make_ephemeral(client: Client, session: RecordedSession) -> None:
    value = client.new_value()
    created = await session.create(f"{EPHEMERALS}/{value}", value, ephemeral=True)
    if created.is_done():
        client.world.ephemerals.append(Ephemeral(created.path, created.zxid, session.record))


async def delete_ephemeral(client: Client, session: RecordedSession, own: Ephemeral) -> None:
    own.deleted = True
    client.world.ephemerals.remove(own)
    await session.delete(own.path)


def note_those_gone(client: Client, listed: Call) -> None:
    """Of those that were there when the list was asked for, some may be missing."""
    names: Collection[str] = frozenset(listed.children)
    note_gone(
        client,
        [
            known
            for known in client.world.ephemerals
            if known.made_zxid <= listed.zxid and known.path.rpartition("/")[2] not in names
        ],
    )


def note_gone(client: Client, gone: Collection[Ephemeral]) -> None:
    for known in gone:
        if not known.deleted and not known.seen_gone:
            known.seen_gone = True
            client.world.ephemerals.remove(known)
            client.world.recorder.coverage["ephemerals vanished"] += 1
