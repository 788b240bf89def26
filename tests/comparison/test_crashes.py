"""Time without a leader, and candidacies that led nowhere."""

from __future__ import annotations

import pytest

from quorate.comparison.crashes import LIMIT_S, Crash, CrashFigures, measure_crashes
from quorate.comparison.ledger import candidacy_of
from quorate.comparison.profiles import PROFILES, VARIANTS
from quorate.comparison.stage import Setting
from quorate.consensus.paxos import messages as paxos
from quorate.consensus.raft import messages as raft
from quorate.consensus.replica import Message
from quorate.consensus.zab import messages as zab

ELECTION_TIMEOUT_S, HEARTBEAT_S = 0.300, 0.080


def crashes(variant: str, crash: Crash, trials: int, profile: str = "rack", seed: str = "0") -> CrashFigures:
    return measure_crashes(Setting(VARIANTS[variant], 3, PROFILES[profile], seed), crash, trials)


@pytest.mark.parametrize("variant", ["raft", "paxos", "zab"])
def test_a_killed_process_is_noticed_at_once_and_a_silent_machine_after_an_election_timeout(variant: str) -> None:
    killed, silent = crashes(variant, Crash.PROCESS, 4), crashes(variant, Crash.MACHINE, 4)
    assert killed.worst_s < ELECTION_TIMEOUT_S / 2
    # The last sign of life was at most a heartbeat before.
    assert min(silent.without_leader_s) > ELECTION_TIMEOUT_S - HEARTBEAT_S - 0.01
    assert silent.median_s < 2 * ELECTION_TIMEOUT_S + 0.1
    assert all(messages >= 2 for messages in (*killed.election_messages, *silent.election_messages))


def test_candidates_that_stand_together_far_apart_get_in_each_others_way() -> None:
    """With Paxos the higher ballot wins, and the lower ones were for nothing."""
    usual, alike = (crashes("paxos", crash, 4, "continents") for crash in (Crash.MACHINE, Crash.ALIKE))
    assert sum(alike.lost_candidacies) > sum(usual.lost_candidacies)
    assert alike.worst_s < LIMIT_S


def test_split_votes_may_split_for_ever_and_that_is_a_figure() -> None:
    """Two servers that always stand together, farther apart than their timeouts: each has voted for itself."""
    figures = crashes("raft", Crash.ALIKE, 1, "continents")
    assert figures.without_leader_s == (LIMIT_S,)
    assert figures.lost_candidacies[0] > 10


def test_zab_agrees_on_whom_to_follow_before_anybody_stands() -> None:
    assert sum(crashes("zab", Crash.ALIKE, 4, "continents").lost_candidacies) == 0


def test_the_same_seed_gives_the_same_crashes() -> None:
    first, again, other = (crashes("raft", Crash.MACHINE, 2, seed=seed) for seed in ("0", "0", "1"))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("message", "generation"),
    [
        (raft.RequestVote(7, 0, 0, pre_vote=False), 7),
        (raft.RequestVote(7, 0, 0, pre_vote=True), None),
        (paxos.Prepare(7_000_000_001, 1, False), 7_000_000_001),
        (paxos.PreVote(7_000_000_001, 0), None),
        (zab.NewEpoch(7, established=False), 7),
        (zab.NewEpoch(7, established=True), None),
        (raft.Vote(7, True, False), None),
    ],
)
def test_only_what_binds_others_is_a_candidacy(message: Message, generation: int | None) -> None:
    assert candidacy_of(message) == generation
