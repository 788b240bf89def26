"""What a write costs follows from the protocol, where nothing else takes time: counted here by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quorate.comparison.commits import CommitFigures, CommitSize, _Trial, measure_commits, quantile
from quorate.comparison.profiles import CONTINENTS, PROFILES, SLOW_NODE, STEPS, VARIANTS, Profile
from quorate.comparison.stage import NoLeader, Setting
from quorate.net.grpc.status import Code, GrpcError

SMALL = CommitSize(requests=6, loaded_writes=80)
PROCESSORS_MS = 1.0
"""What the machines themselves take for a request, at most."""


def commits(variant: str, nodes: int = 3, profile: Profile = STEPS, seed: str = "0") -> CommitFigures:
    return measure_commits(Setting(VARIANTS[variant], nodes, profile, seed), SMALL)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_request_takes_as_many_round_trips_as_it_has_steps(variant: str) -> None:
    """A round trip is 100 ms: the leader's question to a quorum and its answers, and a follower's to the leader."""
    # Of three nodes flexible would write with one, and the leader wait for nobody.
    figures = commits(variant, nodes=5 if variant == "flexible" else 3)
    for times, round_trips in (
        (figures.write_at_leader, 1),
        (figures.write_at_follower, 2),
        (figures.read_at_leader, 1),
        (figures.read_at_follower, 2),
        (figures.stale_read, 0),
    ):
        assert 0 <= times.p50_ms - 100 * round_trips < PROCESSORS_MS


def test_a_leader_that_is_a_quorum_waits_for_nobody() -> None:
    figures = commits("flexible", nodes=3)
    assert figures.quorum_round_trip_ms == 0
    assert figures.write_at_leader.p50_ms < PROCESSORS_MS


@pytest.mark.parametrize("variant", ["raft", "paxos", "zab"])
def test_a_lone_write_takes_three_messages_for_each_follower(variant: str) -> None:
    """Entry, acknowledgement, commit.  Heartbeats are taken off by their rate, so by a round of them more or less."""
    nodes = 4
    figures = commits(variant, nodes)
    assert figures.messages == pytest.approx(3 * (nodes - 1), abs=2 * (nodes - 1) / SMALL.requests + 0.01)
    assert figures.message_bytes > 100 * (nodes - 1)
    assert figures.idle_messages_per_s == pytest.approx(2 * (nodes - 1) / 0.080, rel=0.02)
    assert figures.loaded_messages < figures.messages / 2  # many writes share an entry


def test_a_quorum_syncs_while_the_leader_does() -> None:
    """One round trip and one sync, though leader and followers sync."""
    figures = commits("raft", profile=replace(STEPS, sync_s=(0.02, 0.02)))
    # Beside the leader a client is no longer at no distance: 50 ms to its node and back.
    assert figures.write_at_leader.p50_ms - 100 == pytest.approx(100 + 20, abs=PROCESSORS_MS)


def test_smaller_quorums_wait_for_nearer_nodes() -> None:
    figures = {name: commits(name, 5, CONTINENTS) for name in ("paxos", "flexible")}
    assert figures["paxos"].quorum_round_trip_ms == pytest.approx(85)  # Europe has two nodes, America the third
    assert figures["flexible"].quorum_round_trip_ms == pytest.approx(0.2)
    assert figures["paxos"].write_at_leader.p50_ms > 80
    assert figures["flexible"].write_at_leader.p50_ms < 2


def test_a_slow_node_is_not_waited_for() -> None:
    slow, rack = commits("zab", profile=SLOW_NODE), commits("zab", profile=PROFILES["rack"])
    assert slow.write_at_leader.p50_ms < 1.5 * rack.write_at_leader.p50_ms


def test_the_same_seed_gives_the_same_figures() -> None:
    first, again, other = (commits("paxos", profile=PROFILES["rack"], seed=seed) for seed in ("0", "0", "1"))
    assert first == again
    assert first != other


def test_quantiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.99)) == (50.0, 99.0, 7.0)


@pytest.mark.parametrize("nodes", range(3, 10))
def test_flexible_quorums_always_meet(nodes: int) -> None:
    sizes = VARIANTS["flexible"].sizes(nodes)
    assert sizes is not None
    assert sum(sizes) == nodes + 1
    assert sizes[1] == (nodes // 2 + 1) - 1
    VARIANTS["flexible"].build(nodes)


@pytest.mark.parametrize("ends", ["with an error", "unnoticed"])
def test_a_trial_whose_leadership_ends_is_drawn_again(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, seeds = _Trial.figures, []

    def disturbed(trial: _Trial) -> CommitFigures:
        on = trial._on
        seeds.append(on.setting.seed)
        figures = measure(trial)
        if len(seeds) == 1:
            on.lead_from(1)
            if ends == "with an error":
                raise GrpcError(Code.UNAVAILABLE, "etcdserver: leader changed")
            on.lead_from(0)
        return figures

    monkeypatch.setattr(_Trial, "figures", disturbed)
    assert commits("raft").quorum_round_trip_ms == 100
    assert seeds == ["0", "0/1"]


def test_where_no_leadership_lasts_the_comparison_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(trial: _Trial) -> CommitFigures:
        raise GrpcError(Code.UNAVAILABLE, "etcdserver: leader changed")

    monkeypatch.setattr(_Trial, "figures", refused)
    monkeypatch.setattr("quorate.comparison.commits.MAX_DRAWS", 2)
    with pytest.raises(NoLeader, match="2 trials"):
        commits("raft")
