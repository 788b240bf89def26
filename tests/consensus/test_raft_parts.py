"""The parts of Raft that can be told wrong by themselves: log, progress, hard state, barriers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.barriers import Barrier, ForwardedBarriers, Rounds
from quorate.consensus.configurations import (
    Configurations,
    after_joint,
    incarnation_of,
    is_possible,
    recover_configurations,
    towards,
    with_learners,
)
from quorate.consensus.log import Log
from quorate.consensus.membership import PREFIX, Configuration
from quorate.consensus.progress import Flow, LogProgress
from quorate.consensus.raft.hard_state import InvalidHardState, decode_hard_state, encode_hard_state
from quorate.consensus.records import CompactedThrough, Entry, InvalidState, Recovered
from quorate.consensus.timing import Timing

TERMS = st.lists(st.integers(1, 5), max_size=12).map(sorted)


def log_of(terms: list[int], base_position: int = 0, base_term: int = 0) -> Log:
    return Log(base_position, base_term, [Entry(base_position + i, t, bytes(i)) for i, t in enumerate(terms, start=1)])


@given(TERMS, st.integers(0, 14), st.integers(0, 6))
def test_the_hint_is_the_last_place_with_a_term_that_is_not_higher(terms: list[int], position: int, term: int) -> None:
    log = log_of(terms)
    expected = max([p for p, t in enumerate(terms, start=1) if p <= position and t <= term], default=0)
    assert log.last_position_at_or_before(position, term) == expected


@given(TERMS, st.integers(0, 12), st.integers(0, 80))
def test_compaction_keeps_what_follows_and_at_most_so_many_bytes_before(
    terms: list[int], position: int, keep_bytes: int
) -> None:
    position = min(position, len(terms))
    log = log_of(terms)
    log.compact(position, keep_bytes)
    assert log.base_position <= position and log.last_position == len(terms)
    kept = log.between(log.base_position + 1, position) if log.base_position < position else []
    assert sum(len(entry.payload) for entry in kept) <= keep_bytes
    assert log.generation_at(log.base_position) == ([0, *terms][log.base_position])
    assert log.generation_at(log.base_position - 1) is None
    for p in range(log.base_position + 1, len(terms) + 1):
        assert log.generation_at(p) == terms[p - 1]


def test_reading_stops_at_the_bound_but_gives_at_least_one_entry() -> None:
    log = log_of([1, 1, 1, 1], base_position=10, base_term=1)  # payloads of 1 ... 4 bytes
    assert [e.position for e in log.read(11, 3)[0]] == [11, 12]
    assert log.read(14, 1) == ((Entry(14, 1, bytes(4)),), 4)
    assert log.read(15, 100) == ((), 0)


def test_truncation_brings_the_last_term_back() -> None:
    log = log_of([1, 2, 2, 5], base_position=10, base_term=1)
    log.truncate_from(12)
    assert (log.last_position, log.last_generation, log.generation_at(12)) == (11, 1, None)
    log.truncate_from(11)
    assert (log.last_position, log.last_generation) == (10, 1)


def test_a_gap_and_a_falling_term_are_bugs() -> None:
    log = log_of([1, 2])
    with pytest.raises(AssertionError, match="gap"):
        log.append(Entry(4, 2, b""))
    with pytest.raises(AssertionError, match="generation fell"):
        log.append(Entry(3, 1, b""))


def test_old_acknowledgements_move_nothing_back() -> None:
    progress = LogProgress(peer=2, next_position=1, max_bytes_in_flight=100)
    assert progress.acknowledged(0, newest_round=1, last_position=0) is False
    assert progress.flow is Flow.REPLICATE
    progress.sent(1, 3, 30)
    progress.sent(4, 5, 20)
    assert progress.acknowledged(3, newest_round=1, last_position=5) is True
    assert (progress.match_position, progress.bytes_in_flight) == (3, 20)
    assert progress.acknowledged(1, newest_round=1, last_position=5) is False
    assert (progress.match_position, progress.next_position, progress.bytes_in_flight) == (3, 6, 20)


def test_a_probe_forgets_what_was_in_flight() -> None:
    progress = LogProgress(peer=2, next_position=1, max_bytes_in_flight=100)
    progress.acknowledged(0, newest_round=1, last_position=0)
    progress.sent(1, 3, 30)
    progress.probe(2)
    assert (progress.flow, progress.bytes_in_flight, progress.next_position) == (Flow.PROBE, 0, 2)
    progress.acknowledged(3, newest_round=1, last_position=5)  # it had arrived after all
    assert (progress.flow, progress.next_position) == (Flow.REPLICATE, 4)


def test_a_probe_ends_when_an_entry_was_taken_or_none_is_lacking() -> None:
    progress = LogProgress(peer=2, next_position=3, max_bytes_in_flight=100)
    progress.acknowledged(2, newest_round=1, last_position=5)
    assert (progress.flow, progress.match_position) == (Flow.PROBE, 2)
    progress.acknowledged(2, newest_round=1, last_position=2)
    assert progress.flow is Flow.REPLICATE
    progress.probe(3)
    progress.agreed()
    assert progress.window_bytes == 100  # there was no probe yet that could have been lost
    progress.sent(3, 4, 20)
    progress.agreed()
    assert progress.window_bytes == 0
    progress.sent(3, 4, 20)  # once more, instead of the first
    assert (progress.bytes_in_flight, progress.next_position) == (20, 3)
    progress.acknowledged(3, newest_round=1, last_position=5)  # half of it, from elsewhere
    assert (progress.flow, progress.bytes_in_flight, progress.next_position) == (Flow.REPLICATE, 0, 4)
    assert progress.has_room()


def test_a_window_that_a_loss_closed_is_opened_by_what_the_peer_takes() -> None:
    progress = LogProgress(peer=2, next_position=1, max_bytes_in_flight=100)
    progress.acknowledged(0, newest_round=1, last_position=0)
    progress.sent(1, 1, 60)
    assert progress.has_room()
    progress.sent(2, 2, 40)
    assert not progress.has_room()
    progress.rejected(0)
    assert (progress.flow, progress.next_position, progress.window_bytes) == (Flow.PROBE, 1, 0)
    progress.sent(1, 1, 60)
    progress.acknowledged(1, newest_round=1, last_position=9)
    assert (progress.flow, progress.window_bytes) == (Flow.REPLICATE, 60)
    progress.sent(2, 3, 60)
    assert not progress.has_room()
    progress.acknowledged(3, newest_round=1, last_position=9)
    assert progress.window_bytes == 100


@given(st.integers(0, (1 << 62) + 1), st.none() | st.integers(0, 1 << 40))
def test_hard_state_comes_back(term: int, voted_for: int | None) -> None:
    assert decode_hard_state(encode_hard_state(term, voted_for)) == (term, voted_for)


@pytest.mark.parametrize("data", [b"", b"\x01" * 5, b"\x02" + bytes(16)])
def test_damaged_hard_state_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidHardState, match="expected"):
        decode_hard_state(data)


def test_barriers_pass_with_a_round_that_began_after_them() -> None:
    rounds = Rounds()
    first, second = Barrier(1, 1, None), Barrier(2, 1, None)
    rounds.begin(now_ms=100, barrier_position=5)
    rounds.wait(first)
    assert rounds.confirm(1) == []
    rounds.begin(now_ms=150, barrier_position=None)  # the opening entry is not committed
    assert rounds.confirm(2) == [] and rounds.wants_round()
    rounds.begin(now_ms=200, barrier_position=6)
    rounds.wait(second)
    assert not rounds.wants_round()
    assert rounds.confirm(3) == [(first, 6)]
    assert rounds.contact_ms == 200
    assert rounds.fail_all() == [second]


def test_forwarded_barriers_expire_in_order() -> None:
    barriers = ForwardedBarriers()
    for barrier_id in (1, 2, 3):
        barriers.add(barrier_id, 100 * barrier_id)
    assert barriers.take(1) and not barriers.take(1)
    assert barriers.next_expiry_ms == 100  # early is harmless
    assert barriers.take_expired(200) == [2]
    assert barriers.next_expiry_ms == 300
    assert barriers.take_all() == [3] and barriers.next_expiry_ms is None


def test_the_election_timeout_follows_the_longest_round_trips_within_its_bounds() -> None:
    timing = Timing(400, 4000)
    for _ in range(20):
        timing.measured(3)
        timing.measured(100)
        timing.measured(1)
        timing.heartbeat()
    assert timing.round_trip_ms == 100 and 1990 <= timing.election_timeout_ms <= 2000
    for _ in range(60):
        timing.measured(5)
        timing.heartbeat()
    assert (timing.round_trip_ms, timing.election_timeout_ms) == (5, 400)
    timing.measured(10_000)
    timing.heartbeat()
    assert timing.election_timeout_ms == 4000


def test_a_follower_takes_the_round_trip_over_from_its_leader() -> None:
    timing = Timing(400, 4000)
    assert not timing.told(20)  # which is 400 ms as well
    assert timing.told(50) and timing.election_timeout_ms == 1000
    assert not timing.told(50)
    assert timing.told(0) and timing.election_timeout_ms == 400


def configurations() -> Configurations:
    made = Configurations(ONE, 10)
    made.append(12, TWO.encode())
    made.append(15, THREE.encode())
    return made


ONE, TWO, THREE = (Configuration.make(version, {1: "", 2: "", version: ""}) for version in (1, 2, 3))


@pytest.mark.parametrize(("position", "latest"), [(16, THREE), (15, TWO), (13, TWO), (12, ONE), (11, ONE)])
def test_truncation_brings_the_configuration_before_it_back(position: int, latest: Configuration) -> None:
    made = configurations()
    assert made.truncate_from(position) is (latest is not THREE)
    assert made.latest == latest


@pytest.mark.parametrize(("position", "there", "former"), [(11, ONE, TWO), (12, TWO, TWO), (15, THREE, THREE)])
def test_compaction_knows_who_decided_there(position: int, there: Configuration, former: Configuration) -> None:
    made = configurations()
    assert made.compact(position) == there
    assert made.latest == THREE and made.latest_position == 15
    assert made.former == former


def test_recovered_configurations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidState, match="configuration"):
        recover_configurations(ONE, Recovered(entries=(Entry(1, 1, PREFIX + b"x"),)))
    with pytest.raises(InvalidState, match="configuration"):
        recover_configurations(ONE, Recovered(compacted=CompactedThrough(1, 1, b"x")))


def test_steps_lead_to_the_goal() -> None:
    goal = Configuration.make(7, {2: "", 3: "c", 4: "d"}, {1: "x"})
    present = Configuration.make(6, {1: "", 2: "", 3: "c"}, {4: "former"})
    interim = with_learners(present, goal)
    assert interim == Configuration.make(6, present.voters, {4: "d"})
    assert with_learners(interim, goal) is None
    joint = towards(interim, goal)
    assert joint == Configuration.make(7, goal.voters, goal.learners, present.voters)
    assert incarnation_of(joint, 1) == "" and incarnation_of(after_joint(joint), 1) == "x"
    assert after_joint(joint) == goal
    assert towards(goal, Configuration.make(8, goal.voters)) == Configuration.make(8, goal.voters)


@pytest.mark.parametrize(
    "goal",
    [
        Configuration(2, {}),
        Configuration(2, {}, {1: ""}),
        Configuration(2, {1: ""}, {}, {2: ""}),
        Configuration(2, {1: "other"}),
        Configuration(2, {1: ""}, {1: ""}),
    ],
)
def test_no_step_leads_to_an_impossible_goal(goal: Configuration) -> None:
    assert not is_possible(ONE, goal) and is_possible(ONE, TWO)
