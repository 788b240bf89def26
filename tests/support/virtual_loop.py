"""An event loop with virtual time and in-memory sockets: a whole cluster in one thread, from one seed.

The loop never sleeps: when no callback is ready, its clock jumps to the next timer.  A callback takes a
microsecond of virtual time, so that code which spins on `sleep(0)` cannot hold the clock still.  Each chunk on
a connection arrives after a delay drawn from the seed, in order.  What this loop does not simulate (TLS,
datagrams, signals, subprocesses, file descriptors) raises NotImplementedError.

*Machines.*  Code that is started under `with loop.machine("10.0.0.1"):` runs on that host, and so does all that it
starts in turn: the machine is a context variable, and asyncio copies the context into every task, timer and
transport.  `loop.kill(host)` is SIGKILL: the machine's servers vanish, the other ends of its connections see a
reset, and none of its callbacks and tasks runs again, not even a `finally`.  Its suspended tasks are kept until the
loop itself is collected, because collecting a coroutine runs its `finally`.  The host may be used again: a restart.

Whatever reaches an exception handler that nobody has set ends the run with `UnhandledError`.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from .virtual_socket import Address, Protocol, VirtualServer, VirtualTransport

if TYPE_CHECKING:  # BaseEventLoop has the methods of AbstractEventLoop, and none of them is abstract
    from asyncio import BaseEventLoop as LoopBase
else:
    from asyncio import AbstractEventLoop as LoopBase

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
CALLBACK_SECONDS = 1e-6
EXECUTOR_SECONDS = (1e-4, 1e-3)
SYN_RETRY_SECONDS = 1.0
SYN_RETRIES = 120
LOCAL_NAMES = frozenset({None, "", "0.0.0.0", "127.0.0.1", "localhost", "::", "::1"})
DEFAULT_HOST = "127.0.0.1"
"""The host of code that was started on no machine: the test itself."""


class UnhandledError(Exception):
    """Something on the loop raised and nobody handled it; the cause is attached."""


class Machine:
    """One life of one host; a restarted host is a new Machine."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.alive = True
        self.ports = itertools.count(40_000)
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.transports: dict[VirtualTransport, None] = {}
        self.exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None


_MACHINE: contextvars.ContextVar[Machine] = contextvars.ContextVar("machine")


class _Handle(asyncio.TimerHandle):
    """A callback with the machine that it belongs to; None for the default machine."""

    __slots__ = ("machine",)

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualLoop,
        context: contextvars.Context | None,
    ) -> None:
        if context is None:
            context = contextvars.copy_context()
        super().__init__(when, callback, args, loop, context)
        self.machine = loop.machine_of(context)


