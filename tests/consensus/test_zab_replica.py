"""ZAB's side of the replica's contract where no trace shows it: limits, bad messages, promises, learners, refusals."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.membership import NO_CONFIGURATION, PREFIX, Configuration
from quorate.consensus.records import CompactedThrough, Entry, InvalidState, Recovered
from quorate.consensus.replica import (
    ChangeMembers,
    Event,
    InstallSnapshot,
    Leadership,
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
from quorate.consensus.zab import PROTOCOL
from quorate.consensus.zab.hard_state import HardState, decode_hard_state, encode_hard_state
from quorate.consensus.zab.messages import (
    Ack,
    AckEpoch,
    AckLeader,
    BarrierAnswer,
    BarrierRequest,
    Commit,
    Diff,
    FollowerInfo,
    HandOver,
    Leading,
    NewEpoch,
    NewLeader,
    Notification,
    OutOfSync,
    Ping,
    TakeOver,
    Truncate,
    UpToDate,
    Vote,
)
from quorate.consensus.zab.messages import (
    Propose as ProposeMessage,
)
from quorate.simulation.durable_records import DurableRecords
from tests.consensus.lab import InFlight, Lab

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
VOTES = st.builds(Vote, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
MESSAGES = st.one_of(
    st.builds(Notification, NUMBERS, NUMBERS, VOTES, st.booleans()),
    st.builds(Leading, NUMBERS),
    st.builds(FollowerInfo, NUMBERS, NUMBERS),
    st.builds(NewEpoch, NUMBERS, st.booleans()),
    st.builds(AckEpoch, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(Truncate, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(Diff, NUMBERS, NUMBERS, NUMBERS, NUMBERS, ENTRIES),
    st.builds(NewLeader, NUMBERS, NUMBERS, NUMBERS, NUMBERS, ENTRIES),
    st.builds(ProposeMessage, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, ENTRIES),
    st.builds(Ping, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(UpToDate, NUMBERS, NUMBERS),
    st.builds(Commit, NUMBERS, NUMBERS),
    st.builds(Ack, NUMBERS, NUMBERS, NUMBERS),
    st.builds(AckLeader, NUMBERS, NUMBERS, NUMBERS),
    st.builds(OutOfSync, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(HandOver, NUMBERS),
    st.builds(TakeOver, NUMBERS),
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
    return Lab(PROTOCOL, configs, Random)


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


def elect(lab: Lab) -> int:
    """All histories are equal, so the voter with the highest id."""
    leader = max(lab.servers[1].config.initial.voters)
    lab.tick(leader)
    settle(lab)
    assert lab.leaders() == [leader]
    return leader


def prepare(lab: Lab, state: str) -> None:
    """Bring server 3 of three there."""
    if state in ("looking", "discovering"):
        lab.tick(3)
    if state == "discovering":
        lab.step(3, Receive(2, Notification(0, 1, Vote(0, 0, 0, 3), True)))
    if state == "joining":
        lab.step(3, Receive(2, Leading(0)))
    if state in ("synchronising", "following"):
        lab.step(3, Receive(2, Leading(2)))
        lab.step(3, Receive(2, NewEpoch(2, False)))
        lab.step(3, Receive(2, Diff(2, 1, 0, 0, (Entry(1, 1, b""),))))
    if state == "following":
        lab.step(3, Receive(2, NewLeader(2, 1, 1, 1, (Entry(2, 2, b""),))))
    if state == "leading":
        elect(lab)
        lab.step(3, Propose(b"a"))
    assert lab.servers[3].running().status().words["state"] == state


STATES = ["waiting", "looking", "joining", "discovering", "synchronising", "following", "leading"]


@pytest.mark.parametrize("state", STATES)
@given(events=st.lists(EVENTS, max_size=12))
def test_no_message_makes_a_server_raise(state: str, events: list[Event]) -> None:
    lab = group(3)
    prepare(lab, state)
    replica = lab.servers[3].running()
    for event in events:
        effects = replica.step(event, lab.now_ms + 30)
        for send in (*effects.messages, *effects.messages_after_persist):
            decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(send.message), type=PROTOCOL.message_type)
            assert decoded == send.message
        replica.status()


@given(st.integers(0, 1 << 63), st.none() | st.integers(0, 1 << 62), st.integers(0, 1 << 63))
def test_hard_state_comes_back(accepted: int, promised_to: int | None, current: int) -> None:
    state = HardState(max(accepted, current), promised_to, min(accepted, current))
    assert decode_hard_state(encode_hard_state(state)) == state
    assert PROTOCOL.generation_of(encode_hard_state(state)) == state.accepted_epoch
    assert PROTOCOL.generation_of(PROTOCOL.state_at(accepted)) == accepted


@pytest.mark.parametrize(
    "data", [b"", b"\x01", encode_hard_state(HardState(1, 1, 1)) + b"\0", b"\x02" + bytes(24), bytes(25)]
)
def test_damaged_hard_state_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidState):
        PROTOCOL.generation_of(data)
    with pytest.raises(InvalidState, match="current epoch 2 above accepted 1"):
        decode_hard_state(encode_hard_state(HardState(1, 1, 2)))


def test_messages_say_how_many_bytes_of_entries_they_carry() -> None:
    assert ProposeMessage(1, 0, 1, 1, 0, (Entry(2, 1, b"abc"), Entry(3, 1, b"de"))).payload_bytes() == 5
    assert Diff(2, 0, 0, 0, (Entry(1, 1, b"abc"),)).payload_bytes() == 3
    assert Commit(1, 1).payload_bytes() == 0


def test_a_server_alone_leads_commits_and_reads_by_itself() -> None:
    lab = group(1)
    elect(lab)
    lab.step(1, Propose(b"a"))
    assert [barrier.position for barrier in lab.step(1, ReadBarrier(1)).barriers_passed] == [1]
    settle(lab)
    assert [entry.payload for entry in lab.servers[1].applied] == [b"", b"a"]
    assert [barrier.position for barrier in lab.step(1, ReadBarrier(2)).barriers_passed] == [2]
    assert lab.servers[1].running().quorum_contact_ms() == lab.now_ms


# --- promises and histories ----------------------------------------------------------------


def test_an_epoch_is_accepted_from_one_leader_and_answered_as_often_as_it_asks() -> None:
    lab = group(3)
    server = lab.servers[1].running()
    server.step(Receive(2, Leading(0)), 0)
    accepted = server.step(Receive(2, NewEpoch(5, False)), 0)
    assert accepted.messages_after_persist == [Send(2, AckEpoch(5, 0, 0, 0))]
    server.step(Persisted(accepted.ticket), 0)
    assert server.step(Receive(2, NewEpoch(5, False)), 0).messages == [Send(2, AckEpoch(5, 0, 0, 0))]
    # Another that found the same number is told whose it is; and the one before is over.
    server.step(PeerLost(2), 0)
    server.step(Receive(3, Leading(5)), 0)
    assert server.step(Receive(3, NewEpoch(5, False)), 0).messages == [Send(3, FollowerInfo(5, 2))]
    assert server.step(Receive(3, NewEpoch(4, True)), 0).messages == [Send(3, FollowerInfo(5, 2))]
    # But if it is established in that epoch, a quorum accepted it from him, and 2 cannot find one any more.
    assert server.step(Receive(3, NewEpoch(5, True)), 0).messages == [Send(3, AckEpoch(5, 0, 0, 0))]


def test_a_promise_outlives_a_crash() -> None:
    config = ReplicaConfig(1, Configuration.make(1, dict.fromkeys((1, 2, 3), "")))
    server = PROTOCOL.build(config, Recovered(encode_hard_state(HardState(5, 2, 3))), Random(1), 0)
    assert server.step(Receive(3, Leading(5)), 0).messages == [Send(3, FollowerInfo(5, 2))]
    assert server.step(Receive(3, NewEpoch(5, False)), 0).messages == [Send(3, FollowerInfo(5, 2))]
    assert server.step(Receive(3, Ping(4, 1, 0, 0, 0)), 0).messages == [Send(3, FollowerInfo(5, 2))]
    assert server.status().generation == 5


def test_nobody_but_the_chosen_leader_is_promised_anything() -> None:
    lab = group(3)
    leader = elect(lab)
    assert not lab.step(1, Receive(2, NewEpoch(9, False))).records
    assert not lab.step(1, Receive(leader, NewEpoch(9, False))).records  # of a discovery that is not this server's


def test_a_better_history_ends_a_discovery() -> None:
    lab = group(3)
    prepare(lab, "discovering")
    lab.step(3, Receive(2, FollowerInfo(6, -1)))
    lab.persist(3)
    assert lab.servers[3].running().status().generation == 7  # beyond what a quorum has accepted
    effects = lab.step(3, Receive(2, AckEpoch(7, 1, 1, 1)))
    assert lab.servers[3].running().status().words["state"] == "looking"
    assert effects.leadership is None  # it leads nobody still
    prepare(lab := group(3), "discovering")
    lab.step(3, Receive(2, FollowerInfo(6, -1)))
    lab.persist(3)
    assert lab.step(3, Receive(2, AckEpoch(7, 0, 0, 0))).leadership == Leadership(Role.LEADER, 3, 7)


def test_a_truncation_that_comes_late_cuts_nothing() -> None:
    lab = group(3)
    prepare(lab, "following")
    lab.step(3, Receive(2, ProposeMessage(2, 1, 2, 2, 0, (Entry(3, 2, b"a"),))))
    assert not lab.step(3, Receive(2, Truncate(2, 1, 1, 1))).records
    assert lab.servers[3].running().status().last_position == 3
    # While the history is incomplete it cuts; and where the histories differ there too, says so.
    lab = group(3)
    prepare(lab, "synchronising")
    assert lab.step(3, Receive(2, Truncate(2, 1, 0, 0))).records
    assert lab.servers[3].running().status().last_position == 0


def test_entries_of_an_epoch_count_only_behind_its_opening_entry() -> None:
    lab = group(3)
    prepare(lab, "synchronising")
    skips = lab.step(3, Receive(2, ProposeMessage(2, 1, 2, 2, 9, (Entry(3, 2, b"a"),))))
    assert [send.message for send in skips.messages_after_persist] == [OutOfSync(2, 1, 2, 1, 1)]
    # Nor is it told what is committed before it has accepted the whole.
    lab.step(3, Receive(2, Ping(2, 1, 1, 1, 1)))
    lab.step(3, Receive(2, UpToDate(2, 1)))
    assert lab.servers[3].running().status().commit_position == 0


def test_a_leader_of_the_past_is_told_and_looks_again() -> None:
    lab = group(3)
    leader = elect(lab)
    effects = lab.step(leader, Receive(1, FollowerInfo(8, 2)))
    assert effects.leadership == Leadership(Role.CANDIDATE, None, 1)
    assert not lab.step(2, Receive(1, FollowerInfo(8, 2))).leadership
    settle(lab)
    assert lab.servers[lab.leaders()[0]].running().status().generation == 9
    # One that is no member has nothing to say.
    assert lab.step(lab.leaders()[0], Receive(7, FollowerInfo(99, 2))).leadership is None


# --- limits ----------------------------------------------------------------------------------


def test_proposals_are_refused_without_a_ready_leader_and_above_the_limit() -> None:
    lab = group(3, max_uncommitted_bytes=10)
    assert lab.step(3, Propose(b"a")).refused is Refusal.NOT_LEADER
    elect(lab)
    assert lab.step(3, Propose(bytes(50))).refused is None  # one alone may be larger than the limit
    assert lab.step(3, Propose(b"a")).refused is Refusal.OVERLOADED
    assert lab.servers[3].running().uncommitted_bytes() == 50
    settle(lab)
    assert lab.servers[3].running().uncommitted_bytes() == 0
    assert lab.step(3, Propose(b"a")).refused is None
    assert lab.step(2, Propose(b"a")).refused is Refusal.NOT_LEADER


def test_bytes_in_flight_are_bounded_and_messages_are_cut() -> None:
    lab = group(3, max_bytes_in_flight=10, max_message_bytes=4)
    elect(lab)
    for _ in range(20):
        lab.step(3, Propose(b"ab"))
    sent = [flight.message for flight in lab.network if flight.to == 2]
    assert sum(message.payload_bytes() for message in sent) == 10
    sizes: list[int] = []
    lab.send_watchers.append(lambda server, send: sizes.append(send.message.payload_bytes()))
    settle(lab)
    assert max(sizes) == 4
    assert all(len(server.applied) == 21 for server in lab.servers.values())


def test_a_peer_that_drops_entries_is_sent_one_entry_a_heartbeat() -> None:
    lab = group(3, max_bytes_in_flight=64, max_message_bytes=16)
    elect(lab)
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
    settle(lab, accepts)  # the ping shows it, and the first probe is lost
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


@pytest.mark.parametrize("connection_lost", [True, False])
def test_a_follower_that_came_back_with_less_than_it_acknowledged_catches_up(connection_lost: bool) -> None:
    lab = group(3)
    elect(lab)
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


# --- members ---------------------------------------------------------------------------------


def test_a_learner_gets_everything_and_decides_nothing() -> None:
    lab = group(2, learners=(3,))
    elect(lab)
    lab.step(2, Propose(b"a"))
    settle(lab)
    assert [entry.payload for entry in lab.servers[3].applied] == [b"", b"a"]
    assert lab.servers[3].running().status().words["state"] == "observing"
    # Without the other voter the learner's acknowledgement commits nothing.
    lab.crash(1)
    lab.step(2, Propose(b"b"))
    settle(lab)
    assert len(lab.servers[2].applied) == 2
    lab.now_ms += 5_000
    effects = lab.step(3, Tick())
    learner = lab.servers[3].running()
    assert learner.status().role is Role.LEARNER and not effects.messages
    assert learner.deadline_ms() > lab.now_ms
    # Whoever asks for its vote may know that it votes by now, which it need not know itself.
    best = Vote(9, 9, 9, 1)
    assert Send(1, Notification(1, 4, best, True)) in lab.step(3, Receive(1, Notification(1, 4, best, True))).messages


def test_changes_and_transfers_that_lead_nowhere_are_refused() -> None:
    lab = group(2, learners=(3,))
    change = ChangeMembers(Configuration.make(2, {2: ""}))
    assert lab.step(2, change).refused is Refusal.NOT_LEADER
    assert lab.step(2, TransferLeadership(1)).refused is Refusal.NOT_LEADER
    elect(lab)
    assert lab.step(1, change).refused is Refusal.NOT_LEADER
    for nonsense in (
        Configuration.make(2, {}, {1: "", 2: ""}),  # nobody would vote
        Configuration.make(2, {1: "wiped", 2: ""}),  # it must stop voting in between
        Configuration.make(2, {1: ""}, {}, {1: "", 2: ""}),
    ):
        assert lab.step(2, ChangeMembers(nonsense)).refused is Refusal.UNSUPPORTED
    assert lab.step(2, ChangeMembers(Configuration.make(1, {1: ""}))).refused is Refusal.OUTDATED
    for node in (2, 3, 9):
        assert lab.step(2, TransferLeadership(node)).refused is Refusal.NOT_A_VOTER
    assert lab.servers[2].running().status().last_position == 1
    assert lab.step(2, change).refused is None
    assert lab.step(2, change).refused is Refusal.CHANGE_UNDER_WAY
    settle(lab)
    assert lab.servers[2].running().settled_version() == 2
    assert lab.step(2, TransferLeadership()).refused is Refusal.NOT_A_VOTER  # there is no other


def test_a_leader_that_is_out_of_the_voters_can_be_asked_to_vote_again() -> None:
    lab = group(2)
    assert elect(lab) == 2
    lab.step(2, ChangeMembers(Configuration.make(2, {1: ""}, {2: ""})))
    settle(lab, lambda flight: not isinstance(flight.message, HandOver))
    leader = lab.servers[2].running()
    assert leader.settled_version() == 2 and leader.status().successor == 1
    assert lab.step(2, TransferLeadership(avoid=(1,))).refused is Refusal.NOT_A_VOTER  # it stays
    assert lab.step(2, ChangeMembers(Configuration.make(3, {1: "", 2: ""}))).refused is None
    settle(lab)
    assert leader.configuration().voters == {1: "", 2: ""}


def test_a_leader_that_is_out_of_the_voters_does_not_stand_for_its_next_incarnation() -> None:
    lab = group(3)
    assert elect(lab) == 3
    lab.step(3, ChangeMembers(Configuration.make(2, {1: "", 2: ""}, {3: ""})))
    settle(lab, lambda flight: not isinstance(flight.message, HandOver))
    lab.step(3, TransferLeadership(avoid=(1, 2)))
    replaced = ChangeMembers(Configuration.make(3, {3: "another folder", 2: "", 1: ""}))
    assert lab.step(3, replaced).refused is None  # a learner first
    settle(lab, lambda flight: not isinstance(flight.message, HandOver))
    lab.step(3, TransferLeadership(avoid=(1, 2)))
    assert lab.step(3, replaced).refused is Refusal.NOT_CAUGHT_UP


def test_a_hand_over_goes_to_another_where_its_target_leaves() -> None:
    lab = group(3)
    elect(lab)
    leader = lab.servers[3].running()
    assert leader.status().successor is None
    assert lab.step(3, TransferLeadership(avoid=(2,))).messages == [Send(1, HandOver(1))]
    assert leader.status().successor == 1
    assert lab.step(3, TransferLeadership(avoid=(2,))).refused is Refusal.TRANSFERRING
    assert lab.step(3, TransferLeadership(avoid=(1,))).messages == [Send(2, HandOver(1))]
    assert lab.step(3, TransferLeadership(avoid=(1, 2))).refused is Refusal.NOT_A_VOTER
    assert leader.status().successor is None
    assert lab.step(3, Propose(b"goes on")).refused is None


def test_whoever_is_called_by_no_successor_stays_with_its_leader() -> None:
    lab = group(3)
    elect(lab)
    assert lab.step(3, Receive(2, TakeOver(1))).leadership is None  # a leader knows to whom it hands over
    assert lab.step(1, Receive(2, TakeOver(7))).leadership is None
    assert lab.step(1, Receive(2, HandOver(1))).leadership is None  # and 2 leads nobody
    assert lab.step(1, Receive(2, TakeOver(1))).leadership == Leadership(Role.FOLLOWER, None, 1)


def test_slow_round_trips_make_everybody_more_patient() -> None:
    lab = group(3, heartbeat_interval_ms=80)
    elect(lab)
    for _ in range(20):
        lab.tick(3)
        lab.now_ms += 60
        settle(lab)
    for server in lab.servers.values():
        patience_ms = server.running().status().words["election_timeout_ms"]
        assert isinstance(patience_ms, int) and 1100 <= patience_ms <= 1200


# --- barriers and snapshots --------------------------------------------------------------------


def test_answers_to_what_was_never_sent_pass_no_barrier_and_commit_nothing() -> None:
    lab = group(3)
    elect(lab)
    lab.step(3, Propose(b"a"))
    lab.step(3, ReadBarrier(1))
    for message in (Ack(1, 99, 1), Ack(1, 0, 99), OutOfSync(1, 99, 2, 1, 1), Ack(0, 2, 2)):
        effects = lab.step(3, Receive(2, message))
        assert not effects.barriers_passed and not effects.committed
    settle(lab)
    assert len(lab.servers[3].applied) == 2


def test_quorum_contact_is_when_the_answered_round_was_sent() -> None:
    lab = group(3)
    assert lab.servers[3].running().quorum_contact_ms() is None
    elect(lab)
    elected_ms = lab.now_ms
    lab.tick(3)
    sent_ms = lab.now_ms
    assert sent_ms > elected_ms
    lab.now_ms += 30
    assert lab.servers[3].running().quorum_contact_ms() == elected_ms
    settle(lab)
    assert lab.servers[3].running().quorum_contact_ms() == sent_ms


@pytest.mark.parametrize(("position_generation", "kept"), [(2, [3, 4]), (3, [])])
def test_a_snapshot_leaves_only_entries_that_follow_its_own(position_generation: int, kept: list[int]) -> None:
    entries = tuple(Entry(position, generation, b"a") for position, generation in enumerate((1, 2, 2, 2), start=1))
    recovered = Recovered(encode_hard_state(HardState(3, 2, 2)), CompactedThrough(0, 0), entries)
    config = ReplicaConfig(1, Configuration.make(1, dict.fromkeys((1, 2, 3), "")))
    replica = PROTOCOL.build(config, recovered, Random(1), 0)
    effects = replica.step(SnapshotArrived(2, 3, 2, position_generation, b""), 10)
    assert effects.install == InstallSnapshot(2, position_generation)
    records = DurableRecords(recovered)
    for record in effects.records:
        records.write(record)
    assert sorted(records.entries) == kept
    assert replica.status().last_position == (4 if kept else 2)
    # One that reaches into the epoch that was accepted brings all of its initial history.
    assert replica.status().words["current_epoch"] == position_generation
    # One that is no news installs nothing, but tells the leader where this server is.
    again = replica.step(SnapshotArrived(2, 3, 1, 1, b""), 10)
    assert again.install is None and [send.to for send in again.messages + again.messages_after_persist] == [2]
    assert replica.step(SnapshotArrived(2, 2, 9, 2, b""), 10).install is None  # a leader's of the past
    assert replica.step(SnapshotArrived(2, 4, 9, 2, b""), 10).install is None  # of an epoch that was not accepted
