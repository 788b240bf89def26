"""ZAB's side of the replica's contract where no trace shows it: limits, bad messages, promises, learners, refusals."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.membership import NO_CONFIGURATION, Configuration
from quorate.consensus.records import CompactedThrough, Entry, InvalidState, Recovered
from quorate.consensus.replica import (
    Event,
    InstallSnapshot,
    Leadership,
    NodeId,
    PeerLost,
    Persisted,
    Propose,
    ReadBarrier,
    Receive,
    ReplicaConfig,
    Role,
    Send,
    SnapshotArrived,
    Tick,
)
from quorate.consensus.zab import PROTOCOL
from quorate.consensus.zab.discovery import Discovery
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
from tests.consensus.groups import NUMBERS, bear, elect, entries_of, events_of, group, settle
from tests.consensus.lab import Lab
from tests.consensus.script import EvenlySpread, Script

ENTRIES = st.lists(entries_of(NUMBERS), max_size=3).map(tuple)
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
EVENTS = events_of(MESSAGES, NUMBERS)


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
        elect(lab, 3)
        lab.step(3, Propose(b"a"))
    assert lab.servers[3].running().status().words["state"] == state


STATES = ["waiting", "looking", "joining", "discovering", "synchronising", "following", "leading"]


@pytest.mark.parametrize("state", STATES)
@given(events=st.lists(EVENTS, max_size=12))
def test_no_message_makes_a_server_raise(state: str, events: list[Event]) -> None:
    lab = group(PROTOCOL, 3)
    prepare(lab, state)
    bear(lab, 3, events)


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


# --- promises and histories ----------------------------------------------------------------


def test_an_epoch_is_accepted_from_one_leader_and_answered_as_often_as_it_asks() -> None:
    lab = group(PROTOCOL, 3)
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


def test_votes_for_a_server_that_may_not_stand_any_more_do_not_make_it_stand() -> None:
    configuration = Configuration.make(1, dict.fromkeys((1, 2, 3), ""), {4: ""})
    server = PROTOCOL.build(ReplicaConfig(4, configuration), Recovered(), Random(1), 0)
    for sender in (1, 2, 3):
        server.step(Receive(sender, Notification(2, 7, Vote(2, 2, 9, 4), True)), 0)
    assert not isinstance(server._role, Discovery)  # type: ignore[attr-defined]
    assert server.status().leader is None


def test_who_stands_aside_is_behind_everybody_whatever_its_history() -> None:
    """Where the better history may go first, the other servers may be without a leader for minutes."""
    assert Vote(9, 9, 9, 5, aside=True) < Vote(0, 0, 0, 1)
    assert Vote(9, 9, 9, 1, aside=True) > Vote(9, 9, 8, 5, aside=True)


class Drawn(EvenlySpread):
    """Election timeouts as chance has it."""

    def __init__(self, node: NodeId, nodes: int) -> None:
        super().__init__(node, nodes)
        self.randrange = Random(f"timeouts of {node}").randrange  # type: ignore[method-assign]


def test_who_reach_one_another_find_a_leader_though_a_better_history_reaches_only_one_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1, 2 and 3 are a majority of five.  4 has one entry more, and 3 tells 1 and 2 of its vote."""
    monkeypatch.setattr("tests.consensus.script.EvenlySpread", Drawn)
    script = Script(PROTOCOL, PROTOCOL.state_at)
    for command in (
        *("start 5", "tick 5", "settle", "propose 5 a", "settle"),
        *("partition 4 | 1,2", "run 2000", "propose 5 b"),
        *("drop 5->1", "drop 5->2", "drop 5->3", "deliver 5->4", "persist 4", "crash 5"),
        *("lost 3 5", "lost 4 5", "deliver 4->3", "lost 1 5", "lost 2 5", "settle"),
    ):
        script.command(f"quietly {command}")
    lab = script.lab
    assert lab is not None
    began_ms = lab.now_ms
    while not {1, 2, 3} & set(lab.leaders()):
        assert lab.now_ms < began_ms + 5_000
        script.command("quietly run 100")


