"""One node for programs without an event loop: it runs on one in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from quorate.statemachine.errors import NodeStopped
from quorate.statemachine.machine import StateMachine
from quorate.statemachine.replicated import Replicated

M = TypeVar("M", bound=StateMachine)
R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")


class BlockingReplicated(Generic[M]):
    """`Replicated`, each call of which waits for its end; any thread may call.

        with quorate.BlockingReplicated(Stock, node=0, members={0: "10.0.0.1:7000", ...}, data="folder") as stock:
            stock.submit(Stock.add, "apples", 3)

    The machine's methods run in the node's own thread.  Raises as `Replicated` does.
    """

    def __init__(self, create: Callable[[], M], **settings: Any) -> None:
        """`settings` as of `Replicated`."""
        self._node = Replicated(create, **settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        """None while no call is taken."""
        self._taking = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """As `Replicated.start`."""
        if self._thread is not None:
            raise RuntimeError("the node runs already")
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="quorate", daemon=True)
        self._thread.start()
        try:
            self._wait(self._node.start())
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        """As `Replicated.stop`."""
        if self._thread is not None:
            try:
                self._wait(self._node.stop())
            finally:
                self._end()

    def _end(self) -> None:
        assert self._loop is not None and self._thread is not None
        with self._taking:
            loop, self._loop = self._loop, None
        # Calls of other threads are on their way to NodeStopped; a loop that stood still would keep them for ever.
        asyncio.run_coroutine_threadsafe(_others_end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()
        self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def submit(self, command: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `Replicated.submit`."""
        return self._wait(self._node.submit(command, *args, **kwargs))

    def query(self, question: Callable[Concatenate[M, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `Replicated.query`."""
        return self._wait(self._node.query(question, *args, **kwargs))

    def wait_ready(self, limit_s: float | None = None) -> None:
        """As `Replicated.wait_ready`.  Raises TimeoutError."""
        self._wait(asyncio.wait_for(self._node.wait_ready(), limit_s))

    @property
    def leader(self) -> int | None:
        """As `Replicated.leader`."""
        return self._node.leader

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        with self._taking:
            if self._loop is None:
                work.close()
                raise NodeStopped("this node does not run")
            outcome = asyncio.run_coroutine_threadsafe(work, self._loop)
        return outcome.result()


async def _others_end() -> None:
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
