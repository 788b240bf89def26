"""What clients do with connections: on to another member, and pauses in which nobody hears of them."""

from __future__ import annotations

import asyncio

from quorate.simulation.workload_etcd.client import Client
from quorate.simulation.workload_etcd.values import use_register
from quorate.simulation.workload_etcd.watching import use_watch


async def move(client: Client) -> None:
    """On to the next member, with all watches."""
    client.etcd.etcd.drop_connection()
    await use_register(client)


async def stand_still(client: Client) -> None:
    """For so long that there may be much to catch up with, or nothing to catch up with any more."""
    await use_watch(client)
    client.etcd.etcd.suspend()
    await asyncio.sleep(client.random.uniform(0.2, 6.0))
    client.etcd.etcd.resume()
    await use_register(client)


async def break_off(client: Client) -> None:
    """Ask, and cut the connection with the answer on its way."""
    asked = asyncio.ensure_future(use_register(client))
    await asyncio.sleep(client.random.uniform(0.0, 0.01))
    client.etcd.etcd.drop_connection()
    await asked
