"""Inline on a fast disk, aside on a slow one, and back."""

from __future__ import annotations

from itertools import pairwise

from quorate.storage.sync_policy import SyncPolicy


def run(policy: SyncPolicy, count: int, disk_ms: float, hop_ms: float = 3.0) -> list[bool]:
    """`count` syncs on a disk that takes `disk_ms`; aside ones take the hop besides.  True for those aside."""
    chosen = []
    for _ in range(count):
        chosen.append(policy.aside)
        policy.observe(disk_ms + (hop_ms if policy.aside else 0.0))
    return chosen


def test_a_fast_disk_is_synced_inline() -> None:
    policy = SyncPolicy()
    assert not any(run(policy, 1000, 0.2))
    assert 0.15 < policy.estimate_ms < 0.25


def test_one_hiccup_is_not_a_slow_disk() -> None:
    policy = SyncPolicy()
    run(policy, 100, 0.2)
    policy.observe(30.0)
    assert not policy.aside


def test_a_disk_that_stops_the_loop_is_synced_aside_at_once() -> None:
    policy = SyncPolicy()
    run(policy, 100, 0.2)
    policy.observe(100.0)
    assert policy.aside


def test_a_slow_disk_is_synced_aside_after_a_few_syncs() -> None:
    assert run(SyncPolicy(), 20, 20.0).index(True) <= 4


def test_a_slow_disk_is_probed_ever_more_rarely() -> None:
    policy = SyncPolicy()
    run(policy, 20, 10.0)
    probes = [index for index, aside in enumerate(run(policy, 2000, 10.0)) if not aside]
    distances = [later - earlier for earlier, later in pairwise(probes)]
    assert len(probes) >= 4
    assert distances == sorted(distances)
    assert distances[-1] > 4 * distances[0]


def test_a_disk_that_hangs_is_not_probed() -> None:
    policy = SyncPolicy()
    run(policy, 20, 100.0)
    assert all(run(policy, 1000, 100.0))


def test_a_disk_that_is_fast_again_is_synced_inline_again() -> None:
    policy = SyncPolicy()
    run(policy, 500, 50.0)
    assert policy.aside
    chosen = run(policy, 1000, 0.2)
    assert not chosen[-1]
    assert sum(chosen) < 100
