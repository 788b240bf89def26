"""One seed, one run: faults for a while, then none, and a ledger that looks on."""

from __future__ import annotations

from random import Random

from quorate.consensus.replica import NodeId
from tests.consensus.single_decree.world import AS_THEY_ARE, Agents, Climate, Violation, World

FAULTS_MS = 1_000
PATIENCE_MS = 60_000
"""How much longer it may take until everybody has learned.  Virtual time."""


def walk(seed: int, agents: Agents = AS_THEY_ARE) -> World:
    """Raises Violation."""
    random = Random(seed)
    nodes = tuple(range(1, random.choice((3, 3, 5)) + 1))
    proposers = {node: random.randrange(0, 40) for node in nodes[: random.randint(2, len(nodes))]}
    climate = Climate(
        random,
        loss=random.choice((0.0, 0.05, 0.2)),
        repetition=random.choice((0.0, 0.2, 0.5)),
        straggling=random.choice((0.0, 0.2, 0.5)),
        longest_ms=random.choice((10, 60)),
        slowest_write_ms=random.choice((0, 10, 50)),
    )
    world = World(nodes, proposers, climate, random, agents)
    crashes_ms = random.choice((None, 20, 40, 200))
    """The mean time between crashes that come at any moment."""
    crash_after_write = random.choice((0.0, 0.05, 0.3))
    downtime_ms = random.choice((5, 100))

    def crash(node: NodeId) -> None:
        world.crash(node, finished_writes=random.randrange(0, 3))
        world.after(random.randrange(0, downtime_ms), lambda: world.start(node))

    def crash_sometimes(mean_ms: int) -> None:
        crash(random.choice(nodes))
        if world.now_ms < FAULTS_MS:
            world.after(random.randrange(1, 2 * mean_ms), lambda: crash_sometimes(mean_ms))

    def after_write(node: NodeId) -> None:
        if world.now_ms < FAULTS_MS and random.random() < crash_after_write:
            crash(node)

    world.after_write = after_write
    if crashes_ms is not None:
        world.after(crashes_ms, lambda: crash_sometimes(crashes_ms))
    world.run(FAULTS_MS)
    world.weather = Climate(random)
    world.run(FAULTS_MS + PATIENCE_MS, world.has_everybody_learned)
    if not world.has_everybody_learned():
        raise Violation("the faults are over, and somebody does not learn")
    return world
