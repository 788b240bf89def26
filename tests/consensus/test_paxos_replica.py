"""Multi-Paxos' contract where no trace shows it: limits, bad messages, learners, flexible quorums, refusals."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.consensus.membership import NO_CONFIGURATION, Configuration
from quorate.consensus.paxos import PROTOCOL, flexible
from quorate.consensus.paxos.ballots import ballot_of, owner_of, round_of
from quorate.consensus.paxos.core import MARK_SLOTS
from quorate.consensus.paxos.hard_state import (
    HardState,
    InvalidHardState,
    decode_hard_state,
    encode_hard_state,
)
from quorate.consensus.paxos.messages import (
    Accept,
    Accepted,
    AcceptedValue,
    BarrierAnswer,
    BarrierRequest,
    Chosen,
    Missing,
    Prepare,
    PreVote,
    PreVoted,
    Promise,
    Rejected,
    TimeoutNow,
)
from quorate.consensus.paxos.slots import Slots
from quorate.consensus.records import CompactedThrough, Entry, Recovered, SaveEntry, SaveState
from quorate.consensus.replica import (
    ChangeMembers,
    Event,
    Persisted,
    Propose,
    ReadBarrier,
    Receive,
    Refusal,
    ReplicaConfig,
    Role,
    SnapshotArrived,
    Tick,
    TransferLeadership,
)
from tests.consensus.groups import LIMITS, bear, elect, entries_of, events_of, group, settle
from tests.consensus.lab import InFlight

B11, B12, B23 = ballot_of(1, 1), ballot_of(1, 2), ballot_of(2, 3)
NUMBERS = LIMITS | st.integers(-1, 6) | st.sampled_from([B11, B12, B23])
ENTRY = entries_of(NUMBERS)
ENTRIES = st.lists(ENTRY, max_size=3).map(tuple)
VALUES = st.lists(st.builds(AcceptedValue, ENTRY, NUMBERS), max_size=3).map(tuple)
MESSAGES = st.one_of(
    st.builds(PreVote, NUMBERS, NUMBERS),
    st.builds(PreVoted, NUMBERS, st.booleans()),
    st.builds(Prepare, NUMBERS, NUMBERS, st.booleans()),
    st.builds(Promise, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.booleans(), VALUES),
    st.builds(Rejected, NUMBERS, NUMBERS),
    st.builds(Accept, NUMBERS, NUMBERS, NUMBERS, NUMBERS, ENTRIES, NUMBERS),
    st.builds(Accepted, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(Missing, NUMBERS, NUMBERS, NUMBERS),
    st.builds(Chosen, NUMBERS, NUMBERS),
    st.builds(TimeoutNow, NUMBERS),
    st.builds(BarrierRequest, NUMBERS, NUMBERS, NUMBERS),
    st.builds(BarrierAnswer, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
)
EVENTS = events_of(MESSAGES, NUMBERS)


@pytest.mark.parametrize("state", ["follower", "pre-candidate", "candidate", "leader"])
@settings(deadline=None)
@given(events=st.lists(EVENTS, max_size=12))
def test_no_message_makes_a_server_raise(state: str, events: list[Event]) -> None:
    lab = group(PROTOCOL, 3)
    if state != "follower":
        lab.tick(1)
    if state in ("candidate", "leader"):
        lab.step(1, Receive(2, PreVoted(B11, True)))
    if state == "leader":
        settle(lab)
        lab.step(1, Propose(b"a"))
    assert lab.servers[1].running().status().words["state"] == state
    bear(lab, 1, events)


def test_messages_say_what_they_carry_and_whether_they_count() -> None:
    entries = (Entry(1, B11, b"abc"), Entry(2, B11, b"de"))
    assert Accept(B11, 2, 0, 0, entries).payload_bytes() == 5
    assert Chosen(B11, 1).payload_bytes() == 0
    assert Accepted(B11, 1, 1, 1).vouches() and Promise(B11, 0, 1, 0, True).vouches()
    assert not Accept(B11, 2, 0, 0, entries).vouches()
    assert TimeoutNow(B11).asks_to_lead() and not Chosen(B11, 1).asks_to_lead()


def test_ballots_are_ordered_by_round_and_belong_to_one_node() -> None:
    assert ballot_of(2, 1) > ballot_of(1, 999_999_999) > ballot_of(1, 0)
    assert (round_of(B23), owner_of(B23)) == (2, 3)


def test_what_was_accepted_behind_a_gap_is_not_sent_again() -> None:
    lab = group(PROTOCOL, 3)
    elect(lab, 1)
    lab.step(1, Propose(b"lost"))
    lab.network.clear()
    lab.step(1, Propose(b"kept"))
    sent: list[bytes] = []
    settle(lab, lambda flight: not isinstance(flight.message, Missing))
    assert lab.servers[1].running().status().commit_position == 1
    lab.send_watchers.append(
        lambda server, send: sent.extend(entry.payload for entry in getattr(send.message, "entries", ()))
    )
    lab.tick(1)
    settle(lab)
    assert sent == [b"lost", b"lost"]
    assert all(len(server.applied) == 3 for server in lab.servers.values())


def test_a_promise_that_tells_of_much_comes_in_parts() -> None:
    lab = group(PROTOCOL, 3, max_message_bytes=8)
    elect(lab, 1)
    for number in range(6):
        lab.step(1, Propose(b"%04d" % number))
    settle(lab, lambda flight: not isinstance(flight.message, Chosen | Accepted))
    lab.network.clear()
    lab.crash(1)
    parts: list[Promise] = []

    def note(flight: InFlight) -> bool:
        if isinstance(flight.message, Promise):
            parts.append(flight.message)
        return True

    lab.tick(2)
    settle(lab, note)
    assert [(part.first_position, part.last_position, part.complete) for part in parts] == [
        (2, 3, False),
        (4, 5, False),
        (6, 7, True),
    ]
    assert [entry.payload for entry in lab.servers[2].applied][1:7] == [b"%04d" % number for number in range(6)]


def test_a_promise_of_which_a_part_is_lost_does_not_count() -> None:
    lab = group(PROTOCOL, 3, max_message_bytes=8)
    elect(lab, 1)
    for number in range(6):
        lab.step(1, Propose(b"%04d" % number))
    settle(lab, lambda flight: not isinstance(flight.message, Chosen | Accepted))
    lab.crash(1)
    lab.tick(2)
    settle(lab, lambda flight: not isinstance(flight.message, Promise) or flight.message.first_position != 4)
    assert lab.servers[2].running().status().words["state"] == "candidate"


def test_what_an_acceptor_knows_to_be_chosen_outbids_every_ballot() -> None:
    """Found by exploration: it had forgotten under which ballot, so a later ballot's other value was proposed."""
    own = ballot_of(5, 1)
    voters = Configuration.make(1, {1: "", 2: "", 3: ""})
    replica = PROTOCOL.build(
        ReplicaConfig(1, voters),
        Recovered(PROTOCOL.state_at(own), CompactedThrough(0, 0), (Entry(1, own, b""),)),
        Random(1),
        0,
    )
    replica.step(Tick(), replica.deadline_ms())
    ballot = ballot_of(6, 1)
    ticket = replica.step(Receive(2, PreVoted(ballot, True)), 1000).ticket
    replica.step(Persisted(ticket), 1000)
    chosen = Entry(1, B12, b"")
    effects = replica.step(Receive(2, Promise(ballot, 1, 1, 1, True, (AcceptedValue(chosen, B12),))), 1000)
    assert effects.leadership is not None and effects.leadership.role is Role.LEADER
    assert SaveEntry(chosen) in effects.records


