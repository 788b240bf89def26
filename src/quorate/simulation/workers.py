"""Work done in other processes, any of which may hang or die without taking the rest along.

Not `concurrent.futures`: there, one process that dies ends the whole pool, and a task that hangs cannot be ended at
all.  Here each process has one task at a time and a limit for it, and a process that exceeds the limit is ended and
replaced.  The limit is of processor time: on a busy machine sound work takes long, and does not hang.

    with Workers(2, perform) as workers:
        workers.begin(workers.idle[0], task, limit_s=60)
        for worker, task, result in workers.wait(timeout_s=1):
            ...
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Generic, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")

HANG = "hang"
HANG_EXIT_CODE = 93
"""Of a process that used up the limit of its task."""
PATIENCE = 10
"""Times its limit, in real time, a task may take that uses no processor time."""
LOOK_S = 0.5
"""Between two looks of a process at how much it has used."""


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no result of a task, and why."""

    why: str
    """Short: HANG, "died", or "error" and the exception's name."""
    text: str


@dataclass(slots=True)
class _Under(Generic[T]):
    """A task under way."""

    task: T
    deadline: float
    limit_s: float


@dataclass(frozen=True, slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection


class Workers(Generic[T, R]):
    """Up to `jobs` processes, each started when it is first given a task.

    `perform` is called in them, so it must be a function of some module, or a `functools.partial` of one; it, its
    tasks and its results must pickle.
    """

    def __init__(self, jobs: int, perform: Callable[[T], R]) -> None:
        assert jobs > 0, f"{jobs} processes"
        self._perform = perform
        self._workers: list[_Worker | None] = [None] * jobs
        self._under: list[_Under[T] | None] = [None] * jobs

    @property
    def idle(self) -> list[int]:
        return [worker for worker, under in enumerate(self._under) if under is None]

    @property
    def busy(self) -> list[int]:
        return [worker for worker, under in enumerate(self._under) if under is not None]

    def begin(self, worker: int, task: T, limit_s: float) -> None:
        """Give an idle worker a task, and so many seconds of processor time for it."""
        assert self._under[worker] is None, f"worker {worker} is busy"
        running = self._workers[worker]
        if running is None or not running.process.is_alive():
            self._discard(worker)
            running = self._workers[worker] = _start(self._perform)
        self._under[worker] = _Under(task, time.monotonic() + PATIENCE * limit_s, limit_s)
        try:
            running.connection.send((task, limit_s))
        except OSError:
            return  # it died just now, and `wait` sees that

    def wait(self, timeout_s: float) -> list[tuple[int, T, R | Lost]]:
        """The tasks that ended, by worker; none where nothing did in that time."""
        deadlines = [under.deadline for under in self._under if under is not None]
        until = max(0.0, min([timeout_s, *(deadline - time.monotonic() for deadline in deadlines)]))
        wait([running.connection for worker in self.busy if (running := self._workers[worker])], until)
        ended: list[tuple[int, T, R | Lost]] = []
        for worker in self.busy:
            under, running = self._under[worker], self._workers[worker]
            assert under is not None and running is not None
            result = self._result(worker, under, running)
            if result is not None:
                self._under[worker] = None
                ended.append((worker, under.task, result))
        return ended

    def _result(self, worker: int, under: _Under[T], running: _Worker) -> R | Lost | None:
        """None where the task is still under way."""
        if running.connection.poll():
            try:
                return cast("R | Lost", running.connection.recv())
            except (EOFError, OSError):
                running.process.join(1.0)  # to learn with which code it ended by itself
                self._discard(worker)
                if running.process.exitcode == HANG_EXIT_CODE:
                    return Lost(HANG, f"no end after {under.limit_s:.0f} s of processor time")
                return Lost("died", f"the process that ran it ended with code {running.process.exitcode}")
        if time.monotonic() >= under.deadline:
            self._discard(worker)
            return Lost(HANG, f"no end after {PATIENCE * under.limit_s:.0f} s of real time")
        return None

    def _discard(self, worker: int) -> None:
        running, self._workers[worker] = self._workers[worker], None
        if running is not None:
            running.process.kill()
            running.process.join()
            running.connection.close()

    def close(self) -> None:
        """End all processes, whatever they do."""
        for worker in range(len(self._workers)):
            self._under[worker] = None
            self._discard(worker)

    def __enter__(self) -> Workers[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def _start(perform: Callable[[T], R]) -> _Worker:
    # Started afresh rather than forked: no state of this process can reach a run, and each has another hash seed.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, perform), daemon=True)
    # Ctrl-C goes to every process of the terminal.  A child that is born deaf to it prints no traceback.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    try:
        process.start()
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        theirs.close()
    return _Worker(process, ours)


def _serve(connection: Connection, perform: Callable[[T], R]) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())  # the warnings of simulated nodes are for nobody
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit = _Limit()
    threading.Thread(target=limit.watch, daemon=True).start()
    while True:
        limit.at_s = None
        try:
            task, limit_s = cast("tuple[T, float]", connection.recv())
        except EOFError:
            return
        limit.at_s = time.process_time() + limit_s
        result: R | Lost
        try:
            result = perform(task)
        except Exception as error:
            result = Lost(f"error {type(error).__name__}", traceback.format_exc())
        connection.send(result)


class _Limit:
    """Ends this process when it has used so much processor time: from a thread, since what hangs sees to nothing."""

    def __init__(self) -> None:
        self.at_s: float | None = None

    def watch(self) -> None:
        while True:
            time.sleep(LOOK_S)
            at_s = self.at_s
            if at_s is not None and time.process_time() >= at_s:
                os._exit(HANG_EXIT_CODE)


def _end_with_parent() -> None:
    """However the parent ends, no worker outlives it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
