"""The asyncio event loop of one simulated machine.

It works in turns, as asyncio's own: what is ready at the start of a turn runs in it, what becomes ready meanwhile
runs in the next.  A turn begins when the scheduler says so, and the machine is busy for as long as the turn's
callbacks and operations take.  What is not simulated (TLS, datagrams, signals, subprocesses, file descriptors)
raises NotImplementedError.

tests/simulation/test_*_conformance.py hold it against asyncio's loop and uvloop.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from quorate.simulation.machine import Machine
from quorate.simulation.sockets import Address, SimulatedServer, SimulatedTransport, StreamProtocol

if TYPE_CHECKING:  # BaseEventLoop has the methods of AbstractEventLoop, and none of them is abstract
    from asyncio import BaseEventLoop as LoopBase
else:
    from asyncio import AbstractEventLoop as LoopBase

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
TURN_S = 20e-6
"""What a turn takes besides its callbacks: a look at the sockets."""
CALLBACK_S = 4e-6
MAX_TURNS = 100
"""In one go, so that whoever steps the simulation comes to look even where code spins."""
EXECUTOR_S = (1e-4, 1e-3)
SYN_RETRY_S = 1.0
SYN_RETRIES = 60
LOCAL_NAMES = frozenset({None, "", "0.0.0.0", "127.0.0.1", "localhost", "::", "::1"})

ExceptionHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


class SimulatedLoop(LoopBase):
    """See the module's head.  Made by `Simulation.boot`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._simulation = machine.simulation
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timer_count = 0
        self._turn_at_s: float | None = None
        """When the next turn is due; agenda items for any other time are stale."""
        self._in_turn = False
        self._stopping = self._closed = False
        self._exception_handler: ExceptionHandler | None = None
        self.tasks: dict[asyncio.Task[Any], None] = {}
        """Those that are not done."""

    # --- turns -------------------------------------------------------------------------------

    def arm(self) -> None:
        """See to it that the next turn comes when it is due."""
        machine = self.machine
        if self._in_turn or not machine.alive:
            return
        if self._ready:
            due_s = self._simulation.now_s
        elif self._timers:
            due_s = max(self._simulation.now_s, machine.true_of(self._timers[0][0]))
        else:
            return
        due_s = max(due_s, machine.busy_until_s, machine.paused_until_s)
        if self._turn_at_s is not None and self._turn_at_s <= due_s:
            return
        if due_s < float("inf"):
            self._turn_at_s = due_s
            self._simulation.at(due_s, self._turn, due_s)

    def wake(self, callback: Callable[[], None], context: contextvars.Context) -> None:
        """A socket has become readable: the scheduler says so, no code of any machine.  An idle machine turns now."""
        machine, now_s = self.machine, self._simulation.now_s
        self._ready.append(asyncio.Handle(callback, (), self, context))
        if machine.busy_until_s <= now_s and machine.paused_until_s <= now_s:
            self._turn_at_s = now_s
            self._turn(now_s)
        else:
            self.arm()

    def _turn(self, due_s: float) -> None:
        machine, simulation = self.machine, self._simulation
        if due_s != self._turn_at_s or not machine.alive or self._closed:
            return
        self._turn_at_s = None
        if machine.paused_until_s > due_s:
            return
        self._in_turn = True
        simulation.enter(self)
        try:
            self._run_ready()
            # Most turns leave something for the next.  Where nothing else comes before it, it need not be put on
            # the agenda only to be the next thing taken from it.
            for _ in range(MAX_TURNS):
                due_s = machine.busy_until_s
                if not self._ready or not machine.alive or self._stopping or not simulation.is_next(due_s):
                    break
                simulation.now_s = due_s
                self._run_ready()
        finally:
            self._in_turn = False
        self.arm()

    def _run_ready(self) -> None:
        """One turn."""
        machine, ready, timers = self.machine, self._ready, self._timers
        # A timer may be due by rounding only once the turn's own time has passed.
        machine.spent_s = TURN_S
        if timers:
            now_s = machine.local_s()
            while timers and timers[0][0] <= now_s:
                timer = heapq.heappop(timers)[2]
                if not timer.cancelled():
                    ready.append(timer)
        handle: asyncio.Handle | None = None
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            machine.spent_s += CALLBACK_S
            try:
                # What Handle._run does: a call less for each callback.
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._callback_failed(handle, error)
            if not machine.alive:
                break
        # The traceback of an earlier callback's exception may keep this frame, and with it the last task.
        handle = None
        machine.busy_until_s = self._simulation.now_s + machine.spent_s
        machine.spent_s = 0.0

    def _callback_failed(self, handle: asyncio.Handle, error: BaseException) -> None:
        message = f"Exception in callback {handle!r}"
        self.call_exception_handler({"message": message, "exception": error, "handle": handle})

    def run_forever(self) -> None:
        """Let the whole world go on until `stop` is called on this machine."""
        self._check_closed()
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("Cannot run the event loop while another loop is running")
        if self._stopping:
            # Stopped before it began: one turn, as asyncio.
            self._stopping = False
            self.call_soon(self.stop)
        try:
            self._simulation.step_while(lambda: not self._stopping)
        finally:
            self._stopping = False

    def run_until_complete(self, future: Any) -> Any:
        """Let the whole world go on until the future or coroutine is done; its result."""
        self._check_closed()
        future = asyncio.ensure_future(future, loop=self)
        future.add_done_callback(self._stop_after)
        try:
            self.run_forever()
        finally:
            future.remove_done_callback(self._stop_after)
        if not future.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return future.result()

    def _stop_after(self, _future: asyncio.Future[Any]) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping = True

    def is_running(self) -> bool:
        return self._in_turn

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        if self._in_turn:
            raise RuntimeError("Cannot close a running event loop")
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def _check_closed(self) -> None:
        if self._closed:
            raise RuntimeError("Event loop is closed")

    async def shutdown_asyncgens(self) -> None:
        """Nothing: this loop does not follow asynchronous generators."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (asyncio's signature)
        """Nothing: there are no threads."""

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Nothing: there is no debug mode."""

    # --- callbacks ---------------------------------------------------------------------------

    def time(self) -> float:
        return self.machine.local_s()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        # The code of a dead machine may still be on its way up the stack; nothing that it starts will run.
        if self.machine.alive:
            self._check_closed()
            self._ready.append(handle)
            if not self._in_turn:
                self.arm()
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.machine.local_s() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if self.machine.alive:
            self._check_closed()
            self._timer_count += 1
            heapq.heappush(self._timers, (when, self._timer_count, handle))
            if not self._in_turn:
                self.arm()
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio's notice of a cancelled timer, which is skipped when its time comes."""

    # --- errors ------------------------------------------------------------------------------

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        self._exception_handler = handler

    def get_exception_handler(self) -> ExceptionHandler | None:
        return self._exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self._simulation.unhandled(self.machine, context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.machine.alive:
            return
        if self._exception_handler is None:
            self.default_exception_handler(context)
        else:
            self._exception_handler(self, context)

    # --- futures, tasks, executor ------------------------------------------------------------

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
        # Killed machines leave tasks behind that nobody will ever finish; that is no mistake to warn of.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        # asyncio's own loops hold tasks weakly, so that the collector may end one that nobody else holds, whenever it
        # happens to come.  What happens here must not depend on that.
        self.tasks[task] = None
        task.add_done_callback(self._forget_task)
        return task

    def _forget_task(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def set_task_factory(self, factory: Any) -> None:
        if factory is not None:
            raise NotImplementedError("task factories are not simulated")

    def get_task_factory(self) -> None:
        return None

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs `func` in a later turn, after a delay drawn from the seed."""
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            # It is no code of the loop's: in a thread it would not find one running.
            asyncio._set_running_loop(None)
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                asyncio._set_running_loop(self)

        self.call_later(self._simulation.random.uniform(*EXECUTOR_S), run)
        return future

    # --- connections -------------------------------------------------------------------------

    def _resolve(self, host: str | None) -> str:
        return self.machine.host if host in LOCAL_NAMES else str(host)

    def _next_port(self) -> int:
        self.machine.next_port += 1
        return self.machine.next_port

    async def create_server(
        self,
        protocol_factory: Callable[[], StreamProtocol],
        host: Any = None,
        port: int | None = None,
        *,
        start_serving: bool = True,
        **options: Any,
    ) -> Any:
        """A server on an address of this machine.  Socket options are accepted and have no effect."""
        _refuse_unsimulated(options)
        if not isinstance(host, str | None):
            raise NotImplementedError("a server on several addresses is not simulated")
        address = (self._resolve(host), port or self._next_port())
        if address[0] != self.machine.host:
            raise OSError(errno.EADDRNOTAVAIL, f"{address[0]} is not an address of {self.machine.host}")
        server = SimulatedServer(self.machine, address, protocol_factory)
        if start_serving:
            await server.start_serving()
        return server

    async def create_connection(
        self, protocol_factory: Callable[[], StreamProtocol], host: Any = None, port: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        """Raises ConnectionRefusedError where nobody listens, TimeoutError where nothing answers for a minute."""
        _refuse_unsimulated(options)
        network = self._simulation.network
        address: Address = (self._resolve(host), int(port))
        for _ in range(SYN_RETRIES):
            await asyncio.sleep(network.draw_delay_s(self.machine.host, address[0]))
            if network.is_open_both_ways(self.machine.host, address[0]) and address[0] in self._simulation.powered:
                break
            await asyncio.sleep(SYN_RETRY_S)
        else:
            raise TimeoutError(errno.ETIMEDOUT, f"connect to {address}: no answer")
        server = network.listeners.get(address)
        if server is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"connect to {address}: refused")
        local = (self.machine.host, self._next_port())
        transport = SimulatedTransport(self.machine, contextvars.copy_context(), local, address)
        transport.peer = SimulatedTransport(server.machine, server.context.copy(), address, local)
        transport.peer.peer = transport
        transport.peer.open_soon(server.protocol_factory)
        protocol = protocol_factory()
        transport.open_soon(lambda: protocol)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            transport.abort()
            raise
        return transport, protocol


def _refuse_unsimulated(options: dict[str, Any]) -> None:
    for name in ("ssl", "sock"):
        if options.get(name) is not None:
            raise NotImplementedError(f"{name} is not simulated")
