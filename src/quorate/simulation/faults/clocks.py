"""Clocks that run too fast or too slowly, and wall clocks that are set."""

from __future__ import annotations

from random import Random

from quorate.simulation.conditions import End
from quorate.simulation.faults.base import Setting, all_of
from quorate.simulation.plan import Injection
from quorate.simulation.world import World


class ClockSkew:
    name = "clock-skew"
    about = "clocks run up to two percent too fast or too slowly, each at a rate of its own"
    mild = (0.002, 0.02)

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        target = random.choice(["all", "all", setting.victim(random)])
        return [setting.injection(random, self.name, (1.0, 8.0), target, random.uniform(0.005, 0.02))]

    def begin(self, world: World, injection: Injection) -> End | None:
        random = world.random_of(injection)
        rates = {
            node: 1 + random.uniform(-injection.amount, injection.amount) for node in sorted(world.resolve(injection))
        }
        world.acted(injection, ", ".join(f"node-{node} at {rate:.4f}" for node, rate in rates.items()))
        return all_of([world.conditions.skew(node, rate) for node, rate in rates.items()])


class ClockJump:
    name = "clock-jump"
    about = "wall clocks are set forward or back, by milliseconds up to hours"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        milliseconds = random.choice([-1, 1]) * float(int(10 ** random.uniform(1, 7)))
        return [setting.injection(random, self.name, (0.5, 8.0), setting.victims(random), milliseconds)]

    def begin(self, world: World, injection: Injection) -> End | None:
        nodes = world.resolve(injection)
        world.acted(injection, f"{injection.amount:+.0f} ms on {nodes}")
        return all_of([world.conditions.jump(node, injection.amount) for node in nodes])
