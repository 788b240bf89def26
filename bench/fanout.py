"""1,000 watchers of one key: how soon all know of a write, and how many events are delivered a second.

The client reads raw connections by one `epoll`.  It does not decode what comes, but counts a mark that every written
value holds.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import statistics
import time
from typing import Self

import msgspec

from cluster import BenchmarkError
from etcd_cluster import PUT, WATCH
from quorate.services.etcd import etcd_pb2 as pb
from raw import Connection

KEY = b"watched"
MARK = b"<seen-by-all-of-them>"
ROUNDS = 200
PUTS_IN_FLIGHT = 8
CONNECTIONS = 100
WAIT_SECONDS = 30.0


class FanOut(msgspec.Struct, frozen=True):
    """`events_per_second` with PUTS_IN_FLIGHT puts at a time; times in microseconds, one put at a time."""

    watchers: int
    events_per_second: float
    all_told_p50_us: float
    """From before a put is sent until the last watcher has its event."""
    all_told_p99_us: float


class Watchers:
    """So many watches of KEY, on CONNECTIONS connections, and one connection that writes.  A context manager."""

    def __init__(self, endpoint: str, count: int) -> None:
        self.count = count
        self._selector = selectors.DefaultSelector()
        self._value = MARK + os.urandom(100 - len(MARK))
        self._stack = contextlib.ExitStack()
        self._writer = Connection(endpoint, PUT)
        self._stack.callback(self._writer.socket.close)
        watch = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=KEY)).SerializeToString()
        for _ in range(CONNECTIONS):
            connection = Connection(endpoint, WATCH)
            self._stack.callback(connection.socket.close)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.request(*[watch] * (count // CONNECTIONS), end=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

    def put(self) -> None:
        self._writer.request(pb.PutRequest(key=KEY, value=self._value).SerializeToString())

    def read(self, timeout_seconds: float) -> int:
        """Events that came, once any did."""
        ready = self._selector.select(timeout_seconds)
        return sum(key.data.read(MARK) for key, _ in ready)

    def wait_for(self, events: int) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while events > 0:
            events -= self.read(1.0)
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{events} events were not delivered within {WAIT_SECONDS:g} s")

    def settle(self) -> None:
        """Until every watch is there: it is told of the next put."""
        deadline = time.monotonic() + WAIT_SECONDS
        told = 0
        while told != self.count:
            self.put()
            told = 0
            while events := self.read(0.5):
                told += events
            if time.monotonic() > deadline:
                raise BenchmarkError(f"of a put {told} of {self.count} watchers were told")


def measure(endpoint: str, watchers: int, seconds: float) -> FanOut:
    """Raises BenchmarkError where events are missing."""
    with Watchers(endpoint, watchers) as all_of_them:
        all_of_them.settle()
        latencies_us = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            all_of_them.put()
            all_of_them.wait_for(watchers)
            latencies_us.append((time.perf_counter() - started) * 1e6)
        events = puts = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            # A put counts as done when all were told, near enough: so that watchers never fall behind far.
            while puts * watchers - events < PUTS_IN_FLIGHT * watchers:
                all_of_them.put()
                puts += 1
            events += all_of_them.read(1.0)
        took = time.perf_counter() - started
        all_of_them.wait_for(puts * watchers - events)
    latencies_us.sort()
    return FanOut(watchers, events / took, statistics.median(latencies_us), latencies_us[ROUNDS * 99 // 100])
