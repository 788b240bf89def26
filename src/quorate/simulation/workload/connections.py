"""What clients do with sessions and connections: short sessions, moves between servers, rests and pauses, ends."""

from __future__ import annotations

import asyncio
from typing import Final

from quorate.simulation.workload.client import OPEN_LIMIT_S, Client
from quorate.simulation.workload.ephemerals import make_ephemeral
from quorate.simulation.workload.session import RecordedSession

SHORT_TIMEOUTS_MS: Final = (1_000, 3_000)
MOST_IN_HURRY: Final = 4
HURRIES_S: Final = (0.01, 0.05, 0.3)
"""Long enough for a server to have taken them, and not always for all of them to have been done."""


async def move(client: Client, session: RecordedSession) -> None:
    """On to the next server, with the session and its watches."""
    session.zk.drop_connection()
    await session.get(client.some_register())


async def rest(client: Client, session: RecordedSession) -> None:
    """Do nothing for longer than the session would last without pings."""
    await make_ephemeral(client, session)
    rest_s = session.record.timeout_ms / 1000 * client.random.uniform(0.7, 1.6)
    while rest_s > 0 and client.may_go_on() and not session.is_over():
        await asyncio.sleep(min(rest_s, 0.5))
        rest_s -= 0.5
    await session.get(client.some_register())


async def stand_still(client: Client, session: RecordedSession) -> None:
    """For about as long as the session may last without a word: sometimes it is over then."""
    await make_ephemeral(client, session)
    session.zk.suspend()
    await asyncio.sleep(session.record.timeout_ms / 1000 * client.random.uniform(0.2, 1.8))
    session.zk.resume()
    await session.get(client.some_register())


async def end_session(client: Client, session: RecordedSession) -> None:
    """Close it, or leave it to expire; the client goes on with a new one."""
    await make_ephemeral(client, session)
    if client.random.random() < 0.5:
        await session.close()
    else:
        session.leave()


async def end_in_a_hurry(client: Client, session: RecordedSession) -> None:
    """Ask for ephemerals, hardly wait, and close the session through the next server: they come behind its end."""
    sent = [
        asyncio.ensure_future(make_ephemeral(client, session)) for _ in range(client.random.randrange(1, MOST_IN_HURRY))
    ]
    await asyncio.wait(sent, timeout=client.random.uniform(0.0, client.random.choice(HURRIES_S)))
    session.zk.drop_connection()
    await asyncio.gather(*sent)
    if not session.is_over():
        await session.sync()
        await session.close()


async def use_short_session(client: Client, session: RecordedSession) -> None:
    """A session beside the current one, which does little and ends."""
    short = client.new_session(client.random.randrange(*SHORT_TIMEOUTS_MS))
    if await short.open(OPEN_LIMIT_S):
        for _ in range(client.random.randrange(1, 3)):
            if not short.is_over():
                await make_ephemeral(client, short)
                await client.pace()
        if not short.is_over():
            await short.get(client.some_register(), synced=True)
        if client.random.random() < 0.5:
            await short.close()
        else:
            short.leave()
    client.count_aside(short)
