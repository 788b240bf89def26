"""What holds behind the interface whatever the protocol: limits, learners, members, handing over, one server alone.

Node 3 leads, of two voters node 2: of equal histories ZAB elects that of the highest id.
"""

from __future__ import annotations

from typing import Any

import pytest

from quorate.consensus.membership import Configuration
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.replica import (
    ChangeMembers,
    Effects,
    NodeId,
    PeerLost,
    Propose,
    ReadBarrier,
    Refusal,
    Role,
    Tick,
    TransferLeadership,
)
from tests.consensus.groups import elect, group, settle
from tests.consensus.lab import InFlight, Lab

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)


def led(protocol: str, nodes: int, learners: tuple[NodeId, ...] = (), **limits: Any) -> Lab:
    lab = group(PROTOCOLS[protocol], nodes, learners, **limits)
    elect(lab, nodes)
    return lab


def keeps_leading(flight: InFlight) -> bool:
    return not flight.message.asks_to_lead()


def handed_to(effects: Effects) -> list[NodeId]:
    return [send.to for send in effects.messages if send.message.asks_to_lead()]


def payloads(lab: Lab, node: NodeId) -> list[bytes]:
    return [entry.payload for entry in lab.servers[node].applied]


# --- entries and limits ----------------------------------------------------------------------


def test_a_server_alone_leads_commits_and_reads_by_itself(protocol: str) -> None:
    lab = led(protocol, 1)
    lab.step(1, Propose(b"a"))
    assert [barrier.position for barrier in lab.step(1, ReadBarrier(1)).barriers_passed] == [1]
    settle(lab)
    assert payloads(lab, 1) == [b"", b"a"]
    assert [barrier.position for barrier in lab.step(1, ReadBarrier(2)).barriers_passed] == [2]
    assert lab.servers[1].running().quorum_contact_ms() == lab.now_ms


def test_proposals_are_refused_without_a_ready_leader_and_above_the_limit(protocol: str) -> None:
    lab = group(PROTOCOLS[protocol], 3, max_uncommitted_bytes=10)
    assert lab.step(3, Propose(b"a")).refused is Refusal.NOT_LEADER
    elect(lab, 3)
    assert lab.step(3, Propose(bytes(50))).refused is None  # one alone may be larger than the limit
    assert lab.step(3, Propose(b"a")).refused is Refusal.OVERLOADED
    assert lab.servers[3].running().uncommitted_bytes() == 50
    settle(lab)
    assert lab.servers[3].running().uncommitted_bytes() == 0
    assert lab.step(3, Propose(b"a")).refused is None
    assert lab.step(2, Propose(b"a")).refused is Refusal.NOT_LEADER


def test_bytes_in_flight_are_bounded_and_messages_are_cut(protocol: str) -> None:
    lab = led(protocol, 3, max_bytes_in_flight=10, max_message_bytes=4)
    for _ in range(20):
        lab.step(3, Propose(b"ab"))
    assert sum(flight.message.payload_bytes() for flight in lab.network if flight.to == 2) == 10
    sizes: list[int] = []
    lab.send_watchers.append(lambda server, send: sizes.append(send.message.payload_bytes()))
    settle(lab)
    assert max(sizes) == 4
    assert all(len(server.applied) == 21 for server in lab.servers.values())


def test_a_peer_that_drops_entries_is_sent_one_entry_a_heartbeat(protocol: str) -> None:
    lab = led(protocol, 3, max_bytes_in_flight=64, max_message_bytes=16)
    sizes: list[int] = []

    def accepts(flight: InFlight) -> bool:
        if flight.to != 2 or not flight.message.payload_bytes():
            return True
        sizes.append(flight.message.payload_bytes())
        return False

    for _ in range(100):
        lab.step(3, Propose(b"abcd"))
        settle(lab, accepts)
    assert sum(sizes) == 64  # what went out before there was an answer
    lab.tick(3)
    settle(lab, accepts)  # the heartbeat shows it, and the first probe is lost
    for barrier_id in range(5):
        sizes.clear()
        lab.tick(3)
        settle(lab, accepts)
        lab.step(3, ReadBarrier(barrier_id))
        settle(lab, accepts)  # a round that is no heartbeat
        lab.step(3, Propose(b"abcd"))
        settle(lab, accepts)
        assert sizes == [4]
    assert lab.servers[2].running().status().leader == 3
    lab.tick(3)
    settle(lab)
    assert lab.servers[2].applied == lab.servers[3].applied