def test_a_better_history_that_is_not_needed_for_a_quorum_is_left_out_of_account() -> None:
    configuration = Configuration.make(1, dict.fromkeys((1, 2, 3, 4, 5), ""))
    core = PROTOCOL.build(ReplicaConfig(3, configuration), Recovered(), Random(1), 0)._core  # type: ignore[attr-defined]
    discovery = Discovery(core, core.own_vote())
    for follower in (1, 2, 4):
        discovery.receive_info(follower, FollowerInfo(0, 0))
    ticket = core.finish().ticket
    core.persisted(ticket)
    assert discovery.receive_ack(4, AckEpoch(1, 1, 1, 5))
    assert discovery.receive_ack(1, AckEpoch(1, 0, 0, 0)) and not discovery.is_complete()
    assert discovery.receive_ack(2, AckEpoch(1, 0, 0, 0)) and discovery.is_complete()
    # Of three that have a better one, one must be in any quorum.
    assert discovery.receive_ack(5, AckEpoch(1, 1, 1, 5))
    assert not discovery.receive_ack(1, AckEpoch(1, 1, 1, 5))


def test_a_promise_outlives_a_crash() -> None:
    config = ReplicaConfig(1, Configuration.make(1, dict.fromkeys((1, 2, 3), "")))
    server = PROTOCOL.build(config, Recovered(encode_hard_state(HardState(5, 2, 3))), Random(1), 0)
    assert server.step(Receive(3, Leading(5)), 0).messages == [Send(3, FollowerInfo(5, 2))]
    assert server.step(Receive(3, NewEpoch(5, False)), 0).messages == [Send(3, FollowerInfo(5, 2))]
    assert server.step(Receive(3, Ping(4, 1, 0, 0, 0)), 0).messages == [Send(3, FollowerInfo(5, 2))]
    assert server.status().generation == 5


def test_nobody_but_the_chosen_leader_is_promised_anything() -> None:
    lab = group(PROTOCOL, 3)
    elect(lab, leader := 3)
    assert not lab.step(1, Receive(2, NewEpoch(9, False))).records
    assert not lab.step(1, Receive(leader, NewEpoch(9, False))).records  # of a discovery that is not this server's


def test_better_histories_without_which_there_is_no_quorum_end_a_discovery() -> None:
    lab = group(PROTOCOL, 3)
    prepare(lab, "discovering")
    lab.step(3, Receive(2, FollowerInfo(6, -1)))
    lab.persist(3)
    assert lab.servers[3].running().status().generation == 7  # beyond what a quorum has accepted
    lab.step(3, Receive(2, AckEpoch(7, 1, 1, 1)))
    assert lab.servers[3].running().status().words["state"] == "discovering"  # with 1 there would be a quorum
    effects = lab.step(3, Receive(1, AckEpoch(7, 1, 1, 1)))
    assert lab.servers[3].running().status().words["state"] == "looking"
    assert effects.leadership is None  # it leads nobody still
    prepare(lab := group(PROTOCOL, 3), "discovering")
    lab.step(3, Receive(2, FollowerInfo(6, -1)))
    lab.persist(3)
    assert lab.step(3, Receive(2, AckEpoch(7, 0, 0, 0))).leadership == Leadership(Role.LEADER, 3, 7)


def test_a_truncation_that_comes_late_cuts_nothing() -> None:
    lab = group(PROTOCOL, 3)
    prepare(lab, "following")
    lab.step(3, Receive(2, ProposeMessage(2, 1, 2, 2, 0, (Entry(3, 2, b"a"),))))
    assert not lab.step(3, Receive(2, Truncate(2, 1, 1, 1))).records
    assert lab.servers[3].running().status().last_position == 3
    # While the history is incomplete it cuts; and where the histories differ there too, says so.
    lab = group(PROTOCOL, 3)
    prepare(lab, "synchronising")
    assert lab.step(3, Receive(2, Truncate(2, 1, 0, 0))).records
    assert lab.servers[3].running().status().last_position == 0


