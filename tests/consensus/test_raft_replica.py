"""The replica's contract where no trace shows it: limits, bad messages, learners, one server alone, refusals."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.membership import NO_CONFIGURATION, PREFIX, Configuration
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.raft.hard_state import encode_hard_state
from quorate.consensus.raft.messages import (
    Append,
    Appended,
    AppendRejected,
    BarrierAnswer,
    BarrierRequest,
    Commit,
    RequestVote,
    TimeoutNow,
    Vote,
)
from quorate.consensus.records import CompactedThrough, Entry, Recovered
from quorate.consensus.replica import (
    ChangeMembers,
    Event,
    InstallSnapshot,
    Leadership,
    Message,
    PeerLost,
    Persisted,
    Propose,
    ReadBarrier,
    Receive,
    Refusal,
    ReplicaConfig,
    Role,
    Send,
    SnapshotArrived,
    SnapshotSent,
    Tick,
    TransferLeadership,
)
from quorate.simulation.durable_records import DurableRecords
from tests.consensus.lab import InFlight, Lab

RAFT = PROTOCOLS["raft"]
NUMBERS = st.integers(-1, 6) | st.sampled_from([(1 << 62) - 1, 1 << 62, (1 << 63) - 1, (1 << 64) - 1, -(1 << 63)])
CONFIGURATIONS = st.sampled_from(
    [
        b"",
        PREFIX,
        NO_CONFIGURATION.encode(),
        Configuration.make(2, {1: "", 2: ""}).encode(),
        Configuration.make(3, {4: "", 7: ""}, {1: ""}, {1: "", 2: ""}).encode(),
        Configuration(3, {2: ""}, {2: ""}).encode(),
    ]
)
ENTRIES = st.lists(st.builds(Entry, NUMBERS, NUMBERS, st.binary(max_size=2) | CONFIGURATIONS), max_size=3).map(tuple)
MESSAGES = st.one_of(
    st.builds(RequestVote, NUMBERS, NUMBERS, NUMBERS, st.booleans(), st.booleans()),
    st.builds(TimeoutNow, NUMBERS),
    st.builds(Vote, NUMBERS, st.booleans(), st.booleans()),
    st.builds(Append, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, ENTRIES, NUMBERS),
    st.builds(Appended, NUMBERS, NUMBERS, NUMBERS),
    st.builds(AppendRejected, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(Commit, NUMBERS, NUMBERS),
    st.builds(BarrierRequest, NUMBERS, NUMBERS, NUMBERS),
    st.builds(BarrierAnswer, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
)
PEERS = st.integers(0, 4)
EVENTS = st.one_of(
    st.builds(Receive, PEERS, MESSAGES),
    st.builds(SnapshotArrived, PEERS, NUMBERS, NUMBERS, NUMBERS, CONFIGURATIONS),
    st.builds(PeerLost, PEERS),
    st.builds(SnapshotSent, PEERS, st.none()),
    st.just(Tick()),
    st.just(Propose(b"x")),
    st.just(ReadBarrier(1)),
    st.builds(TransferLeadership, st.none() | PEERS, st.lists(PEERS, max_size=3).map(tuple)),
    st.builds(
        ChangeMembers,
        st.sampled_from(
            [
                NO_CONFIGURATION,
                Configuration.make(2, {1: "", 2: ""}, {4: ""}),
                Configuration.make(2, {2: "", 3: ""}),
                Configuration(2, {1: "", 2: "x"}, {2: ""}, {1: ""}),
            ]
        ),
    ),
)


def group(nodes: int, learners: tuple[int, ...] = (), **limits: Any) -> Lab:
    voters = tuple(range(1, nodes + 1))
    initial = Configuration.make(1, dict.fromkeys(voters, ""), dict.fromkeys(learners, ""))
    configs = [ReplicaConfig(node, initial, **limits) for node in (*voters, *learners)]
    return Lab(RAFT, configs, Random)


def settle(lab: Lab, accepts: Callable[[InFlight], bool] = lambda flight: True) -> None:
    """Persist and deliver until nothing moves; what is not accepted is lost."""
    while lab.network or any(lab.servers[node].unsynced for node in lab.up()):
        for node in lab.up():
            while lab.servers[node].unsynced:
                lab.persist(node)
        while lab.network:
            flight = lab.network.pop(0)
            if accepts(flight):
                lab.deliver(flight)


def elect(lab: Lab, node: int) -> None:
    lab.tick(node)
    settle(lab)
    assert lab.leaders() == [node]


@pytest.mark.parametrize("state", ["follower", "pre-candidate", "candidate", "leader"])
@given(events=st.lists(EVENTS, max_size=12))
def test_no_message_makes_a_server_raise(state: str, events: list[Event]) -> None:
    lab = group(3)
    if state != "follower":
        lab.tick(1)
    if state in ("candidate", "leader"):
        lab.step(1, Receive(2, Vote(1, True, True)))
    if state == "leader":
        settle(lab)
        lab.step(1, Propose(b"a"))
    replica = lab.servers[1].running()
    assert replica.status().words["state"] == state
    for event in events:
        effects = replica.step(event, lab.now_ms + 30)
        for send in (*effects.messages, *effects.messages_after_persist):
            decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(send.message), type=RAFT.message_type)
            assert decoded == send.message
        replica.status()


def test_messages_say_how_many_bytes_of_entries_they_carry() -> None:
    assert Append(1, 0, 0, 0, 0, (Entry(1, 1, b"abc"), Entry(2, 1, b"de"))).payload_bytes() == 5
    assert Commit(1, 1).payload_bytes() == 0


def test_a_server_alone_leads_commits_and_reads_by_itself() -> None:
    lab = group(1)
    elect(lab, 1)
    lab.step(1, Propose(b"a"))
    assert [barrier.position for barrier in lab.step(1, ReadBarrier(1)).barriers_passed] == [1]
    settle(lab)
    assert [entry.payload for entry in lab.servers[1].applied] == [b"", b"a"]
    assert [barrier.position for barrier in lab.step(1, ReadBarrier(2)).barriers_passed] == [2]
    assert lab.servers[1].running().quorum_contact_ms() == lab.now_ms


def test_proposals_are_refused_without_a_ready_leader_and_above_the_limit() -> None:
    lab = group(3, max_uncommitted_bytes=10)
    assert lab.step(1, Propose(b"a")).refused is Refusal.NOT_LEADER
    elect(lab, 1)
    assert lab.step(1, Propose(bytes(50))).refused is None  # one alone may be larger than the limit
    assert lab.step(1, Propose(b"a")).refused is Refusal.OVERLOADED
    assert lab.servers[1].running().uncommitted_bytes() == 50
    settle(lab)
    assert lab.servers[1].running().uncommitted_bytes() == 0
    assert lab.step(1, Propose(b"a")).refused is None
    assert lab.step(2, Propose(b"a")).refused is Refusal.NOT_LEADER


def test_bytes_in_flight_are_bounded_and_messages_are_cut() -> None:
    lab = group(3, max_bytes_in_flight=10, max_message_bytes=4)
    elect(lab, 1)
    for _ in range(20):
        lab.step(1, Propose(b"ab"))
    sent = [flight.message for flight in lab.network if flight.to == 2]
    assert sum(message.payload_bytes() for message in sent) == 10
    sizes: list[int] = []
    lab.send_watchers.append(lambda server, send: sizes.append(send.message.payload_bytes()))
    settle(lab)
    assert max(sizes) == 4
    assert all(len(server.applied) == 21 for server in lab.servers.values())


def test_a_peer_that_drops_entries_is_sent_one_entry_a_heartbeat() -> None:
    lab = group(3, max_bytes_in_flight=64, max_message_bytes=16)
    elect(lab, 1)
    sizes: list[int] = []

    def accepts(flight: InFlight) -> bool:
        if flight.to != 2 or not flight.message.payload_bytes():
            return True
        sizes.append(flight.message.payload_bytes())
        return False

    for _ in range(100):
        lab.step(1, Propose(b"abcd"))
        settle(lab, accepts)
    assert sum(sizes) == 64  # what went out before there was an answer
    lab.tick(1)
    settle(lab, accepts)  # the heartbeat is rejected, and the first probe is lost
    for barrier_id in range(5):
        sizes.clear()
        lab.tick(1)
        settle(lab, accepts)
        lab.step(1, ReadBarrier(barrier_id))
        settle(lab, accepts)  # a round that is no heartbeat
        lab.step(1, Propose(b"abcd"))
        settle(lab, accepts)
        assert sizes == [4]
    assert lab.servers[2].running().status().leader == 1
    lab.tick(1)
    settle(lab)
    assert lab.servers[2].applied == lab.servers[1].applied


def test_a_peer_that_takes_a_little_loses_no_more_than_it_takes() -> None:
    lab = group(3, max_bytes_in_flight=1024, max_message_bytes=64)
    elect(lab, 1)
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
        return len(lab.servers[1].applied) - len(lab.servers[2].applied)

    settle(lab, lambda flight: flight.to != 2)
    for _ in range(300):
        lab.step(1, Propose(b"abcd"))
        settle(lab, lambda flight: flight.to != 2)
    lab.tick(1)
    settle(lab, accepts)
    while lag():
        before = lag()
        taken = lost = 0
        lab.tick(1)
        settle(lab, accepts)
        assert 0 <= lost <= 3 * taken
        assert lag() < before


def test_a_probe_is_not_repeated_while_the_disk_before_it_is_slow() -> None:
    lab = group(3)
    elect(lab, 1)

    def deliver_to_2_and_back() -> list[Message]:
        for _ in range(2):
            flights, lab.network = lab.network, []
            for flight in flights:
                if 2 in (flight.sender, flight.to):
                    lab.deliver(flight)
        flights, lab.network = lab.network, []
        return [flight.message for flight in flights if flight.to == 2]

    lab.step(1, Propose(b"a"))
    deliver_to_2_and_back()  # received, not durable
    lab.step(1, Propose(b"b"))
    lab.network.clear()
    lab.tick(1)
    # The heartbeat is rejected, the probe goes out and is lost.
    assert [message.payload_bytes() for message in deliver_to_2_and_back()] == [1]
    lab.tick(1)
    assert not deliver_to_2_and_back()
    lab.persist(2)
    lab.network.clear()
    lab.tick(1)
    assert [message.payload_bytes() for message in deliver_to_2_and_back()] == [1]


def test_a_late_rejection_is_not_taken_for_a_loss_of_what_was_acknowledged() -> None:
    lab = group(3)
    elect(lab, 1)
    lab.step(1, Propose(b"a"))
    settle(lab)
    lab.step(1, PeerLost(2))  # the probe stands just behind what it acknowledged
    assert not lab.step(1, Receive(2, AppendRejected(1, 1, 2, 1, 1))).messages
    assert lab.servers[1].running().status().peer_positions[2] == 2


@pytest.mark.parametrize("connection_lost", [True, False])
def test_a_peer_that_came_back_with_less_than_it_acknowledged_catches_up(connection_lost: bool) -> None:
    lab = group(3)
    elect(lab, 1)
    for _ in range(3):
        lab.step(1, Propose(b"a"))
        settle(lab)
    lab.crash(2)
    del lab.servers[2].durable.entries[4]
    if connection_lost:
        lab.step(1, PeerLost(2))
    lab.restart(2)
    lab.tick(1)
    rejections: list[InFlight] = []

    def note(flight: InFlight) -> bool:
        if isinstance(flight.message, AppendRejected):
            rejections.append(flight)
            assert len(rejections) == 1
        return True

    settle(lab, note)
    assert lab.servers[1].running().status().peer_positions[2] == 4
    assert sorted(lab.servers[2].durable.entries) == [1, 2, 3, 4]
    # The rejection once more, now that it holds the entries.
    assert not lab.step(1, Receive(2, rejections[0].message)).messages
    assert lab.servers[1].running().status().peer_positions[2] == 4


def test_a_learner_gets_everything_and_decides_nothing() -> None:
    lab = group(2, learners=(3,))
    elect(lab, 1)
    lab.step(1, Propose(b"a"))
    settle(lab)
    assert [entry.payload for entry in lab.servers[3].applied] == [b"", b"a"]
    lab.step(3, ReadBarrier(1))
    settle(lab)
    # Without the other voter the learner's acknowledgement commits nothing.
    lab.crash(2)
    lab.step(1, Propose(b"b"))
    settle(lab)
    assert len(lab.servers[1].applied) == 2
    learner = lab.servers[3].running()
    lab.now_ms += 5_000
    effects = lab.step(3, Tick())
    assert learner.status().role is Role.LEARNER and not effects.messages
    assert learner.deadline_ms() > lab.now_ms
    # Whoever asks for its vote may know that it votes by now, which it need not know itself.
    (granted,) = lab.step(3, Receive(1, RequestVote(9, 9, 8, False))).messages_after_persist
    assert granted == Send(1, Vote(9, True, False))


def test_quorum_contact_is_when_the_answered_round_was_sent() -> None:
    lab = group(3)
    assert lab.servers[1].running().quorum_contact_ms() is None
    elect(lab, 1)
    elected_ms = lab.now_ms
    lab.tick(1)
    sent_ms = lab.now_ms
    assert sent_ms > elected_ms
    lab.now_ms += 30
    assert lab.servers[1].running().quorum_contact_ms() == elected_ms
    settle(lab)
    assert lab.servers[1].running().quorum_contact_ms() == sent_ms


def test_changes_and_transfers_that_lead_nowhere_are_refused() -> None:
    lab = group(2, learners=(3,))
    change = ChangeMembers(Configuration.make(2, {1: ""}))
    assert lab.step(1, change).refused is Refusal.NOT_LEADER
    assert lab.step(1, TransferLeadership(2)).refused is Refusal.NOT_LEADER
    elect(lab, 1)
    assert lab.step(2, change).refused is Refusal.NOT_LEADER
    for nonsense in (
        Configuration.make(2, {}, {1: "", 2: ""}),  # nobody would vote
        Configuration.make(2, {1: "", 2: "wiped"}),  # it must stop voting in between
        Configuration.make(2, {1: ""}, {}, {1: "", 2: ""}),
    ):
        assert lab.step(1, ChangeMembers(nonsense)).refused is Refusal.UNSUPPORTED
    assert lab.step(1, ChangeMembers(Configuration.make(1, {1: ""}))).refused is Refusal.OUTDATED
    assert lab.step(1, ChangeMembers(Configuration.make(0, {1: ""}))).refused is Refusal.OUTDATED
    for node in (1, 3, 9):
        assert lab.step(1, TransferLeadership(node)).refused is Refusal.NOT_A_VOTER
    assert lab.servers[1].running().status().last_position == 1
    assert lab.step(1, change).refused is None
    assert lab.step(1, change).refused is Refusal.CHANGE_UNDER_WAY
    settle(lab)
    assert lab.servers[1].running().settled_version() == 2
    assert lab.step(1, TransferLeadership()).refused is Refusal.NOT_A_VOTER  # there is no other


def test_a_leader_that_is_out_of_the_voters_can_be_asked_to_vote_again() -> None:
    lab = group(2)
    elect(lab, 1)
    lab.step(1, ChangeMembers(Configuration.make(2, {2: ""}, {1: ""})))
    settle(lab, lambda flight: not isinstance(flight.message, TimeoutNow))
    leader = lab.servers[1].running()
    assert leader.settled_version() == 2 and leader.status().successor == 2
    assert lab.step(1, TransferLeadership(avoid=(2,))).refused is Refusal.NOT_A_VOTER  # it stays
    assert lab.step(1, ChangeMembers(Configuration.make(3, {1: "", 2: ""}))).refused is None
    settle(lab)
    assert leader.configuration().voters == {1: "", 2: ""}


def test_a_leader_that_is_out_of_the_voters_does_not_stand_for_its_next_incarnation() -> None:
    lab = group(3)
    elect(lab, 1)
    lab.step(1, ChangeMembers(Configuration.make(2, {3: "", 2: ""}, {1: ""})))
    settle(lab, lambda flight: not isinstance(flight.message, TimeoutNow))
    lab.step(1, TransferLeadership(avoid=(3, 2)))
    replaced = ChangeMembers(Configuration.make(3, {1: "another folder", 2: "", 3: ""}))
    assert lab.step(1, replaced).refused is None  # a learner first
    settle(lab, lambda flight: not isinstance(flight.message, TimeoutNow))
    lab.step(1, TransferLeadership(avoid=(3, 2)))
    assert lab.step(1, replaced).refused is Refusal.NOT_CAUGHT_UP


def test_a_hand_over_goes_to_another_where_its_target_leaves() -> None:
    lab = group(3)
    elect(lab, 1)
    leader = lab.servers[1].running()
    assert leader.status().successor is None
    assert lab.step(1, TransferLeadership(avoid=(3,))).messages == [Send(2, TimeoutNow(1))]
    assert leader.status().successor == 2
    assert lab.step(1, TransferLeadership(avoid=(3,))).refused is Refusal.TRANSFERRING
    assert lab.step(1, TransferLeadership(3)).refused is Refusal.TRANSFERRING
    assert lab.step(1, TransferLeadership(avoid=(2,))).messages == [Send(3, TimeoutNow(1))]
    assert leader.status().successor == 3
    assert lab.step(1, TransferLeadership(avoid=(2, 3))).refused is Refusal.NOT_A_VOTER
    assert leader.status().successor is None
    assert lab.step(1, Propose(b"goes on")).refused is None


def test_a_server_follows_and_elects_whom_its_log_does_not_know() -> None:
    replica = group(3).servers[1].running()
    effects = replica.step(Receive(7, RequestVote(5, 3, 4, False)), 10)
    assert effects.messages_after_persist == [Send(7, Vote(5, True, False))]
    replica.step(Persisted(effects.ticket), 10)
    effects = replica.step(Receive(7, Append(5, 0, 0, 0, 1, (Entry(1, 5, b"a"),))), 10)
    assert effects.messages_after_persist == [Send(7, Appended(5, 1, 1))]
    assert replica.status().leader == 7


def test_a_vote_is_withheld_from_a_living_leaders_rival_unless_that_leader_sent_it() -> None:
    lab = group(3)
    elect(lab, 1)
    assert not lab.step(3, Receive(2, RequestVote(2, 1, 1, False))).ticket
    effects = lab.step(3, Receive(2, RequestVote(2, 1, 1, False, True)))
    assert effects.messages_after_persist == [Send(2, Vote(2, True, False))]


def test_a_learner_that_is_told_to_stand_does_not() -> None:
    lab = group(2, learners=(3,))
    elect(lab, 1)
    effects = lab.step(3, Receive(1, TimeoutNow(1)))
    assert effects.leadership is None and not effects.records
    assert lab.step(2, Receive(1, TimeoutNow(1))).leadership == Leadership(Role.CANDIDATE, None, 2)


def test_a_configuration_that_makes_no_sense_is_not_taken_over() -> None:
    lab = group(3)
    elect(lab, 1)
    for payload in (PREFIX, PREFIX + b"xyz", NO_CONFIGURATION.encode(), Configuration(2, {1: ""}, {1: ""}).encode()):
        effects = lab.step(2, Receive(1, Append(1, 1, 1, 1, 1, (Entry(2, 1, payload),))))
        assert not effects.records and not effects.messages
        assert lab.step(2, SnapshotArrived(1, 1, 5, 1, payload[:-1] + b"\xc1")).install is None


def test_slow_round_trips_make_everybody_more_patient() -> None:
    lab = group(3, heartbeat_interval_ms=80)
    elect(lab, 1)
    for _ in range(20):
        lab.tick(1)
        lab.now_ms += 60
        settle(lab)
    for server in lab.servers.values():
        patience_ms = server.running().status().words["election_timeout_ms"]
        assert isinstance(patience_ms, int) and 1100 <= patience_ms <= 1200
    lab.now_ms += 1000
    assert not lab.step(2, Tick()).messages and not lab.step(3, Tick()).messages
    # Votes are withheld as long, so that whoever knows less does not depose the leader.
    assert not lab.step(2, Receive(3, RequestVote(2, 9, 1, True))).messages


def test_heartbeats_of_all_groups_are_due_at_once() -> None:
    labs = [group(1, heartbeat_interval_ms=80, election_timeout_ms=timeout_ms) for timeout_ms in (401, 437, 463)]
    for lab in labs:
        elect(lab, 1)
        due_ms = lab.servers[1].running().deadline_ms()
        assert due_ms % 80 == 0 and 0 < due_ms - lab.now_ms <= 80


def test_a_compacted_server_restarts_from_its_snapshot() -> None:
    lab = group(3, max_tail_bytes=0)
    elect(lab, 1)
    for _ in range(5):
        lab.step(1, Propose(b"a"))
    settle(lab)
    lab.compact(2, 4)
    assert lab.servers[2].running().status().first_position == 5
    settle(lab)
    lab.crash(2)
    lab.restart(2)
    assert len(lab.servers[2].applied) == 4
    lab.tick(1)
    settle(lab)
    assert lab.servers[2].applied == lab.servers[1].applied


def test_answers_to_what_was_never_sent_pass_no_barrier_and_commit_nothing() -> None:
    lab = group(3)
    elect(lab, 1)
    lab.step(1, Propose(b"a"))
    lab.step(1, ReadBarrier(1))
    for message in (Appended(1, 99, 1), Appended(1, 0, 99), AppendRejected(1, 99, 2, 1, 1)):
        effects = lab.step(1, Receive(2, message))
        assert not effects.barriers_passed and not effects.committed
    settle(lab)
    assert len(lab.servers[1].applied) == 2


@pytest.mark.parametrize(("position_generation", "kept"), [(2, [3, 4]), (3, [])])
def test_a_snapshot_leaves_only_entries_that_follow_its_own(position_generation: int, kept: list[int]) -> None:
    entries = tuple(Entry(position, generation, b"a") for position, generation in enumerate((1, 2, 2, 2), start=1))
    recovered = Recovered(encode_hard_state(2, None), CompactedThrough(0, 0), entries)
    replica = RAFT.build(ReplicaConfig(1, Configuration.make(1, dict.fromkeys((1, 2, 3), ""))), recovered, Random(1), 0)
    effects = replica.step(SnapshotArrived(2, 3, 2, position_generation, b""), 10)
    assert effects.install == InstallSnapshot(2, position_generation)
    records = DurableRecords(recovered)
    for record in effects.records:
        records.write(record)
    assert sorted(records.entries) == kept
    assert replica.status().last_position == (4 if kept else 2)
    # One that is no news installs nothing, but tells the leader where this server is.
    assert replica.step(SnapshotArrived(2, 3, 1, 1, b""), 10).install is None
    assert replica.step(SnapshotArrived(2, 2, 9, 2, b""), 10).install is None  # a stale leader's
