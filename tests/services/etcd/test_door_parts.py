"""How commands of the door go to the group and come back, one turn of the loop at a time; who is where; headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.replica import Leadership, Role
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.header import HeaderWriter, cluster_number, member_number
from quorate.services.etcd.members import Members
from quorate.services.etcd.results import Result
from quorate.services.etcd.submissions import MAX_HELD_BYTES, PIECE_BYTES
from quorate.services.interface import DoorConfig, Refused
from tests.services.etcd.door_stage import TIMEOUT_MS, Expiry, Stage

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
