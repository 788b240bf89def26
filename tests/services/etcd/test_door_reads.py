"""How reads of the door wait for their barrier and are answered, one turn of the loop at a time."""

from __future__ import annotations

import pytest

from quorate.consensus.replica import Leadership, Role
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.reading_in_pieces import PIECE_KEYS
from quorate.services.etcd.reads import ANSWER_BYTES, MAX_WAITING_BYTES
from tests.services.etcd.door_stage import TIMEOUT_MS, Stage


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
