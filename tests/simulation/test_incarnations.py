"""Who is counted for a node whose folder was lost: what the former one held, and nothing that the new one says."""

from __future__ import annotations

import pytest

from quorate.consensus.membership import NO_CONFIGURATION, Configuration
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.raft.hard_state import encode_hard_state
from quorate.consensus.records import Entry, Recovered, SaveEntry, SaveState
from quorate.consensus.replica import Effects, Leadership, Persisted, ReplicaConfig, Role, Status, Tick
from quorate.simulation.invariants import GroupInvariants
from quorate.simulation.raft_invariants import RaftInvariants
from quorate.simulation.violation import Violation

FIRST = Configuration.make(1, {0: "a", 1: "b", 2: "c"})
ENTRY = Entry(1, 1, b"entry")


class Folders:
    """Three nodes whose replicas do what a test wants."""

    def __init__(self) -> None:
        self.group = GroupInvariants((0, 1, 2), clock_slack_s=0.002)
        self.raft = RaftInvariants(self.group)
        for node, incarnation in FIRST.voters.items():
            self.group.built(node, Recovered(), 0, FIRST, incarnation)

    def come_back_empty(self, node: int, incarnation: str = "new") -> None:
        self.group.lost(node)
        self.group.built(node, Recovered(), 0, NO_CONFIGURATION, incarnation)

    def hold(self, node: int) -> None:
        self.group.stepped(node, Tick(), Effects(records=[SaveEntry(ENTRY)], ticket=1), 0, 0.0)
        self.group.stepped(node, Persisted(1), Effects(), 0, 0.0)

    def hand_out(self, node: int) -> None:
        self.group.stepped(node, Tick(), Effects(committed=[ENTRY]), 0, 0.0)

    def vote(self, node: int, candidate: int) -> None:
        effects = Effects(records=[SaveState(encode_hard_state(1, candidate))], ticket=1)
        self.group.stepped(node, Tick(), effects, 0, 0.0)
        self.raft.stepped(node, Tick(), effects, status)
        self.group.stepped(node, Persisted(1), Effects(), 0, 0.0)

    def lead(self, node: int) -> None:
        effects = Effects(leadership=Leadership(Role.LEADER, node, 1))
        self.group.stepped(node, Tick(), effects, 0, 0.0)
        self.raft.stepped(node, Tick(), effects, status)


def status() -> Status:
    config = ReplicaConfig(0, FIRST, "a")

    class Zero:
        def randrange(self, start: int, stop: int) -> int:
            return start

        def getrandbits(self, bits: int) -> int:
            return 0

    return PROTOCOLS["raft"].build(config, Recovered(), Zero(), 0).status()


def test_what_a_lost_folder_had_acknowledged_may_be_committed_later() -> None:
    folders = Folders()
    folders.hold(0)
    folders.hold(1)
    folders.come_back_empty(1)
    folders.hand_out(0)
    assert folders.group.committed == [ENTRY]


def test_what_the_new_folder_holds_does_not_count_before_it_votes() -> None:
    folders = Folders()
    folders.hold(0)
    folders.come_back_empty(1)
    folders.hold(1)
    with pytest.raises(Violation, match="durable quorum"):
        folders.hand_out(0)


def test_the_vote_of_another_folder_elects_nobody() -> None:
    folders = Folders()
    folders.vote(0, 0)
    folders.come_back_empty(1)
    folders.vote(1, 0)
    with pytest.raises(Violation, match="election by votes"):
        folders.lead(0)


def test_a_vote_elects_although_its_folder_was_lost_since() -> None:
    folders = Folders()
    folders.vote(0, 0)
    folders.vote(1, 0)
    folders.come_back_empty(1)
    folders.lead(0)


def test_two_folders_of_one_node_may_vote_for_two_candidates_and_that_is_no_second_leader() -> None:
    folders = Folders()
    folders.vote(0, 0)
    folders.vote(1, 0)
    folders.lead(0)
    folders.come_back_empty(1)
    folders.vote(2, 2)
    folders.vote(1, 2)
    with pytest.raises(Violation, match="election"):
        folders.lead(2)


def test_which_configurations_may_still_decide() -> None:
    folders = Folders()
    assert folders.group.counting() == [FIRST]
    later = Configuration.make(1, FIRST.voters, {3: "d"})
    entry = Entry(1, 1, later.encode())
    folders.group.stepped(0, Tick(), Effects(records=[SaveEntry(entry)], ticket=1), 0, 0.0)
    assert folders.group.counting() == [FIRST, later]
    folders.group.lost(0)
    assert folders.group.counting() == [FIRST]
