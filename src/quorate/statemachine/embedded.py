"""Several nodes in one process: for tests, and for what is durable and needs no other machine."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
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
    with tempfile.TemporaryDirectory(prefix="quorate-") as folder:
        members = {node: f"127.0.0.1:{port}" for node, port in enumerate(free_ports(nodes))}
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


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
