"""kill -9 of random nodes, and of all at once, under load: nothing that was acknowledged is lost.

QUORATE_CRASH_SECONDS sets how long the killing lasts (`make crash`: two minutes), and
QUORATE_CRASH_SEED repeats the choices of an earlier run, though not its timing.
SIGKILL leaves what was written in the page cache; test_durability shows the syncs.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.processes.cluster import SMALL_STORAGE, Cluster, pause
from tests.processes.conftest import MakeCluster
from tests.processes.writer import Writer, check_nothing_is_lost, written

CRASH_SECONDS = float(os.environ.get("QUORATE_CRASH_SECONDS", "6"))
SEED = int(os.environ.get("QUORATE_CRASH_SEED", random.randrange(1 << 32)))
PHASE_SECONDS = 5.0
WRITERS = 4

pytestmark = [pytest.mark.processes, pytest.mark.timeout(4 * CRASH_SECONDS + 240)]


def kill_for_a_while(cluster: Cluster, chance: random.Random, seconds: float) -> int:
    """Kill and restart nodes for some seconds; returns the number of kills.  In the end all nodes run."""
    kills = 0
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        pause(chance.uniform(0.05, 0.8))
        kind = chance.choice(["one", "one", "leader", "two", "all"])
        if kind == "leader":
            victims = [cluster.leader()]
        else:
            victims = chance.sample(cluster.nodes, {"one": 1, "two": 2, "all": 3}[kind])
        for node in victims:
            node.send(signal.SIGKILL)
        for node in victims:
            node.kill()
        kills += len(victims)
        pause(chance.choice([0.0, 0.0, 0.2, 1.0]))
        for node in chance.sample(victims, len(victims)):
            cluster.start_node(node)
        if chance.random() < 0.7:
            cluster.leader()
    return kills


def test_what_was_acknowledged_survives_kill_9(make_cluster: MakeCluster) -> None:
    print(f"QUORATE_CRASH_SEED={SEED}")
    chance = random.Random(SEED)
    cluster = make_cluster(settings={**SMALL_STORAGE, "limits": {"max_tail_bytes": 1 << 16}}).start()
    writers = [Writer(cluster, f"writer-{i}") for i in range(WRITERS)]
    phases = max(2, round(CRASH_SECONDS / PHASE_SECONDS))
    kills = 0
    for phase in range(phases):
        with written(writers):
            kills += kill_for_a_while(cluster, chance, CRASH_SECONDS / phases)
            cluster.wait_ready()
        check_nothing_is_lost(cluster, writers)
        for writer in writers:
            writer.begin_phase(phase + 1)
    acknowledged = sum(writer.acknowledged() for writer in writers)
    unknown = sum(writer.unknown() for writer in writers)
    snapshots = [node.log_text().count("installed the snapshot") for node in cluster.nodes]
    torn = sum(node.log_text().count("cut a torn tail") for node in cluster.nodes)
    print(
        f"{kills} kills in {phases} phases, {acknowledged} acknowledged writes all there, "
        f"{unknown} of unknown outcome, "
        f"{sum(snapshots)} snapshots sent, {torn} torn tails"
    )
    assert kills >= phases and acknowledged > 100 * phases and unknown > 0
