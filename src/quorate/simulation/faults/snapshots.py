"""Snapshots in the middle of everything else."""

from __future__ import annotations

from random import Random

from quorate.node.node import Node
from quorate.simulation.conditions import End
from quorate.simulation.faults.base import Setting
from quorate.simulation.plan import Injection
from quorate.simulation.world import World


class Snapshot:
    name = "snapshot"
    about = "nodes take a snapshot, as POST /snapshot asks for"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, (0.0, 0.0), random.choice(["all", setting.victim(random)]))]

    def begin(self, world: World, injection: Injection) -> End | None:
        cluster = world.cluster
        for number in world.resolve(injection):
            node = cluster.nodes.get(number)
            if node is not None and number not in cluster.starting:
                cluster.machine(number).loop.call_soon(_take, world, injection, number, node)
        return None


def _take(world: World, injection: Injection, number: int, node: Node) -> None:
    if node.start_snapshots()["started"]:
        world.acted(injection, f"node-{number}")