def test_a_restart_learns_little_of_what_was_chosen_anew() -> None:
    lab = group(PROTOCOL, 3)
    elect(lab, 1)
    for _ in range(MARK_SLOTS + 10):
        lab.step(1, Propose(b"a"))
        settle(lab)
    lab.crash(2)
    lab.restart(2)
    commit = lab.servers[2].running().status().commit_position
    assert MARK_SLOTS - 1 <= commit <= MARK_SLOTS + 11
    lab.step(2, Tick())
    lab.tick(1)
    settle(lab)
    assert lab.servers[2].applied == lab.servers[1].applied


def test_nothing_is_marked_as_chosen_by_a_snapshot_that_is_not_durable() -> None:
    lab = group(PROTOCOL, 3, max_tail_bytes=0)
    elect(lab, 1)
    settle(lab)
    effects = (
        lab.servers[3]
        .running()
        .step(SnapshotArrived(1, B11, 5, B11, Configuration.make(1, {1: "", 2: "", 3: ""}).encode()), lab.now_ms)
    )
    assert effects.install is not None
    # Of what comes next the first record alone may survive a crash.
    effects = lab.servers[3].running().step(Receive(2, Prepare(ballot_of(9, 2), 9, True)), lab.now_ms)
    (record,) = effects.records
    assert isinstance(record, SaveState) and decode_hard_state(record.data).chosen_position <= 1


def test_the_end_of_a_write_vouches_for_no_value_that_took_its_place() -> None:
    config = ReplicaConfig(3, Configuration.make(1, {1: "", 2: "", 3: ""}))
    replica = PROTOCOL.build(config, Recovered(), Random(1), 0)
    first = replica.step(Receive(1, Accept(B11, 1, 0, 1, (Entry(1, B11, b""),))), 0)
    second = replica.step(Receive(2, Accept(B12, 1, 1, 1, (Entry(1, B12, b""),))), 0)
    assert replica.step(Persisted(first.ticket), 0).committed == []
    assert replica.step(Persisted(second.ticket), 0).committed == [Entry(1, B12, b"")]


