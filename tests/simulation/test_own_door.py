"""The door of a user's state machine keeps the contract of doors, and its client tells what it knows of outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, cast

import pytest
from examples.simulate_counter import Counter

from quorate.consensus.replica import Leadership, RandomSource, Role
from quorate.services.interface import DoorConfig
from quorate.services.interface import Refused as Why
from quorate.simulation.own.client import StateMachineClient
from quorate.simulation.own.door import StateMachineDoor
from quorate.simulation.own.statemachine import Replicas, StateMachineStore
from quorate.simulation.own.wire import REPLY_HEAD, REQUEST_HEAD, Frames, Status, describe, encode_reply, encode_request
from quorate.simulation.scheduler import Simulation
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.violation import Violation
from quorate.statemachine.errors import OutcomeUnknown, Refused

HOST, PORT = "10.0.0.1", 2181
USUAL = DoorConfig(HOST, PORT)


class FakeGroup:
    """Keeps what the door submits; the test answers."""

    node_id = 0
    random: RandomSource = cast(RandomSource, Random(1))

    def __init__(self) -> None:
        self.leadership = Leadership(Role.LEADER, 0, 1)
        self.commands: list[bytes] = []
        self.waiters: list[Any] = []
        self.is_congested = False

    def submit(self, commands: Sequence[bytes], waiters: Sequence[Any]) -> None:
        self.commands += commands
        self.waiters += waiters

    def congested(self) -> bool:
        return self.is_congested

    def barrier(self, done: Callable[[bool], None]) -> None:
        raise AssertionError

    def tell(self, node: int, note: bytes) -> None:
        raise AssertionError

    def quorum_contact_ms(self) -> int | None:
        raise AssertionError

    def now_ms(self) -> int:
        raise AssertionError

    def wall_ms(self) -> int:
        raise AssertionError

    def describe(self) -> dict[str, Any]:
        raise AssertionError


class Stage:
    """A door on one machine, and raw connections to it from another."""

    def __init__(self, limits: DoorConfig = USUAL) -> None:
        self.simulation = Simulation(seed=1)
        self.server = self.simulation.boot(HOST)
        self.client = self.simulation.boot("10.0.1.1")
        self.group = FakeGroup()
        self.door = StateMachineDoor(self.group, limits)
        self.simulation.run(self.server, self.door.start())

    def connect(self) -> Raw:
        return self.simulation.run(self.client, Raw.open())

    def settle(self) -> None:
        self.simulation.pass_until(self.simulation.now_s + 0.1)

    def on_server(self, call: Callable[..., None], *args: object) -> None:
        async def act() -> None:
            call(*args)

        self.simulation.run(self.server, act())
        self.settle()


class Raw:
    """The bytes of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.replies: list[tuple[int, Status, bytes]] = []
        self.closed = False
        self._task = asyncio.get_running_loop().create_task(self._read(reader))

    @classmethod
    async def open(cls) -> Raw:
        return cls(*await asyncio.open_connection(HOST, PORT))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        frames = Frames(REPLY_HEAD)
        try:
            while data := await reader.read(1 << 16):
                frames.feed(data)
                while (body := frames.take()) is not None:
                    request_id, status = REPLY_HEAD.unpack_from(body)
                    self.replies.append((request_id, Status(status), body[REPLY_HEAD.size :]))
        except ConnectionError:
            pass
        self.closed = True


def test_each_outcome_has_its_status() -> None:
    stage = Stage()
    raw = stage.connect()
    raw.writer.write(b"".join(encode_request(number, b"command %d" % number) for number in range(3)))
    stage.settle()
    assert stage.group.commands == [b"command 0", b"command 1", b"command 2"]
    first, second, third = stage.group.waiters
    stage.on_server(stage.door.applied, [b"result"], [second])
    stage.on_server(stage.door.refused, [first], Why.NO_LEADER)
    stage.on_server(stage.door.lost, [third])
    stage.on_server(stage.door.applied, [b"of another door"], None)
    assert raw.replies == [
        (1, Status.DONE, b"result"),
        (0, Status.REFUSED, b"no leader is known"),
        (2, Status.UNKNOWN, b""),
    ]
    assert stage.door.summary() == {"connections": 1, "requests": 3, "outstanding": 0}


