"""The replica's contract where no trace shows it: limits, bad messages, learners, one server alone, refusals."""

from __future__ import annotations

from random import Random

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
    Event,
    InstallSnapshot,
    Leadership,
    Message,
    PeerLost,
    Persisted,
    Propose,
    ReadBarrier,
    Receive,
    ReplicaConfig,
    Role,
    Send,
    SnapshotArrived,
)
from quorate.simulation.durable_records import DurableRecords
from tests.consensus.groups import NUMBERS, bear, elect, entries_of, events_of, group, settle
from tests.consensus.lab import InFlight

RAFT = PROTOCOLS["raft"]
ENTRIES = st.lists(entries_of(NUMBERS), max_size=3).map(tuple)
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
EVENTS = events_of(MESSAGES, NUMBERS)


@pytest.mark.parametrize("state", ["follower", "pre-candidate", "candidate", "leader"])
@given(events=st.lists(EVENTS, max_size=12))
def test_no_message_makes_a_server_raise(state: str, events: list[Event]) -> None:
    lab = group(RAFT, 3)
    if state != "follower":
        lab.tick(1)
    if state in ("candidate", "leader"):
        lab.step(1, Receive(2, Vote(1, True, True)))
    if state == "leader":
        settle(lab)
        lab.step(1, Propose(b"a"))
    assert lab.servers[1].running().status().words["state"] == state
    bear(lab, 1, events)


def test_messages_say_how_many_bytes_of_entries_they_carry() -> None:
    assert Append(1, 0, 0, 0, 0, (Entry(1, 1, b"abc"), Entry(2, 1, b"de"))).payload_bytes() == 5
    assert Commit(1, 1).payload_bytes() == 0


def test_a_probe_is_not_repeated_while_the_disk_before_it_is_slow() -> None:
    lab = group(RAFT, 3)
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
    lab = group(RAFT, 3)
    elect(lab, 1)
    lab.step(1, Propose(b"a"))
    settle(lab)
    lab.step(1, PeerLost(2))  # the probe stands just behind what it acknowledged
    assert not lab.step(1, Receive(2, AppendRejected(1, 1, 2, 1, 1))).messages
    assert lab.servers[1].running().status().peer_positions[2] == 2


@pytest.mark.parametrize("connection_lost", [True, False])
def test_a_peer_that_came_back_with_less_than_it_acknowledged_catches_up(connection_lost: bool) -> None:
    lab = group(RAFT, 3)
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


def test_a_server_follows_and_elects_whom_its_log_does_not_know() -> None:
    replica = group(RAFT, 3).servers[1].running()
    effects = replica.step(Receive(7, RequestVote(5, 3, 4, False)), 10)
    assert effects.messages_after_persist == [Send(7, Vote(5, True, False))]
    replica.step(Persisted(effects.ticket), 10)
    effects = replica.step(Receive(7, Append(5, 0, 0, 0, 1, (Entry(1, 5, b"a"),))), 10)
    assert effects.messages_after_persist == [Send(7, Appended(5, 1, 1))]
    assert replica.status().leader == 7


def test_a_vote_is_withheld_from_a_living_leaders_rival_unless_that_leader_sent_it() -> None:
    lab = group(RAFT, 3)
    elect(lab, 1)
    assert not lab.step(3, Receive(2, RequestVote(2, 1, 1, False))).ticket
    effects = lab.step(3, Receive(2, RequestVote(2, 1, 1, False, True)))
    assert effects.messages_after_persist == [Send(2, Vote(2, True, False))]


def test_votes_are_withheld_as_long_as_the_most_patient_waits() -> None:
    lab = group(RAFT, 3, heartbeat_interval_ms=80)
    elect(lab, 1)
    for _ in range(20):
        lab.tick(1)
        lab.now_ms += 60
        settle(lab)
    lab.now_ms += 1000
    # So that whoever knows less does not depose the leader.
    assert not lab.step(2, Receive(3, RequestVote(2, 9, 1, True))).messages


def test_a_learner_gives_its_vote_to_whoever_asks() -> None:
    lab = group(RAFT, 2, learners=(3,))
    elect(lab, 1)
    lab.now_ms += 5_000
    # It may vote by now, which it need not know itself.
    (granted,) = lab.step(3, Receive(1, RequestVote(9, 9, 8, False))).messages_after_persist
    assert granted == Send(1, Vote(9, True, False))


def test_a_learner_that_is_told_to_stand_does_not() -> None:
    lab = group(RAFT, 2, learners=(3,))
    elect(lab, 1)
    effects = lab.step(3, Receive(1, TimeoutNow(1)))
    assert effects.leadership is None and not effects.records
    assert lab.step(2, Receive(1, TimeoutNow(1))).leadership == Leadership(Role.CANDIDATE, None, 2)


def test_a_configuration_that_makes_no_sense_is_not_taken_over() -> None:
    lab = group(RAFT, 3)
    elect(lab, 1)
    for payload in (PREFIX, PREFIX + b"xyz", NO_CONFIGURATION.encode(), Configuration(2, {1: ""}, {1: ""}).encode()):
        effects = lab.step(2, Receive(1, Append(1, 1, 1, 1, 1, (Entry(2, 1, payload),))))
        assert not effects.records and not effects.messages
        assert lab.step(2, SnapshotArrived(1, 1, 5, 1, payload[:-1] + b"\xc1")).install is None


def test_answers_to_what_was_never_sent_pass_no_barrier_and_commit_nothing() -> None:
    lab = group(RAFT, 3)
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
