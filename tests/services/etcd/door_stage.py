"""The group and the clients around parts of the etcd door, for their tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from quorate.consensus.replica import Leadership, RandomSource, Role
from quorate.net.grpc.calls import Call
from quorate.net.grpc.status import Code
from quorate.services.etcd import commands, reading_in_pieces
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.header import HeaderWriter
from quorate.services.etcd.proposing import Proposal
from quorate.services.etcd.reads import Reads
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Store
from quorate.services.etcd.submissions import Submissions

TIMEOUT_MS = 5_000


class Client:
    """A unary call, and what its client was told."""

    path = "/test"
    metadata: Mapping[str, str] = {}
    peer = "test"
    deadline_s: float | None = None

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_over = False
        self.reads = True
        """False: it has much to read before the next answer."""
        self.resume: Callable[[Call], None] | None = None

    def reply(self, message: bytes) -> None:
        if not self.is_over:
            self.told.append(f"revision {pb.PutResponse.FromString(message).header.revision}")
            self.is_over = True

    def fail(self, code: Code, message: str) -> None:
        if not self.is_over:
            self.told.append(message)
            self.is_over = True

    def send(self, message: bytes) -> None:
        raise AssertionError("not of a unary call")

    def finish(self) -> None:
        raise AssertionError("not of a unary call")

    def unsent_bytes(self) -> int:
        return 0

    def must_wait(self, resume: Callable[[Call], None]) -> bool:
        if self.reads:
            return False
        self.resume = resume
        return True


class Expiry(Proposal):
    """A waiter that is no call."""

    def __init__(self) -> None:
        self.outcomes: list[Result | EtcdError] = []

    def applied(self, result: Result) -> None:
        self.outcomes.append(result)

    def failed(self, error: EtcdError) -> None:
        self.outcomes.append(error)


class Stage:
    """The group around the part under test, and its turns."""

    node_id = 0

    def __init__(self, max_command_bytes: int = 100) -> None:
        self.random: RandomSource = random.Random(1)
        self.leadership = Leadership(Role.LEADER, 0, 1, True)
        self.is_congested = False
        self.congested_above_bytes: int | None = None
        """Of what was submitted."""
        self.time_ms = 1_000
        self.submitted: list[tuple[Sequence[bytes], Sequence[Any]]] = []
        self.barriers: list[Callable[[bool], None]] = []
        self.turns = 0
        header = HeaderWriter(1, 2)
        self.submissions = Submissions(self, header, max_command_bytes, TIMEOUT_MS, self._schedule)
        self.reads = Reads(self, header, TIMEOUT_MS, self._schedule)

    def _schedule(self) -> None:
        self.turns += 1

    def turn(self) -> None:
        """The loop comes round, if somebody has asked for it."""
        turns, self.turns = self.turns, 0
        if turns:
            self.submissions.submit()
            self.reads.submit()

    def relieve(self) -> None:
        self.is_congested = False
        self.submissions.relieved()
        self.turn()

    def tick(self, after_ms: int) -> None:
        self.time_ms += after_ms
        self.submissions.tick(self.time_ms)
        self.reads.tick(self.time_ms)

    def propose(self, command: bytes = b"p") -> Client:
        client = Client()
        self.submissions.propose(command, client)
        return client

    def read(self, size_bytes: int = 1, answer_bytes: int = 0) -> Client:
        client = Client()
        # Field 15, which no message has.
        body = b"\x7a" + _varint(answer_bytes) + bytes(answer_bytes) if answer_bytes else b""
        self.reads.add(client, b"key", lambda _: Result(7, body), size_bytes)
        return client

    def read_range(self, keys: int, serializable: bool = False) -> Client:
        """A range of so many keys."""
        store = Store()
        store.apply(
            [commands.PUT + pb.PutRequest(key=b"k%d" % number).SerializeToString() for number in range(keys)], 1
        )
        client, request = Client(), pb.RangeRequest(key=b"k", range_end=b"l")
        add = self.reads.add_serializable if serializable else self.reads.add
        add(client, request, partial(reading_in_pieces.read, store), 1)
        return client

    def apply(self, *submissions: int, revision: int = 9) -> None:
        """The group applies these submissions, as one batch."""
        waiters = [waiter for at in submissions for waiter in self.submitted[at][1]]
        self.submissions.applied([Result(revision, b"")] * len(waiters), waiters)

    # --- services.interface.Group ---

    def submit(self, commands: Sequence[bytes], waiters: Sequence[Any]) -> None:
        self.submitted.append((list(commands), list(waiters)))
        if self.congested_above_bytes is not None:
            submitted_bytes = sum(len(command) for batch, _ in self.submitted for command in batch)
            self.is_congested = submitted_bytes > self.congested_above_bytes

    def barrier(self, done: Callable[[bool], None]) -> None:
        self.barriers.append(done)

    def congested(self) -> bool:
        return self.is_congested

    def tell(self, node: int, note: bytes) -> None:
        raise AssertionError("no part under test here sends notes")

    def quorum_contact_ms(self) -> int | None:
        return None

    def now_ms(self) -> int:
        return self.time_ms

    def wall_ms(self) -> int:
        return self.time_ms

    def describe(self) -> dict[str, Any]:
        return {}


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])