def test_a_peer_that_takes_a_little_loses_no_more_than_it_takes(protocol: str) -> None:
    lab = led(protocol, 3, max_bytes_in_flight=1024, max_message_bytes=64)
    taken = lost = 0

    def accepts(flight: InFlight) -> bool:
        nonlocal taken, lost
        size = flight.message.payload_bytes() if flight.to == 2 else 0
        if size > 8:  # room for an entry or two, but not for a whole message
            lost += size
            return False
        taken += size
        return True

    def lag() -> int:
        return len(lab.servers[3].applied) - len(lab.servers[2].applied)

    for _ in range(300):
        lab.step(3, Propose(b"abcd"))
        settle(lab, lambda flight: flight.to != 2)
    lab.tick(3)
    settle(lab, accepts)
    while lag():
        before = lag()
        taken = lost = 0
        lab.tick(3)
        settle(lab, accepts)
        assert 0 <= lost <= 3 * taken
        assert lag() < before


@pytest.mark.parametrize("connection_lost", [True, False])
def test_a_peer_that_came_back_with_less_than_it_acknowledged_catches_up(protocol: str, connection_lost: bool) -> None:
    lab = led(protocol, 3)
    for _ in range(3):
        lab.step(3, Propose(b"a"))
        settle(lab)
    lab.crash(2)
    del lab.servers[2].durable.entries[4]
    if connection_lost:
        lab.step(3, PeerLost(2))
    lab.restart(2)
    for _ in range(2):
        lab.tick(3)
        settle(lab)
    assert lab.servers[3].running().status().peer_positions[2] == 4
    assert sorted(lab.servers[2].durable.entries) == [1, 2, 3, 4]


def test_a_compacted_server_restarts_from_its_snapshot(protocol: str) -> None:
    lab = led(protocol, 3, max_tail_bytes=0)
    for _ in range(5):
        lab.step(3, Propose(b"a"))
    settle(lab)
    lab.compact(2, 4)
    assert lab.servers[2].running().status().first_position == 5
    settle(lab)
    lab.crash(2)
    lab.restart(2)
    assert len(lab.servers[2].applied) == 4
    for _ in range(2):
        lab.tick(3)
        settle(lab)
    assert lab.servers[2].applied == lab.servers[3].applied


# --- time --------------------------------------------------------------------------------------


def test_quorum_contact_is_when_the_answered_round_was_sent(protocol: str) -> None:
    lab = group(PROTOCOLS[protocol], 3)
    assert lab.servers[3].running().quorum_contact_ms() is None
    elect(lab, 3)
    elected_ms = lab.now_ms
    lab.tick(3)
    sent_ms = lab.now_ms
    assert sent_ms > elected_ms
    lab.now_ms += 30
    assert lab.servers[3].running().quorum_contact_ms() == elected_ms
    settle(lab)
    assert lab.servers[3].running().quorum_contact_ms() == sent_ms


def test_slow_round_trips_make_everybody_more_patient(protocol: str) -> None:
    lab = led(protocol, 3, heartbeat_interval_ms=80)
    for _ in range(20):
        lab.tick(3)
        lab.now_ms += 60
        settle(lab)
    for server in lab.servers.values():
        patience_ms = server.running().status().words["election_timeout_ms"]
        assert isinstance(patience_ms, int) and 1100 <= patience_ms <= 1200
    lab.now_ms += 1000
    assert not lab.step(1, Tick()).messages and not lab.step(2, Tick()).messages


def test_heartbeats_of_all_groups_are_due_at_once(protocol: str) -> None:
    for timeout_ms in (401, 437, 463):
        lab = led(protocol, 1, heartbeat_interval_ms=80, election_timeout_ms=timeout_ms)
        due_ms = lab.servers[1].running().deadline_ms()
        assert due_ms % 80 == 0 and 0 < due_ms - lab.now_ms <= 80


# --- members -----------------------------------------------------------------------------------


def test_a_learner_gets_everything_and_decides_nothing(protocol: str) -> None:
    lab = led(protocol, 2, learners=(3,))
    lab.step(2, Propose(b"a"))
    settle(lab)
    assert payloads(lab, 3) == [b"", b"a"]
    lab.step(3, ReadBarrier(1))
    settle(lab)
    # Without the other voter what the learner acknowledges commits nothing.
    lab.crash(1)
    lab.step(2, Propose(b"b"))
    settle(lab)
    assert len(lab.servers[2].applied) == 2
    learner = lab.servers[3].running()
    lab.now_ms += 5_000
    effects = lab.step(3, Tick())
    assert learner.status().role is Role.LEARNER and not effects.messages
    assert learner.deadline_ms() > lab.now_ms


