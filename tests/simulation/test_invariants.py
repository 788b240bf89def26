"""Each invariant, by the name of its check, seen to fail on the smallest sequence that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorate.consensus.records import (
    CompactedThrough,
    Entry,
    Record,
    Recovered,
    SaveEntry,
    SaveState,
    TruncateFrom,
)
from quorate.consensus.replica import (
    BarrierPassed,
    Compacted,
    Effects,
    Event,
    InstallSnapshot,
    Leadership,
    Persisted,
    ReadBarrier,
    Role,
    SnapshotSent,
    Tick,
)
from quorate.simulation.durable_records import DurableRecords
from quorate.simulation.invariants import GroupInvariants
from quorate.simulation.violation import Violation


def entry(position: int, generation: int = 1, text: bytes = b"") -> Entry:
    return Entry(position, generation, text)


class Nodes:
    """Three nodes of one group whose replicas are made to do whatever a test wants."""

    def __init__(self) -> None:
        self.group = GroupInvariants((0, 1, 2), clock_slack_s=0.002)
        self.ticket = 0
        for node in range(3):
            self.group.built(node, Recovered(), 0)

    def step(self, node: int, event: Event, effects: Effects, now_ms: int = 0, true_s: float = 0.0) -> None:
        self.group.stepped(node, event, effects, now_ms, true_s)

    def write(self, node: int, *records: Record, install: InstallSnapshot | None = None) -> int:
        """Returns the ticket."""
        self.ticket += 1
        self.step(node, Tick(), Effects(records=list(records), ticket=self.ticket, install=install))
        return self.ticket

    def persist(self, node: int) -> None:
        self.step(node, Persisted(self.ticket), Effects())

    def save(self, nodes: str, *entries: Entry) -> None:
        """The entries become durable on these nodes ("01")."""
        for node in map(int, nodes):
            self.write(node, *map(SaveEntry, entries))
            self.persist(node)

    def hand_out(self, node: int, *entries: Entry) -> None:
        self.step(node, Tick(), Effects(committed=list(entries)))

    def commit(self, *entries: Entry) -> None:
        """Durable everywhere, handed out everywhere."""
        self.save("012", *entries)
        for node in range(3):
            self.hand_out(node, *entries)

    def lead(
        self, node: int, generation: int, *, ready: bool = False, leader: int | None = None, true_s: float = 0.0
    ) -> None:
        """The node leads; with `leader` it follows that one."""
        role = Role.LEADER if leader is None else Role.FOLLOWER
        leadership = Leadership(role, node if leader is None else leader, generation, ready)
        self.step(node, Tick(), Effects(leadership=leadership), int(true_s * 1000), true_s)


def two_leaders(nodes: Nodes) -> None:
    nodes.lead(0, 1)
    nodes.lead(1, 1)


def one_follows_another_leader(nodes: Nodes) -> None:
    nodes.lead(0, 1)
    nodes.lead(2, 1, leader=1)


def led_again_after_a_restart(nodes: Nodes) -> None:
    nodes.lead(0, 1)
    nodes.group.built(0, Recovered(), 0)
    nodes.lead(0, 1)


def another_entry_of_one_generation(nodes: Nodes) -> None:
    nodes.save("0", entry(1, text=b"a"))
    nodes.save("1", entry(1, text=b"b"))


def another_entry_before(nodes: Nodes) -> None:
    nodes.save("0", entry(1, 1), entry(2, 3))
    nodes.save("1", entry(1, 2), entry(2, 3))


def the_same_entry_object_after_another(nodes: Nodes) -> None:
    shared = entry(2, 3)
    nodes.save("0", entry(1, 1), shared)
    nodes.save("1", entry(1, 2), shared)


def a_gap_in_the_log(nodes: Nodes) -> None:
    nodes.save("0", entry(2))


def elected_without_a_committed_entry(nodes: Nodes) -> None:
    nodes.save("01", entry(1))
    nodes.hand_out(0, entry(1))
    nodes.lead(2, 2)


def elected_with_another_entry(nodes: Nodes) -> None:
    nodes.save("01", entry(1, 1))
    nodes.save("2", entry(1, 2))
    nodes.hand_out(0, entry(1, 1))
    nodes.lead(2, 3)


def another_entry_is_handed_out(nodes: Nodes) -> None:
    nodes.save("01", entry(1, 1))
    nodes.save("2", entry(1, 2))
    nodes.hand_out(0, entry(1, 1))
    nodes.hand_out(2, entry(1, 2))


def handed_out_twice(nodes: Nodes) -> None:
    nodes.commit(entry(1))
    nodes.hand_out(0, entry(1))


def handed_out_with_a_gap(nodes: Nodes) -> None:
    nodes.save("012", entry(1), entry(2))
    nodes.hand_out(0, entry(2))


def handed_out_and_truncated(nodes: Nodes) -> None:
    nodes.commit(entry(1))
    nodes.write(0, TruncateFrom(1))


def installed_backwards(nodes: Nodes) -> None:
    nodes.commit(entry(1), entry(2))
    nodes.write(0, CompactedThrough(1, 1), install=InstallSnapshot(1, 1))


def committed_on_a_minority(nodes: Nodes) -> None:
    nodes.save("0", entry(1))
    nodes.hand_out(0, entry(1))


def committed_before_the_second_persisted(nodes: Nodes) -> None:
    nodes.save("0", entry(1))
    nodes.write(1, SaveEntry(entry(1)))
    nodes.hand_out(0, entry(1))


def known_to_be_committed_too_early(nodes: Nodes) -> None:
    nodes.save("0", entry(1))
    nodes.group.learn_commit(0, 1)


def committed_and_then_forgotten_by_a_quorum(nodes: Nodes) -> None:
    nodes.save("01", entry(1))
    nodes.hand_out(0, entry(1))
    nodes.write(1, TruncateFrom(1))


def handed_out_before_it_is_durable_here(nodes: Nodes) -> None:
    nodes.save("01", entry(1))
    nodes.write(2, SaveEntry(entry(1)))
    nodes.hand_out(2, entry(1))


def a_snapshot_of_what_was_not_applied(nodes: Nodes) -> None:
    nodes.commit(entry(1))
    nodes.save("0", entry(2))
    nodes.step(0, Compacted(2), Effects())


def compacted_beyond_what_was_applied(nodes: Nodes) -> None:
    nodes.save("012", entry(1))
    nodes.hand_out(0, entry(1))
    nodes.write(1, CompactedThrough(1, 1))


def installed_what_is_not_committed(nodes: Nodes) -> None:
    nodes.write(0, CompactedThrough(1, 1), install=InstallSnapshot(1, 1))


def installed_another_history(nodes: Nodes) -> None:
    nodes.save("01", entry(1, 1))
    nodes.hand_out(0, entry(1, 1))
    nodes.write(2, CompactedThrough(1, 2), install=InstallSnapshot(1, 2))


def ready_before_earlier_entries_are_handed_out(nodes: Nodes) -> None:
    nodes.save("012", entry(1))
    nodes.hand_out(0, entry(1))
    nodes.lead(1, 2, ready=True)


def a_barrier_that_misses_a_commit(nodes: Nodes) -> None:
    nodes.commit(entry(1))
    nodes.step(2, ReadBarrier(7), Effects())
    nodes.step(2, Tick(), Effects(barriers_passed=[BarrierPassed(7, 0)]))


def a_barrier_beyond_what_is_safe(nodes: Nodes) -> None:
    nodes.save("0", entry(1))
    nodes.step(0, ReadBarrier(7), Effects())
    nodes.step(0, Tick(), Effects(barriers_passed=[BarrierPassed(7, 1)]))


def a_barrier_passes_twice(nodes: Nodes) -> None:
    nodes.step(0, ReadBarrier(7), Effects(barriers_passed=[BarrierPassed(7, 0)]))
    nodes.step(0, Tick(), Effects(barriers_passed=[BarrierPassed(7, 0)]))


def a_barrier_passes_and_fails(nodes: Nodes) -> None:
    nodes.step(0, ReadBarrier(7), Effects(barriers_passed=[BarrierPassed(7, 0)]))
    nodes.step(0, Tick(), Effects(barriers_failed=[7]))


def contact_after_another_election(nodes: Nodes) -> None:
    nodes.lead(0, 1, ready=True, true_s=1.0)
    nodes.lead(1, 2, true_s=2.0)
    nodes.step(0, Tick(), Effects(), now_ms=2003, true_s=2.003)
    nodes.group.check_contact(0, 2003)


def contact_without_leading(nodes: Nodes) -> None:
    nodes.group.check_contact(0, 0)


def contact_in_the_future(nodes: Nodes) -> None:
    nodes.lead(0, 1, ready=True)
    nodes.group.check_contact(0, 1)


def the_generation_goes_back(nodes: Nodes) -> None:
    nodes.lead(0, 2)
    nodes.lead(0, 1, leader=1)


def an_entry_is_gone_after_a_crash(nodes: Nodes) -> None:
    nodes.save("0", entry(1), entry(2))
    nodes.group.built(0, Recovered(entries=(entry(1),)), 0)


def a_vote_is_gone_after_a_crash(nodes: Nodes) -> None:
    nodes.write(0, SaveState(b"term 1"))
    nodes.write(0, SaveState(b"term 2"))
    nodes.persist(0)
    nodes.group.built(0, Recovered(b"term 1"), 0)


def a_later_record_survives_without_an_earlier_one(nodes: Nodes) -> None:
    nodes.write(0, SaveState(b"term 2"))
    nodes.write(0, SaveEntry(entry(1)))
    nodes.group.built(0, Recovered(None, entries=(entry(1),)), 0)


def truncated_entries_come_back(nodes: Nodes) -> None:
    nodes.save("0", entry(1, 1), entry(2, 1))
    nodes.write(0, TruncateFrom(2))
    nodes.persist(0)
    nodes.group.built(0, Recovered(entries=(entry(1, 1), entry(2, 1))), 0)


def a_compaction_is_gone_after_a_crash(nodes: Nodes) -> None:
    nodes.commit(entry(1), entry(2))
    nodes.write(0, CompactedThrough(1, 1))
    nodes.persist(0)
    nodes.group.built(0, Recovered(entries=(entry(1), entry(2))), 0)


BREACHES: dict[str, tuple[Callable[[Nodes], None], ...]] = {
    "election safety": (two_leaders, one_follows_another_leader, led_again_after_a_restart),
    "log matching": (
        another_entry_of_one_generation,
        another_entry_before,
        the_same_entry_object_after_another,
        a_gap_in_the_log,
    ),
    "leader completeness": (elected_without_a_committed_entry, elected_with_another_entry),
    "state machine safety": (
        another_entry_is_handed_out,
        handed_out_twice,
        handed_out_with_a_gap,
        handed_out_and_truncated,
        installed_backwards,
    ),
    "durable quorum": (
        committed_on_a_minority,
        committed_before_the_second_persisted,
        known_to_be_committed_too_early,
        committed_and_then_forgotten_by_a_quorum,
    ),
    "durable before applied": (handed_out_before_it_is_durable_here,),
    "snapshot": (
        a_snapshot_of_what_was_not_applied,
        compacted_beyond_what_was_applied,
        installed_what_is_not_committed,
        installed_another_history,
    ),
    "ready leader": (ready_before_earlier_entries_are_handed_out,),
    "read barrier": (
        a_barrier_that_misses_a_commit,
        a_barrier_beyond_what_is_safe,
        a_barrier_passes_twice,
        a_barrier_passes_and_fails,
    ),
    "quorum contact": (contact_after_another_election, contact_without_leading, contact_in_the_future),
    "generation order": (the_generation_goes_back,),
    "durability": (
        an_entry_is_gone_after_a_crash,
        a_vote_is_gone_after_a_crash,
        a_later_record_survives_without_an_earlier_one,
        truncated_entries_come_back,
        a_compaction_is_gone_after_a_crash,
    ),
}


@pytest.mark.parametrize(
    ("check", "breach"),
    [pytest.param(check, breach, id=breach.__name__) for check, breaches in BREACHES.items() for breach in breaches],
)
def test_a_breach_is_seen(check: str, breach: Callable[[Nodes], None]) -> None:
    with pytest.raises(Violation) as seen:
        breach(Nodes())
    assert seen.value.check == check


# --- what must not be taken for a breach ---------------------------------------------------------


@pytest.mark.parametrize("first", ["leader", "follower that hears of its leader in the same step"])
def test_a_leader_whose_election_is_known_late_owes_nothing_to_what_a_later_one_committed(first: str) -> None:
    """Node 2 wins generation 2 by node 1's vote, which is late; meanwhile node 0 finds its own entry of generation 1
    again, and commits it in generation 3.  (Seed 281 of `--protocol paxos` with three nodes.)"""
    nodes = Nodes()
    nodes.lead(0, 1)
    nodes.save("0", entry(1, 1))
    nodes.lead(0, 3)
    nodes.save("01", entry(1, 1))
    if first == "leader":
        nodes.hand_out(0, entry(1, 1))
    else:
        nodes.step(1, Tick(), Effects(committed=[entry(1, 1)], leadership=Leadership(Role.FOLLOWER, 0, 3, False)))
    nodes.lead(2, 2)
    nodes.lead(2, 2, ready=True)


def test_what_was_under_way_may_survive_a_crash_up_to_any_record() -> None:
    saved = [entry(1), entry(2), entry(3)]
    for survived in range(4):
        nodes = Nodes()
        nodes.write(0, SaveState(b"term 1"))
        nodes.persist(0)
        nodes.write(0, SaveEntry(saved[0]), SaveEntry(saved[1]))
        nodes.write(0, SaveEntry(saved[2]))
        nodes.group.built(0, Recovered(b"term 1", entries=tuple(saved[:survived])), 0)
        # What was found is durable now, and is asked for the next time.
        nodes.group.built(0, Recovered(b"term 1", entries=tuple(saved[:survived])), 0)
        if survived:
            with pytest.raises(Violation):
                nodes.group.built(0, Recovered(b"term 1", entries=tuple(saved[: survived - 1])), 0)


def test_of_a_damaged_disk_nothing_is_asked_but_only_once() -> None:
    nodes = Nodes()
    nodes.save("0", entry(1), entry(2))
    nodes.group.damaged(0)
    nodes.group.built(0, Recovered(entries=(entry(1),)), 0)
    with pytest.raises(Violation):
        nodes.group.built(0, Recovered(), 0)


def test_an_entry_that_a_damaged_node_forgot_does_not_count_for_a_quorum() -> None:
    nodes = Nodes()
    nodes.save("01", entry(1))
    nodes.group.damaged(1)
    nodes.group.built(1, Recovered(), 0)
    with pytest.raises(Violation):
        nodes.hand_out(0, entry(1))


def test_a_committed_entry_may_be_truncated_where_a_quorum_keeps_it() -> None:
    nodes = Nodes()
    nodes.save("012", entry(1))
    nodes.hand_out(0, entry(1))
    nodes.write(2, TruncateFrom(1))
    assert nodes.group.counts.truncations == 1


def test_a_leader_elected_late_in_an_old_generation_need_not_have_newer_entries() -> None:
    nodes = Nodes()
    nodes.save("01", entry(1, 5))
    nodes.hand_out(0, entry(1, 5))
    nodes.lead(2, 4)
    nodes.lead(2, 4, ready=True)


def test_a_barrier_waits_for_an_answer_until_it_passes_or_fails_or_its_node_starts_anew() -> None:
    nodes = Nodes()
    for barrier_id in (1, 2, 3):
        nodes.step(0, ReadBarrier(barrier_id), Effects())
    nodes.step(0, Tick(), Effects(barriers_passed=[BarrierPassed(1, 0)], barriers_failed=[3]))
    assert nodes.group.unanswered_barriers(0) == [2]
    assert nodes.group.unanswered_barriers(1) == []
    nodes.group.built(0, Recovered(), 0)
    assert nodes.group.unanswered_barriers(0) == []


def test_a_barrier_may_pass_at_a_position_that_only_its_leader_knows_to_be_committed() -> None:
    nodes = Nodes()
    nodes.save("12", entry(1))
    nodes.step(0, ReadBarrier(1), Effects())
    nodes.step(0, Tick(), Effects(barriers_passed=[BarrierPassed(1, 1)]))


def test_contact_is_judged_by_the_true_time_of_the_step_that_it_names() -> None:
    nodes = Nodes()
    nodes.lead(0, 1, ready=True, true_s=1.0)
    # Node 0's clock is far ahead, and goes at half speed.
    nodes.step(0, Tick(), Effects(), now_ms=50_000, true_s=2.0)
    nodes.lead(1, 2, true_s=2.5)
    nodes.step(0, Tick(), Effects(), now_ms=50_250, true_s=2.501)
    nodes.group.check_contact(0, 50_000)
    nodes.group.check_contact(0, 50_250)  # may have begun before the election, for all that its milliseconds say
    nodes.step(0, Tick(), Effects(), now_ms=50_300, true_s=2.6)
    with pytest.raises(Violation):
        nodes.group.check_contact(0, 50_300)


def test_an_installed_snapshot_stands_for_what_it_covers() -> None:
    nodes = Nodes()
    nodes.save("01", entry(1), entry(2), entry(3))
    nodes.hand_out(0, entry(1), entry(2))
    nodes.write(0, CompactedThrough(2, 1))
    nodes.step(0, SnapshotSent(2, 2), Effects())
    nodes.write(2, CompactedThrough(2, 1), install=InstallSnapshot(2, 1))
    nodes.persist(2)
    nodes.save("2", entry(3))
    nodes.hand_out(2, entry(3))
    nodes.lead(2, 2)
    assert nodes.group.counts.snapshots_installed == nodes.group.counts.snapshots_sent == 1


# --- the records -------------------------------------------------------------------------------


def test_records_fold_as_a_log_is_read_back() -> None:
    records = DurableRecords(Recovered())
    for record in (
        SaveEntry(entry(1)),
        SaveEntry(entry(2)),
        SaveEntry(entry(4)),  # out of order, as some protocols accept
        SaveEntry(entry(3)),
        SaveState(b"x"),
        TruncateFrom(4),
        CompactedThrough(1, 1),
        CompactedThrough(0, 0),
        SaveEntry(entry(1, 2)),
    ):
        records.write(record)
    assert records.recover() == Recovered(b"x", CompactedThrough(1, 1), (entry(2), entry(3)))
    records.write(CompactedThrough(9, 2))
    assert records.recover() == Recovered(b"x", CompactedThrough(9, 2))
    records.write(SaveEntry(entry(10, 2)))
    assert [records.generation_at(position) for position in (8, 9, 10, 11)] == [None, 2, 2, None]
    records.write(TruncateFrom(10))
    assert (records.entries, records.end_position) == ({}, 9)
