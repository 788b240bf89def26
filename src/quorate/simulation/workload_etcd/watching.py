"""What clients do with watches: of all kinds, from now on and from the past; and the chroniclers' of everything."""

from __future__ import annotations

import asyncio
from typing import Final

from quorate.checking.etcd.records import EVERYTHING, Finding
from quorate.services.etcd.etcd_pb2 import RangeRequest, WatchCreateRequest
from quorate.simulation.workload_etcd.client import Client, World, end_of
from quorate.simulation.workload_etcd.recorder import LiveWatch, RecordedClient
from quorate.simulation.workload_etcd.values import PREFIXES

MOST_WATCHES: Final = 5
"""Of one client at a time."""
CATCH_UP_LIMIT_S: Final = 20.0
"""In a cluster that is well, for a watch to be told of everything."""
FAR: Final = 1_000


async def use_watch(client: Client) -> None:
    """One more, or one fewer."""
    random = client.random
    client.watches = [live for live in client.watches if not live.is_over]
    if len(client.watches) >= MOST_WATCHES:
        random.choice(client.watches).cancel()
        return
    request = WatchCreateRequest(prev_kv=random.random() < 0.5, progress_notify=random.random() < 0.3)
    chance = random.random()
    if chance < 0.4:
        request.key = random.choice((client.some_register(), client.some_key(), client.some_leased_key()))
    elif chance < 0.9:
        request.key = random.choice(PREFIXES)
        request.range_end = end_of(request.key)
    else:
        request.key = request.range_end = EVERYTHING
    if random.random() < 0.3:
        request.filters.append(random.choice((WatchCreateRequest.NOPUT, WatchCreateRequest.NODELETE)))
    chance = random.random()
    if chance < 0.35:
        request.start_revision = client.some_past_revision()
    elif chance < 0.42:
        request.start_revision = max(1, client.world.compacted_revision - random.randrange(0, 10))
    elif chance < 0.45:
        request.start_revision = client.world.chronicled_revision + random.randrange(1, FAR)
    request.fragment = random.random() < 0.2
    client.watches.append(client.etcd.watch(request))


async def ask_for_progress(client: Client) -> None:
    if client.watches:
        client.etcd.etcd.request_progress()
    else:
        await use_watch(client)


async def look_at_watches(client: Client) -> None:
    """In the end: every watch must be told of all that there is."""
    client.watches = [live for live in client.watches if not live.is_over]
    if not client.watches:
        return
    read = await client.etcd.do(RangeRequest(key=EVERYTHING))
    for live in client.watches:
        if read.revision and not live.record.cancelled and live.record.request.start_revision <= read.revision:
            await reach(client.world, client.etcd, live, read.revision)


async def reach(world: World, etcd: RecordedClient, live: LiveWatch, revision: int) -> None:
    """Wait until a watch was told of everything up to a revision."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + CATCH_UP_LIMIT_S
    while live.next_revision <= revision and not live.is_over:
        if loop.time() > until_s:
            text = f"was not told within {CATCH_UP_LIMIT_S:.0f} s of everything up to revision {revision}"
            where = f"watch of {live.record.request.key!r}, set at {live.record.asked_at:.6f} s,"
            world.recorder.late.append(Finding("watches", f"{where} {text}", world.recorder.now_s(), etcd.name))
            return
        etcd.etcd.request_progress()
        await live.wait(1.0)


async def chronicle(world: World, etcd: RecordedClient) -> None:
    """Watch everything for ever, or until the client is closed."""
    start = world.chronicled_revision + 1
    while True:
        live = etcd.watch(WatchCreateRequest(key=EVERYTHING, range_end=EVERYTHING, start_revision=start, prev_kv=True))
        while not live.is_over:
            await live.wait(60.0)
            world.chronicled_revision = max(world.chronicled_revision, live.next_revision - 1)
        if not live.compacted:
            return
        # Another chronicler is ahead, and somebody has compacted what this one had not come to.
        start = world.chronicled_revision + 1