@pytest.mark.parametrize("frame", [encode_request(1, bytes(993)), b"\0\0\0\7", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_frame_or_too_large_closes_the_connection(frame: bytes) -> None:
    stage = Stage(DoorConfig(HOST, PORT, max_frame_bytes=1000))
    raw, other = stage.connect(), stage.connect()
    raw.writer.write(encode_request(0, bytes(992)) + frame)
    stage.settle()
    assert raw.closed and not other.closed
    assert len(stage.group.commands) == 1, "the largest frame that is allowed came before"


def test_one_connection_too_many_is_closed() -> None:
    stage = Stage(DoorConfig(HOST, PORT, max_connections=2))
    raws = [stage.connect() for _ in range(3)]
    stage.settle()
    assert [raw.closed for raw in raws] == [False, False, True]


def test_requests_in_flight_are_bounded() -> None:
    stage = Stage(DoorConfig(HOST, PORT, max_requests_in_flight=2))
    raw = stage.connect()
    raw.writer.write(b"".join(encode_request(number, b"%d" % number) for number in range(5)))
    stage.settle()
    assert stage.group.commands == [b"0", b"1"]
    stage.on_server(stage.door.applied, [b""], stage.group.waiters[:1])
    assert stage.group.commands == [b"0", b"1", b"2"]


def test_a_congested_group_is_not_fed() -> None:
    stage = Stage()
    raw, other = stage.connect(), stage.connect()
    stage.group.is_congested = True
    raw.writer.write(encode_request(1, b"first"))
    stage.settle()
    other.writer.write(encode_request(1, b"second"))
    stage.settle()
    assert stage.group.commands == [b"first"]
    stage.group.is_congested = False
    stage.on_server(stage.door.relieved)
    assert stage.group.commands == [b"first", b"second"]


def test_a_client_that_does_not_read_is_closed_and_one_that_reads_gets_a_large_reply() -> None:
    stage = Stage(DoorConfig(HOST, PORT, max_unread_bytes=1 << 20))
    reads = stage.connect()
    reads.writer.write(encode_request(1, b"much"))
    stage.settle()
    stage.on_server(stage.door.applied, [bytes(3 << 20)], stage.group.waiters)
    stage.settle()
    assert [len(result) for _, _, result in reads.replies] == [3 << 20]

    deaf = stage.connect()
    deaf.writer.write(b"".join(encode_request(number, b"much") for number in range(5)))
    stage.settle()
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    stage.on_server(stage.door.applied, [bytes(1 << 20)] * 2, stage.group.waiters[1:3])
    assert stage.door.summary()["connections"] == 2
    stage.on_server(stage.door.applied, [bytes(1 << 20)] * 2, stage.group.waiters[3:5])
    stage.on_server(stage.door.applied, [b""], stage.group.waiters[5:])
    assert stage.door.summary()["connections"] == 1


def test_stop_writes_what_there_is_to_say_and_closes() -> None:
    stage = Stage()
    raw = stage.connect()
    raw.writer.write(encode_request(7, b"command"))
    stage.settle()

    async def leave() -> None:
        stage.door.lost(stage.group.waiters)
        await stage.door.stop()

    stage.simulation.run(stage.server, leave())
    stage.settle()
    assert raw.replies == [(7, Status.UNKNOWN, b"")]
    assert raw.closed
    with pytest.raises(ConnectionError):
        stage.connect()


# --- the client --------------------------------------------------------------------------------


def _call(stage: Stage, client: StateMachineClient, command: bytes) -> asyncio.Task[bytes]:
    task = stage.simulation.start(stage.client, client.call(command))
    stage.settle()
    return task


def _client(stage: Stage, *servers: str) -> StateMachineClient:
    async def make() -> StateMachineClient:
        return StateMachineClient(servers or [f"{HOST}:{PORT}"], Random(1), timeout_s=0.5)

    return stage.simulation.run(stage.client, make())


def test_a_client_is_told_the_outcome() -> None:
    stage = Stage()
    client = _client(stage)
    done, refused, lost = (_call(stage, client, command) for command in (b"a", b"b", b"c"))
    assert stage.door.summary() == {"connections": 1, "requests": 3, "outstanding": 3}
    stage.on_server(stage.door.applied, [b"result"], stage.group.waiters[:1])
    stage.on_server(stage.door.refused, stage.group.waiters[1:2], Why.DISK_FULL)
    stage.on_server(stage.door.lost, stage.group.waiters[2:])
    assert done.result() == b"result"
    assert isinstance(refused.exception(), Refused) and str(refused.exception()) == "the disk is full"
    assert isinstance(lost.exception(), OutcomeUnknown)


def test_a_client_goes_to_the_next_server_after_trouble() -> None:
    stage = Stage()
    client = _client(stage, f"10.0.0.9:{PORT}", f"{HOST}:{PORT}")
    silent = _call(stage, client, b"a")
    stage.simulation.pass_until(stage.simulation.now_s + 1)
    assert stage.group.commands == [b"a"], "the first server is not there"
    stage.simulation.pass_until(stage.simulation.now_s + 1)
    assert isinstance(silent.exception(), OutcomeUnknown) and "0.5 s" in str(silent.exception())
    stage.settle()
    assert stage.door.summary()["connections"] == 0, "what did not answer in time is left"
    again = _call(stage, client, b"b")
    stage.simulation.pass_until(stage.simulation.now_s + 1)
    stage.on_server(stage.door.applied, [b"result"], stage.group.waiters[1:])
    assert again.result() == b"result"


def test_a_lost_connection_leaves_the_outcome_unknown_and_no_server_is_a_refusal() -> None:
    stage = Stage()
    client = _client(stage)
    lost = _call(stage, client, b"a")
    stage.simulation.kill(HOST)
    stage.settle()
    assert isinstance(lost.exception(), OutcomeUnknown)
    stage.simulation.boot(HOST)
    refused = _call(stage, client, b"b")
    assert isinstance(refused.exception(), Refused)


# --- the store and the words -------------------------------------------------------------------


def _store(violations: list[Violation], node: int = 0) -> StateMachineStore:
    return StateMachineStore(Counter, node, Replicas(StoreAgreement(violations.append)))


def test_a_snapshot_is_of_the_moment_it_was_asked_for_and_must_be_whole() -> None:
    violations: list[Violation] = []
    store, other = _store(violations), _store(violations)
    store.apply([b"increment"] * 3, 0)
    slices = store.snapshot()
    store.apply([b"increment"], 0)
    loader = other.restore()
    for slice_ in slices:
        loader.feed(slice_)
    loader.finish()
    assert other.number == 3 and other.apply([b"read"], 0) == [b"3"]
    for data in (b"", b"\0" * 15, b"".join(slices)[:-1]):
        loader = other.restore()
        loader.feed(data)
        with pytest.raises(ValueError, match="expected"):
            loader.finish()
    assert not violations


def test_large_snapshots_go_in_slices() -> None:
    class Large(Counter):
        def snapshot(self) -> bytes:
            return bytes(200_000)

        def restore(self, data: bytes) -> None:
            assert data == bytes(200_000)

    store = StateMachineStore(Large, 0, Replicas(StoreAgreement(lambda _: None)))
    slices = list(store.snapshot())
    assert len(slices) == 4 and max(map(len, slices)) == 1 << 16
    loader = store.restore()
    for slice_ in slices:
        loader.feed(slice_)
    loader.finish()


def test_bytes_are_described() -> None:
    assert describe(encode_request(3, b"x") + encode_request(4, b""), True) == "call #3 b'x', call #4 b''"
    assert describe(encode_reply(3, Status.REFUSED, b"why"), False) == "refused #3 b'why'"
    assert describe(b"\0\0\0\1", True) == "4 bytes"
    assert REQUEST_HEAD.size == 8
