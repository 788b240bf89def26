"""Nodes that are killed, lose their power, are stopped in order, or stand still."""

from __future__ import annotations

from functools import partial
from random import Random

from quorate.simulation.cluster import host_of
from quorate.simulation.conditions import End
from quorate.simulation.faults.base import Setting, all_of
from quorate.simulation.plan import Injection
from quorate.simulation.world import World

DOWN_S = (0.05, 5.0)


def _names(nodes: list[int]) -> str:
    return ", ".join(f"node-{node}" for node in nodes)


class Crash:
    name = "crash"
    about = "processes are killed between two turns of their loops, and started again"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, DOWN_S, setting.victims(random))]

    def begin(self, world: World, injection: Injection) -> End | None:
        nodes = [node for node in world.resolve(injection) if world.cluster.is_up(node)]
        if nodes:
            world.acted(injection, _names(nodes))
        return all_of([world.crash(node) for node in nodes])


class PowerLoss:
    name = "power-loss"
    about = "machines lose their power, and with it what was not synced"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, DOWN_S, setting.victims(random))]

    def begin(self, world: World, injection: Injection) -> End | None:
        nodes = world.resolve(injection)
        if nodes:
            world.acted(injection, _names(nodes))
        return all_of([world.crash(node, power_loss=True) for node in nodes])


class PowerLossInOperation:
    name = "power-loss-in-operation"
    about = "machines lose their power in the middle of an operation on their disks"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        operations = float(int(random.uniform(0, 5) ** 3))
        return [setting.injection(random, self.name, (0.5, 5.0), setting.victims(random), operations)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """After `amount` more operations; with several machines, each after a few more or less."""
        random = world.random_of(injection)
        nodes = world.resolve(injection)
        ends = []
        for node in nodes:
            operations = int(injection.amount) + (random.randrange(4) if len(nodes) > 1 else 0)
            end = world.cut_power_after(node, operations, partial(world.acted, injection, f"node-{node}"))
            if end is not None:
                ends.append(end)
        return all_of(ends)


class Stop:
    name = "stop"
    about = "nodes are stopped in order (SIGTERM), and started again"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, (0.3, 4.0), setting.victims(random))]

    def begin(self, world: World, injection: Injection) -> End | None:
        nodes = [node for node in world.resolve(injection) if world.cluster.is_up(node)]
        if nodes:
            world.acted(injection, _names(nodes))
        return all_of([world.stop(node) for node in nodes])


class Pause:
    name = "pause"
    about = "processes stand still for a while (SIGSTOP), clients too"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        length_s = random.choice([(0.05, 0.5), (0.3, 2.0), (1.0, 6.0)])
        if random.random() < 0.3:
            return [setting.injection(random, self.name, (0.5, 15.0), setting.client(random))]
        return [setting.injection(random, self.name, length_s, setting.victims(random))]

    def begin(self, world: World, injection: Injection) -> End | None:
        hosts = [*map(host_of, world.resolve(injection)), *world.clients_of(injection)]
        ends = [end for host in hosts if (end := world.conditions.pause(host)) is not None]
        if ends:
            world.acted(injection, ", ".join(hosts))
        return all_of(ends)