def test_entries_of_an_epoch_count_only_behind_its_opening_entry() -> None:
    lab = group(PROTOCOL, 3)
    prepare(lab, "synchronising")
    skips = lab.step(3, Receive(2, ProposeMessage(2, 1, 2, 2, 9, (Entry(3, 2, b"a"),))))
    assert [send.message for send in skips.messages_after_persist] == [OutOfSync(2, 1, 2, 1, 1)]
    # Nor is it told what is committed before it has accepted the whole.
    lab.step(3, Receive(2, Ping(2, 1, 1, 1, 1)))
    lab.step(3, Receive(2, UpToDate(2, 1)))
    assert lab.servers[3].running().status().commit_position == 0


def test_a_leader_of_the_past_is_told_and_looks_again() -> None:
    lab = group(PROTOCOL, 3)
    elect(lab, leader := 3)
    effects = lab.step(leader, Receive(1, FollowerInfo(8, 2)))
    assert effects.leadership == Leadership(Role.CANDIDATE, None, 1)
    assert not lab.step(2, Receive(1, FollowerInfo(8, 2))).leadership
    settle(lab)
    assert lab.servers[lab.leaders()[0]].running().status().generation == 9
    # One that is no member has nothing to say.
    assert lab.step(lab.leaders()[0], Receive(7, FollowerInfo(99, 2))).leadership is None


# --- members ---------------------------------------------------------------------------------


def test_a_learner_observes_and_votes_for_whoever_is_best() -> None:
    lab = group(PROTOCOL, 2, learners=(3,))
    elect(lab, 2)
    assert lab.servers[3].running().status().words["state"] == "observing"
    lab.now_ms += 5_000
    lab.step(3, Tick())
    # Whoever asks for its vote may know that it votes by now, which it need not know itself.
    best = Vote(9, 9, 9, 1)
    assert Send(1, Notification(1, 4, best, True)) in lab.step(3, Receive(1, Notification(1, 4, best, True))).messages


def test_whoever_is_called_by_no_successor_stays_with_its_leader() -> None:
    lab = group(PROTOCOL, 3)
    elect(lab, 3)
    assert lab.step(3, Receive(2, TakeOver(1))).leadership is None  # a leader knows to whom it hands over
    assert lab.step(1, Receive(2, TakeOver(7))).leadership is None
    assert lab.step(1, Receive(2, HandOver(1))).leadership is None  # and 2 leads nobody
    assert lab.step(1, Receive(2, TakeOver(1))).leadership == Leadership(Role.FOLLOWER, None, 1)


# --- barriers and snapshots --------------------------------------------------------------------


def test_answers_to_what_was_never_sent_pass_no_barrier_and_commit_nothing() -> None:
    lab = group(PROTOCOL, 3)
    elect(lab, 3)
    lab.step(3, Propose(b"a"))
    lab.step(3, ReadBarrier(1))
    for message in (Ack(1, 99, 1), Ack(1, 0, 99), OutOfSync(1, 99, 2, 1, 1), Ack(0, 2, 2)):
        effects = lab.step(3, Receive(2, message))
        assert not effects.barriers_passed and not effects.committed
    settle(lab)
    assert len(lab.servers[3].applied) == 2


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


def test_a_later_member_learns_from_a_snapshot_who_decided_before_its_log_began() -> None:
    """Also where it has every entry already: who the first members were stands in no log."""
    decides = Configuration.make(1, {1: ""})
    recovered = Recovered(PROTOCOL.state_at(1), entries=(Entry(1, 1, b""), Entry(2, 1, b"a")))
    server = PROTOCOL.build(ReplicaConfig(2, NO_CONFIGURATION), recovered, Random(1), 0)
    server.step(Receive(1, Ping(1, 1, 0, 0, 0)), 0)
    effects = server.step(SnapshotArrived(1, 1, 2, 1, decides.encode()), 0)
    assert effects.install is not None
    assert server.configuration() == decides