def test_changes_and_transfers_that_lead_nowhere_are_refused(protocol: str) -> None:
    lab = group(PROTOCOLS[protocol], 2, learners=(3,))
    change = ChangeMembers(Configuration.make(2, {2: ""}))
    assert lab.step(2, change).refused is Refusal.NOT_LEADER
    assert lab.step(2, TransferLeadership(1)).refused is Refusal.NOT_LEADER
    elect(lab, 2)
    assert lab.step(1, change).refused is Refusal.NOT_LEADER
    for nonsense in (
        Configuration.make(2, {}, {1: "", 2: ""}),  # nobody would vote
        Configuration.make(2, {1: "wiped", 2: ""}),  # it must stop voting in between
        Configuration.make(2, {1: ""}, {}, {1: "", 2: ""}),
    ):
        assert lab.step(2, ChangeMembers(nonsense)).refused is Refusal.UNSUPPORTED
    assert lab.step(2, ChangeMembers(Configuration.make(1, {1: ""}))).refused is Refusal.OUTDATED
    assert lab.step(2, ChangeMembers(Configuration.make(0, {1: ""}))).refused is Refusal.OUTDATED
    for node in (2, 3, 9):
        assert lab.step(2, TransferLeadership(node)).refused is Refusal.NOT_A_VOTER
    assert lab.servers[2].running().status().last_position == 1
    assert lab.step(2, change).refused is None
    assert lab.step(2, change).refused is Refusal.CHANGE_UNDER_WAY
    settle(lab)
    assert lab.servers[2].running().settled_version() == 2
    assert lab.step(2, TransferLeadership()).refused is Refusal.NOT_A_VOTER  # there is no other


def test_a_leader_that_is_out_of_the_voters_can_be_asked_to_vote_again(protocol: str) -> None:
    lab = led(protocol, 2)
    lab.step(2, ChangeMembers(Configuration.make(2, {1: ""}, {2: ""})))
    settle(lab, keeps_leading)
    leader = lab.servers[2].running()
    assert leader.settled_version() == 2 and leader.status().successor == 1
    assert lab.step(2, TransferLeadership(avoid=(1,))).refused is Refusal.NOT_A_VOTER  # it stays
    assert lab.step(2, ChangeMembers(Configuration.make(3, {1: "", 2: ""}))).refused is None
    settle(lab)
    assert leader.configuration().voters == {1: "", 2: ""}


def test_a_leader_that_is_out_of_the_voters_does_not_stand_for_its_next_incarnation(protocol: str) -> None:
    lab = led(protocol, 3)
    lab.step(3, ChangeMembers(Configuration.make(2, {1: "", 2: ""}, {3: ""})))
    settle(lab, keeps_leading)
    lab.step(3, TransferLeadership(avoid=(1, 2)))
    replaced = ChangeMembers(Configuration.make(3, {3: "another folder", 2: "", 1: ""}))
    assert lab.step(3, replaced).refused is None  # a learner first
    settle(lab, keeps_leading)
    lab.step(3, TransferLeadership(avoid=(1, 2)))
    assert lab.step(3, replaced).refused is Refusal.NOT_CAUGHT_UP


def test_a_hand_over_goes_to_another_where_its_target_leaves(protocol: str) -> None:
    lab = led(protocol, 3)
    leader = lab.servers[3].running()
    assert leader.status().successor is None
    assert handed_to(lab.step(3, TransferLeadership(avoid=(2,)))) == [1]
    assert leader.status().successor == 1
    assert lab.step(3, TransferLeadership(avoid=(2,))).refused is Refusal.TRANSFERRING
    assert lab.step(3, TransferLeadership(2)).refused is Refusal.TRANSFERRING
    assert lab.step(3, Propose(b"waits")).refused is Refusal.TRANSFERRING
    assert handed_to(lab.step(3, TransferLeadership(avoid=(1,)))) == [2]
    assert leader.status().successor == 2
    assert lab.step(3, TransferLeadership(avoid=(1, 2))).refused is Refusal.NOT_A_VOTER
    assert leader.status().successor is None
    assert lab.step(3, Propose(b"goes on")).refused is None
