"""How commands and reads of the door go to the group and come back, one turn of the loop at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.replica import Leadership, RandomSource, Role
from quorate.net.grpc.calls import Call
from quorate.net.grpc.status import Code
from quorate.services.etcd import commands, reading_in_pieces
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.header import HeaderWriter, cluster_number, member_number
from quorate.services.etcd.members import Members
from quorate.services.etcd.proposing import Proposal
from quorate.services.etcd.reading_in_pieces import PIECE_KEYS
from quorate.services.etcd.reads import ANSWER_BYTES, MAX_WAITING_BYTES, Reads
from quorate.services.etcd.results import Result
from quorate.services.etcd.store import Store
from quorate.services.etcd.submissions import MAX_HELD_BYTES, PIECE_BYTES, Submissions
from quorate.services.interface import DoorConfig, Refused

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


# --- commands ---------------------------------------------------------------------------------


def test_commands_of_one_turn_are_submitted_together_and_in_order() -> None:
    stage = Stage()
    clients = [stage.propose(b"%d" % at) for at in range(5)]
    assert not stage.submitted
    stage.turn()
    assert [commands for commands, _ in stage.submitted] == [[b"0", b"1", b"2", b"3", b"4"]]
    stage.apply(0)
    assert [client.told for client in clients] == [["revision 9"]] * 5


def test_a_result_that_is_an_error_is_the_answer() -> None:
    stage = Stage()
    client = stage.propose()
    stage.turn()
    stage.submissions.applied([Result(9, b"", EtcdError.COMPACTED)], [client])
    assert client.told == [EtcdError.COMPACTED.message]


def test_a_command_that_is_too_large_goes_nowhere() -> None:
    stage = Stage()
    assert stage.propose(bytes(101)).told == [EtcdError.REQUEST_TOO_LARGE.message]
    fits = stage.propose(bytes(100))
    stage.turn()
    assert stage.submitted == [([bytes(100)], [fits])]


@pytest.mark.parametrize(
    ("why", "error"),
    [
        (Refused.NO_LEADER, EtcdError.NO_LEADER),
        (Refused.DISK_FULL, EtcdError.NO_SPACE),
        (Refused.STOPPING, EtcdError.STOPPED),
    ],
)
def test_refused(why: Refused, error: EtcdError) -> None:
    stage = Stage()
    client = stage.propose()
    stage.turn()
    stage.submissions.refused([client], why)
    assert client.told == [error.message]


def test_lost_with_the_leader() -> None:
    stage = Stage()
    client = stage.propose()
    stage.turn()
    stage.leadership = Leadership(Role.FOLLOWER, 2, 2)
    stage.submissions.lost([client])
    assert client.told == ["etcdserver: request timed out, possibly due to previous leader failure"]


def test_lost_with_the_connection_to_a_leader_that_still_leads() -> None:
    stage = Stage()
    stage.leadership = Leadership(Role.FOLLOWER, 2, 2)
    stage.submissions.leadership_changed(stage.leadership)
    client = stage.propose()
    stage.turn()
    stage.submissions.lost([client])
    assert client.told == ["etcdserver: request timed out, possibly due to connection lost"]


def test_no_answer_within_the_time_of_a_request() -> None:
    stage = Stage()
    early = stage.propose()
    stage.turn()
    stage.tick(TIMEOUT_MS - 1)
    late = stage.propose()
    stage.turn()
    assert early.told == []
    stage.tick(1)
    assert (early.told, late.told) == (["etcdserver: request timed out"], [])
    stage.apply(0, 1)
    assert (early.told, late.told) == (["etcdserver: request timed out"], ["revision 9"])
    assert stage.submissions.outstanding() == 0


def test_only_what_has_not_come_back_of_a_turn_times_out() -> None:
    stage = Stage()
    first, second = stage.propose(), stage.propose()
    stage.turn()
    stage.submissions.applied([Result(9, b"")], [first])
    assert stage.submissions.outstanding() == 1
    stage.tick(TIMEOUT_MS)
    assert (first.told, second.told) == (["revision 9"], ["etcdserver: request timed out"])
    stage.submissions.applied([Result(9, b"")], [second])
    assert stage.submissions.outstanding() == 0


def test_the_rest_of_a_turn_is_lost() -> None:
    stage = Stage()
    first, second, third = (stage.propose() for _ in range(3))
    stage.turn()
    stage.submissions.applied([Result(9, b"")], [first])
    stage.submissions.lost([second, third])
    assert (first.told, second.told) == (["revision 9"], [EtcdError.TIMEOUT_CONNECTION_LOST.message])
    assert stage.submissions.outstanding() == 0


def test_what_is_refused_may_stand_behind_what_is_under_way() -> None:
    """The disk fills while a batch is on its way: the group refuses what it has not proposed yet."""
    stage = Stage()
    under_way = stage.propose()
    stage.turn()
    pending = stage.propose()
    stage.turn()
    stage.submissions.refused([pending], Refused.DISK_FULL)
    assert stage.submissions.outstanding() == 1
    stage.tick(TIMEOUT_MS)
    assert (under_way.told, pending.told) == (["etcdserver: request timed out"], [EtcdError.NO_SPACE.message])


def test_a_proposal_waits_for_its_outcome() -> None:
    stage = Stage()
    expiry = Expiry()
    stage.submissions.propose(b"e", expiry)
    stage.turn()
    stage.tick(TIMEOUT_MS)
    assert expiry.outcomes == []
    stage.submissions.applied([Result(9, b"")], [expiry])
    assert expiry.outcomes == [Result(9, b"")]


def test_a_proposal_is_told_of_its_failure() -> None:
    stage = Stage()
    refused, lost = Expiry(), Expiry()
    stage.submissions.refused([refused], Refused.NO_LEADER)
    stage.submissions.lost([lost])
    assert (refused.outcomes, lost.outcomes) == ([EtcdError.NO_LEADER], [EtcdError.TIMEOUT_CONNECTION_LOST])


def test_while_the_group_is_congested_commands_wait_here() -> None:
    stage = Stage()
    stage.is_congested = True
    first = stage.propose()
    stage.turn()
    held, gone = stage.propose(b"held"), stage.propose(b"gone")
    stage.turn()
    assert len(stage.submitted) == 1
    gone.is_over = True
    stage.is_congested = False
    stage.submissions.relieved()
    stage.turn()
    assert stage.submitted == [([b"p"], [first]), ([b"held"], [held])]


def test_what_waits_while_the_group_is_congested_is_bounded() -> None:
    stage = Stage(max_command_bytes=1 << 20)
    stage.is_congested = True
    stage.propose()
    stage.turn()
    waiting = 0
    while not (client := stage.propose(bytes(1 << 20))).told:
        waiting += 1
        stage.turn()
    assert client.told == [EtcdError.TOO_MANY_REQUESTS.message]
    assert waiting == MAX_HELD_BYTES >> 20
    stage.relieve()
    assert sum(len(commands) for commands, _ in stage.submitted[1:]) == waiting
    # The next time there is as much room.
    stage.is_congested = True
    stage.propose()
    stage.turn()
    for _ in range(waiting):
        assert stage.propose(bytes(1 << 20)).told == []
        stage.turn()
    assert stage.propose(bytes(1 << 20)).told == [EtcdError.TOO_MANY_REQUESTS.message]


def test_a_turn_of_many_bytes_is_handed_over_in_pieces_until_the_group_is_congested() -> None:
    stage = Stage(max_command_bytes=1 << 20)
    stage.congested_above_bytes = 5 * PIECE_BYTES
    clients = [stage.propose(bytes(PIECE_BYTES // 2)) for _ in range(100)]
    stage.turn()
    assert [len(commands) for commands, _ in stage.submitted] == [2] * 6
    while stage.submissions.outstanding():
        stage.apply(*range(len(stage.submitted)))
        stage.submitted.clear()
        stage.relieve()
        assert len(stage.submitted) <= 6
    assert [client.told for client in clients] == [["revision 9"]] * 100


def test_what_comes_while_others_are_held_goes_behind_them() -> None:
    stage = Stage()
    stage.is_congested = True
    stage.propose(b"1")
    stage.turn()
    stage.propose(b"2")
    stage.turn()
    stage.is_congested = False
    stage.submissions.relieved()
    stage.propose(b"3")
    stage.turn()
    assert [commands for commands, _ in stage.submitted] == [[b"1"], [b"2"], [b"3"]]


def test_commands_that_are_held_when_the_node_stops_are_surely_not_done() -> None:
    stage = Stage()
    stage.is_congested = True
    under_way = stage.propose()
    stage.turn()
    held, expiry = stage.propose(), Expiry()
    stage.submissions.propose(b"e", expiry)
    stage.turn()
    new = stage.propose()
    stage.submissions.stop()
    late = stage.propose()
    stage.relieve()
    assert len(stage.submitted) == 1
    assert (held.told, new.told, late.told) == ([EtcdError.STOPPED.message],) * 3
    assert (under_way.told, expiry.outcomes) == ([], [EtcdError.STOPPED])


def test_each_turn_under_way_times_out_at_its_time() -> None:
    stage = Stage()
    early = stage.propose()
    stage.turn()
    stage.tick(1_000)
    late = stage.propose()
    stage.turn()
    stage.tick(TIMEOUT_MS - 1_000)
    assert (early.told, late.told) == (["etcdserver: request timed out"], [])
    stage.tick(1_000)
    assert late.told == ["etcdserver: request timed out"]


def test_what_waits_for_a_congested_group_times_out() -> None:
    stage = Stage()
    stage.is_congested = True
    stage.propose()
    stage.turn()
    held, expiry = stage.propose(), Expiry()
    stage.submissions.propose(b"e", expiry)
    stage.turn()
    stage.tick(TIMEOUT_MS)
    assert held.told == ["etcdserver: request timed out"]
    stage.relieve()
    assert stage.submitted[1:] == [([b"e"], [expiry])]


# --- reads ------------------------------------------------------------------------------------


def test_one_barrier_for_all_reads_of_a_turn() -> None:
    stage = Stage()
    clients = [stage.read() for _ in range(5)]
    stage.turn()
    [done] = stage.barriers
    assert [client.told for client in clients] == [[]] * 5
    done(True)
    assert [client.told for client in clients] == [["revision 7"]] * 5


def test_a_read_that_came_after_the_barrier_was_asked_for_gets_the_next_one() -> None:
    stage = Stage()
    early = stage.read()
    stage.turn()
    late = stage.read()
    stage.barriers[0](True)
    assert (early.told, late.told) == (["revision 7"], [])
    stage.turn()
    stage.barriers[1](True)
    assert late.told == ["revision 7"]


def test_a_failed_barrier_is_asked_for_again_when_there_is_a_leader() -> None:
    stage = Stage()
    client = stage.read()
    stage.turn()
    stage.leadership = Leadership(Role.FOLLOWER, None, 2)
    stage.barriers[0](False)
    stage.tick(50)
    assert len(stage.barriers) == 1
    stage.leadership = Leadership(Role.FOLLOWER, 1, 3)
    stage.reads.retry()
    assert client.told == []
    stage.barriers[1](True)
    assert client.told == ["revision 7"]


def test_a_barrier_that_failed_under_a_leader_is_asked_for_again_with_the_next_tick() -> None:
    stage = Stage()
    client = stage.read()
    stage.turn()
    stage.barriers[0](False)
    assert len(stage.barriers) == 1
    stage.tick(50)
    stage.barriers[1](True)
    assert client.told == ["revision 7"]


@pytest.mark.parametrize("failed", [True, False])
def test_a_read_waits_only_so_long(failed: bool) -> None:
    """For a leader, or for a barrier that nobody answers."""
    stage = Stage()
    client = stage.read()
    stage.turn()
    if failed:
        stage.leadership = Leadership(Role.FOLLOWER, None, 2)
        stage.barriers[0](False)
    stage.tick(TIMEOUT_MS - 1)
    assert client.told == []
    stage.tick(1)
    assert client.told == ["etcdserver: request timed out"]
    assert stage.reads.outstanding() == 0
    if not failed:
        stage.barriers[0](True)
        assert client.told == ["etcdserver: request timed out"]


def test_many_bytes_are_read_in_several_turns() -> None:
    stage = Stage()
    clients = [stage.read(answer_bytes=ANSWER_BYTES // 2) for _ in range(5)]
    stage.turn()
    stage.barriers[0](True)
    answered = [sum(bool(client.told) for client in clients)]
    while stage.turns:
        stage.turn()
        answered.append(sum(bool(client.told) for client in clients))
    assert answered == [2, 4, 5]
    assert stage.reads.outstanding() == 0


def test_reads_whose_client_is_gone_are_not_read() -> None:
    stage = Stage()
    client = stage.read()
    stage.turn()
    client.is_over = True
    stage.barriers[0](True)
    assert stage.reads.count == 0


def test_what_waits_to_be_read_is_bounded() -> None:
    stage = Stage()
    large = MAX_WAITING_BYTES // 4
    clients = [stage.read(size_bytes=large) for _ in range(6)]
    assert [client.told for client in clients[:4]] == [[]] * 4
    assert clients[5].told == [EtcdError.TOO_MANY_REQUESTS.message]
    stage.turn()
    stage.barriers[0](True)
    assert stage.read(size_bytes=large).told == []


def test_reads_of_a_client_that_does_not_read_wait_until_it_does() -> None:
    stage = Stage()
    slow, other = stage.read(), stage.read()
    slow.reads = False
    stage.turn()
    stage.barriers[0](True)
    assert (slow.told, other.told) == ([], ["revision 7"])
    stage.tick(50)
    stage.turn()
    assert slow.told == []
    assert slow.resume is not None
    slow.reads = True
    slow.resume(slow)
    stage.turn()
    assert slow.told == ["revision 7"]
    assert stage.reads.outstanding() == 0


def test_a_read_waits_only_so_long_for_its_client_to_read() -> None:
    stage = Stage()
    slow, gone = stage.read(), stage.read()
    slow.reads = gone.reads = False
    stage.turn()
    stage.barriers[0](True)
    stage.tick(TIMEOUT_MS - 1)
    assert slow.told == []
    gone.is_over = True
    stage.tick(1)
    assert slow.told == ["etcdserver: request timed out"]
    assert stage.reads.outstanding() == 0
    assert stage.reads._waiting_bytes == 0


def test_what_waits_for_clients_to_read_is_bounded() -> None:
    stage = Stage()
    large = MAX_WAITING_BYTES // 4
    clients = [stage.read(size_bytes=large) for _ in range(5)]
    for client in clients:
        client.reads = False
    stage.turn()
    stage.barriers[0](True)
    assert stage.read().told == [EtcdError.TOO_MANY_REQUESTS.message]


# --- large reads ------------------------------------------------------------------------------


def test_a_large_range_is_read_in_several_turns_and_others_are_answered_meanwhile() -> None:
    stage = Stage()
    large = stage.read_range(3 * PIECE_KEYS)
    stage.turn()
    stage.barriers[0](True)
    turns = 0
    while not large.told:
        assert stage.turns, "the next piece is due"
        small = stage.read()
        stage.turn()
        turns += 1
        stage.barriers[turns](True)
        assert small.told == ["revision 7"]
    assert turns == 3
    assert stage.reads.outstanding() == 0
    assert stage.reads._waiting_bytes == 0


def test_a_large_range_that_needs_no_barrier_is_read_in_several_turns() -> None:
    stage = Stage()
    large = stage.read_range(3 * PIECE_KEYS, serializable=True)
    turns = 0
    while not large.told:
        stage.turn()
        turns += 1
    assert turns == 3
    assert not stage.barriers


def test_of_many_large_ranges_one_is_half_done() -> None:
    """What has been read of a range is memory; the others have cost nothing yet."""
    stage = Stage()
    clients = [stage.read_range(2 * PIECE_KEYS, serializable=True) for _ in range(3)]
    told = []
    while stage.turns:
        stage.turn()
        told.append([bool(client.told) for client in clients].count(True))
    assert told == [0, 1, 1, 2, 2, 3]


def test_a_large_range_whose_client_does_not_read_is_not_begun() -> None:
    stage = Stage()
    slow, other = (stage.read_range(PIECE_KEYS, serializable=True) for _ in range(2))
    slow.reads = False
    stage.turn()
    stage.turn()
    assert (slow.told, bool(other.told)) == ([], True)
    slow.reads = True
    assert slow.resume is not None
    slow.resume(slow)
    while stage.turns:
        stage.turn()
    assert slow.told


def test_a_large_range_whose_client_is_gone_is_given_up() -> None:
    stage = Stage()
    gone, late = stage.read_range(5 * PIECE_KEYS), stage.read_range(5 * PIECE_KEYS)
    stage.turn()
    stage.barriers[0](True)
    stage.turn()
    gone.is_over = True
    stage.turn()
    stage.tick(TIMEOUT_MS)
    assert late.told == ["etcdserver: request timed out"]
    stage.turn()
    assert not stage.turns
    assert stage.reads.outstanding() == 0
    assert stage.reads._waiting_bytes == 0


def test_a_node_that_stops_says_so_to_all_that_are_yet_to_be_answered() -> None:
    stage = Stage()
    unread, large = stage.read(), stage.read_range(5 * PIECE_KEYS)
    unread.reads = False
    stage.turn()
    stage.barriers[0](True)
    stage.turn()
    stage.reads.stop()
    assert (unread.told, large.told) == ([EtcdError.STOPPED.message],) * 2


def test_a_node_that_stops_says_so() -> None:
    stage = Stage()
    asked = stage.read()
    stage.turn()
    new = stage.read()
    stage.reads.stop()
    assert (asked.told, new.told) == ([EtcdError.STOPPED.message],) * 2


# --- members ----------------------------------------------------------------------------------


class Meeting:
    """Doors that tell each other where they are, one note at a time."""

    def __init__(self, nodes: int) -> None:
        self.notes: list[tuple[int, int, bytes]] = []
        self.doors = [self.door(node, nodes) for node in range(nodes)]

    def door(self, node: int, nodes: int) -> Members:
        stage = Stage()
        stage.node_id = node
        stage.describe = lambda: {"voters": list(range(nodes)), "old_voters": [], "learners": []}  # type: ignore[method-assign]
        stage.tell = lambda node, note: self.notes.append((stage.node_id, node, note))  # type: ignore[method-assign]
        return Members(stage, DoorConfig("h", 0, cluster_id="c", peer=f"p:{node}"), "http")

    def deliver(self) -> int:
        """All notes, and those that they lead to; how many there were."""
        count = 0
        while self.notes:
            sender, to, note = self.notes.pop(0)
            self.doors[to].hear(sender, note)
            count += 1
        return count

    def known_to(self, node: int) -> list[str]:
        return [member.name for member in self.doors[node].messages() if member.clientURLs]


def test_a_door_says_where_it_is_when_it_opens_and_now_and_then() -> None:
    meeting = Meeting(2)
    meeting.doors[0].open(1)
    assert [(sender, to) for sender, to, _ in meeting.notes] == [(0, 1)]
    meeting.doors[0].tick(10_000)
    meeting.doors[0].tick(10_050)
    assert len(meeting.notes) == 2
    meeting.doors[0].tick(20_000)
    assert len(meeting.notes) == 3


def test_a_door_that_does_not_listen_yet_is_nowhere() -> None:
    meeting = Meeting(2)
    meeting.doors[0].tick(10_000)
    assert meeting.notes == []


def test_a_door_that_starts_anew_is_told_by_those_that_it_tells() -> None:
    meeting = Meeting(3)
    for port, door in enumerate(meeting.doors):
        door.open(port)
    meeting.deliver()
    meeting.doors[1] = meeting.door(1, 3)
    meeting.doors[1].open(99)
    assert meeting.deliver() < 10, "they do not go on telling each other"
    for node in range(3):
        assert sorted(meeting.known_to(node)) == ["node-0", "node-1", "node-2"]
    moved = next(member for member in meeting.doors[0].messages() if member.name == "node-1")
    assert list(moved.clientURLs) == ["http://h:99"]


# --- header -----------------------------------------------------------------------------------

numbers = st.integers(0, (1 << 64) - 1)


@given(numbers, numbers, st.lists(st.tuples(st.integers(0, (1 << 63) - 1), numbers), min_size=1))
def test_a_header_is_what_protobuf_makes_of_it(cluster: int, member: int, written: list[tuple[int, int]]) -> None:
    header = HeaderWriter(cluster, member)
    for revision, term in written:
        if term != header.term:
            header.set_term(term)
        for near in {revision, revision ^ 1, revision ^ 128}:
            expected = pb.ResponseHeader(cluster_id=cluster, member_id=member, revision=near, raft_term=term)
            assert pb.PutResponse.FromString(header.write(near)).header == expected


def test_ids_differ_and_stay() -> None:
    ids = {member_number(cluster, node) for cluster in ("a", "b") for node in range(9)} | {cluster_number("a")}
    assert len(ids) == 19 and 0 not in ids
    assert member_number("a", 1) == 0x773232ABE9343F0E
