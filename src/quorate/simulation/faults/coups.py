"""Leaders that fall as soon as they lead.

Logs come to differ in more than one term only where leaderships are short: figure 8 of the Raft paper needs four of
them, none of which gets anything done.  Dates that are drawn before the run cannot follow elections so closely.
"""

from __future__ import annotations

import math
from collections import deque
from random import Random

from quorate.simulation.cluster import host_of
from quorate.simulation.conditions import End
from quorate.simulation.faults.base import Setting, again_and_again
from quorate.simulation.plan import Injection
from quorate.simulation.world import World

LOOK_S = 0.01


class Coup:
    name = "coup"
    about = "whoever is elected is soon cut off, paused or killed, and comes back when its successor falls"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        longest_s = math.exp(random.uniform(math.log(0.005), math.log(0.5)))
        return [setting.injection(random, self.name, (1.0, 5.0), "", longest_s)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """`amount` is the longest time that a leader is left, in seconds."""
        if _most(world) == 0:
            return None
        random = world.random_of(injection)
        fallen: deque[End] = deque()
        newest = [0]
        going = [True]

        def look() -> None:
            generation, node = _newest_leader(world)
            if generation > newest[0]:
                newest[0] = generation
                world.simulation.after(random.uniform(0.0, injection.amount), strike, node)

        def strike(node: int) -> None:
            if not going:
                return
            # Its predecessor is back at this very moment, so that a majority can elect another one.
            while fallen and len(fallen) >= _most(world):
                fallen.popleft()()
            fallen.append(_depose(world, injection, random, node))

        stop = again_and_again(world, random, LOOK_S, look)

        def end() -> None:
            stop()
            going.clear()
            while fallen:
                fallen.popleft()()

        return end


def _most(world: World) -> int:
    """How many may have fallen at a time: a minority."""
    return (len(world.in_service) - 1) // 2


def _newest_leader(world: World) -> tuple[int, int]:
    """The highest generation in which a node believes that it leads, and the node; generation 0 where none does."""
    found = (0, 0)
    for node, running in world.cluster.nodes.items():
        if node not in world.cluster.starting:
            status = running.status()
            if status["role"] == "leader":
                found = max(found, (status["generation"], node))
    return found


def _depose(world: World, injection: Injection, random: Random, node: int) -> End:
    way = random.choice(["cut", "cut", "pause", "crash", "power-loss"])
    world.acted(injection, f"{way} of node-{node}")
    host = host_of(node)
    if way == "cut":
        others = [other for other in world.node_hosts() if other != host]
        return world.conditions.cut([link for other in others for link in ((host, other), (other, host))])
    if way == "pause":
        end = world.conditions.pause(host)
        if end is not None:
            return end
    return world.crash(node, power_loss=way == "power-loss")