class VirtualLoop(LoopBase):
    """See the module's head.  `delay_seconds` bounds the delay of each chunk; all else follows from `seed`."""

    def __init__(self, seed: int = 0, delay_seconds: tuple[float, float] = (1e-4, 1e-3)) -> None:
        self.random = random.Random(seed)
        self.delay_seconds = delay_seconds
        self.listeners: dict[Address, VirtualServer] = {}
        self._now = 0.0
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timer_numbers = itertools.count()
        self._machines: dict[str, Machine] = {}
        self._parted: set[frozenset[str]] = set()
        self._graveyard: list[object] = []
        self._errors: list[dict[str, Any]] = []
        self._running = self._stopping = self._closed = False
        self._current: Machine | None = None

    # --- machines and their network ---------------------------------------------------------

    @contextmanager
    def machine(self, host: str) -> Generator[Machine]:
        """What is started inside runs on `host`, which is switched on where it is off."""
        machine = self._machines.setdefault(host, Machine(host))
        token = _MACHINE.set(machine)
        try:
            yield machine
        finally:
            _MACHINE.reset(token)

    def machine_of(self, context: contextvars.Context | None = None) -> Machine:
        """The machine of a context (default: of the code that is running)."""
        machine = _MACHINE.get(None) if context is None else context.get(_MACHINE)
        return machine or self._machines.setdefault(DEFAULT_HOST, Machine(DEFAULT_HOST))

    def kill(self, host: str) -> None:
        """SIGKILL to everything on `host`.  Code of that machine that is running ends with its current callback."""
        machine = self._machines.pop(host)
        machine.alive = False
        self.listeners = {key: server for key, server in self.listeners.items() if server.machine is not machine}
        for transport in machine.transports:
            transport.cut()
        self._graveyard.append(machine)

    def partition(self, host: str, other: str) -> None:
        """Hold all bytes between two hosts, both ways, until `heal`; connections stall and none is lost."""
        self._parted.add(frozenset((host, other)))

    def heal(self) -> None:
        """End all partitions; what was held is delivered."""
        self._parted.clear()
        for machine in list(self._machines.values()):
            for transport in list(machine.transports):
                transport.schedule()

    def is_parted(self, host: str, other: str) -> bool:
        return frozenset((host, other)) in self._parted

    def draw_delay(self) -> float:
        return self.random.uniform(*self.delay_seconds)

    # --- clock, callbacks, running ----------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(self._now, callback, args, self, context)
        if self._closed and handle.machine.alive:
            raise RuntimeError("Event loop is closed")
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> _Handle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(when, callback, args, self, context)
        if self._closed and handle.machine.alive:
            raise RuntimeError("Event loop is closed")
        heapq.heappush(self._timers, (when, next(self._timer_numbers), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio's notice of a cancelled timer, which is skipped when its time comes."""

    def _next_handle(self) -> _Handle | None:
        """The next callback that may run, with the clock moved to it; None where nothing can happen any more."""
        while self._ready or self._timers:
            if not self._ready:
                self._now = max(self._now, self._timers[0][0])
            while self._timers and self._timers[0][0] <= self._now:
                self._ready.append(heapq.heappop(self._timers)[2])
            handle = self._ready.popleft()
            if not handle.machine.alive:
                self._graveyard.append(handle)
            elif not handle.cancelled():
                return handle
        return None

    def run_forever(self) -> None:
        if self._running:
            raise RuntimeError("This event loop is already running")
        self._running = True
        asyncio._set_running_loop(self)
        try:
            while not self._stopping:
                handle = self._next_handle()
                if handle is None:
                    raise RuntimeError(f"deadlock at {self._now:.6f} s: no callback and no timer is left")
                self._now += CALLBACK_SECONDS
                self._current = handle.machine
                handle._run()
                self._current = None
                self._raise_errors()
        finally:
            self._running = self._stopping = False
            self._current = None
            asyncio._set_running_loop(None)

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future or coroutine is done; its result.  Raises UnhandledError; RuntimeError on deadlock."""
        future = asyncio.ensure_future(future, loop=self)
        future.add_done_callback(lambda _: self.stop())
        self.run_forever()
        if not future.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return future.result()

    def stop(self) -> None:
        self._stopping = True

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        if self._running:
            raise RuntimeError("Cannot close a running event loop")
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    async def shutdown_asyncgens(self) -> None:
        """Nothing: this loop does not follow asynchronous generators."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (asyncio's signature)
        """Nothing: there are no threads."""

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Nothing: there is no debug mode."""

    # --- errors -----------------------------------------------------------------------------

    def set_exception_handler(
        self, handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None
    ) -> None:
        """For the machine that calls, as if each had a loop of its own."""
        self.machine_of().exception_handler = handler

    def get_exception_handler(self) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None:
        return self.machine_of().exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self._errors.append(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        handler = (self._current or self.machine_of()).exception_handler
        if handler is None:
            self.default_exception_handler(context)
        else:
            handler(self, context)

    def _raise_errors(self) -> None:
        if self._errors:
            errors, self._errors = self._errors, []
            raise UnhandledError(str(errors[0])) from errors[0].get("exception")

    # --- futures, tasks, executor -----------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(
            coro,  # type: ignore[arg-type, unused-ignore]  # newer typesheds refuse generators
            loop=self,
            name=None if name is None else str(name),
            context=context,
        )
        tasks = self.machine_of(context).tasks
        tasks[task] = None
        task.add_done_callback(lambda done: tasks.pop(done), context=context)
        return task

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs `func` on the loop itself, after a delay drawn from the seed."""
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(self.random.uniform(*EXECUTOR_SECONDS), run)
        return future

    # --- connections ------------------------------------------------------------------------

    def _resolve(self, host: str | None) -> str:
        return self.machine_of().host if host in LOCAL_NAMES else str(host)

    async def create_server(
        self,
        protocol_factory: Callable[[], Protocol],
        host: Any = None,
        port: int | None = None,
        *,
        start_serving: bool = True,
        **options: Any,
    ) -> Any:
        """A VirtualServer on an address of the machine that calls.  Socket options are accepted and have no effect."""
        _refuse_unsimulated(options)
        machine = self.machine_of()
        if not isinstance(host, str | None):
            raise NotImplementedError("a server on several addresses is not simulated")
        address = (self._resolve(host), port or next(machine.ports))
        if address[0] != machine.host:
            raise OSError(errno.EADDRNOTAVAIL, f"{address[0]} is not an address of {machine.host}")
        server = VirtualServer(self, machine, address, protocol_factory)
        if start_serving:
            await server.start_serving()
        return server

    async def create_connection(
        self, protocol_factory: Callable[[], Protocol], host: Any = None, port: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        """Raises ConnectionRefusedError where nobody listens, TimeoutError where a partition lasts."""
        _refuse_unsimulated(options)
        machine = self.machine_of()
        address: Address = (self._resolve(host), int(port))
        for _ in range(SYN_RETRIES):
            await asyncio.sleep(self.draw_delay())
            if not self.is_parted(machine.host, address[0]):
                break
            await asyncio.sleep(SYN_RETRY_SECONDS)
        else:
            raise TimeoutError(errno.ETIMEDOUT, f"connect to {address}: no answer")
        server = self.listeners.get(address)
        if server is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"connect to {address}: refused")
        local = (machine.host, next(machine.ports))
        transport = VirtualTransport(self, machine, contextvars.copy_context(), local, address)
        transport.peer = VirtualTransport(self, server.machine, server.context.copy(), address, local)
        transport.peer.peer = transport
        self.call_soon(transport.peer.open, server.protocol_factory, context=transport.peer.context)
        transport.open(protocol_factory)
        return transport, transport.get_protocol()


def _refuse_unsimulated(options: dict[str, Any]) -> None:
    for name in ("ssl", "sock"):
        if options.get(name) is not None:
            raise NotImplementedError(f"{name} is not simulated")
