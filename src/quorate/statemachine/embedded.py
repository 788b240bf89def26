"""Several nodes in one process: for tests, and for what is durable and needs no other machine."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from quorate.statemachine.machine import StateMachine
from quorate.statemachine.replicated import Replicated

M = TypeVar("M", bound=StateMachine)


@asynccontextmanager
async def embedded_cluster(
    create: Callable[[], M], nodes: int = 3, protocol: str = "raft", **settings: Any
) -> AsyncIterator[list[Replicated[M]]]:
    """Nodes that talk over loopback, ready; their folders are gone at the end.  `settings` as of `Replicated`.

    Each may be stopped and started again.  Raises what `Replicated` and its `start` raise.
    """
    with tempfile.TemporaryDirectory(prefix="quorate-") as folder, loopback_ports(nodes) as ports:
        members = {node: f"127.0.0.1:{port}" for node, port in enumerate(ports)}
        cluster = [
            Replicated(
                create, node=node, members=members, data=Path(folder, f"node-{node}"), protocol=protocol, **settings
            )
            for node in members
        ]
        try:
            await asyncio.gather(*(node.start() for node in cluster))
            await asyncio.gather(*(node.wait_ready() for node in cluster))
            yield cluster
        finally:
            await asyncio.gather(*(node.stop() for node in cluster))


@contextmanager
def loopback_ports(count: int) -> Iterator[list[int]]:
    """Ports of 127.0.0.1 on which listeners that set SO_REUSEADDR may listen, as asyncio's do, and nobody else gets."""
    with ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
            # Only now: so the port was free, and stays taken for whoever asks for any free one.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield [holder.getsockname()[1] for holder in holders]