def test_a_learner_promises_to_whoever_asks() -> None:
    lab = group(PROTOCOL, 2, learners=(3,))
    elect(lab, 1)
    lab.now_ms += 5_000
    # It may vote by now, which it need not know itself.
    (promised,) = lab.step(3, Receive(1, Prepare(ballot_of(9, 1), 4))).messages_after_persist
    assert isinstance(promised.message, Promise)


def test_while_a_configuration_waits_for_what_is_open_nothing_else_begins() -> None:
    lab = group(PROTOCOL, 2, learners=(3,))
    elect(lab, 1)
    lab.step(1, Propose(b"under way"))
    change = ChangeMembers(Configuration.make(2, {1: ""}))
    assert lab.step(1, change).refused is None
    assert lab.step(1, change).refused is Refusal.CHANGE_UNDER_WAY
    assert lab.step(1, TransferLeadership(2)).refused is Refusal.CHANGE_UNDER_WAY
    settle(lab)
    assert lab.servers[1].running().settled_version() == 2


def test_with_flexible_quorums_two_of_five_choose_and_four_elect() -> None:
    lab = group(flexible(phase_1_size=4, phase_2_size=2), 5)
    elect(lab, 1)
    for node in (3, 4, 5):
        lab.crash(node)
    lab.step(1, Propose(b"a"))
    settle(lab)
    assert [entry.payload for entry in lab.servers[1].applied] == [b"", b"a"]
    lab.step(1, ReadBarrier(1))
    lab.crash(1)
    for node in (3, 4):
        lab.restart(node)
    lab.now_ms += 5_000
    lab.tick(2)
    settle(lab)
    assert lab.leaders() == []  # three of five would not meet every two
    lab.restart(5)
    lab.now_ms += 5_000
    lab.tick(3)
    settle(lab)
    assert lab.leaders() == [3]
    assert lab.servers[3].applied[1].payload == b"a"
    refused = lab.step(3, ChangeMembers(Configuration.make(2, {2: "", 3: "", 4: ""}))).refused
    assert refused is Refusal.UNSUPPORTED


def test_flexible_quorums_that_need_not_meet_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="must add up to more than 5"):
        group(flexible(phase_1_size=3, phase_2_size=2), 5)


def test_hard_state_is_read_back_and_nonsense_is_named() -> None:
    reaccepted = {(5, B11): B23, (6, B11): B23, (6, B12): B12 + 1, (9, B11): B23}
    data = encode_hard_state(B23, 4, reaccepted)
    assert decode_hard_state(data) == HardState(B23, 4, reaccepted)
    assert len(data) == len(encode_hard_state(B23, 4, {})) + 3 * 32  # 5 and 6 are one run
    assert decode_hard_state(None) == HardState()
    assert PROTOCOL.generation_of(PROTOCOL.state_at(B23)) == B23
    for nonsense in (b"", b"\x07" + data[1:], data[:-1]):
        with pytest.raises(InvalidHardState):
            decode_hard_state(nonsense)


def test_a_log_that_is_read_back_is_chosen_up_to_its_latest_configuration() -> None:
    configuration = Configuration.make(2, {1: "", 2: "", 3: ""})
    entries = (Entry(1, B11, b""), Entry(2, B11, b"a"), Entry(3, B11, configuration.encode()), Entry(5, B11, b"b"))
    config = ReplicaConfig(1, NO_CONFIGURATION)
    replica = PROTOCOL.build(config, Recovered(PROTOCOL.state_at(B11), CompactedThrough(0, 0), entries), Random(1), 0)
    status = replica.status()
    assert (status.commit_position, status.durable_position, status.last_position) == (2, 3, 5)
    assert replica.configuration() == configuration and replica.settled_version() == -1
    assert [entry.payload for entry in replica.step(Tick(), 0).committed] == [b"", b"a"]


def test_slots_have_holes_and_keep_what_lies_behind_a_snapshot() -> None:
    slots = Slots(0, 0, [Entry(1, B11, b"a"), Entry(3, B11, b"c"), Entry(4, B11, b"d")])
    assert slots.get(2) is None and slots.last_position == 4
    assert [entry.position for entry in slots.between(1, 4)] == [1, 3, 4]
    assert [entry.position for entry in slots.read(3, 9, 100)[0]] == [3, 4]
    assert slots.read(3, 9, 0) == ((Entry(3, B11, b"c"),), 1)
    slots.replace_through(3, 0)
    assert slots.base_position == 3 and slots.generation_at(3) == 0
    assert slots.get(4) == Entry(4, B11, b"d") and slots.last_position == 4
